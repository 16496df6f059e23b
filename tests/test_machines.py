"""Processes, threads, devices and clusters."""

import sys

import distributed
import pandas as pd
import pytest
import torch

from cappaper import paper
from cappaper.paper import chapters, cli, experiment, machines, observers
from cappaper.paper.machines import Machine
from tests.test_runner import SPECS, TINY, tiny


def test_the_number_of_processes_changes_no_result(fresh, monkeypatch):
    specs = [*SPECS, *paper.sweep(TINY, betas=[0.1], seeds=[0], architecture="convnet")]
    one = tiny(specs=specs, machine=Machine("cpu", 1)).drop(columns="seconds")
    monkeypatch.setenv("CAPPAPER_CACHE", str(fresh / "two"))
    two = tiny(specs=specs, machine=Machine("cpu", 2)).drop(columns="seconds")
    pd.testing.assert_frame_equal(one, two, check_exact=True)


def test_training_and_judging_take_one_thread(fresh, monkeypatch):
    threads = []

    def fit(model, *args, epochs, progress, **kwargs):
        threads.append(torch.get_num_threads())
        progress(epochs, epochs)
        return model

    def rows(*args):
        threads.append(torch.get_num_threads())
        return [{}]

    monkeypatch.setattr(experiment, "fit", fit)
    monkeypatch.setattr(observers.Signals, "rows", rows)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        tiny(paper.Signals(), specs=SPECS[:1])
        assert threads == [1, 1] and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("watched", [True, False])
def test_a_progress_bar_is_for_a_terminal(monkeypatch, capsys, watched):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: watched, raising=False)
    assert list(machines.side_by_side(len, [("ab",)], 1, "training")) == [(0, 2)]
    assert ("training" in capsys.readouterr().err) is watched


def test_a_device_is_chosen_or_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert paper.machine("auto", 2) == Machine("cpu", 2)
    with pytest.raises(ValueError, match="torch sees no CUDA device"):
        paper.machine("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert paper.machine("auto", 4) == paper.machine("cuda", 4) == Machine("cuda", 1)
    assert paper.machine("cpu", 4) == Machine("cpu", 4)


def test_a_cluster_is_an_address(monkeypatch, project, capsys):
    address = "tcp://127.0.0.1:1"
    here = paper.machine("auto", address)
    assert here == Machine("cpu", address) and address not in str(here)
    for device, jobs, message in [
        ("cpu", "here", "such as tls://host:8786, got 'here'"),
        ("cuda", address, "use device 'cpu'"),
    ]:
        with pytest.raises(ValueError, match=message):
            paper.machine(device, jobs)
    assert cli.main(["reproduce", "--scheduler", address, "--jobs", "2"]) == 1
    assert "a cluster has its own workers" in capsys.readouterr().err
    client = distributed.Client  # which would wait for ten seconds
    monkeypatch.setattr(
        "distributed.Client", lambda *at, **given: client(*at, **given | {"timeout": 1})
    )
    with pytest.raises(OSError, match="no Dask scheduler answers at tcp:"):
        list(machines.side_by_side(len, [("a",)], address))
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ValueError, match=r'pip install "cappaper\[cluster\]"'):
        list(machines.side_by_side(len, [("a",)], address))


@pytest.mark.parametrize("protocol", ["tcp", "tls"])
def test_the_workers_of_a_cluster_give_the_same_table(fresh, monkeypatch, protocol):
    from dask import config
    from distributed import LocalCluster, Security

    table = tiny().drop(columns="seconds")
    monkeypatch.setenv("CAPPAPER_CACHE", str(fresh / "cluster"))
    more: dict = {"protocol": f"{protocol}://", "processes": False, "dashboard_address": None}
    own = {}  # certificates reach us by Dask's configuration alone
    if protocol == "tls":
        pytest.importorskip("cryptography")
        more["security"] = made = Security.temporary()
        fields = {"ca-file": made.tls_ca_file, "client.cert": made.tls_client_cert}
        fields["client.key"] = made.tls_client_key
        own = {f"distributed.comm.tls.{key}": value for key, value in fields.items()}
        with pytest.raises(ValueError, match="needs certificates, in Dask's configuration"):
            list(machines.side_by_side(len, [("a",)], "tls://127.0.0.1:1"))
    with config.set(own), LocalCluster(n_workers=1, **more) as cluster:
        machine = paper.machine("auto", cluster.scheduler_address)
        pd.testing.assert_frame_equal(table, tiny(machine=machine).drop(columns="seconds"))


def test_the_longest_chapters_begin_first(tmp_path):
    (tmp_path / "book" / "results").mkdir(parents=True)
    for name, rows in (("short", "seconds\n1"), ("long", "seconds\n2"), ("bare", "beta\n9")):
        (tmp_path / "book" / "results" / f"{name}.csv").write_text(f"# a: b\n{rows}\n")
    few = [chapters.Chapter(name, "source", "Title") for name in ("none", "short", "long", "bare")]
    ordered = chapters.longest_first(few, tmp_path)
    assert [chapter.name for chapter in ordered] == ["long", "short", "none", "bare"]
