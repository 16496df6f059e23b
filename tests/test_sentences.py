"""Sentences with numbers in README, landing page and method: each is made from its table."""

import math
import re
import shutil

import nbformat
import pytest

import cappaper
from cappaper import load
from cappaper.paper import experiment, tables
from cappaper.paper.cli import main
from tests.answers import BOOK, means, table_of
from tests.test_book import NAMES, ROOT

INF, STRONGEST = math.inf, tables.STRONGEST


def text_of(path):
    return re.sub(r"\s+", " ", path.read_text())


README, INDEX, METHOD = map(text_of, (ROOT / "README.md", BOOK / "index.md", BOOK / "method.md"))
CLAIMS = (BOOK / "claims.md").read_text().splitlines()


def percent(*shares):
    return [f"{100 * share:.0f}%" for share in shares]


def under_pgd():
    mean = means("how-robust", "attack", "beta", training_eps=0, eps=0.1)["PGD"]
    best, relu = percent(mean.max(), mean[INF])
    return (
        f"At ε = 0.1, PGD, the paper's attack, leaves {best} of images"
        f" with β = {mean.idxmax():g}, and {relu} with ReLU."
    )


def under_the_cap_aware_attack():
    mean = means("how-robust", "attack", "beta", training_eps=0, eps=0.1)
    (left,) = percent(mean["cap-aware PGD", mean["PGD"].idxmax()])
    return f"Cap-aware PGD, which knows about the cap, leaves {left}."


def after_training():
    mean = means("train-longer", "attack", "beta", recipe="constant", epochs=40)
    under, left = percent(mean["PGD", 0.2], mean[STRONGEST, 0.2])
    return (
        "Networks with β = 0.2, trained against PGD at ε = 0.3, learn to stop it:"
        f" it leaves {under}, the strongest attack {left}."
    )


def setting():
    paper = experiment.profile("paper")
    return (
        f"learning rate {paper.lr:g}, batches of {paper.batch_size}, {paper.epochs} epochs"
        f" ({paper.adversarial_epochs} of adversarial training), 60,000 images"
    )


@pytest.mark.parametrize("sentence", [under_pgd, under_the_cap_aware_attack, after_training])
def test_a_sentence_of_the_readme_has_the_numbers_of_its_table(sentence):
    assert sentence() in README


def test_the_method_has_the_settings_of_the_profile():
    paper = experiment.profile("paper")
    assert setting() in METHOD
    assert f"{paper.hidden[0]} and {paper.hidden[1]} units" in METHOD
    assert f"PGD in L∞, {paper.steps} steps of 2.5·ε/{paper.steps}" in METHOD
    assert f"ε = {', '.join(f'{e:g}' for e in paper.epsilons)} of the pixels' range" in METHOD
    (line,) = [row for row in (BOOK / "method.md").read_text().splitlines() if "| seeds |" in row]
    few = {name for name in NAMES if len(table_of(name).attrs["provenance"]["seeds"].split()) < 5}
    assert few == set(re.findall(r"{doc}`chapters/([\w-]+)`", line))


def test_results_come_from_tables_or_are_compared_with_them():
    """A number with three decimals is a result."""
    texts = {path.name: path.read_text() for path in [ROOT / "README.md", *BOOK.glob("*.md")]}
    for name in NAMES:
        cells = nbformat.read(BOOK / "chapters" / f"{name}.ipynb", 4).cells
        shown = [c for c in cells if c.cell_type == "markdown" or "show_markdown(" in c.source]
        texts[name] = "\n".join(cell.source for cell in shown)
    for name in texts.keys() - {"claims.md", "all-networks.md"}:  # generated as a whole
        text = re.sub(r"\s+", " ", re.sub(r"\{glue:\w+\}`[^`]*`", "", texts[name]))
        assert not re.findall(r"(?<![\w/])0?\.\d{3,}", text.replace(setting(), "")), name


def test_every_number_of_the_landing_page_is_glued():
    """So the quick book's landing page has the numbers of the quick tables."""
    body = (BOOK / "index.md").read_text().partition("## Cite")[0]
    prose = [line.lstrip("12345. ") for line in body.splitlines() if line[:1].isalnum()]
    without_roles = re.sub(r"\{[\w:]+\}`[^`]*`", "", " ".join(prose))
    assert set(re.findall(r"\d+", without_roles)) <= {"0"}  # of max(0, ...)


def test_the_page_of_claims_answers_an_expert_by_its_own_rows():
    """Three recipes favour a cap, two ReLU; the order of layers is open; PGD's best cap is 0.05."""
    signed = [line.replace("−", "-") for line in CLAIMS]
    rows = [re.match(r"\| (.*?) \|.*\(([+-][\d.]+) to ([+-][\d.]+)\)", x) for x in signed]
    ends = {row[1]: (float(row[2]), float(row[3])) for row in rows if row}
    dense = [v for k, v in ends.items() if "strongest attack, ε = 0.3" in k and "Conv" not in k]
    assert (sum(low > 0 for low, _ in dense), sum(high < 0 for _, high in dense)) == (3, 2)
    assert len(dense) == 5
    order = [v for k, v in ends.items() if "narrowing or widening" in k]
    assert len(order) == 2 and all(low < 0 < high for low, high in order)
    kept = means("fig-04", "beta", eps=0.1).sort_index(ascending=False)
    assert kept[kept.index >= 0.05].is_monotonic_increasing
    assert kept[kept.index < 0.05].max() < kept[0.05]


def test_the_landing_page_says_what_the_tables_of_small_and_trained_networks_do():
    kept = means("exact", "beta", attack="exact", eps=0.05)
    assert (kept.drop(INF) < kept[INF]).all()
    recipes = ("constant", "one cycle", "cap-aware")
    left = [means("train-longer", "beta", attack=STRONGEST, recipe=r) for r in recipes]
    assert {(by[1.0] > by[INF]).item() for by in left} == {True, False}
    convolutional = means("train-convolutions", "beta", attack=STRONGEST)
    assert convolutional[INF] > convolutional[1.0] > max(by.max() for by in left)
    for recipe in ("constant", "smaller ε"):
        mean = means("train-longer", "attack", "beta", recipe=recipe)
        assert mean["PGD", 0.2] > mean[STRONGEST, 0.2] + 0.2


def test_alternative_texts_of_figures_agree_with_their_tables():
    where = {"architecture": "300-200-100", "beta": 0.05, "attack": "PGD"}
    deep = means("capped-layers", "placement", **where)
    assert deep.drop("2").min() > 0.75 > 0.5 > deep["2"]
    truth = means("exact", "beta", attack="exact", eps=0.05).sort_index()
    weak = means("exact", "beta", attack="PGD", eps=0.05)
    assert truth.is_monotonic_increasing and weak[0.1] > weak[INF] - 0.05
    by = ["attack", "architecture", "beta", "layer"]
    grown = table_of("fig-01").groupby(by)["relative_l2"].mean().unstack()
    growth = grown.apply(lambda row: row.dropna().iloc[-1] / row[1], axis=1)
    pgd = growth["PGD", "100-100-100-100-100"]
    assert pgd[INF] > 1.5 and pgd[1.0] > 1.5 and pgd[0.1] < 1 and growth["noise"].max() < 1.5
    small = means("how-robust", "beta", attack=STRONGEST, eps=0.02)
    assert small.drop([1.0, INF]).max() < small[INF] - 0.01 and abs(small[1.0] - small[INF]) < 0.01
    families = means("fig-03", "activation", "beta", eps=0.1)
    assert families["sigmoid"].max() < families["capped"].max() - 0.2


def test_the_readme_has_few_numbers_and_few_words_before_its_commands():
    """Those of settings (β = 0.05) and versions count, too."""
    prose = re.sub(r"```.*?```|https?://\S+|`[^`]*`|!\[.*?\]", "", README)
    assert len(re.findall(r"\d[\d.]*", prose)) <= 12
    first = README[: README.index("```")]
    assert len(re.sub(r"!\[.*?\]|\(\S*\)", "", first).split()) <= 160  # a minute, read aloud


@pytest.mark.parametrize("page", ["README.md", "book/your-own-model.md"])
def test_the_python_of_a_page_runs(page, monkeypatch, tmp_path):
    """With few images; the wheel's test runs the README's with all."""
    monkeypatch.chdir(tmp_path)
    few = lambda *given, limit=None: load(*given, limit=8 if given[1] == "test" else limit)  # noqa: E731
    monkeypatch.setattr(cappaper, "load", few)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert blocks
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)


def test_a_check_on_a_page_has_the_same_words_with_fewer_images(tmp_path, monkeypatch, capsys):
    shutil.copy(BOOK / "examples" / "my_net.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    few = ["--limit", "30", "--steps", "10", "--queries", "20"]
    assert main(["check", "my_net.py:make", "--data", "my_net.py:images", "--strict", *few]) == 1
    texts = ((BOOK / "examples" / "check.txt").read_text(), capsys.readouterr().out)
    for text in texts:
        assert "The gradients are masked: do not trust a robust accuracy from PGD." in text
        assert "an attack that knows about the cap leaves" in text
    words = [[line.split("%")[1] for line in text.splitlines()[2:5]] for text in texts]
    assert words[0] == words[1]
