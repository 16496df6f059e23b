"""The sizes of the chapters' experiments: quick ones on digits, and the paper's on MNIST."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from cappaper import checks


@dataclass(frozen=True)
class Profile:
    """The sizes of an experiment, by default of a quick one; chapters add everything else."""

    name: str = "quick"
    dataset: str = "digits"
    hidden: tuple[int, ...] = (128, 64)
    epochs: int = 20
    adversarial_epochs: int = 10  # an epoch of adversarial training costs seven times as much
    batch_size: int = 64
    lr: float = 3e-3
    seeds: tuple[int, ...] = (0, 1)
    betas: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, math.inf)  # max values, ascending
    constants: tuple[float, ...] = (1.0, 4.0, 10.0, 40.0, 100.0, 400.0)  # of the sigmoid family
    epsilons: tuple[float, ...] = (0.05, 0.1, 0.2)  # L∞ radii, ascending
    steps: int = 40  # of PGD
    limit: int | None = None  # test images; None: all
    effort: int = 1  # the factor in epochs and steps


PROFILES = {
    "quick": Profile(),
    "paper": Profile(
        name="paper",
        dataset="mnist",
        hidden=(300, 100),
        epochs=10,
        adversarial_epochs=6,
        batch_size=128,
        lr=1e-3,
        seeds=(0, 1, 2, 3, 4),
        betas=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, math.inf),
        constants=(1.0, 4.0, 10.0, 20.0, 40.0, 100.0, 200.0, 400.0),
        epsilons=(0.05, 0.1, 0.2, 0.3),
    ),
}


def profile(name: str = "quick", **changes: Any) -> Profile:
    """``"quick"`` (embedded digits) or ``"paper"`` (MNIST), with single fields changed.

    None keeps the profile's value, and lists become tuples. ``epochs`` sets both trainings, unless
    ``adversarial_epochs`` is given too. ``effort`` is multiplied with epochs and steps.

    >>> profile("quick", epochs=3, seeds=[7]).seeds
    (7,)
    """
    checks.one_of(name, tuple(PROFILES), "profile")
    lists = {k: tuple(v) for k, v in changes.items() if isinstance(v, list)}
    given: dict[str, Any] = {k: v for k, v in (changes | lists).items() if v is not None}
    if "epochs" in given:
        given = {"adversarial_epochs": given["epochs"], **given}
    base = dataclasses.replace(PROFILES[name], **given)
    checks.count(base.effort, "effort")
    longer = ("epochs", "adversarial_epochs", "steps")
    return dataclasses.replace(base, **{k: base.effort * getattr(base, k) for k in longer})
