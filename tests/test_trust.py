"""A few trials that the page *How it is tested* counts, and the page itself."""

import pandas as pd
import pytest

import cappaper
from cappaper.paper.tables import markdown_table
from tests.conftest import ROOT
from tests.trust import nonsense
from tests.trust.__main__ import KINDS, count

TABLE = ROOT / "book" / "results" / "how-it-is-tested.csv"


@pytest.mark.parametrize(("kind", "cases"), [("nonsense", 300), ("damage", 10)])
def test_trials_find_no_fault(kind, cases):
    faults, _ = count(kind, cases, seed=1)
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("name", nonsense.CALLS)
def test_a_call_works_before_its_arguments_become_odd(name):
    assert not nonsense.call(name, {})


@pytest.mark.parametrize(("eps", "fault"), [("0.1", "is wrong"), ("0.2", "KeyError")])
def test_a_trial_finds_wrong_answers_and_bare_errors(monkeypatch, eps, fault):
    monkeypatch.setattr(cappaper, "fgsm", lambda model, x, y, eps: {0.1: x + 1}[eps])
    with pytest.raises(AssertionError, match=fault):
        nonsense.call("fgsm", {"eps": eps})


def test_the_page_shows_the_table_and_nothing_went_wrong_in_it():
    table = pd.read_csv(TABLE, index_col="trial")
    assert TABLE.with_suffix(".md").read_text() == f"{markdown_table(table, 'trial')}\n"
    assert (table["went wrong"] == 0).all()
    assert table["cases"].to_dict() == {title: cases for title, cases, *_ in KINDS.values()}


def test_every_public_function_has_a_call_that_works():
    public = {name for name in cappaper.__all__ if callable(getattr(cappaper, name))}
    records = {"Bounded", "Dataset", "Indicator", "MaskingReport", "Rates", "RobustnessReport"}
    assert public - records - {"exact_gradient"} == set(nonsense.CALLS)
