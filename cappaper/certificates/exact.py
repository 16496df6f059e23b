"""Exact robustness of small networks: integer programming finds an adversarial example or none."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cappaper import checks
from cappaper.attacks.common import is_correct
from cappaper.certificates import bounds

_LEAST = 1e-4  # a smaller lead between logits is undecided
_Array = NDArray[Any]


class Exact(NamedTuple):
    """The answer for each example; an example that is neither robust nor undecided is broken."""

    robust: Tensor  #: booleans ``[B]``: there is no adversarial example in the ball
    undecided: Tensor  #: booleans ``[B]``: the time ran out, or rounding decides
    adversarial: Tensor  #: images ``[B, ...]``, adversarial where the example is broken


def exact_robustness(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, *, time_limit: float = 30.0
) -> Exact:
    """Decide for every example whether it has an adversarial example in the L∞ ball.

    For every other class, a mixed-integer program minimises the true class's lead over the ball
    and the image range. Each unit that can be on either side of 0, or of its cap, has a binary
    variable; interval bounds show which units can. The method uses no attack and no
    bounds but these, so it can test attacks and CROWN. The network confirms all that is found.

    Source: Tjeng, Xiao and Tedrake, arXiv 1711.07356, section 4; the second binary variable, for
    the cap, is this project's. The solver is HiGHS, through ``scipy.optimize.milp``.

    Args:
        model, x, y, eps: as :func:`~cappaper.certify`, with tens of hidden units.
        time_limit: seconds for one program; an example has one for each other class.

    Raises:
        TypeError, ValueError: as :func:`~cappaper.certify`; or a time limit not above 0.

    >>> from cappaper import exact_robustness, load, mlp
    >>> digits = load("digits", "test", limit=2)
    >>> exact_robustness(mlp(64, [4], beta=0.1), *digits, eps=1.0).robust
    tensor([False, False])
    """
    checks.attack(x, y, eps)
    checks.positive(time_limit, "the time limit")
    eps, network = float(eps), bounds.read_layers(model)
    correct = bounds.check_reading(network, model, x, y)
    # The rounding errors of n terms add up like a random walk: to the worst case divided by √n.
    terms = max(weight.shape[1] for weight in network.weights)
    result = Exact(correct.clone(), torch.zeros_like(correct), x.clone())
    for i in correct.nonzero().flatten().tolist():
        image, label = x[i : i + 1], int(y[i])
        pixels = image.detach().flatten().double().cpu().numpy()
        ball = ((pixels - eps).clip(0), (pixels + eps).clip(max=1))
        box = bounds.box_around(image, eps)
        *hidden, logits = bounds.layer_bounds(network, box, "ibp")
        solve = _solver(network, hidden, ball, time_limit)
        error = bounds.rounding_error(network, hidden, box, torch.finfo(x.dtype))[0] / terms**0.5
        # The classes that seem nearest first: one adversarial example is enough.
        others = logits.upper[0].argsort(descending=True).tolist()
        for other in (c for c in others if c != label):
            point = solve(label, other, (error[label] + error[other]).item())
            if point is None:
                continue
            candidate = torch.as_tensor(point).to(image).view_as(image)
            result.robust[i] = False
            result.undecided[i] = is_correct(model, candidate, y[i : i + 1])[0]
            if not result.undecided[i]:
                result.adversarial[i] = candidate[0]
                break
    return result


def _solver(
    net: bounds.Layers, hidden: list[bounds.Interval], box: tuple[_Array, _Array], limit: float
) -> Callable[[int, int, float], _Array | None]:
    """A function that returns where a class leads another least, or None if it always leads.

    The variables: the pixels, then for each hidden layer its pre-activations, its outputs, which
    units are above 0, and which are at their cap. Every unit has its own scale s, so that no number
    is large: ``a(z, β) = s · a(z / s, β / s)``. As s is a power of two, scaling is exact.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    weights, biases = ([t.cpu().numpy() for t in part] for part in net[:2])
    before, inputs, size = np.ones(len(box[0])), 0, len(box[0])
    variables: list[tuple[_Array, ...]] = [(*box, np.zeros(size))]
    # For each group: blocks of coefficients by their first column, and the bounds of their sum.
    groups: list[tuple[dict[int, _Array], _Array, _Array]] = []
    for weight, bias, cap, ends in zip(weights, biases, net.caps, hidden, strict=False):
        low, high = (end[0].cpu().numpy() for end in ends)
        scale = _scale(np.column_stack([weight * before, low, high]))
        weight, low, high = weight * before / scale[:, None], low / scale, high / scale
        shift, beta, units = bias / scale, cap.item() / scale, len(scale)
        tiny = np.where(np.abs(weight) < 1e-8, weight, 0)  # HiGHS drops coefficients of 1e-9
        slack = np.abs(tiny).sum(1)  # no input is above 1
        out_low, out_high = (np.minimum(side.clip(0), beta) for side in (low, high))
        one, zero, free = np.eye(units), np.zeros(units), np.full(units, np.inf)
        variables += [(low, high, zero), (out_low, out_high, zero)]
        variables += [(low > at, high > at, zero + 1) for at in (0, beta)]
        z, a, above, capped = (size + k * units for k in range(4))
        under, over, level = low.clip(max=0), (high - beta).clip(0), np.where(high > beta, beta, 0)
        groups += [
            ({z: one, inputs: tiny - weight}, shift - slack, shift + slack),  # z = W a' + b
            ({a: one, z: -one, capped: np.diag(over)}, zero, free),  # a ≥ z, unless at the cap
            ({a: one, z: -one, above: -np.diag(under)}, -free, -under),  # a ≤ z, unless at 0
            ({a: one, above: -np.diag(out_high)}, -free, zero),  # a = 0, unless above 0
            ({a: one, capped: -np.diag(level)}, zero, free),  # a = β, if at the cap
        ]
        before, inputs, size = scale, a, size + 4 * units

    def rows(blocks: dict[int, _Array], count: int) -> _Array:
        table = np.zeros((count, size))
        for start, block in blocks.items():
            table[:, start : start + block.shape[1]] = block
        return table

    constraints = [LinearConstraint(rows(blocks, len(lo)), lo, hi) for blocks, lo, hi in groups]
    last = rows({inputs: weights[-1] * before}, len(weights[-1]))
    (scale,) = _scale(np.append(last, biases[-1])[None])
    least, most, integral = (np.concatenate(part) for part in zip(*variables, strict=True))
    domain, logits, bias = Bounds(least, most), last / scale, biases[-1] / scale

    def solve(label: int, other: int, error: float) -> _Array | None:
        lead = logits[label] - logits[other]
        # The solver's tolerance is 1e-6 on the program's scale.
        enough = max(min(_LEAST / scale, 1e-3), error / scale, 1e-5)
        # Where nothing comes this near, the solver can stop before it knows the minimum.
        near = LinearConstraint(lead, ub=enough - (bias[label] - bias[other]))
        rules, options = [*constraints, near], {"time_limit": limit}
        done = milp(lead, integrality=integral, bounds=domain, constraints=rules, options=options)
        # Status 2 is an infeasible program or one that HiGHS refuses: the message tells which.
        if "model_status is Infeasible" in done.message:
            return None
        point: _Array = (least + most) / 2 if done.x is None else done.x
        return point[: len(box[0])].clip(*box)

    return solve


def _scale(rows: _Array) -> _Array:
    """A power of two for each row, just above its largest magnitude; 1 for a row of zeros."""
    powers: _Array = np.exp2(np.frexp(np.abs(rows).max(1))[1])
    return powers
