"""``make mutants``: draw mutants, run the tests on each, and write which were noticed."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import tomllib
from pathlib import Path

import click
import pandas as pd
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import WorkItem, WorkResult
from tqdm import tqdm

from cappaper.paper.tables import markdown_table
from tests.mutants.drawn import drawn
from tests.mutants.targets import TARGETS
from tests.mutants.tried import tried

ROOT = Path(__file__).parents[2]
REASONS = Path(__file__).with_name("reasons.toml")


@click.command()
@click.option("--only", type=click.Choice(list(TARGETS)), multiple=True, help="Parts of the code.")
@click.option("--cases", default=60, show_default=True, help="Mutants of each part.")
@click.option("--seed", default=0, show_default=True)
@click.option("--jobs", default=os.cpu_count() or 1, show_default=True)
@click.option("--again", is_flag=True, help="Try again what no test noticed: there are new tests.")
@click.option("--out", default="book/results", show_default=True, help="Folder of the tables.")
def main(only: tuple[str, ...], cases: int, seed: int, jobs: int, again: bool, out: str) -> None:
    """Try mutants. What was tried is not tried again, as long as the package's code stays."""
    os.chdir(ROOT)
    rows, reasons = [], _reasons()
    for name in only or TARGETS:
        session = ROOT / ".mutants" / f"{name}-{cases}-{seed}-{_digest()}.sqlite"
        session.parent.mkdir(exist_ok=True)
        with use_db(session) as db, tempfile.TemporaryDirectory() as folder:
            if not db.num_work_items:
                db.add_work_items(drawn(TARGETS[name].modules, cases, seed))
            _try(db, name, Path(folder), jobs, again)
            done = db.completed_work_items
            rows += [_row(name, item, result, reasons) for item, result in done]
    table = pd.DataFrame(rows).sort_values(["part", "module", "line"], ignore_index=True)
    for row in table[table["noticed"] != "yes"].itertuples():
        why = row.reason or "noticed by no test"
        print(f"{row.module}:{row.line} {row.before!r} -> {row.after!r}: {why}")
    print(_counted(table))
    if not only:
        _write(Path(out) / "mutants.csv", table)


def _try(db: WorkDB, name: str, folder: Path, jobs: int, again: bool) -> None:
    tried_before = db.completed_work_items if again else ()
    survived = [item for item, result in tried_before if not result.is_killed]
    todo = sorted([*db.pending_work_items, *survived], key=lambda item: item.job_id)
    found = tried(todo, TARGETS[name].tests, ROOT, folder, jobs) if todo else ()
    for item, result in tqdm(found, desc=name, total=len(todo)):
        db.set_result(item.job_id, result)


def _digest() -> str:
    """Of the package's code."""
    code = sorted(ROOT.glob("cappaper/**/*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in code)).hexdigest()[:16]


def _row(
    name: str, item: WorkItem, result: WorkResult, reasons: dict[tuple[str, str], str]
) -> dict[str, object]:
    (mutation,) = item.mutations
    before, after = _changed(result.diff or "")
    module = mutation.module_path.relative_to("cappaper").as_posix()
    noticed = "yes" if result.is_killed else "no"
    return {
        "part": name,
        "module": module,
        "line": mutation.start_pos[0],
        "before": before,
        "after": after,
        "noticed": noticed,
        "reason": "" if result.is_killed else reasons.get((module, after), ""),
    }


def _reasons() -> dict[tuple[str, str], str]:
    """Why no test need notice, by the module and the line as the mutant has it."""
    listed = tomllib.loads(REASONS.read_text(encoding="utf-8"))["mutant"]
    return {(one["module"], one["after"]): one["reason"] for one in listed}


def _changed(diff: str) -> tuple[str, str]:
    """The first line that a mutant changes, before and after; empty where it only takes one out."""
    lines = diff.splitlines()
    taken = [line[1:].strip() for line in lines if line.startswith("-") and line[1:4] != "-- "]
    put = [line[1:].strip() for line in lines if line.startswith("+") and line[1:4] != "++ "]
    return next(iter(taken), ""), next(iter(put), "")


def _counted(table: pd.DataFrame) -> pd.DataFrame:
    """By part: mutants, how many were noticed, and which share."""
    noticed = table["noticed"].eq("yes").groupby(table["part"], sort=False).agg(["size", "sum"])
    noticed.columns = pd.Index(["mutants", "noticed"])
    noticed.loc["all"] = noticed.sum()
    noticed["share"] = (noticed["noticed"] / noticed["mutants"]).map("{:.0%}".format)
    return noticed.astype({"mutants": int, "noticed": int})


def _write(path: Path, table: pd.DataFrame) -> None:
    path.write_text(table.to_csv(index=False), encoding="utf-8")
    text = markdown_table(_counted(table), "part")
    left = table[table["noticed"] != "yes"].set_index("module")
    if len(left):
        shown = left[["line"]].assign(
            mutant=left["after"].map(_as_code), why=left["reason"].replace("", "not yet known")
        )
        text += f"\n\nWhat no test noticed:\n\n{markdown_table(shown, 'module')}"
    path.with_suffix(".md").write_text(f"{text}\n", encoding="utf-8")


def _as_code(line: str) -> str:
    """A line of code in a field of a Markdown table."""
    return f"`{line}`".replace("|", "\\|") if line else "(the line is gone)"


if __name__ == "__main__":
    sys.exit(main())
