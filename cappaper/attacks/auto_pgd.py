"""Attacks that adapt their steps: Auto-PGD, and Carlini and Wagner's, which follows Adam."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cappaper import checks
from cappaper.attacks import common
from cappaper.attacks.balls import BALLS, choose, column, is_zero
from cappaper.attacks.common import Averaged
from cappaper.progress import Progress

_MOMENTUM = 0.75  # α in equation 1 of the paper
_RISES = 0.75  # ρ in condition 1: halve the step size if a smaller share of steps raised the loss


def apgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    steps: int = 100,
    norm: str = "linf",
    targets: int = 0,
    restarts: int = 1,
    batch_size: int | None = None,
    progress: Progress | None = None,
    seed: int = 0,
) -> Tensor:
    """Auto-PGD: PGD with momentum, and with a step size that is halved when progress stalls.

    The defaults are APGD-CE of AutoAttack's standard version; ``targets=9`` is its APGD-T.

    Source: Croce and Hein, arXiv 2003.01690, algorithm 1, and equation 7 for the targeted loss.

    Args:
        model, x, y, eps, norm, batch_size, progress, seed: as :func:`~cappaper.pgd`.
        steps: gradient steps in a run.
        targets: 0 for the cross-entropy; else how many other classes to aim at, the likeliest
            first, with the DLR loss (difference of logits ratio); less than the number of classes.
        restarts: runs for each loss; each attacks the examples that are still robust.

    Returns:
        Examples shaped like ``x``: for each a success, or else the best point of the last run;
        ``x`` itself where it is misclassified.

    Raises:
        TypeError, ValueError: as :func:`~cappaper.pgd`; or ``targets`` out of range, or not 0 for
            a model with fewer than 4 classes.

    >>> from cappaper import apgd, load, mlp
    >>> apgd(mlp(64, [32]), *load("digits", "test", limit=8), eps=0.3, steps=10, targets=9).shape
    torch.Size([8, 1, 8, 8])
    """
    checks.attack(x, y, eps, seed, norm=norm, steps=steps, restarts=restarts)
    checks.whole(targets, "targets")
    model = common.look(model, x, y)
    ball, checkpoints = BALLS[norm](float(eps), y.ndim), _checkpoints(steps)

    def attack(x: Tensor, y: Tensor) -> Tensor:
        logits = common.predict(model, x, y)
        classes = logits.shape[-1]
        if targets and not (0 < targets < classes >= 4):
            raise ValueError(f"targets must be 0 to {classes - 1}, or 0 for fewer than 4 classes")
        # The true class first, then the others, the likeliest first.
        order = logits.scatter(-1, y.unsqueeze(-1), math.inf).argsort(dim=-1, descending=True)
        ranks = [*range(1, targets + 1)] or [0]
        runs = [partial(ascend, run, rank) for run, rank in enumerate(ranks * restarts)]
        return common.run_in_turn(model, runs, x, y, order)

    def ascend(run: int, rank: int, x: Tensor, y: Tensor, order: Tensor) -> Tensor:
        """One run: each example's success, or its best point."""
        start = ball.random(x, seed, run)
        low = torch.full_like(y, -math.inf, dtype=x.dtype)
        size, halved = torch.full_like(low, 2 * ball.eps), torch.ones_like(y, dtype=torch.bool)
        points = {"before": start, "best": start, "uphill": torch.zeros_like(x)}
        numbers = {"top": low, "top_before": low, "last": -low, "rises": torch.zeros_like(low)}
        own = points | numbers | {"goal": order[..., rank], "size": size, "halved": halved}
        state = _State(ball, not isinstance(model, Averaged), x, y, start, **own)
        objective = _difference_of_logits if rank else _cross_entropy
        return common.climb(partial(step, objective), state, range(steps + 1))

    def step(objective: Callable[..., Tensor], number: int, s: _State) -> None:
        point = s.here.detach().requires_grad_()
        logits = model(point)
        value = objective(logits, s.y, s.goal)
        gradient = checks.input_gradient(value.sum(), point)
        value = value.detach()
        s.stop(common.is_fooled(logits, s.y))
        if number == 0:  # from a start without a gradient no step leads anywhere
            s.stop(is_zero(gradient, y.ndim))
        s.rises = s.rises + (value > s.last)
        better = value > s.top
        s.top, s.last = torch.where(better, value, s.top), value
        direction = ball.direction(gradient)
        s.best = choose(better, s.here, s.best)
        s.uphill = choose(better, direction, s.uphill)
        if number == steps:
            checks.warn_of_nan(logits, gradient)
            return s.move(s.best)
        origin = s.here
        if number in checkpoints:
            few = s.rises < _RISES * (number - checkpoints[number])
            weak = few | (~s.halved & (s.top <= s.top_before))
            s.size = torch.where(weak, s.size / 2, s.size)
            origin = choose(weak, s.best, s.here)
            direction = choose(weak, s.uphill, direction)
            s.halved, s.top_before, s.rises = weak, s.top, torch.zeros_like(s.rises)
        ahead = s.project(direction.mul(column(s.size, s.x)).add_(origin))
        if number > 0:
            momentum = (origin - s.before).mul_(1 - _MOMENTUM)
            ahead = s.project(ahead.lerp_(origin, 1 - _MOMENTUM).add_(momentum))
        s.before = origin
        s.move(ahead)

    return common.in_batches(attack, model, x, y, batch_size, progress)


@dataclass
class _State(common.State):
    goal: Tensor  # the class to reach, or the true class
    before: Tensor  # the point one step ago
    best: Tensor  # the point with the largest objective
    uphill: Tensor  # the direction of steepest ascent there
    top: Tensor  # the objective there
    top_before: Tensor  # the largest objective at the last checkpoint
    last: Tensor  # the objective at the last step
    size: Tensor  # the step size
    rises: Tensor  # steps that raised the objective since the last checkpoint
    halved: Tensor  # whether the last checkpoint halved the step


def _checkpoints(steps: int) -> dict[int, int]:
    """The steps at which a run may halve its step size, each with the one before."""
    share, period, last, checkpoints = 0.22, 0.22, 0, dict[int, int]()
    while share < 1:
        step = math.ceil(round(share * steps, 6))  # drop the sum's rounding error
        checkpoints.setdefault(step, last)
        last, period = step, max(period - 0.03, 0.06)
        share += period
    return checkpoints


def _cross_entropy(logits: Tensor, labels: Tensor, goal: Tensor) -> Tensor:
    return F.cross_entropy(logits.movedim(-1, 1), labels, reduction="none")


def _difference_of_logits(logits: Tensor, labels: Tensor, goal: Tensor) -> Tensor:
    """By how much ``goal`` leads over the true class, whatever the scale of the logits."""
    # A logit may be -∞; half precision has no -1e9.
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)).clamp(min=-1e9)
    true, other = (logits.gather(-1, c.unsqueeze(-1)).squeeze(-1) for c in (labels, goal))
    first, _, third, fourth = logits.topk(4, dim=-1).values.unbind(-1)
    return (other - true) / (first - (third + fourth) / 2 + 1e-12)


def cw_l2(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    confidence: float = 0.0,
    steps: int = 1000,
    search_steps: int = 9,
    lr: float = 1e-2,
    initial_const: float = 1e-2,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Minimise ``‖x' - x‖² + c · max(margin(x') + κ, 0)`` over images x', with a search for c.

    The margin is the true class's logit minus the largest other one; x' = (tanh w + 1) / 2 keeps
    pixels in [0, 1], Adam minimises over w, and c is found for each example by binary search.

    Source: Carlini and Wagner, arXiv 1608.04644, section V (the function f₆, untargeted).

    Args:
        model, x, y, batch_size, progress: as :func:`~cappaper.pgd`.
        confidence: κ, at least 0, in units of logits: by how much another class must win.
        steps: Adam's steps for one c. An example stops early when a tenth of the steps lowers its
            loss by less than a ten-thousandth.
        search_steps: how many values of c are tried.
        lr: Adam's learning rate in w, above 0. Black and white pixels start at w = ±7.3: if
            ``steps`` times ``lr`` is less than 7.3, the attack hardly moves them.
        initial_const: the first c, above 0.

    Returns:
        Examples shaped like ``x``: the nearest misclassified one that was found; ``x`` itself where
        there was none, or where it is misclassified.

    Raises:
        TypeError, ValueError: as :func:`~cappaper.pgd`; or a setting out of its range.

    >>> from cappaper import cw_l2, load, mlp
    >>> cw_l2(mlp(64, [32]), *load("digits", "test", limit=8), steps=20, search_steps=2).shape
    torch.Size([8, 1, 8, 8])
    """
    checks.attack(x, y, 0, steps=steps, search_steps=search_steps)
    checks.number(confidence, "the confidence", 0)
    checks.positive(lr, "lr")
    checks.positive(initial_const, "initial_const")
    model = common.look(model, x, y)

    def attack(x: Tensor, y: Tensor) -> Tensor:
        logits = model(point := x.clone().requires_grad_())  # check their gradient, too
        checks.warn_of_nan(logits, checks.input_gradient(common.margin(logits, y).sum(), point))
        best = x.clone()
        # Squared distances; 0 where x is misclassified, so that no example is nearer.
        nearest = torch.where(common.is_fooled(common.predict(model, x, y), y), 0.0, math.inf).to(x)
        const = torch.full_like(nearest, initial_const)
        low, high = torch.zeros_like(const), torch.full_like(const, math.inf)
        for _ in range(search_steps):
            w = torch.atanh((2 * x - 1) * (1 - 1e-6)).requires_grad_()
            optimizer = torch.optim.Adam([w], lr=lr)
            running = torch.ones_like(y, dtype=torch.bool)
            hit, before = ~running, torch.full_like(const, math.inf)
            for step in range(steps):
                image = (torch.tanh(w) + 1) / 2
                lead = common.margin(model(image), y)
                distance = (image - x).flatten(y.ndim).square().sum(-1)
                loss = distance + const * (lead + confidence).clamp(min=0)
                w.grad = checks.input_gradient(loss.sum(), w).nan_to_num()
                image, distance, loss = (t.detach() for t in (image, distance, loss))
                # An example that has stopped keeps its result, however long the others go on.
                found = running & (lead < -confidence)
                closer, hit = found & (distance < nearest), hit | found
                best = choose(closer, image, best)
                nearest = torch.where(closer, distance, nearest)
                if step % max(1, steps // 10) == 0:
                    running, before = running & (loss < before * 0.9999), loss
                    if not running.any():
                        break
                optimizer.step()
            high, low = torch.where(hit, const, high), torch.where(hit, low, const)
            const = torch.where(high < math.inf, (low + high) / 2, const * 10)
        return best

    return common.in_batches(attack, model, x, y, batch_size, progress)
