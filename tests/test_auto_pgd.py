"""Auto-PGD and Square of this package, with AutoAttack's own as the referee."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cappaper import (
    Population,
    apgd,
    auto_attack,
    convnet,
    fit,
    load,
    mlp,
    pgd,
    square,
    surrogate_gradient,
)
from cappaper.attacks.auto_pgd import _checkpoints, _climb
from cappaper.attacks.balls import BALLS
from cappaper.attacks.common import is_correct
from cappaper.attacks.square import _side

EPS = 0.1


@pytest.fixture(scope="module")
def nets():
    """ReLU, a low cap, and ReLU trained against PGD, on digits."""
    x, y = load("digits", "train")
    madry = partial(pgd, eps=EPS, steps=5, early_exit=False)
    return {
        "ReLU": fit(mlp(64, [64, 32]), x, y, epochs=20, lr=3e-3),
        "capped": fit(mlp(64, [64, 32], beta=0.05), x, y, epochs=20, lr=3e-3),
        "robust": fit(mlp(64, [64, 32]), x, y, epochs=20, lr=3e-3, attack=madry),
    }


ATTACKS = {
    "APGD-CE": apgd,
    "APGD-T": partial(apgd, targets=9),
    "APGD in L2": partial(apgd, norm="l2"),
    "Square": partial(square, queries=300),
}


@pytest.mark.parametrize("name", ATTACKS)
@given(eps=st.floats(0.0, 0.5), net=st.sampled_from(["ReLU", "capped", "robust"]))
def test_examples_are_images_in_the_ball(nets, name, eps, net):
    x, y = load("digits", "test", limit=12)
    few = {"queries": 20} if name == "Square" else {"steps": 8}
    found = ATTACKS[name](nets[net], x, y, eps, **few)
    distance = (found - x).flatten(1)
    size = distance.norm(dim=1) if "L2" in name else distance.abs().amax(1)
    assert size.max() <= eps + 1e-5
    assert found.min() >= 0 and found.max() <= 1
    wrong = ~is_correct(nets[net], x, y)
    assert torch.equal(found[wrong], x[wrong])


@pytest.mark.parametrize("net", ["ReLU", "capped", "robust"])
@pytest.mark.parametrize("part", ["apgd-ce", "apgd-t", "square"])
def test_it_finds_what_the_authors_implementation_finds(nets, part, net):
    pyautoattack = pytest.importorskip("pyautoattack")
    x, y = load("digits", "test", limit=200)
    referee = pyautoattack.AutoAttack(nets[net], norm="Linf", eps=EPS, seed=0, device="cpu")
    referee.attacks_to_run, referee.square.n_queries = [part], 1000
    ours = {"apgd-ce": apgd, "apgd-t": ATTACKS["APGD-T"], "square": partial(square, queries=1000)}
    with torch.random.fork_rng():
        theirs = referee.run_standard_evaluation(x, y, batch_size=200)[0]
    left = [
        is_correct(nets[net], z, y).double().mean().item()
        for z in (ours[part](nets[net], x, y, EPS), theirs)
    ]
    assert left[0] <= left[1] + 0.03  # the starts differ


def test_it_is_stronger_than_pgd_and_stronger_still_along_the_surrogate(nets):
    x, y = load("digits", "test")

    def left(net, attack):
        return is_correct(nets[net], attack(nets[net], x, y, EPS), y).double().mean().item()

    assert left("robust", ATTACKS["APGD-T"]) <= left("robust", pgd)

    def along_the_surrogate(model, x, y, eps):
        with surrogate_gradient(model, 10.0):
            return apgd(model, x, y, eps)

    assert left("capped", along_the_surrogate) < left("capped", apgd) - 0.1


def test_checkpoints_are_those_of_the_paper():
    assert sorted(_checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]


@pytest.mark.parametrize("name", ["APGD-CE", "APGD-T", "Square"])
def test_a_member_is_attacked_as_alone(nets, name):
    x, y = load("digits", "test", limit=60)
    pair = [nets["ReLU"].double(), nets["robust"].double()]
    x = x.double()
    together = ATTACKS[name](Population(pair), torch.stack([x, x]), torch.stack([y, y]), EPS)
    for net, found in zip(pair, together, strict=True):
        for size in (None, 7):
            alone = ATTACKS[name](net, x, y, EPS, batch_size=size)
            assert torch.equal(is_correct(net, found, y), is_correct(net, alone, y))
    for net in pair:
        net.float()


def test_square_computes_a_change_of_a_dense_first_layer_as_the_whole_model_would(nets):
    x, y = load("digits", "test", limit=60)
    net = nets["robust"].double()
    wrapped = torch.nn.Sequential(net)  # no dense layer in sight: the whole model computes
    incremental, whole = (square(m, x.double(), y, EPS, queries=250) for m in (net, wrapped))
    same = is_correct(net, incremental, y) == is_correct(net, whole, y)
    net.float()
    assert same.all()


def test_square_takes_any_model_and_a_population():
    x, y = load("digits", "test", limit=20)
    net = convnet(8, [4, 16])
    assert square(net, x, y, 0.3, queries=30).shape == x.shape
    both = Population([mlp(64, [16]), mlp(64, [16], seed=1)])
    found = square(both, torch.stack([x, x]), torch.stack([y, y]), 1.0, queries=100)
    assert found.shape == (2, *x.shape) and not is_correct(both, found, torch.stack([y, y])).any()


class Hills(torch.nn.Module):
    """Each other class is closest where every pixel is at its top, and none ever wins."""

    def __init__(self, tops):
        super().__init__()
        self.tops = tops

    def forward(self, x):
        heights = [-(x - top).square().flatten(1).sum(1) for top in self.tops]
        return torch.stack([torch.ones_like(heights[0]), *heights], dim=1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("target", [None, 1, 3])
@settings(max_examples=10)
@given(seed=st.integers(0, 10_000))
def test_a_run_is_that_of_the_authors_implementation(norm, target, seed):
    """From the same start, over momentum, halved steps and returns to the best point."""
    autopgd = pytest.importorskip("pyautoattack.autopgd_base")
    draw = torch.Generator().manual_seed(seed)
    tops = torch.rand(4, 1, 1, 3, 3, generator=draw, dtype=torch.float64)
    x = torch.rand(20, 1, 3, 3, generator=draw, dtype=torch.float64)
    y, model, eps = torch.zeros(20, dtype=torch.long), Hills(tops), 0.2
    ball = BALLS[norm](eps, 1)
    start = ball.random(x, seed)
    goal = y if target is None else torch.full_like(y, target)
    ours = _climb(model, ball, 100, seed, 0, x, y, goal, torch.ones_like(y, dtype=torch.bool))
    kind = "ce" if target is None else "dlr-targeted"
    named = {"linf": "Linf", "l2": "L2"}[norm]
    made = autopgd.APGDAttack if target is None else autopgd.APGDAttack_targeted
    referee = made(model, n_iter=100, norm=named, eps=eps, device="cpu")
    referee.loss = kind
    referee.init_hyperparam(x)
    referee.y_target = goal
    theirs = referee.attack_single_run(x, y, x_init=start)[0]
    # On a flat top rounding decides which of two points is the best: that may part them later.
    same = (ours - theirs).abs().flatten(1).amax(1) < 1e-6
    assert same.double().mean() > 0.5


class LastResort(torch.nn.Module):
    """Of the other classes only the least likely one can win, and only where it is aimed at."""

    def __init__(self, classes):
        super().__init__()
        self.classes = classes

    def forward(self, x):
        bait, key = x.flatten(1)[:, : self.classes - 2], x.flatten(1)[:, self.classes - 2 :]
        others = bait / 10 - torch.arange(1, self.classes - 1)
        true = torch.zeros_like(x[:, 0, 0, :1])
        return torch.cat([true, others, 60 * key.mean(1, keepdim=True) - 29], dim=1)


@pytest.mark.parametrize(("classes", "targets"), [(5, 1), (5, 3), (5, 4), (12, 9), (12, 11)])
def test_apgd_aims_at_as_many_classes_as_asked(classes, targets):
    x, y = torch.zeros(3, 1, 8, 8), torch.zeros(3, dtype=torch.long)
    net = LastResort(classes)
    fooled = ~is_correct(net, apgd(net, x, y, 0.5, targets=targets), y)
    assert fooled.tolist() == 3 * [targets == classes - 1]


@pytest.mark.parametrize("classes", [5, 10, 11])
def test_autoattack_aims_at_nine_classes_at_most(classes):
    """As its authors have it."""
    x, y = torch.zeros(3, 1, 8, 8), torch.zeros(3, dtype=torch.long)
    net = LastResort(classes)
    fooled = ~is_correct(net, auto_attack(net, x, y, 0.5, parts=["apgd-t"]), y)
    assert fooled.tolist() == 3 * [classes <= 10]


def test_squares_shrink_as_the_authors_do():
    peer = pytest.importorskip("pyautoattack.square")
    referee = peer.SquareAttack(None, n_queries=5000, p_init=0.8, resc_schedule=False)
    for query in range(1, 5000):
        side = round(math.sqrt(referee.p_selection(query) * 28 * 28))
        assert _side(query, 0.8, 28, 28) == max(1, side), query


class Counted(torch.nn.Module):
    """A network that counts the images it is asked about."""

    def __init__(self, net):
        super().__init__()
        self.net, self.asked = net, 0

    def forward(self, x):
        self.asked += len(x)
        return self.net(x)


@pytest.mark.parametrize("name", ["APGD-CE", "APGD-T", "Square"])
def test_finished_examples_cost_no_more_passes(nets, name):
    x, y = load("digits", "test", limit=60)
    net, few = Counted(nets["ReLU"]), {"queries": 200} if name == "Square" else {"steps": 200}
    found = ATTACKS[name](net, x, y, 0.5, **few)
    assert not is_correct(nets["ReLU"], found, y).any()
    assert net.asked < 60 * 200 / 2


def test_squares_of_color_images_take_a_sign_for_each_channel():
    x, y = torch.full((4, 3, 8, 8), 0.5), torch.zeros(4, dtype=torch.long)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2))
    torch.nn.init.zeros_(net[1].weight)
    net[1].bias.data = torch.tensor([1.0, 0.0])
    changed = (square(net, x, y, 0.25, queries=1) - x).abs()
    assert torch.allclose(changed, torch.full_like(x, 0.25))


def test_bad_input_is_refused_in_a_sentence(nets):
    x, y = load("digits", "test", limit=4)
    net = nets["ReLU"]
    for targets in (-1, 10):
        with pytest.raises(ValueError, match="targets must be 0 to 9"):
            apgd(net, x, y, 0.1, targets=targets)
    with pytest.raises(ValueError, match="0 below 4 classes"):
        apgd(mlp(64, [4], num_classes=3), x, y % 3, 0.1, targets=2)
    with pytest.raises(ValueError, match="steps"):
        apgd(net, x, y, 0.1, steps=0)
    with pytest.raises(ValueError, match="queries"):
        square(net, x, y, 0.1, queries=0)
    with pytest.raises(ValueError, match="share"):
        square(net, x, y, 0.1, share=1.5)
    with pytest.raises(ValueError, match=r"\[B, C, H, W\]"):
        square(net, x.flatten(1), y, 0.1)
