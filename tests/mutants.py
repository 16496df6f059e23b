"""``python -m tests.mutants``: how many random changes of the code do the tests notice?"""

import ast
import queue
import random
import shutil
import sys
import tempfile
import time
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import pandas as pd
from attrs import evolve
from cosmic_ray.commands import init
from cosmic_ray.mutating import mutate_and_test, mutate_code
from cosmic_ray.plugins import get_operator
from cosmic_ray.testing import run_tests
from cosmic_ray.work_db import use_db
from cosmic_ray.work_item import MutationSpec, TestOutcome, WorkResult
from tqdm import tqdm

from cappaper.paper.tables import markdown_table

# Modules below cappaper/, and the tests that should notice, besides the modules' own doctests.
TARGETS = {
    "attacks": (
        "attacks/balls attacks/common attacks/pgd attacks/auto_pgd attacks/square"
        " attacks/strongest",
        "attacks attack_manners auto_pgd strongest adaptive doubtful_models own_models"
        " unusual_networks",
    ),
    "training": (
        "training population",
        "training members checkpoints models own_models doubtful_models",
    ),
    "certificates": (
        "certificates/bounds certificates/exact",
        "certification certificate_refusals layers unusual_networks",
    ),
    "surrogate": (
        "surrogate masking activations",
        "surrogate activations adaptive masking own_models report attack_manners",
    ),
    "decisions": ("paper/claims paper/effects", "statistics claims book"),
}
LIMIT = 900  # seconds, in which a part's tests end without a mutant
REASONS = Path(__file__).with_suffix(".toml")
# Of the plugins, only Hypothesis: to import the others takes seconds for each mutant.
PYTEST = "-m pytest -x -q -p no:cacheprovider -p hypothesispytest --hypothesis-profile=first"


def files_of(part: str) -> tuple[list[str], list[str]]:
    """The modules of a part, and the files that pytest runs for it."""
    modules, tests = (names.split() for names in TARGETS[part])
    paths = [f"cappaper/{name}.py" for name in modules]
    return paths, paths + [f"tests/test_{name}.py" for name in tests]


def drawn(modules: Sequence[str], cases: int, seed: int) -> list[MutationSpec]:
    """Mutants at ``cases`` places; all places are as likely, however many mutants each has."""
    with tempfile.TemporaryDirectory() as folder, use_db(Path(folder) / "all.sqlite") as db:
        init([Path(module) for module in modules], db, {})
        everything = [item.mutations[0] for item in db.work_items]
    places = defaultdict(list)
    for one in sorted(everything, key=lambda m: (m.operator_name, m.occurrence)):
        places[str(one.module_path), one.start_pos].append(one)
    draw = random.Random(seed)
    order = draw.sample(sorted(places), len(places))
    mutants = (draw.choice(places[place]) for place in order)
    return [mutant for mutant, _ in zip(filter(_changes_code, mutants), range(cases), strict=False)]


def _changes_code(mutant: MutationSpec) -> bool:
    """Whether it is valid Python, and changes more than type hints."""
    code = mutant.module_path.read_text(encoding="utf-8")
    operator = get_operator(mutant.operator_name)(**mutant.operator_args)
    try:
        dumps = [_without_hints(c) for c in (code, mutate_code(code, operator, mutant.occurrence))]
    except SyntaxError:
        return False
    return dumps[0] != dumps[1]


def _without_hints(code: str) -> str:
    tree = ast.parse(code)
    for node in ast.walk(tree):
        for hint in {"annotation", "returns"} & set(node._fields):
            setattr(node, hint, None)
    return ast.dump(tree)


def results_of(
    mutants: Sequence[MutationSpec], tests: Sequence[str], root: Path, jobs: int
) -> Iterator[WorkResult]:
    """The tests' result for each mutant, in copies of ``root`` where they pass without one."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        trees: queue.Queue[Path] = queue.Queue()
        ignore = shutil.ignore_patterns(".*", "_build", "__pycache__", "dist")
        for job in range(jobs):
            trees.put(shutil.copytree(root, Path(folder) / str(job), ignore=ignore))
        alone = "PYTHONPATH=. PYTEST_DISABLE_PLUGIN_AUTOLOAD=1"
        run = f"{alone} exec {sys.executable} {PYTEST} {' '.join(tests)}"

        def command(tree: Path) -> str:
            return f"sh -c 'cd {tree} && {run}'"

        def result(mutant: MutationSpec) -> WorkResult:
            tree = trees.get()
            try:
                there = evolve(mutant, module_path=tree / mutant.module_path)
                return mutate_and_test([there], command(tree), limit)
            finally:
                trees.put(tree)

        start = time.monotonic()
        outcome, output = run_tests(command(Path(folder) / "0"), LIMIT)
        # A mutant with which the tests take much longer was noticed.
        limit = 60 + 3 * jobs * (time.monotonic() - start)
        if outcome != TestOutcome.SURVIVED:
            raise RuntimeError(f"without any mutant, these tests fail:\n{output[-3000:]}")
        yield from pool.map(result, mutants)


def _row(part: str, mutant: MutationSpec, result: WorkResult) -> dict[str, object]:
    """A row of the table: the first line that the mutant changes, before and after."""
    lines = [line for line in (result.diff or "").splitlines() if line[:3] not in ("---", "+++")]
    before, after = (next((s[1:].strip() for s in lines if s[0] == sign), "") for sign in "-+")
    module = mutant.module_path.relative_to("cappaper").as_posix()
    row = {"part": part, "module": module, "line": mutant.start_pos[0], "before": before}
    return row | {"after": after, "noticed": "yes" if result.is_killed else "no"}


def page(table: pd.DataFrame) -> str:
    """Mutants and how many were noticed, by part; then those that were not, and why."""
    counts = table["noticed"].eq("yes").groupby(table["part"]).agg(["size", "sum"])
    counts.loc["all"] = counts.sum()
    counts.columns = pd.Index(["mutants", "noticed"])
    counts["share"] = (counts["noticed"] / counts["mutants"]).map("{:.0%}".format)
    listed = tomllib.loads(REASONS.read_text(encoding="utf-8"))["mutant"]
    reasons = {(one["module"], one["after"]): one["reason"] for one in listed}
    left = table[table["noticed"] != "yes"].set_index("module")
    code = left["after"].map(lambda line: f"`{line}`".replace("|", "\\|"))
    why = [reasons.get(key, "") for key in left["after"].items()]
    shown = left[["line"]].assign(mutant=code, why=why).set_axis("`" + left.index + "`")
    unnoticed = markdown_table(shown, "module")
    can = len(table) - sum(map(bool, why))
    said = (
        "What no test noticed; a mutant with a reason cannot matter. Of the"
        f" {can} that can, {(len(table) - len(left)) / can:.0%} were noticed."
    )
    return f"{markdown_table(counts, 'part')}\n\n{said}\n\n{unnoticed}\n"


@click.command()
@click.option("--only", type=click.Choice(list(TARGETS)), multiple=True, help="Parts of the code.")
@click.option("--cases", default=24, show_default=True, help="Mutants of each part.")
@click.option("--seed", default=0, show_default=True)
@click.option("--jobs", default=2, show_default=True, help="Copies of the tree.")
def main(only: tuple[str, ...], cases: int, seed: int, jobs: int) -> None:
    """Try mutants; those of all parts go into the table of the page."""
    rows = []
    for part in only or TARGETS:
        modules, tests = files_of(part)
        mutants = drawn(modules, cases, seed)
        results = tqdm(results_of(mutants, tests, Path.cwd(), jobs), part, len(mutants))
        rows += [_row(part, *both) for both in zip(mutants, results, strict=True)]
    table = pd.DataFrame(rows).sort_values(["part", "module", "line"], ignore_index=True)
    print(page(table))
    if not only:
        path = Path("book/results/mutants.csv")
        path.write_text(table.to_csv(index=False), encoding="utf-8")
        path.with_suffix(".md").write_text(page(table), encoding="utf-8")


if __name__ == "__main__":
    main()
