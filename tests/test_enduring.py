"""What a run survives: a dying kernel, a kill, another run, a manifest with a mistake."""

import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cappaper import files
from cappaper.paper import chapters, cli

RUN = [sys.executable, "-m", "cappaper", "reproduce", "--jobs", "1", "--no-build"]


def gone():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def leftovers(folder):
    return [p for p in folder.rglob("*") if "@" in p.name or ".partial" in p.name]


def edit(project, before, after):
    notebook = project / "notebooks" / "small.ipynb"
    notebook.write_text(notebook.read_text().replace(before, after))


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_dying_kernel_costs_its_own_chapter(project, capsys, jobs):
    edit(project, "assert not breaks", "import os; breaks and os._exit(9)  #")
    assert cli.main(["reproduce", "--jobs", jobs]) == 1
    said = capsys.readouterr().err
    assert "fails failed: its kernel died, perhaps for want of memory" in said
    assert "Traceback" not in said
    kept = project / "build" / "quick" / "chapters"
    assert (kept / "works.ipynb").exists() and not (kept / "fails.ipynb").exists()
    assert (kept / "fails.partial.ipynb").exists()


def test_what_a_killed_run_leaves_is_swept_up_by_the_next(project, fresh):
    sleep = "import time; open('asleep', 'w').close(); time.sleep(60)  #"
    edit(project, "assert not breaks", sleep)
    command = [*RUN, "--only", "works"]
    running = subprocess.Popen(command, cwd=project, stdout=-1, stderr=-1)
    while not (project / "asleep").exists() and running.poll() is None:
        time.sleep(0.1)
    os.kill(running.pid, signal.SIGKILL)
    running.communicate()
    assert len(leftovers(project / "build")) == 2  # the page, and the folder of its table
    edit(project, "time.sleep(60)", "None")
    (fresh / "weights").mkdir()
    (fresh / "weights" / f"a.{gone()}@{platform.node()}@.kept").write_text("half")
    assert cli.main(["reproduce", "--only", "works", "--no-build"]) == 0
    assert leftovers(project / "build") == [] and leftovers(fresh) == []


def test_only_what_nobody_writes_any_more_is_swept_up(tmp_path):
    here = platform.node()
    mine, theirs, other = (
        tmp_path / f"a.{os.getpid()}@{here}@.csv",
        tmp_path / f"a.{gone()}@{here}.elsewhere@.csv",
        tmp_path / "a.csv",
    )
    for path in (mine, theirs, other):
        path.write_text("")
    (tmp_path / f"a.{gone()}@{here}@.csv").write_text("")
    files.sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([mine, theirs, other])


def test_half_a_file_never_takes_the_place_of_a_whole_one(tmp_path):
    path = tmp_path / "folder" / "a.txt"
    with files.whole(path) as unfinished:
        unfinished.write_text("old")
    with pytest.raises(OSError, match="full"), files.whole(path) as unfinished:
        unfinished.write_text("ne")
        raise OSError("the disk is full")
    assert path.read_text() == "old" and list(path.parent.iterdir()) == [path]


def test_runs_at_once_wait_for_each_other(project):
    edit(project, "assert not breaks", "import time; time.sleep(1)  #")
    runs = [
        subprocess.Popen([*RUN, "--only", "works"], cwd=project, stdout=-1, stderr=-1, text=True)
        for _ in range(3)
    ]
    said = [run.communicate(timeout=120) for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0], said
    waited = [out for out, _ in said if "waiting for another run that writes to build/quick" in out]
    assert len(waited) == 2 and leftovers(project / "build") == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must be a list of chapters"),
        ("name: works", "must be a list of chapters"),
        ("- [", "is no YAML"),
        ("- works", "a chapter has name, source and title"),
        ("- {name: works, source: small}", "a chapter has name, source and title"),
        ("- {name: a, source: small, title: A, colour: red}", "a chapter has name, source and"),
        ("- {name: a, source: big, title: A}", "a needs notebooks/big.ipynb"),
        (2 * "- {name: a, source: small, title: A}\n", "has two chapters called a"),
    ],
)
def test_a_faulty_manifest_gets_a_sentence(project, capsys, text, says):
    (project / chapters.MANIFEST).write_text(text)
    assert cli.main(["reproduce"]) == 1
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1 and str(chapters.MANIFEST) in said


def test_the_cache_is_where_the_locks_are(fresh):
    with cli._alone(Path.cwd() / "book"):
        assert len(list((fresh / "locks").iterdir())) == 1
