import copy
import itertools
import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import optimize
from torch import nn

from cappaper import (
    CappedReLU,
    Population,
    adaptive_pgd,
    certified_accuracy,
    certify,
    exact_robustness,
    mlp,
    pgd,
    strongest_attack,
)
from cappaper.attacks.common import is_correct, margin
from cappaper.certificates.bounds import (
    Interval,
    _lines,
    box_around,
    layer_bounds,
    read_layers,
    rounding_error,
)
from tests.trained import scaled

BETAS = (0.05, 0.3, 1.0, math.inf)


def network(seed, hidden, betas, gain):
    """A random network whose units are at 0, in between and at the cap alike."""
    return scaled(mlp(12, hidden, num_classes=4, beta=betas, seed=seed), gain)


@st.composite
def small_networks(draw):
    hidden = draw(st.lists(st.integers(2, 6), min_size=0, max_size=2))
    betas = [draw(st.sampled_from(BETAS)) for _ in hidden]
    return network(draw(st.integers(0, 999)), hidden, betas, draw(st.sampled_from([1.0, 3.0])))


def images(seed, count=6):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 1, 3, 4, generator=generator)


@settings(max_examples=25, deadline=None)
@given(small_networks(), st.integers(0, 999), st.sampled_from([0.02, 0.1, 0.3]))
def test_certificates_exact_answers_and_attacks_never_contradict(model, seed, eps):
    x = images(seed)
    y = model(x).argmax(-1)
    y[0] = (y[0] + 1) % 4  # one image is misclassified without an attack
    attacked = [attack(model, x, y, eps, steps=10) for attack in (adaptive_pgd, pgd)]
    correct = [is_correct(model, points, y) for points in (*attacked, x)]
    exact = exact_robustness(model, x, y, eps)
    assert (exact.adversarial - x).abs().max() <= eps + 1e-6
    fooled = ~is_correct(model, exact.adversarial, y)
    assert (fooled | exact.robust | exact.undecided).all()
    crown, ibp = (certify(model, x, y, eps, method) for method in ("crown", "ibp"))
    chain = [ibp, crown, exact.robust | exact.undecided, *correct]
    for lower, upper in itertools.pairwise(chain):
        assert not (lower & ~upper & ~exact.undecided).any()
    # Where an attack wins by a clear lead, the exact answer is no, and not undecided.
    for points in attacked:
        assert not (exact.undecided & (margin(model(points), y) < -1e-2)).any()
    # A lead of less than 1e-4 is undecided: a certified image with a larger one is robust.
    for i in (exact.undecided & crown).nonzero().flatten().tolist():
        leading = copy.deepcopy(model)
        with torch.no_grad():
            leading[-1].bias[y[i]] += 2e-4
        assert exact_robustness(leading, x[i : i + 1], y[i : i + 1], eps).robust.all()


@settings(max_examples=25, deadline=None)
@given(small_networks(), st.integers(0, 999), st.data())
def test_nothing_is_robust_by_mistake_on_any_scale(model, seed, data):
    """Units on scales of their own, or one tiny weight: the solver may refuse such a program."""
    exponents = st.sampled_from([-20, -16, -8, -5, 0, 0, 0, 5, 8, 14, 16])
    with torch.no_grad():
        for layer in model[1::2]:
            size = 10.0 ** data.draw(exponents)
            units = [10.0 ** data.draw(st.integers(-5, 5)) for _ in layer.bias]
            units = torch.tensor(units if data.draw(st.booleans()) else 1.0).reshape(-1, 1)
            layer.weight.mul_(units * size)
            layer.bias.mul_(units.flatten() * size)
            layer.weight[0, 0] *= 10.0 ** data.draw(exponents)
        for cap in model[2::2]:
            cap.beta.mul_(10.0 ** data.draw(exponents))
    x = images(seed, 3)
    assume(model(x).isfinite().all())
    y = model(x).argmax(-1)
    robust = exact_robustness(model, x, y, 0.3, time_limit=1.0).robust
    attacked = strongest_attack(model, x, y, 0.3, steps=5, queries=20)
    assert not (robust & ~is_correct(model, attacked, y)).any()


def test_ibp_is_interval_arithmetic_and_crown_certifies_more():
    eps, model, x = 0.02, network(0, [8, 6], [0.3, 0.3], 1.5), images(0, 200)
    y = model(x).argmax(1)
    low, high = ((x + e).clamp(0, 1).flatten(1).double() for e in (-eps, eps))
    layers = [m for m in model if isinstance(m, nn.Linear)]
    for layer in layers[:-1]:
        weight, middle, reach = layer.weight.double(), (low + high) / 2, (high - low) / 2
        centre = middle @ weight.T + layer.bias.double()
        spread = reach @ weight.abs().T
        low, high = ((centre + s).clamp(0, 0.3) for s in (-spread, spread))
    weight, bias = layers[-1].weight.double(), layers[-1].bias.double()
    rows, shift = weight[y].unsqueeze(1) - weight, bias[y].unsqueeze(1) - bias
    middle, reach = ((high + s * low).unsqueeze(2) / 2 for s in (1, -1))
    lead = (rows @ middle - rows.abs() @ reach).squeeze(2) + shift
    lead = lead.scatter(1, y.unsqueeze(1), math.inf).amin(1)
    clear = lead.abs() > 1e-4
    assert torch.equal(certify(model, x, y, eps, "ibp")[clear], (lead > 0)[clear])
    assert ((lead > 0).sum(), certify(model, x, y, eps, "crown").sum()) == (146, 162)


@settings(max_examples=60, deadline=None)
@given(small_networks(), st.integers(0, 999), st.sampled_from([0.0, 0.05, 0.3, 1.0]))
def test_bounds_contain_every_sample_and_crown_lies_within_ibp(model, seed, eps):
    model, x = model.double(), images(seed).double()
    layers, box = read_layers(model), box_around(x, eps)
    interval, crown = (layer_bounds(layers, box, method) for method in ("ibp", "crown"))
    generator = torch.Generator().manual_seed(seed)
    for _ in range(50):
        noise = torch.rand(x.shape, generator=generator, dtype=x.dtype) * 2 - 1
        # Corners of the ball are where bounds are tight.
        noise = torch.where(torch.rand(x.shape, generator=generator) < 0.5, noise.sign(), noise)
        here = (x + eps * noise).clamp(0, 1)
        bounds = zip(interval, crown, strict=True)
        for module in model:
            here = module(here)
            if isinstance(module, nn.Linear):
                for lower, upper in next(bounds):
                    assert (lower <= here + 1e-9).all() and (here <= upper + 1e-9).all()
    for wide, narrow in zip(interval, crown, strict=True):
        assert (wide.lower <= narrow.lower + 1e-12).all()
        assert (narrow.upper <= wide.upper + 1e-12).all()


@given(st.floats(-2, 2), st.floats(0, 2), st.sampled_from(BETAS))
def test_lines_hold_the_graph_and_are_never_looser_than_level_ones(low, width, cap):
    z = torch.linspace(low, low + width, 101, dtype=torch.float64)
    graph = z.clamp(0, cap)
    lines = _lines(Interval(z[:1], z[-1:]), torch.tensor(cap, dtype=torch.float64))
    below, above = (slope * z + offset for slope, offset in lines)
    assert (below <= graph + 1e-9).all() and (graph <= above + 1e-9).all()
    assert below[50] >= graph.min() - 1e-9 and above[50] <= graph.max() + 1e-9


def test_a_ball_beyond_the_image_range_is_the_whole_range():
    for one, other in zip(box_around(images(0), 1.0), box_around(images(0), 2.0), strict=True):
        assert torch.equal(one, other) and set(one.unique().tolist()) <= {0.0, 1.0}
    lower, upper = box_around(torch.full((1, 1, 2, 2), 0.5), 0.1)
    assert (upper - 0.6).tolist() == (0.4 - lower).tolist() == [[pytest.approx(1e-6)] * 4]


@settings(max_examples=25, deadline=None)
@given(small_networks(), st.integers(0, 999))
def test_the_bound_on_rounding_holds_and_is_small(model, seed):
    x = images(seed)
    box, layers = box_around(x, 0.1), read_layers(model)
    *hidden, logits = layer_bounds(layers, box, "ibp")
    error = rounding_error(layers, hidden, box, torch.finfo(torch.float32))
    actual = (model(x).double() - copy.deepcopy(model).double()(x.double())).abs()
    assert (actual <= error).all()
    size = logits.upper.abs().maximum(logits.lower.abs()).max() + 1
    assert (error < 100 * 1e-6 * size).all()


def test_the_bound_on_rounding_is_that_of_a_computation_by_hand():
    net, kind = nn.Sequential(nn.Linear(3, 1), nn.ReLU(), nn.Linear(1, 1)), torch.finfo(torch.half)
    for weight in net.parameters():
        nn.init.ones_(weight)
    box = Interval(*torch.tensor([[[0.0] * 3], [[1.0] * 3]]).double())
    four, two = (n / (2**11 - n) for n in (4, 2))  # of the terms of each layer
    first = four * 4 + 4 * kind.tiny
    second = first + two * (5 + first) + 2 * kind.tiny
    hidden = [Interval(*(4 * end[:, :1] for end in box))]
    assert rounding_error(read_layers(net), hidden, box, kind).item() == pytest.approx(2 * second)


@pytest.mark.parametrize(("size", "least"), [(1, 1e-4), (1000, 0.01024), (2**-11, 1e-3 / 1024)])
def test_a_lead_is_decided_if_it_is_large_enough_for_the_solver(size, least):
    net, x = nn.Sequential(nn.Linear(2, 3)).double(), torch.full((1, 2), 0.5).double()
    nn.init.zeros_(net[0].weight)
    for factor in (0.5, 2):
        net[0].bias.data = torch.tensor([factor * least, 0, -size]).double()
        exact = exact_robustness(net, x, torch.tensor([0]), 0.1)
        assert exact.robust.item() == (factor > 1) and exact.undecided.item() == (factor < 1)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.sampled_from(BETAS), st.sampled_from([1e-12, 1.0, 1e12]))
def test_exact_answers_are_those_of_a_fine_grid_over_two_pixels(seed, beta, scale):
    """Where the grid's least lead is clear. Logits of any size are decided."""
    model = scaled(mlp(2, [6, 6], num_classes=3, beta=beta, seed=seed).double(), 3.0)
    x = torch.rand(4, 1, 1, 2, generator=torch.Generator().manual_seed(seed)).double()
    side = torch.linspace(-0.2, 0.2, 81, dtype=torch.float64)
    grid = (x.flatten(1).unsqueeze(1) + torch.cartesian_prod(side, side)).clamp(0, 1)
    y = model(x).argmax(-1)
    lead = margin(model(grid.reshape(-1, 1, 1, 2)).view(4, -1, 3), y[:, None].expand(-1, 81**2))
    spread = model(grid.reshape(-1, 1, 1, 2)).abs().max()
    scaled(model[-1], scale)
    exact = exact_robustness(model, x, y, 0.2)
    for i, least in enumerate((lead.amin(1) / spread).tolist()):
        if abs(least) > 0.1:
            assert not exact.undecided[i] and exact.robust[i] == (least > 0)


def test_an_example_is_undecided_after_a_time_out():
    model, x = network(0, [64, 64], [0.3, 0.3], 3.0), images(0, 3)
    exact = exact_robustness(model, x, model(x).argmax(-1), 0.2, time_limit=1e-3)
    assert exact.undecided.any() and not (exact.robust & exact.undecided).any()


def test_a_program_that_the_solver_refuses_proves_nothing(monkeypatch):
    refused = optimize.OptimizeResult(status=2, x=None, message="(HiGHS Status 2: Model error)")
    monkeypatch.setattr(optimize, "milp", lambda *given, **more: refused)
    model, x = network(0, [8], [0.3], 1.0), images(0, 3)
    exact = exact_robustness(model, x, model(x).argmax(-1), 0.1)
    assert exact.undecided.all() and not exact.robust.any()


def test_certified_accuracy_of_a_population_is_that_of_its_members(sixty):
    models = [mlp(64, [8], beta=beta, seed=s) for s, beta in enumerate((0.1, 1.0))]
    alone = [certified_accuracy(model, *sixty, 0.01, "ibp") for model in models]
    assert certified_accuracy(Population(models), *sixty, 0.01, "ibp") == alone


def test_plain_relu_modules_and_absent_biases_are_supported(twenty):
    theirs = nn.Sequential(nn.Flatten(), nn.Linear(64, 8, bias=False), nn.ReLU(), nn.Linear(8, 10))
    ours = nn.Sequential(theirs[0], theirs[1], CappedReLU(), theirs[3])
    for method in ("ibp", "crown"):
        assert certify(theirs, *twenty, 0.02, method).equal(certify(ours, *twenty, 0.02, method))


def test_a_layer_that_is_called_twice_counts_twice():
    """A copy with separate layers has the same certificates and exact answers."""
    x = images(3)
    first, shared, last = nn.Linear(12, 5), nn.Linear(5, 5), nn.Linear(5, 4)
    relu = nn.ReLU()
    net = nn.Sequential(nn.Flatten(), first, relu, shared, relu, shared, relu, last)
    apart = nn.Sequential(*(copy.deepcopy(layer) for layer in net))
    y = net(x).argmax(-1)
    for eps in (0.0, 0.02, 0.1):
        for method in ("ibp", "crown"):
            assert certify(net, x, y, eps, method).equal(certify(apart, x, y, eps, method))
        exact = exact_robustness(net, x, y, torch.tensor(eps)).robust
        assert exact.equal(exact_robustness(apart, x.requires_grad_(), y, eps).robust)
        x = x.detach()


@pytest.mark.parametrize("scale", [1e30, 1e-25])
def test_logits_that_may_overflow_or_underflow_are_not_certified(scale):
    """Exactly, class 1 leads; in float32 both logits are infinite, or 0."""
    net = scaled(nn.Sequential(nn.Flatten(), nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2)), 0)
    net[1].weight.data[0, 0] = scale
    net[3].weight.data[:, 0] = torch.tensor([scale if scale > 1 else 0, 2 * scale])
    x, y = torch.full((1, 1, 1, 1), 0.5), torch.tensor([1])
    assert net(x).argmax() == 0
    for method in ("ibp", "crown"):
        assert not certify(net, x, y, 0.0, method).any()
