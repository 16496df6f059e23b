"""What an attack does to a network: three rates, and a curve of them over ε."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from cappaper import checks
from cappaper.attacks.common import Attack, is_correct
from cappaper.population import Population, members

Batches = Iterable[tuple[Tensor, Tensor]]
"""Images and labels batch by batch, as a ``torch.utils.data.DataLoader`` gives them."""


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
    model: nn.Module,
    x: Tensor | Batches,
    y: Tensor | Attack,
    attack: Attack | None = None,
    *,
    batch_size: int = 2048,
) -> Rates:
    """Standard accuracy, robust accuracy and success rate under an attack.

    Call it as ``evaluate(model, x, y, attack)``, or as ``evaluate(model, loader, attack)``.

    Args:
        model: one classifier, or a :class:`~cappaper.Population`, whose members are attacked one by
            one; in eval mode, and as it was afterwards.
        x: images ``[N, ...]`` in [0, 1], on the model's device; or a
            ``torch.utils.data.DataLoader`` of images and labels, which are moved there.
        y: int64 labels ``[N]``.
        attack: ``attack(model, x, y) -> x_adv``, for example ``partial(pgd, eps=0.1)``.
        batch_size: examples attacked at once; a loader brings its own.

    Raises:
        TypeError, ValueError: as :func:`~cappaper.pgd`; or the attack does not return finite images
            of the same shape in [0, 1], or leaves the ball of an ``eps`` that a ``partial`` binds.

    >>> from functools import partial
    >>> from cappaper import load, mlp, pgd
    >>> evaluate(mlp(64, [32]), *load("digits", "test"), partial(pgd, eps=1.0)).robust_accuracy
    0.0
    """
    checks.count(batch_size, "batch_size")
    if isinstance(x, Tensor) or isinstance(y, Tensor):
        if attack is None:
            raise TypeError("evaluate needs an attack: evaluate(model, x, y, attack)")
        batches: Batches = _split(cast(Tensor, x), cast(Tensor, y), batch_size)
    else:
        batches, attack = x, y if attack is None else attack
    return _curve(model, batches, [attack])[0]


class EpsAttack(Protocol):
    """An attack whose radius is still open: ``attack(model, x, y, eps=...) -> x_adv``."""

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

    The balls are nested, so an example that fails at one ε is not attacked again at the next.

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
    checks.count(batch_size, "batch_size")
    epsilons = checks.sequence(epsilons, "epsilons", "radii")
    for eps in epsilons:
        checks.eps(eps)
    checks.ascending(epsilons, "epsilons")
    batches = _split(x, y, batch_size)
    return _curve(model, batches, [partial(attack, eps=eps) for eps in epsilons])


def is_robust(
    model: nn.Module, x: Tensor, y: Tensor, attacks: Sequence[Attack], *, batch_size: int = 2048
) -> Tensor:
    """Which examples one classifier gets right, before any attack and after each.

    A success counts for every later attack too, and such an example is not attacked again.

    Args:
        model, x, y, batch_size: as :func:`evaluate`.
        attacks: each ``attack(model, x, y) -> x_adv``.

    Returns:
        Booleans ``[1 + len(attacks), N]``; the first row is standard accuracy's.

    Raises:
        TypeError, ValueError: as :func:`evaluate`.

    >>> from functools import partial
    >>> from cappaper import load, mlp, pgd
    >>> is_robust(mlp(64, [32]), *load("digits", "test"), [partial(pgd, eps=1.0)]).sum(1)[1].item()
    0
    """
    checks.count(batch_size, "batch_size")
    checks.module(model)
    attacks = checks.sequence(attacks, "attacks", "attacks", empty=True)
    return torch.cat([_is_robust(model, *b, attacks) for b in _split(x, y, batch_size)], dim=1)


def _split(x: Tensor, y: Tensor, batch_size: int) -> Batches:
    checks.batch(x, y)
    return zip(x.split(batch_size), y.split(batch_size), strict=True)


def _curve(model: nn.Module, batches: Batches, attacks: Sequence[Attack]) -> list[Rates]:
    """The rates after each attack; lists of them for a population."""
    checks.module(model)
    for attack in attacks:
        checks.function(attack, "the attack")
    networks, results = members(model), []
    for x, y in batches:
        checks.batch(x, y)
        results.append(torch.stack([_is_robust(one, x, y, attacks) for one in networks]))
    if not results:
        raise ValueError("there are no images: the loader gave no batch")
    robust = torch.cat(results, dim=2)  # [members, 1 + attacks, images]
    correct, *left = robust.sum(2).T.tolist()
    curve = []
    for after in left:
        success = [1 - n / c if c else 0.0 for n, c in zip(after, correct, strict=True)]
        shares = [[n / robust.shape[2] for n in counts] for counts in (correct, after)]
        columns = (*shares, success)
        curve.append(Rates(*columns if isinstance(model, Population) else (c[0] for c in columns)))
    return curve


def _is_robust(model: nn.Module, x: Tensor, y: Tensor, attacks: Sequence[Attack]) -> Tensor:
    """:func:`is_robust` for one batch that was checked, on the model's device."""
    device = next((p.device for p in model.parameters()), x.device)
    x, y = x.to(device), y.to(device)
    with in_eval_mode(model):
        robust = is_correct(model, x, y)
        rows = [robust]
        for attack in attacks:
            left = robust.nonzero().squeeze(1)
            if len(left):
                images, labels = x[left], y[left]
                adversarial = attack(model, images, labels)
                checks.adversarial(adversarial, images)
                _check_inside(adversarial, images, attack)
                robust = robust.index_copy(0, left, is_correct(model, adversarial, labels))
            rows.append(robust)
    return torch.stack(rows)


def _check_inside(adversarial: Tensor, x: Tensor, attack: Any) -> None:
    """Refuse examples outside the ball whose radius a ``partial`` binds."""
    eps = attack.keywords.get("eps") if isinstance(attack, partial) else None
    # In an L2 ball no pixel moves further than in the L∞ ball; the rest is rounding.
    if eps is not None and (moved := (adversarial - x).abs().amax().item()) > float(eps) + 1e-4:
        raise ValueError(f"the attack left its ball: a pixel moved by {moved:.4g}, ε is {eps:g}")


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Every module is in eval mode inside the block, and in its own mode after it."""
    templates = [m.template for m in model.modules() if isinstance(m, Population)]
    parts = [part for m in (model, *templates) for part in m.modules()]
    before = [(part, part.training) for part in parts]
    model.eval()
    try:
        yield
    finally:
        for part, training in before:
            part.training = training
