"""Capped ReLU under attack: activations, populations of networks, attacks, training, evaluation.

The reproducible paper around *Is ReLU Adversarially Robust?* (Sooksatra, Hamerly and Rivas,
arXiv 2405.03777) is built on the names below. Attacks and evaluation take any torch classifier.
"""

import pkgutil
import warnings

from cappaper._version import __version__
from cappaper.activations import (
    Bounded,
    CappedReLU,
    ScaledSigmoid,
    capped_relu,
    register_bounded,
    replace_relu,
)
from cappaper.attacks.auto_pgd import apgd, cw_l2
from cappaper.attacks.pgd import adaptive_pgd, fgsm, pgd
from cappaper.attacks.square import square
from cappaper.attacks.strongest import auto_attack, strongest_attack
from cappaper.certificates.bounds import certified_accuracy, certify
from cappaper.certificates.exact import exact_robustness
from cappaper.data import Dataset, load
from cappaper.evaluation import Rates, evaluate, is_robust, robustness_curve
from cappaper.masking import Indicator, MaskingReport, masking_report
from cappaper.models import PRETRAINED, convnet, mlp, pretrained, rescale
from cappaper.population import Population
from cappaper.report import RobustnessReport, robustness_report
from cappaper.surrogate import surrogate_gradient
from cappaper.training import fit

# fmt: off
__all__ = [  # noqa: RUF022
    # the activation, and networks
    "CappedReLU", "ScaledSigmoid", "capped_relu", "replace_relu", "mlp", "convnet", "rescale",
    "Population", "PRETRAINED", "pretrained", "Dataset", "load",
    # training and evaluation
    "fit", "Rates", "evaluate", "robustness_curve", "is_robust",
    # attacks
    "fgsm", "pgd", "adaptive_pgd", "apgd", "square", "cw_l2", "auto_attack", "strongest_attack",
    "Bounded", "register_bounded", "surrogate_gradient",
    # what to believe: certificates, masked gradients
    "certify", "certified_accuracy", "exact_robustness", "RobustnessReport", "robustness_report",
    "Indicator", "MaskingReport", "masking_report",
    "__version__",
]
# fmt: on

_MOVED = {  # names of the previous version, which the next one will not have
    "standing": "cappaper.is_robust",
    "exact_gradient": "contextlib.nullcontext",
    "layer_distances": "cappaper.paper.observers.layer_distances",
    "layer_signals": "cappaper.paper.observers.layer_signals",
}


def __getattr__(name: str) -> object:
    if name not in _MOVED:
        raise AttributeError(f"module 'cappaper' has no attribute {name!r}")
    warnings.warn(f"cappaper.{name} is now {_MOVED[name]}", DeprecationWarning, stacklevel=2)
    return pkgutil.resolve_name(_MOVED[name])
