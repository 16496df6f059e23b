import copy
import importlib
import math
import threading
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import cappaper
from cappaper import CappedReLU, ScaledSigmoid, capped_relu, mlp, replace_relu
from cappaper.data import import_torchvision

values = st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=20).map(torch.tensor)


@given(values, st.floats(1e-3, 1e3))
def test_capped_relu_is_the_papers_formula_and_beta_is_only_its_scale(z, beta):
    expected = torch.tensor([max(0.0, min(v, beta)) for v in z.tolist()])
    torch.testing.assert_close(capped_relu(z, beta), expected)
    torch.testing.assert_close(beta * capped_relu(z / beta, 1.0), expected)


@given(values)
def test_without_a_cap_it_is_relu_gradient_included(z):
    for function in (torch.relu, lambda t: capped_relu(t, math.inf), CappedReLU()):
        point = z.clone().requires_grad_()
        output = function(point)
        output.sum().backward()
        assert torch.equal(output, torch.relu(z))
        assert torch.equal(point.grad, (z > 0).float())


@pytest.mark.parametrize(
    "cap",
    [
        CappedReLU(0.5),
        CappedReLU(0.5, learned=True),
        lambda z: capped_relu(z, 0.5),
        torch.jit.script(CappedReLU(0.5)),
        torch.fx.symbolic_trace(nn.Sequential(CappedReLU(0.5))),
    ],
    ids=["layer", "learned", "function", "scripted", "traced"],
)
def test_the_gradient_is_one_on_the_ramp_alone(cap):
    z = torch.tensor([-1.0, 0.0, 0.2, 0.5, 0.7, math.nan], requires_grad=True)
    output = cap(z)
    (slope,) = torch.autograd.grad(output.sum(), z)
    assert slope[[0, 1, 2, 4]].tolist() == [0, 0, 1, 0]
    expected = torch.tensor([0.0, 0.0, 0.2, 0.5, 0.5, math.nan])
    assert torch.equal(output.nan_to_num(9), expected.nan_to_num(9))


def test_scaled_sigmoid_is_its_formula():
    z = torch.linspace(-3, 3, 7)
    torch.testing.assert_close(ScaledSigmoid(2.5)(z), 1 / (1 + torch.exp(-2.5 * z)))


def nested():
    inner = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.ReLU(), inner).eval()


def locked():
    net = nn.Sequential(nn.ReLU())
    net.lock = threading.Lock()
    return net


def test_replace_relu_copies_the_model():
    model = nested()
    before = copy.deepcopy(model)
    capped = replace_relu(model, [0.1, 0.2])
    assert str(model) == str(before)
    assert (capped[2].beta.item(), capped[3][1].beta.item()) == pytest.approx((0.1, 0.2))
    assert torch.equal(capped[1].weight, model[1].weight)
    assert capped[1].weight is not model[1].weight
    assert not capped[2].training
    assert replace_relu(mlp(4, [3]), 0.5)[2].beta == 0.5


@pytest.mark.parametrize(("layers", "name"), [([1], "3.1"), (["3.1"], "3.1"), ([0], "2")])
def test_replace_relu_takes_positions_and_names(layers, name):
    capped = replace_relu(nested(), 0.1, layers)
    assert [n for n, m in capped.named_modules() if isinstance(m, CappedReLU)] == [name]


def test_replace_relu_keeps_a_shared_activation_shared():
    relu = nn.ReLU()
    capped = replace_relu(nn.Sequential(nn.Linear(2, 2), relu, nn.Linear(2, 2), relu), 0.1)
    assert capped[1] is capped[3] and isinstance(capped[1], CappedReLU)


def test_a_capped_resnet_is_attacked_and_bounded():
    resnet = import_torchvision().models.resnet18(num_classes=10).eval()
    x, y = torch.rand(2, 3, 32, 32), torch.tensor([0, 1])
    capped, uncapped, flat = (replace_relu(resnet, beta) for beta in (0.5, math.inf, 1e-3))
    torch.testing.assert_close(uncapped(x), resnet(x))
    both = cappaper.Population([capped, uncapped])
    torch.testing.assert_close(both(x)[1], resnet(x), atol=1e-5, rtol=1e-4)
    count = sum(isinstance(m, CappedReLU) for m in capped.modules())
    assert count == sum(isinstance(m, nn.ReLU) for m in resnet.modules())
    for attack in (cappaper.pgd, cappaper.adaptive_pgd):
        assert attack(capped, x, y, 8 / 255, steps=2).shape == x.shape
    with cappaper.surrogate_gradient(flat, 3.0):
        (gradient,) = torch.autograd.grad(flat(x.requires_grad_()).sum(), x)
    assert gradient.flatten(1).ne(0).any(1).all()
    extraction = importlib.import_module("torchvision.models.feature_extraction")
    assert extraction.create_feature_extractor(capped, ["layer1"])(x)["layer1"].max() <= 0.5


@pytest.mark.parametrize(
    "layer",
    [nn.GRU(4, 4), nn.LSTMCell(4, 4), nn.TransformerDecoderLayer(4, 2), nn.Hardtanh(), nn.SiLU()],
)
def test_replace_relu_names_what_has_an_activation_of_its_own(layer):
    with pytest.warns(UserWarning, match=f"left alone: {type(layer).__name__} at '0'"):
        replace_relu(nn.Sequential(layer, nn.ReLU()), 0.1)


class Twice(nn.ReLU):
    """Not a ReLU: it would be lost."""

    def forward(self, z):
        return 2 * super().forward(z)


@pytest.mark.filterwarnings("error")
def test_a_capped_transformer_layer_is_capped_in_eval_mode_too():
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, activation=nn.ReLU()).eval()
    capped, z = replace_relu(layer, 0.01), torch.rand(2, 3, 4)
    with torch.no_grad():
        without_gradients = capped(z)
    torch.testing.assert_close(without_gradients, capped(z))


def test_replace_relu_warns_of_activations_that_it_left_alone():
    mixed = nn.Sequential(nn.Sequential(nn.ReLU(), nn.Hardswish()), nn.Softmax(-1))
    with pytest.warns(UserWarning, match="left alone: Hardswish at '0.1'$") as caught:
        replace_relu(mixed, 0.1)
    assert caught[0].filename == __file__
    encoder = nn.Sequential(nn.TransformerEncoderLayer(4, 2), nn.RNN(4, 4), nn.ReLU(), Twice())
    with pytest.warns(UserWarning, match="TransformerEncoderLayer at '0'; RNN at '1'; Twice at"):
        replace_relu(encoder, 0.1)
    mobile = import_torchvision().models.mobilenet_v2(num_classes=10).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        replace_relu(mixed, 0.1, layers=["0.0"])
        replace_relu(nested(), 0.1)
        capped = replace_relu(mobile, 0.5)
    assert not any(isinstance(m, nn.ReLU6) for m in capped.modules())
    assert any(isinstance(m, CappedReLU) for m in capped.modules())


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: capped_relu(torch.zeros(2), -1.0), "above 0, got -1"),
        (lambda: CappedReLU(0), "^a max value β other than ∞ must .* above 0, got 0"),
        (lambda: CappedReLU(-0.5), "above 0, got -0.5"),
        (lambda: CappedReLU(math.nan), "above 0, got nan"),
        (lambda: CappedReLU(learned=True), "^a learned .* finite number above 0, got inf"),
        (lambda: ScaledSigmoid(0), "c must be a finite number above 0, got 0"),
        (lambda: ScaledSigmoid(math.inf), "finite number above 0, got inf"),
        (lambda: replace_relu(nn.Linear(2, 2), 0.1), "no ReLU to cap"),
        (lambda: replace_relu(locked(), 0.1), "Sequential cannot be deep-copied: cannot pickle"),
        (lambda: cappaper.Population([locked()]), "Sequential cannot be deep-copied: cannot pi"),
        (lambda: replace_relu(nested(), [0.1, 0.2, 0.3]), "3 max values for 2 layers"),
        (lambda: replace_relu(nested(), 0.1, [2]), "no ReLU layer 2: use one of 0, 1, '2', '3.1'"),
        (lambda: replace_relu(nested(), 0.1, ["fc"]), "no ReLU layer 'fc'"),
        (lambda: replace_relu(nested(), 0.1, [0, "2"]), "named twice"),
    ],
)
def test_bad_input_gets_a_sentence(make, says):
    with pytest.raises(ValueError, match=says) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("learned", [False, True])
def test_a_learned_cap_moves_with_training_and_a_fixed_one_does_not(learned):
    net = mlp(64, [16, 8], beta=0.05, activation=lambda b: CappedReLU(b, learned=learned))
    cappaper.fit(net, *cappaper.load("digits", "train", limit=256), epochs=2, lr=3e-3)
    moved = [layer.beta != torch.tensor(0.05) for layer in net if isinstance(layer, CappedReLU)]
    assert moved == [learned, learned]
