"""Checkpoints of a training: what it is, and where it stands."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cappaper.activations import CappedReLU
from cappaper.files import whole
from cappaper.population import template_of


def identity(model: nn.Module, x: Tensor, y: Tensor, lr: Any, *functions: Any) -> list[Any]:
    """What tells one training from another, beside its seeds and counts."""
    return [
        _named(lr) if callable(lr) else float(lr),
        *(_named(function) for function in functions),
        [[n, list(getattr(v, "shape", ()))] for n, v in model.state_dict().items()],
        [[n, cap.tolist()] for n, cap in model.named_buffers() if n.endswith("beta")],
        _layers(model),
        _digest(x, y),
    ]


def _layers(model: nn.Module) -> list[list[str]]:
    """What the state of a model does not tell: its layers and their settings."""
    # A learned cap is a weight, and moves.
    return [
        [name, type(part).__qualname__, "" if _learned(part) else part.extra_repr()]
        for name, part in template_of(model).named_modules()
    ]


def _learned(part: nn.Module) -> bool:
    return isinstance(part, CappedReLU) and isinstance(part.beta, nn.Parameter)


def _named(value: Any, depth: int = 4) -> str:
    """A function or a setting of one, in words that another process finds again.

    Modules are named alone: their numbers move while they are trained.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if depth == 0 or isinstance(value, nn.Module | type):
        return (value if isinstance(value, type) else type(value)).__qualname__
    inner = partial(_named, depth=depth - 1)
    match value:
        case partial():
            return f"{inner(value.func)}({inner(value.args)}, {inner(value.keywords)})"
        case MethodType():
            return f"{inner(value.__self__)}.{value.__name__}"
        case FunctionType():
            does = inner(value.__code__)
            return f"{value.__module__}.{value.__qualname__} {does}{inner(carried(value))}"
        case CodeType():
            return f"{value.co_code.hex()} {value.co_names} {inner(value.co_consts)}"
        case dict():
            return str(sorted((str(key), inner(part)) for key, part in value.items()))
        case tuple() | list():
            return str([inner(part) for part in value])
    said = repr(value)
    if " at 0x" in said or dataclasses.is_dataclass(value):  # an address finds nothing again
        said = f"{type(value).__qualname__} {inner(getattr(value, '__dict__', {}))}"
    return said


def _digest(*tensors: Tensor) -> str:
    sha = hashlib.sha256()
    for tensor in tensors:
        sha.update(f"{tensor.dtype} {list(tensor.shape)}".encode())
        numbers = tensor.detach().cpu().contiguous().reshape(-1)
        sha.update(numbers.view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def carried(function: FunctionType) -> list[Any]:
    """What a function brings along beside its code."""
    cells = []
    for cell in function.__closure__ or ():
        try:
            cells.append(cell.cell_contents)
        except ValueError:  # nothing is in it yet
            cells.append(None)
    return [function.__defaults__, function.__kwdefaults__, cells]


def save(
    path: Path,
    about: list[Any],
    epoch: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    generators: Sequence[torch.Generator],
) -> None:
    """Write the state of a training; who reads it never sees half a file."""
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
    about: list[Any],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    generators: Sequence[torch.Generator],
) -> int:
    """Put a training where it was; the epochs that it had done."""
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
