"""The networks that the package brings along: which they are, and how they are written."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cappaper.paper.experiment import Adversary, Spec, sweep
from cappaper.paper.machines import Machine
from cappaper.paper.profiles import profile
from cappaper.paper.runner import networks
from cappaper.zoo import store

CAPS = {"relu": math.inf, "cap-1": 1.0, "cap-0.2": 0.2, "cap-0.05": 0.05}
ADVERSARIAL = {"relu": math.inf, "cap-1": 1.0, "cap-0.5": 0.5, "cap-0.2": 0.2}
NEAR = {"relu": math.inf, "cap-1": 1.0}  # the same at ε = 0.1


def specs() -> dict[str, Spec]:
    """Each network under its name: seed 0 of the chapters that they are from."""
    found = _named("{}", CAPS, 10, None)
    # Those of the two chapters that train for longer.
    found |= _named("{}-adversarial", ADVERSARIAL, 40, Adversary(0.3, ramp=0.25))
    return found | _named("{}-adversarial-0.1", NEAR, 20, Adversary(0.1, ramp=0.25))


def _named(
    name: str, betas: dict[str, float], epochs: int, adversary: Adversary | None
) -> dict[str, Spec]:
    setting = profile("paper", epochs=epochs)
    trained = sweep(setting, betas=list(betas.values()), seeds=[0], adversary=adversary)
    return dict(zip(map(name.format, betas), trained, strict=True))


def write(folder: Path, machine: Machine) -> Iterator[Path]:
    """Train what is not trained yet, and write all of it to ``folder``."""
    listed = specs()
    for (name, spec), model in zip(
        listed.items(), networks(list(listed.values()), machine), strict=True
    ):
        yield store(name, model.cpu().state_dict(), about(spec), folder)


def about(spec: Spec) -> dict[str, Any]:
    """What a reader wants to know of a network, in values that JSON can write."""
    against = spec.adversary
    how = f"PGD-{against.steps} at ε = {against.eps:g}" if against else "standard"
    return {
        "dataset": spec.dataset,
        "hidden": list(spec.hidden),
        "beta": ["inf" if math.isinf(beta) else beta for beta in spec.beta],
        "training": f"{how}, {spec.epochs} epochs",
        "seed": spec.seed,
    }
