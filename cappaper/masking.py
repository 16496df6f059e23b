"""Signs that an attack stands still instead of failing: gradient masking, in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cappaper.attacks.ascent import classified
from cappaper.attacks.balls import BALLS
from cappaper.attacks.batches import Progress, in_batches
from cappaper.attacks.gradient import adaptive_pgd, fgsm, pgd
from cappaper.attacks.surrogate import bounded_calls
from cappaper.bounded import Bounded
from cappaper.checks import check_batch, check_count, check_eps, logits_of

_POINTS = 100
_PATH = (1, 2, 5, 10, 20, 40)
_POINT = 0.01  # of accuracy: less than this is no sign
_GAP = 0.05  # between two attacks: other losses and more restarts find a little more anywhere


@dataclass(frozen=True)
class MaskingReport:
    """What :func:`masking_report` found; all robust accuracies are on the same images.

    ``standard``: accuracy without attack. ``zero_gradient``: share of the correctly classified
    images whose input gradient is exactly zero. ``at_zero``, ``at_cap``: share of hidden units
    that stand at the lower bound of their activation, or at the upper one, β. ``loss``: mean
    cross-entropy after so many steps of PGD. Robust accuracy: ``noise`` at 100 random points of the
    ball, ``one_step`` under FGSM, ``by_steps`` and ``by_eps`` under PGD with so many steps or such
    a radius, and ``adaptive`` under the attack that knows about the cap.
    """

    standard: float
    zero_gradient: float
    at_zero: float
    at_cap: float
    loss: dict[int, float]
    noise: float
    one_step: float
    by_steps: dict[int, float]
    by_eps: dict[float, float]
    adaptive: float

    def signs(self) -> list[str]:
        """One sentence for every sign of masking; none is no proof of its absence."""
        steps, radii = list(self.by_steps.values()), list(self.by_eps.values())
        found = {
            f"{self.zero_gradient:.0%} of the images have an input gradient of exactly zero": (
                self.zero_gradient > _POINT
            ),
            f"random points leave {self.noise:.3f}, PGD {min(steps):.3f}": (
                self.noise < min(steps) - _POINT
            ),
            f"one step leaves {self.one_step:.3f}, many steps leave {min(steps):.3f}": (
                self.one_step < min(steps) - _POINT
            ),
            f"more steps keep finding more: {steps[0]:.3f} to {steps[-1]:.3f}": (
                len(steps) > 1 and steps[-1] < steps[-2] - _POINT
            ),
            f"at ε = {max(self.by_eps):g} {radii[-1]:.3f} is left, where any image is allowed": (
                max(self.by_eps) >= 1 and radii[-1] > 0
            ),
            f"an attack that knows about the cap leaves {self.adaptive:.3f}, PGD"
            f" {min(steps):.3f}": self.adaptive < min(steps) - _GAP,
        }
        return [sentence for sentence, holds in found.items() if holds]


def masking_report(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    steps: Sequence[int] = (10, 40, 100, 1000),
    epsilons: Sequence[float] = (0.2, 0.3, 0.5, 1.0),
    batch_size: int | None = None,
    progress: Progress | None = None,
    seed: int = 0,
) -> MaskingReport:
    """Ask PGD on this model what Athalye et al. and Carlini et al. ask of every evaluation.

    Source: Athalye, Carlini and Wagner, arXiv 1802.00420, section 3.1; Carlini et al.,
    arXiv 1902.06705, section 5.

    Args:
        model: one classifier, as :func:`~cappaper.adaptive_pgd` takes it, in the mode it is to be
            attacked in.
        x: images ``[B, ...]`` in [0, 1].
        y: int64 labels ``[B]``.
        eps: L∞ radius, at least 0, in units of the pixels' range.
        steps: of PGD at ``eps``, ascending.
        epsilons: radii of PGD with 40 steps, ascending; 1 allows any image.
        batch_size: examples attacked at once, as in :func:`~cappaper.pgd`.
        progress: called with (questions answered, questions in all).
        seed: of the random starts.

    Warns:
        UnreachedWarning: as :func:`~cappaper.adaptive_pgd`: ``adaptive`` is then little more than
            PGD.

    Raises:
        TypeError, ValueError: as :func:`~cappaper.pgd`; or there are no steps, or no radii.

    >>> from cappaper import load, masking_report, mlp
    >>> digits, net = load("digits", "test", limit=20), mlp(64, [32], beta=1.0)
    >>> masking_report(net, *digits, eps=0.3, steps=[10], epsilons=[1.0]).signs()
    []
    """
    check_batch(x, y)
    check_eps(eps)
    for count in steps:
        check_count(count, "steps")
    if not steps or not epsilons:
        raise ValueError("masking_report needs at least one number of steps and one radius")
    if y.ndim != 1:
        raise ValueError("masking_report takes one classifier and labels [B], not a population")
    asked, answered = len(_PATH) + len(steps) + len(epsilons) + 4, 0

    def told() -> None:
        nonlocal answered
        answered += 1
        if progress is not None:
            progress(answered, asked)

    def right(images: Tensor) -> Tensor:
        return in_batches(partial(classified, model), model, images, y, batch_size, None)

    def left(adversarial: Tensor) -> float:
        stands = right(adversarial)
        told()
        return (correct & stands).double().mean().item()

    correct = right(x)
    signals = _signals(model, x, y, batch_size)
    told()
    attack = partial(pgd, seed=seed, batch_size=batch_size)
    # A run of k steps is the beginning of every longer one.
    fixed = partial(attack, early_exit=False, step_size=2.5 * (eps or 1.0) / 40)
    losses = {0: _loss(model, x, y, batch_size)}
    for k in _PATH:
        losses[k] = _loss(model, fixed(model, x, y, eps, steps=k), y, batch_size)
        told()
    ball, stands = BALLS["linf"](eps, 1), correct
    for point in range(_POINTS):
        stands = stands & right(ball.random(x, seed, point))
    told()
    one_step = partial(fgsm, model, eps=eps)
    aware = partial(adaptive_pgd, seed=seed, batch_size=batch_size)
    return MaskingReport(
        standard=correct.double().mean().item(),
        zero_gradient=signals[correct, 0].mean().item() if correct.any() else 0.0,
        at_zero=signals[:, 1].mean().item(),
        at_cap=signals[:, 2].mean().item(),
        loss=losses,
        noise=stands.double().mean().item(),
        one_step=left(in_batches(one_step, model, x, y, batch_size, None)),
        by_steps={k: left(attack(model, x, y, eps, steps=k)) for k in steps},
        by_eps={radius: left(attack(model, x, y, radius)) for radius in epsilons},
        adaptive=left(aware(model, x, y, eps)),
    )


def _signals(model: nn.Module, x: Tensor, y: Tensor, batch_size: int | None) -> Tensor:
    """For each example: whether its gradient is zero, and its units' shares at either bound."""

    def signals(x: Tensor, y: Tensor) -> Tensor:
        point = x.detach().requires_grad_()
        loss = F.cross_entropy(logits_of(model, point, y), y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, point)
        silent = gradient.flatten(1).eq(0).all(1)
        calls, _ = bounded_calls(model, x, y)
        return torch.stack([silent.double(), *_shares(calls, len(y))], dim=1)

    return in_batches(signals, model, x, y, batch_size, None)


def _shares(calls: Sequence[Bounded], count: int) -> tuple[Tensor, Tensor]:
    """Of all units behind these activations, the shares at their lower and upper bounds."""
    units = sum(call.z[0].numel() for call in calls)
    low, high = torch.zeros(count).double(), torch.zeros(count).double()
    for z, lower, upper, _ in calls:
        if not (isinstance(upper, float) and lower == upper):  # a sigmoid is never quite there
            low += (z <= lower).flatten(1).sum(1).cpu() / units
            high += (z >= upper).flatten(1).sum(1).cpu() / units
    return low, high


def _loss(model: nn.Module, x: Tensor, y: Tensor, batch_size: int | None) -> float:
    def losses(x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            return F.cross_entropy(logits_of(model, x, y), y, reduction="none")

    return in_batches(losses, model, x, y, batch_size, None).mean().item()
