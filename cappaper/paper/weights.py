"""The networks that the package brings along: how they are trained, and as scripts for a page.

A page that is opened from a folder may fetch nothing, so the live page loads them as scripts.
"""

import base64
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from cappaper.data import Dataset
from cappaper.models import about, pretrained
from cappaper.paper.experiment import Adversary, Spec, sweep
from cappaper.paper.machines import Machine
from cappaper.paper.profiles import profile
from cappaper.paper.runner import networks
from cappaper.paper.tables import network_name

DIGITS = Path("extra/live/digits.js")
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


def train(folder: Path, machine: Machine) -> Iterator[Path]:
    """Train what is not trained yet, and write all networks to ``folder``."""
    models = networks(list(specs().values()), machine)
    for (name, spec), model in zip(specs().items(), models, strict=True):
        yield _store(model.cpu(), metadata(spec), folder / f"{name}.safetensors")


def _store(model: nn.Module, header: dict[str, Any], path: Path) -> Path:
    """Write a network for :func:`cappaper.pretrained`, with the header that ``about`` returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A cap keeps its precision: 0.05 in half precision is another number.
    half = {key: v.half() if v.ndim else v for key, v in model.state_dict().items()}
    save_file(half, path, {key: json.dumps(v, ensure_ascii=False) for key, v in header.items()})
    return path


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


def write_scripts(folder: Path) -> None:
    """Each network as a script that calls ``Live.add``, and ``index.js`` with their titles."""
    folder.mkdir(parents=True, exist_ok=True)
    titles = []
    for name, spec in specs().items():
        state = pretrained(name).state_dict()
        texts = [_base64(state[key].half()) for key in state if not key.endswith("beta")]
        facts = about(name) | {"layers": list(zip(texts[::2], texts[1::2], strict=True))}
        script = f"Live.add({json.dumps(name)}, {json.dumps(facts, ensure_ascii=False)});\n"
        (folder / f"{name}.js").write_text(script, encoding="utf-8")
        title = network_name(spec.beta[0])
        if spec.adversary:
            title += f", adversarially trained at ε = {spec.adversary.eps:g}"
        titles.append([name, title])
    listed = json.dumps(titles, ensure_ascii=False)
    (folder / "index.js").write_text(f"Live.available = {listed};\n", encoding="utf-8")


def digits_script(test: Dataset) -> str:
    """The first two digits of each class, as ``Live.digits``: [label, 784 numbers in [0, 1]]."""
    chosen = [int(i) for c in range(10) for i in (test.labels == c).nonzero()[:2, 0]]
    rows = [[int(test.labels[i]), _base64((test.images[i] * 255).byte())] for i in chosen]
    return (
        "// The first two of each class of MNIST's test images.\n"
        f"Live.digits = {json.dumps(rows)}.map(([label, text]) =>\n"
        "  [label, Float64Array.from(atob(text), (c) => c.charCodeAt(0) / 255)]);\n"
    )


def _base64(values: torch.Tensor) -> str:
    return base64.b64encode(values.numpy().tobytes()).decode()
