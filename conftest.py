"""For the tests and for ``pytest --nbval``: the order of their files, and what nbval compares."""

from pathlib import Path

import pytest

import tests  # noqa: F401 (it sets the number of threads)

# The files that take longest. Begun last, they would leave the other processes idle at the end.
LONGEST = "attack-budget how-robust deeper-networks adversarial-training carlini-wagner"
LONGEST += " what-survives test_built_pages test_enduring test_notebooks test_lab test_report"


def pytest_configure(config: pytest.Config) -> None:
    """An option in pyproject.toml would be relative to the folder that pytest starts in."""
    if getattr(config.option, "nbval_sanitize_with", None) is None:
        config.option.nbval_sanitize_with = str(Path(__file__).parent / "tests" / "nbval.cfg")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first, in this order; the others keep theirs."""
    first = {name: place for place, name in enumerate(LONGEST.split())}
    items.sort(key=lambda item: first.get(item.path.stem, len(first)))
