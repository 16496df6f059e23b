"""A small project with one chapter that trains, attacks and publishes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import yaml

ROOT = Path(__file__).parents[2]
CHAPTER = """
from cappaper import paper
setting = paper.profile("quick", betas=[0.1, 1.0], seeds=[0, 1], epochs=4)
machine = paper.machine(device, jobs)
specs = paper.sweep(setting) + paper.sweep(setting, hidden=[16])
table = paper.run(specs, paper.PGD(5), [0.05, 0.1], machine=machine)
print(len(table), "rows")
paper.publish(table, setting, machine, save_to)
"""
# The second chapter never runs: without it there is no book to build.
LISTED = [{"name": name, "source": "small", "title": name} for name in ("small", "other")]


def make(
    folder: Path, chapter: str = CHAPTER, listed: list[dict[str, Any]] = LISTED, more: str = ""
) -> Path:
    """A project in a new folder: a notebook with ``more`` parameters, and chapters made of it."""
    shutil.copytree(ROOT / "book", folder / "book", ignore=shutil.ignore_patterns("_build"))
    (folder / "notebooks").mkdir()
    parameters = f"profile = ''\ndevice = ''\nsave_to = ''\njobs = 1\n{more}"
    cells = [
        nbformat.v4.new_markdown_cell("# Any title\n\nText."),
        nbformat.v4.new_code_cell(parameters.strip(), metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(chapter.strip()),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, folder / "notebooks" / "small.ipynb")
    (folder / "notebooks" / "chapters.yml").write_text(yaml.safe_dump(listed))
    return folder


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    """``cappaper reproduce`` in the project, with a cache of the project's own."""
    command = [sys.executable, "-m", "cappaper", "reproduce", "--device", "cpu", "--no-build"]
    command += [*(options or ("--jobs", "1")), "--only", "small"]
    env = os.environ | {"CAPPAPER_CACHE": str(folder / "cache")}
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, cwd=folder, env=env, text=True, **pipe)
