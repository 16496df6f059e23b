"""``python -m tests.referee``: the strongest attack beside AutoAttack as its authors wrote it."""

import re
import warnings
from pathlib import Path

import click
import pandas as pd
import torch
from pyautoattack import AutoAttack
from tqdm import tqdm

from cappaper import PRETRAINED, Dataset, load, masking_report, pretrained, strongest_attack
from cappaper.attacks.common import is_correct
from cappaper.models import about
from cappaper.paper.publishing import git_commit
from cappaper.paper.tables import markdown_table, save


@click.command()
@click.option("--images", default=500, show_default=True, help="Test images of MNIST.")
@click.option("--out", default="book/results", show_default=True, help="Folder of the table.")
def main(images: int, out: str) -> None:
    """Attack every network that comes with the package, at the ε of its chapter."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")  # AutoAttack warns of zero gradients
    test = load("mnist", "test", limit=images)
    table = pd.DataFrame([compared(name, test) for name in tqdm(PRETRAINED)])
    origin = {"images": str(images), "torch": torch.__version__, "git_commit": git_commit()}
    save(table, Path(out) / "referee.csv", origin)
    provenance = ", ".join(f"{key} {value}" for key, value in origin.items())
    text = f"{markdown_table(table.set_index('network'), 'network')}\n\n"
    text += f"Shares of the test images on which the network is robust; {provenance}.\n"
    (Path(out) / "referee.md").write_text(text, encoding="utf-8")
    print(text)


def compared(name: str, test: Dataset) -> dict[str, str | float]:
    """The robust accuracy of a network under each of the two, and under both."""
    trained_at = re.search(r"ε = ([\d.]+)", about(name)["training"])
    net, eps = pretrained(name), float(trained_at[1]) if trained_at else 0.1
    _, adversarial, training = name.partition("-adversarial")
    relu = f"relu{adversarial}{training}"
    twins = [pretrained(relu)] if name != relu else []
    attack = AutoAttack(net, norm="Linf", eps=eps, seed=0, device="cpu")
    with torch.random.fork_rng():
        theirs = attack.run_standard_evaluation(*test, batch_size=len(test.labels))[0]
    ours = strongest_attack(net, *test, eps, twins=twins)
    correct = [is_correct(net, x, test.labels) for x in (test.images, ours, theirs)]
    kept = [c.double().mean().item() for c in (*correct, correct[1] & correct[2])]
    names = ("no attack", "strongest_attack", "AutoAttack", "both")
    signs = {"signs of masking": str(len(masking_report(net, *test, eps).signs()))}
    return {"network": name, "ε": f"{eps:g}", **dict(zip(names, kept, strict=True)), **signs}


if __name__ == "__main__":
    main()
