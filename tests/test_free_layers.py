"""A model may do with its layers what it likes: the fast ones stand back, or do it, too."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import grad, vmap
from torch.utils.checkpoint import checkpoint

import cappaper
from cappaper.operators import FastOperators
from tests.layers import agree, network, with_onednn

pytestmark = [with_onednn, pytest.mark.usefixtures("fast_everywhere")]


class Called(nn.Module):
    """A model of one function of its layer and its images."""

    def __init__(self, function, layer=None):
        super().__init__()
        self.layer, self.function = layer or nn.Linear(6, 6), function

    def forward(self, x):
        return self.function(self.layer, x.flatten(1))


def one_matrix(layer, x):
    both = torch.cat([layer.weight, layer.bias.unsqueeze(1)], 1)
    return F.linear(x, both[:, :-1], both[:, -1])


def expanded(layer, x):
    return F.linear(x, layer.weight, layer.bias[:1].expand(6))


def broadcast(layer, x):
    return F.linear(x, layer.weight, layer.bias[:1])


def shared_trunk(layer, x):
    heads = torch.stack([layer.weight, -layer.weight])
    return vmap(lambda head: F.linear(layer(x).relu(), head))(heads).sum(0)


def two_levels(layer, x):
    rows = vmap(lambda shift: F.linear(x + shift, layer.weight))(torch.ones(3, 1))
    return rows.mean(0) + layer.bias


def within_a_gradient(layer, x):
    return grad(lambda scale: (scale * layer(x)).square().sum())(torch.ones(6)) + layer(x)


def fixed(layer, x):
    return layer(F.linear(x, torch.eye(6)))


def residual(layer, x):
    hidden = layer(x)
    hidden += layer(hidden)
    return hidden


def checkpointed(layer, x):
    return checkpoint(lambda x: layer(layer(x).tanh()), x, use_reentrant=False)


def slopes(layer, x):
    def few(x):
        return layer(x).tanh().sum(0)[:2]

    rows = torch.autograd.functional.jacobian(few, x, create_graph=True, vectorize=True)
    return layer(x) + rows.square().sum((0, 2)).unsqueeze(-1)


FUNCTIONS = [
    *(one_matrix, expanded, broadcast, shared_trunk, two_levels, within_a_gradient, fixed),
    *(checkpointed, slopes),
]
CASES = [*itertools.product(FUNCTIONS, [False, True]), (residual, True)]


@pytest.mark.parametrize("function, frozen", CASES)
def test_a_model_may_do_with_its_layers_what_it_likes(function, frozen):
    model = Called(function).requires_grad_(not frozen)
    agree(*slopes_of(model, torch.rand(4, 1, 2, 3)))


@pytest.mark.parametrize("own", [False, True], ids=["the same images", "each its own"])
@pytest.mark.parametrize(
    "function, frozen",
    [case for case in CASES if case[0] not in (within_a_gradient, checkpointed, slopes)],
)
def test_so_may_the_members_of_a_population(function, own, frozen):
    both = [Called(function).requires_grad_(not frozen) for _ in range(2)]
    shape = (2, 4, 1, 2, 3) if own else (4, 1, 2, 3)
    agree(*slopes_of(cappaper.Population(both), torch.rand(shape)))


def slopes_of(model, x):
    """Logits and gradients, the fast way and torch's."""
    found = []
    for context in (FastOperators(), torch.enable_grad()):
        point = x.clone().requires_grad_()
        with context:
            logits = model(point)
        sources = [point, *(p for p in model.parameters() if p.requires_grad)]
        found.append([logits, *torch.autograd.grad(logits.square().sum(), sources)])
    return found[0], [t.double() for t in found[1]]


def test_weights_may_change_once_no_gradient_needs_them(taken):
    layer, x = nn.Linear(6, 6), torch.rand(4, 6)
    with FastOperators():
        output = layer(x)
    with torch.no_grad():
        layer.weight.clamp_(-0.1, 0.1)
    output.sum().backward()
    assert taken and layer.weight.grad.is_contiguous()


def test_a_population_can_be_checkpointed(taken):
    both, x = cappaper.Population([network(), network()]), torch.rand(3, 1, 8, 8).requires_grad_()
    expected = torch.autograd.grad(both(x).sum(), x)
    with FastOperators():
        found = torch.autograd.grad(checkpoint(both, x, use_reentrant=False).sum(), x)
    torch.testing.assert_close(found, expected)


def test_a_convolution_passes_on_gradients_in_a_batch(taken):
    net, x = network(), torch.rand(2, 1, 8, 8)

    def rows():
        return torch.autograd.functional.jacobian(lambda x: net(x).sum(0), x, vectorize=True)

    expected = rows()
    with FastOperators():
        torch.testing.assert_close(rows(), expected)
    assert taken
