"""A few trials of each kind that the page *How it is tested* counts, and the page itself."""

import random
from functools import partial

import pandas as pd
import pytest

import cappaper
from cappaper.paper.tables import markdown_table
from tests.conftest import ROOT
from tests.trust import counted
from tests.trust.calls import trial
from tests.trust.cluster import worker_killed
from tests.trust.disturbed import SIGNALS, killed
from tests.trust.subjects import SUBJECTS

TABLE = ROOT / "book" / "results" / "how-it-is-tested.csv"


def test_nonsense_gets_a_sentence_or_a_right_answer():
    count = counted.nonsense(300, seed=1)
    assert not count.wrong, "\n".join(count.wrong)
    assert "got a sentence" in count.said


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name)
def test_the_call_that_nonsense_goes_into_works(subject):
    """Else a refusal would say nothing about the nonsense."""
    given = {name: make() for name, make in subject.works.items()}
    assert subject.right(given, subject.call(**given))


def test_a_trial_finds_a_bare_error_and_a_wrong_answer(monkeypatch):
    draw, subject = random.Random(0), SUBJECTS[0]
    sloppy = {"call": lambda **given: given["x"] + given["eps"]}
    bad = type(subject)(**{**vars(subject), **sloppy})
    ends = [trial(draw, [bad]) for _ in range(30)]
    assert any((end.wrong or "").startswith("bare ") for end in ends)
    assert any((end.wrong or "").startswith("gave ") for end in ends)


def test_no_damaged_cache_entry_is_used():
    count = counted.damage(12, seed=1)
    assert not count.wrong, "\n".join(count.wrong)


@pytest.mark.parametrize("disturb", [partial(killed, signals=SIGNALS[:1]), worker_killed])
def test_a_disturbed_run_has_the_table_of_an_undisturbed_one(disturb, tmp_path):
    assert disturb(random.Random(1), tmp_path) == []


def test_the_page_shows_the_table_and_nothing_went_wrong_in_it():
    table = pd.read_csv(TABLE, index_col="trial")
    assert TABLE.with_suffix(".md").read_text() == f"{markdown_table(table, 'trial')}\n"
    assert (table["went wrong"] == 0).all()
    assert sorted(table["cases"]) == sorted(cases for _, cases in counted.COUNTS.values())


def test_every_public_function_is_a_subject():
    named = {subject.name for subject in SUBJECTS}
    public = {name for name in cappaper.__all__ if callable(getattr(cappaper, name))}
    records = {"Bounded", "Dataset", "Indicator", "MaskingReport", "Rates", "RobustnessReport"}
    assert public - records - {"exact_gradient"} == named  # which takes no argument
