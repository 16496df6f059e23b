"""Processes, threads and devices."""

import math
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from cappaper import paper
from cappaper.paper import chapters, cli, experiment, machines, observers, runner
from cappaper.paper.machines import Machine
from tests.test_runner import TINY


def test_processes_side_by_side_give_the_same_table(monkeypatch, tmp_path):
    tables, companies, real = [], [], runner.side_by_side

    def watching(function, calls, jobs):
        firsts = [list(c[0]) if isinstance(c[0], dict) else c[0] for c in calls if c and c[0]]
        companies.append((function.__name__, jobs, firsts))
        return real(function, calls, jobs)

    monkeypatch.setattr(runner, "side_by_side", watching)
    for jobs in (1, 2):
        monkeypatch.setenv("CAPPAPER_CACHE", str(tmp_path / str(jobs)))
        specs = paper.sweep(TINY, betas=[0.1, 0.5, math.inf], seeds=[0, 1, 2])
        specs += paper.sweep(TINY, betas=[0.1], seeds=[0], architecture="convnet")
        machine = Machine("cpu", jobs)
        tables.append(paper.run(specs, paper.PGD(steps=3), [0.1], limit=60, machine=machine))
    one, two = (table.drop(columns="seconds") for table in tables)
    pd.testing.assert_frame_equal(one, two, atol=0.05)
    trainings = [(jobs, groups) for name, jobs, groups in companies if name == "_train"]
    assert [jobs for jobs, _ in trainings] == [1, 2]
    assert trainings[0][1] == trainings[1][1]  # who trains with whom decides how numbers round


def test_training_and_judging_keep_to_one_thread(fresh, monkeypatch):
    """However many processes there are, sums are taken in one order."""
    seen, real = [], experiment.fit

    def fit(*args, **kwargs):
        seen.append(torch.get_num_threads())
        return real(*args, **kwargs)

    def rows(self, model, test, seed, epsilons):
        seen.append(torch.get_num_threads())
        return [{}]

    monkeypatch.setattr(experiment, "fit", fit)
    monkeypatch.setattr(observers.Signals, "rows", rows)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        paper.run(paper.sweep(TINY, betas=[0.1], seeds=[0]), paper.Signals(), limit=5)
        assert seen == [1, 1] and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_cuda_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert paper.machine("auto", 2) == Machine("cpu", 2)
    with pytest.raises(ValueError, match="torch sees no CUDA device"):
        paper.machine("cuda")


def test_a_gpu_is_fed_by_one_process(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert paper.machine("auto", 4) == paper.machine("cuda", 4) == Machine("cuda", 1)


def test_a_cluster_is_an_address(monkeypatch):
    here = paper.machine("auto", "tcp://here:8786")
    assert here == Machine("cpu", "tcp://here:8786") and "here" not in str(here)
    for device, jobs, says in [
        ("cpu", "here", "such as tcp://host:8786, got 'here'"),
        ("cuda", "tcp://here:8786", "use device 'cpu'"),
    ]:
        with pytest.raises(ValueError, match=says):
            paper.machine(device, jobs)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ValueError, match=r'pip install "cappaper\[cluster\]"'):
        list(machines.side_by_side(len, [("a",)], here.jobs))


def test_a_scheduler_that_is_not_there_gets_a_sentence(project, capsys):
    at = ["--scheduler", "tcp://127.0.0.1:1"]
    assert cli.main(["reproduce", *at, "--jobs", "2"]) == 1
    assert "a cluster has its own workers" in capsys.readouterr().err
    with pytest.raises(OSError, match="no Dask scheduler answers at tcp:"):
        list(machines.side_by_side(len, [("a",)], at[1]))


def test_a_notebooks_import_leaves_the_books_builders_alone():
    code = (
        "import sys; from cappaper import paper;"
        "print(sorted({'papermill', 'jupyter_book', 'sphinx', 'myst_nb'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_side_by_side_the_longest_chapters_begin(tmp_path):
    root = Path(__file__).parents[1]
    listed = chapters.manifest(root)
    run_in_turn = chapters.longest_first(listed, root)
    assert sorted(map(str, run_in_turn)) == sorted(map(str, listed)) and run_in_turn != listed
    tables = tmp_path / "book" / "results"
    tables.mkdir(parents=True)
    few = [chapters.Chapter(name, "source", "Title") for name in ("none", "short", "long", "bare")]
    (tables / "short.csv").write_text("# a: b\nseconds\n1\n2\n")
    (tables / "long.csv").write_text("# a: b\nseconds\n2\n2\n")
    (tables / "bare.csv").write_text("# a: b\nbeta\n9\n")
    found = [chapter.name for chapter in chapters.longest_first(few, tmp_path)]
    assert found == ["long", "short", "none", "bare"]
