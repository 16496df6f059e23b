"""What a notebook hands on: its table with provenance, and its numbers for the prose."""

from __future__ import annotations

import json
import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from cappaper._version import __version__
from cappaper.data import load
from cappaper.paper.machines import Machine
from cappaper.paper.profiles import Profile
from cappaper.paper.tables import save


def publish(
    table: pd.DataFrame, profile: Profile, machine: Machine, save_to: str, **settings: Any
) -> pd.DataFrame:
    """A table's provenance, to be shown. The table goes to ``save_to``.csv if that is not empty.

    ``settings`` are a chapter's own: those that are not None belong to the provenance.
    """
    own = {name: str(value) for name, value in settings.items() if value is not None}
    origin = provenance(table, profile, machine) | own
    if save_to:
        save(table, f"{save_to}.csv", origin)
    return pd.DataFrame({"provenance": origin})


def provenance(table: pd.DataFrame, profile: Profile, machine: Machine) -> dict[str, str]:
    """Where a table comes from: enough to make it again, or to see why it came out otherwise."""
    checksums = (load(profile.dataset, split).checksum() for split in ("train", "test"))
    return {
        "profile": profile.name,
        "seeds": " ".join(map(str, profile.seeds)),
        "dataset": profile.dataset,
        "dataset_checksum": " ".join(checksums),
        "epochs": str(profile.epochs),
        "adversarial_epochs": str(profile.adversarial_epochs),
        "batch_size": str(profile.batch_size),
        "learning_rate": str(profile.lr),
        "device": str(machine),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cappaper": __version__,
        "git_commit": git_commit(),
        "seconds": f"{table['seconds'].sum():.0f}",
    }


def glue(**values: Any) -> None:
    """Make numbers and words of a notebook known to the book's prose, without showing them."""
    from myst_nb import glue

    for name, value in values.items():
        # MyST-NB formats the text of a value, and numpy's begins with "np.float64(".
        glue(name, value.item() if isinstance(value, np.generic) else value, display=False)


def git_commit(root: Path = Path(__file__).parents[2]) -> str:
    """The commit that the code stands at; "unknown" where it is not a clone of the project."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        if not git("ls-files", "cappaper/paper/publishing.py"):  # some other project's repository
            return "unknown"
        commit = git("rev-parse", "--short=12", "HEAD")
        # Results are being written while chapters run: only code counts, also in notebooks.
        listed = git("diff", "HEAD", "--name-status", "cappaper", "notebooks").splitlines()
        edited = [
            name
            for status, name in (line.split("\t", 1) for line in listed)
            if not (status == "M" and name.endswith(".ipynb"))
            or _code(git("show", f"HEAD:{name}")) != _code((root / name).read_text("utf-8"))
        ]
        return f"{commit}-dirty" if edited else commit
    except OSError:  # there is no git
        return "unknown"


def _code(notebook: str) -> list[str]:
    """The sources of a notebook's cells, without what it printed."""
    return ["".join(cell["source"]) for cell in json.loads(notebook)["cells"]]
