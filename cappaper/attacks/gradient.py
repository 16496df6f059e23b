"""Attacks as pure functions, ``attack(model, x, y, eps, ...) -> x_adv``.

The labels' shape says which leading dimensions are batch: ``[B]`` for one model, ``[M, B]`` for a
:class:`~cappaper.Population`. All attacks are untargeted and stay in [0, 1] and in the ball
of radius ``eps`` around ``x``.

Two savings change no verdict. An example that is already misclassified stops, because robust
accuracy needs one success. An example whose gradient is exactly zero stops as well: the step is
then zero, and every later one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cappaper.attacks.balls import BALLS, Ball, column
from cappaper.attacks.surrogate import surrogate_gradient
from cappaper.checks import check_batch, check_count, check_eps, check_logits, one_of

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""An attack with its settings bound, as ``functools.partial(pgd, eps=0.1)`` gives."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""From logits ``[N, classes]`` and labels ``[N]`` to the number that an attack drives up."""

_REPACK = 0.8  # move the survivors together once this share of the columns, or less, is alive


def fgsm(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """Fast gradient sign method: one step of size ``eps``, for every example.

    Source: Goodfellow, Shlens and Szegedy, arXiv 1412.6572, section 4.

    Args:
        model: from images to logits.
        x: images ``[B, ...]`` or ``[M, B, ...]``, floating point in [0, 1].
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
    return pgd(model, x, y, eps, steps=1, step_size=eps, random_start=False, early_exit=False)


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
    loss: str = "cross-entropy",
    seed: int = 0,
) -> Tensor:
    """Projected gradient descent, on the cross-entropy if nothing else is said.

    Source: Madry et al., arXiv 1706.06083, section 2.1.

    Args:
        model: from images to logits, in the mode (train or eval) it is to be attacked in.
        x: images ``[B, ...]`` or ``[M, B, ...]``, floating point in [0, 1].
        y: int64 labels ``[B]`` or ``[M, B]``.
        eps: radius, at least 0, in units of the pixels' range (L∞) or their L2 norm.
        steps: gradient steps in a run.
        step_size: length of a step in ``norm``; 2.5 · eps / steps by default, as Madry et al.
        norm: ``"linf"`` or ``"l2"``.
        random_start: start each run at a uniform random point of the ball.
        restarts: runs; later ones attack what is still classified correctly.
        early_exit: return an example's first success, and ``x`` itself where it was misclassified
            to begin with. With ``False`` every example takes all steps and its last point is
            returned: what adversarial training needs.
        loss: ``"cross-entropy"``, or ``"margin"``, the largest other logit minus the true class's:
            its gradient does not vanish where the network is all too sure.
        seed: of the random starts; members of a population share them.

    Returns:
        Examples shaped like ``x``; where no run succeeded, the end of the last run.

    Raises:
        TypeError: images or labels of the wrong dtype.
        ValueError: images outside [0, 1] or of the wrong shape, labels that are no class,
            ``eps`` < 0, a count below 1, an unknown norm or loss, or restarts without a
            random start.

    >>> from cappaper import load, mlp
    >>> x, y = load("digits", "test", limit=8)
    >>> pgd(mlp(64, [32]), x, y, eps=0.3, steps=10).shape
    torch.Size([8, 1, 8, 8])
    """
    check_batch(x, y)
    check_eps(eps)
    check_count(steps, "steps")
    check_count(restarts, "restarts")
    one_of(norm, tuple(BALLS), "norm")
    one_of(loss, tuple(LOSSES), "loss")
    if restarts > 1 and not (random_start and early_exit):
        raise ValueError("restarts need random_start=True and early_exit=True: else use restarts=1")
    ball = BALLS[norm](eps, y.ndim)
    step_size = 2.5 * eps / steps if step_size is None else step_size
    generator = torch.Generator().manual_seed(seed)
    x = x.detach()
    todo = classified(model, x, y) if early_exit else torch.ones_like(y, dtype=torch.bool)
    adversarial = x
    for run in range(restarts):
        if run > 0:
            todo = todo & classified(model, adversarial, y)
        start = ball.random(x, generator) if random_start else x
        end = _ascend(model, x, start, y, todo, ball, steps, step_size, early_exit, LOSSES[loss])
        adversarial = torch.where(column(todo, x), end, adversarial)
    return adversarial


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
    losses: Sequence[str] = ("cross-entropy", "margin"),
    seed: int = 0,
) -> Tensor:
    """PGD that knows about the cap: the worst that any of its runs finds, example by example.

    First comes :func:`pgd` as it is, so no example withstands this attack that falls to that one.
    What is left is attacked again with every sharpness of :func:`surrogate_gradient`, which gives
    units at 0 and at their cap a gradient, and with every loss.

    Source: the adaptive attacks that Tramèr et al., arXiv 2002.08347, ask of every evaluation,
    with the backward pass approximation of Athalye et al., arXiv 1802.00420, section 4.1.

    Args:
        model: from images to logits: a network, a :class:`~cappaper.Population`, or any
            model of yours after :func:`~cappaper.replace_relu`.
        x, y, eps, steps, step_size, norm, seed: as :func:`pgd`.
        restarts: runs for each sharpness and loss.
        sharpnesses: of the surrogate gradient; None is the exact one.
        losses: as in :func:`pgd`.

    Returns:
        Examples shaped like ``x``; where no run succeeded, the end of the last run.

    Raises:
        TypeError, ValueError: as :func:`pgd` and :func:`surrogate_gradient`; or there is no
            sharpness, or no loss.

    >>> from cappaper import load, mlp
    >>> x, y = load("digits", "test", limit=8)
    >>> adaptive_pgd(mlp(64, [32], beta=0.05), x, y, eps=0.3, steps=5).shape
    torch.Size([8, 1, 8, 8])
    """
    if not sharpnesses or not losses:
        raise ValueError("adaptive_pgd needs at least one sharpness and one loss")
    settings: dict[str, Any] = {"steps": steps, "step_size": step_size, "norm": norm}
    settings["restarts"] = restarts
    adversarial = pgd(model, x, y, eps, seed=seed, **settings)
    for run, (sharpness, loss) in enumerate(itertools.product(sharpnesses, losses)):
        stands = classified(model, adversarial, y)
        if not stands.any():
            break
        # A population's members are left with different examples; all of them are attacked again.
        left = stands.reshape(-1, y.shape[-1]).any(0).nonzero().squeeze(1)
        batch = y.ndim - 1
        with surrogate_gradient(model, sharpness):
            # Another start each time: without a cap, all sharpnesses are one and the same.
            again = x.index_select(batch, left), y[..., left]
            found = pgd(model, *again, eps, loss=loss, seed=seed + run + 1, **settings)
        candidate = adversarial.index_copy(batch, left, found)
        adversarial = torch.where(column(stands, x), candidate, adversarial)
    return adversarial


def classified(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Which examples the model gets right, ``[B]`` or ``[M, B]``."""
    with torch.no_grad():
        logits = model(x)
    check_logits(logits, y)
    correct: Tensor = logits.argmax(-1) == y
    return correct


def _ascend(
    model: nn.Module,
    x: Tensor,
    start: Tensor,
    y: Tensor,
    live: Tensor,
    ball: Ball,
    steps: int,
    step_size: float,
    early_exit: bool,
    loss: Loss,
) -> Tensor:
    """The end of one run of PGD from ``start``; examples not in ``live`` stay there."""
    batch = y.ndim - 1  # the dimension along which finished examples are dropped
    end, index = start, torch.arange(y.shape[-1], device=y.device).expand_as(y)
    here, centre, labels = start, x, y  # the columns still at work; index says where they belong
    project = ball.around(centre)
    for step in range(steps):
        width = int(live.sum(-1).max())
        if width == 0:
            break
        if width <= _REPACK * live.shape[-1]:
            end = end.scatter(batch, _whole(index, here), here)
            keep = live.argsort(dim=-1, descending=True, stable=True)[..., :width]
            index, live, labels = (t.gather(-1, keep) for t in (index, live, labels))
            here, centre = (t.gather(batch, _whole(keep, t)) for t in (here, centre))
            project = ball.around(centre)
        point = here.detach().requires_grad_()
        logits = model(point)
        if step == 0:
            check_logits(logits, labels)
        total = loss(logits.flatten(0, -2), labels.flatten())
        (gradient,) = torch.autograd.grad(total, point)
        if early_exit:
            fooled = logits.argmax(-1) != labels
            live = live & ~fooled & gradient.flatten(y.ndim).ne(0).any(-1)
        moved = project(torch.add(here, ball.direction(gradient), alpha=step_size))
        # Without early exit nothing is ever done, and all of it moves.
        here = torch.where(column(live, here), moved, here) if early_exit else moved
    if labels is y:  # nothing was dropped
        return here
    return end.scatter(batch, _whole(index, here), here)


def _whole(index: Tensor, examples: Tensor) -> Tensor:
    """Per-example indices for ``gather`` and ``scatter`` of whole examples."""
    return column(index, examples).expand(*index.shape, *examples.shape[index.ndim :])


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
