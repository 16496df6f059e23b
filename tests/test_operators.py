"""Fast layers: what torch computes, forwards and backwards, and nothing that only torch can do."""

import warnings
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad, jvp, vmap

import cappaper
from cappaper.attacks.surrogate import UnreachedWarning
from cappaper.operators import FastOperators, convolutions, dense

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"),
    reason="this torch comes without oneDNN",
)

SHAPES = [
    *[((5, 7), (3, 7)), ((1, 4), (6, 4)), ((2, 3, 7), (3, 7)), ((2, 1, 3, 4), (1, 4))],
    *[((40, 1), (2, 1)), ((33, 65), (129, 65))],
]


@pytest.fixture(autouse=True)
def everywhere(monkeypatch):
    """On every processor, and for layers of any size."""
    monkeypatch.setattr(dense, "_onednn_leads", lambda: True)
    for module in (dense, convolutions):
        monkeypatch.setattr(module, "_MULTIPLICATIONS", 0)
    monkeypatch.setattr(dense, "_ROWS", 0)


@pytest.fixture
def taken(monkeypatch):
    """What was computed the fast way: the shapes of products, and of images."""
    seen = []

    def spy(module, name):
        original = getattr(module, name)

        def seeing(x, *others):
            seen.append((name, tuple(x.shape)))
            return original(x, *others)

        monkeypatch.setattr(module, name, seeing)

    spy(dense, "_onednn")
    spy(convolutions, "_of_input")
    spy(convolutions, "conv2d_weight")
    return seen


def random(*shapes):
    generator = torch.Generator().manual_seed(len(str(shapes)))
    return [torch.randn(s, generator=generator).requires_grad_() for s in shapes]


def both(layer, *tensors):
    """Outputs and gradients, the fast way; and torch's own, in double precision."""
    found = []
    for context, kind in ((FastOperators(), torch.float32), (torch.enable_grad(), torch.float64)):
        given = [None if t is None else t.detach().to(kind).requires_grad_() for t in tensors]
        with context:
            output = layer(*given)
        weights = torch.linspace(-1, 1, output.numel(), dtype=kind).reshape(output.shape)
        sources = [t for t in given if t is not None]
        found.append([output, *torch.autograd.grad((weights * output).sum(), sources)])
    return found


def agree(fast, torchs):
    for one, other in zip(fast, torchs, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("shape, of_weight", SHAPES)
def test_a_dense_layer_is_torchs(shape, of_weight, with_bias, taken):
    x, weight, bias = random(shape, of_weight, of_weight[:1])
    agree(*both(F.linear, x, weight, bias if with_bias else None))
    assert len(taken) == 3  # the output, and the gradients of images and weights


@pytest.mark.parametrize("own", [True, False], ids=["each its own images", "the same images"])
def test_dense_layers_of_a_population_are_its_members(own, taken):
    x, weight, bias = random((4, 5, 7) if own else (5, 7), (4, 3, 7), (4, 3))
    layers = vmap(F.linear, in_dims=(0 if own else None, 0, 0))
    agree(*both(layers, x, weight, bias))
    assert len(taken) == 12
    agree(*both(lambda x, weight: vmap(F.linear, in_dims=(None, 1))(x, weight), x[0], weight))


def test_rows_may_have_gaps_between_them():
    x, weight = random((6, 2, 8), (4, 16))
    agree(*both(lambda x, weight: F.linear(x[:, 1], weight[:, ::2]), x, weight))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kernel", [(1, 1), (2, 3), (4, 4), (5, 2)])
@pytest.mark.parametrize("stride", [1, 2, (3, 1), (2, 3)])
@pytest.mark.parametrize("padding", [0, (1, 2), 4])
def test_a_convolution_is_torchs(channels, kernel, stride, padding, taken):
    for size in ((8, 9), (7, 5)):
        x, weight, bias = random((2, channels, *size), (3, channels, *kernel), (3,))
        layer = partial(F.conv2d, stride=stride, padding=padding)
        agree(*both(layer, x, weight, bias))
        agree(*both(layer, x, weight, None))
    assert bool(taken) == (channels == 1 or stride != 1)


def test_what_has_no_fast_way_is_torchs(taken):
    x, weight, bias = random((2, 4, 8, 8), (4, 2, 3, 3), (4,))
    agree(*both(partial(F.conv2d, stride=2, groups=2), x, weight, bias))
    x, weight, bias = random((2, 4, 8, 8), (4, 4, 3, 3), (4,))
    agree(*both(partial(F.conv2d, padding="same", dilation=2), x, weight, bias))
    agree(*both(partial(F.conv2d, stride=2), x[0], weight, bias))  # an image without a batch
    x, weight, bias = random((3, 2, 1, 8, 8), (3, 2, 1, 3, 3), (3, 2))
    agree(*both(vmap(partial(F.conv2d, stride=2)), x, weight, bias))
    x, weight = random((7,), (3, 7))
    agree(*both(F.linear, x, weight))
    assert not taken


def network():
    layers = [nn.Conv2d(1, 3, 4, 2, 1), nn.Tanh(), nn.Flatten(), nn.Linear(48, 5), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(5, 4))


def test_gradients_of_gradients_are_torchs(taken):
    net = network()
    x = torch.rand(3, 1, 8, 8).requires_grad_()

    def hessian():
        (slope,) = torch.autograd.grad(net(x).square().sum(), x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), [x, *net.parameters()])

    expected = hessian()
    with FastOperators():
        found = hessian()
    assert taken
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_what_only_torch_can_do_is_left_to_torch():
    net, x = network(), torch.rand(3, 1, 8, 8)
    weights = dict(net.named_parameters())

    def loss(weights, x):
        return functional_call(net, weights, (x.unsqueeze(0),)).square().sum()

    def everything():
        return [
            *vmap(grad(loss), in_dims=(None, 0))(weights, x).values(),
            *jvp(net, (x,), (torch.ones_like(x),)),
            net.double()(x.double()).float(),
            net.float()(x),
            vmap(vmap(net[-1]))(torch.ones(2, 3, 5)),
            torch.jit.trace(net, x)(x),
        ]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing is out of date
        expected = everything()
        with FastOperators():
            found = everything()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    with FastOperators(), torch.autocast("cpu", torch.bfloat16):
        assert net(x).dtype is torch.bfloat16


def test_oneDNN_can_be_switched_off(taken):
    net, x = network(), torch.rand(3, 1, 8, 8).requires_grad_()
    with FastOperators(), torch.backends.mkldnn.flags(enabled=False):
        net(x).sum().backward()
    assert not taken


@pytest.mark.parametrize(
    "layer, shapes",
    [
        (F.linear, [(2, 3), (4, 5)]),
        (F.linear, [(2, 3), (4, 3), (5,)]),
        (F.conv2d, [(2, 3, 4, 4), (1, 2, 3, 3)]),
        (F.conv2d, [(2, 1, 2, 2), (1, 1, 3, 3)]),
    ],
)
def test_a_mistake_is_an_error_of_torchs(layer, shapes):
    with pytest.raises(RuntimeError):
        layer(*random(*shapes))
    with pytest.raises(RuntimeError), FastOperators():
        layer(*random(*shapes))


def test_an_attack_pays_for_the_gradient_of_images_alone(taken):
    net, x, y = network(), torch.rand(6, 1, 8, 8), torch.arange(6) % 4
    cappaper.pgd(net, x, y, eps=0.1, steps=3, early_exit=False)
    assert "conv2d_weight" not in dict(taken)
    assert [name for name, _ in taken].count("_of_input") == 3
    assert [name for name, _ in taken].count("_onednn") == 2 * 2 * 3
    taken.clear()
    cappaper.fit(net, x, y, epochs=1)
    assert "conv2d_weight" in dict(taken) and "_of_input" not in dict(taken)


def test_an_attack_that_knows_does_not_take_a_fast_layer_for_a_models_own_function(taken):
    caps = [cappaper.convnet(8, [2, 3, 4], beta=0.2, seed=seed) for seed in range(2)]
    x, y = torch.rand(2, 1, 8, 8), torch.tensor([0, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnreachedWarning)
        cappaper.adaptive_pgd(caps[0], x, y, eps=0.1, steps=1)
        both = cappaper.Population(caps)
        cappaper.adaptive_pgd(both, x.expand(2, *x.shape), y.expand(2, 2), eps=0.1, steps=1)
    assert {"_of_input", "_onednn"} <= dict(taken).keys()


def test_training_is_torchs():
    x, y = cappaper.load("digits", "train", limit=256)
    nets = [cappaper.convnet(8, [4, 8, 16], seed=seed) for seed in range(2)]
    fast = [cappaper.fit(net, x, y, epochs=1) for net in nets]
    with torch.backends.mkldnn.flags(enabled=False):
        nets = [cappaper.convnet(8, [4, 8, 16], seed=seed) for seed in range(2)]
        torchs = [cappaper.fit(net, x, y, epochs=1) for net in nets]
    for one, other in zip(fast, torchs, strict=True):
        torch.testing.assert_close(one(x), other(x), rtol=1e-3, atol=1e-3)
