"""Calls with an argument or two that make no sense: each gets a sentence, or a right answer."""

from __future__ import annotations

import random
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import cappaper
from tests.trust import nonsense

PACKAGE = Path(cappaper.__file__).parent
PATIENCE = 60  # seconds after which a call hangs


@dataclass(frozen=True)
class Subject:
    """A public function, a call of it that works, and what is right of its result."""

    name: str
    call: Callable[..., Any]
    works: dict[str, nonsense.Make]
    pools: dict[str, list[nonsense.Make]]
    right: Callable[[dict[str, Any], Any], bool]


@dataclass
class Verdict:
    """How one call ended: ``wrong`` is None where it ended well."""

    call: str
    wrong: str | None
    refused: bool


def trial(draw: random.Random, subjects: list[Subject]) -> Verdict:
    """Call a random function with one or two arguments replaced by nonsense."""
    subject = draw.choice(subjects)
    given = {name: make() for name, make in subject.works.items()}
    for name in draw.sample(sorted(subject.pools), min(len(subject.pools), draw.choice([1, 1, 2]))):
        given[name] = draw.choice(subject.pools[name])()
    said = f"{subject.name}({', '.join(f'{k}={_short(v)}' for k, v in given.items())})"
    before = _state(given.get("model"))
    try:
        with _patience(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = subject.call(**given)
            wrong = None if subject.right(given, result) else f"gave {_short(result)}"
        refused = False
    except Exception as error:
        wrong, refused = _complaint(error), True
    after = _state(given.get("model"))
    moves = subject.name in ("fit", "surrogate_gradient")  # what is called inside may move it
    if wrong is None and not moves and not _same(before, after):
        wrong = "left the model changed"
    return Verdict(said, wrong, refused)


def _complaint(error: Exception) -> str | None:
    """What is wrong with how a call was refused: no sentence of ours, or not one sentence."""
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1]
    ours = Path(last.filename).is_relative_to(PACKAGE) and (last.line or "").startswith("raise")
    users = any(Path(frame.filename).name == "nonsense.py" for frame in frames)
    told = " ".join(str(error).split())
    if isinstance(error, TimeoutError):
        return "hangs"
    if (users or " argument" in told) and not ours:
        return None  # the user's own code failed, and says so itself
    if not ours:
        where = f"{Path(last.filename).name}:{last.lineno}"
        return f"bare {type(error).__name__} at {where}: {told[:120]}"
    if not isinstance(error, (ValueError, TypeError, FileNotFoundError)):
        return f"{type(error).__name__}: {told[:120]}"
    if len(told) < 20 or len(told) > 500:
        return f"no sentence: {told[:120]}"
    return None


def _state(model: Any) -> Any:
    if not isinstance(model, nn.Module) or any(map(nn.parameter.is_lazy, model.parameters())):
        return None  # a lazy model comes to be in its first call
    flags = [(m.training, len(m._forward_hooks)) for m in model.modules()]
    held = [(p.requires_grad, p.grad is None) for p in model.parameters()]
    return flags, held, {name: value.clone() for name, value in model.state_dict().items()}


def _same(before: Any, after: Any) -> bool:
    if before is None:
        return after is None
    same = before[:2] == after[:2] and before[2].keys() == after[2].keys()
    return same and all(
        v.is_meta or torch.equal(v.nan_to_num(), after[2][k].nan_to_num())
        for k, v in before[2].items()
    )


def _short(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    if isinstance(value, nn.Module):
        return type(value).__name__
    return " ".join(repr(value).split())[:60]


@contextmanager
def _patience() -> Iterator[None]:
    def give_up(*_: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
