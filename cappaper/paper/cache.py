"""A content-addressed cache on disk: what was computed once from the same inputs is not again.

An entry is a line of JSON, its own key and the SHA-256 of all that follows, and then weights as
safetensors, or plain values as JSON: nothing that reading could run.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors.torch import load, save
from torch import Tensor

from cappaper.files import whole


def root() -> Path:
    """``CAPPAPER_CACHE``, else ``cappaper/results`` in the user's cache folder."""
    folder = os.environ.get("CAPPAPER_CACHE") or Path.home() / ".cache" / "cappaper" / "results"
    return Path(folder).expanduser()


def place(kind: str, *key: Any) -> Path:
    """Where the entry of this key, anything that JSON can write, belongs: in a folder ``kind``."""
    content = json.dumps([key, torch.__version__], sort_keys=True)
    return root() / kind / f"{hashlib.sha256(content.encode()).hexdigest()[:24]}.kept"


def recall(path: Path) -> Any | None:
    """What was kept at ``path``, or None. A damaged or foreign entry is none, after a warning."""
    if not path.exists():
        return None
    try:
        head, _, content = path.read_bytes().partition(b"\n")
        said = json.loads(head)
        if said["key"] != path.stem:
            raise ValueError("it was kept under another key")
        if said["sha256"] != hashlib.sha256(content).hexdigest():
            raise ValueError("its content does not fit its checksum")
        return load(content) if said["tensors"] else json.loads(content)
    except Exception as error:  # whatever the damage
        warnings.warn(f"ignoring the damaged cache entry {path}: {error}", stacklevel=2)
        return None


def keep_first(path: Path, value: dict[str, Any]) -> dict[str, Any]:
    """Keep it unless another run has been quicker; what is there then.

    The same network trained in other company has other weights, by rounding: what is asked of it
    must all be asked of the same ones.
    """
    lock = FileLock(root() / "locks" / "first")
    Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
    with lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a damaged entry has been named when it was asked for
        there = recall(path)
        if there is None:
            keep(path, value)
    return value if there is None else there


def keep(path: Path, value: dict[str, Any]) -> None:
    """Keep tensors, or plain values, at ``path``; a reader never sees half a file."""
    tensors = all(isinstance(part, Tensor) for part in value.values())
    if tensors:
        content = save({name: part.contiguous() for name, part in value.items()})
    else:
        content = json.dumps(value).encode()
    said = {"key": path.stem, "sha256": hashlib.sha256(content).hexdigest(), "tensors": tensors}
    with whole(path) as unfinished:
        unfinished.write_bytes(json.dumps(said).encode() + b"\n" + content)
