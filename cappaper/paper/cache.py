"""A content-addressed cache on disk: what was computed once from the same inputs is not again."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch


def root() -> Path:
    """``CAPPAPER_CACHE``, else ``cappaper/results`` in the user's cache folder."""
    folder = os.environ.get("CAPPAPER_CACHE") or Path.home() / ".cache" / "cappaper" / "results"
    return Path(folder).expanduser()


def place(kind: str, *key: Any) -> Path:
    """Where the entry of this key, anything that JSON can write, belongs: in a folder ``kind``."""
    content = json.dumps([key, torch.__version__], sort_keys=True)
    return root() / kind / f"{hashlib.sha256(content.encode()).hexdigest()[:24]}.pt"


def recall(path: Path) -> Any | None:
    """What was kept at ``path``, or None. A damaged entry is none, after a warning."""
    if not path.exists():
        return None
    try:
        with zipfile.ZipFile(path) as archive:  # torch itself reads past a flipped byte
            if broken := archive.testzip():
                raise ValueError(f"{broken} does not fit its checksum")
        return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # whatever the damage
        warnings.warn(f"ignoring the damaged cache entry {path}: {error}", stacklevel=2)
        return None


def keep(path: Path, value: Any) -> None:
    """Keep tensors and plain values at ``path``; a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}")
    torch.save(value, unfinished)
    unfinished.replace(path)
