"""The robustness report in text, JSON and HTML, and the command that prints it."""

import dataclasses
import io
import json
import math
import re
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import cappaper
from cappaper.paper.cli import main
from tests.conftest import ROOT
from tests.spellings import Function, respelled
from tests.trained import trained
from tests.trust.nonsense import Threaded

EPS = 0.1


@pytest.fixture(scope="module")
def reports(sixty):
    """The same network with a low cap and with ReLU."""
    nets = trained(0.05, math.inf)
    return [cappaper.robustness_report(n, *sixty, EPS, steps=20, queries=50) for n in nets]


def test_the_verdict_names_masking_for_a_low_cap_and_not_for_relu(reports):
    capped, relu = reports
    assert "do not trust" in capped.verdict and capped.masking.signs()
    assert capped.strongest < capped.pgd - 0.2
    assert "No sign" in relu.verdict and f"report {relu.strongest:.1%}" in relu.verdict
    for report in reports:
        assert report.strongest <= report.pgd <= report.standard


def test_a_gradient_at_the_wrong_pixels_misleads_pgd_though_nothing_else_shows_it(sixty):
    wrong = Function(lambda x: x.detach() + (x - x.detach()).roll(3, -1))
    report = cappaper.robustness_report(
        nn.Sequential(wrong, *trained()), *sixty, EPS, steps=20, queries=300
    )
    assert not report.masking.signs() and report.misleads
    assert "The gradients are misleading: do not trust" in report.verdict


def test_text_json_and_page_say_the_same(reports):
    for report in reports:
        figures = json.loads(report.json())
        assert [figures[key] for key in ("standard", "pgd", "strongest")] == list(
            report.accuracies.values()
        )
        assert len(figures["indicators"]) == 6
        page = report.html()
        for value in report.accuracies.values():
            assert f"{value:.1%}" in str(report) and f"<td>{value:.1%}</td>" in page
        for text in (str(report), page, figures["verdict"]):
            assert report.verdict in text
        assert page.count("✗ fails") == sum(i.fails for i in report.masking.indicators())
        assert not re.search(r"https?:|src=|<script|<link", page)  # no request
    page = dataclasses.replace(reports[0], name="<b>&").html()
    assert "&lt;b&gt;&amp;" in page and "<b>" not in page


def test_a_part_in_another_thread_is_not_decided(twenty):
    """It is capped, and the bounded activation after it is in this thread."""
    net = nn.Sequential(Threaded(trained(0.05)[0]), nn.ReLU6())
    report = cappaper.robustness_report(net, *twenty, EPS, steps=2, queries=2)
    assert report.verdict.startswith("Not decided") and "in another thread" in str(report)


def test_a_compiled_network_gets_the_verdict_of_its_original(twenty):
    (net,) = trained(0.05)
    pair = (net, torch.compile(net, backend="aot_eager"))
    both = [cappaper.robustness_report(m, *twenty, EPS, steps=3, queries=5) for m in pair]
    assert both[0].verdict == both[1].verdict and both[1].doubts == ()


def test_an_unknown_bounded_activation_is_decided_by_masking_alone(digits):
    """A cap in words that the registry lacks masks gradients; plain ReLU has nothing to reach."""
    (x, y), few = digits[0], [part[:40] for part in digits[1]]
    (net,) = trained(0.05)
    caps = [
        lambda z: z.relu().masked_fill(z > 0.05, 0.05),
        lambda z: 0.05 - F.relu(0.05 - F.relu(z)),
        lambda z: torch.fmin(z.relu(), torch.tensor(0.05)),
        lambda z: torch.where(z > 0.05, 0.05, z.relu()),
        lambda z: F.relu(z) - F.relu(z - 0.05),
        lambda z: torch.stack([z.relu(), torch.full_like(z, 0.05)]).amin(0),
    ]
    for function in caps:
        model = respelled(net, lambda _, f=function: Function(f))
        report = cappaper.robustness_report(model, *few, EPS, steps=5, queries=5)
        assert report.verdict.startswith("Not decided") and len(report.doubts) == 1
        assert "met no bounded activation in Sequential: if it has one, give" in str(report)
    plain = cappaper.fit(respelled(cappaper.mlp(64, [32]), lambda _: nn.ReLU()), x, y, epochs=9)
    report = cappaper.robustness_report(plain, *few, EPS, steps=5, queries=5)
    assert report.verdict.startswith("No sign") and report.doubts == ()
    assert "met no bounded activation" in report.html() and len(report.warned) == 1


def test_json_has_null_for_infinity(reports):
    report = dataclasses.replace(
        reports[0], masking=dataclasses.replace(reports[0].masking, loss={0: math.inf})
    )
    assert json.loads(report.json(), parse_constant=pytest.fail)["masking"]["loss"] == {"0": None}


@pytest.fixture
def mine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "import cappaper, torch\n"
        "net = cappaper.mlp(64, [16], beta=0.1)\n"
        "def make(): return net\n"
        "def few(): return cappaper.load('digits', 'test', limit=9)\n"
        "def one(): return few()[0]\n"
        "def fails(): return {}['oh']\n"
        "def leaves(): raise SystemExit('no checkpoint')\n"
        "def meta(): return torch.nn.Linear(1, 1, device='meta')\n"
        "def alike(): return torch.rand(5, 1, 8, 8), torch.zeros(5, dtype=torch.int64)\n"
    )
    (tmp_path / "parses.py").write_text(
        "import argparse, mine\nargparse.ArgumentParser().parse_args()\nmake = mine.make\n"
    )
    (tmp_path / "broken.py").write_text("make = nothing\n")
    return tmp_path


def test_the_command_checks_a_user_network(mine, capsys):
    small = ["--steps", "2", "--queries", "2"]
    asked = ["check", "mine.py:make", "--data", "mine.py:few", *small]
    assert main([*asked, "--json", "out.json", "--html", "out.html"]) == 0
    said = capsys.readouterr().out
    figures = json.loads((mine / "out.json").read_text())
    assert figures["images"] == 9 and figures["verdict"] in said
    assert figures["verdict"] in (mine / "out.html").read_text()
    # The user's own argparse does not see the arguments of the command.
    asked = ["check", "parses.py:make", "--data", "mine.py:alike", "--eps", "8/255", *small]
    assert main([*asked, "--json", "out.json"]) == 0
    assert "All 5 images are of class 0" in capsys.readouterr().out
    assert json.loads((mine / "out.json").read_text())["eps"] == 8 / 255


@pytest.mark.parametrize("eps", ["8/0", "-1", "eight", "inf", "nan", "1/2/3", ""])
def test_a_radius_is_a_number_or_a_fraction(mine, capsys, eps):
    assert main(["check", "mine.py:net", "--data", "digits", "--eps", eps]) == 2
    assert f"{eps!r} is not a number of at least 0, such as 0.1 or" in capsys.readouterr().err


def test_a_terminal_without_a_beta_gets_a_question_mark(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert main(["claims"]) == 0
    sys.stdout.flush()
    assert b"? = 0.1" in sys.stdout.buffer.getvalue()


@pytest.mark.parametrize(
    ("model", "data", "said"),
    [
        ("mine.py", "digits", "must read MODULE:FACTORY"),
        ("other.py:make", "digits", "other.py fails: FileNotFoundError: "),
        ("nowhere_at_all:make", "digits", "cannot be imported"),
        ("mine.py:fails", "digits", "mine.py:fails fails: KeyError: 'oh' ("),
        ("broken.py:make", "digits", "broken.py fails: NameError: name 'nothing' is not defined ("),
        ("broken:make", "digits", "broken fails: NameError: name 'nothing' is not defined ("),
        ("mine.py:made", "digits", "has no 'made'"),
        ("mine.py:few", "digits", "must be or return a torch module, got Dataset"),
        ("mine.py:net", "moon", "unknown data 'moon': use one of digits"),
        ("mine.py:net", "mine.py:one", "must return two tensors"),
        ("mine.py:net", "mnist:", "must read MODULE:FACTORY"),
        ("mine.py:leaves", "digits", "mine.py:leaves fails: SystemExit: no checkpoint ("),
        ("mine.py:meta", "digits", "Cannot copy out of meta tensor"),
    ],
)
def test_the_command_refuses_with_a_sentence(mine, capsys, model, data, said):
    assert main(["check", model, "--data", data]) == 1
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error


@pytest.mark.parametrize("out", ["none/out", "."])
def test_the_command_refuses_a_place_before_its_work(mine, capsys, out):
    for option in ("--json", "--html"):
        assert main(["check", "mine.py:fails", "--data", "digits", option, out]) == 1
        assert f"{out} cannot be written: name a file in a folder" in capsys.readouterr().err


def test_strict_fails_where_nothing_is_decided(mine, capsys):
    (mine / "traced.py").write_text(
        "import cappaper, torch\n"
        "net = torch.jit.trace(cappaper.mlp(64, [9]), torch.rand(2, 1, 8, 8))\n"
    )
    few = ["--steps", "2", "--queries", "2", "--limit", "8", "--strict"]
    assert main(["check", "traced.py:net", "--data", "digits", *few]) == 1
    out, error = capsys.readouterr()
    assert "Not decided" in out and "traced or scripted" in out and "may mislead" in error


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_the_report_is_printed_before_a_full_disk_refuses_it(mine, capsys):
    small = ["--steps", "2", "--queries", "2", "--json", "/dev/full"]
    assert main(["check", "mine.py:make", "--data", "mine.py:few", *small]) == 1
    out, error = capsys.readouterr()
    assert "without an attack" in out and "No space left" in error
