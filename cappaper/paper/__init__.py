"""All that a notebook of this book imports: networks, judges, tables, figures, claims."""

from cappaper.attacks.autoattack import PARTS
from cappaper.paper import figures
from cappaper.paper.claims import state
from cappaper.paper.experiment import Adversary, Spec, sweep
from cappaper.paper.explorer import attacked_digit, explore
from cappaper.paper.judges import (
    CW,
    FGSM,
    PGD,
    AdaptivePGD,
    AutoAttack,
    Certificate,
    Clean,
    Exact,
    GrowingBalls,
    Noise,
    Strongest,
)
from cappaper.paper.machines import Machine, machine
from cappaper.paper.marks import contradictions
from cappaper.paper.observers import Distances, Masking, Signals, masking_of
from cappaper.paper.profiles import Profile, profile
from cappaper.paper.prose import name_of, say, tabular, told
from cappaper.paper.publishing import glue, publish
from cappaper.paper.results import RATES, STRONGEST, over_seeds, strongest
from cappaper.paper.runner import networks, run, transfers

__all__ = [
    "CW",
    "FGSM",
    "PARTS",
    "PGD",
    "RATES",
    "STRONGEST",
    "AdaptivePGD",
    "Adversary",
    "AutoAttack",
    "Certificate",
    "Clean",
    "Distances",
    "Exact",
    "GrowingBalls",
    "Machine",
    "Masking",
    "Noise",
    "Profile",
    "Signals",
    "Spec",
    "Strongest",
    "attacked_digit",
    "contradictions",
    "explore",
    "figures",
    "glue",
    "machine",
    "masking_of",
    "name_of",
    "networks",
    "over_seeds",
    "profile",
    "publish",
    "run",
    "say",
    "state",
    "strongest",
    "sweep",
    "tabular",
    "told",
    "transfers",
]
