"""Checkpoints of a training: its state after an epoch, and what tells it from another training."""

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cappaper.activations import CappedReLU
from cappaper.files import whole
from cappaper.population import template_of


def identity(model: nn.Module, x: Tensor, y: Tensor, *settings: Any) -> str:
    """A digest of the architecture, caps, data and settings of a training.

    A function counts by its code and by what it carries along: defaults, a closure, a ``partial``'s
    arguments.
    """
    layers = [
        (name, type(part).__qualname__, "" if isinstance(part, CappedReLU) else part.extra_repr())
        for name, part in template_of(model).named_modules()
    ]
    shapes = [(name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()]
    # A learned cap is a parameter and moves; a fixed one is a buffer.
    caps = [(name, cap.tolist()) for name, cap in model.named_buffers() if name.endswith("beta")]
    digest = hashlib.sha256(repr((layers, shapes, caps)).encode())
    digest.update(_described(settings).encode())
    for tensor in (x, y):
        digest.update(f"{tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _described(value: Any, depth: int = 5) -> str:
    """A setting in words that another process finds again; modules by their type alone."""
    if isinstance(value, nn.Module | type) or depth == 0:
        return (value if isinstance(value, type) else type(value)).__qualname__
    inner = functools.partial(_described, depth=depth - 1)
    match value:
        case functools.partial():
            return f"{inner(value.func)}({inner(value.args)}, {inner(value.keywords)})"
        case MethodType():
            return f"{inner(value.__self__)}.{value.__name__}"
        case FunctionType():
            carried = [value.__defaults__, [c.cell_contents for c in value.__closure__ or ()]]
            return f"{value.__qualname__} {inner(value.__code__)} {inner(carried)}"
        case CodeType():
            return f"{value.co_code.hex()} {value.co_names} {inner(value.co_consts)}"
        case dict():
            return str(sorted((str(key), inner(part)) for key, part in value.items()))
        case tuple() | list():
            return str([inner(part) for part in value])
        case np.generic():
            return repr(value.item())
    attributes = getattr(value, "__dict__", None)
    return f"{type(value).__qualname__} {inner(attributes)}" if attributes else repr(value)


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
    with whole(path) as unfinished:
        torch.save(state, unfinished)


def resume(
    path: Path,
    about: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    generators: Sequence[torch.Generator],
) -> int:
    """Restore the state of a training; the number of epochs that are done.

    Raises:
        ValueError: the file is damaged, or belongs to another training.
    """
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        raise ValueError(f"{path} is no checkpoint of a training: delete it") from error
    if not isinstance(state, dict) or state.get("about") != about:
        raise ValueError(f"{path} belongs to another training: delete it, or name another file")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    for generator, before in zip(generators, state["generators"], strict=True):
        generator.set_state(before)
    torch.set_rng_state(state["global"])
    return int(state["epoch"])
