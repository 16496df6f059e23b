"""All that a notebook of this book imports: networks, judges, tables, figures, claims."""

from cappaper.attacks.autoattack import PARTS
from cappaper.deprecated import renamed
from cappaper.paper import figures
from cappaper.paper.claims import show_verdicts
from cappaper.paper.experiment import Adversary, Spec, sweep
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
    SmoothPGD,
    Strongest,
)
from cappaper.paper.machines import Machine, machine
from cappaper.paper.observers import Distances, Masking, Signals, masking_of
from cappaper.paper.profiles import Profile, profile
from cappaper.paper.publishing import glue, publish
from cappaper.paper.runner import networks, run, transfers
from cappaper.paper.tables import (
    RATES,
    STRONGEST,
    contradictions,
    format_mean_sd,
    markdown_table,
    network_name,
    over_seeds,
    show_markdown,
    strongest,
)
from cappaper.paper.widgets import attacked_digit, explore

__all__ = [  # noqa: RUF022 (by job)
    # networks, and where they are trained
    "Adversary", "Machine", "Profile", "Spec", "machine", "networks", "profile", "sweep",
    # judges, and tables of what they find
    "CW", "FGSM", "PARTS", "PGD", "AdaptivePGD", "AutoAttack", "Certificate", "Clean",
    "Distances", "Exact", "GrowingBalls", "Masking", "Noise", "Signals", "SmoothPGD",
    "Strongest",
    "RATES", "STRONGEST", "contradictions", "masking_of", "over_seeds", "run", "strongest",
    "transfers",
    # what a chapter shows and publishes
    "attacked_digit", "explore", "figures", "format_mean_sd", "glue", "markdown_table",
    "network_name", "publish", "show_markdown", "show_verdicts",
]  # fmt: skip

RENAMED = {"say": "show_markdown", "told": "format_mean_sd", "name_of": "network_name"}
RENAMED |= {"tabular": "markdown_table", "state": "show_verdicts"}
__getattr__ = renamed(__name__, RENAMED)
