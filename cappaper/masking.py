"""Gradient masking: did PGD fail, or was there nothing to find? Questions and indicators."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cappaper import checks
from cappaper.attacks.balls import Linf, is_zero
from cappaper.attacks.common import in_batches, is_fooled, look, predict, undisturbed
from cappaper.attacks.pgd import adaptive_pgd, pgd
from cappaper.progress import Progress, watched

_SLOPE = "attack along a smooth slope: adaptive_pgd, or any attack in surrogate_gradient"
_TABLE = {  # the largest value without masking, and the cure: six indicators, then five comparisons
    "unavailable gradients": (0.01, _SLOPE),
    "unstable predictions": (0.1, "follow the mean gradient of many nearby points or passes"),
    "silent success": (0, "keep the first success, as early_exit=True does"),
    "incomplete optimisation": (0.01, "take more steps, or other step sizes: apgd"),
    "transfer failure": (0.1, "attack the model itself, or a more similar one"),
    "unconstrained attack failure": (0, "another loss or attack: some image always succeeds"),
    "one step against many": (0.01, _SLOPE),
    "chance against gradients": (0.01, "an attack without gradients: square"),
    "few steps against many": (0.01, "keep the best of several step counts, or use apgd"),
    "a small radius against a larger one": (0.01, "try at each ε what succeeds at a smaller one"),
    "cap-aware PGD against as many runs of PGD": (0.01, "report adaptive_pgd: it knows the cap"),
}


class Indicator(NamedTuple):
    """One way in which an attack can fail silently."""

    name: str  #: what may fail
    value: float | None  #: the measurement; None if there is none
    fails: bool  #: whether the value is beyond its threshold
    says: str  #: a sentence with the numbers
    cure: str  #: what helps if it fails


@dataclass(frozen=True)
class MaskingReport:
    """The measurements of :func:`masking_report`, all on the same images."""

    standard: float  #: accuracy without an attack
    zero_gradient: float  #: share of the correct images whose input gradient is exactly zero
    unstable: float  #: mean relative change of the logits within a thousandth of ε
    loss: dict[int, float]  #: mean cross-entropy by steps of PGD
    silent: float  #: share of images that PGD turns wrong on its way and leaves right at its end
    noise: float  #: robust accuracy at 100 random points of the ball
    one_step: float  #: robust accuracy under FGSM
    by_steps: dict[int, float]  #: robust accuracy under PGD, by its steps
    by_eps: dict[float, float]  #: robust accuracy under PGD, by its radius
    adaptive: float  #: robust accuracy under the attack that knows about the cap
    control: float  #: robust accuracy under as many runs along the exact gradient
    moved: float | None = None  #: share of examples that fool the other model, but not this one

    def indicators(self) -> list[Indicator]:
        """The six indicators of attack failure of Pintor et al., with our thresholds, on PGD."""
        return list(self._judged())[:6]

    def comparisons(self) -> list[Indicator]:
        """Five comparisons of PGD with what it should beat, in points of accuracy."""
        return list(self._judged())[6:]

    def signs(self) -> list[str]:
        """A sentence for each sign of masking. An empty list does not prove that none exists."""
        # The robust accuracies of this report keep every success, so a silent one is not a sign.
        return [i.says for i in self._judged() if i.fails and i.name != "silent success"]

    def _judged(self) -> Iterator[Indicator]:
        steps = [*self.by_steps.items()]
        (few, fewer), (many, last) = [steps[0], *steps][-2:]
        best = min(self.by_steps.values())
        one, plain, aware = self.one_step, self.control, self.adaptive
        knows = f"an attack that knows about the cap leaves {aware:.1%}"
        widest = max(self.by_eps)
        any_image = self.by_eps[widest] if widest >= 1 else None
        rises = [(b[1] - a[1], a[0], b[0]) for a, b in pairwise(self.by_eps.items())]
        rise, low, high = max(rises, default=(None, widest, widest))
        rows = [
            (self.zero_gradient, "{:.0%} of the images have an input gradient of exactly zero"),
            (self.unstable, "the logits change by {:.0%} within a thousandth of ε"),
            (self.silent, "{:.1%} of the images are wrong during PGD and right at its end"),
            (fewer - last, f"{few:g} steps leave {fewer:.1%}, {many:g} steps leave {last:.1%}"),
            (self.moved, "{:.0%} of the examples that fool the other model do not fool this one"),
            (any_image, f"at ε = {widest:g}, where any image is allowed, PGD leaves {{:.1%}}"),
            (last - one, f"one step leaves {one:.1%}, many steps leave {last:.1%}"),
            (last - self.noise, f"random points leave {self.noise:.1%}, PGD leaves {last:.1%}"),
            (last - best, f"the longest PGD run leaves {last:.1%}, the best one {best:.1%}"),
            (rise, f"from ε = {low:g} to {high:g}, what PGD leaves changes by {{:+.1%}}"),
            (plain - aware, f"{knows}, as many runs of PGD leave {plain:.1%}"),
        ]
        for (value, says), (name, (threshold, cure)) in zip(rows, _TABLE.items(), strict=True):
            says = "not measured" if value is None else says.format(value)
            yield Indicator(name, value, (value or 0) > threshold, says, cure)


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
        x, y, eps, batch_size, progress, seed: as :func:`~cappaper.pgd`, with an L∞ radius.
        steps: numbers of steps of PGD at ``eps``, ascending. All other runs have 40 steps, or the
            last of these numbers if it is smaller.
        epsilons: radii of PGD, ascending; 1 allows any image.
        other: a model whose adversarial examples are tried on this one, such as a twin with ReLU.

    Raises:
        TypeError, ValueError: as :func:`~cappaper.pgd`; or ``steps`` or ``epsilons`` is empty or
            does not ascend.

    >>> from cappaper import load, masking_report, mlp
    >>> digits, net = load("digits", "test", limit=20), mlp(64, [32], beta=1.0)
    >>> masking_report(net, *digits, eps=0.3, steps=[10], epsilons=[1.0]).signs()
    []
    """
    checks.module(model)
    steps = checks.sequence(steps, "steps", "numbers of steps", ascending=True)
    epsilons = checks.sequence(epsilons, "epsilons", "radii", ascending=True)
    checks.attack(x, y, eps, seed, steps=steps[0])
    checks.eps(epsilons[0])
    if y.ndim != 1:
        raise ValueError("masking_report takes one classifier and labels [B], not a population")
    fields: dict[str, Any] = {}
    settings = {"eps": eps, "seed": seed, "batch_size": batch_size, "steps": min(40, steps[-1])}
    with undisturbed(model):
        measured = _measure(model, x, y, steps, epsilons, other, settings)
        for more in watched(measured, progress, "measurements", 9 + (other is not None)):
            fields |= more
    return MaskingReport(**fields)


def _measure(
    model: nn.Module, x: Tensor, y: Tensor, steps: Any, epsilons: Any, other: Any, settings: Any
) -> Iterator[dict[str, Any]]:
    """The fields of the report, some after each measurement."""
    eps, seed, batch_size, most = (settings[k] for k in ("eps", "seed", "batch_size", "steps"))
    judged = look(model, x, y)  # of a stochastic model, the mean of its passes

    def logits(images: Tensor, of: nn.Module = judged) -> Tensor:
        return in_batches(partial(predict, of), of, images, y, batch_size, None)

    def withstands(images: Tensor, of: nn.Module = judged) -> Tensor:
        return ~is_fooled(logits(images, of), y)

    def under(attack: Callable[..., Tensor], **own: Any) -> float:
        return _mean(correct & withstands(attack(model, x, y, **settings | own)))

    def no_gradient(images: Tensor, labels: Tensor) -> Tensor:
        point = images.detach().requires_grad_()
        loss = F.cross_entropy(checks.logits_of(model, point, labels), labels, reduction="sum")
        return is_zero(checks.input_gradient(loss, point).nan_to_num(), 1)

    correct = is_fooled(logits(x), y, targeted=True)  # NaN counts as wrong
    zero = in_batches(no_gradient, model, x, y, batch_size, None)
    yield {"standard": _mean(correct), "zero_gradient": _mean(zero[correct])}
    size = 2.5 * (eps or 1.0) / 40  # a run is then the beginning of every longer one
    walk = partial(pgd, eps=eps, step_size=size, early_exit=False, seed=seed, batch_size=batch_size)
    counts = sorted({min(n, most) for n in (1, 2, 5, 10, 20, 40)})
    path = {0: logits(x)} | {n: logits(walk(model, x, y, steps=n)) for n in counts}
    loss = {n: F.cross_entropy(z, y).item() for n, z in path.items()}
    right = torch.stack([~is_fooled(z, y) for z in path.values()])
    yield {"loss": loss, "silent": _mean(right[0] & right[-1] & ~right.all(0))}
    noise = [withstands(Linf(eps, 1).random(x, seed, run)) for run in range(100)]
    yield {"noise": _mean(correct & torch.stack(noise).all(0))}
    here, there = (logits(z, model) for z in (x, Linf(eps / 1000, 1).random(x, seed, 0)))
    here, there = (z.where(z > -1e4, 0) for z in (here, there))  # not those of impossible classes
    change = (there - here).norm(dim=1) / here.norm(dim=1).clamp(min=1e-12)
    yield {"unstable": change.clamp(max=1).mean().item()}
    yield {"one_step": under(walk, steps=1, step_size=1.0, random_start=False)}  # FGSM
    if other is not None:
        adversarial = walk(other, x, y, steps=most)
        fools = correct & withstands(x, other) & ~withstands(adversarial, other)
        yield {"moved": _mean(withstands(adversarial)[fools])}
    yield {"by_steps": {count: under(pgd, steps=count) for count in steps}}
    yield {"by_eps": {radius: under(pgd, eps=radius) for radius in epsilons}}
    yield {"control": under(adaptive_pgd, sharpnesses=(None, None, None))}
    yield {"adaptive": under(adaptive_pgd)}


def _mean(values: Tensor) -> float:
    return values.double().mean().nan_to_num().item()  # 0 where there is nothing
