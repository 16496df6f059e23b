"""Runs that are stopped, killed, or not alone, and a manifest with a mistake."""

import signal
import time

import pytest
from filelock import FileLock, Timeout

from cappaper.paper import chapters, cli
from tests.test_chapters import edit
from tests.trust.project import make, start
from tests.trust.runs import left_over, table, undisturbed


def wait(run, folder, pattern):
    while run.poll() is None and not any(folder.glob(pattern)):
        time.sleep(0.1)


ASLEEP = "open('asleep', 'w').close(); import time; time.sleep(60); "


def test_a_run_that_is_killed_and_then_stopped_resumes_to_the_same_table(tmp_path):
    run = start(make(tmp_path))
    wait(run, tmp_path, "cache/weights/*.kept")  # a network is trained, and more are not
    run.kill()
    run.communicate()
    assert len(left_over(tmp_path)) == 2  # the page, and the folder of its table
    (tmp_path / "build" / "quick" / "results" / "a.partial" / "b.partial").mkdir(parents=True)
    edit(tmp_path, "paper.publish", ASLEEP + "paper.publish")
    run = start(tmp_path)
    wait(run, tmp_path, "asleep")
    run.send_signal(signal.SIGTERM)
    said, _ = run.communicate(timeout=60)
    # Kernels of older versions print a line of their own after it.
    line = "cappaper: stopped; what was trained is kept, so a new run resumes"
    assert run.returncode == 130 and line in said.splitlines(), said
    edit(tmp_path, ASLEEP, "")
    assert table(tmp_path) == undisturbed() and not left_over(tmp_path)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_background_job_can_be_stopped(project, monkeypatch, capsys, sent):
    before = signal.signal(sent, signal.SIG_IGN)  # as a shell starts it
    monkeypatch.setattr(chapters, "execute", lambda *given: signal.raise_signal(sent))
    assert cli.main(["reproduce", "--only", "works", "--jobs", "1"]) == 130
    signal.signal(sent, before)
    assert "stopped" in capsys.readouterr().err


def test_only_one_run_at_a_time_writes_to_a_book(project, fresh, monkeypatch):
    first, said = chapters._lock(project / "build" / "quick").lock, []

    def say(text, **given):
        said.append(text)
        if "waiting" in text:
            first.release()

    def execute(*given):
        said.append("at work")
        with pytest.raises(Timeout):
            FileLock(first.lock_file).acquire(timeout=0)

    monkeypatch.setattr(chapters, "print", say, raising=False)
    monkeypatch.setattr(chapters, "execute", execute)
    assert cli.main(["reproduce", "--only", "works", "--jobs", "1", "--no-build"]) == 0
    assert said[0] == "waiting for another run that writes to build/quick" and "at work" in said
    FileLock(first.lock_file).acquire(timeout=0).lock.release()
    assert (project / "build" / "quick.lock").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- {name: a, source: small, title: A, colour: red}", "argument 'colour'"),
        ("- {name: a, source: big, title: A}", "a needs notebooks/big.ipynb"),
        (2 * "- {name: a, source: small, title: A}\n", "has two chapters called a"),
        ("- {name: ../../outside, source: small, title: A}", "is not a name"),
        ("- {name: '', source: small, title: A}", "is not a name"),
        ("- {name: a, source: ../notebooks/small, title: A}", "is not a name"),
        ("- {name: a, source: small, title: A, parameters: {a = 1; b: 2}}", "is not a name"),
        ("- {name: a, source: small, title: A, parameters: {3: 2}}", "is not a name"),
    ],
)
def test_a_faulty_manifest_gets_a_sentence(project, capsys, text, message):
    (project / chapters.MANIFEST).write_text(text)
    assert cli.main(["reproduce"]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
