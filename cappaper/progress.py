"""Progress of work that takes long: a bar, or a function of the user's."""

from collections.abc import Callable, Iterable, Iterator
from operator import length_hint
from typing import Any

Progress = bool | Callable[[int, int], None]  # True shows a bar; a function gets (done, in all)


def watched(
    items: Iterable[Any], progress: Progress | None, what: str, total: int | None = None
) -> Iterator[Any]:
    """The items; each is reported as done when the next one is asked for."""
    total = length_hint(items) if total is None else total  # 0 if it is not known
    if progress is True:
        from tqdm import tqdm

        items = tqdm(items, what, total or None, leave=False)
    for done, item in enumerate(items, 1):
        yield item
        if callable(progress):
            progress(done, total)
