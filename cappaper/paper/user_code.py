"""A network or images of the user's own, named on the command line as MODULE:FACTORY."""

import importlib
import runpy
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from cappaper import checks
from cappaper.data import DATASETS, load


def model(name: str) -> nn.Module:
    """The classifier that ``module:name`` is, or returns."""
    value = _value(name)
    if not isinstance(value, nn.Module):
        raise ValueError(f"{name} must be or return a torch module, got {type(value).__name__}")
    return value


def images(name: str) -> tuple[Tensor, Tensor]:
    """The test images and labels of a known data set, or those that ``module:name`` returns."""
    if name in DATASETS:
        return load(name, "test")
    if ":" not in name:
        checks.one_of(name, (*DATASETS, "MODULE:FACTORY"), "data")
    match _value(name):
        case [Tensor() as x, Tensor() as y]:
            return x, y
    raise ValueError(f"{name} must return two tensors, images and labels")


def _value(name: str) -> Any:
    """The value of ``module:name``; a function is called, a torch module is not."""
    place, _, attribute = name.rpartition(":")
    if not place or not attribute:
        raise ValueError(f"{name!r} must read MODULE:FACTORY, such as my_net.py:make")
    path = Path(place)
    is_file = path.suffix == ".py"
    if is_file and not path.is_file():
        raise ValueError(f"there is no file {place}")
    sys.path.insert(0, str(path.resolve().parent if is_file else Path.cwd()))
    if is_file:
        names = _run(place, lambda: runpy.run_path(place, run_name=path.stem))
    else:
        names = _run(place, lambda: vars(importlib.import_module(place)))
    if attribute not in names:
        raise ValueError(f"{place} has no {attribute!r}")
    value = names[attribute]
    return value if isinstance(value, nn.Module) or not callable(value) else _run(name, value)


def _run(name: str, function: Callable[[], Any]) -> Any:
    """Run the user's code as a script without arguments; an error names the line that failed."""
    arguments, sys.argv = sys.argv, [name]
    try:
        return function()
    except ImportError as error:
        raise ValueError(f"{name} cannot be imported: {error}") from error
    except (Exception, SystemExit) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{type(error).__name__}: {error} ({last.filename}, line {last.lineno})"
        raise ValueError(f"{name} fails: {where}") from error
    finally:
        sys.argv = arguments
