"""Tables on disk, their provenance, and means over seeds."""

import json
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
    place = str(tmp_path / "some" / "table")
    paper.publish(table, TINY, Machine(), place, cycle=0.4, sharpness=None)
    back = tables.read(tmp_path / "some" / "table.csv")
    pd.testing.assert_frame_equal(back, table, rtol=1e-5, check_dtype=False)
    origin = back.attrs["provenance"]
    assert origin["profile"] == "quick" and origin["torch"] == torch.__version__
    assert origin["cycle"] == "0.4" and "sharpness" not in origin  # a chapter's own
    for key in ("seeds", "device", "dataset_checksum", "git_commit", "seconds", "python"):
        assert origin[key], key


def test_a_commit_is_dirty_where_code_is_edited_and_not_where_a_notebook_ran(tmp_path):
    def git(*arguments):
        named = ["-c", "user.name=n", "-c", "user.email=e"]
        subprocess.run(["git", *named, *arguments], cwd=tmp_path, check=True, capture_output=True)

    module, notebook = tmp_path / "cappaper/paper/publishing.py", tmp_path / "notebooks/a.ipynb"
    for path in (module, notebook):
        path.parent.mkdir(parents=True)

    def write(source, outputs):
        cell = {"cell_type": "code", "source": [source], "outputs": outputs}
        notebook.write_text(json.dumps({"cells": [cell]}))

    assert git_commit(tmp_path) == "unknown"
    git("init")
    module.write_text("a = 1\n")
    write("1 + 1", [])
    git("add", "-A")
    git("commit", "-m", "first")
    clean = git_commit(tmp_path)
    assert re.fullmatch("[0-9a-f]{12}", clean)
    write("1 + 1", [{"text": "2"}])
    assert git_commit(tmp_path) == clean
    write("1 + 2", [])
    assert git_commit(tmp_path) == f"{clean}-dirty"
    notebook.unlink()
    assert git_commit(tmp_path) == f"{clean}-dirty"
    git("checkout", "notebooks")
    module.write_text("a = 2\n")
    assert git_commit(tmp_path) == f"{clean}-dirty"


def test_nothing_is_written_where_nothing_is_asked(tmp_path, monkeypatch, fresh):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*.csv"))
    paper.publish(tiny(), TINY, Machine(), "")
    assert sorted(tmp_path.rglob("*.csv")) == before


def test_over_seeds():
    table = pd.DataFrame({"beta": [1, 1, 2, 2], "value": [0.0, 1.0, 3.0, 3.0]})
    summary = tables.over_seeds(table, ["beta"], ["value"])
    assert summary["value"].tolist() == [0.5, 3.0] and summary["seeds"].tolist() == [2, 2]
    assert summary["value_spread"].tolist() == pytest.approx([0.5**0.5, 0.0])
