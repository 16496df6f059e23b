"""Names that were renamed: the old one still leads to the new one, for one version."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any


def renamed(module: str, names: dict[str, str]) -> Callable[[str], Any]:
    """A module's ``__getattr__`` that answers old names with the new ones, after a warning.

    >>> import cappaper
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore", DeprecationWarning)
    ...     cappaper.standing is cappaper.is_robust
    True
    """

    def get(old: str) -> Any:
        if old not in names:
            raise AttributeError(f"module {module!r} has no attribute {old!r}")
        new = names[old]
        warnings.warn(
            f"{module}.{old} is now called {module}.{new}; the old name goes in the next version",
            DeprecationWarning,
            stacklevel=2,
        )
        return getattr(importlib.import_module(module), new)

    return get
