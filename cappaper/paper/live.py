"""The live page's networks and digits, as scripts: a page from a folder may fetch nothing else."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from cappaper.data import Dataset
from cappaper.paper.tables import network_name
from cappaper.zoo import PRETRAINED, about, pretrained

DIGITS = Path("extra/live/digits.js")


def network_script(name: str) -> str:
    """A network of the zoo as a call of ``Live.add``: half precision in base64."""
    state = pretrained(name).state_dict()
    prefixes = [key.removesuffix(".weight") for key in state if key.endswith(".weight")]
    layers = [[_half(state[f"{p}.{part}"]) for part in ("weight", "bias")] for p in prefixes]
    said = json.dumps({**about(name), "layers": layers}, ensure_ascii=False)
    return f"Live.add({json.dumps(name)}, {said});\n"


def index_script() -> str:
    """The networks that there are, as ``Live.available``: name and title, the highest cap first."""
    listed = []
    for name in PRETRAINED:
        said = about(name)
        beta, training = float(said["beta"][0]), said["training"]
        hardened = training.startswith("PGD")
        radius = training.split(",")[0].partition(" at ")[2]
        title = network_name(beta) + (f", adversarially trained at {radius}" if hardened else "")
        listed.append((hardened, -beta, [name, title]))
    entries = [entry for *_, entry in sorted(listed)]
    return f"Live.available = {json.dumps(entries, ensure_ascii=False)};\n"


def digits_script(test: Dataset, each: int = 2) -> str:
    """The first digits of each class, as ``Live.digits``: [label, 784 numbers from 0 to 1]."""
    chosen = [
        int(index)
        for label in range(10)
        for index in np.flatnonzero(test.labels.numpy() == label)[:each]
    ]
    rows = [[int(test.labels[i]), _text((test.images[i] * 255).byte().numpy())] for i in chosen]
    return (
        "// The first two of each class of MNIST's test images.\n"
        f"Live.digits = {json.dumps(rows)}.map(([label, text]) =>\n"
        "  [label, Float64Array.from(atob(text), (c) => c.charCodeAt(0) / 255)]);\n"
    )


def _half(values: Tensor) -> str:
    return _text(values.numpy().astype("<f2"))


def _text(values: np.ndarray[Any, Any]) -> str:
    return base64.b64encode(values.tobytes()).decode()
