"""``python -m tests.networks``: train the networks that the package brings along, on MNIST.

It writes them to ``cappaper/weights/``, and the live page's digits.
"""

import base64
import json
import math
from pathlib import Path
from typing import Any

import click
from safetensors.torch import save_file
from torch import nn

from cappaper import Dataset, load
from cappaper.models import WEIGHTS
from cappaper.paper import Adversary, machine, networks, profile, sweep
from cappaper.paper.experiment import Spec

DIGITS = Path("book/extra/live/digits.js")
# Name, epochs, adversary and caps, as in the chapters that train these networks.
_TRAININGS = (
    ("{}", 10, None, (math.inf, 1.0, 0.2, 0.05)),
    ("{}-adversarial", 40, Adversary(0.3, ramp=0.25), (math.inf, 1.0, 0.5, 0.2)),
    ("{}-adversarial-0.1", 20, Adversary(0.1, ramp=0.25), (math.inf, 1.0)),
)


def specs() -> dict[str, Spec]:
    """The networks by name; all have seed 0."""
    by_name = {}
    for name, epochs, adversary, betas in _TRAININGS:
        setting = profile("paper", epochs=epochs)
        for spec in sweep(setting, betas=betas, seeds=[0], adversary=adversary):
            beta = spec.beta[0]
            by_name[name.format("relu" if math.isinf(beta) else f"cap-{beta:g}")] = spec
    return by_name


def store(model: nn.Module, header: dict[str, Any], path: Path) -> None:
    """Write a network for ``cappaper.pretrained``, with the header that ``about`` returns."""
    # A cap keeps its precision: 0.05 in half precision is another number.
    half = {key: v.half() if v.ndim else v for key, v in model.state_dict().items()}
    save_file(half, path, {key: json.dumps(v, ensure_ascii=False) for key, v in header.items()})


def metadata(spec: Spec) -> dict[str, Any]:
    """What a reader wants to know of a network, in values that JSON can write."""
    against = spec.adversary
    how = f"PGD-{against.steps} at ε = {against.eps:g}" if against else "standard"
    return {
        "dataset": spec.dataset,
        "hidden": list(spec.hidden),
        "beta": ["inf" if math.isinf(beta) else beta for beta in spec.beta],
        "training": f"{how}, {spec.epochs} epochs",
        "seed": spec.seed,
    }


def digits_script(test: Dataset) -> str:
    """The first two digits of each class, as ``Live.digits``: [label, 784 numbers in [0, 1]]."""
    chosen = [int(i) for c in range(10) for i in (test.labels == c).nonzero()[:2, 0]]
    pixels = [(test.images[i] * 255).byte().numpy().tobytes() for i in chosen]
    texts = [base64.b64encode(image).decode() for image in pixels]
    rows = [[int(test.labels[i]), text] for i, text in zip(chosen, texts, strict=True)]
    return (
        "// The first two of each class of MNIST's test images.\n"
        f"Live.digits = {json.dumps(rows)}.map(([label, text]) =>\n"
        "  [label, Float64Array.from(atob(text), (c) => c.charCodeAt(0) / 255)]);\n"
    )


@click.command()
@click.option("--jobs", default=1, help="Processes on a CPU.")
def main(jobs: int) -> None:
    """Train the networks, and write them and the digits."""
    for (name, spec), model in zip(
        specs().items(), networks(list(specs().values()), machine(jobs=jobs)), strict=True
    ):
        store(model.cpu(), metadata(spec), WEIGHTS / f"{name}.safetensors")
    DIGITS.write_text(digits_script(load("mnist", "test")), encoding="utf-8")


if __name__ == "__main__":
    main()
