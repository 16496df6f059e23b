"""What every attack promises, whatever it does inside."""

import copy
import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from cappaper import (
    CappedReLU,
    Population,
    adaptive_pgd,
    apgd,
    auto_attack,
    certify,
    cw_l2,
    evaluate,
    exact_robustness,
    fgsm,
    load,
    masking_report,
    mlp,
    pgd,
    robustness_curve,
    robustness_report,
    square,
    strongest_attack,
)
from cappaper.attacks.common import is_correct
from tests.spellings import Function
from tests.trained import trained

CW = {"steps": 10, "search_steps": 2, "lr": 0.1, "initial_const": 10.0}
ATTACKS = {
    "fgsm": fgsm,
    "pgd": partial(pgd, steps=3, restarts=2),
    "pgd in L2": partial(pgd, steps=3, norm="l2"),
    "adaptive_pgd": partial(adaptive_pgd, steps=3),
    "adaptive_pgd in L2": partial(adaptive_pgd, steps=3, norm="l2", restarts=2),
    "apgd": partial(apgd, steps=8),
    "apgd with targets": partial(apgd, steps=8, targets=9),
    "apgd in L2": partial(apgd, steps=8, norm="l2"),
    "square": partial(square, queries=20),
    "strongest_attack": partial(strongest_attack, steps=2, queries=5),
    "auto_attack": partial(auto_attack, parts=["apgd-ce"]),
    "cw_l2": lambda model, x, y, eps, **given: cw_l2(model, x, y, **CW | given),
}
CALLS = ATTACKS | {
    "masking_report": partial(masking_report, steps=[2], epsilons=[0.1]),
    "robustness_report": partial(robustness_report, steps=2, queries=2),
    "evaluate": lambda model, x, y, eps: evaluate(model, x, y, partial(fgsm, eps=eps)),
    "robustness_curve": lambda model, x, y, eps: robustness_curve(model, x, y, pgd, [eps]),
}
quiet = pytest.mark.filterwarnings("ignore::cappaper.checks.ReliabilityWarning")


@pytest.fixture(scope="module")
def nets():
    return trained(math.inf, 0.05)


@quiet
@pytest.mark.parametrize("name", ATTACKS)
@settings(max_examples=8)
@given(eps=st.floats(0.001, 2), i=st.integers(0, 1))
def test_examples_are_images_in_the_ball_and_wrong_images_stay(nets, name, eps, i):
    x, y = load("digits", "test", limit=12)
    y = (y + (torch.arange(12) % 4 == 0)) % 10
    adversarial = ATTACKS[name](nets[i], x, y, eps=eps)
    size = (adversarial - x).flatten(1).norm(dim=1, p=2 if "L2" in name else math.inf)
    assert name == "cw_l2" or size.max() <= eps + 1e-5
    assert adversarial.min() >= 0 and adversarial.max() <= 1 and adversarial.shape == x.shape
    wrong = ~is_correct(nets[i], x, y)
    assert name == "fgsm" or torch.equal(adversarial[wrong], x[wrong])


@quiet
@pytest.mark.parametrize("name", [n for n in ATTACKS if n != "auto_attack"])
def test_members_of_a_population_are_attacked_as_alone_in_batches_of_any_size(nets, name, twenty):
    nets, x, y = [copy.deepcopy(n).double() for n in nets], twenty.images.double(), twenty.labels
    population, seen = Population(nets), []
    batches = {"batch_size": 7, "progress": lambda *at: seen.append(at)} if name != "fgsm" else {}
    together = ATTACKS[name](population, torch.stack([x, x]), torch.stack([y, y]), eps=0.1)
    for net, adversarial in zip(nets, together, strict=True):
        alone = ATTACKS[name](net, x, y, eps=0.1, **batches)
        torch.testing.assert_close(adversarial, alone, atol=1e-9, rtol=0)
    assert seen == 2 * [(done, 7) for done in range(1, 8)] if batches else not seen


@quiet
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_succeeds_the_same_way_twice_and_spares_the_global_state(nets, name, twenty):
    (x, y), before = twenty, torch.get_rng_state()
    first, again = (ATTACKS[name](nets[0], x, y, eps=1.0) for _ in range(2))
    assert torch.equal(first, again) and torch.equal(torch.get_rng_state(), before)
    assert is_correct(nets[0], first, y).sum() < is_correct(nets[0], x, y).sum()


@quiet
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_attacks_work_where_gradients_are_off(name, context, twenty):
    x, y = twenty
    net = mlp(64, [8], beta=0.3).requires_grad_(context is torch.inference_mode)
    with context():
        result = CALLS[name](net, x + 0, y + 0, eps=0.2)
    expected = CALLS[name](net, x, y, eps=0.2)
    assert torch.equal(result, expected) if torch.is_tensor(result) else result == expected


class Moving(nn.Module):
    """Each forward pass counts in one buffer and assigns one named as a cap, in eval mode too."""

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mean_beta", torch.zeros(()))

    def forward(self, x):
        self.count += 1
        self.mean_beta = 0.9 * self.mean_beta + 0.1 * x.detach().mean()
        return x - self.mean_beta


@quiet
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("mode", [True, False])
def test_a_model_comes_back_as_it_was(name, mode, twenty):
    layers = [spectral_norm(nn.Conv2d(1, 2, 3)), nn.BatchNorm2d(2), CappedReLU(0.3)]
    net = nn.Sequential(Moving(), *layers, nn.Flatten(), nn.Linear(72, 10)).train(mode)
    before = copy.deepcopy(net.state_dict())
    CALLS[name](net, *twenty, eps=0.2)
    assert all(m.training == mode for m in net.modules())
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert all(p.grad is None for p in net.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


@quiet
@pytest.mark.parametrize("name", CALLS)
def test_a_model_may_view_its_images(name):
    """A convolution of every channel alone, by ``view``, which takes contiguous images only."""
    apart, together = Function(lambda x: x.view(-1, 1, 8, 8)), Function(lambda z: z.view(-1, 216))
    net = nn.Sequential(apart, nn.Conv2d(1, 2, 3), nn.ReLU(), together, nn.Linear(216, 10))
    CALLS[name](net, torch.rand(6, 3, 8, 8), torch.arange(6), eps=0.1)


NET, THREE = mlp(4, [3]), mlp(4, [3], num_classes=3)
PAIR = Function(lambda x: (x.flatten(1), x))
X, Y = torch.full((2, 1, 2, 2), 0.5), torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("attack", "change", "error", "message"),
    [
        (pgd, {"x": X * 3}, ValueError, r"\[0, 1\], got values from 1.5 to 1.5"),
        (pgd, {"x": X * 2 + 1.2e-7}, ValueError, "by 1.19e-07: .*clamp rounding errors"),
        (pgd, {"x": X - 0.5004}, ValueError, "by 0.0004"),
        (pgd, {"x": (X * 255).byte()}, TypeError, "float32 or float64"),
        (pgd, {"x": X.half()}, TypeError, "float32 or float64 in .*, got torch.float16"),
        (certify, {"x": X.bfloat16()}, TypeError, "float32 or float64 in .*, got torch.bfloat16"),
        (pgd, {"x": X[:1]}, ValueError, "labels"),
        (pgd, {"x": X[:0], "y": Y[:0]}, ValueError, "empty"),
        (pgd, {"y": Y.float()}, TypeError, "int64"),
        (pgd, {"y": Y.tolist()}, TypeError, "labels must be a tensor, got list"),
        (fgsm, {"y": Y + 9}, ValueError, "0 to 9, got values from 9 to 10"),
        (pgd, {"eps": -0.1}, ValueError, "at least 0, got -0.1"),
        (pgd, {"eps": math.nan}, ValueError, "finite"),
        (pgd, {"eps": "wide"}, TypeError, "ε must be a number, got 'wide'"),
        (pgd, {"steps": 0}, ValueError, "steps must be at least 1"),
        (pgd, {"seed": "a"}, TypeError, "seed must be a whole number, got 'a'"),
        (pgd, {"norm": "l1"}, ValueError, "use one of linf, l2"),
        (pgd, {"restarts": 2, "random_start": False}, ValueError, "restarts need"),
        (pgd, {"step_size": 0.0}, ValueError, "step size must be a finite number above 0"),
        (pgd, {"autocast": torch.float16}, ValueError, "autocast must be None or torch"),
        (pgd, {"batch_size": 0}, ValueError, "batch_size must be at least 1"),
        (pgd, {"model": Population([NET])}, ValueError, r"a population needs \[M, B\]"),
        (pgd, {"model": None}, TypeError, "object is not callable"),
        (pgd, {"model": PAIR}, TypeError, "must return a tensor of logits, got tuple"),
        (pgd, {"model": mlp(4, [3], num_classes=1), "y": Y * 0}, ValueError, "needs at least 2"),
        (pgd, {"model": nn.Sequential(NET, nn.Threshold(1e9, math.nan))}, ValueError, "are NaN"),
        (adaptive_pgd, {"sharpnesses": ["steep"]}, TypeError, "must be a number, got 'steep'"),
        (adaptive_pgd, {"sharpnesses": ()}, ValueError, "sharpnesses must not be empty"),
        (adaptive_pgd, {"sharpnesses": [-1.0]}, ValueError, "finite number above 0"),
        (adaptive_pgd, {"losses": ["hinge"]}, ValueError, "unknown loss 'hinge': use one of cross"),
        (certify, {"method": "magic"}, ValueError, "unknown method 'magic'"),
        (exact_robustness, {"time_limit": 0}, ValueError, "the time limit must be"),
        (masking_report, {"steps": [10, 5]}, ValueError, "steps must ascend"),
        (masking_report, {"epsilons": [0.1, math.nan]}, ValueError, "epsilons must ascend"),
        (masking_report, {"epsilons": [-0.1, 0.1]}, ValueError, "at least 0, got -0.1"),
        (masking_report, {"x": X[None], "y": Y[None]}, ValueError, "not a population"),
        (masking_report, {"model": lambda x: NET(x)}, TypeError, "must be a torch module, got fun"),
        (apgd, {"targets": 10}, ValueError, "targets must be 0 to 9"),
        (apgd, {"targets": -1}, ValueError, "targets must be 0 to 9"),
        (apgd, {"targets": 2, "model": THREE}, ValueError, "0 for fewer than 4 classes"),
        (square, {"queries": 0}, ValueError, "queries"),
        (auto_attack, {"parts": ["apgd"]}, ValueError, "part"),
        (auto_attack, {"eps": 0.0}, ValueError, "above 0"),
        (auto_attack, {"model": THREE}, ValueError, "4 classes"),
        (ATTACKS["cw_l2"], {"confidence": -1}, ValueError, "must be"),
        (ATTACKS["cw_l2"], {"initial_const": 0}, ValueError, "initial_const must be"),
    ],
)
def test_bad_input_gets_a_sentence(attack, change, error, message):
    with pytest.raises(error, match=message) as caught:
        attack(**{"model": NET, "x": X, "y": Y, "eps": 0.1} | change)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_attacks_run_on_cuda_as_on_the_cpu(nets, digits):
    attack, net = partial(pgd, eps=0.1), copy.deepcopy(nets[0])
    on_cpu = evaluate(net, *digits[1], attack).robust_accuracy
    on_cuda = evaluate(net.cuda(), *digits[1].to("cuda"), attack).robust_accuracy
    assert abs(on_cpu - on_cuda) <= 0.01


@pytest.mark.parametrize("attack", [pgd, partial(adaptive_pgd, steps=5)])
def test_autocast_changes_no_success(attack, nets, digits):
    """Each example that fools the network fools it in float32, and about as many do."""
    net, (x, y) = nets[0], digits[1]
    plain, fast = (attack(net, x, y, 0.1, autocast=d) for d in (None, torch.bfloat16))
    left = [is_correct(net, z, y).double().mean() for z in (plain, fast)]
    assert abs(left[0] - left[1]) <= 0.02 and (fast - x).abs().max() <= 0.1 + 1e-6
    wrong = ~is_correct(net, x, y)
    assert torch.equal(fast[wrong], x[wrong])


@pytest.mark.parametrize("name", ["pgd", "apgd", "apgd with targets", "square"])
def test_finished_examples_cost_no_more_passes(nets, name, twenty):
    sizes, many = [], {"queries" if name == "square" else "steps": 200}
    net = Function(lambda x: sizes.append(len(x)) or nets[0](x))
    assert not is_correct(net, ATTACKS[name](net, *twenty, 0.5, **many), twenty.labels).any()
    assert sum(sizes) < 20 * 200 / 2


@pytest.mark.parametrize(
    ("attack", "passes"),
    [(partial(pgd, eps=0.1), 2), (partial(apgd, eps=0.1), 3), (partial(cw_l2, steps=100), 101)],
)
def test_examples_without_a_gradient_cost_few_passes(nets, attack, passes, twenty):
    flat = copy.deepcopy(nets[0])
    torch.nn.init.zeros_(flat[-1].weight)
    sizes, x = [], twenty.images
    net = Function(lambda x: sizes.append(len(x)) or flat(x))
    attack(net, x, flat(x).argmax(1))
    assert sum(sizes) == 9 * 2 + 20 * passes  # the first look takes two images nine times


@pytest.mark.parametrize("attack", [partial(pgd, eps=0.1), partial(apgd, eps=0.1), cw_l2])
def test_a_model_that_passes_no_gradient_back_is_refused(nets, attack, twenty):
    with pytest.raises(ValueError, match="no gradient leads from the logits back to the images"):
        attack(Function(lambda x: nets[0](x.detach())), *twenty)


@pytest.mark.parametrize("early_exit", [True, False])
def test_a_gradient_that_single_precision_rounds_to_zero_moves_an_image(early_exit, digits):
    double, x = mlp(64, [16]).double(), digits[1].images[:20].double()
    net = Function(lambda x: 3000 * double(x))
    found = pgd(net, x, net(x).argmax(-1), 0.1, random_start=False, early_exit=early_exit)
    assert (found != x).flatten(1).any(1).all()
