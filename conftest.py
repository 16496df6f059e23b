"""``pytest --nbval`` compares as tests/nbval.cfg says, wherever it is started from."""

from pathlib import Path

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """An option in pyproject.toml would be relative to the folder that pytest starts in."""
    if getattr(config.option, "nbval_sanitize_with", None) is None:
        config.option.nbval_sanitize_with = str(Path(__file__).parent / "tests" / "nbval.cfg")
