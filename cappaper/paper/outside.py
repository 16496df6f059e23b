"""What a user names on the command line: a network or images of their own."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from tqdm import tqdm

from cappaper.attacks.common import Progress
from cappaper.data import DATASETS, load


def model(name: str) -> nn.Module:
    """The classifier that ``module:name`` is, or returns.

    Raises:
        ValueError: there is no such module or name, or it is no torch module.
    """
    found = _made(name)
    if not isinstance(found, nn.Module):
        raise ValueError(f"{name} must be or return a torch module, got {type(found).__name__}")
    return found


def images(name: str) -> tuple[Tensor, Tensor]:
    """The test images and labels of a known data set, or those that ``module:name`` returns.

    Raises:
        ValueError: there is no such data set, module or name, or it is no pair of tensors.
    """
    if name in DATASETS:
        return load(name, "test")
    if ":" not in name:
        known = ", ".join(DATASETS)
        raise ValueError(f"unknown data {name!r}: use one of {known}, or MODULE:FACTORY")
    found = _made(name)
    pair = tuple(found) if isinstance(found, (tuple, list)) else ()
    if len(pair) != 2 or not all(isinstance(part, Tensor) for part in pair):
        raise ValueError(f"{name} must return two tensors, images and labels")
    return pair


def bars(part: str) -> Progress:
    """A progress bar for one part of a long check."""
    bar = tqdm(desc=part, leave=False)

    def progress(done: int, of: int) -> None:
        bar.total, bar.n = of, done
        bar.refresh()
        if done >= of:
            bar.close()

    return progress


def _made(name: str) -> Any:
    """What ``module:name`` is; a function is called, a torch module is not."""
    place, _, attribute = name.rpartition(":")
    if not place or not attribute:
        raise ValueError(f"{name!r} must read MODULE:FACTORY, such as my_net.py:make")
    try:
        module = _imported(place)
    except ImportError as error:
        raise ValueError(f"{place} cannot be imported: {error}") from error
    if not hasattr(module, attribute):
        raise ValueError(f"{place} has no {attribute!r}")
    found = getattr(module, attribute)
    return found if isinstance(found, nn.Module) or not callable(found) else _own(name, found)


def _own(name: str, function: Callable[[], Any]) -> Any:
    """Call what is the user's own; where it fails, say where."""
    try:
        return function()
    except ImportError:
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        said = f"{type(error).__name__}: {error} ({last.filename}, line {last.lineno})"
        raise ValueError(f"{name} fails: {said}") from error


def _imported(place: str) -> Any:
    path = Path(place)
    sys.path.insert(0, str(path.resolve().parent if path.suffix == ".py" else Path.cwd()))
    if path.suffix != ".py":
        return _own(place, lambda: importlib.import_module(place))
    if not path.is_file():
        raise ImportError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    loader = spec.loader
    try:
        _own(place, lambda: loader.exec_module(module))
    except Exception:
        del sys.modules[path.stem]  # half of a module is none
        raise
    return module
