"""Auto-PGD: PGD that finds its own step size, on the cross-entropy or towards each other class."""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cappaper.attacks.common import (
    BALLS,
    Ball,
    Progress,
    column,
    in_batches,
    is_correct,
    looks_every,
    packed,
    put,
    retry,
    take,
)
from cappaper.checks import (
    check_batch,
    check_count,
    check_eps,
    check_whole,
    input_gradient,
    logits_of,
    one_of,
    output_of,
)

_MOMENTUM = 0.75  # α in equation 1 of the paper
_TOGETHER = 8  # classes that are tried side by side, at most
_RISES = 0.75  # ρ in its condition 1: where fewer steps than this share went up, they are halved


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
    """Auto-PGD: momentum, and steps that are halved where they stop to pay, back at the best point.

    The defaults are APGD-CE of AutoAttack's standard version; ``targets=9`` is its APGD-T. Inside
    :func:`~cappaper.surrogate_gradient` it climbs along the surrogate.

    Source: Croce and Hein, arXiv 2003.01690, algorithm 1, and equation 7 for the targeted loss.

    Args:
        model, x, y, eps, norm, progress, seed: as :func:`~cappaper.pgd`.
        steps: gradient steps in a run.
        targets: 0 for the cross-entropy; else towards how many of the other classes it climbs, the
            likeliest first, on the difference of logits ratio: 9 of 10 classes are all of them.
        restarts: runs for each loss; every run attacks what no earlier one has fooled.
        batch_size: as :func:`~cappaper.pgd`; what the likeliest target leaves of a batch is copied
            once for each other target.

    Returns:
        Examples shaped like ``x``: a success of each; the best point of a run where there was none;
        ``x`` itself where it was misclassified to begin with.

    Raises:
        TypeError, ValueError: as :func:`~cappaper.pgd`; or ``targets`` is below 0 or not below the
            number of classes, or there are fewer than 4 of these with any targets.

    >>> from cappaper import apgd, load, mlp
    >>> x, y = load("digits", "test", limit=8)
    >>> apgd(mlp(64, [32]), x, y, eps=0.3, steps=10, targets=9).shape
    torch.Size([8, 1, 8, 8])
    """
    check_batch(x, y)
    check_eps(eps)
    check_count(steps, "steps")
    check_count(restarts, "restarts")
    check_whole(targets, "targets")
    check_whole(seed, "the seed")
    one_of(norm, tuple(BALLS), "norm")
    ball = BALLS[norm](eps, y.ndim)

    def attack(x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            logits = logits_of(model, x, y)
        classes = logits.shape[-1]
        if targets and not (0 < targets < classes >= 4):
            raise ValueError(
                f"targets must be 0 to {classes - 1}, and 0 below 4 classes, got {targets} with"
                f" {classes} classes"
            )
        # The classes after the true one, the likeliest first. Most examples fall to that; what is
        # left tries the others side by side, which costs fewer and larger steps.
        others = logits.scatter(-1, y.unsqueeze(-1), math.inf).argsort(dim=-1, descending=True)
        rest = others[..., 2 : targets + 1].split(_TOGETHER, -1)
        waves = [others[..., 1:2], *rest] if targets else [others[..., :1]]
        adversarial, stands, run = x, logits.argmax(-1) == y, 0
        for goals in (goals for goals in waves * restarts if goals.shape[-1]):
            climb = partial(_side_by_side, model, ball, steps, seed, run)
            adversarial = retry(climb, adversarial, stands, x, y, goals)
            stands, run = stands & is_correct(model, adversarial, y), run + goals.shape[-1]
        return adversarial

    return in_batches(attack, model, x, y, batch_size, progress)


def _side_by_side(
    model: nn.Module,
    ball: Ball,
    steps: int,
    seed: int,
    run: int,
    x: Tensor,
    y: Tensor,
    goals: Tensor,
    live: Tensor,
) -> Tensor:
    """A run towards each of an example's ``goals``, ``[..., B, T]``: one that succeeded, or one."""
    batch, count, tries = y.ndim - 1, y.shape[-1], goals.shape[-1]
    start = torch.cat([ball.random(x, seed, run + i) for i in range(tries)], batch)
    x, y, live = (torch.cat([t] * tries, batch) for t in (x, y, live))
    goal = goals.transpose(-1, -2).flatten(-2)  # first goals of all examples, then their second
    end = _climb(model, ball, x, start, y, goal, live, steps, count)
    fooled = ~is_correct(model, end, y)
    first = fooled.reshape(*fooled.shape[:-1], tries, count).int().argmax(-2)
    return take(end, first * count + torch.arange(count, device=y.device))


def _climb(
    model: nn.Module,
    ball: Ball,
    x: Tensor,
    start: Tensor,
    y: Tensor,
    goal: Tensor,
    live: Tensor,
    steps: int,
    count: int,
) -> Tensor:
    """A run of each column: its success, or its best point.

    All runs of one of the ``count`` examples stop at the success of one of them.
    """
    height = _cross_entropy if torch.equal(goal, y) else _difference_of_logits
    end, index = start, torch.arange(y.shape[-1], device=y.device).expand_as(y)
    here = before = best = start
    uphill, top = torch.zeros_like(start), torch.full_like(y, -math.inf, dtype=x.dtype)
    last, top_before, size = -top, top, torch.full_like(top, 2 * ball.eps)
    rises, halved = torch.zeros_like(top), torch.ones_like(y, dtype=torch.bool)
    looks, project, checked = looks_every(x), ball.around(x), 0
    checkpoints = _checkpoints(steps)
    for step in range(steps + 1):
        images, numbers = (x, here, before, best, uphill), (top, last, top_before, size, rises)
        if step % looks == 0 and (fewer := packed(live, index, y, goal, halved, *numbers, *images)):
            end = put(end, index, here)
            live, index, y, goal, halved, *state = fewer
            top, last, top_before, size, rises, x, here, before, best, uphill = state
            if not live.numel():
                return end
            project = ball.around(x)
        point = here.detach().requires_grad_()
        logits = output_of(model, point)
        value = height(logits, y, goal)
        gradient = input_gradient(value.sum(), point)
        value = value.detach()
        fooled = logits.argmax(-1) != y
        hit = torch.zeros(*y.shape[:-1], count, device=y.device)
        hit = hit.scatter_add(-1, index % count, fooled.to(hit))
        live = live & (hit == 0).gather(-1, index % count)
        if step == 0:  # from a start without a gradient there is no way anywhere
            live = live & gradient.flatten(y.ndim).ne(0).any(-1)
        rises = rises + (value > last)
        better, last = value > top, value
        top = torch.where(better, value, top)
        best = torch.where(column(better, x), here, best)
        uphill = torch.where(column(better, x), gradient, uphill)
        if step == steps:
            break
        origin = here
        if step in checkpoints:
            weak = (rises < _RISES * (step - checked)) | (~halved & (top <= top_before))
            size = torch.where(weak, size / 2, size)
            origin = torch.where(column(weak, x), best, here)
            gradient = torch.where(column(weak, x), uphill, gradient)
            halved, top_before, rises, checked = weak, top, torch.zeros_like(rises), step
        ahead = project(origin + column(size, x) * ball.direction(gradient))
        if step > 0:
            ahead = project(ahead.lerp(origin, 1 - _MOMENTUM) + (origin - before) * (1 - _MOMENTUM))
        before, here = origin, torch.where(column(live, x), ahead, here)
    return put(end, index, torch.where(column(live, x), best, here))


def _checkpoints(steps: int) -> set[int]:
    """The steps at which a run looks whether its step size still pays."""
    share, period, found = 0.22, 0.22, set[int]()
    while share < 1:
        found.add(math.ceil(round(share * steps, 6)))  # a sum of shares is no exact share
        period = max(period - 0.03, 0.06)
        share += period
    return found


def _cross_entropy(logits: Tensor, labels: Tensor, goal: Tensor) -> Tensor:
    flat = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none")
    return flat.reshape(labels.shape)


def _difference_of_logits(logits: Tensor, labels: Tensor, goal: Tensor) -> Tensor:
    """By how much ``goal`` leads over the true class, whatever the scale of the logits."""
    true, other = (logits.gather(-1, c.unsqueeze(-1)).squeeze(-1) for c in (labels, goal))
    first, _, third, fourth = logits.topk(4, dim=-1).values.unbind(-1)
    return (other - true) / (first - (third + fourth) / 2 + 1e-12)
