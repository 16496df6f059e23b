from functools import partial

import pytest
import torch

from cappaper import cw_l2, fit, mlp
from cappaper.attacks.common import is_correct


@pytest.fixture(scope="module")
def attacked(digits):
    """A trained ReLU network, 200 images, and our adversarial examples."""
    net = fit(mlp(64, [32, 16]), *digits[0], epochs=30, lr=3e-3)
    x, y = (tensor[:200] for tensor in digits[1])
    return net, x, y, cw_l2(net, x, y, steps=200)


@pytest.fixture
def foolbox_cw(foolbox):
    def attack(net, x, y, search_steps=9):
        c = {"binary_search_steps": search_steps, "initial_const": 1e-2}
        cw = foolbox.attacks.L2CarliniWagnerAttack(steps=200, stepsize=1e-2, **c)
        return cw(foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu"), x, y, epsilons=None)[0]

    return attack


@pytest.fixture
def adv_lib_cw(adv_lib):
    return partial(adv_lib.carlini_wagner_l2, max_iterations=200, initial_const=1e-2)


@pytest.mark.parametrize("referee", ["foolbox_cw", "adv_lib_cw"])
def test_the_median_distortion_is_that_of_the_referees(attacked, referee, request):
    """Within 5 % on 200 images."""
    net, x, y, ours = attacked
    theirs = request.getfixturevalue(referee)(net, x, y)
    correct = is_correct(net, x, y)
    a, b = ((adv - x)[correct].flatten(1).norm(dim=1).median().item() for adv in (ours, theirs))
    assert a == pytest.approx(b, rel=0.05)


def test_the_search_starts_at_the_same_c_as_foolbox(attacked, foolbox_cw):
    """The first c is small: alone, it reaches few images."""
    net, x, y, _ = attacked
    ours, theirs = cw_l2(net, x, y, steps=200, search_steps=1), foolbox_cw(net, x, y, 1)
    theirs = torch.where((theirs == 0).flatten(1).all(1).view(-1, 1, 1, 1), x, theirs)  # failures
    a, b = (1 - is_correct(net, adv, y).double().mean().item() for adv in (ours, theirs))
    assert a == pytest.approx(b, abs=0.05) and a < 0.5


def test_an_image_without_an_example_comes_back_unchanged(attacked):
    net, x, y, adversarial = attacked
    left = is_correct(net, adversarial, y)
    assert left.float().mean() < 0.01 and torch.equal(adversarial[left], x[left])


def test_confidence_costs_distance(attacked):
    net, x, y, _ = attacked
    few = {"steps": 100, "search_steps": 5}
    lengths = [(cw_l2(net, x, y, confidence=k, **few) - x).norm() for k in (0.0, 2.0)]
    assert lengths[0] < lengths[1]
