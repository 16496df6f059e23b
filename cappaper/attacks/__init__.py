"""Attacks as pure functions, ``attack(model, x, y, eps, ...) -> x_adv``."""

from cappaper.attacks.auto_pgd import apgd
from cappaper.attacks.autoattack import auto_attack
from cappaper.attacks.carlini_wagner import cw_l2
from cappaper.attacks.pgd import adaptive_pgd, fgsm, pgd
from cappaper.attacks.square import square
from cappaper.attacks.strongest import strongest_attack
from cappaper.surrogate import surrogate_gradient

__all__ = [
    "adaptive_pgd",
    "apgd",
    "auto_attack",
    "cw_l2",
    "fgsm",
    "pgd",
    "square",
    "strongest_attack",
    "surrogate_gradient",
]
