"""The parameters of the notebooks: checked by name, type and range, here and nowhere else."""

import ast
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from cappaper import checks
from cappaper.attacks.strongest import PARTS
from cappaper.paper.experiment import PROFILES


class _Kind(NamedTuple):
    words: str
    types: tuple[type, ...]
    holds: Callable[[Any], bool] = lambda value: True

    def takes(self, value: Any) -> bool:
        """Whether a value is of this kind; True is not a number, although Python counts it as 1."""
        flag = isinstance(value, bool) and bool not in self.types
        return isinstance(value, self.types) and not flag and self.holds(value)


_NUMBER, _DEVICES = (int, float), ("auto", "cpu", "cuda")
_COUNT = _Kind("a whole number of at least 1", (int,), lambda v: v >= 1)
_KINDS = {
    "jobs hidden epochs effort images steps looks width depths": _COUNT,
    "seeds": _Kind("a whole number", (int,)),
    "beta betas trained_betas longer_betas": _Kind(
        "a number above 0, .inf for ReLU", _NUMBER, lambda v: v > 0
    ),
    "lr sharpness time_limit factors constants start twin": _Kind(
        "a finite number above 0", _NUMBER, lambda v: 0 < v < math.inf
    ),
    "eps epsilons small_eps standard_eps training_eps cycle": _Kind(
        "a number from 0 to 1", _NUMBER, lambda v: 0 <= v <= 1
    ),
    "architectures": _Kind("a list of counts", (list,), lambda v: v and all(map(_COUNT.takes, v))),
    "reverse": _Kind("true or false", (bool,)),
    "save_to chapter": _Kind("text", (str,)),
    "profile": _Kind(f"one of {', '.join(PROFILES)}", (str,), lambda v: v in PROFILES),
    "device": _Kind(f"one of {', '.join(_DEVICES)}", (str,), lambda v: v in _DEVICES),
    "parts": _Kind(f"one of {', '.join(PARTS)}", (str,), lambda v: v in PARTS),
}
_KIND_OF = {name: kind for names, kind in _KINDS.items() for name in names.split()}
# Parameters that are lists, although their default is None.
_LISTS = "hidden betas trained_betas seeds epsilons constants factors depths parts architectures"
_TEXT = (
    ": papermill's -p passes lists and false as text, and YAML reads 5e-2 and inf as text;"
    " write -y '{reverse: false, betas: [0.05, .inf]}'"
)


def check_parameters(namespace: dict[str, Any]) -> None:
    """Check a notebook's parameters; the first cell after them calls it with ``globals()``.

    A name that the notebook's cell of parameters lacks, a value of another type than it wants, or
    one out of its range raises a ValueError that says what is allowed. A parameter whose default is
    None may be None.

    >>> cell = "betas = None\\nsave_to = ''"
    >>> check_parameters({"In": [cell], "betas": [0.1, 1.0], "save_to": "table"})
    """
    ran = namespace.get("In", [])  # IPython's record of the cells; a script has none
    cells = [_assigned(cell) for cell in ran]
    injected = [i for i, cell in enumerate(ran) if cell.startswith("# Parameters\n")]
    given = cells.pop(injected[-1]) if injected else {}
    declared = next((cell for cell in reversed(cells) if "save_to" in cell), {})
    for name in given:
        checks.one_of(name, declared, "parameter")
    for name, default in declared.items():
        if not (namespace[name] is None and default == "None"):
            _check(name, namespace[name], default.startswith("[") or name in _LISTS.split())


def _check(name: str, value: Any, is_list: bool) -> None:
    kind = _KIND_OF[name]
    entries = checks.entries(value) if is_list else (value,)
    if not entries or not all(map(kind.takes, entries)):
        wanted = f"a list of one or more values, each {kind.words}" if is_list else kind.words
        text = str not in kind.types and any(isinstance(v, str) for v in entries or (value,))
        hint = _TEXT if text else ""
        raise ValueError(f"parameter {name} must be {wanted}, got {checks.shown(value)}{hint}")
    if name == "betas" and all(map(math.isinf, entries)):
        raise ValueError("parameter betas must hold a cap, not ReLU (.inf) alone")


def _assigned(cell: str) -> dict[str, str]:
    """The names that a cell assigns to, each with the code of its value."""
    try:
        lines = ast.parse(cell).body
    except SyntaxError:  # a command of IPython's
        return {}
    pairs = [(line.targets[0], line.value) for line in lines if isinstance(line, ast.Assign)]
    return {ast.unparse(target): ast.unparse(value) for target, value in pairs}
