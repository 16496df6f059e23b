import copy
import math
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import cappaper
from cappaper import CappedReLU, ScaledSigmoid, capped_relu, mlp, replace_relu
from cappaper.activations import LeftAloneWarning
from cappaper.data import import_torchvision

betas = st.floats(1e-3, 1e3)
values = st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=20).map(torch.tensor)


@given(values, betas)
def test_is_the_papers_formula(z, beta):
    expected = torch.tensor([max(0.0, min(v, beta)) for v in z.tolist()])
    torch.testing.assert_close(capped_relu(z, beta), expected)


@given(values, betas)
def test_beta_is_only_a_scale(z, beta):
    """a(z, β) = β · a(z/β, 1): the identity on which "β is only a scale" rests."""
    torch.testing.assert_close(capped_relu(z, beta), beta * capped_relu(z / beta, 1.0))


@given(values)
def test_without_a_cap_it_is_relu_gradient_included(z):
    for function in (torch.relu, lambda t: capped_relu(t, math.inf), CappedReLU()):
        point = z.clone().requires_grad_()
        output = function(point)
        output.sum().backward()
        assert torch.equal(output, torch.relu(z))
        assert torch.equal(point.grad, (z > 0).float())


def test_the_gradient_is_zero_outside_the_ramp():
    z = torch.tensor([-1.0, 0.0, 0.2, 0.5, 0.7], requires_grad=True)
    capped_relu(z, 0.5).sum().backward()
    assert z.grad.tolist() == [0, 0, 1, 1, 0]


def test_scaled_sigmoid():
    z = torch.linspace(-3, 3, 7)
    torch.testing.assert_close(ScaledSigmoid(2.5)(z), 1 / (1 + torch.exp(-2.5 * z)))


def nested():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(4, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    ).eval()


def test_replace_relu_copies():
    model = nested()
    before = copy.deepcopy(model)
    capped = replace_relu(model, [0.1, 0.2])
    assert str(model) == str(before)
    assert (capped[2].beta.item(), capped[3][1].beta.item()) == pytest.approx((0.1, 0.2))
    assert torch.equal(capped[1].weight, model[1].weight)
    assert capped[1].weight is not model[1].weight
    assert not capped[2].training


@pytest.mark.parametrize(("layers", "where"), [([1], (3, 1)), (["3.1"], (3, 1)), ([0], (2,))])
def test_replace_relu_takes_positions_and_names(layers, where):
    capped = replace_relu(nested(), 0.1, layers)
    module = capped
    for index in where:
        module = module[index]
    assert isinstance(module, CappedReLU)
    assert sum(isinstance(m, CappedReLU) for m in capped.modules()) == 1


def test_replace_relu_keeps_a_shared_activation_shared():
    relu = nn.ReLU()
    model = nn.Sequential(nn.Linear(2, 2), relu, nn.Linear(2, 2), relu)
    capped = replace_relu(model, 0.1)
    assert capped[1] is capped[3] and isinstance(capped[1], CappedReLU)


def test_replace_relu_recaps_our_own_networks():
    assert replace_relu(mlp(4, [3]), 0.5)[2].beta == 0.5


def test_a_capped_resnet_is_attacked_and_bounded():
    resnet = import_torchvision().models.resnet18(num_classes=10).eval()
    x, y = torch.rand(2, 3, 32, 32), torch.tensor([0, 1])
    uncapped = replace_relu(resnet, math.inf)
    torch.testing.assert_close(uncapped(x), resnet(x))
    capped = replace_relu(resnet, 0.5)
    names = [name for name, m in capped.named_modules() if isinstance(m, CappedReLU)]
    assert len(names) == sum(isinstance(m, nn.ReLU) for m in resnet.modules())
    assert cappaper.pgd(capped, x, y, 8 / 255, steps=2).shape == x.shape
    assert cappaper.layer_distances(capped, x, x)[0].l2 == 0


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.relu, self.second = nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)
        self.swish = nn.Hardswish()

    def forward(self, x):
        return torch.nn.functional.relu(self.second(self.swish(self.relu(self.first(x)))))


def test_replace_relu_warns_of_activations_that_it_left_alone():
    with pytest.warns(LeftAloneWarning, match="left alone: Hardswish at '0.swish'"):
        replace_relu(nn.Sequential(Mixed()), 0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        replace_relu(nn.Sequential(Mixed()), 0.1, layers=["0.relu"])
        replace_relu(nested(), 0.1)


def test_replace_relu_caps_relu6_too():
    mobile = import_torchvision().models.mobilenet_v2(num_classes=10).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        capped = replace_relu(mobile, 0.5)
    assert not any(isinstance(m, nn.ReLU6) for m in capped.modules())
    assert any(isinstance(m, CappedReLU) for m in capped.modules())


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: capped_relu(torch.zeros(2), -1.0), "above 0, got -1"),
        (lambda: CappedReLU(0), "above 0, got 0"),
        (lambda: CappedReLU(-0.5), "above 0, got -0.5"),
        (lambda: CappedReLU(math.nan), "above 0, got nan"),
        (lambda: ScaledSigmoid(0), "c must be above 0"),
        (lambda: ScaledSigmoid(math.inf), "must be finite"),
        (lambda: replace_relu(nn.Linear(2, 2), 0.1), "no ReLU to cap"),
        (lambda: replace_relu(nested(), [0.1, 0.2, 0.3]), "3 max values for 2 layers"),
        (lambda: replace_relu(nested(), 0.1, [2]), r"no ReLU layer 2: use 0 to 1 or a name of '2'"),
        (lambda: replace_relu(nested(), 0.1, ["fc"]), "no ReLU layer 'fc'"),
        (lambda: replace_relu(nested(), 0.1, [0, "2"]), "named twice"),
    ],
)
def test_bad_input_gets_a_sentence(make, says):
    with pytest.raises(ValueError, match=says) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_a_learned_cap_moves_with_training_and_a_fixed_one_does_not():
    digits = cappaper.load("digits", "train", limit=256)
    learned = mlp(64, [16, 8], beta=0.05, activation=lambda b: CappedReLU(b, learned=True))
    fixed = mlp(64, [16, 8], beta=0.05)
    for net in (learned, fixed):
        cappaper.fit(net, *digits, epochs=2, lr=3e-3)
    assert all(net.beta == torch.tensor(0.05) for net in fixed if isinstance(net, CappedReLU))
    assert all(net.beta != torch.tensor(0.05) for net in learned if isinstance(net, CappedReLU))
    with pytest.raises(ValueError, match="must start finite"):
        CappedReLU(learned=True)


def test_a_learned_cap_has_the_same_gradient_for_the_input():
    z = torch.tensor([-1.0, 0.2, 3.0], requires_grad=True)
    (fixed,) = torch.autograd.grad(CappedReLU(0.5)(z).sum(), z)
    (learned,) = torch.autograd.grad(CappedReLU(0.5, learned=True)(z).sum(), z)
    assert torch.equal(fixed, learned)
