"""What the numbers of a masking report say: signs that an attack failed, and what helps."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

_POINT = 0.01  # of accuracy: less than this is no sign
_SLOPE = "attack along a smooth slope: adaptive_pgd, or any attack in surrogate_gradient"
_TENTH = 0.1  # of the logits' length, or of the examples that fool another model


class Indicator(NamedTuple):
    """One of the ways in which an attack fails without a word, and what helps.

    ``value`` is None where nothing was measured; ``fails`` says whether it is a sign.
    """

    name: str
    value: float | None
    fails: bool
    says: str
    cure: str


@dataclass(frozen=True)
class MaskingReport:
    """What :func:`masking_report` found; all robust accuracies are on the same images.

    ``standard``: accuracy without attack. ``zero_gradient``: share of the correctly classified
    images whose input gradient is exactly zero. ``at_zero``, ``at_cap``: share of hidden units
    that stand at the lower bound of their activation, or at the upper one, β. ``unstable``: by how
    much of their length the logits change within a thousandth of ε, on average. ``loss``: mean
    cross-entropy after so many steps of PGD. ``silent``: share of the images that PGD turns wrong
    on its way and leaves right at its end. Robust accuracy: ``noise`` at 100 random points of the
    ball, ``one_step`` under FGSM, ``by_steps`` and ``by_eps`` under PGD with so many steps or such
    a radius, ``adaptive`` under the attack that knows about the cap, and ``control`` under as many
    runs from as many starts that follow the exact gradient. ``moved``: among PGD's examples that
    fool another model, the share that does not fool this one; None where there is no other.
    """

    standard: float
    zero_gradient: float
    at_zero: float
    at_cap: float
    unstable: float
    loss: dict[int, float]
    silent: float
    noise: float
    one_step: float
    by_steps: dict[int, float]
    by_eps: dict[float, float]
    adaptive: float
    control: float
    moved: float | None = None

    def indicators(self) -> list[Indicator]:
        """The six indicators of attack failure, measured on PGD.

        Source: Pintor et al., arXiv 2106.09947, section 3; the thresholds are ours.
        """
        steps = list(self.by_steps.values())
        rest = steps[-2] - steps[-1] if len(steps) > 1 else 0.0
        widest = max(self.by_eps)
        left = self.by_eps[widest] if widest >= 1 else None
        return [
            Indicator(
                "unavailable gradients",
                self.zero_gradient,
                self.zero_gradient > _POINT,
                f"{self.zero_gradient:.0%} of the images have an input gradient of exactly zero",
                _SLOPE,
            ),
            Indicator(
                "unstable predictions",
                self.unstable,
                self.unstable > _TENTH,
                f"the logits change by {self.unstable:.0%} within a thousandth of ε",
                "follow the mean gradient of many nearby points or passes",
            ),
            Indicator(
                "silent success",
                self.silent,
                self.silent > 0,
                f"{self.silent:.1%} of the images are wrong on PGD's way and right at its end",
                "keep the first success, as early_exit=True does",
            ),
            Indicator(
                "incomplete optimisation",
                rest,
                rest > _POINT,
                f"more steps keep finding more: {steps[0]:.3f} to {steps[-1]:.3f}",
                "take more steps, or other step sizes: apgd",
            ),
            Indicator(
                "transfer failure",
                self.moved,
                self.moved is not None and self.moved > _TENTH,
                f"{self.moved or 0:.0%} of the examples that fool the other model do not fool this",
                "attack the model itself, or a closer relative",
            ),
            Indicator(
                "unconstrained attack failure",
                left,
                left is not None and left > 0,
                f"at ε = {widest:g}, {left or 0:.3f} is left, where any image is allowed",
                "another loss or another attack: with every image allowed, one must succeed",
            ),
        ]

    def comparisons(self) -> list[Indicator]:
        """The comparisons that an attack must stand, or it is too weak.

        ``value``: what it misses; None where a single radius has none to be compared with.

        Source: Athalye et al., arXiv 1802.00420, section 3.1; Carlini et al., arXiv 1902.06705,
        section 5. PGD is its longest run here; the attack that knows is compared with as many runs.
        """
        steps, radii = list(self.by_steps.items()), list(self.by_eps.items())
        many, last = steps[-1]
        best = min(self.by_steps.values())
        rises = [(b - a, low, high) for (low, a), (high, b) in pairwise(radii)]
        rise, low, high = max(rises, default=(None, *[radii[0][0]] * 2))
        more = (
            f"ε = {high:g} leaves {max(rise or 0, 0):.3f} more than ε = {low:g}, which it contains"
        )
        found = [
            (
                "one step against many",
                last - self.one_step,
                f"one step leaves {self.one_step:.3f}, many steps leave {last:.3f}",
                _SLOPE,
            ),
            (
                "chance against gradients",
                last - self.noise,
                f"random points leave {self.noise:.3f}, PGD {last:.3f}",
                "an attack without gradients: square",
            ),
            (
                "few steps against many",
                last - best,
                f"PGD leaves {last:.3f} with {many:g} steps, and {best:.3f} with the best number"
                " tried",
                "take the best of several lengths, or other step sizes: apgd",
            ),
            (
                "a small radius against a larger one",
                rise,
                f"only ε = {low:g} was tried" if rise is None else more,
                "try at each ε what succeeded at a smaller one",
            ),
            (
                "knowledge of the cap against as many runs",
                self.control - self.adaptive,
                f"an attack that knows about the cap leaves {self.adaptive:.3f}, as many runs of"
                f" PGD {self.control:.3f}",
                "report the attack that knows: adaptive_pgd, or strongest_attack",
            ),
        ]
        return [
            Indicator(name, value, value is not None and value > _POINT, says, cure)
            for name, value, says, cure in found
        ]

    def signs(self) -> list[str]:
        """One sentence for every sign of masking; none is no proof of its absence."""
        # PGD keeps its successes here: one that it would lose is its path's, not this report's.
        asked = [i for i in self.indicators() if i.name != "silent success"]
        return [i.says for i in [*asked, *self.comparisons()] if i.fails]
