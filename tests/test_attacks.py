"""PGD beside three referees and the plain loop, and its random starts."""

import math
from functools import partial
from inspect import signature

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import cappaper
from cappaper import evaluate, fgsm, fit, mlp, pgd
from cappaper.attacks.balls import BALLS, Linf, integers, uniform
from cappaper.attacks.common import State, climb
from tests.spellings import Function
from tests.trained import scaled, trained


def textbook_pgd(model, x, y, eps, steps=40, start=None, norm="linf", first=True):
    """Every example at every step; the first success of each, or the last step."""
    step_size, batch = 2.5 * eps / steps, (-1, *[1] * (x.ndim - 1))
    points = [x, x if start is None else start]
    for _ in range(steps):
        point = points[-1].detach().requires_grad_()
        F.cross_entropy(model(point), y, reduction="sum").backward()
        g = point.grad
        if norm == "linf":
            moved = point + step_size * g.sign()
            delta = (moved - x).clamp(-eps, eps)
        else:
            length = g.flatten(1).norm(dim=1).view(batch)
            moved = point + step_size * torch.where(length > 0, g / length, 0.0)
            delta = moved - x
            delta = delta * (eps / delta.flatten(1).norm(dim=1).view(batch)).clamp(max=1)
        points.append((x + delta).clamp(0, 1).detach())
    result = points[-1].clone()
    for point in reversed(points if first else []):
        fooled = model(point).argmax(-1) != y
        result[fooled] = point[fooled]
    return result


@pytest.fixture
def foolbox_pgd(foolbox):
    def attack(model, x, y, eps):
        pgd = foolbox.attacks.LinfPGD(steps=40, rel_stepsize=2.5 / 40, random_start=False)
        return pgd(foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu"), x, y, epsilons=eps)[1]

    return attack


@pytest.fixture
def adv_lib_pgd(adv_lib):
    settings = {"steps": 40, "relative_step_size": 2.5 / 40, "random_init": False}
    return lambda model, x, y, eps: adv_lib.pgd_linf(model, x, y, ε=eps, **settings)


@pytest.fixture(scope="module")
def on_mnist(mnist):
    """Networks, images and labels."""
    train, test = [part[:10_000] for part in mnist[0]], [part[:300] for part in mnist[1]]
    nets = [fit(mlp(784, [64, 32], beta=b), *train, epochs=3, lr=3e-3) for b in (0.2, math.inf)]
    return [(net.double(), test[0].double(), test[1]) for net in nets]


@pytest.fixture(scope="module")
def on_digits(digits):
    x, y = digits[1]
    return [(net.double(), x.double(), y) for net in trained(0.2, math.inf)]


@pytest.mark.parametrize("referee", ["textbook", "foolbox_pgd", "adv_lib_pgd"])
@pytest.mark.parametrize("networks", ["on_digits", "on_mnist"])
def test_pgd_succeeds_wherever_a_referee_does(referee, networks, request):
    """From the same start, in float64, image by image."""
    attack = textbook_pgd if referee == "textbook" else request.getfixturevalue(referee)
    for net, x, y in request.getfixturevalue(networks):
        correct = net(x).argmax(-1) == y
        ours = net(pgd(net, x, y, 0.1, random_start=False)).argmax(-1) == y
        theirs = net(attack(net, x, y, 0.1)).argmax(-1) == y
        assert not (correct & ours & ~theirs).any()
        if referee != "foolbox_pgd":  # it keeps the last step, and we the first success
            assert torch.equal(ours, correct & theirs)
        assert 0.02 < ours.float().mean() < 0.98  # a comparison at the ends would show nothing


networks = st.builds(
    lambda hidden, beta, seed, scale: scaled(mlp(16, hidden, beta=beta, seed=seed).double(), scale),
    st.lists(st.integers(2, 24), min_size=1, max_size=3),
    st.sampled_from([0.05, 0.3, 1.0, math.inf]),
    st.integers(0, 10_000),
    st.sampled_from([1.0, 3.0]),  # a steeper one has saturated units and confident logits
)


def batch(seed, count=24):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 1, 4, 4, generator=generator)
    return x.round().where(torch.rand(x.shape, generator=generator) < 0.3, x)  # some at the bounds


balls = st.tuples(st.floats(0.01, 0.5), st.sampled_from(["linf", "l2"]))


@settings(max_examples=80)
@given(networks, st.integers(0, 10_000), balls, st.booleans())
def test_pgd_is_the_textbook_loop_and_early_exit_changes_no_success(net, seed, ball, early_exit):
    """Float64 keeps the rounding of other batch shapes out of the comparison."""
    (eps, norm), x = ball, batch(seed).double()
    y = net(x).argmax(-1)
    y[::4] = (y[::4] + 1) % 10  # some are misclassified to begin with
    eps = eps * (3 if norm == "l2" else 1)
    ours = pgd(net, x, y, eps, steps=12, norm=norm, seed=seed, early_exit=early_exit)
    start = BALLS[norm](eps, 1).random(x, seed)
    plain = textbook_pgd(net, x, y, eps, steps=12, norm=norm, start=start, first=early_exit)
    fooled = net(ours).argmax(-1) != y
    assert torch.equal(fooled, net(plain).argmax(-1) != y)
    compared = fooled if early_exit else ...
    torch.testing.assert_close(ours[compared], plain[compared], atol=1e-9, rtol=0)


def test_more_steps_restarts_and_radius_never_help_the_network(on_digits):
    attacks = [partial(fgsm, eps=0.1), partial(pgd, eps=0.1), partial(pgd, eps=0.1, restarts=3)]
    attacks.append(partial(pgd, eps=0.3, restarts=3))
    for net, x, y in on_digits:
        robust = [evaluate(net, x, y, attack).robust_accuracy for attack in attacks]
        assert robust == sorted(robust, reverse=True)


def test_an_l2_step_follows_a_tiny_gradient():
    """Gradients whose squares underflow in float32: an L2 attack must not stop there."""
    net = Function(lambda x: x.flatten(1) @ torch.tensor([[1e-25, 0, 0, 0], [0, 0, 0, 0]]).T)
    x = torch.full((1, 1, 2, 2), 0.5)
    moved = pgd(net, x, torch.tensor([0]), 0.3, norm="l2", random_start=False, early_exit=False)
    assert (moved - x).norm() == pytest.approx(0.3, rel=1e-4)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_start_depends_on_seed_run_and_image_alone(norm):
    x, ball = batch(0).double(), BALLS[norm](0.4, 1)
    start = ball.random(x, seed=3, run=1)
    assert start.min() >= 0 and start.max() <= 1 and (start > x).any() and (start < x).any()
    size = (start - x).flatten(1).norm(p=2 if norm == "l2" else math.inf, dim=1)
    assert 0.3 < size.max() <= 0.4 + 1e-6
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    assert torch.equal(ball.random(x[order], 3, 1), start[order])
    assert torch.equal(ball.random(x[5:6], 3, 1), start[5:6])
    several = BALLS[norm](0.4, 2).random(x.expand(2, *x.shape), 3, 1)
    assert torch.equal(several, start.expand(2, *x.shape))
    for other in (ball.random(x, 3, 0), ball.random(x, 4, 1)):
        assert (other != start).flatten(1).any(1).all()


def test_starts_are_uniform_and_independent():
    """Means and correlations within five standard errors, for a fixed seed: no draw can fail."""
    draws = uniform(torch.arange(2000.0).div(2000).view(2000, 1).expand(2000, 9), 1, 0, extra=1)
    assert draws.shape == (2000, 10) and draws.min() > 0 and draws.max() < 1
    assert (draws.mean(0) - 0.5).abs().max() < 5 * (1 / 12 / 2000) ** 0.5
    assert (draws.square().mean(0) - 1 / 3).abs().max() < 5 * (4 / 45 / 2000) ** 0.5
    off = torch.corrcoef(draws.T) - torch.eye(10)
    assert off.abs().max() < 5 / 2000**0.5
    over_seeds = torch.stack([uniform(draws[:2, :9], seed, 0).flatten() for seed in range(400)])
    assert (torch.corrcoef(over_seeds.T) - torch.eye(18)).abs().max() < 5 / 400**0.5


def test_the_l2_ball_is_filled_evenly():
    x = torch.rand(4000, 3, generator=torch.Generator().manual_seed(0)) * 1e-3 + 0.5
    offset = BALLS["l2"](0.1, 1).random(x, 0) - x
    radius = (offset.norm(dim=1) / 0.1) ** 3  # uniform if the ball is
    assert radius.max() <= 1 + 1e-4 and abs(radius.mean() - 0.5) < 5 * (1 / 12 / 4000) ** 0.5
    assert offset.mean(0).abs().max() < 5 * 0.1 * (1 / 5 / 4000) ** 0.5


def test_a_seed_gives_the_same_start_on_every_machine_and_in_every_version():
    """These integers decide every random start: with others, no table could be made again."""
    assert integers(3, 0, 1).tolist() == [1170847541, -37017179, -1974355171]
    assert integers(3, 5, 2).tolist() == [-1112629921, -1311951637, 1419265417]
    draws = uniform(torch.tensor([[0.5, 0.3, 1.0]]), 5, 3, extra=1) * 2**24
    assert draws.tolist() == [[9716827, 8062071, 8364063, 12357341]]


def test_a_targeted_attack_ends_in_its_target(on_digits):
    net, x, y = on_digits[1]
    target = (y + 1) % 10
    reached = net(pgd(net, x, target, 0.3, targeted=True)).argmax(-1) == target
    untargeted = net(pgd(net, x, y, 0.3)).argmax(-1) == target
    assert reached.float().mean() > untargeted.float().mean() + 0.2
    already = net(x).argmax(-1) == target
    assert torch.equal(pgd(net, x, target, 0.3, targeted=True)[already], x[already])


def test_pgd_takes_a_loss_function(on_digits):
    net, x, y = on_digits[1]

    def margin(logits, labels):
        other = logits.scatter(-1, labels[:, None], -torch.inf).amax(-1)
        return (other - logits.gather(-1, labels[:, None])[:, 0]).sum()

    by_name = pgd(net, x, y, 0.1, loss="margin", steps=5)
    torch.testing.assert_close(pgd(net, x, y, 0.1, loss=margin, steps=5), by_name)


def test_examples_are_dropped_when_a_tenth_has_finished_and_one_alone_has_company():
    counts, x = [], torch.zeros(20, 1)
    step = lambda n, s: counts.append(len(s.y)) or s.stop(s.y <= n)  # noqa: E731  # one more each
    climb(step, State(Linf(0.1, 1), True, x, torch.arange(20), x), range(30))
    assert counts == [20, 20, 18, 18, 16, 16, 14, 14, 12, 12, *range(10, 1, -1), 2]


DEFAULTS = {
    "pgd": "40 None linf True 1 True cross-entropy False None 1 None None 0",
    "adaptive_pgd": "(10.0, 30.0, 3.0) ('cross-entropy', 'margin') 1 None None 0",
    "apgd": "100 linf 0 1 None None 0",
    "square": "5000 None None 0",
    "strongest_attack": "() 100 1 5000 None None 0",
    "auto_attack": "linf ('apgd-ce', 'apgd-t', 'fab-t', 'square') 500 None 0",
    "cw_l2": "0.0 1000 9 0.01 0.01 None None",
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_no_default_changes_unnoticed(name):
    """With others, the same call makes other tables."""
    parameters = signature(getattr(cappaper, name)).parameters.values()
    defaults = [str(one.default) for one in parameters if one.default is not one.empty]
    assert " ".join(defaults) == DEFAULTS[name]
