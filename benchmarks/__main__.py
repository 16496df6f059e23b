"""``make bench``: run every contest, and store the tables that the page *How fast* shows."""

from __future__ import annotations

import platform
import statistics
import time
import warnings
from pathlib import Path

import click
import pandas as pd
import torch

from benchmarks import figures
from benchmarks.clock import contest
from benchmarks.works import Bench, bench, growth, works
from cappaper.paper.figures import save as save_figure
from cappaper.paper.publishing import git_commit
from cappaper.paper.tables import markdown_table, save


@click.command()
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--images", default=2000, show_default=True, help="Test images for PGD.")
@click.option("--repeats", default=5, show_default=True, help="Rounds; medians are shown.")
@click.option("--only", default="", help="Contests whose name contains this.")
@click.option("--out", default="book/results", show_default=True, help="Folder of the tables.")
def main(device: str, images: int, repeats: int, only: str, out: str) -> None:
    """Ours and its peers in turns, each at its best batch size, with what each leaves."""
    warnings.filterwarnings("ignore")  # peers' own, about what is beside the point here
    ground = bench(device, images)
    rows = []
    for work, hands in works(ground):
        if only in work:
            rows += contest(work, hands, device, repeats)
    origin = {
        "images": str(images),
        "device": _device(device),
        "torch": torch.__version__,
        "git_commit": git_commit(),
    }
    base, table = Path(out) / f"how-fast-{device}", pd.DataFrame(rows)
    save(table, f"{base}.csv", origin)
    base.with_suffix(".md").write_text(_shown(table, origin), encoding="utf-8")
    save_figure(figures.contests(table), str(base))
    if not only:
        grown = _growth(ground, repeats)
        save(grown, f"{base}-growth.csv", origin)
        save_figure(figures.growth(grown), f"{base}-growth")


def _shown(table: pd.DataFrame, origin: dict[str, str]) -> str:
    """The table as the page includes it, with its provenance underneath."""
    columns = {
        "by": table["who"],
        "seconds": table["seconds"].map("{:.3g}".format),
        "times ours": table["ratio"].map("{:.2f}".format),
        "robust accuracy left": table["left"].map(lambda v: "" if pd.isna(v) else f"{v:.3f}"),
        "at once": table["batch_size"].map(lambda size: str(size or "")),
    }
    shown = markdown_table(pd.DataFrame(columns).set_index(table["work"]), "work")
    told = ", ".join(f"{key} {value}" for key, value in origin.items())
    rounds = f"Medians of {table['repeats'].iloc[0]} rounds, each with a seed of its own"
    error = (
        f"what is left is their mean, with a standard error of at most {table['error'].max():.3f}"
    )
    return f"{shown}\n\n{rounds}; {error}; {told}.\n"


def _growth(ground: Bench, repeats: int) -> pd.DataFrame:
    rows = []
    for what, count, do in growth(ground):
        do()
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            do()
            seconds.append(time.perf_counter() - start)
        rows.append({"what": what, "count": count, "seconds": statistics.median(seconds)})
        print(f"{what}: {count}, {rows[-1]['seconds']:.3g} s", flush=True)
    return pd.DataFrame(rows)


def _device(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()} with {torch.get_num_threads()} threads"


if __name__ == "__main__":
    main()
