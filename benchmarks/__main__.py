"""``make bench``: run every contest, and store the tables that the page *How fast* shows."""

from __future__ import annotations

import platform
import warnings
from pathlib import Path

import click
import pandas as pd
import torch

from benchmarks import figures
from benchmarks.clock import contest
from benchmarks.works import bench, growth, works
from cappaper.paper.figures.parts import save as save_figure
from cappaper.paper.publishing import git_commit
from cappaper.paper.tables import markdown_table, save


@click.command()
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--images", default=2000, show_default=True, help="Test images for PGD.")
@click.option("--repeats", default=5, show_default=True, help="Rounds; medians are shown.")
@click.option("--only", default="", help="Contests whose name contains this.")
@click.option("--out", default="book/results", show_default=True, help="Folder of the tables.")
def main(device: str, images: int, repeats: int, only: str, out: str) -> None:
    """This package and its peers in turns, each at its best batch size."""
    warnings.filterwarnings("ignore")  # peers' own
    setting = bench(device)
    chosen = [(work, hands) for work, hands in works(setting, images) if only in work]
    table = pd.concat([contest(*one, repeats) for one in chosen], ignore_index=True)
    processor = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    origin = {
        "images": str(images),
        "device": torch.cuda.get_device_name() if device == "cuda" else processor,
        "torch": torch.__version__,
        "git_commit": git_commit(),
    }
    base = Path(out) / f"how-fast-{device}"
    save(table, f"{base}.csv", origin)
    base.with_suffix(".md").write_text(page(table, origin), encoding="utf-8")
    save_figure(figures.contests(table), str(base))
    if not only:
        grown = growth(setting, repeats)
        save(grown, f"{base}-growth.csv", origin)
        save_figure(figures.growth(grown), f"{base}-growth")


def page(table: pd.DataFrame, origin: dict[str, str]) -> str:
    """The table as the book includes it, with its provenance underneath."""
    columns = {
        "by": table["who"],
        "seconds": table["seconds"].map("{:.3g}".format),
        "times ours": table["ratio"].map("{:.2f}".format),
        "robust accuracy left": table["left"].map(lambda v: "" if pd.isna(v) else f"{v:.3f}"),
        "at once": table["batch_size"].map(lambda size: str(size or "")),
    }
    shown = markdown_table(pd.DataFrame(columns).set_index(table["work"]), "work")
    provenance = ", ".join(f"{key} {value}" for key, value in origin.items())
    return (
        f"{shown}\n\nMedians of {table['repeats'].iloc[0]} rounds, each with a seed of its own;"
        " the robust accuracy left is their mean, with a standard error of at most"
        f" {table['error'].max():.3f}; {provenance}.\n"
    )


if __name__ == "__main__":
    main()
