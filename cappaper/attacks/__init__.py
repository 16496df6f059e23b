"""Attacks as pure functions, ``attack(model, x, y, eps, ...) -> x_adv``; see ``cappaper``."""
