"""Trained networks of the book, to attack without training anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from cappaper.checks import one_of
from cappaper.models import mlp

FOLDER = Path(__file__).with_name("weights")

PRETRAINED = tuple(sorted(path.stem for path in FOLDER.glob("*.safetensors")))
"""The names that :func:`pretrained` knows."""


def pretrained(name: str) -> nn.Sequential:
    """A network of the book as it was trained there, on MNIST, with hidden layers of 300 and 100.

    ``"relu"``, ``"cap-1"``, ``"cap-0.2"`` and ``"cap-0.05"`` have standard training;
    ``"relu-adversarial"``, ``"cap-1-adversarial"``, ``"cap-0.5-adversarial"`` and
    ``"cap-0.2-adversarial"`` training against PGD at ε = 0.3; ``"relu-adversarial-0.1"`` and
    ``"cap-1-adversarial-0.1"`` the same at ε = 0.1. Seed 0 of each. The weights are stored in half
    precision and come in single precision.

    Args:
        name: one of ``cappaper.PRETRAINED``.

    Returns:
        A module from images ``[B, 1, 28, 28]`` in [0, 1] to logits ``[B, 10]``, in eval mode.

    Raises:
        ValueError: another name.

    >>> import torch
    >>> pretrained("cap-0.05")(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    said = about(name)
    model = mlp(784, said["hidden"], beta=[float(beta) for beta in said["beta"]])
    with _opened(name) as file:
        model.load_state_dict({key: file.get_tensor(key).float() for key in model.state_dict()})
    return model.eval()


def about(name: str) -> dict[str, Any]:
    """How a network of :func:`pretrained` was made: its widths, caps, training, data and seed.

    >>> about("cap-0.05")["beta"]
    [0.05, 0.05]
    """
    with _opened(name) as file:
        return {key: json.loads(value) for key, value in file.metadata().items()}


def _opened(name: str) -> Any:
    from safetensors import safe_open

    one_of(name, PRETRAINED, "network")
    return safe_open(FOLDER / f"{name}.safetensors", framework="pt")


def store(name: str, weights: dict[str, Tensor], said: dict[str, Any], folder: Path) -> Path:
    """Write a network for :func:`pretrained`; ``said`` is what :func:`about` is to tell."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.safetensors"
    half = {  # a cap stays what it is: 0.05 in half precision would be another one
        key: value.half().contiguous() if value.ndim else value for key, value in weights.items()
    }
    header = {key: json.dumps(value, ensure_ascii=False) for key, value in said.items()}
    save_file(half, path, metadata=header)
    return path
