"""The truth about small networks: integer programming finds an adversarial example, or none is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cappaper.attacks.common import is_correct
from cappaper.certificates.bounds import Layers, bounds, read_layers
from cappaper.checks import check_batch, check_eps, check_module, check_number

_LEAST = 1e-4  # of the margin between logits: the solver's tolerances are far smaller
_SMALL = 1e-6  # HiGHS drops coefficients of 1e-9
_Array = NDArray[Any]
_Range = tuple[_Array, _Array]


class Exact(NamedTuple):
    """What is known of each example: ``[B]`` booleans, and images shaped like the input.

    ``robust``: there is no adversarial example in the ball. ``undecided``: the time ran out, or
    the margin is too near 0 to tell. For all others ``adversarial`` holds an adversarial example.
    """

    robust: Tensor
    undecided: Tensor
    adversarial: Tensor


def exact_robustness(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, *, time_limit: float = 30.0
) -> Exact:
    """Decide for every example whether it has an adversarial example in the L∞ ball.

    For every other class, a mixed-integer program minimises the true class's lead over the ball
    and the image range. Each unit that can be on either side of 0, or of its cap, takes a binary
    variable; interval bounds tell which ones can. No attack and no other certificate takes part,
    so that it can judge both. What counts as broken is checked on the network itself.

    Source: Tjeng, Xiao and Tedrake, arXiv 1711.07356, section 4; the second binary variable, for
    the cap, is this project's. The solver is HiGHS, through ``scipy.optimize.milp``.

    Args:
        model: a small network as :func:`~cappaper.certify` knows it: tens of hidden units.
        x: images ``[B, ...]`` in [0, 1].
        y: int64 labels ``[B]``.
        eps: L∞ radius, at least 0, in units of the pixels' range.
        time_limit: seconds for one program; an example has one for each other class.

    Raises:
        TypeError, ValueError: as :func:`~cappaper.certify`; or a time limit not above 0, or a layer
            whose weights are all below 1e-6.

    >>> from cappaper import exact_robustness, load, mlp
    >>> digits = load("digits", "test", limit=2)
    >>> exact_robustness(mlp(64, [4], beta=0.1), *digits, eps=1.0).robust
    tensor([False, False])
    """
    check_batch(x, y)
    check_eps(eps)
    eps = float(eps)
    check_module(model)
    check_number(time_limit, "the time limit")
    if not time_limit > 0:
        raise ValueError(f"the time limit must be above 0 seconds, got {time_limit}")
    network, correct = read_layers(model), is_correct(model, x, y)
    for largest in (weight.abs().max().item() for weight in network.weights):
        if 0 < largest < _SMALL:
            raise ValueError(
                f"the largest weight of a layer is {largest:.1g}, and the solver takes what is so"
                " small for 0: rescale the network to larger caps"
            )
    found = Exact(correct.clone(), torch.zeros_like(correct), x.clone())
    for i in correct.nonzero().flatten().tolist():
        image, label = x[i : i + 1], y[i : i + 1]
        *hidden, logits = (
            (z.lower[0].cpu().numpy(), z.upper[0].cpu().numpy())
            for z in bounds(model, image, eps, "ibp")
        )
        pixels = image.detach().flatten().double().cpu().numpy()
        box = ((pixels - eps).clip(0), (pixels + eps).clip(max=1))
        program = _program(network, hidden, box)
        # The classes that seem nearest first: one adversarial example is enough.
        others = [j for j in np.argsort(-logits[1]) if j != label.item()]
        for other in others:
            robust, point = _solve(network, program, int(label), int(other), time_limit)
            if robust:
                continue
            candidate = torch.as_tensor(point.clip(*box)).to(image).reshape(image.shape)
            found.robust[i] = False
            found.undecided[i] = is_correct(model, candidate, label)[0]
            if not found.undecided[i]:
                found.adversarial[i] = candidate[0]
                break
    return found


class _Program(NamedTuple):
    """``rows @ v`` between ``low`` and ``high``, for variables v between ``least`` and
    ``most``.

    The variables: the pixels, then for each hidden layer its pre-activations, its outputs, which
    units are above 0, and which are at their cap.
    """

    rows: Any
    low: _Array
    high: _Array
    least: _Array
    most: _Array
    integral: _Array


def _program(network: Layers, hidden: Sequence[_Range], box: _Range) -> _Program:
    """What the network computes on the box, as linear constraints with binary variables."""
    # Here, because it takes a while, and few who import the package ask for the truth.
    from scipy.sparse import csr_array, diags_array, eye_array, lil_array, vstack

    least, most, integral = [box[0]], [box[1]], [np.zeros(len(box[0]))]
    parts: list[tuple[int, list[tuple[int, Any]], Any, Any]] = []
    before, end = 0, len(box[0])
    for weight, bias, cap, (low, high) in zip(
        network.weights, network.biases, network.caps, hidden, strict=False
    ):
        beta, units = cap.item(), len(low)
        out_low, out_high = low.clip(0, beta), high.clip(0, beta)
        least += [low, out_low, (low > 0) * 1.0, (low > beta) * 1.0]
        most += [high, out_high, (high > 0) * 1.0, (high > beta) * 1.0]
        integral += [np.zeros(2 * units), np.ones(2 * units)]
        z, a, above, capped = (end + k * units for k in range(4))
        one, free = eye_array(units), np.full(units, np.inf)
        zero, shift = np.zeros(units), bias.cpu().numpy()
        level = beta if np.isfinite(beta) else 0.0
        over, under = diags_array((high - beta).clip(0)), diags_array(low.clip(max=0))
        parts += [
            # z = W a' + b
            (units, [(z, one), (before, -weight.cpu().numpy())], shift, shift),
            # a ≥ z, unless at the cap
            (units, [(a, one), (z, -one), (capped, over)], zero, free),
            # a ≤ z, unless at 0
            (units, [(a, one), (z, -one), (above, -under)], -free, -low.clip(max=0)),
            # a = 0, unless above 0
            (units, [(a, one), (above, -diags_array(out_high))], -free, zero),
            # a = β, if at the cap
            (units, [(a, one), (capped, -level * one)], zero, free),
        ]
        before, end = a, end + 4 * units
    blocks = []
    for units, terms, _, _ in parts:
        row = lil_array((units, end))
        for start, block in terms:
            row[:, start : start + block.shape[1]] = block
        blocks.append(row)
    return _Program(
        vstack([csr_array((0, end)), *blocks], format="csr"),
        np.concatenate([np.empty(0), *(low for *_, low, _ in parts)]),
        np.concatenate([np.empty(0), *(high for *_, high in parts)]),
        np.concatenate(least),
        np.concatenate(most),
        np.concatenate(integral),
    )


def _solve(
    network: Layers, program: _Program, label: int, other: int, time_limit: float
) -> tuple[bool, _Array]:
    """Whether the label leads everywhere, and if not, the pixels where it leads least."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    weight, bias = network.weights[-1].cpu().numpy(), network.biases[-1].cpu().numpy()
    width = weight.shape[1]
    lead, last = np.zeros(len(program.integral)), len(program.integral) - 3 * width
    if len(network.weights) == 1:
        last = 0
    lead[last : last + width] = weight[label] - weight[other]
    done = milp(
        lead,
        integrality=program.integral,
        bounds=Bounds(program.least, program.most),
        # Where nothing comes this near, the solver can stop before it knows the minimum.
        constraints=[
            LinearConstraint(program.rows, program.low, program.high),
            LinearConstraint(lead, ub=_LEAST - (bias[label] - bias[other])),
        ],
        options={"time_limit": time_limit},
    )
    if done.status == 2:  # infeasible: the lead is larger everywhere
        return True, np.empty(0)
    pixels = len(network.weights[0][0])
    nothing = (program.least + program.most)[:pixels] / 2
    return False, nothing if done.x is None else done.x[:pixels]
