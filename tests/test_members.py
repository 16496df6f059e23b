"""Populations of other people's networks: settings, modes, shared layers, frozen weights."""

import copy
import pickle
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from cappaper import (
    CappedReLU,
    Population,
    evaluate,
    fit,
    load,
    mlp,
    pgd,
)
from cappaper.attacks.common import is_correct


@pytest.fixture(scope="module")
def digits():
    return load("digits", "test", limit=20)


class Slope:
    def __init__(self, slope):
        self.slope = slope

    def go(self, z):
        return self.slope * z

    def back(self, z):
        return -self.slope * z


class Number(float):
    """As a number that carries its unit."""


def scaled(factor):
    def act(z, *, factor=factor):
        return factor * z

    return act


class Own(nn.Module):
    """Settings that are neither parameters nor buffers, and no plain public numbers either."""

    def __init__(self, act=torch.relu, scale=1.0, shift=None, mean=0.5, more=None):
        super().__init__()
        self.more = more
        self.linear, self.act, self._scale, self.shift = nn.Linear(64, 10), act, scale, shift
        self.register_buffer("mean", torch.tensor(mean), persistent=False)

    def forward(self, x):
        z = self._scale * self.act(self.linear((x - self.mean).flatten(1)))
        return z if self.shift is None else z + self.shift


def shared():
    cap = CappedReLU(1.0)
    layers = [nn.Linear(64, 16), cap, nn.Linear(16, 16), cap, nn.Linear(16, 10)]
    return nn.Sequential(nn.Flatten(), *layers)


def normed():
    layers = [nn.Linear(64, 16), nn.BatchNorm1d(16), CappedReLU(1.0), nn.Linear(16, 10)]
    return nn.Sequential(nn.Flatten(), *layers)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"act": torch.relu}, {"act": torch.tanh}),
        ({"scale": 1.0}, {"scale": 3.0}),
        ({"shift": torch.zeros(10)}, {"shift": torch.ones(10)}),
        ({"act": partial(torch.clamp, max=1)}, {"act": partial(torch.clamp, max=2)}),
        ({"act": lambda z: z.relu()}, {"act": lambda z: z.tanh()}),
        ({"act": Slope(1.0).go}, {"act": Slope(2.0).go}),
        ({"act": Slope(1.0).go}, {"act": Slope(1.0).back}),
        ({"act": scaled(1.0)}, {"act": scaled(2.0)}),
        ({"scale": Number(1.0)}, {"scale": Number(2.0)}),
        ({"more": [nn.Parameter(torch.zeros(1))]}, {"more": [nn.Parameter(torch.ones(1))]}),
        ({"more": np.array([1.0, 2.0])}, {"more": np.array([1.0, 3.0])}),
    ],
)
def test_members_with_settings_of_their_own_are_no_population(one, other):
    name = {"scale": "_scale"}.get(next(iter(one)), next(iter(one)))
    with pytest.raises(ValueError, match=f"share one architecture, and differ in '{name}' of Own"):
        Population([Own(**one), Own(**other)])
    assert len(Population([Own(**one), Own(**one)])) == 2


def test_settings_are_compared_by_what_they_say_not_by_who_made_them():
    def made():
        return Own(act=partial(torch.clamp, max=2), shift=torch.ones(10))

    assert len(Population([made(), made()])) == 2
    assert len(Population([Own(act=lambda z: z.relu()) for _ in range(2)])) == 2
    assert len(Population([Own(more=np.array([0.1, np.pi])) for _ in range(2)])) == 2
    assert len(Population([Own(act=Slope(2.0).go) for _ in range(2)])) == 2
    with pytest.raises(ValueError, match="share one architecture"):
        Population([Own(act=lambda z, k=k: z.clamp(max=k)) for k in (1, 2)])


def test_a_population_that_was_called_can_be_copied(digits):
    """Its members keep what a call leaves in them; of two networks, it is named as a difference."""

    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp(64, [8])

        def forward(self, x):
            self.kept = self.net[:2](x)
            return self.net[2:](self.kept)

    x = digits.images
    nets = [Keeps(), Keeps()]
    both = Population(nets)
    out = both(x)
    twin = copy.deepcopy(both)
    assert torch.equal(twin(x), out) and torch.equal(twin[1](x), both[1](x))
    with torch.no_grad():
        nets[0](x)
        nets[1](x / 2)
    with pytest.raises(ValueError, match="differ in 'kept' of Keeps"):
        Population(nets)
    own = Population([Own(), Own()])
    out = own(x)
    assert torch.equal(pickle.loads(pickle.dumps(own))(x), out)


def test_the_order_of_parts_and_what_they_share_count(digits):
    parts = {
        "flat": nn.Flatten(),
        "one": nn.Linear(64, 64),
        "act": nn.ReLU(),
        "two": nn.Linear(64, 9),
    }
    orders = (["flat", "one", "act", "two"], ["flat", "act", "one", "two"])
    nets = [nn.Sequential(OrderedDict((name, parts[name]) for name in order)) for order in orders]
    with pytest.raises(ValueError, match="differ in their parts or the order of these"):
        Population(nets)
    tied, free = (nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Linear(64, 64)) for _ in "ab")
    tied[2].weight = tied[1].weight
    for pair in ([tied, free], [free, tied]):
        with pytest.raises(ValueError, match="differ in which of their weights are shared"):
            Population(pair)


def test_an_attack_leaves_a_part_in_train_mode_alone_in_a_population(digits):
    def partly():
        net = normed().eval()
        net[2].train()
        return net

    x, y = digits
    both = Population([partly(), partly()])
    before = {name: value.clone() for name, value in both.state_dict().items()}
    pgd(both, x.expand(2, *x.shape), y.expand(2, -1), 0.1, steps=3, early_exit=False)
    assert not both.training
    assert all(torch.equal(value, before[name]) for name, value in both.state_dict().items())


def test_members_keep_their_modes(digits):
    x = digits.images

    def frozen():
        layers = [nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 10)]
        net = nn.Sequential(nn.Flatten(), *layers).train()
        net[2].eval()
        return net

    both = Population([frozen(), frozen()])
    assert both.training and not both[1][2].training and both[1][1].training
    assert torch.allclose(both(x)[0], both[0](x), atol=1e-6)
    with pytest.raises(ValueError, match="the mode, train or eval, of BatchNorm1d at '2'"):
        Population([frozen(), frozen().train()])


def test_frozen_weights_stay_frozen_in_a_population(digits):
    net = mlp(64, [8])
    net[1].requires_grad_(False)
    trained = fit(Population([net, net]), *digits, epochs=1)
    for member in trained:
        assert torch.equal(member[1].weight, net[1].weight)
        assert not torch.equal(member[3].weight, net[3].weight)
    with pytest.raises(ValueError, match="share one architecture"):
        Population([net, mlp(64, [8])])


def test_a_member_comes_back_as_it_went_in(digits):
    """Shared modules, buffers that no state dict has, and the population's own dtype."""
    x, y = digits
    for one, other in ((shared(), shared()), (Own(), Own(mean=0.2))):
        both = Population([one, other])
        outputs = both(x)  # the skeleton has been called
        for i, net in enumerate((one, other)):
            assert torch.allclose(both[i](x), net(x), atol=1e-6)
            assert torch.allclose(outputs[i], net(x), atol=1e-6)
        rates = evaluate(both, x, y, partial(pgd, eps=0.1))
        assert rates.standard_accuracy == [
            pytest.approx(is_correct(net, x, y).double().mean()) for net in (one, other)
        ]
    assert both[1].mean == pytest.approx(0.2)
    member = Population([shared(), shared()])[1]
    assert member[2] is member[4]
    assert Population([mlp(64, [8])]).double()[0](x.double()).dtype == torch.float64


def test_an_attack_leaves_the_statistics_of_a_population_alone(digits):
    x, y = digits
    both = Population([normed(), normed()]).train()
    before = {name: value.clone() for name, value in both.state_dict().items()}
    pgd(both, x.expand(2, *x.shape), y.expand(2, -1), 0.1, steps=3, early_exit=False)
    assert all(torch.equal(value, before[name]) for name, value in both.state_dict().items())


def test_what_two_layers_share_is_one_members_in_both(digits):
    def tied(seed):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
        net[3].weight = net[1].weight
        return net

    nets = [tied(0), tied(1)]
    both = Population(nets)
    outputs = both(digits.images)
    for net, output in zip(nets, outputs, strict=True):
        torch.testing.assert_close(output, net(digits.images))
    ours = torch.autograd.grad(outputs.sum(), both.get_parameter("1__weight"))[0]
    for net, own in zip(nets, ours, strict=True):
        theirs = torch.autograd.grad(net(digits.images).sum(), net[1].weight)[0]
        torch.testing.assert_close(own, theirs, rtol=1e-3, atol=1e-3)


def test_a_call_that_fails_leaves_a_population_as_it_was(digits):
    class Fails(nn.Module):
        def forward(self, x):
            raise KeyError("no")

    both = Population([nn.Sequential(mlp(64, [8], seed=seed), Fails()) for seed in range(2)])
    before = copy.deepcopy(both)
    with pytest.raises(KeyError):
        both(digits.images)
    for ours, theirs in zip(both[1].parameters(), before[1].parameters(), strict=True):
        assert torch.equal(ours, theirs)
    kept = both._skeleton[0][0][1].weight
    assert type(kept) is nn.Parameter and kept.shape == (8, 64)


def test_threads_may_share_a_population(digits):
    both = Population([mlp(64, [32], seed=seed) for seed in range(4)])
    inputs = [digits.images[i : i + 20] for i in range(8)]
    alone = [both(x) for x in inputs]

    def call(i):
        return all(torch.allclose(both(inputs[i]), alone[i], atol=1e-5) for _ in range(30))

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(call, range(8)))
    assert type(both._skeleton[0][1].weight) is nn.Parameter
