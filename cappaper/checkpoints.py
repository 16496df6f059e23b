"""Checkpoints of a training: its state after an epoch, and what tells it from another training."""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cappaper.activations import CappedReLU
from cappaper.files import whole
from cappaper.population import described, template_of


def identity(model: nn.Module, x: Tensor, y: Tensor, *settings: Any) -> str:
    """A digest of the architecture, caps, data and settings of a training."""
    layers = [
        (name, type(part).__qualname__, "" if isinstance(part, CappedReLU) else part.extra_repr())
        for name, part in template_of(model).named_modules()
    ]
    shapes = [(name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()]
    # A learned cap is a parameter and moves; a fixed one is a buffer.
    caps = [(name, cap.tolist()) for name, cap in model.named_buffers() if name.endswith("beta")]
    about = described((layers, shapes, caps, settings, x, y))
    return hashlib.sha256(about.encode()).hexdigest()


def save(
    path: Path,
    about: str,
    epoch: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    generators: Sequence[torch.Generator],
) -> None:
    """Write the state of a training; a reader never sees half a file."""
    state = {
        "about": about,
        "epoch": epoch,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "generators": [generator.get_state() for generator in generators],
        "global": torch.get_rng_state(),  # of dropout and the like
    }
    # Through memory: on a full disk, Python's own error says so, and torch's does not.
    torch.save(state, stored := io.BytesIO())
    with whole(path) as unfinished:
        unfinished.write_bytes(stored.getvalue())


def resume(
    path: Path,
    about: str,
    epochs: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    generators: Sequence[torch.Generator],
) -> int:
    """Restore the state of a training of ``epochs``; the number of epochs that are done.

    Raises:
        ValueError: the file is damaged, or belongs to another training.
    """
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        other, epoch, weights = (state[key] for key in ("about", "epoch", "model"))
    except Exception as error:
        raise ValueError(f"{path} is no checkpoint of a training: delete it") from error
    if other != about:
        raise ValueError(f"{path} belongs to another training: delete it, or name another file")
    finite = all(weights[name].isfinite().all() for name, _ in model.named_parameters())
    if not (finite and epoch in range(1, epochs + 1)):
        raise ValueError(f"{path} is damaged: delete it")
    model.load_state_dict(weights)
    optimizer.load_state_dict(state["optimizer"])
    for generator, before in zip(generators, state["generators"], strict=True):
        generator.set_state(before)
    torch.set_rng_state(state["global"])
    return int(epoch)
