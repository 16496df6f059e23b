"""A content-addressed cache on disk: what was computed once from the same inputs is not again."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import json
import os
import warnings
from pathlib import Path
from typing import Any

import torch

# The modules whose code decides what a trained network, and what an attack's outcome is.
_WEIGHTS = (
    "activations",
    "attacks.balls",
    "models",
    "population",
    "data",
    "attacks.surrogate",
    "attacks.gradient",
    "training",
    "paper.specs",
)
_MEASURES = (*_WEIGHTS, "attacks.carlini_wagner", "evaluation", "inspection", "paper.measures")
_EVIDENCE = (
    *_MEASURES,
    "attacks.autoattack",
    "certificates.bounds",
    "certificates.exact",
    "masking",
    "paper.evidence",
)
_DECISIVE = {"weights": _WEIGHTS, "measures": _MEASURES, "evidence": _EVIDENCE}


def cache_root() -> Path:
    """``CAPPAPER_CACHE``, else ``cappaper/results`` in the user's cache folder."""
    folder = os.environ.get("CAPPAPER_CACHE") or Path.home() / ".cache" / "cappaper" / "results"
    return Path(folder).expanduser()


def find(kind: str, key: Any) -> Any | None:
    """What was stored under ``key`` (anything JSON can write), or None."""
    path = _path(kind, key)
    if not path.exists():
        return None
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # a damaged entry, whatever its damage, is computed again
        warnings.warn(f"ignoring the damaged cache entry {path}: {error}", stacklevel=2)
        return None


def store(kind: str, key: Any, value: Any) -> None:
    """Store tensors and plain values under ``key``; a reader never sees half a file.

    ``kind`` is ``"weights"``, ``"measures"`` or ``"evidence"``.
    """
    path = _path(kind, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}")
    torch.save(value, unfinished)
    unfinished.replace(path)


def _path(kind: str, key: Any) -> Path:
    content = json.dumps([key, _code_digest(kind), torch.__version__], sort_keys=True)
    return cache_root() / kind / f"{hashlib.sha256(content.encode()).hexdigest()[:24]}.pt"


@functools.cache
def _code_digest(kind: str) -> str:
    """Of the decisive modules' code, without comments and docstrings, which decide nothing."""
    digest = hashlib.sha256()
    for name in _DECISIVE[kind]:
        spec = importlib.util.find_spec(f"cappaper.{name}")
        assert spec is not None and spec.origin is not None
        tree = ast.parse(Path(spec.origin).read_text())
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list):
                node.body = [s for s in body if not _is_text(s)]  # type: ignore[attr-defined]
        digest.update(ast.dump(tree).encode())
    return digest.hexdigest()


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
