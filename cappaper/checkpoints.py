"""Checkpoints of a training: its state after an epoch, and what tells it from another training."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass
class Checkpoint:
    """The file of one training's state. ``about`` is its :func:`identity`."""

    path: Path
    about: str
    model: nn.Module
    optimizer: torch.optim.Optimizer
    generators: Sequence[torch.Generator]

    def save(self, epoch: int) -> None:
        """Write the state after so many epochs; a reader never sees half a file."""
        state = {
            "about": self.about,
            "epoch": epoch,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generators": [generator.get_state() for generator in self.generators],
            "global": torch.get_rng_state(),  # of dropout and the like
        }
        # Through memory: on a full disk, Python's own error says so, and torch's does not.
        torch.save(state, stored := io.BytesIO())
        with whole(self.path) as unfinished:
            unfinished.write_bytes(stored.getvalue())

    def resume(self, epochs: int) -> int:
        """Restore the state of a training of ``epochs``; how many are done, 0 without a file.

        A file that is damaged, or of another training, raises a ValueError.
        """
        if not self.path.exists():
            return 0
        try:
            state = torch.load(self.path, weights_only=True, map_location="cpu")
            other, epoch, weights = (state[key] for key in ("about", "epoch", "model"))
        except Exception as error:
            raise ValueError(f"{self.path} is no checkpoint of a training: delete it") from error
        if other != self.about:
            helps = "delete it, or name another file"
            raise ValueError(f"{self.path} belongs to another training: {helps}")
        finite = all(weights[name].isfinite().all() for name, _ in self.model.named_parameters())
        if not (finite and epoch in range(1, epochs + 1)):
            raise ValueError(f"{self.path} is damaged: delete it")
        self.model.load_state_dict(weights)
        self.optimizer.load_state_dict(state["optimizer"])
        for generator, before in zip(self.generators, state["generators"], strict=True):
            generator.set_state(before)
        torch.set_rng_state(state["global"])
        return int(epoch)
