"""Gradient attacks as pure functions, ``attack(model, x, y, eps, ...) -> x_adv``.

The labels' shape says which leading dimensions are batch: ``[B]`` for one model, ``[M, B]`` for a
:class:`~cappaper.Population`. All attacks stay in [0, 1] and in the ball of radius ``eps`` around
``x``, work inside ``torch.no_grad()``, and leave the model as it was.

Two savings change no verdict. An example that is already misclassified stops, because robust
accuracy needs one success. An example whose gradient is exactly zero stops as well: the step is
then zero, and every later one.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from cappaper.attacks.common import (
    BALLS,
    LOSSES,
    Ball,
    Loss,
    Progress,
    column,
    in_batches,
    is_correct,
    looks_every,
    packed,
    put,
    retry,
)
from cappaper.checks import (
    check_batch,
    check_count,
    check_eps,
    check_flag,
    check_function,
    check_positive,
    check_sequence,
    check_whole,
    input_gradient,
    logits_of,
    one_of,
    output_of,
)
from cappaper.surrogate import surrogate_gradient, warn_unreached


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
        return is_correct(model, x, y) ^ self.targeted

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


def fgsm(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """Fast gradient sign method: one step of size ``eps``, for every example.

    Source: Goodfellow, Shlens and Szegedy, arXiv 1412.6572, section 4.

    Args:
        model: as :func:`pgd`.
        x: images ``[B, ...]`` or ``[M, B, ...]``, float32 or float64 in [0, 1].
        y: int64 labels ``[B]`` or ``[M, B]``.
        eps: L∞ radius, at least 0, in units of the pixels' range.

    Returns:
        Examples shaped like ``x``.

    Raises:
        ValueError, TypeError: as :func:`pgd`.

    >>> from cappaper import load, mlp
    >>> x, y = load("digits", "test", limit=8)
    >>> (fgsm(mlp(64, [32]), x, y, eps=0.1) - x).abs().max()
    tensor(0.1000)
    """
    check_eps(eps)
    step_size = eps or 1.0  # in a ball of radius 0 any step ends where it began
    return pgd(model, x, y, eps, steps=1, step_size=step_size, random_start=False, early_exit=False)


def pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    steps: int = 40,
    step_size: float | None = None,
    norm: str = "linf",
    random_start: bool = True,
    restarts: int = 1,
    early_exit: bool = True,
    loss: str | Loss = "cross-entropy",
    targeted: bool = False,
    batch_size: int | None = None,
    progress: Progress | None = None,
    seed: int = 0,
) -> Tensor:
    """Projected gradient descent, on the cross-entropy if nothing else is said.

    Source: Madry et al., arXiv 1706.06083, section 2.1.

    Args:
        model: any module or function from images to logits ``[B, classes]`` (``[M, B, classes]``),
            in the mode (train or eval) it is to be attacked in. In train mode a BatchNorm ties an
            example's fate to its batch; its statistics are put back afterwards.
        x: images ``[B, ...]`` or ``[M, B, ...]``, float32 or float64 in [0, 1].
        y: int64 labels ``[B]`` or ``[M, B]``.
        eps: radius, at least 0, in units of the pixels' range (L∞) or their L2 norm.
        steps: gradient steps in a run.
        step_size: length of a step in ``norm``; 2.5 · eps / steps by default, as Madry et al.
        norm: ``"linf"`` or ``"l2"``.
        random_start: start each run at a uniform random point of the ball. An example's start hangs
            on the seed, the run and its own pixels alone.
        restarts: runs; later ones attack what no earlier one has fooled.
        early_exit: return an example's first success, and ``x`` itself where it was misclassified
            to begin with. With ``False`` every example takes all steps and its last point is
            returned: what adversarial training needs.
        loss: ``"cross-entropy"``, or ``"margin"``, the largest other logit minus the true class's:
            its gradient does not vanish where the network is all too sure; or a function from
            logits ``[N, classes]`` and labels ``[N]`` to a sum over examples.
        targeted: ``y`` are the classes to end up in: the loss goes down, and success is ``y``.
        batch_size: examples attacked at once, which bounds the memory; 2048 by default on a CPU,
            all of them elsewhere.
        progress: called with (examples done, examples in all) after each batch.
        seed: of the random starts; members of a population share them.

    Returns:
        Examples shaped like ``x``; where no run succeeded, the end of the last run.

    Raises:
        TypeError: images or labels of the wrong dtype, or a model that does not return a tensor.
        ValueError: images outside [0, 1] or of a shape that is wrong or that the model cannot take,
            labels that are no class, ``eps`` < 0, a step size not above 0, a count below 1, an
            unknown norm or loss, or restarts without a random start.

    >>> from cappaper import load, mlp
    >>> x, y = load("digits", "test", limit=8)
    >>> pgd(mlp(64, [32]), x, y, eps=0.3, steps=10).shape
    torch.Size([8, 1, 8, 8])
    """
    check_count(restarts, "restarts")
    check_flag(random_start, "random_start")
    check_flag(early_exit, "early_exit")
    if restarts > 1 and not (random_start and early_exit):
        raise ValueError("restarts need random_start=True and early_exit=True: else use restarts=1")
    run = Run.of(x, y, eps, steps, step_size, norm, restarts, loss, targeted, seed)

    def attack(x: Tensor, y: Tensor) -> Tensor:
        todo = run.stands(model, x, y) if early_exit else torch.ones_like(y, dtype=torch.bool)
        return run.all_starts(model, x, y, todo, random_start, early_exit)

    return in_batches(attack, model, x, y, batch_size, progress)


def adaptive_pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    steps: int = 40,
    step_size: float | None = None,
    norm: str = "linf",
    restarts: int = 1,
    sharpnesses: Sequence[float | None] = (10.0, 30.0, 3.0),
    losses: Sequence[str | Loss] = ("cross-entropy", "margin"),
    targeted: bool = False,
    batch_size: int | None = None,
    progress: Progress | None = None,
    seed: int = 0,
) -> Tensor:
    """PGD that knows about the cap: the worst that any of its runs finds, example by example.

    First comes :func:`pgd` as it is, so no example withstands this attack that falls to that one.
    What is left is attacked again with every sharpness of :func:`surrogate_gradient`, which gives
    units at 0 and at their cap a gradient, and with every loss.

    Source: the adaptive attacks that Tramèr et al., arXiv 2002.08347, ask of every evaluation,
    with the backward pass approximation of Athalye et al., arXiv 1802.00420, section 4.1.

    Args:
        model: a module from images to logits. Its bounded activations are those that
            :func:`surrogate_gradient` reaches; where it reaches none, or there is something that it
            cannot reach, this attack warns.
        x, y, eps, steps, step_size, norm, targeted, batch_size, progress, seed: as :func:`pgd`.
        restarts: runs for each sharpness and loss.
        sharpnesses: of the surrogate gradient; None is the exact one.
        losses: as in :func:`pgd`.

    Returns:
        Examples shaped like ``x``; where no run succeeded, the end of the last run.

    Warns:
        UnreachedWarning: the model has no bounded activation that can be reached; or it is traced,
            or calls a custom autograd function.

    Raises:
        TypeError, ValueError: as :func:`pgd` and :func:`surrogate_gradient`; or there is no
            sharpness, or no loss.

    >>> from cappaper import load, mlp
    >>> x, y = load("digits", "test", limit=8)
    >>> adaptive_pgd(mlp(64, [32], beta=0.05), x, y, eps=0.3, steps=5).shape
    torch.Size([8, 1, 8, 8])
    """
    sharpnesses = check_sequence(sharpnesses, "sharpnesses", "numbers or None")
    losses = check_sequence(losses, "losses", "names or functions")
    settings = (x, y, eps, steps, step_size, norm, restarts)
    first = Run.of(*settings, "cross-entropy", targeted, seed)
    # Another start each time: without a cap, all sharpnesses are one and the same.
    later = [
        (sharpness, Run.of(*settings, loss, targeted, seed + i + 1))
        for i, (sharpness, loss) in enumerate(itertools.product(sharpnesses, losses))
    ]

    def attack(x: Tensor, y: Tensor) -> Tensor:
        adversarial = first.all_starts(model, x, y, first.stands(model, x, y))
        for sharpness, run in later:
            stands = run.stands(model, adversarial, y)
            with surrogate_gradient(model, sharpness):
                again = partial(run.all_starts, model)
                adversarial = retry(again, adversarial, stands, x, y)
        return adversarial

    warn_unreached(model, x, y, "adaptive_pgd")
    return in_batches(attack, model, x, y, batch_size, progress)
