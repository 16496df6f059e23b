"""Capped ReLU under attack: activations, populations of networks, attacks, training, evaluation.

The reproducible paper around *Is ReLU Adversarially Robust?* (Sooksatra, Hamerly and Rivas,
arXiv 2405.03777) is built on the names below; all of them work on any torch classifier.

>>> import cappaper
>>> net = cappaper.mlp(64, [128, 64], beta=0.1)
>>> digits = cappaper.load("digits", "test", limit=100)
>>> adversarial = cappaper.pgd(net, *digits, eps=0.1)
>>> adversarial.shape
torch.Size([100, 1, 8, 8])
"""

from cappaper._version import __version__
from cappaper.activations import CappedReLU, ScaledSigmoid, capped_relu, replace_relu
from cappaper.attacks import (
    adaptive_pgd,
    apgd,
    auto_attack,
    cw_l2,
    fgsm,
    pgd,
    square,
    strongest_attack,
)
from cappaper.bounded import Bounded, exact_gradient, register_bounded
from cappaper.certificates import certified_accuracy, certify, exact_robustness
from cappaper.data import Dataset, load
from cappaper.deprecated import renamed
from cappaper.evaluation import Rates, evaluate, is_robust, robustness_curve
from cappaper.inspection import layer_distances, layer_signals
from cappaper.masking import Indicator, MaskingReport, masking_report
from cappaper.models import convnet, mlp, rescale
from cappaper.population import Population
from cappaper.report import RobustnessReport, robustness_report
from cappaper.surrogate import surrogate_gradient
from cappaper.training import fit
from cappaper.zoo import PRETRAINED, pretrained

__all__ = [
    "PRETRAINED",
    "Bounded",
    "CappedReLU",
    "Dataset",
    "Indicator",
    "MaskingReport",
    "Population",
    "Rates",
    "RobustnessReport",
    "ScaledSigmoid",
    "__version__",
    "adaptive_pgd",
    "apgd",
    "auto_attack",
    "capped_relu",
    "certified_accuracy",
    "certify",
    "convnet",
    "cw_l2",
    "evaluate",
    "exact_gradient",
    "exact_robustness",
    "fgsm",
    "fit",
    "is_robust",
    "layer_distances",
    "layer_signals",
    "load",
    "masking_report",
    "mlp",
    "pgd",
    "pretrained",
    "register_bounded",
    "replace_relu",
    "rescale",
    "robustness_curve",
    "robustness_report",
    "square",
    "strongest_attack",
    "surrogate_gradient",
]

__getattr__ = renamed(__name__, {"standing": "is_robust"})
