"""Auto-PGD: PGD that chooses its own step size, on the cross-entropy or towards other classes."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cappaper import checks
from cappaper.attacks.balls import BALLS, Linf, column
from cappaper.attacks.common import Progress, in_batches, is_correct, retry, worth_dropping

_MOMENTUM = 0.75  # α in equation 1 of the paper
_RISES = 0.75  # ρ in its condition 1: a step is halved where fewer steps than this share rose


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
    """Auto-PGD: momentum, and a step size that is halved where it stops to pay.

    The defaults are APGD-CE of AutoAttack's standard version; ``targets=9`` is its APGD-T.

    Source: Croce and Hein, arXiv 2003.01690, algorithm 1, and equation 7 for the targeted loss.

    Args:
        model, x, y, eps, norm, batch_size, progress, seed: as :func:`~cappaper.pgd`.
        steps: gradient steps in a run.
        targets: 0 for the cross-entropy; else the number of other classes that it aims at, the
            likeliest first, by the difference of logits ratio; below the number of classes.
        restarts: runs for each loss; every run attacks what no earlier one has fooled.

    Returns:
        Examples shaped like ``x``: a success of each; the best point of the last run where there
        was none; ``x`` itself where it is misclassified.

    Raises:
        TypeError, ValueError: as :func:`~cappaper.pgd`; or ``targets`` out of range, or any with
            fewer than 4 classes.

    >>> from cappaper import apgd, load, mlp
    >>> x, y = load("digits", "test", limit=8)
    >>> apgd(mlp(64, [32]), x, y, eps=0.3, steps=10, targets=9).shape
    torch.Size([8, 1, 8, 8])
    """
    checks.attack(x, y, eps, seed, steps=steps, restarts=restarts)
    checks.whole(targets, "targets")
    checks.one_of(norm, tuple(BALLS), "norm")
    ball = BALLS[norm](eps, y.ndim)

    def attack(x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            logits = checks.logits_of(model, x, y)
        classes = logits.shape[-1]
        if targets and not (0 < targets < classes >= 4):
            raise ValueError(
                f"targets must be 0 to {classes - 1}, and 0 below 4 classes, got {targets} with"
                f" {classes} classes"
            )
        # The true class first, then the others, the likeliest first.
        order = logits.scatter(-1, y.unsqueeze(-1), math.inf).argsort(dim=-1, descending=True)
        goals = order[..., 1 : targets + 1] if targets else order[..., :1]
        adversarial, robust, run = x, logits.argmax(-1) == y, 0
        for goal in goals.unbind(-1) * restarts:
            climb = partial(_climb, model, ball, steps, seed, run)
            adversarial = retry(climb, adversarial, robust, x, y, goal, robust)
            robust, run = robust & is_correct(model, adversarial, y), run + 1
        return adversarial

    return in_batches(attack, model, x, y, batch_size, progress)


@dataclass
class _State:
    """What a run knows of each example: images, and numbers and flags shaped like the labels."""

    x: Tensor
    y: Tensor
    goal: Tensor  # the class to reach; the true class stands for the cross-entropy
    running: Tensor
    here: Tensor
    before: Tensor  # the point one step ago
    best: Tensor  # the point with the largest objective
    uphill: Tensor  # the gradient there
    top: Tensor  # the objective there
    last: Tensor  # the objective at the last step
    top_before: Tensor  # the largest objective at the last checkpoint
    size: Tensor  # the step size
    rises: Tensor  # steps that raised the objective since the last checkpoint
    halved: Tensor  # whether the last checkpoint halved the step

    def select(self, left: Tensor) -> _State:
        """The examples at these positions alone."""
        dim = self.y.ndim - 1
        chosen = {f.name: getattr(self, f.name).index_select(dim, left) for f in fields(self)}
        return replace(self, **chosen)


def _climb(
    model: nn.Module,
    ball: Linf,
    steps: int,
    seed: int,
    run: int,
    x: Tensor,
    y: Tensor,
    goal: Tensor,
    running: Tensor,
) -> Tensor:
    """One run: each example's success, or its best point."""
    start, batch = ball.random(x, seed, run), y.ndim - 1
    low = torch.full_like(y, -math.inf, dtype=x.dtype)
    zero, size = torch.zeros_like(low), torch.full_like(low, 2 * ball.eps)
    points, yes = (start, start, start, torch.zeros_like(x)), torch.ones_like(running)
    s = _State(x, y, goal, running, *points, low, -low, low, size, zero, yes)
    objective = _cross_entropy if torch.equal(goal, y) else _difference_of_logits
    end, index, project = start, torch.arange(y.shape[-1], device=y.device), ball.projection(x)
    look_every = 1 if x.device.type == "cpu" else 8
    checkpoints, checked = _checkpoints(steps), 0
    for step in range(steps + 1):
        left = worth_dropping(s.running) if step % look_every == 0 else None
        if left is not None:
            end, index, s = end.index_copy(batch, index, s.here), index[left], s.select(left)
            if not len(left):
                return end
            project = ball.projection(s.x)
        point = s.here.detach().requires_grad_()
        logits = model(point)
        value = objective(logits, s.y, s.goal)
        gradient = checks.input_gradient(value.sum(), point)
        value = value.detach()
        s.running = s.running & (logits.argmax(-1) == s.y)
        if step == 0:  # from a start without a gradient no step leads anywhere
            s.running = s.running & gradient.flatten(y.ndim).ne(0).any(-1)
        s.rises = s.rises + (value > s.last)
        better = value > s.top
        s.top, s.last = torch.where(better, value, s.top), value
        s.best = torch.where(column(better, s.x), s.here, s.best)
        s.uphill = torch.where(column(better, s.x), gradient, s.uphill)
        if step == steps:
            break
        origin = s.here
        if step in checkpoints:
            few = s.rises < _RISES * (step - checked)
            weak = few | (~s.halved & (s.top <= s.top_before))
            s.size = torch.where(weak, s.size / 2, s.size)
            origin = torch.where(column(weak, s.x), s.best, s.here)
            gradient = torch.where(column(weak, s.x), s.uphill, gradient)
            s.halved, s.top_before, s.rises, checked = weak, s.top, torch.zeros_like(s.rises), step
        ahead = project(origin + column(s.size, s.x) * ball.direction(gradient))
        if step > 0:
            momentum = (origin - s.before) * (1 - _MOMENTUM)
            ahead = project(ahead.lerp(origin, 1 - _MOMENTUM) + momentum)
        s.before, s.here = origin, torch.where(column(s.running, s.x), ahead, s.here)
    return end.index_copy(batch, index, torch.where(column(s.running, s.x), s.best, s.here))


def _checkpoints(steps: int) -> set[int]:
    """The steps at which a run asks whether its step size still pays."""
    share, period, checkpoints = 0.22, 0.22, set[int]()
    while share < 1:
        checkpoints.add(math.ceil(round(share * steps, 6)))  # a sum of shares is rounded
        period = max(period - 0.03, 0.06)
        share += period
    return checkpoints


def _cross_entropy(logits: Tensor, labels: Tensor, goal: Tensor) -> Tensor:
    flat = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none")
    return flat.reshape(labels.shape)


def _difference_of_logits(logits: Tensor, labels: Tensor, goal: Tensor) -> Tensor:
    """By how much ``goal`` leads over the true class, whatever the scale of the logits."""
    true, other = (logits.gather(-1, c.unsqueeze(-1)).squeeze(-1) for c in (labels, goal))
    first, _, third, fourth = logits.topk(4, dim=-1).values.unbind(-1)
    return (other - true) / (first - (third + fourth) / 2 + 1e-12)
