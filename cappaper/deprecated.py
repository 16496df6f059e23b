"""Names that were renamed: the old one still leads to the new one, for one version."""

import pkgutil
import warnings
from collections.abc import Callable


def renamed(module: str, names: dict[str, str], stacklevel: int = 2) -> Callable[[str], object]:
    """A module's ``__getattr__`` that answers old names with ``module:name``, after a warning."""

    def get(old: str) -> object:
        if old not in names:
            raise AttributeError(f"module {module!r} has no attribute {old!r}")
        new = names[old].replace(":", ".")
        text = f"{module}.{old} is now {new}; the old name goes in the next version"
        warnings.warn(text, DeprecationWarning, stacklevel=stacklevel)
        return pkgutil.resolve_name(names[old])

    return get
