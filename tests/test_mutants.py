import tempfile
from pathlib import Path

import pytest

from tests.mutants.drawn import drawn
from tests.mutants.tried import tried

CODE = '''from __future__ import annotations


def capped(z: int | None, beta: int = 2) -> int | None:
    """At most beta."""
    if z > beta:
        return beta
    return z
'''
PROFILE = 'import hypothesis\nhypothesis.settings.register_profile("first")\n'


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A project of one function; its tests are still to be written."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "toy.py").write_text(CODE)
    (project / "conftest.py").write_text(PROFILE)
    monkeypatch.chdir(project)
    return project


def noticed(toy, test):
    (toy / "test_toy.py").write_text(f"from toy import capped\ndef test(): {test}\n")
    copies = Path(tempfile.mkdtemp(dir=toy.parent))
    found = tried(drawn(("toy.py",), 9, seed=0), ["test_toy.py"], toy, copies, jobs=2)
    return [result.is_killed for _, result in found]


def test_a_good_test_notices_mutants_and_an_idle_one_none(toy):
    good = noticed(toy, "assert [capped(z) for z in (1, 2, 3)] == [1, 2, 2]")
    assert len(good) > 1 and sum(good) >= len(good) - 1  # > and >= are the same function here
    assert not any(noticed(toy, "capped(1)"))


def test_the_same_seed_draws_the_same_mutants_and_type_hints_are_none(toy):
    mutations = [[item.mutations[0] for item in drawn(("toy.py",), 9, 0)] for _ in range(2)]
    first, second = ([(m.operator_name, m.start_pos) for m in drawing] for drawing in mutations)
    assert first == second and {row for _, (row, _) in first} <= {4, 6}
    assert all("BitOr" not in operator for operator, _ in first)


def test_tests_that_fail_without_a_mutant_judge_none(toy):
    with pytest.raises(RuntimeError, match="without any mutant"):
        noticed(toy, "assert False")
