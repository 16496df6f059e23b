"""What every attack promises, whatever it does inside."""

import copy
import math
from functools import partial

import pytest
import torch
from torch import nn

import cappaper
from cappaper import (
    CappedReLU,
    Population,
    adaptive_pgd,
    auto_attack,
    cw_l2,
    evaluate,
    fgsm,
    fit,
    masking_report,
    mlp,
    pgd,
)
from cappaper.attacks.common import is_correct, left_over

ATTACKS = {
    "fgsm": fgsm,
    "pgd": partial(pgd, steps=3),
    "adaptive_pgd": partial(adaptive_pgd, steps=3),
    "cw_l2": lambda model, x, y, eps: cw_l2(model, x, y, steps=5, search_steps=2),
    "auto_attack": partial(auto_attack, parts=["apgd-ce"]),
    "masking_report": partial(masking_report, steps=[2], epsilons=[0.1]),
}


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_attacks_work_where_gradients_are_off(name, context, digits):
    x, y = (tensor[:10] for tensor in digits[1])
    net = mlp(64, [8], beta=0.3).requires_grad_(False)
    with context():
        found = ATTACKS[name](net, x + 0, y + 0, eps=0.2)
    expected = ATTACKS[name](net, x, y, eps=0.2)
    same = torch.equal(found, expected) if isinstance(found, torch.Tensor) else found == expected
    assert same


@pytest.mark.parametrize("name", ATTACKS)
def test_a_model_comes_back_as_it_was(name, digits):
    x, y = (tensor[:16] for tensor in digits[1])
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), CappedReLU(0.3), nn.Flatten(), nn.Linear(72, 10)
    ).train()
    before = copy.deepcopy(net.state_dict())
    ATTACKS[name](net, x, y, eps=0.2)
    assert net.training and all(m.training for m in net.modules())
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert all(p.grad is None for p in net.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


class Both(nn.Module):
    def forward(self, x):
        return x.flatten(1), x


NET = mlp(4, [3])
X, Y = torch.full((2, 1, 2, 2), 0.5), torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"x": X * 3}, ValueError, r"\[0, 1\], got values from 1.5 to 1.5"),
        ({"x": X * math.nan}, ValueError, r"lie in \[0, 1\]"),
        ({"x": (X * 255).byte()}, TypeError, "float32 or float64"),
        ({"x": X[:1]}, ValueError, "labels"),
        ({"x": X[:0], "y": Y[:0]}, ValueError, "empty"),
        ({"y": Y.float()}, TypeError, "int64"),
        ({"y": Y + 9}, ValueError, "0 to 9, got values from 9 to 10"),
        ({"y": Y - 1}, ValueError, "from -1 to 0"),
        ({"eps": -0.1}, ValueError, "at least 0, got -0.1"),
        ({"eps": math.nan}, ValueError, "finite"),
        ({"steps": 0}, ValueError, "steps must be at least 1"),
        ({"norm": "l1"}, ValueError, "use one of linf, l2"),
        ({"restarts": 2, "random_start": False}, ValueError, "restarts need"),
        ({"step_size": 0.0}, ValueError, "step size must be a finite number above 0"),
        ({"step_size": math.nan}, ValueError, "step size must be"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
        ({"model": Population([NET])}, ValueError, r"a population needs \[M, B\]"),
        ({"model": Both()}, TypeError, "must return a tensor of logits, got tuple"),
        ({"model": mlp(4, [3], num_classes=1), "y": Y * 0}, ValueError, "needs at least 2"),
        ({"model": nn.Sequential(NET, nn.Threshold(1e9, math.nan))}, ValueError, "logits are NaN"),
    ],
)
def test_bad_input_gets_a_sentence(change, error, says):
    with pytest.raises(error, match=says) as caught:
        pgd(**{"model": NET, "x": X, "y": Y, "eps": 0.1} | change)
    assert "\n" not in str(caught.value)


def test_attacks_run_on_cuda_as_on_the_cpu(digits):
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    net = fit(mlp(64, [64, 32]), *digits[0], epochs=10, lr=3e-3)
    on_cpu = evaluate(net, *digits[1], partial(pgd, eps=0.1)).robust_accuracy
    moved = cappaper.load("digits", "test").to("cuda")
    on_cuda = evaluate(net.cuda(), *moved, partial(pgd, eps=0.1)).robust_accuracy
    assert abs(on_cpu - on_cuda) <= 0.01


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda net, x, y: pgd(net, x, y, "wide"), "ε must be a number, got 'wide'"),
        (lambda net, x, y: pgd(net, x, y, 0.1, steps=1.5), "steps must be a whole number, got 1.5"),
        (lambda net, x, y: pgd(net, x, y, 0.1, seed="a"), "seed must be a whole number, got 'a'"),
        (lambda net, x, y: pgd(net, x, y.tolist(), 0.1), "labels must be a tensor, got list"),
        (lambda net, x, y: pgd(None, x, y, 0.1), "the model must be callable, got NoneType"),
        (lambda net, x, y: cw_l2(net, x, y, search_steps="9"), "must be a whole number, got '9'"),
        (
            lambda net, x, y: adaptive_pgd(net, x, y, 0.1, sharpnesses=["steep"]),
            "the sharpness must be a number, got 'steep'",
        ),
    ],
)
def test_an_argument_of_the_wrong_kind_gets_a_sentence(call, says, digits):
    x, y = (tensor[:4] for tensor in digits[1])
    with pytest.raises(TypeError, match=says):
        call(mlp(64, [8], beta=0.3), x, y)


@pytest.mark.parametrize("members", [1, 3])
def test_dropping_examples_keeps_all_that_run_and_never_leaves_one_alone(members):
    for alive in range(0, 101, 7):
        each = torch.tensor([alive] + [alive // 2] * (members - 1)).unsqueeze(-1)
        running = torch.arange(100).flip(0) < each
        left = left_over(running)
        assert set(left.tolist()) >= set(running.any(0).nonzero().flatten().tolist())
        assert len(left) == (max(2, alive) if alive else 0)


@pytest.mark.parametrize("attack", [pgd, partial(adaptive_pgd, steps=5)])
def test_autocast_changes_no_success(attack, digits):
    """Each example that fools the network fools it in float32, and about as many do."""
    net = fit(mlp(64, [64, 32], beta=1.0), *digits[0], epochs=5, lr=3e-3)
    x, y = digits[1]
    plain, fast = (attack(net, x, y, 0.1, autocast=d) for d in (None, torch.bfloat16))
    left = [is_correct(net, z, y).double().mean() for z in (plain, fast)]
    assert abs(left[0] - left[1]) <= 0.02 and (fast - x).abs().max() <= 0.1 + 1e-6
    wrong = ~is_correct(net, x, y)
    assert torch.equal(fast[wrong], x[wrong])
