"""Fast layers: what torch computes, forwards and backwards, and nothing that only torch can do."""

import platform
import warnings
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jvp, vmap
from torch.fx.experimental.proxy_tensor import make_fx

import cappaper
from cappaper.attacks.surrogate import UnreachedWarning
from cappaper.operators import FastOperators, dense
from tests.layers import agree, network, with_onednn

pytestmark = [with_onednn, pytest.mark.usefixtures("fast_everywhere")]

SHAPES = [
    *[((5, 7), (3, 7)), ((1, 4), (6, 4)), ((2, 3, 7), (3, 7)), ((2, 1, 3, 4), (1, 4))],
    *[((40, 1), (2, 1)), ((33, 65), (129, 65))],
]


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


def test_dense_layers_that_see_the_same_are_one(taken):
    x, weight, bias = random((5, 7), (4, 3, 7), (4, 3))

    def layers(weight, bias):
        return vmap(F.linear)(x.detach().to(weight).expand(4, 5, 7), weight, bias)

    agree(*both(layers, weight, bias))
    assert [shape for _, shape in taken] == [(5, 7), (12, 5)]  # the output, and one gradient


def test_networks_that_see_the_same_may_go_on_with_a_view(taken):
    class Tokens(nn.Module):
        def __init__(self, seed):
            super().__init__()
            torch.manual_seed(seed)
            self.first, self.then = nn.Linear(8, 6), nn.Linear(48, 10)

        def forward(self, x):
            return self.then(self.first(x.view(len(x), 8, 8)).relu().view(len(x), 48))

    nets, x = [Tokens(0), Tokens(1)], torch.rand(5, 1, 8, 8)
    both = cappaper.Population(nets)
    traced = make_fx(both)(x)
    torch.export.export(both, (x,))
    for outputs in (both(x), traced(x)):
        for net, output in zip(nets, outputs, strict=True):
            torch.testing.assert_close(output, net(x), rtol=1e-4, atol=1e-4)


def test_a_population_brings_them_along(taken):
    x = torch.rand(5, 1, 8, 8)
    cappaper.Population([cappaper.mlp(64, [4]), cappaper.mlp(64, [4])])(x)
    assert [shape for _, shape in taken] == [(5, 64), (5, 4), (5, 4)]


@pytest.mark.parametrize("name", ["_ROWS", "_MULTIPLICATIONS"])
def test_small_layers_are_left_to_torch(name, taken, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(dense, name, {"_ROWS": 32, "_MULTIPLICATIONS": 16 * 21}[name])
    few, enough, weight = torch.ones(2, 15, 7), torch.ones(2, 16, 7), torch.ones(3, 7)
    with FastOperators():
        F.linear(few, weight)
        assert not taken
        F.linear(enough, weight)
    assert taken


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


def test_what_only_torch_can_do_is_left_to_torch(taken):
    net, x = network(), torch.rand(3, 1, 8, 8)
    weights = dict(net.named_parameters())

    def loss(weights, x):
        return functional_call(net, weights, (x.unsqueeze(0),)).square().sum()

    def along(x):
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(x, torch.ones_like(x))
            return forward_ad.unpack_dual(net(dual)).tangent

    def everything():
        return [
            *vmap(grad(loss), in_dims=(None, 0))(weights, x).values(),
            *jvp(net, (x,), (torch.ones_like(x),)),
            along(x),
            net.double()(x.double()).float(),
            net.float()(x.as_subclass(Subclass)).as_subclass(torch.Tensor),
            vmap(vmap(net[-1]))(torch.ones(2, 3, 5)),
        ]

    expected = everything()
    with FastOperators():
        found = everything()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    with FastOperators(), torch.autocast("cpu", torch.bfloat16):
        assert net(x).dtype is torch.bfloat16
    assert not taken


def test_a_model_may_be_traced_and_compiled():
    net, x = network(), torch.rand(3, 1, 8, 8)
    with warnings.catch_warnings(), FastOperators():
        warnings.simplefilter("ignore")  # tracing is out of date
        traced = torch.jit.trace(net, x)
        compiled = torch.compile(net, backend="eager", fullgraph=True)
        torch.testing.assert_close(traced(x), net(x))
        torch.testing.assert_close(compiled(x), net(x))
        both = cappaper.Population([network(), network()])
        compiled = torch.compile(both, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), both(x))


class Subclass(torch.Tensor):
    """Whose functions are its own."""


def test_the_gradient_of_images_lies_as_torchs_does(taken):
    layer, x = nn.Conv2d(1, 2, 3, stride=2), torch.rand(2, 1, 7, 8).requires_grad_()
    with FastOperators():
        layer(x).sum().backward()
    assert taken and x.grad.is_contiguous()


@pytest.mark.parametrize("stride", [np.int64(2), [2], [2, 2], torch.tensor(2), (2,)])
def test_a_stride_may_be_whatever_torch_takes(stride):
    x, weight = random((2, 1, 8, 8), (3, 1, 3, 3))
    agree(*both(partial(F.conv2d, stride=stride), x, weight))


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
        (partial(F.conv2d, stride=(2, 2, 2)), [(2, 1, 4, 4), (1, 1, 3, 3)]),
        (partial(F.conv2d, stride=0), [(2, 1, 4, 4), (1, 1, 3, 3)]),
    ],
)
def test_a_mistake_is_an_error_of_torchs(layer, shapes):
    said = []
    for context in (torch.enable_grad(), FastOperators()):
        with pytest.raises(RuntimeError) as raised, context:
            layer(*random(*shapes))
        said.append(str(raised.value))
    assert said[0] == said[1]


def test_a_processor_that_says_nothing_is_no_obstacle(monkeypatch):
    def unreadable(*_, **__):
        raise PermissionError

    monkeypatch.setattr(dense.Path, "read_text", unreadable)
    assert dense._processor() == platform.processor()


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


def test_training_is_torchs(taken):
    x, y = cappaper.load("digits", "train", limit=256)
    nets = [cappaper.convnet(8, [4, 8, 16], seed=seed) for seed in range(2)]
    fast = [cappaper.fit(net, x, y, epochs=1) for net in nets]
    assert {"_onednn", "conv2d_weight", "_of_input"} == dict(taken).keys()
    with torch.backends.mkldnn.flags(enabled=False):
        nets = [cappaper.convnet(8, [4, 8, 16], seed=seed) for seed in range(2)]
        torchs = [cappaper.fit(net, x, y, epochs=1) for net in nets]
    for one, other in zip(fast, torchs, strict=True):
        torch.testing.assert_close(one(x), other(x), rtol=1e-3, atol=1e-3)
