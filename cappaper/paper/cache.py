"""A cache on disk: the same inputs and the same code give the same key, and are computed once."""

import ast
import hashlib
import json
import os
import warnings
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import grimp
import torch
from safetensors.torch import load, save
from torch import Tensor

from cappaper.files import atomic

_PACKAGE = Path(__file__).parents[1]
_IMPORTS = grimp.build_graph("cappaper", cache_dir=None, include_external_packages=True)
# The packages that contain a module, by its name; the standard library is not among them.
_packages = lru_cache(metadata.packages_distributions)
_version = lru_cache(metadata.version)
# Read at import: a later edit changes the files, but not the code that runs.
_SOURCES = {path: path.read_text("utf-8") for path in _PACKAGE.rglob("*.py")}


def root() -> Path:
    """``CAPPAPER_CACHE``, else ``cappaper/results`` in the user's cache folder."""
    default = Path.home() / ".cache" / "cappaper" / "results"
    return Path(os.environ.get("CAPPAPER_CACHE") or default).expanduser()


def code(module: str) -> str:
    """A hash of the code of ``module`` and of all modules that it imports, directly or not.

    Other packages count by their versions. In this one, comments and docstrings do not count. A
    package's ``__init__`` counts only where a name is imported from the package itself.
    """
    parts = []
    for name in sorted(_IMPORTS.find_upstream_modules(module) | {module}):
        if _IMPORTS.is_module_squashed(name):
            parts += [f"{p} {_version(p)}" for p in sorted(_packages().get(name, ()))]
            continue
        path = _PACKAGE.parent.joinpath(*name.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        parts.append(_syntax(_SOURCES[path]))
    return _hash("\n".join(parts).encode())


def place(kind: str, *key: Any) -> Path:
    """The file for the entry of this key (values that JSON can write), in a folder ``kind``."""
    name = _hash(json.dumps([key, torch.__version__]).encode())[:24]
    return root() / kind / f"{name}.kept"


def keep(path: Path, value: dict[str, Any]) -> None:
    """Write tensors as safetensors, or plain values as JSON: reading either runs no code.

    The first line holds the key and a checksum. A reader never sees half a file.
    """
    if all(isinstance(part, Tensor) for part in value.values()):
        kind, content = "tensors", save({key: part.contiguous() for key, part in value.items()})
    else:
        kind, content = "json", json.dumps(value).encode()
    head = f"{path.stem} {_hash(kind.encode() + content)} {kind}\n"
    with atomic(path) as unfinished:
        unfinished.write_bytes(head.encode() + content)


def recall(path: Path) -> Any | None:
    """The value at ``path``, or None. A damaged or foreign entry gives a warning and None."""
    if not path.exists():
        return None
    try:
        head, _, content = path.read_bytes().partition(b"\n")
        key, checksum, kind = head.decode().split(" ")
        if (key, checksum) != (path.stem, _hash(kind.encode() + content)):
            raise ValueError("its key or its checksum is wrong")
        return load(content) if kind == "tensors" else json.loads(content)
    except Exception as error:  # any damage
        warnings.warn(f"ignoring the damaged cache entry {path}: {error}", stacklevel=2)
        return None


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@lru_cache
def _syntax(source: str) -> str:
    """The syntax tree without docstrings; comments are not in it."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = node.body[bool(ast.get_docstring(node)) :]
    return ast.dump(tree)
