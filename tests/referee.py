"""``make referee``: the strongest attack, and AutoAttack as its authors wrote it, side by side."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import click
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from cappaper import PRETRAINED, Dataset, load, masking_report, pretrained, strongest_attack
from cappaper.attacks.common import is_correct
from cappaper.paper.publishing import git_commit
from cappaper.paper.tables import markdown_table, save
from cappaper.zoo import about


@click.command()
@click.option("--images", default=500, show_default=True, help="Test images of MNIST.")
@click.option("--out", default="book/results", show_default=True, help="Folder of the table.")
def main(images: int, out: str) -> None:
    """Attack every network that the package brings along, at the ε of its chapter."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")  # the referee's: it doubts zero gradients
    test = load("mnist", "test", limit=images)
    rows = [compared(name, test) for name in tqdm(PRETRAINED)]
    origin = {"images": str(images), "torch": torch.__version__, "git_commit": git_commit()}
    table = pd.DataFrame(rows)
    save(table, Path(out) / "referee.csv", origin)
    shown = markdown_table(table.set_index("network"), "network")
    told = ", ".join(f"{key} {value}" for key, value in origin.items())
    text = f"{shown}\n\nShares of the test images that withstand; {told}.\n"
    (Path(out) / "referee.md").write_text(text, encoding="utf-8")
    print(shown)


def compared(name: str, test: Dataset) -> dict[str, str | float]:
    """What each of the two leaves of a network, and what both together leave."""
    against = re.search(r"ε = ([\d.]+)", about(name)["training"])
    net, eps = pretrained(name), float(against[1]) if against else 0.1
    _, marked, training = name.partition("-adversarial")
    relu = f"relu{marked}{training}"
    twins = [pretrained(relu)] if name != relu else []
    ours = is_correct(net, strongest_attack(net, *test, eps, twins=twins), test.labels)
    theirs = is_correct(net, standard_version(net, *test, eps), test.labels)
    signs = masking_report(net, *test, eps).signs()
    return {
        "network": name,
        "ε": f"{eps:g}",
        "no attack": share(is_correct(net, *test)),
        "strongest attack": share(ours),
        "AutoAttack": share(theirs),
        "both": share(ours & theirs),
        "signs of masking": str(len(signs)),
    }


def standard_version(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    from pyautoattack import AutoAttack

    attack = AutoAttack(model, norm="Linf", eps=eps, seed=0, device="cpu")
    with torch.random.fork_rng():
        found: Tensor = attack.run_standard_evaluation(x, y, batch_size=len(x))[0]
    return found


def share(stands: Tensor) -> float:
    return stands.double().mean().item()


if __name__ == "__main__":
    main()
