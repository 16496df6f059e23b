"""Runs that are stopped, killed, or not alone, and a manifest with a mistake."""

import os
import platform
import signal
import subprocess
import sys
import time

import pytest

from cappaper import files
from cappaper.paper import chapters, cli
from tests.test_chapters import edit


def start(project):
    options = ["--jobs", "1", "--no-build", "--only", "works"]
    command = [sys.executable, "-m", "cappaper", "reproduce", *options]
    return subprocess.Popen(command, cwd=project, stdout=-1, stderr=-1, text=True)


def ended():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def leftovers(folder):
    return [p for p in folder.rglob("*") if "@" in p.name or ".partial" in p.name]


def asleep(project):
    """A run whose chapter sleeps."""
    sleep = "import time; open('asleep', 'w').close(); time.sleep(60)  #"
    edit(project, "assert not breaks", sleep)
    run = start(project)
    while not (project / "asleep").exists() and run.poll() is None:
        time.sleep(0.1)
    return run


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_prints_that_it_can_resume(project, sent):
    run = asleep(project)
    run.send_signal(sent)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 130
    # Kernels of older versions print a line of their own after it.
    line = "cappaper: stopped; what was trained is kept, so a new run resumes"
    assert line in errors.splitlines()


def test_the_next_run_removes_what_a_killed_run_left(project, fresh):
    run = asleep(project)
    run.kill()
    run.communicate()
    assert len(leftovers(project / "build")) == 2  # the page, and the folder of its table
    edit(project, "time.sleep(60)", "None")
    (fresh / "weights" / f"a.kept.{ended()}@{platform.node()}@").mkdir(parents=True)
    assert cli.main(["reproduce", "--only", "works", "--no-build"]) == 0
    assert leftovers(project / "build") == [] and leftovers(fresh) == []


def test_files_of_running_processes_and_other_machines_stay(tmp_path):
    here = platform.node()
    names = ["a.csv", f"a.csv.{os.getpid()}@{here}@", f"a.csv.{ended()}@{here}.elsewhere@"]
    for name in (*names, f"a.csv.{ended()}@{here}@"):
        (tmp_path / name).mkdir()
    files.sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_only_one_run_at_a_time_writes_to_a_book(project, fresh):
    edit(project, "assert not breaks", "import time; time.sleep(1)  #")
    runs = [start(project) for _ in range(2)]
    printed = [run.communicate(timeout=120) for run in runs]
    assert [run.returncode for run in runs] == [0] * 2, printed
    waiting = "waiting for another run that writes to build/quick"
    assert sum(waiting in out for out, _ in printed) == 1
    assert leftovers(project / "build") == [] and len(list((fresh / "locks").iterdir())) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- {name: a, source: small, title: A, colour: red}", "argument 'colour'"),
        ("- {name: a, source: big, title: A}", "a needs notebooks/big.ipynb"),
        (2 * "- {name: a, source: small, title: A}\n", "has two chapters called a"),
    ],
)
def test_a_faulty_manifest_gets_a_sentence(project, capsys, text, message):
    (project / chapters.MANIFEST).write_text(text)
    assert cli.main(["reproduce"]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
