import math
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from hypothesis import given, strategies
from torch import nn

from cappaper import CappedReLU, Population, convnet, fit, mlp, replace_relu, rescale
from tests.test_certificate_refusals import with_hook
from tests.test_members import shared, tied

MAKERS = [partial(mlp, 64), partial(convnet, 8)]


def test_populations_of_any_architecture():
    def conv():
        layers = (nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), CappedReLU(0.5), nn.Dropout(0.5))
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(144, 10))

    models = [conv(), conv()]
    x, y = torch.rand(16, 1, 8, 8), torch.arange(16) % 10
    population = fit(Population(models), x, y, epochs=1)
    assert population(x).shape == (2, 16, 10)
    assert not torch.equal(population[0][1].running_mean, models[0][1].running_mean)
    torch.testing.assert_close(population(x)[1], population[1](x), atol=1e-5, rtol=0)


def test_threads_get_the_networks_of_their_seeds():
    def drawn(seed):
        torch.rand(99)  # of the global generator, which all threads share
        return mlp(64, [32], seed=seed)[1].weight

    with ThreadPoolExecutor(8) as threads:
        for seed, weight in enumerate(threads.map(drawn, range(100))):
            assert torch.equal(weight, mlp(64, [32], seed=seed)[1].weight)
    before = torch.get_rng_state()
    same, other = mlp(64, [32], seed=3, beta=0.1)[1].weight, mlp(64, [32], seed=4)[1].weight
    assert torch.equal(torch.get_rng_state(), before) and not torch.equal(same, other)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        assert torch.equal(nn.Linear(64, 32).weight, same)


def test_images_with_channels_and_inputs_without_are_taken():
    assert convnet(8, [2, 4], in_channels=3)(torch.zeros(5, 3, 8, 8)).shape == (5, 10)
    two = Population([nn.Linear(4, 3) for _ in range(2)], sample_dims=1)
    assert two(torch.zeros(5, 4)).shape == two(torch.zeros(2, 5, 4)).shape == (2, 5, 3)


def test_members_are_counted_from_both_ends():
    three = Population([mlp(4, [3], seed=s) for s in range(3)])
    for index in (-3, -1, 0, 2):
        expected = mlp(4, [3], seed=index % 3)
        assert torch.equal(three[index][1].weight, expected[1].weight)
    for index in (-4, 3):
        with pytest.raises(IndexError, match=f"member {index} of a population of 3"):
            three[index]


def test_saving_moves_beta_along():
    saved = Population([mlp(64, [8], beta=b) for b in (0.1, 0.2)]).state_dict()
    other = Population([mlp(64, [8]), mlp(64, [8])])
    other.load_state_dict(saved)
    assert [m[2].beta.item() for m in other] == pytest.approx([0.1, 0.2])


def test_a_convolutional_network_is_capped_everywhere_and_trains(digits):
    train, test = [part[:512] for part in digits[0]], digits[1]
    net = convnet(8, [4, 8, 16], beta=[0.3, 0.2, 0.1], seed=1)
    outputs = []
    for layer in net:
        if isinstance(layer, CappedReLU):
            layer.register_forward_hook(lambda m, x, out: outputs.append(out))
    net(test.images)
    assert [tuple(out.shape[1:]) for out in outputs] == [(4, 4, 4), (8, 2, 2), (16,)]
    for out, beta in zip(outputs, (0.3, 0.2, 0.1), strict=True):
        assert out.min() >= 0 and out.max() <= beta
    twins = Population([convnet(8, [8, 16, 32], seed=s) for s in (0, 1)])
    fit(twins, *train, epochs=30, lr=3e-3, seed=[0, 1])
    assert (twins(test.images).argmax(-1) == test.labels).float().mean() > 0.8


caps = strategies.lists(strategies.floats(0.01, 10), min_size=2, max_size=2)


@given(old=caps, new=caps, seed=strategies.integers(0, 100), make=strategies.sampled_from(MAKERS))
def test_a_rescaled_network_has_the_same_logits(old, new, seed, make):
    net = make([6, 5], beta=old, seed=seed).double()
    x = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(seed)).double()
    before = net(x)
    moved = rescale(net, new)
    assert [m.beta.item() for m in moved if isinstance(m, CappedReLU)] == pytest.approx(new)
    # β itself is kept in float32.
    torch.testing.assert_close(moved(x), before, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(net(x), before, atol=0, rtol=0)


def test_rescaling_leaves_relu_layers_alone(twenty):
    net = mlp(64, [16, 8], beta=[math.inf, 0.5])
    moved = rescale(net, [math.inf, 0.05])
    torch.testing.assert_close(moved(twenty.images), net(twenty.images))
    assert (moved[2].beta.item(), moved[4].beta.item()) == pytest.approx((math.inf, 0.05))


LINEAR = nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: mlp("a", [3]), "must be a whole number, got 'a'"),
        (lambda: mlp(4, [3.5]), r"must be a whole number, got 3\.5"),
        (lambda: mlp(64, [0]), "every width of a network must be at least 1, got 0"),
        (lambda: mlp(64, [8], beta=-1), "above 0, got -1"),
        (lambda: mlp(64, [8, 8], beta=[0.1, 0.2, 0.3]), "3 max values for 2 layers"),
        (lambda: convnet(8, [4.5, 4]), r"must be a whole number, got 4\.5"),
        (lambda: convnet(8, [4]), "at least one convolution and the dense layer"),
        (lambda: convnet(8, [0, 4]), "must be at least 1, got 0"),
        (lambda: convnet(8, [4, 4], beta=[0.1]), "1 max values for 2 layers"),
        (lambda: rescale(mlp(4, [3]), 0.5), "cannot be rescaled"),
        (lambda: rescale(mlp(4, [3], beta=1.0), [1, 2]), "2 max values for 1 layers"),
        (lambda: rescale(nn.Sequential(nn.Tanh()), 0.5), "needs an mlp or convnet"),
        (lambda: rescale(with_hook(), 0.5), "needs an mlp or convnet"),
        (lambda: rescale(nn.Sequential(LINEAR, CappedReLU(1)), 0.5), "shared layers"),
        (lambda: rescale(nn.Sequential(LINEAR, CappedReLU(1), LINEAR), 0.5), "shared layers"),
        (lambda: rescale(shared(), 0.5), "shared layers"),
        (lambda: rescale(replace_relu(tied(), 1.0), 0.5), "shared layers"),
        (lambda: Population([1]), "must be a torch module, got int"),
        (lambda: Population([]), "models must not be empty"),
        (lambda: Population([mlp(64, [4]), with_hook()]), "no hooks"),
        (lambda: Population([mlp(64, [8])])(torch.zeros(64)), r"of 4 dim.* got shape \[64\]"),
        (lambda: Population([mlp(64, [8])])(torch.zeros(2, 5, 1, 8, 8)), r"or \[1, B, \.\.\.\]"),
        (lambda: Population([mlp(64, [8])] * 2)(torch.zeros(1, 5, 1, 8, 8)), r"or \[2, B"),
    ],
)
def test_bad_input_gets_a_sentence(make, says):
    with pytest.raises((TypeError, ValueError), match=says):
        make()
