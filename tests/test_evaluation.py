import copy
import math
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from cappaper import (
    Population,
    Rates,
    adaptive_pgd,
    evaluate,
    fgsm,
    is_robust,
    mlp,
    pgd,
    robustness_curve,
)
from tests.spellings import Function
from tests.trained import trained


@pytest.fixture(scope="module")
def nets():
    return Population(trained(0.1, 1.0, math.inf))


def test_the_three_rates_count_examples(nets, digits):
    x, y = digits[1]
    attack = partial(pgd, eps=0.1)
    net = nets[2]
    clean, adversarial = (net(i).argmax(-1) == y for i in (x, attack(net, x, y)))
    rates = evaluate(net, x, y, attack, batch_size=1000)
    assert rates.standard_accuracy == pytest.approx(clean.double().mean().item())
    # PGD leaves alone what is already wrong, so its examples give the robust accuracy.
    assert rates.robust_accuracy == pytest.approx(adversarial.double().mean().item(), abs=0.01)
    turned = 1 - rates.robust_accuracy / rates.standard_accuracy
    assert rates.success_rate == pytest.approx(turned)


def test_an_attack_does_not_make_a_wrong_image_right():
    net = Function(lambda x: torch.cat([-x, x], dim=1).flatten(1))
    x, y = torch.full((1, 1, 1, 1), 0.5), torch.tensor([0])
    rates = evaluate(net, x, y, lambda model, x, y: torch.zeros_like(x))
    assert (rates.standard_accuracy, rates.robust_accuracy, rates.success_rate) == (0, 0, 0)


def test_a_curve_falls_and_starts_at_standard_accuracy(nets, digits):
    curve = robustness_curve(nets, *digits[1], pgd, [0.0, 0.05, 0.1, 0.3, 1.0])
    robust = torch.tensor([rates.robust_accuracy for rates in curve])
    assert (robust.diff(dim=0) <= 0).all()
    assert robust[0].tolist() == pytest.approx(curve[0].standard_accuracy)
    assert robust[-1].max() <= 0.5  # at ε = 1 any image can become any other: PGD's own failure


def test_a_curve_is_at_least_as_strong_as_each_radius_alone(nets, digits):
    """Image by image: starts depend on the image, so the curve has those of each radius."""
    x, y = digits[1].images.double(), digits[1].labels
    attacks = [partial(pgd, eps=eps, steps=20) for eps in (0.05, 0.1, 0.2)]
    for net in nets:
        net = net.double()
        curve = is_robust(net, x, y, attacks)
        for row, attack in zip(curve[1:], attacks, strict=True):
            assert not (row & ~is_robust(net, x, y, [attack])[1]).any()
        assert (curve[1:] <= curve[:-1]).all()


@pytest.mark.parametrize("batch_size", [1, 7, 360])
def test_the_batch_size_changes_no_outcome(nets, digits, batch_size):
    x, y = digits[1].images[:40].double(), digits[1].labels[:40]
    robust = partial(is_robust, nets[0].double(), x, y, [partial(adaptive_pgd, eps=0.05, steps=3)])
    assert torch.equal(robust(batch_size=batch_size), robust())


@pytest.mark.parametrize("shuffle", [False, True])
def test_loaders_and_populations_give_the_rates_of_their_images_and_members(nets, digits, shuffle):
    images, labels = digits[1].images.double(), digits[1].labels
    generator = torch.Generator().manual_seed(0)
    data = TensorDataset(images, labels)
    loader = DataLoader(data, batch_size=50, shuffle=shuffle, generator=generator)
    attack = partial(pgd, eps=0.1, steps=5)
    members = [net.double() for net in nets]
    alone = [evaluate(member, images, labels, attack) for member in members]
    assert [evaluate(member, loader, attack) for member in members] == alone
    together = vars(evaluate(Population(members), loader, attack))
    assert together == {rate: [vars(rates)[rate] for rates in alone] for rate in together}


def test_progress_counts_batches_and_changes_no_rate(nets, digits, capsys):
    net, attack, seen = nets[0].double(), partial(pgd, eps=0.1, steps=5), []
    data = digits[1].images.double(), digits[1].labels
    told = evaluate(net, *data, attack, progress=lambda *at: seen.append(at))
    assert told == evaluate(net, *data, attack, progress=True) == evaluate(net, *data, attack)
    assert seen == [(done, len(seen)) for done in range(1, len(seen) + 1)] and len(seen) == 10
    assert "batches: " in capsys.readouterr().err
    endless, seen = (pair for pair in [data]), []  # a loader without a length
    assert evaluate(net, endless, attack, progress=lambda *at: seen.append(at)) == told
    assert seen == [(1, 0)]


def test_batches_are_not_kept_and_a_loader_raises_its_own_error():
    kept, at_once = [], []

    def batches():
        for _ in range(5):
            x = torch.rand(4, 1, 8, 8)
            kept.append(weakref.ref(x))
            at_once.append(sum(one() is not None for one in kept))
            yield x, torch.zeros(4, dtype=torch.int64)
        raise ValueError("file 17 is truncated")

    with pytest.raises(ValueError, match=r"^file 17 is truncated$"):
        evaluate(mlp(64, [4]), batches(), partial(fgsm, eps=0.1))
    assert max(at_once) <= 2


def test_rates_are_printed_in_percent_one_line_for_each_member():
    line = "standard accuracy 97.0%, robust accuracy 48.5%, success rate 50.0%"
    assert str(Rates(0.97, 0.485, 0.5)) == line
    assert str(Rates([0.97, 1.0], [0.485, 1.0], [0.5, 0.0])).splitlines()[0] == line


def test_evaluation_leaves_the_mode_as_it_was(digits):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Dropout(0.5)).train()
    assert evaluate(net, *digits[1], partial(fgsm, eps=0.0)).success_rate == 0  # no dropout inside
    assert net.training
    net[2].eval()  # one part of it is in another mode
    with pytest.raises(ZeroDivisionError):
        evaluate(net, *digits[1], lambda model, x, y: 1 / 0)
    assert [m.training for m in net.modules()] == [True, True, True, False]


def test_two_threads_that_evaluate_one_model_leave_its_modes_and_buffers(twenty):
    layers = [nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Dropout(0.9), nn.Linear(8, 10)]
    model = nn.Sequential(*layers)
    x, y = twenty.images, model.eval()(twenty.images).argmax(1)
    model.train()
    kept, gate, modes = copy.deepcopy(model.state_dict()), threading.Barrier(2), []

    def attack(model, x, y, others):
        gate.wait()  # both are inside
        wait(others)  # these have left
        modes.append(model.training)
        return x

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(evaluate, model, x, y, partial(attack, others=[]))
        threads.submit(evaluate, model, x, y, partial(attack, others=[first]))
    assert modes == [False, False] and all(part.training for part in model.modules())
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())


def beyond(model, x, y, *, eps):
    return (x + 2 * eps).clamp(0, 1)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda m, x, y: evaluate(m, x * 2, y, pgd), r"lie in \[0, 1\]"),
        (lambda m, x, y: evaluate(m, x, y, pgd, batch_size=0), "batch_size"),
        (lambda m, x, y: robustness_curve(m, x, y, pgd, [0.2, 0.1]), "must ascend"),
        (lambda m, x, y: robustness_curve(m, x, y, pgd, [-0.1]), "at least 0"),
        (lambda m, x, y: evaluate(m, x, y, lambda m, x, y: x * math.nan), "finite images in"),
        (lambda m, x, y: evaluate(m, x, y, lambda m, x, y: x + 2), "finite images in"),
        (lambda m, x, y: evaluate(m, x, y, lambda m, x, y: x[:1]), "images of shape"),
        (lambda m, x, y: evaluate(m, x, y), "an attack must be a function, got None"),
        (lambda m, x, y: evaluate(m, [], pgd), "there are no images"),
        (lambda m, x, y: evaluate(m, [{"x": x}], pgd), "a loader must give pairs"),
        (lambda m, x, y: evaluate(m, x, y, partial(beyond, eps=0.1)), r"by 0\.2, ε is 0\.1"),
        (lambda m, x, y: robustness_curve(m, x, y, beyond, [0.1, 0.2]), "the attack left its ball"),
    ],
)
def test_bad_input_gets_a_sentence(call, says, digits):
    with pytest.raises((TypeError, ValueError), match=says):
        call(mlp(64, [4]), *digits[1])


def test_an_l2_attack_that_stays_in_its_ball_is_accepted(nets, digits):
    attack = partial(pgd, eps=0.3, norm="l2", steps=5)
    assert evaluate(nets[0], *(tensor[:50] for tensor in digits[1]), attack)


@pytest.mark.parametrize("kind", [tuple, np.array, torch.tensor])
def test_radii_come_in_any_sequence(nets, digits, kind):
    x, y = digits[1].images[:50].double(), digits[1].labels[:50]
    net, radii = copy.deepcopy(nets[2]).double(), [0.0, 0.125]
    assert robustness_curve(net, x, y, pgd, kind(radii)) == robustness_curve(net, x, y, pgd, radii)
