"""``make coverage``: which share of lines and branches the tests run, by part of the package."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

from cappaper.paper.publishing import git_commit
from cappaper.paper.tables import markdown_table

PARTS = {
    "attacks": "cappaper/attacks/",
    "certificates": "cappaper/certificates/",
    "this book": "cappaper/paper/",
    "the rest to take home": "cappaper/",
}


def counted(files: dict[str, dict[str, dict[str, int]]]) -> pd.DataFrame:
    """Lines and branches by part, from the files of ``coverage json``; a file is in one part."""
    rows = {part: {"lines and branches": 0, "run": 0} for part in [*PARTS, "all"]}
    for name, found in files.items():
        part = next(part for part, folder in PARTS.items() if name.startswith(folder))
        summary = found["summary"]
        for row in (rows[part], rows["all"]):
            row["lines and branches"] += summary["num_statements"] + summary["num_branches"]
            row["run"] += summary["covered_lines"] + summary["covered_branches"]
    table = pd.DataFrame(rows).T
    table["share"] = (table["run"] / table["lines and branches"]).map("{:.1%}".format)
    return table


def main(out: Path = Path("book/results")) -> None:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "coverage.json"
        subprocess.run([sys.executable, "-m", "coverage", "json", "-q", "-o", report], check=True)
        table = counted(json.loads(report.read_text(encoding="utf-8"))["files"])
    print(table)
    table.assign(commit=git_commit()).to_csv(out / "coverage.csv", index_label="part")
    text = markdown_table(table, "part")
    (out / "coverage.md").write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
