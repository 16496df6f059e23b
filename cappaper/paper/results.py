"""Result tables: tidy, on disk as CSV, each with its provenance in its first lines."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from cappaper._version import __version__
from cappaper.data import load
from cappaper.paper.profiles import Profile
from cappaper.paper.workers import jobs

RATES = ("standard_accuracy", "robust_accuracy", "success_rate")


def provenance(profile: Profile, device: str, table: pd.DataFrame) -> dict[str, str]:
    """Where a table comes from: enough to make it again, or to see why it came out otherwise."""
    if device == "cuda":
        name = torch.cuda.get_device_name()
    elif jobs() > 1:
        name = f"{jobs()} processes of 1 thread"
    else:
        name = f"{torch.get_num_threads()} threads"
    return {
        "profile": profile.name,
        "seeds": " ".join(map(str, profile.seeds)),
        "dataset": profile.dataset,
        "dataset_checksum": " ".join(
            load(profile.dataset, s).checksum() for s in ("train", "test")
        ),
        "epochs": str(profile.epochs),
        "adversarial_epochs": str(profile.adversarial_epochs),
        "batch_size": str(profile.batch_size),
        "learning_rate": str(profile.lr),
        "device": f"{device} ({name})",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cappaper": __version__,
        "git_commit": _git_commit(),
        "seconds": f"{table['seconds'].sum():.0f}",
    }


def save(table: pd.DataFrame, path: str | Path, origin: dict[str, str]) -> None:
    """Write a table with its provenance as ``# key: value`` lines on top; ``path`` ends in .csv."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    head = "".join(f"# {key}: {value}\n" for key, value in origin.items())
    path.write_text(head + table.to_csv(index=False, float_format="%.6g", na_rep="nan"))


def publish(table: pd.DataFrame, profile: Profile, device: str, save_to: str) -> pd.DataFrame:
    """A table's provenance, to be shown. The table goes to ``save_to``.csv if that is not empty."""
    origin = provenance(profile, device, table)
    if save_to:
        save(table, f"{save_to}.csv", origin)
    return pd.DataFrame({"provenance": origin})


def glue(**values: Any) -> None:
    """Make numbers and words of a notebook known to the book's prose, without showing them."""
    from myst_nb import glue

    for name, value in values.items():
        # MyST-NB formats the text of a value, and numpy's begins with "np.float64(".
        glue(name, value.item() if isinstance(value, np.generic) else value, display=False)


def read(path: str | Path) -> pd.DataFrame:
    """A table as :func:`save` wrote it, its provenance in ``table.attrs["provenance"]``."""
    lines = Path(path).read_text().splitlines()
    head = [line[2:].split(": ", 1) for line in lines if line.startswith("# ")]
    table: pd.DataFrame = pd.read_csv(path, comment="#", keep_default_na=False, na_values=["nan"])
    table.attrs["provenance"] = dict(head)
    return table


def over_seeds(table: pd.DataFrame, by: Sequence[str], values: Sequence[str]) -> pd.DataFrame:
    """Means over seeds: ``by``, each of ``values``, its ``_spread`` (standard deviation), seeds."""
    groups = table.groupby(list(by), sort=False)[list(values)]
    spread = groups.std().add_suffix("_spread")
    summary: pd.DataFrame = groups.mean().join(spread).assign(seeds=groups.size())
    return summary.reset_index()


def _git_commit() -> str:
    """The commit that the code stands at; "unknown" where it is not a clone of the project."""
    root = Path(__file__).parents[2]

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        if not git("ls-files", "cappaper/paper/results.py"):  # some other project's repository
            return "unknown"
        commit = git("rev-parse", "--short=12", "HEAD")
        # Results are being written while chapters run: only code and notebooks count.
        changed = git("status", "--porcelain", "--untracked-files=no", "cappaper", "notebooks")
        return f"{commit}-dirty" if changed else commit
    except OSError:  # there is no git
        return "unknown"
