"""Signs that an attack stands still instead of failing: gradient masking, in numbers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cappaper.attacks.balls import BALLS
from cappaper.attacks.common import Progress, in_batches, is_correct
from cappaper.attacks.pgd import adaptive_pgd, fgsm, pgd
from cappaper.bounded import Bounded
from cappaper.checks import (
    check_ascending,
    check_batch,
    check_count,
    check_eps,
    check_function,
    check_module,
    check_sequence,
    check_whole,
    input_gradient,
    logits_of,
)
from cappaper.surrogate import UnreachedWarning, bounded_calls

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


_POINTS = 100
_PATH = (1, 2, 5, 10, 20, 40)


def masking_report(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    steps: Sequence[int] = (10, 40, 100, 1000),
    epsilons: Sequence[float] = (0.2, 0.3, 0.5, 1.0),
    other: nn.Module | None = None,
    batch_size: int | None = None,
    progress: Progress | None = None,
    seed: int = 0,
) -> MaskingReport:
    """Ask PGD on this model what Athalye, Carlini, Pintor and others ask of every evaluation.

    Source: Athalye, Carlini and Wagner, arXiv 1802.00420, section 3.1; Carlini et al.,
    arXiv 1902.06705, section 5; Pintor et al., arXiv 2106.09947, section 3.

    Args:
        model: one classifier, as :func:`~cappaper.adaptive_pgd` takes it, in the mode it is to be
            attacked in.
        x: images ``[B, ...]`` in [0, 1].
        y: int64 labels ``[B]``.
        eps: L∞ radius, at least 0, in units of the pixels' range.
        steps: of PGD at ``eps``, ascending.
        epsilons: radii of PGD with 40 steps, ascending; 1 allows any image.
        other: a model whose adversarial examples are tried on this one, such as a twin with ReLU.
        batch_size: examples attacked at once, as in :func:`~cappaper.pgd`.
        progress: called with (questions answered, questions in all).
        seed: of the random starts.

    Warns:
        UnreachedWarning: as :func:`~cappaper.adaptive_pgd`: ``adaptive`` is then little more than
            PGD.

    Raises:
        TypeError, ValueError: as :func:`~cappaper.pgd`; or there are no steps or no radii, or they
            do not ascend.

    >>> from cappaper import load, masking_report, mlp
    >>> digits, net = load("digits", "test", limit=20), mlp(64, [32], beta=1.0)
    >>> masking_report(net, *digits, eps=0.3, steps=[10], epsilons=[1.0]).signs()
    []
    """
    check_module(model)
    check_batch(x, y)
    check_eps(eps)
    check_whole(seed, "the seed")
    steps = check_sequence(steps, "steps", "numbers of steps")
    epsilons = check_sequence(epsilons, "epsilons", "radii")
    for count in steps:
        check_count(count, "steps")
    for radius in epsilons:
        check_eps(radius)
    check_ascending(steps, "steps")
    check_ascending(epsilons, "epsilons")
    if other is not None:
        check_function(other, "the other model")
    if y.ndim != 1:
        raise ValueError("masking_report takes one classifier and labels [B], not a population")
    asked, answered = len(_PATH) + len(steps) + len(epsilons) + 6 + (other is not None), 0

    def told() -> None:
        nonlocal answered
        answered += 1
        if progress is not None:
            progress(answered, asked)

    def right(images: Tensor) -> Tensor:
        return in_batches(partial(is_correct, model), model, images, y, batch_size, None)

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
    losses, fell, stands = {0: _loss(model, x, y, batch_size)}, ~correct, correct
    for k in _PATH:
        adversarial = fixed(model, x, y, eps, steps=k)
        losses[k], stands = _loss(model, adversarial, y, batch_size), right(adversarial)
        fell = fell | ~stands
        told()
    silent = correct & fell & stands
    ball, stands = BALLS["linf"](eps, 1), correct
    for point in range(_POINTS):
        stands = stands & right(ball.random(x, seed, point))
    told()
    unstable = _unstable(model, x, y, eps, batch_size, seed)
    told()
    one_step = partial(fgsm, model, eps=eps)
    aware = partial(adaptive_pgd, model, x, y, eps, seed=seed, batch_size=batch_size)
    moved = None
    if other is not None:
        adversarial = fixed(other, x, y, eps)
        fooled = ~in_batches(partial(is_correct, other), other, adversarial, y, batch_size, None)
        moved = right(adversarial)[fooled & correct].double().mean().nan_to_num().item()
        told()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnreachedWarning)  # the attack itself says it, below
        control = left(aware(sharpnesses=(None, None, None)))
    return MaskingReport(
        standard=correct.double().mean().item(),
        zero_gradient=signals[correct.cpu(), 0].mean().item() if correct.any() else 0.0,
        at_zero=signals[:, 1].mean().item(),
        at_cap=signals[:, 2].mean().item(),
        unstable=unstable,
        loss=losses,
        silent=silent.double().mean().item(),
        noise=stands.double().mean().item(),
        one_step=left(in_batches(one_step, model, x, y, batch_size, None)),
        by_steps={k: left(attack(model, x, y, eps, steps=k)) for k in steps},
        by_eps={radius: left(attack(model, x, y, radius)) for radius in epsilons},
        adaptive=left(aware()),
        control=control,
        moved=moved,
    )


def _signals(model: nn.Module, x: Tensor, y: Tensor, batch_size: int | None) -> Tensor:
    """For each example: whether its gradient is zero, and its units' shares at either bound."""

    def signals(x: Tensor, y: Tensor) -> Tensor:
        point = x.detach().requires_grad_()
        loss = F.cross_entropy(logits_of(model, point, y), y, reduction="sum")
        gradient = input_gradient(loss, point)
        silent = gradient.flatten(1).eq(0).all(1)
        calls, _ = bounded_calls(model, x, y)
        return torch.stack([silent.double().cpu(), *_shares(calls, len(y))], dim=1)

    return in_batches(signals, model, x, y, batch_size, None)


def _unstable(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, batch_size: int | None, seed: int
) -> float:
    """By how much of their length logits change within a thousandth of ε, on average."""
    nearby = BALLS["linf"](eps / 1000, 1).random(x, seed, 0)

    def change(x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            here, there = (logits_of(model, images, y) for images in x.unbind(1))
        share: Tensor = (there - here).norm(dim=1) / here.norm(dim=1).clamp(min=1e-12)
        return share

    both = torch.stack([x, nearby], dim=1)
    return in_batches(change, model, both, y, batch_size, None).clamp(max=1).mean().item()


def _shares(calls: Sequence[Bounded], count: int) -> tuple[Tensor, Tensor]:
    """Of all units behind these activations, the shares at their lower and upper bounds.

    Weights are clamped, too; they are no units.
    """
    calls = [c for c in calls if not isinstance(c.z, nn.Parameter) and c.z.numel() % count == 0]
    units = sum(call.z.numel() for call in calls) // count
    low, high = torch.zeros(count).double(), torch.zeros(count).double()
    for z, lower, upper, _ in calls:
        numbers = not isinstance(lower, Tensor) and not isinstance(upper, Tensor)
        if not (numbers and lower == upper):  # a sigmoid is never quite there
            low += (z <= lower).reshape(count, -1).sum(1).cpu() / units
            high += (z >= upper).reshape(count, -1).sum(1).cpu() / units
    return low, high


def _loss(model: nn.Module, x: Tensor, y: Tensor, batch_size: int | None) -> float:
    def losses(x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            return F.cross_entropy(logits_of(model, x, y), y, reduction="none")

    return in_batches(losses, model, x, y, batch_size, None).mean().item()
