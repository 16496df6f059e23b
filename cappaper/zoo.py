"""Trained networks of the book."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from cappaper import checks
from cappaper.models import mlp

FOLDER = Path(__file__).with_name("weights")

PRETRAINED = tuple(sorted(path.stem for path in FOLDER.glob("*.safetensors")))
"""The names that :func:`pretrained` knows."""


def pretrained(name: str) -> nn.Sequential:
    """A network of the book, trained on MNIST, with hidden layers of 300 and 100 units and seed 0.

    ``"relu"``, ``"cap-1"``, ``"cap-0.2"`` and ``"cap-0.05"`` have standard training;
    ``"relu-adversarial"``, ``"cap-1-adversarial"``, ``"cap-0.5-adversarial"`` and
    ``"cap-0.2-adversarial"`` training against PGD at ε = 0.3; ``"relu-adversarial-0.1"`` and
    ``"cap-1-adversarial-0.1"`` the same at ε = 0.1. The weights are stored in half precision.

    Args:
        name: one of ``cappaper.PRETRAINED``.

    Returns:
        A module from images ``[B, 1, 28, 28]`` in [0, 1] to logits ``[B, 10]``, float32, in eval
        mode.

    Raises:
        ValueError: an unknown name.

    >>> import torch
    >>> pretrained("cap-0.05")(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    header, weights = _read(name)
    model = mlp(784, header["hidden"], beta=[float(beta) for beta in header["beta"]])
    model.load_state_dict({key: value.float() for key, value in weights.items()})
    return model.eval()


def about(name: str) -> dict[str, Any]:
    """The widths, caps, training, data and seed of a network of :func:`pretrained`.

    >>> about("cap-0.05")["beta"]
    [0.05, 0.05]
    """
    return _read(name)[0]


def _read(name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    from safetensors import safe_open

    checks.one_of(name, PRETRAINED, "network")
    with safe_open(FOLDER / f"{name}.safetensors", framework="pt") as file:
        header = {key: json.loads(value) for key, value in file.metadata().items()}
        return header, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def store(name: str, weights: dict[str, Tensor], header: dict[str, Any], folder: Path) -> Path:
    """Write a network for :func:`pretrained`, with the header that :func:`about` returns."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.safetensors"
    # A cap keeps its precision: 0.05 in half precision is another number.
    half = {
        key: value.half().contiguous() if value.ndim else value for key, value in weights.items()
    }
    texts = {key: json.dumps(value, ensure_ascii=False) for key, value in header.items()}
    save_file(half, path, metadata=texts)
    return path
