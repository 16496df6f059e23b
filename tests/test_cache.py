"""What is recalled and what is computed again: an edit counts where it decides a result."""

import ast
import shutil
from pathlib import Path

import pytest

import cappaper
from cappaper.paper import cache, closure
from cappaper.paper.experiment import train

PACKAGE = Path(cappaper.__file__).parent
JUDGES = {
    "judges": ("PGD", "AutoAttack", "Certificate", "Exact"),
    "searches": ("CW",),
    "observers": ("Distances", "Masking"),
}
KEYS = {"weights": train.__module__} | {
    judge: f"cappaper.paper.{module}:{judge}"
    for module, judges in JUDGES.items()
    for judge in judges
}
EVERY = set(KEYS)

# The keys that an edit of a module changes.
ASCENDING = {"weights", "PGD", "Masking"}  # gradients through the surrogate
READING = {"weights", "Certificate", "Exact", "Distances"}  # what a network is made of
DECIDES = {
    "checks.py": EVERY,
    "operators/__init__.py": EVERY,
    "operators/convolutions.py": EVERY,
    "operators/dense.py": EVERY,
    "operators/eligible.py": EVERY,
    "data.py": EVERY,
    "attacks/ascent.py": EVERY,
    "attacks/balls.py": EVERY,
    "attacks/columns.py": EVERY,
    "attacks/batches.py": ASCENDING | {"AutoAttack", "CW"},
    "attacks/gradient.py": ASCENDING,
    "attacks/surrogate.py": ASCENDING | {"CW"},
    "bounded.py": ASCENDING | {"CW"},
    "alike.py": EVERY,
    "population.py": EVERY,
    "activations.py": READING,
    "evaluation.py": {"PGD", "AutoAttack", "Distances"},
    "paper/tables.py": EVERY - {"weights", "CW", "Masking"},
    "models.py": {"weights"},
    "adam.py": {"weights", "CW"},
    "training.py": {"weights"},
    "files.py": {"weights"},
    "paper/experiment.py": {"weights"},
    "attacks/autoattack.py": {"AutoAttack"},
    "attacks/auto_pgd.py": {"AutoAttack"},
    "attacks/square_attack.py": {"AutoAttack"},
    "attacks/carlini_wagner.py": {"CW"},
    "certificates/bounds.py": {"Certificate", "Exact"},
    "certificates/exact.py": {"Exact"},
    "inspection.py": {"Distances"},
    "masking.py": {"Masking"},
    "signs.py": {"Masking"},
}
DECIDES |= {
    module: set()
    for module in [
        *("__init__.py", "__main__.py", "attacks/__init__.py", "certificates/__init__.py"),
        *("paper/__init__.py", "paper/chapters.py", "paper/claims.py", "paper/cli.py"),
        *("paper/decision.py", "paper/decisions.py", "paper/growth.py", "paper/ledger.py"),
        *("paper/machines.py", "paper/publishing.py"),
        *("paper/runner.py", "paper/figures/lines.py"),
    ]
}


@pytest.fixture
def copy(tmp_path):
    ignore = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(PACKAGE, tmp_path / "cappaper", ignore=ignore))


def digests(package):
    return {name: closure.digest(root, package=package) for name, root in KEYS.items()}


@pytest.fixture(scope="module")
def before():
    return digests(PACKAGE)


def test_the_same_code_has_the_same_keys_wherever_it_lies(copy):
    assert digests(copy) == digests(PACKAGE)
    assert len(set(digests(copy).values())) == len(KEYS)


@pytest.mark.parametrize("module", DECIDES)
def test_an_edit_changes_the_keys_of_what_it_decides_and_no_others(copy, before, module):
    path = copy / module
    path.write_text(path.read_text() + "\n_edited = 1\n")
    after = digests(copy)
    assert {name for name in KEYS if before[name] != after[name]} == DECIDES[module]


@pytest.mark.parametrize(
    ("module", "old", "new", "judges"),
    [
        ("judges", "steps: int = 40\n    norm", "steps: int = 41\n    norm", {"PGD"}),
        ("searches", "search_steps: int = 9", "search_steps: int = 8", {"CW"}),
        ("judges", "time_limit: float = 30.0", "time_limit: float = 31.0", {"Exact"}),
    ],
)
def test_a_judge_is_decided_by_its_own_code(copy, module, old, new, judges):
    before, path = digests(copy), copy / "paper" / f"{module}.py"
    path.write_text(path.read_text().replace(old, new))
    after = digests(copy)
    assert {name for name in KEYS if before[name] != after[name]} == judges


def test_what_was_imported_decides_whatever_is_edited_meanwhile(monkeypatch):
    """A key is that of the code that runs, not of what the disk says by now."""
    root, path = KEYS["PGD"], PACKAGE / "attacks" / "gradient.py"
    before = closure.digest(root)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", lambda *args, **given: "edited = 1")
        assert closure.digest(root) == before
    monkeypatch.setitem(closure._SOURCES, path, path.read_text() + "\nedited = 1\n")
    assert closure.digest(root) != before


@pytest.mark.parametrize("module", ["attacks/gradient.py", "paper/experiment.py", "data.py"])
def test_words_decide_nothing(copy, module):
    before, path = digests(copy), copy / module
    text = path.read_text()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)) and (
            docstring := ast.get_docstring(node, clean=False)
        ):
            assert docstring in text or "\\" in docstring
            text = text.replace(docstring, "Something else.", 1)
    path.write_text(text.replace("\n\n\n", "\n\n# A comment.\n\n"))
    assert digests(copy) == before


@pytest.fixture
def small(tmp_path):
    """A package that imports in every way."""
    files = {
        "__init__.py": "from small.a import one\nfrom small.unrelated import other",
        "a.py": "def one():\n    from small.lazy import two\n    return two()",
        "lazy.py": "import small.deep.c\nimport torch\ndef two(): return small.deep.c.three()",
        "deep/__init__.py": "from small.deep.c import three\nfrom small.unrelated import other",
        "deep/c.py": "def three(): return 3",
        "unrelated.py": "other = 1",
        "root.py": "from small import one, named\nfrom small.deep import three as passed_on",
        "named.py": "value = 1",
    }
    for name, text in files.items():
        path = tmp_path / "small" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "small"


def test_imports_are_followed_to_where_a_name_is_made(small):
    found = set(closure.closure("small.root", package=small))
    assert found == {f"small.{m}" for m in ("root", "a", "lazy", "deep.c", "named")}


def test_a_package_taken_whole_counts_whole(small):
    (small / "root.py").write_text("import small.deep")
    found = set(closure.closure("small.root", package=small))
    assert found == {f"small.{m}" for m in ("root", "deep", "deep.c", "unrelated")}


def test_half_a_file_is_never_read(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPPAPER_CACHE", str(tmp_path))
    place = cache.place("weights", "a key")
    cache.keep(place, {"x": 1})

    real = Path.write_bytes

    def full(path, content):
        real(path, content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        cache.keep(place, {"x": 2})
    assert cache.recall(place) == {"x": 1}
    assert [path.name for path in place.parent.iterdir()] == [place.name]  # no half file stays
    assert cache.recall(cache.place("weights", "another key")) is None


def test_a_bare_notebook_and_the_command_line_share_a_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("CAPPAPER_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert cache.root() == tmp_path / ".cache" / "cappaper" / "results"
    monkeypatch.setenv("CAPPAPER_CACHE", str(tmp_path / "elsewhere"))
    assert cache.root() == tmp_path / "elsewhere"
