"""Cache keys change with the code that decides a result; an entry is whole, or ignored."""

import re
from pathlib import Path

import pytest

from cappaper.paper import cache, experiment, judges, observers

MODULES = {module.__name__: module for module in (experiment, judges, observers)}
TRAINING, ATTACKS, OBSERVERS = MODULES
JUDGES = {ATTACKS, OBSERVERS}


def codes():
    return {name: cache.code(name) for name in MODULES}


def edit(monkeypatch, module, change):
    path = cache._PACKAGE / module
    monkeypatch.setitem(cache._SOURCES, path, change(cache._SOURCES[path]))


DECIDED = {
    "checks.py attacks/pgd.py": set(MODULES),
    "training.py models.py paper/experiment.py": {TRAINING},
    "attacks/square.py certificates/exact.py paper/judges.py": JUDGES,
    "masking.py": {OBSERVERS},
    "__init__.py paper/claims.py paper/figures/lines.py": set(),
}


@pytest.mark.parametrize(
    ("module", "decides"), [(name, d) for names, d in DECIDED.items() for name in names.split()]
)
def test_an_edit_changes_the_keys_of_what_it_decides(monkeypatch, module, decides):
    before = codes()
    edit(monkeypatch, module, lambda text: text + "\n_edited = 1\n")
    assert dict(before.items() ^ codes().items()).keys() == decides


@pytest.mark.parametrize(
    ("package", "decides"),
    [("torch", set(MODULES)), ("scipy", JUDGES), ("pyautoattack", JUDGES), ("matplotlib", set())],
)
def test_another_version_of_a_package_changes_keys_of_its_users(monkeypatch, package, decides):
    before, version = codes(), cache._version
    monkeypatch.setattr(cache, "_version", lambda p: "9.9" if p == package else version(p))
    assert dict(before.items() ^ codes().items()).keys() == decides


def test_comments_and_docstrings_change_no_key(monkeypatch):
    def reword(text):
        return "# A comment.\n" + re.sub(r'""".*?"""', '"""Other words."""', text, flags=re.S)

    before = codes()
    for module in ("attacks/pgd.py", "paper/experiment.py", "data.py"):
        edit(monkeypatch, module, reword)
    assert codes() == before


def test_a_key_is_that_of_the_imported_code(monkeypatch):
    before = codes()
    monkeypatch.setattr(Path, "read_text", lambda *args, **given: "edited = 1")
    cache._syntax.cache_clear()
    assert codes() == before


def test_a_failed_write_leaves_the_old_entry(fresh, monkeypatch):
    place = cache.place("weights", "a key")
    cache.keep(place, {"x": 1})
    write = Path.write_bytes

    def full_disk(path, content):
        write(path, content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space left"):
        cache.keep(place, {"x": 2})
    assert cache.recall(place) == {"x": 1}
    assert list(place.parent.iterdir()) == [place]
    assert cache.recall(cache.place("weights", "another key")) is None


def test_the_cache_is_in_the_home_folder_unless_the_environment_names_another(monkeypatch):
    monkeypatch.delenv("CAPPAPER_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", lambda: Path("/somewhere"))
    assert cache.root() == Path("/somewhere/.cache/cappaper/results")
    monkeypatch.setenv("CAPPAPER_CACHE", "/elsewhere")
    assert cache.root() == Path("/elsewhere")
