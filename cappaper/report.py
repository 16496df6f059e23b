"""One network's robustness on one page: three accuracies, and whether to believe them."""

from __future__ import annotations

import dataclasses
import html
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from cappaper.attacks.common import Progress
from cappaper.attacks.pgd import pgd
from cappaper.attacks.strongest import strongest_attack
from cappaper.checks import check_batch, check_eps, check_module, shown
from cappaper.evaluation import in_eval_mode, is_robust
from cappaper.masking import MaskingReport, masking_report
from cappaper.surrogate import OutOfReachWarning

_STEPS = 40


@dataclass(frozen=True)
class RobustnessReport:
    """What :func:`robustness_report` found.

    ``name``: of the model. ``eps``: the L∞ radius. ``images``: how many. ``standard``: accuracy
    without an attack. ``pgd``, ``strongest``: robust accuracy under PGD, and under PGD and
    everything in :func:`~cappaper.strongest_attack`, image by image. ``masking``: what
    :func:`~cappaper.masking_report` says. ``unreached``: what the attacks cannot reach into.
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
        """The three accuracies and what each is called, from the highest to the lowest."""
        return {
            "without an attack": self.standard,
            f"under PGD with {_STEPS} steps": self.pgd,
            "under the strongest attack": self.strongest,
        }

    @property
    def verdict(self) -> str:
        """Plain words for who reads nothing else."""
        hidden, signs = self.pgd - self.strongest, self.masking.signs()
        if self.unreached:
            return (
                "Not decided: part of the model is out of the attacks' sight, so that its gradients"
                " may be masked without a sign."
            )
        if signs:
            return (
                "The gradients are masked: do not trust a robust accuracy from PGD. PGD leaves"
                f" {self.pgd:.1%} of the images, other attacks {self.strongest:.1%}."
            )
        if hidden > 0:
            return (
                "No sign of masked gradients. Other attacks find"
                f" {hidden:.1%} of the images more than PGD: report {self.strongest:.1%}."
            )
        return (
            "No sign of masked gradients, and no attack finds more than PGD:"
            f" report {self.strongest:.1%}, an upper bound."
        )

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.images} images, L∞ ball of radius {self.eps:g}", ""]
        lines += [f"  {value:6.1%}  {name}" for name, value in self.accuracies.items()]
        signs = self.masking.signs()
        lines += ["", self.verdict, *(f"  - {said}" for said in [*signs, *self.unreached])]
        asked = [*self.masking.indicators(), *self.masking.comparisons()]
        cures = dict.fromkeys(i.cure for i in asked if i.says in signs)
        lines += [f"  What helps: {cure}." for cure in cures]
        return "\n".join(lines)

    def json(self) -> str:
        """All figures, the verdict, the six indicators and all comparisons; null is no number."""
        said = dataclasses.asdict(self)
        said["verdict"], said["signs"] = self.verdict, self.masking.signs()
        said["indicators"] = [i._asdict() for i in self.masking.indicators()]
        said["comparisons"] = [i._asdict() for i in self.masking.comparisons()]
        # JSON knows neither NaN nor infinity, which a loss may be.
        said = json.loads(json.dumps(said), parse_constant=lambda _: None)
        return json.dumps(said, indent=2, ensure_ascii=False)

    def html(self) -> str:
        """A page that needs nothing else: no script, no font, no request."""
        bars = "".join(
            f'<tr><th scope="row">{name}</th><td>{value:.1%}</td><td class="bar">'
            f'<span style="width:{value:.1%}"></span></td></tr>'
            for name, value in self.accuracies.items()
        )
        rows = "".join(
            f'<tr><th scope="row">{i.name}</th><td>{"✗ fails" if i.fails else _mark(i.value)}</td>'
            f"<td>{html.escape(_sentence(i.says, i.value))}</td>"
            f"<td>{html.escape(i.cure) if i.fails else ''}</td></tr>"
            for i in self.masking.indicators()
        )
        said = [*self.masking.signs(), *self.unreached]
        signs = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in said)
        name = html.escape(self.name)
        return _PAGE.format(
            name=name,
            images=self.images,
            eps=f"{self.eps:g}",
            verdict=html.escape(self.verdict),
            kind="bad" if said else "good",
            bars=bars,
            signs=f"<ul>{signs}</ul>" if signs else "",
            rows=rows,
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
    """Standard accuracy, robust accuracy under PGD and under everything, and signs of masking.

    Args:
        model: one classifier, as :func:`~cappaper.adaptive_pgd` takes it; asked in eval mode, and
            as it was afterwards.
        x: images ``[B, C, H, W]``, float32 or float64 in [0, 1].
        y: int64 labels ``[B]``.
        eps: L∞ radius, at least 0, in units of the pixels' range.
        name: what the report calls the model.
        steps, queries: of :func:`~cappaper.strongest_attack`.
        progress: called with the name of each part, ``"strongest attack"`` and ``"masking"``; what
            it returns is called as that part goes on.
        seed: of all that is drawn.

    Raises:
        TypeError, ValueError: as :func:`~cappaper.pgd`.

    >>> from cappaper import load, mlp, robustness_report
    >>> x, y = load("digits", "test", limit=20)
    >>> report = robustness_report(mlp(64, [32]), x, y, eps=0.3, steps=10, queries=20)
    >>> report.strongest <= report.pgd <= report.standard
    True
    """
    check_batch(x, y)
    check_eps(eps)
    check_module(model)
    eps = float(eps)
    if not isinstance(name, str):
        raise TypeError(f"name must be text, got {shown(name)}")
    say = progress or (lambda part: lambda done, of: None)
    attacks = [
        partial(pgd, eps=eps, steps=_STEPS, seed=seed),
        partial(
            strongest_attack,
            eps=eps,
            steps=steps,
            queries=queries,
            seed=seed,
            batch_size=max(1, len(y) // 10),
            progress=say("strongest attack"),
        ),
    ]
    with in_eval_mode(model), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", OutOfReachWarning)
        warnings.filterwarnings("ignore", "adaptive_pgd met no|strongest_attack met no")
        masking = masking_report(
            model, x, y, eps, steps=(10, 40, 100), seed=seed, progress=say("masking")
        )
        stands = is_robust(model, x, y, attacks, batch_size=len(y))
    missed = [str(w.message) for w in caught if issubclass(w.category, OutOfReachWarning)]
    for other in caught:
        if not issubclass(other.category, OutOfReachWarning):
            warnings.warn(str(other.message), other.category, stacklevel=2)
    clean, plain, left = stands.double().mean(dim=1).tolist()
    unreached = tuple(dict.fromkeys(missed))
    return RobustnessReport(name, eps, len(y), clean, plain, left, masking, unreached)


def _mark(value: float | None) -> str:
    return "not asked" if value is None else "✓ passes"


def _sentence(says: str, value: float | None) -> str:
    return "" if value is None else says


_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Robustness of {name}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 1rem/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 46rem; }}
body {{ padding: 0 1rem; }}
table {{ border-collapse: collapse; width: 100%; }}
th, td {{ border-bottom: 1px solid #8888; padding: .4rem .6rem .4rem 0; text-align: left; }}
th, td {{ font-weight: 400; vertical-align: top; }}
.bar {{ width: 40%; }}
.bar span {{ background: #0072b2; display: block; height: 1rem; margin-top: .25rem; }}
.verdict {{ border-left: .4rem solid; padding-left: 1rem; }}
.bad {{ border-color: #d55e00; }} .good {{ border-color: #009e73; }}
</style></head><body>
<h1>Robustness of {name}</h1>
<p>{images} images; an attack may change every pixel by up to ε = {eps}.</p>
<p class="verdict {kind}"><strong>{verdict}</strong></p>
{signs}
<h2>Accuracy</h2>
<table>{bars}</table>
<h2>Did PGD fail, or did it have nothing to find?</h2>
<table><tr><th scope="col">indicator</th><th scope="col">PGD</th><th scope="col">measured</th>
<th scope="col">what helps</th></tr>{rows}</table>
</body></html>
"""
