"""Trained networks of the book, stored in half precision."""

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

    Args:
        name: one of ``cappaper.PRETRAINED``: the cap, or ``"relu"``, of both layers; and whether it
            was trained against PGD (``"-adversarial"`` at ε = 0.3, ``"-adversarial-0.1"`` at 0.1).

    Returns:
        A module in eval mode, from images ``[B, 1, 28, 28]`` in [0, 1] to logits ``[B, 10]``.

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
    """The widths, caps, training, data and seed of a network of :func:`pretrained`."""
    return _read(name)[0]


def _read(name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    from safetensors import safe_open

    checks.one_of(name, PRETRAINED, "network")
    with safe_open(FOLDER / f"{name}.safetensors", framework="pt") as file:
        header = {key: json.loads(value) for key, value in file.metadata().items()}
        return header, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
