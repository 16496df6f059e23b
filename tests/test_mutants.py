"""Mutants of a project of one function."""

import pytest

from tests.conftest import ROOT
from tests.mutants import TARGETS, drawn, files_of, results_of

CODE = """from __future__ import annotations
def capped(z: int | None, beta: int = 2) -> int | None:
    if z > beta:
        return beta
    return z
"""
PROFILE = 'import hypothesis\nhypothesis.settings.register_profile("first")\n'


@pytest.fixture
def noticed(tmp_path, monkeypatch):
    """Which of nine mutants a test notices."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.py").write_text(CODE)
    (tmp_path / "conftest.py").write_text(PROFILE)

    def noticed(test):
        (tmp_path / "test_toy.py").write_text(f"from toy import capped\ndef test(): {test}\n")
        results = results_of(drawn(["toy.py"], 9, seed=0), ["test_toy.py"], tmp_path, jobs=2)
        return [result.is_killed for result in results]

    return noticed


def test_a_good_test_notices_mutants_and_one_without_an_assertion_notices_none(noticed):
    good = noticed("assert [capped(z) for z in (1, 2, 3)] == [1, 2, 2]")
    assert len(good) > 1 and sum(good) >= len(good) - 1  # > and >= are the same function here
    assert not any(noticed("capped(1)"))
    with pytest.raises(RuntimeError, match="without any mutant"):
        noticed("assert False")


def test_a_seed_draws_the_same_mutants_and_never_type_hints(noticed):
    first, second = (drawn(["toy.py"], 9, seed=0) for _ in range(2))
    assert first == second and {mutant.start_pos[0] for mutant in first} <= {2, 3}


def test_every_part_names_files_that_exist():
    paths = [path for part in TARGETS for paths in files_of(part) for path in paths]
    assert all((ROOT / path).exists() for path in paths)
