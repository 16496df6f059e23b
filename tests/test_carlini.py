import sys
from unittest.mock import MagicMock

import pytest
import torch

from cappaper import Population, fit, mlp
from cappaper.attacks.carlini_wagner import cw_l2
from cappaper.data import import_torchvision


@pytest.fixture(scope="module")
def attacked(digits):
    """A trained ReLU network, 200 images, and what our attack makes of them."""
    net = fit(mlp(64, [32, 16]), *digits[0], epochs=30, lr=3e-3)
    x, y = (tensor[:200] for tensor in digits[1])
    return net, x, y, cw_l2(net, x, y, steps=200)


def foolbox_cw(net, x, y, search_steps=9):
    foolbox = pytest.importorskip("foolbox")
    attack = foolbox.attacks.L2CarliniWagnerAttack(
        binary_search_steps=search_steps, steps=200, stepsize=1e-2, initial_const=1e-2
    )
    return attack(foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu"), x, y, epsilons=None)[0]


def advlib_cw(net, x, y):
    import_torchvision()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "visdom", MagicMock())  # of use for its plots alone
        attacks = pytest.importorskip("adv_lib.attacks")
    return attacks.carlini_wagner_l2(net, x, y, max_iterations=200, initial_const=1e-2)


@pytest.mark.parametrize("referee", [foolbox_cw, advlib_cw])
def test_the_median_distortion_is_that_of_the_referees(attacked, referee):
    """Within 5 % on 200 images."""
    net, x, y, ours = attacked
    theirs = referee(net, x, y)
    right = net(x).argmax(-1) == y
    a, b = ((adv - x)[right].flatten(1).norm(dim=1).median().item() for adv in (ours, theirs))
    assert a == pytest.approx(b, rel=0.05)


def test_the_search_starts_where_the_referees_does(attacked):
    """The first c is small: alone, it reaches few images."""
    net, x, y, _ = attacked
    ours, theirs = cw_l2(net, x, y, steps=200, search_steps=1), foolbox_cw(net, x, y, 1)
    theirs = torch.where((theirs == 0).flatten(1).all(1).view(-1, 1, 1, 1), x, theirs)  # no find
    a, b = ((net(adv).argmax(-1) != y).double().mean().item() for adv in (ours, theirs))
    assert a == pytest.approx(b, abs=0.05)
    assert a < 0.5


def test_what_comes_back_is_misclassified_or_untouched(attacked):
    net, x, y, adversarial = attacked
    fooled = net(adversarial).argmax(-1) != y
    assert fooled.float().mean() > 0.99
    assert torch.equal(adversarial[~fooled], x[~fooled])
    wrong = net(x).argmax(-1) != y
    assert torch.equal(adversarial[wrong], x[wrong])
    assert adversarial.min() >= 0 and adversarial.max() <= 1


def test_confidence_costs_distance(attacked):
    net, x, y, _ = attacked
    length = [
        (cw_l2(net, x, y, steps=100, search_steps=5, confidence=k) - x).norm() for k in (0.0, 2.0)
    ]
    assert length[0] < length[1]


def test_a_population_falls_as_its_members_do(digits):
    models = [mlp(64, [16], beta=b, seed=1).double() for b in (0.3, 1.0)]
    x, y = digits[1].images[:10].double(), digits[1].labels[:10]
    together = cw_l2(
        Population(models), x.expand(2, *x.shape), y.expand(2, -1), steps=50, search_steps=3
    )
    for i, model in enumerate(models):
        alone = cw_l2(model, x, y, steps=50, search_steps=3)
        torch.testing.assert_close(together[i], alone, atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    "bad",
    [{"steps": 0}, {"confidence": -1}, {"lr": 0}, {"initial_const": 0}, {"initial_const": 1e308}],
)
def test_bad_input_gets_a_sentence(bad):
    with pytest.raises(ValueError, match="must be"):
        cw_l2(mlp(4, [3]), torch.rand(1, 1, 2, 2), torch.tensor([0]), **bad)
