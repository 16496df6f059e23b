"""Auto-PGD, Square and Carlini-Wagner, with other implementations as referees."""

import copy
import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cappaper import apgd, auto_attack, cw_l2, fit, load, mlp, pgd, square
from cappaper.attacks.auto_pgd import _checkpoints
from cappaper.attacks.balls import BALLS
from cappaper.attacks.common import is_correct
from cappaper.attacks.square import _side
from tests.spellings import Function
from tests.trained import trained

EPS = 0.1
targeted = partial(apgd, targets=9)


@pytest.fixture(scope="module")
def nets():
    """ReLU, a low cap, and ReLU trained against PGD, on digits."""
    x, y = load("digits", "train")
    madry = partial(pgd, eps=EPS, steps=5, early_exit=False)
    return {
        "ReLU": trained(),
        "capped": trained(0.05)[0],
        "robust": fit(mlp(64, [64, 32]), x, y, epochs=20, lr=3e-3, attack=madry),
    }


@pytest.mark.parametrize("net", ["ReLU", "capped", "robust"])
@pytest.mark.parametrize("part", ["apgd-ce", "apgd-t", "square"])
def test_an_attack_finds_what_the_authors_implementation_finds(nets, part, net):
    pyautoattack = pytest.importorskip("pyautoattack")
    x, y = load("digits", "test", limit=200)
    referee = pyautoattack.AutoAttack(nets[net], norm="Linf", eps=EPS, seed=0, device="cpu")
    referee.attacks_to_run, referee.square.n_queries = [part], 1000
    referee.square.rescale_schedule = True
    ours = {"apgd-ce": apgd, "apgd-t": targeted, "square": partial(square, queries=1000)}
    with torch.random.fork_rng():
        theirs = referee.run_standard_evaluation(x, y, batch_size=200)[0]
    examples = (ours[part](nets[net], x, y, EPS), theirs)
    left = [is_correct(nets[net], z, y).double().mean().item() for z in examples]
    assert left[0] <= left[1] + 0.03  # the starts differ


def test_square_computes_a_dense_first_layer_by_its_changes_as_the_whole_model_would(nets):
    x, y = load("digits", "test", limit=60)
    net = copy.deepcopy(nets["robust"]).double()
    wrapped = nn.Sequential(net)  # hides the dense layer
    in_place = nn.Sequential(*net[:2], nn.ReLU(inplace=True), *net[3:])
    by_changes, whole, same = (
        square(m, x.double(), y, EPS, queries=250) for m in (net, wrapped, in_place)
    )
    assert torch.equal(is_correct(net, by_changes, y), is_correct(net, whole, y))
    assert torch.equal(by_changes, same)


def hills(tops, x):
    """Each other class is closest where every pixel is at its top, and none ever wins."""
    heights = [-(x - top).square().flatten(1).sum(1) for top in tops]
    return torch.stack([torch.ones_like(heights[0]), *heights], dim=1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("targets", [0, 1, 3])
@settings(max_examples=5)
@given(seed=st.integers(0, 10_000))
def test_a_run_is_that_of_the_authors_implementation(norm, targets, seed):
    """From the same start, over momentum, halved steps and returns to the best point."""
    autopgd = pytest.importorskip("pyautoattack.autopgd_base")
    draw = torch.Generator().manual_seed(seed)
    tops = torch.rand(4, 1, 1, 3, 3, generator=draw, dtype=torch.float64)
    x = torch.rand(20, 1, 3, 3, generator=draw, dtype=torch.float64)
    y, model, eps = torch.zeros(20, dtype=torch.long), Function(partial(hills, tops)), 0.2
    # The last run starts at a point of its own, and aims at the least likely of its classes.
    start = BALLS[norm](eps, 1).random(x, seed, max(targets - 1, 0))
    goal = model(x).argsort(dim=1, descending=True)[:, targets]
    ours = apgd(model, x, y, eps, norm=norm, targets=targets, seed=seed)
    attack = autopgd.APGDAttack_targeted if targets else autopgd.APGDAttack
    referee = attack(model, n_iter=100, norm=norm.title(), eps=eps, device="cpu")
    referee.loss = "dlr-targeted" if targets else "ce"
    referee.init_hyperparam(x)
    referee.y_target = goal
    theirs = referee.attack_single_run(x, y, x_init=start)[0]
    # On a flat top rounding decides which of two points is the best, so later steps may differ.
    same = (ours - theirs).abs().flatten(1).amax(1) < 1e-6
    assert same.double().mean() > 0.5


def last_resort(classes, x):
    """Of the other classes only the least likely one can win, and only where it is aimed at."""
    bait, key = x.flatten(1)[:, : classes - 2], x.flatten(1)[:, classes - 2 :]
    others = bait / 10 - torch.arange(1, classes - 1)
    true = torch.zeros_like(x[:, 0, 0, :1])
    return torch.cat([true, others, 60 * key.mean(1, keepdim=True) - 29], dim=1)


nine_at_most = partial(auto_attack, parts=["apgd-t"])


@pytest.mark.parametrize(
    ("attack", "classes", "succeeds"),
    [(partial(apgd, targets=n), c, n == c - 1) for c, n in ((5, 1), (5, 3), (4, 3), (12, 9))]
    + [(partial(apgd, targets=11), 12, True)]
    + [(nine_at_most, classes, classes <= 10) for classes in (4, 10, 11)],
)
def test_a_targeted_attack_aims_at_as_many_classes_as_asked(attack, classes, succeeds):
    """AutoAttack aims at nine, as its authors have it."""
    x, y = torch.zeros(3, 1, 8, 8), torch.zeros(3, dtype=torch.long)
    net = Function(partial(last_resort, classes))
    assert is_correct(net, attack(net, x, y, 0.5), y).tolist() == 3 * [not succeeds]


def test_squares_shrink_as_the_authors_do():
    peer = pytest.importorskip("pyautoattack.square")
    for queries in (10_000, 1000, 70):
        referee = peer.SquareAttack(None, n_queries=queries, p_init=0.8, resc_schedule=True)
        for query in range(1, queries):
            side = round(math.sqrt(referee.p_selection(query) * 999 * 999))
            assert _side(query, queries, 999, 999) == max(1, side), (queries, query)
    assert [_side(0, 99, *size) for size in ((3, 9), (9, 3), (1, 1))] == [2, 2, 1]


def test_the_step_size_may_halve_where_the_authors_have_it():
    at = [0, 22, 41, 57, 70, 80, 87, 93, 99]
    assert _checkpoints(100) == dict(zip(at[1:], at, strict=False))


def test_squares_of_colour_images_take_a_sign_for_each_channel():
    x, y = torch.full((4, 3, 8, 8), 0.5), torch.zeros(4, dtype=torch.long)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2))
    torch.nn.init.zeros_(net[1].weight)
    net[1].bias.data = torch.tensor([1.0, 0.0])
    changed = (square(net, x, y, 0.25, queries=1) - x).abs()
    assert torch.allclose(changed, torch.full_like(x, 0.25))
    net[1].weight.data[1] = torch.arange(192).sin()
    up = square(net.double(), x.double(), y, 0.001, queries=30)[0].flatten() > 0.5
    assert up.nonzero().sum() == 10532  # the same on every machine


@pytest.fixture(scope="module")
def attacked(digits):
    """A trained ReLU network, 200 images, and our adversarial examples."""
    net = trained()
    x, y = (tensor[:200] for tensor in digits[1])
    return net, x, y, cw_l2(net, x, y, steps=200)


@pytest.fixture
def foolbox_cw(foolbox):
    def attack(net, x, y, search_steps=9):
        c = {"binary_search_steps": search_steps, "initial_const": 1e-2}
        cw = foolbox.attacks.L2CarliniWagnerAttack(steps=200, stepsize=1e-2, **c)
        return cw(foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu"), x, y, epsilons=None)[0]

    return attack


@pytest.fixture
def adv_lib_cw(adv_lib):
    return partial(adv_lib.carlini_wagner_l2, max_iterations=200, initial_const=1e-2)


@pytest.mark.parametrize("referee", ["foolbox_cw", "adv_lib_cw"])
def test_the_median_distortion_is_that_of_the_referees(attacked, referee, request):
    """Within 5% on 200 images."""
    net, x, y, ours = attacked
    theirs = request.getfixturevalue(referee)(net, x, y)
    correct = is_correct(net, x, y)
    assert is_correct(net, ours, y).float().mean() < 0.01
    a, b = ((adv - x)[correct].flatten(1).norm(dim=1).median().item() for adv in (ours, theirs))
    assert a == pytest.approx(b, rel=0.05)


def test_the_search_starts_at_the_same_c_as_foolbox(attacked, foolbox_cw):
    """The first c is small: alone, it reaches few images."""
    net, x, y, _ = attacked
    ours, theirs = cw_l2(net, x, y, steps=200, search_steps=1), foolbox_cw(net, x, y, 1)
    theirs = torch.where((theirs == 0).flatten(1).all(1).view(-1, 1, 1, 1), x, theirs)  # failures
    a, b = (1 - is_correct(net, adv, y).double().mean().item() for adv in (ours, theirs))
    assert a == pytest.approx(b, abs=0.05) and a < 0.5


def test_confidence_costs_distance(attacked):
    net, x, y, _ = attacked
    few = {"steps": 100, "search_steps": 5}
    lengths = [(cw_l2(net, x, y, confidence=k, **few) - x).norm() for k in (0.0, 2.0)]
    assert lengths[0] < lengths[1]


@pytest.mark.parametrize("part", ["fab-t", "square"])
def test_autoattack_takes_logits_in_half_precision(nets, part, twenty):
    pytest.importorskip("pyautoattack")
    half = nn.Sequential(nets["ReLU"], Function(torch.Tensor.half))
    found = auto_attack(half, *twenty, 1.0, norm="l2", parts=[part])
    assert is_correct(half, found, twenty.labels).sum() < is_correct(half, *twenty).sum()
