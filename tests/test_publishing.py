"""Tables on disk, their provenance, and means over seeds."""

import math
import re
import subprocess

import pandas as pd
import pytest
import torch

from cappaper import paper
from cappaper.paper import tables
from cappaper.paper.machines import Machine
from cappaper.paper.publishing import git_commit
from tests.test_runner import TINY, tiny


def test_a_table_survives_the_disk_with_its_provenance(fresh, tmp_path):
    table = tiny()
    paper.publish(table, TINY, Machine(), "")
    assert list(tmp_path.rglob("*.csv")) == []
    place = str(tmp_path / "some" / "table")
    paper.publish(table, TINY, Machine(), place, cycle=0.4, sharpness=None)
    back = tables.read(tmp_path / "some" / "table.csv")
    pd.testing.assert_frame_equal(back, table, rtol=1e-5, check_dtype=False)
    origin = back.attrs["provenance"]
    assert origin["profile"] == "quick" and origin["torch"] == torch.__version__
    assert origin["cycle"] == "0.4" and "sharpness" not in origin  # a chapter's own
    for key in ("seeds", "device", "dataset_checksum", "git_commit", "seconds", "python"):
        assert origin[key], key


def test_a_table_keeps_every_cell_and_every_group(tmp_path):
    table = pd.DataFrame({"name": ["see #3", "b"], "count": [3, 4], "share": [math.inf, math.nan]})
    tables.save(table, tmp_path / "a.csv", {"origin": "# here"})
    pd.testing.assert_frame_equal(tables.read(tmp_path / "a.csv"), table)
    assert [len(rows) for _, rows in tables.groups(table, "share")] == [1, 1]
    assert "| see #3 | 3 | inf |" in tables.markdown_table(table.set_index("name"))


def test_a_commit_is_dirty_where_code_or_a_notebook_is_edited(tmp_path):
    def git(*arguments):
        named = ["-c", "user.name=n", "-c", "user.email=e"]
        subprocess.run(["git", *named, *arguments], cwd=tmp_path, check=True, capture_output=True)

    names = ("cappaper/paper/publishing.py", "notebooks/a.ipynb", "book/results/a.csv")
    paths = module, notebook, result = [tmp_path / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True)
        path.write_text("old")
    assert git_commit(tmp_path) == "unknown"
    for arguments in (["init"], ["add", "-A"], ["commit", "-m", "first"]):
        git(*arguments)
    result.write_text("new")
    clean = git_commit(tmp_path)
    assert re.fullmatch("[0-9a-f]{12}", clean)
    for path in (module, notebook):
        path.write_text("new")
        assert git_commit(tmp_path) == f"{clean}-dirty"
        path.write_text("old")
    # A copy of the package that another project has committed.
    copy = tmp_path / "vendored" / "cappaper" / "paper"
    copy.mkdir(parents=True)
    (copy / "publishing.py").write_text("old")
    git("add", "-A")
    git("commit", "-m", "second")
    assert git_commit(tmp_path) != "unknown" == git_commit(tmp_path / "vendored")


def test_means_and_spreads_over_seeds():
    table = pd.DataFrame({"beta": [1, 1, 2, 2], "value": [0.0, 1.0, 3.0, 3.0]})
    summary = tables.over_seeds(table, ["beta"], ["value"])
    assert summary["value"].tolist() == [0.5, 3.0] and summary["seeds"].tolist() == [2, 2]
    assert summary["value_spread"].tolist() == pytest.approx([0.5**0.5, 0.0])
