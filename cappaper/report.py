"""One network's robustness on one page: three accuracies, and whether to believe them."""

import json
import warnings
from dataclasses import asdict, dataclass
from functools import partial
from html import escape
from typing import Any

from torch import Tensor, nn

from cappaper import checks
from cappaper.attacks.common import undisturbed
from cappaper.attacks.pgd import pgd
from cappaper.attacks.strongest import strongest_attack
from cappaper.evaluation import is_robust
from cappaper.masking import MaskingReport, masking_report
from cappaper.progress import Progress
from cappaper.surrogate import OutOfReachWarning, UnreachedWarning, warn_unreached


@dataclass(frozen=True)
class RobustnessReport:
    """The results of :func:`robustness_report`; print it, or ask for ``json()`` or ``html()``."""

    name: str  #: the model's name
    eps: float  #: the L∞ radius
    images: int  #: the number of images
    standard: float  #: accuracy without an attack
    pgd: float  #: robust accuracy under PGD
    strongest: float  #: robust accuracy under PGD and :func:`~cappaper.strongest_attack`
    masking: MaskingReport  #: the result of :func:`~cappaper.masking_report`
    doubts: tuple[str, ...] = ()  #: why the verdict is not decided
    warned: tuple[str, ...] = ()  #: what else the attacks warned of

    @property
    def accuracies(self) -> dict[str, float]:
        """The three accuracies by name, from the highest to the lowest."""
        under = {"under PGD with 40 steps": self.pgd, "under the strongest attack": self.strongest}
        return {"without an attack": self.standard, **under}

    @property
    def misleads(self) -> bool:
        """Whether PGD misleads, by signs of masking or ten points more that other attacks find."""
        return bool(self.masking.signs()) or self.pgd - self.strongest > 0.1

    @property
    def verdict(self) -> str:
        """The result in one or two sentences."""
        least = f"{self.strongest:.1%}"
        if self.doubts:
            return "Not decided, for the reasons below: gradients may be masked."
        if self.misleads:
            kind = "masked" if self.masking.signs() else "misleading"
            why = f"The gradients are {kind}: do not trust a robust accuracy from PGD."
            return f"{why} PGD leaves {self.pgd:.1%} of the images; all attacks combined, {least}."
        more = "no attack finds" if self.pgd == self.strongest else "other attacks find"
        return f"No sign of masked gradients; {more} more than PGD: report {least}, an upper bound."

    def __str__(self) -> str:
        masking, signs = self.masking, self.masking.signs()
        found = [i for i in [*masking.indicators(), *masking.comparisons()] if i.says in signs]
        lines = [
            f"{self.name}: {self.images} images, L∞ ball of radius {self.eps:g}\n",
            *(f"  {value:6.1%}  {name}" for name, value in self.accuracies.items()),
            f"\n{self.verdict}",
            *(f"  - {why}" for why in [*signs, *self.doubts, *self.warned]),
            *dict.fromkeys(f"  What helps: {indicator.cure}." for indicator in found),
        ]
        return "\n".join(lines)

    def json(self) -> str:
        """All numbers, the verdict, the indicators and the comparisons; NaN and ∞ become null."""
        fields = asdict(self) | {"verdict": self.verdict, "signs": self.masking.signs()}
        fields["indicators"] = [i._asdict() for i in self.masking.indicators()]
        fields["comparisons"] = [i._asdict() for i in self.masking.comparisons()]
        fields = json.loads(json.dumps(fields), parse_constant=lambda _: None)
        return json.dumps(fields, indent=2, ensure_ascii=False)

    def html(self) -> str:
        """A page in one file, without scripts, fonts or requests."""
        bar = '<div style="background: #0072b2; height: 1rem; width: {:.1%}"></div>'
        rows = [(name, f"{v:.1%}", bar.format(v)) for name, v in self.accuracies.items()]
        for i in self.masking.indicators():
            mark = "not asked" if i.value is None else "✗ fails" if i.fails else "✓ passes"
            rows.append((i.name, mark, f"{i.says}. What helps: {i.cure}." if i.fails else i.says))
        cells = '<tr><th scope="row">{}</th><td>{}</td><td>{}</td></tr>'
        signs = [*self.masking.signs(), *self.doubts, *self.warned]
        listed = "".join(f"<li>{escape(sign)}</li>" for sign in signs)
        return f"""<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Robustness of {escape(self.name)}</title><style>:root {{ color-scheme: light dark }}
body {{ font: 1rem/1.5 system-ui; margin: 2rem auto; max-width: 46rem }} td {{ padding: .4rem }}
th {{ text-align: left }} td + td {{ width: 50% }}</style></head><body>
<h1>Robustness of {escape(self.name)}</h1>
<p>{self.images} images; an attack may change every pixel by up to ε = {self.eps:g}.</p>
<p><strong>{escape(self.verdict)}</strong></p><ul>{listed}</ul>
<table>{"".join(cells.format(*row) for row in rows)}</table></body></html>
"""


def robustness_report(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    name: str = "model",
    steps: int = 100,
    queries: int = 1000,
    batch_size: int = 2048,
    progress: Progress | None = None,
    seed: int = 0,
) -> RobustnessReport:
    """Standard accuracy, robust accuracy under PGD and all attacks, and signs of masking.

    Args:
        model: one classifier, as :func:`~cappaper.adaptive_pgd` takes it; attacked in eval mode.
        x, y, eps, batch_size, progress, seed: as :func:`~cappaper.pgd`, in L∞; so are the errors.
        name: the model's name in the report.
        steps, queries: of :func:`~cappaper.strongest_attack`. Runs that look for masking have 100
            steps at most, and no more than these.

    >>> from cappaper import load, mlp, robustness_report
    >>> report = robustness_report(mlp(64, [4]), *load("digits", "test", limit=9), 0.3, queries=9)
    >>> report.strongest <= report.pgd <= report.standard
    True
    """
    checks.attack(x, y, eps, seed, steps=steps, queries=queries, batch_size=batch_size)
    checks.pictures(x, y, "robustness_report")
    checks.module(model)
    eps, budget = float(eps), sorted({min(most, steps) for most in (10, 40, 100)})
    settings: dict[str, Any] = {"eps": eps, "seed": seed, "batch_size": batch_size}
    every = partial(strongest_attack, steps=steps, queries=queries, progress=progress, **settings)
    with undisturbed(model, in_eval_mode=True), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        warn_unreached(model, x, y, "the attacks")
        warnings.simplefilter("ignore", UnreachedWarning)  # it was given once, above
        masking = masking_report(model, x, y, steps=budget, progress=progress, **settings)
        robust = is_robust(model, x, y, [partial(pgd, **settings), every], batch_size=batch_size)
    said = {str(w.message): w.category for w in caught}
    # A plain ReLU network has nothing bounded: that matters only if gradients are masked.
    unreached = UnreachedWarning if masking.signs() else OutOfReachWarning
    doubtful = (unreached, checks.ReliabilityWarning)
    doubts = tuple(text for text, kind in said.items() if issubclass(kind, doubtful))
    warned = tuple(text for text in said if text not in doubts)
    correct, left, least = robust.double().mean(dim=1).tolist()
    return RobustnessReport(name, eps, len(y), correct, left, least, masking, doubts, warned)
