"""One network's robustness on one page: three accuracies, and whether to believe them."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from html import escape

from torch import Tensor, nn

from cappaper import checks
from cappaper.attacks.common import Progress
from cappaper.attacks.pgd import pgd
from cappaper.attacks.strongest import strongest_attack
from cappaper.evaluation import in_eval_mode, is_robust
from cappaper.masking import MaskingReport, masking_report
from cappaper.surrogate import OutOfReachWarning, UnreachedWarning

_STEPS = 40  # of PGD


@dataclass(frozen=True)
class RobustnessReport:
    """The results of :func:`robustness_report`; print it, or ask for ``json()`` or ``html()``.

    ``name``: of the model. ``eps``: the L∞ radius. ``images``: how many. ``standard``: accuracy
    without an attack. ``pgd``, ``strongest``: robust accuracy under PGD, and under PGD and
    :func:`~cappaper.strongest_attack`, image by image. ``masking``: the result of
    :func:`~cappaper.masking_report`. ``unreached``: the parts that no attack can reach into.
    """

    name: str
    eps: float
    images: int
    standard: float
    pgd: float
    strongest: float
    masking: MaskingReport
    unreached: tuple[str, ...] = ()

    @property
    def accuracies(self) -> dict[str, float]:
        """The three accuracies by name, from the highest to the lowest."""
        return {
            "without an attack": self.standard,
            f"under PGD with {_STEPS} steps": self.pgd,
            "under the strongest attack": self.strongest,
        }

    @property
    def verdict(self) -> str:
        """The result in one or two sentences."""
        if self.unreached:
            return (
                "Not decided: the attacks cannot reach into a part of the model, so its gradients"
                " may be masked without a sign."
            )
        if self.masking.signs():
            return (
                "The gradients are masked: do not trust a robust accuracy from PGD. PGD leaves"
                f" {self.pgd:.1%} of the images, other attacks leave {self.strongest:.1%}."
            )
        if self.pgd > self.strongest:
            return (
                f"No sign of masked gradients. Other attacks fool {self.pgd - self.strongest:.1%}"
                f" of the images more than PGD: report {self.strongest:.1%}."
            )
        return (
            "No sign of masked gradients, and no attack finds more than PGD:"
            f" report {self.strongest:.1%}, an upper bound."
        )

    def __str__(self) -> str:
        masking = self.masking
        failed = [i for i in [*masking.indicators(), *masking.comparisons()] if i.fails]
        cures = dict.fromkeys(i.cure for i in failed if i.says in masking.signs())
        return "\n".join(
            [
                f"{self.name}: {self.images} images, L∞ ball of radius {self.eps:g}\n",
                *(f"  {value:6.1%}  {name}" for name, value in self.accuracies.items()),
                f"\n{self.verdict}",
                *(f"  - {sign}" for sign in [*masking.signs(), *self.unreached]),
                *(f"  What helps: {cure}." for cure in cures),
            ]
        )

    def json(self) -> str:
        """All numbers, the verdict, the indicators and the comparisons; NaN and ∞ become null."""
        fields = dataclasses.asdict(self) | {
            "verdict": self.verdict,
            "signs": self.masking.signs(),
            "indicators": [i._asdict() for i in self.masking.indicators()],
            "comparisons": [i._asdict() for i in self.masking.comparisons()],
        }
        fields = json.loads(json.dumps(fields), parse_constant=lambda _: None)
        return json.dumps(fields, indent=2, ensure_ascii=False)

    def html(self) -> str:
        """A page in one file, without scripts, fonts or requests."""
        signs = [*self.masking.signs(), *self.unreached]
        marks = {None: "not asked", False: "✓ passes", True: "✗ fails"}
        return _PAGE.format(
            name=escape(self.name),
            images=self.images,
            eps=f"{self.eps:g}",
            color="#d55e00" if signs else "#009e73",
            verdict=escape(self.verdict),
            signs="".join(f"<li>{escape(sign)}</li>" for sign in signs),
            accuracies="".join(
                f'<tr><th scope="row">{name}</th><td>{value:.1%}</td>'
                f'<td class="bar"><span style="width:{value:.1%}"></span></td></tr>'
                for name, value in self.accuracies.items()
            ),
            indicators="".join(
                f'<tr><th scope="row">{i.name}</th>'
                f"<td>{marks[None if i.value is None else i.fails]}</td>"
                f"<td>{escape(i.says)}</td><td>{escape(i.cure) if i.fails else ''}</td></tr>"
                for i in self.masking.indicators()
            ),
        )


def robustness_report(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    name: str = "model",
    steps: int = 100,
    queries: int = 1000,
    progress: Callable[[str], Progress] | None = None,
    seed: int = 0,
) -> RobustnessReport:
    """Standard accuracy, robust accuracy under PGD and all attacks, and signs of masking.

    Args:
        model: one classifier, as :func:`~cappaper.adaptive_pgd` takes it, evaluated in eval mode;
            its own mode comes back afterwards.
        x: images ``[B, C, H, W]``, float32 or float64 in [0, 1].
        y: int64 labels ``[B]``.
        eps: L∞ radius, at least 0, in units of the pixels' range.
        name: the model's name in the report.
        steps, queries: of :func:`~cappaper.strongest_attack`.
        progress: called with the name of each part, ``"strongest attack"`` and ``"masking"``;
            returns a function that is called with (done, in all).
        seed: of all random numbers.

    Raises:
        TypeError, ValueError: as :func:`~cappaper.pgd`.

    >>> from cappaper import load, mlp, robustness_report
    >>> x, y = load("digits", "test", limit=20)
    >>> report = robustness_report(mlp(64, [32]), x, y, eps=0.3, steps=10, queries=20)
    >>> report.strongest <= report.pgd <= report.standard
    True
    """
    checks.attack(x, y, eps, seed)
    checks.module(model)
    if not isinstance(name, str):
        raise TypeError(f"name must be text, got {checks.shown(name)}")
    eps = float(eps)
    bar = progress or (lambda part: lambda done, of: None)
    plain = partial(pgd, eps=eps, steps=_STEPS, seed=seed)
    strongest = partial(strongest_attack, eps=eps, steps=steps, queries=queries, seed=seed)
    strongest = partial(
        strongest, batch_size=max(1, len(y) // 10), progress=bar("strongest attack")
    )
    with in_eval_mode(model), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore", UnreachedWarning)
        warnings.simplefilter("always", OutOfReachWarning)
        masking = masking_report(
            model, x, y, eps, steps=(10, 40, 100), seed=seed, progress=bar("masking")
        )
        robust = is_robust(model, x, y, [plain, strongest], batch_size=len(y))
    unreached = []
    for warning in caught:
        if issubclass(warning.category, OutOfReachWarning):
            unreached.append(str(warning.message))
        else:
            warnings.warn(warning.message, stacklevel=2)
    standard, under_pgd, under_all = robust.double().mean(dim=1).tolist()
    parts = tuple(dict.fromkeys(unreached))
    return RobustnessReport(name, eps, len(y), standard, under_pgd, under_all, masking, parts)


_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Robustness of {name}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 1rem/1.5 system-ui; margin: 2rem auto; max-width: 46rem; padding: 0 1rem; }}
table {{ border-collapse: collapse; width: 100%; }}
th, td {{ border-bottom: 1px solid #8888; font-weight: 400; padding: .4rem; text-align: left; }}
.bar {{ width: 40%; }}
.bar span {{ background: #0072b2; display: block; height: 1rem; }}
.verdict {{ border-left: .4rem solid {color}; font-weight: bold; padding-left: 1rem; }}
</style></head><body>
<h1>Robustness of {name}</h1>
<p>{images} images; an attack may change every pixel by up to ε = {eps}.</p>
<p class="verdict">{verdict}</p>
<ul>{signs}</ul>
<h2>Accuracy</h2>
<table>{accuracies}</table>
<h2>Did PGD fail, or was there nothing to find?</h2>
<table><tr><th scope="col">indicator</th><th scope="col">PGD</th><th scope="col">measured</th>
<th scope="col">what helps</th></tr>{indicators}</table>
</body></html>
"""
