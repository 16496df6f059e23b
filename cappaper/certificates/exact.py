"""Exact robustness of small networks: integer programming finds an adversarial example or none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cappaper import checks
from cappaper.attacks.common import is_correct
from cappaper.certificates.bounds import (
    Interval,
    Layers,
    box_around,
    layer_bounds,
    read_layers,
    rounding_error,
)

_LEAST = 1e-4  # a smaller lead between logits is undecided
_TINY = 1e-8  # HiGHS drops coefficients of 1e-9
_Array = NDArray[Any]


class Exact(NamedTuple):
    """The answer for each example: ``[B]`` booleans, and images shaped like the input.

    ``robust``: there is no adversarial example in the ball. ``undecided``: the time ran out, the
    lead is too near 0, or the network's numbers are too large or too small to tell. For all others
    ``adversarial`` holds an adversarial example.
    """

    robust: Tensor
    undecided: Tensor
    adversarial: Tensor


def exact_robustness(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, *, time_limit: float = 30.0
) -> Exact:
    """Decide for every example whether it has an adversarial example in the L∞ ball.

    For every other class, a mixed-integer program minimises the true class's lead over the ball
    and the image range. Each unit that can be on either side of 0, or of its cap, has a binary
    variable; interval bounds show which units can. The method uses no attack and no other
    certificate, so it can judge both. The network itself confirms every adversarial example.

    Source: Tjeng, Xiao and Tedrake, arXiv 1711.07356, section 4; the second binary variable, for
    the cap, is this project's. The solver is HiGHS, through ``scipy.optimize.milp``.

    Args:
        model: a small network as :func:`~cappaper.certify` takes it: tens of hidden units.
        x: images ``[B, ...]`` in [0, 1].
        y: int64 labels ``[B]``.
        eps: L∞ radius, at least 0, in units of the pixels' range.
        time_limit: seconds for one program; an example has one for each other class.

    Raises:
        TypeError, ValueError: as :func:`~cappaper.certify`; or a time limit not above 0.

    >>> from cappaper import exact_robustness, load, mlp
    >>> digits = load("digits", "test", limit=2)
    >>> exact_robustness(mlp(64, [4], beta=0.1), *digits, eps=1.0).robust
    tensor([False, False])
    """
    checks.attack(x, y, eps)
    checks.module(model)
    checks.positive(time_limit, "the time limit")
    eps, network, correct = float(eps), read_layers(model), is_correct(model, x, y)
    # The rounding errors of n terms add up like a random walk, to the bound for all n over √n.
    terms = max(weight.shape[1] for weight in network.weights)
    result = Exact(correct.clone(), torch.zeros_like(correct), x.clone())
    for i in correct.nonzero().flatten().tolist():
        image, label = x[i : i + 1], int(y[i])
        pixels = image.detach().flatten().double().cpu().numpy()
        box = ((pixels - eps).clip(0), (pixels + eps).clip(max=1))
        around = box_around(network, image, eps)
        *hidden, logits = layer_bounds(network, around, "ibp")
        program = _program(network, hidden, box)
        error = rounding_error(network, hidden, around, torch.finfo(x.dtype))[0] / terms**0.5
        # The classes that seem nearest first: one adversarial example is enough.
        for other in logits.upper[0].argsort(descending=True).tolist():
            if other == label:
                continue
            point = _solve(program, label, other, (error[label] + error[other]).item(), time_limit)
            if point is None:
                continue
            found = point[: len(pixels)].clip(*box)
            candidate = torch.as_tensor(found).to(image).reshape(image.shape)
            result.robust[i] = False
            result.undecided[i] = is_correct(model, candidate, y[i : i + 1])[0]
            if not result.undecided[i]:
                result.adversarial[i] = candidate[0]
                break
    return result


class _Program(NamedTuple):
    """``rows @ v`` between ``low`` and ``high``, for variables v between ``least`` and ``most``.

    The variables: the pixels, then for each hidden layer its pre-activations, its outputs, which
    units are above 0, and which are at their cap. The logits divided by ``scale`` are
    ``weight @ v + bias``.
    """

    rows: _Array
    low: _Array
    high: _Array
    least: _Array
    most: _Array
    integral: _Array
    weight: _Array
    bias: _Array
    scale: _Array


def _program(network: Layers, hidden: Sequence[Interval], box: tuple[_Array, _Array]) -> _Program:
    """What the network computes on the box, as linear constraints with binary variables.

    Every unit is on a scale of its own, so that no number is large. A cap is positively
    homogeneous, ``a(z, β) = s · a(z / s, β / s)``: a unit's weights, bias and cap are divided by s,
    and the weights of the next layer are multiplied by it. A power of two rounds nothing.
    """
    weights, biases = ([t.cpu().numpy() for t in part] for part in network[:2])
    pixels = len(box[0])
    size = pixels + 4 * sum(len(weight) for weight in weights[:-1])
    variables: list[tuple[_Array, ...]] = [(*box, np.zeros(pixels))]
    constraints: list[tuple[_Array, ...]] = [(np.empty((0, size)), np.empty(0), np.empty(0))]

    def constrain(low: _Array, high: _Array, *terms: tuple[int, _Array]) -> None:
        row = np.zeros((len(low), size))
        for start, block in terms:
            row[:, start : start + block.shape[1]] = block
        constraints.append((row, low, high))

    before, inputs, end = np.ones(pixels), 0, pixels
    for weight, bias, cap, (lower, upper) in zip(
        weights, biases, network.caps, hidden, strict=False
    ):
        low, high = lower[0].cpu().numpy(), upper[0].cpu().numpy()
        scale = _scale(np.column_stack([weight * before, low, high]))
        weight, low, high = weight * before / scale[:, None], low / scale, high / scale
        shift, beta, units = bias / scale, cap.item() / scale, len(scale)
        tiny = np.where(np.abs(weight) < _TINY, weight, 0)
        slack = np.abs(tiny).sum(1)  # no input is above 1
        out_low, out_high = (np.minimum(side.clip(0), beta) for side in (low, high))
        one, zero, free = np.eye(units), np.zeros(units), np.full(units, np.inf)
        variables += [(low, high, zero), (out_low, out_high, zero)]
        variables += [(low > at, high > at, zero + 1) for at in (0, beta)]
        z, a, above, capped = (end + k * units for k in range(4))
        under, level = low.clip(max=0), np.where(high > beta, beta, 0)
        over = np.where(high > beta, high - level, 0)
        # z = W a' + b
        constrain(shift - slack, shift + slack, (z, one), (inputs, tiny - weight))
        # a ≥ z, unless at the cap
        constrain(zero, free, (a, one), (z, -one), (capped, np.diag(over)))
        # a ≤ z, unless at 0
        constrain(-free, -under, (a, one), (z, -one), (above, -np.diag(under)))
        # a = 0, unless above 0
        constrain(-free, zero, (a, one), (above, -np.diag(out_high)))
        # a = β, if at the cap
        constrain(zero, free, (a, one), (capped, -np.diag(level)))
        before, inputs, end = scale, a, end + 4 * units
    last = np.zeros((len(weights[-1]), size))
    last[:, inputs : inputs + len(before)] = weights[-1] * before
    (scale,) = _scale(np.append(last, biases[-1])[None])
    tables = (zip(*table, strict=True) for table in (constraints, variables))
    parts = [np.concatenate(part) for table in tables for part in table]
    return _Program._make([*parts, last / scale, biases[-1] / scale, scale])


def _scale(rows: _Array) -> _Array:
    """A power of two as large as the largest number of each row."""
    largest = np.abs(rows).max(1)
    powers: _Array = np.where(largest > 0, np.exp2(np.frexp(largest)[1]), 1.0)
    return powers


def _solve(
    program: _Program, label: int, other: int, rounding: float, time_limit: float
) -> _Array | None:
    """The variables where the label leads least, or None if it leads everywhere."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    lead = program.weight[label] - program.weight[other]
    # The solver's tolerance is 1e-6 on the program's scale.
    scale = program.scale.item()
    least = max(min(_LEAST / scale, 1e-3), rounding / scale, 1e-5)
    done = milp(
        lead,
        integrality=program.integral,
        bounds=Bounds(program.least, program.most),
        # Where nothing comes this near, the solver can stop before it knows the minimum.
        constraints=[
            LinearConstraint(program.rows, program.low, program.high),
            LinearConstraint(lead, ub=least - (program.bias[label] - program.bias[other])),
        ],
        options={"time_limit": time_limit},
    )
    # Status 2 also means that HiGHS refuses the program, which proves nothing.
    if done.status == 2 and "model_status is Infeasible" in done.message:
        return None
    point: _Array = (program.least + program.most) / 2 if done.x is None else done.x
    return point
