"""Models and settings that make a result doubtful: what is said, and which result is right."""

import copy
import warnings
from functools import partial
from inspect import signature

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cappaper import (
    Population,
    adaptive_pgd,
    apgd,
    auto_attack,
    certify,
    cw_l2,
    evaluate,
    fgsm,
    fit,
    is_robust,
    masking_report,
    mlp,
    pgd,
    robustness_curve,
    robustness_report,
    square,
    strongest_attack,
)
from cappaper.attacks.balls import integers
from cappaper.attacks.common import is_correct
from cappaper.checks import ReliabilityWarning
from tests.test_attacks import textbook_pgd
from tests.trained import trained

quiet = pytest.mark.filterwarnings("ignore::UserWarning")
ATTACKS = {
    "pgd": partial(pgd, eps=0.1, steps=10),
    "adaptive_pgd": partial(adaptive_pgd, eps=0.1, steps=5),
    "apgd": partial(apgd, eps=0.1, steps=10),
    "square": partial(square, eps=0.1, queries=50),
    "strongest_attack": partial(strongest_attack, eps=0.1, steps=4, queries=20),
    "cw_l2": partial(cw_l2, steps=5, search_steps=2),
}


@pytest.fixture(scope="module")
def net():
    return trained()


class After(nn.Module):
    """A function of images and logits, as a model in eval mode."""

    def __init__(self, net, function):
        super().__init__()
        self.net, self.function, self.largest = net, function, 0
        self.eval()

    def forward(self, x):
        self.largest = max(self.largest, len(x))
        return self.function(x, self.net)


NOISE = {
    "noise": lambda x, net: net(x + 0.2 * torch.randn_like(x)),
    "dropout": lambda x, net: net[3:](F.dropout(net[:3](x), 0.5)),
    "missing pixels": lambda x, net: net(x * (torch.rand_like(x) > 0.2)),
}


@torch.no_grad()
def mean_accuracy(model, x, y):
    return torch.stack([model(x).argmax(1) == y for _ in range(200)]).double().mean().item()


@quiet
@pytest.mark.parametrize("kind", NOISE)
def test_an_attack_on_a_stochastic_model_does_not_stop_by_chance(net, sixty, kind):
    torch.manual_seed(0)
    (x, y), model = sixty, After(net, NOISE[kind])
    plain = mean_accuracy(model, textbook_pgd(model, x, y, 0.1, first=False), y)
    many, strong = partial(pgd, samples=10), partial(strongest_attack, steps=20, queries=100)
    for attack in (pgd, many, partial(adaptive_pgd, steps=20), partial(apgd, steps=40), strong):
        assert mean_accuracy(model, attack(model, x, y, 0.1), y) <= plain + 0.06
    few = mean_accuracy(model, pgd(model, x, y, 0.1), y)
    assert mean_accuracy(model, many(model, x, y, 0.1), y) <= few + 0.02


@quiet
def test_a_stochastic_model_is_judged_by_its_mean(net, sixty):
    """A draw is wrong for one image in five: the mean is right, whatever the draw."""
    torch.manual_seed(0)
    x, seen = sixty.images, set()
    y = net(x).argmax(1)

    def flips(x, net):
        seen.add(len(x))
        logits = 100 * net(x) + torch.randn(len(x), 1)  # so that every pass differs
        return torch.where(torch.rand(len(x), 1) < 0.2, logits.roll(1, -1), logits)

    model = After(net, flips)
    rates = evaluate(model, x, y, lambda model, x, y: x)
    assert rates.robust_accuracy == rates.standard_accuracy == 1
    seen.clear()
    square(model, x, y, 1e-6, queries=30)
    assert seen == {2, 60}  # two images to notice it, and no image stops


@quiet
@pytest.mark.parametrize("attack", [pgd, adaptive_pgd])
def test_an_attack_follows_the_mean_of_as_many_passes_as_asked(net, sixty, attack):
    def passes(samples):
        calls = []
        noisy = After(net, lambda x, net: calls.append(x.requires_grad) or NOISE["noise"](x, net))
        attack(noisy, *sixty, 0.1, steps=2, samples=samples)
        return sum(calls)

    assert passes(5) >= 4 * passes(1)


def doubts(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        call()
    return [str(w.message) for w in caught if w.category is ReliabilityWarning], caught


DOUBTS = {
    "is stochastic": (lambda x, net: 1e-6 * NOISE["noise"](x, net), 0.1),
    "look like probabilities": (lambda x, net: net(x).softmax(-1), 0.1),
    "all sum to 100": (lambda x, net: 100 * net(x).softmax(-1), 0.1),
    "some images are NaN": (lambda x, net: net(x) + 0 * (0.32 - x.mean((2, 3))).log(), 0.1),
    "allows any image": (lambda x, net: net(x), 8.0),
    "BatchNorm in train mode": (None, 0.1),
}


@pytest.mark.parametrize("says", DOUBTS)
@pytest.mark.parametrize("attack", [pgd, adaptive_pgd, apgd, square, strongest_attack])
def test_a_doubtful_model_or_radius_gets_one_warning_at_the_line_of_the_call(
    net, sixty, says, attack
):
    function, eps = DOUBTS[says]
    norm = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10))
    model = After(net, function) if function else norm
    x, y = (t[:6] for t in sixty)
    short = {"steps": 2, "queries": 9}
    short = {key: n for key, n in short.items() if key in signature(attack).parameters}
    found, caught = doubts(lambda: attack(model, x, y, eps, **short))
    assert len(found) == 1 and says in found[0] and "\n" not in found[0]
    assert all(w.filename == __file__ for w in caught if w.category is ReliabilityWarning)


@pytest.mark.parametrize("function", [lambda x, net: net(x), lambda x, net: net(x).relu() + 0.1])
def test_a_common_model_gets_no_warning(net, sixty, function):
    model = After(net, function)
    for attack in (pgd, apgd, partial(pgd, norm="l2")):
        assert doubts(lambda attack=attack: attack(model, *sixty, eps=1.0))[0] == []
    twice = sixty.images[[0, 0]], sixty.labels[[0, 0]]  # sums of equal outputs are equal
    assert doubts(lambda: pgd(model, *twice, eps=0.1))[0] == []
    training = nn.Sequential(copy.deepcopy(net), nn.Dropout(0.1)).train()
    madry = partial(pgd, eps=0.1, steps=2, early_exit=False)
    assert doubts(lambda: fit(training, *sixty, epochs=1, attack=madry))[0] == []


@quiet
@pytest.mark.parametrize("says", [*DOUBTS][:4])
def test_a_report_names_a_doubtful_model_once(net, sixty, says):
    six, model = (t[:6] for t in sixty), After(net, DOUBTS[says][0])
    report = robustness_report(model, *six, 0.1, steps=2, queries=9)
    assert sum(says in text for text in report.doubts) == 1 and says in report.html()


def test_a_radius_in_units_of_255_and_dropout_in_train_mode_get_a_warning(net, sixty):
    x, y = (t[:4] for t in sixty)
    for call in (
        lambda eps: fgsm(net, x, y, eps),
        lambda eps: certify(net, x, y, eps),
        lambda eps: masking_report(net, x, y, eps, steps=[2], epsilons=[0.1]),
    ):
        with pytest.warns(ReliabilityWarning, match="write 8/255, not 8"):
            call(8)
    drop = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Dropout()).train()
    with pytest.warns(ReliabilityWarning, match="dropout in train mode"):
        pgd(drop, x, y, 0.1)


@quiet
def test_nan_away_from_the_images_is_no_success(net, sixty):
    x, y = (t[:20] for t in sixty)

    def nan(z, net):
        there = (z[:, None] == x[None]).flatten(2).all(2).any(1)
        return net(z) * torch.where(there, 1.0, torch.nan)[:, None]  # the gradient is NaN, too

    model = After(net, nan)
    report = masking_report(model, x, y, 0.1, steps=[2], epsilons=[0.2])
    assert report.noise == report.by_steps[2] == report.adaptive == report.standard
    assert torch.equal(cw_l2(model, x, y, steps=5, search_steps=2), x)
    blind = After(net, lambda z, net: net(z).where(z.mean((1, 2, 3))[:, None] < 0.3, torch.nan))
    report = masking_report(blind, x, y, 0.0, steps=[2], epsilons=[0.0])
    assert report.standard == is_correct(blind, x, y).double().mean() < 0.9


@quiet
@pytest.mark.parametrize("name", [n for n in ATTACKS if n != "cw_l2"])
def test_logits_that_are_nan_are_no_success_and_stop_nothing(net, sixty, name):
    """Brighter images have no logits, and many steps lead there."""
    x, y = sixty
    bright = x.mean((1, 2, 3), keepdim=True) + 0.004

    def nan(z, net):
        some = torch.cdist(z.flatten(1), x.flatten(1)).argmin(1)
        beyond = (z.mean((1, 2, 3), keepdim=True) > bright[some]).flatten(1)
        return net(z).masked_fill(beyond, torch.nan)

    model, attack = After(net, nan), ATTACKS[name]
    (said, *_), _ = doubts(lambda: fgsm(model, (x + 0.1).clamp(max=1), y, 0.1))
    assert "logits of some images are NaN" in said
    found, correct = attack(model, x, y), is_correct(net, x, y)
    logits = model(found)
    fooled = correct & (logits.argmax(1) != y) & logits.isfinite().all(1)
    assert found.isfinite().all() and (found - x).abs().max() <= 0.1 + 1e-6
    rates = evaluate(model, x, y, attack)
    assert rates.standard_accuracy == correct.double().mean()
    assert round(60 * rates.robust_accuracy) == correct.sum() - fooled.sum()
    lost = torch.full((len(y), 10), torch.nan)
    with pytest.warns(ReliabilityWarning, match="logits of some images are NaN"):
        lost[3:] = net(x)[3:]
        assert not is_correct(lambda x: lost, x, y)[:3].any()


@pytest.mark.parametrize(
    "call",
    [
        lambda m, x, y, a: evaluate(m, x, y, partial(a, eps=0.1)),
        lambda m, x, y, a: evaluate(m, [(x, y)], partial(partial(a, eps=0.1), steps=2)),
        lambda m, x, y, a: robustness_curve(m, x, y, a, [0.1]),
        lambda m, x, y, a: is_robust(m, x, y, [partial(fgsm, eps=0.1), partial(a, eps=0.1)]),
    ],
)
@pytest.mark.parametrize("attack", [pgd, adaptive_pgd])
def test_targeted_attacks_are_refused_where_their_targets_would_be_the_labels(sixty, call, attack):
    model = mlp(64, [8])
    with pytest.raises(ValueError, match="a targeted attack needs the classes to reach"):
        call(model, *sixty, partial(attack, targeted=True))
    with pytest.raises(ValueError, match="a targeted attack needs the classes to reach"):
        fit(model, *sixty, epochs=1, attack=partial(attack, eps=0.1, targeted=True))


@quiet
def test_auto_attack_takes_stochastic_members(twenty):
    nets = [nn.Sequential(nn.Flatten(), nn.Dropout(0.1), nn.Linear(64, 10)) for _ in range(2)]
    x = torch.stack([twenty.images, twenty.images])
    y = torch.stack([net.eval()(twenty.images).argmax(1) for net in nets])
    both = Population([*map(nn.Module.train, nets)])
    adversarial = auto_attack(both, x, y, 0.1, parts=["apgd-ce"])
    assert adversarial.shape == x.shape and (adversarial != x).any()


@quiet
@pytest.mark.parametrize("name", [*ATTACKS, "robustness_report"])
def test_the_batch_size_bounds_what_the_model_sees(net, sixty, name):
    report = partial(robustness_report, eps=0.1, steps=4, queries=20)
    model = After(net, lambda x, net: net(x))
    ATTACKS.get(name, report)(model, *sixty, batch_size=7)
    assert model.largest == 7


@pytest.mark.parametrize(("size", "batches"), [(10, [3] * 6 + [2]), (2, [1] * 20), (99, [20])])
def test_a_batch_counts_the_examples_of_all_members(net, twenty, size, batches):
    seen, x = [], twenty.images
    both = Population([net, net, net])
    both.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))
    x, y = (t.expand(3, *t.shape) for t in (x, net(x).argmax(1)))
    pgd(both, x, y, 1e-6, steps=1, batch_size=size)
    assert seen == [2] * 9 + [count for count in batches for _ in range(2)]


@quiet
def test_images_without_rows_and_columns_are_refused_before_any_pass(net, sixty):
    model, x = After(net, lambda x, net: net(x)), sixty.images.flatten(1)
    for attack in (square, strongest_attack, auto_attack, robustness_report):
        with pytest.raises(ValueError, match=r"takes images \[B, C, H, W\]"):
            attack(model, x, sixty.labels, 0.1)
    assert model.largest == 0


@quiet
@pytest.mark.parametrize("name", ATTACKS)
def test_a_default_device_changes_nothing(net, sixty, name):
    x, y = (t[:8] for t in sixty)
    expected = ATTACKS[name](net, x, y)
    integers.cache_clear()
    with torch.device("meta"):
        assert torch.equal(ATTACKS[name](net, x, y), expected)
