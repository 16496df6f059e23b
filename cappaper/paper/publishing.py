"""The results of a notebook: its table with provenance, and numbers for the prose."""

import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from cappaper._version import __version__
from cappaper.paper.experiment import Profile
from cappaper.paper.machines import Machine
from cappaper.paper.runner import checksum
from cappaper.paper.tables import save


def publish(
    table: pd.DataFrame, profile: Profile, machine: Machine, save_to: str, **settings: Any
) -> pd.DataFrame:
    """Return a table's provenance, to be shown. Unless ``save_to`` is empty, write ``save_to``.csv.

    ``settings`` are a chapter's own: those that are not None belong to the provenance.
    """
    checksums = (checksum(profile.dataset, split) for split in ("train", "test"))
    origin = {
        "profile": profile.name,
        "seeds": " ".join(map(str, profile.seeds)),
        "dataset": profile.dataset,
        "dataset_checksum": " ".join(checksums),
        "epochs": profile.epochs,
        "adversarial_epochs": profile.adversarial_epochs,
        "batch_size": profile.batch_size,
        "learning_rate": profile.lr,
        "device": machine,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cappaper": __version__,
        "git_commit": git_commit(),
        "seconds": f"{table['seconds'].sum():.0f}",
    }
    shown = {name: str(v) for name, v in (origin | settings).items() if v is not None}
    if save_to:
        save(table, f"{save_to}.csv", shown)
    return pd.DataFrame({"provenance": shown})


def glue(**values: Any) -> None:
    """Pass numbers and words of a notebook to the book's prose, without showing them."""
    from myst_nb import glue

    for name, value in values.items():
        # MyST-NB shows the repr of a value, and numpy's begins with "np.float64(".
        glue(name, value.item() if isinstance(value, np.generic) else value, display=False)


def git_commit(root: Path = Path(__file__).parents[2]) -> str:
    """The commit of the code, ``-dirty`` if code is edited; "unknown" outside a clone."""

    def git(arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", *arguments.split()], cwd=root, capture_output=True, text=True)

    # A copy inside another project's repository has no commit of its own.
    if not (shutil.which("git") and (root / ".git").exists()):
        return "unknown"
    # Edits in book/ do not count: chapters write their results there while they run.
    edited = git("diff --quiet HEAD -- cappaper notebooks").returncode
    return git("rev-parse --short=12 HEAD").stdout.strip() + "-dirty" * (edited != 0)
