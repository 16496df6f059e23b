"""Populations of other people's networks: settings, modes, shared layers, frozen weights."""

import copy
import math
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm

from cappaper import CappedReLU, Population, evaluate, fit, mlp, pgd
from cappaper.attacks.common import is_correct
from tests.spellings import bounded_by


class Scaled(nn.Module):
    """A network with a private setting, and a buffer that no state dict has."""

    def __init__(self, scale=1.0, mean=0.5):
        super().__init__()
        self.linear, self._scale = nn.Linear(64, 10), scale
        self.register_buffer("mean", torch.tensor(mean), persistent=False)

    def forward(self, x):
        return self._scale * self.linear((x - self.mean).flatten(1)).relu()


def sequence(*layers):
    return nn.Sequential(nn.Flatten(), *layers)


def shared():
    cap = CappedReLU(1.0)
    return sequence(nn.Linear(64, 16), cap, nn.Linear(16, 16), cap, nn.Linear(16, 10))


def normed():
    return sequence(nn.Linear(64, 16), nn.BatchNorm1d(16), CappedReLU(1.0), nn.Linear(16, 10))


def tied(seed=0, tie=True):
    torch.manual_seed(seed)
    net = sequence(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
    if tie:
        net[3].weight = net[1].weight
    return net


def partly_in_train_mode(part):
    net = normed().eval()
    net[part].train()
    return net


def test_names_with_underscores_do_not_collide(twenty):
    nets = [mlp(64, [8], seed=seed) for seed in range(2)]
    for net in nets:
        net.register_parameter("1__weight", nn.Parameter(torch.zeros(8, 64)))
    x = twenty.images
    torch.testing.assert_close(Population(nets)(x), torch.stack([net(x) for net in nets]))


DIFFERENT = {
    "a setting": lambda: (Scaled(1.0), Scaled(3.0)),
    "a function": lambda: (Scaled(torch.relu), Scaled(torch.tanh)),
    "a list": lambda: (Scaled([1.0]), Scaled([2.0])),
    "a tensor": lambda: (Scaled(torch.zeros(2)), Scaled(torch.ones(2))),
    "one entry": lambda: (Scaled(torch.zeros(9999)), Scaled(torch.eye(9999, 1)[:, 0].roll(5000))),
    "a list of layers": lambda: (Scaled([nn.ReLU()]), Scaled([nn.ReLU()])),
    "a sparse tensor": lambda: [Scaled(torch.eye(n, 9).to_sparse()) for n in (1, 2)],
    "a width": lambda: (mlp(64, [8]), mlp(64, [9])),
    "a bound": lambda: (nn.Hardtanh(0.0, 2.0), nn.Hardtanh(0.0, 1.0)),
    "a bound of its class": lambda: (bounded_by(1.0), bounded_by(2.0)),
    "no bias": lambda: (sequence(nn.Linear(64, 4)), sequence(nn.Linear(64, 4, bias=False))),
    "a type": lambda: (sequence(nn.ReLU()), sequence(nn.GELU())),
    "a mode": lambda: (normed().train(), partly_in_train_mode(2)),
    "the order": lambda: (
        sequence(nn.Linear(64, 64), nn.ReLU()),
        sequence(nn.ReLU(), nn.Linear(64, 64)),
    ),
    "tied weights": lambda: (tied(), tied(tie=False)),
    "frozen weights": lambda: (mlp(64, [8]), mlp(64, [8]).requires_grad_(False)),
    "more layers": lambda: (mlp(64, [8]), mlp(64, [8])[:2]),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_networks_that_differ_in_more_than_numbers_are_refused(what):
    one, other = DIFFERENT[what]()
    for pair in ((one, other), (other, one)):
        with pytest.raises(ValueError, match="must share one architecture"):
            Population(pair)
    assert len(Population([one, one])) == 2


def test_a_refusal_names_the_first_layer_that_differs():
    with pytest.raises(ValueError, match="they differ first at the top"):
        Population([Scaled(1.0), Scaled(3.0)])
    with pytest.raises(ValueError, match="they differ first at 1"):
        Population([mlp(64, [8]), mlp(64, [9])])


ALIKE = {
    "caps": lambda seed: mlp(64, [16, 8], beta=(0.05, math.inf)[seed], seed=seed),
    "shared cap": lambda seed: shared(),
    "batch norm": lambda seed: normed(),
    "tied": tied,
    "a buffer": lambda seed: Scaled(mean=seed / 4),
    "weight": lambda seed: sequence(weight_norm(nn.Linear(64, 10))),
    "spectral": lambda seed: sequence(spectral_norm(nn.Linear(64, 10))),
    "orthogonal": lambda seed: sequence(orthogonal(nn.Linear(64, 10))),
}


@pytest.mark.parametrize("what", ALIKE)
def test_a_population_and_its_members_compute_what_the_networks_do(twenty, what):
    (x, y), nets = twenty, [ALIKE[what](seed).eval() for seed in (0, 1)]
    both = Population(nets)
    for i, net in enumerate(nets):
        assert torch.allclose(both(x)[i], net(x), atol=1e-5)
        assert torch.allclose(both(torch.stack([x, x]))[i], net(x), atol=1e-5)
        assert torch.allclose(both[i](x), net(x), atol=1e-5)
    rates = evaluate(both, x, y, partial(pgd, eps=0.1, steps=2))
    correct = [is_correct(net, x, y).double().mean().item() for net in nets]
    assert rates.standard_accuracy == pytest.approx(correct)
    assert torch.equal(copy.deepcopy(both)(x), both(x))
    assert Population(nets).double()[0](x.double()).dtype == torch.float64


def test_shared_modules_stay_shared_and_modes_stay_apart():
    member = Population([shared(), shared()])[1]
    assert member[2] is member[4]
    both = Population([partly_in_train_mode(2), partly_in_train_mode(2)])
    assert both[1][2].training and not both[1][1].training
    both.eval()  # all change it together, as in any module
    assert not both.template[2].training and both.train().template.training


def test_frozen_weights_stay_frozen_in_a_population(twenty):
    net = mlp(64, [8])
    net[1].requires_grad_(False)
    for member in fit(Population([net, net]), *twenty, epochs=1):
        assert torch.equal(member[1].weight, net[1].weight)
        assert not torch.equal(member[3].weight, net[3].weight)


def test_tied_weights_get_the_gradient_of_both_places(twenty):
    nets = [tied(0), tied(1)]
    both = Population(nets)
    ours = torch.autograd.grad(both(twenty.images).sum(), both.get_parameter("1:weight"))[0]
    for net, own in zip(nets, ours, strict=True):
        theirs = torch.autograd.grad(net(twenty.images).sum(), net[1].weight)[0]
        torch.testing.assert_close(own, theirs, rtol=1e-3, atol=1e-3)


def test_a_layer_that_vmap_has_no_rule_for_is_refused(twenty):
    for layer in (nn.GRU(64, 8), spectral_norm(nn.Linear(64, 10)).train()):
        with pytest.raises(ValueError, match="no rule for a layer of Sequential: use the members"):
            Population([sequence(layer)] * 2)(twenty.images)


def test_threads_may_share_a_population(twenty):
    both = Population([mlp(64, [32], seed=seed) for seed in range(2)])
    inputs = [twenty.images[i : i + 10] for i in range(8)]
    alone = [both(x) for x in inputs]
    with ThreadPoolExecutor(8) as threads:
        for together, expected in zip(threads.map(both, 20 * inputs), 20 * alone, strict=True):
            torch.testing.assert_close(together, expected)
