"""Signs that an attack stands still instead of failing: gradient masking, in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cappaper.attacks.balls import BALLS
from cappaper.attacks.gradient import adaptive_pgd, classified, fgsm, pgd
from cappaper.checks import check_count, check_eps
from cappaper.inspection import layer_signals

_POINTS = 100
_POINT = 0.01  # of accuracy: less than this is no sign
_GAP = 0.05  # between two attacks: other losses and more restarts find a little more anywhere


@dataclass(frozen=True)
class MaskingReport:
    """What :func:`masking_report` found; all robust accuracies are on the same images.

    ``standard``: accuracy without attack. ``zero_gradient``: share of the correctly classified
    images whose input gradient is exactly zero. ``at_zero``, ``at_cap``: share of hidden units
    that put out 0, or their max value. ``loss``: mean cross-entropy after so many steps of PGD.
    Robust accuracy: ``noise`` at 100 random points of the ball, ``one_step`` under FGSM,
    ``by_steps`` and ``by_eps`` under PGD with so many steps or such a radius, and ``adaptive``
    under the attack that knows about the cap.
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
    seed: int = 0,
) -> MaskingReport:
    """Ask PGD on this model what Athalye et al. and Carlini et al. ask of every evaluation.

    Source: Athalye, Carlini and Wagner, arXiv 1802.00420, section 3.1; Carlini et al.,
    arXiv 1902.06705, section 5.

    Args:
        model: one classifier, in the mode it is to be attacked in.
        x: images ``[B, ...]`` in [0, 1].
        y: int64 labels ``[B]``.
        eps: L∞ radius, at least 0, in units of the pixels' range.
        steps: of PGD at ``eps``, ascending.
        epsilons: radii of PGD with 40 steps, ascending; 1 allows any image.
        seed: of the random starts.

    Raises:
        TypeError, ValueError: as :func:`~cappaper.pgd`; or there are no steps, or no radii.

    >>> from cappaper import load, masking_report, mlp
    >>> digits = load("digits", "test", limit=20)
    >>> masking_report(mlp(64, [32]), *digits, eps=0.3, steps=[10], epsilons=[1.0]).signs()
    []
    """
    check_eps(eps)
    for count in steps:
        check_count(count, "steps")
    if not steps or not epsilons:
        raise ValueError("masking_report needs at least one number of steps and one radius")
    correct = classified(model, x, y)
    attack = partial(pgd, seed=seed)

    def left(adversarial: Tensor) -> float:
        return (correct & classified(model, adversarial, y)).double().mean().item()

    signals = layer_signals(model, x, y)
    units = sum(s.units for s in signals)
    point = x[correct].detach().requires_grad_()
    loss = F.cross_entropy(model(point), y[correct], reduction="sum")
    (gradient,) = torch.autograd.grad(loss, point)
    silent = gradient.flatten(1).eq(0).all(1).double()
    ball, generator = BALLS["linf"](eps, 1), torch.Generator().manual_seed(seed)
    stands = correct
    for _ in range(_POINTS):
        stands = stands & classified(model, ball.random(x, generator), y)
    # A run of k steps is the beginning of every longer one.
    fixed = partial(attack, early_exit=False, step_size=2.5 * eps / 40)
    path = {k: fixed(model, x, y, eps, steps=k) for k in (1, 2, 5, 10, 20, 40)}
    return MaskingReport(
        standard=correct.double().mean().item(),
        zero_gradient=silent.mean().item() if len(silent) else 0.0,
        at_zero=sum(s.at_zero * s.units for s in signals) / units,
        at_cap=sum(s.at_cap * s.units for s in signals) / units,
        loss={k: _loss(model, end, y) for k, end in {0: x, **path}.items()},
        noise=stands.double().mean().item(),
        one_step=left(fgsm(model, x, y, eps)),
        by_steps={k: left(attack(model, x, y, eps, steps=k)) for k in steps},
        by_eps={radius: left(attack(model, x, y, radius)) for radius in epsilons},
        adaptive=left(adaptive_pgd(model, x, y, eps, seed=seed)),
    )


def _loss(model: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return F.cross_entropy(model(x), y).item()
