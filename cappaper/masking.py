"""Gradient masking: did PGD fail, or was there nothing to find? Questions and indicators."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cappaper import checks
from cappaper.attacks.balls import BALLS
from cappaper.attacks.common import Progress, in_batches
from cappaper.attacks.pgd import adaptive_pgd, fgsm, pgd
from cappaper.surrogate import UnreachedWarning, bounded_calls

_PATH = (1, 2, 5, 10, 20, 40)  # steps of PGD after which its loss is measured
_POINT, _TENTH = 0.01, 0.1  # one point of accuracy; a tenth of the logits' norm or of the examples
_SLOPE = "attack along a smooth slope: adaptive_pgd, or any attack in surrogate_gradient"
_TABLE = {  # thresholds and cures: six indicators, then five comparisons
    "unavailable gradients": (_POINT, _SLOPE),
    "unstable predictions": (_TENTH, "follow the mean gradient of many nearby points or passes"),
    "silent success": (0, "keep the first success, as early_exit=True does"),
    "incomplete optimisation": (_POINT, "take more steps, or other step sizes: apgd"),
    "transfer failure": (_TENTH, "attack the model itself, or a more similar one"),
    "unconstrained attack failure": (0, "another loss or attack: some image always succeeds"),
    "one step against many": (_POINT, _SLOPE),
    "chance against gradients": (_POINT, "an attack without gradients: square"),
    "few steps against many": (_POINT, "take the best of several lengths: apgd"),
    "a small radius against a larger one": (_POINT, "try at each ε what succeeds at a smaller one"),
    "knowledge of the cap against as many runs": (_POINT, "report adaptive_pgd: it knows the cap"),
}


class Indicator(NamedTuple):
    """One way in which an attack can fail silently, and what helps.

    ``value``: the measurement, None if there is none. ``fails``: whether it is a sign of masking.
    ``says``: a sentence with the numbers. ``cure``: what to do if it fails.
    """

    name: str
    value: float | None
    fails: bool
    says: str
    cure: str


@dataclass(frozen=True)
class MaskingReport:
    """The measurements of :func:`masking_report`; all robust accuracies are on the same images.

    ``standard``: accuracy without attack. ``zero_gradient``: share of the correctly classified
    images whose input gradient is exactly zero. ``at_zero``, ``at_cap``: share of hidden units at
    the lower bound of their activation, and at the upper one, β. ``unstable``: mean relative change
    of the logits within a thousandth of ε. ``loss``: mean cross-entropy by steps of PGD.
    ``silent``: share of the images that PGD turns wrong on its way and leaves right at its end.
    Robust accuracy: ``noise`` at 100 random points of the ball, ``one_step`` under FGSM,
    ``by_steps`` and ``by_eps`` under PGD by steps and by radius, ``adaptive`` under the attack that
    knows about the cap, and ``control`` under as many runs along the exact gradient. ``moved``:
    share of the examples that fool the other model but not this one; None if there is no other.
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
        """The six indicators of attack failure of Pintor et al., with our thresholds, on PGD."""
        return self._judged()[:6]

    def comparisons(self) -> list[Indicator]:
        """Five comparisons of PGD's longest run with what it should beat, in points of accuracy."""
        return self._judged()[6:]

    def signs(self) -> list[str]:
        """One sentence for every sign of masking. No sign does not prove that there is none."""
        # The robust accuracies of this report keep every success, so a silent one is no sign.
        return [i.says for i in self._judged() if i.fails and i.name != "silent success"]

    def _judged(self) -> list[Indicator]:
        robust = [*self.by_steps.values()]
        last, best, one = robust[-1], min(robust), self.one_step
        plain, aware = self.control, self.adaptive  # with as many runs
        widest = max(self.by_eps)
        any_image = self.by_eps[widest] if widest >= 1 else None
        rises = [(b[1] - a[1], a[0], b[0]) for a, b in pairwise(self.by_eps.items())]
        rise, low, high = max(rises, default=(None, widest, widest))
        rows = [
            (self.zero_gradient, "{:.0%} of the images have an input gradient of exactly zero"),
            (self.unstable, "the logits change by {:.0%} within a thousandth of ε"),
            (self.silent, "{:.1%} of the images are wrong on PGD's way and right at its end"),
            (robust[-2:][0] - last, f"more steps find more: {robust[0]:.3f} to {last:.3f}"),
            (self.moved, "{:.0%} of the examples that fool the other model do not fool this one"),
            (any_image, f"at ε = {widest:g}, where any image is allowed, PGD leaves {{:.3f}}"),
            (last - one, f"one step leaves {one:.3f}, many steps leave {last:.3f}"),
            (last - self.noise, f"random points leave {self.noise:.3f}, PGD leaves {last:.3f}"),
            (last - best, f"the longest PGD leaves {last:.3f}, the best one {best:.3f}"),
            (rise, f"PGD leaves {{:.3f}} more at ε = {high:g} than at ε = {low:g}"),
            (plain - aware, f"PGD leaves {plain:.3f}, {aware:.3f} if it knows about the cap"),
        ]
        indicators = []
        for (value, says), (name, (threshold, cure)) in zip(rows, _TABLE.items(), strict=True):
            says = "not measured" if value is None else says.format(value)
            indicators.append(Indicator(name, value, (value or 0) > threshold, says, cure))
        return indicators


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
    """Measure every sign of gradient masking on one model.

    Source: Athalye, Carlini and Wagner, arXiv 1802.00420, section 3.1; Carlini et al.,
    arXiv 1902.06705, section 5; Pintor et al., arXiv 2106.09947, section 3.

    Args:
        model: one classifier, as :func:`~cappaper.adaptive_pgd` takes it; its mode stays.
        x: images ``[B, ...]`` in [0, 1].
        y: int64 labels ``[B]``.
        eps: L∞ radius, at least 0, in units of the pixels' range.
        steps: numbers of steps of PGD at ``eps``, ascending.
        epsilons: radii of PGD with 40 steps, ascending; 1 allows any image.
        other: a model whose adversarial examples are tried on this one, such as a twin with ReLU.
        progress: called with (questions answered, questions in all).
        batch_size, seed: as in :func:`~cappaper.pgd`.

    Warns:
        UnreachedWarning: as :func:`~cappaper.adaptive_pgd`, which then adds little to PGD.

    Raises:
        TypeError, ValueError: as :func:`~cappaper.pgd`; or steps or radii are none or not sorted.

    >>> from cappaper import load, masking_report, mlp
    >>> digits, net = load("digits", "test", limit=20), mlp(64, [32], beta=1.0)
    >>> masking_report(net, *digits, eps=0.3, steps=[10], epsilons=[1.0]).signs()
    []
    """
    checks.module(model)
    checks.attack(x, y, eps, seed)
    steps = checks.sequence(steps, "steps", "numbers of steps")
    epsilons = checks.sequence(epsilons, "epsilons", "radii")
    for count in steps:
        checks.count(count, "steps")
    for radius in epsilons:
        checks.eps(radius)
    checks.ascending(steps, "steps")
    checks.ascending(epsilons, "epsilons")
    if y.ndim != 1:
        raise ValueError("masking_report takes one classifier and labels [B], not a population")
    ask = _Questions(model, x, y, eps, batch_size, seed)
    questions: list[Callable[[], dict[str, Any]]] = [
        ask.signals,
        ask.path,
        ask.noise,
        ask.unstable,
        ask.one_step,
        *([] if other is None else [partial(ask.moved, other)]),
        lambda: {"by_steps": {count: ask.under(pgd, steps=count) for count in steps}},
        lambda: {"by_eps": {radius: ask.under(pgd, eps=radius) for radius in epsilons}},
        ask.control,
        lambda: {"adaptive": ask.under(adaptive_pgd)},
    ]
    answers: dict[str, Any] = {"standard": _mean(ask.correct)}
    for count, question in enumerate(questions, 1):
        answers |= question()
        if progress is not None:
            progress(count, len(questions))
    return MaskingReport(**answers)


@dataclass(frozen=True)
class _Questions:
    """Questions about one model and its images; an answer is some fields of the report."""

    model: nn.Module
    x: Tensor
    y: Tensor
    eps: float
    batch_size: int | None
    seed: int

    @cached_property
    def correct(self) -> Tensor:
        return self.is_correct(self.x)

    def each(self, function: Callable[[Tensor, Tensor], Tensor], images: Tensor) -> Tensor:
        return in_batches(function, self.model, images, self.y, self.batch_size, None)

    def logits(self, images: Tensor) -> Tensor:
        return self.each(torch.no_grad()(partial(checks.logits_of, self.model)), images)

    def is_correct(self, images: Tensor) -> Tensor:
        return self.logits(images).argmax(-1) == self.y

    def attack(self, attack: Callable[..., Tensor], **settings: Any) -> Tensor:
        settings = {"eps": self.eps, "seed": self.seed, "batch_size": self.batch_size} | settings
        return attack(self.model, self.x, self.y, **settings)

    def under(self, attack: Callable[..., Tensor], **settings: Any) -> float:
        return _mean(self.correct & self.is_correct(self.attack(attack, **settings)))

    def plain_pgd(self, steps: int) -> Tensor:
        size = 2.5 * (self.eps or 1.0) / 40  # a run is then the beginning of every longer one
        return self.attack(pgd, steps=steps, step_size=size, early_exit=False)

    def one_step(self) -> dict[str, float]:
        adversarial = self.each(partial(fgsm, self.model, eps=self.eps), self.x)
        return {"one_step": _mean(self.correct & self.is_correct(adversarial))}

    def control(self) -> dict[str, float]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnreachedWarning)  # the next question warns
            return {"control": self.under(adaptive_pgd, sharpnesses=(None, None, None))}

    def signals(self) -> dict[str, float]:
        def signals(x: Tensor, y: Tensor) -> Tensor:
            point = x.detach().requires_grad_()
            loss = F.cross_entropy(checks.logits_of(self.model, point, y), y, reduction="sum")
            silent = checks.input_gradient(loss, point).flatten(1).eq(0).all(1, keepdim=True)
            low, high = [silent[:, :0]], [silent[:, :0]]
            for z, lower, upper, _ in bounded_calls(self.model, x, y)[0]:
                # A clamped weight is no unit. A sigmoid never reaches its bounds: both are 0.
                if not isinstance(z, nn.Parameter) and z.numel() % len(y) == 0:
                    low.append(((z <= lower) & (lower != upper)).reshape(len(y), -1))
                    high.append(((z >= upper) & (lower != upper)).reshape(len(y), -1))
            found = (silent, torch.cat(low, 1), torch.cat(high, 1))
            return torch.stack([shares.double().mean(1) for shares in found], dim=1)

        silent, at_zero, at_cap = self.each(signals, self.x).unbind(1)
        silent = silent[self.correct]
        return {"zero_gradient": _mean(silent), "at_zero": _mean(at_zero), "at_cap": _mean(at_cap)}

    def path(self) -> dict[str, Any]:
        loss, correct = {}, []
        for steps in (0, *_PATH):
            logits = self.logits(self.plain_pgd(steps) if steps else self.x)
            loss[steps] = F.cross_entropy(logits, self.y, reduction="none").mean().item()
            correct.append(logits.argmax(-1) == self.y)
        silent = correct[0] & correct[-1] & ~torch.stack(correct).all(0)
        return {"loss": loss, "silent": _mean(silent)}

    def noise(self) -> dict[str, float]:
        ball, robust = BALLS["linf"](self.eps, 1), self.correct
        for run in range(100):
            robust = robust & self.is_correct(ball.random(self.x, self.seed, run))
        return {"noise": _mean(robust)}

    def unstable(self) -> dict[str, float]:
        nearby = BALLS["linf"](self.eps / 1000, 1).random(self.x, self.seed, 0)
        here, there = self.logits(self.x), self.logits(nearby)
        change = (there - here).norm(dim=1) / here.norm(dim=1).clamp(min=1e-12)
        return {"unstable": change.clamp(max=1).mean().item()}

    def moved(self, other: nn.Module) -> dict[str, float]:
        there = replace(self, model=other)
        adversarial = there.plain_pgd(steps=40)
        fools = self.correct & ~there.is_correct(adversarial)
        return {"moved": _mean(self.is_correct(adversarial)[fools])}


def _mean(values: Tensor) -> float:
    return values.double().mean().nan_to_num().item()  # 0 where there is nothing
