"""Runs of PGD: from a start uphill, back into the ball after every step, until nothing is left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cappaper.attacks.balls import BALLS, Ball, column
from cappaper.attacks.columns import looks_every, packed, put, retry
from cappaper.checks import (
    check_batch,
    check_count,
    check_eps,
    check_flag,
    check_function,
    check_positive,
    check_whole,
    input_gradient,
    logits_of,
    one_of,
    output_of,
)

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""An attack with its settings bound, as ``functools.partial(pgd, eps=0.1)`` gives."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""From logits ``[N, classes]`` and labels ``[N]`` to a sum over examples, which goes up."""


def classified(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Which examples the model gets right, ``[B]`` or ``[M, B]``."""
    with torch.no_grad():
        correct: Tensor = logits_of(model, x, y).argmax(-1) == y
    return correct


def in_turn(
    model: nn.Module, parts: Sequence[Callable[[Tensor, Tensor], Tensor]], x: Tensor, y: Tensor
) -> Tensor:
    """Attacks ``part(x, y) -> x_adv`` one after the other, each on what the others have left."""
    adversarial = x
    for part in parts:

        def again(x: Tensor, y: Tensor, _: Tensor, part: Any = part) -> Tensor:
            found: Tensor = part(x, y)
            return found

        adversarial = retry(again, adversarial, classified(model, adversarial, y), x, y)
    return adversarial


@dataclass(frozen=True)
class Run:
    """What runs of PGD have in common, for batches of any size."""

    ball: Ball
    steps: int
    step_size: float
    restarts: int
    loss: Loss
    targeted: bool
    seed: int

    @classmethod
    def of(
        cls,
        x: Tensor,
        y: Tensor,
        eps: float,
        steps: int,
        step_size: float | None,
        norm: str,
        restarts: int,
        loss: str | Loss,
        targeted: bool,
        seed: int,
    ) -> Run:
        """The settings as :func:`~cappaper.pgd` takes them, checked."""
        check_batch(x, y)
        check_eps(eps)
        check_count(steps, "steps")
        check_count(restarts, "restarts")
        check_whole(seed, "the seed")
        check_flag(targeted, "targeted")
        one_of(norm, tuple(BALLS), "norm")
        if isinstance(loss, str):
            one_of(loss, tuple(LOSSES), "loss")
            loss = LOSSES[loss]
        check_function(loss, "the loss")
        if step_size is None:
            step_size = 2.5 * eps / steps
        else:
            check_positive(step_size, "the step size")
        return cls(BALLS[norm](eps, y.ndim), steps, step_size, restarts, loss, targeted, seed)

    def stands(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Which examples the attack has not fooled."""
        return classified(model, x, y) ^ self.targeted

    def all_starts(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        todo: Tensor,
        random_start: bool = True,
        early_exit: bool = True,
    ) -> Tensor:
        """The end of the last run of each example; those not in ``todo`` stay as they are."""
        adversarial = x
        for start in range(self.restarts):
            if start > 0:
                todo = todo & self.stands(model, adversarial, y)
            here = self.ball.random(x, self.seed, start) if random_start else x
            end = self.ascend(model, x, here, y, todo, early_exit)
            adversarial = torch.where(column(todo, x), end, adversarial)
        return adversarial

    def ascend(
        self, model: nn.Module, x: Tensor, start: Tensor, y: Tensor, live: Tensor, early_exit: bool
    ) -> Tensor:
        """The end of one run from ``start``; examples not in ``live`` stay there."""
        end, index = start, torch.arange(y.shape[-1], device=y.device).expand_as(y)
        here, centre, labels = start, x, y  # the columns still at work; index: where they belong
        project = self.ball.around(centre)
        rate = -self.step_size if self.targeted else self.step_size
        looks = looks_every(x)
        for step in range(self.steps):
            # Without early exit nothing is ever finished, and all of it moves.
            look = early_exit and step % looks == 0
            if look and (fewer := packed(live, index, labels, here, centre)):
                end = put(end, index, here)
                live, index, labels, here, centre = fewer
                if not live.numel():
                    return end
                project = self.ball.around(centre)
            point = here.detach().requires_grad_()
            # Labels and logits are checked once: later ones are some of the same.
            logits = logits_of(model, point, labels) if step == 0 else output_of(model, point)
            total = self.loss(logits.flatten(0, -2), labels.flatten())
            gradient = input_gradient(total, point)
            if early_exit:
                fooled = (logits.argmax(-1) != labels) ^ self.targeted
                live = live & ~fooled & gradient.flatten(y.ndim).ne(0).any(-1)
            moved = project(torch.add(here, self.ball.direction(gradient), alpha=rate))
            here = torch.where(column(live, here), moved, here) if early_exit else moved
        return here if labels is y else put(end, index, here)  # y itself: nothing was dropped


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="sum")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """The true class's logit minus the largest other one; below 0 where misclassified."""
    true = labels.unsqueeze(-1)
    others = logits.scatter(-1, true, -torch.inf).amax(-1)
    return logits.gather(-1, true).squeeze(-1) - others


def _margin(logits: Tensor, labels: Tensor) -> Tensor:
    return -margin(logits, labels).sum()


LOSSES: dict[str, Loss] = {"cross-entropy": _cross_entropy, "margin": _margin}
