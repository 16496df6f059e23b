"""What an attack does to a network: three rates, and a curve of them over ε."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from cappaper.attacks.gradient import Attack, classified
from cappaper.checks import check_batch, check_count, check_eps
from cappaper.population import Population, members


@dataclass(frozen=True)
class Rates:
    """Shares of examples, each a number, or one number per member of a population.

    ``standard_accuracy``: classified correctly. ``robust_accuracy``: classified correctly before
    and after the attack. ``success_rate``: among those classified correctly, the share that the
    attack turns wrong (0 where there are none).
    """

    standard_accuracy: float | list[float]
    robust_accuracy: float | list[float]
    success_rate: float | list[float]


def evaluate(
    model: nn.Module, x: Tensor, y: Tensor, attack: Attack, *, batch_size: int = 2048
) -> Rates:
    """Standard accuracy, robust accuracy and success rate under an attack.

    Args:
        model: one classifier, or a :class:`~cappaper.population.Population`; attacked in eval mode.
        x: images ``[N, ...]`` in [0, 1], on the model's device.
        y: int64 labels ``[N]``.
        attack: ``attack(model, x, y) -> x_adv``, for example ``partial(pgd, eps=0.1)``.
        batch_size: examples attacked at once.

    Raises:
        TypeError, ValueError: as :func:`~cappaper.attacks.gradient.pgd`.

    >>> from functools import partial
    >>> from cappaper import load, mlp, pgd
    >>> evaluate(mlp(64, [32]), *load("digits", "test"), partial(pgd, eps=1.0)).robust_accuracy
    0.0
    """
    check_batch(x, y)
    check_count(batch_size, "batch_size")
    return _merge(model, [_curve(m, x, y, [attack], batch_size) for m in members(model)])[0]


class EpsAttack(Protocol):
    """An attack that still wants its radius: ``attack(model, x, y, eps=...) -> x_adv``."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, eps: float) -> Tensor: ...


def robustness_curve(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attack: EpsAttack,
    epsilons: Sequence[float],
    *,
    batch_size: int = 2048,
) -> list[Rates]:
    """:func:`evaluate` at growing ε, where a success counts for every larger ε too.

    The balls are nested, so an example that fell at one ε need not be attacked again at the next.

    Args:
        model, x, y, batch_size: as :func:`evaluate`.
        attack: ``attack(model, x, y, eps=...) -> x_adv``, for example ``partial(pgd, steps=40)``.
        epsilons: radii in ascending order.

    Returns:
        The rates at each ε.

    Raises:
        TypeError, ValueError: as :func:`evaluate`; or radii that are negative or not ascending.

    >>> from cappaper import load, mlp, pgd
    >>> curve = robustness_curve(mlp(64, [32]), *load("digits", "test"), pgd, [0.0, 1.0])
    >>> [rates.success_rate for rates in curve]
    [0.0, 1.0]
    """
    check_batch(x, y)
    check_count(batch_size, "batch_size")
    for eps in epsilons:
        check_eps(eps)
    if list(epsilons) != sorted(epsilons):
        raise ValueError(f"epsilons must ascend, got {list(epsilons)}")
    attacks = [partial(attack, eps=eps) for eps in epsilons]
    return _merge(model, [_curve(m, x, y, attacks, batch_size) for m in members(model)])


def _curve(
    model: nn.Module, x: Tensor, y: Tensor, attacks: Sequence[Attack], batch_size: int
) -> list[Rates]:
    """Rates of one member after each attack, on the examples that the attacks before left.

    Member by member: examples fall at different steps in different members, so a member alone
    keeps no other's examples waiting, and its result cannot depend on its company.
    """
    was_training = model.training
    model.eval()
    correct, left = 0, [0] * len(attacks)
    for images, labels in zip(torch.split(x, batch_size), torch.split(y, batch_size), strict=True):
        stands = classified(model, images, labels)
        correct += int(stands.sum())
        for i, attack in enumerate(attacks):
            images, labels = images[stands], labels[stands]
            if len(labels) == 0:
                break
            stands = classified(model, attack(model, images, labels), labels)
            left[i] += int(stands.sum())
    model.train(was_training)
    return [Rates(correct / len(y), n / len(y), 1 - n / correct if correct else 0.0) for n in left]


def _merge(model: nn.Module, curves: list[list[Rates]]) -> list[Rates]:
    """Curves of a population's members as one curve of lists; that of a single model as it is."""
    if not isinstance(model, Population):
        return curves[0]
    return [
        Rates(*([getattr(rates, field.name) for rates in row] for field in fields(Rates)))
        for row in zip(*curves, strict=True)
    ]
