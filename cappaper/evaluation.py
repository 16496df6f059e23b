"""What an attack does to a network: three rates, and a curve of them over ε."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cappaper import checks
from cappaper.attacks import common
from cappaper.attacks.common import Attack
from cappaper.population import Population, members, set_mode
from cappaper.progress import Progress, watched

Batches = Iterable[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Rates:
    """Shares of examples, each a number, or one number per member of a population.

    ``standard_accuracy``: correct. ``robust_accuracy``: correct before and after the attack.
    ``success_rate``: turned wrong by the attack, among the correct ones (0 if there are none).
    """

    standard_accuracy: float | list[float]
    robust_accuracy: float | list[float]
    success_rate: float | list[float]

    def __str__(self) -> str:
        """A line of percentages; one for each member of a population."""
        rows = torch.tensor(astuple(self)).reshape(3, -1).T.tolist()
        line = "standard accuracy {:.1%}, robust accuracy {:.1%}, success rate {:.1%}"
        return "\n".join(line.format(*row) for row in rows)


def evaluate(
    model: nn.Module,
    x: Tensor | Batches,
    y: Tensor | Attack,
    attack: Attack | None = None,
    *,
    batch_size: int = 2048,
    progress: Progress | None = None,
) -> Rates:
    """Standard accuracy, robust accuracy and success rate under an attack.

    Call it as ``evaluate(model, x, y, attack)``, or as ``evaluate(model, loader, attack)``.

    Args:
        model: a classifier, or a :class:`~cappaper.Population`, whose members are attacked in turn.
        x: images ``[N, ...]`` in [0, 1]; or a ``torch.utils.data.DataLoader`` of images and labels.
        y: int64 labels ``[N]``.
        attack: ``attack(model, x, y) -> x_adv``, for example ``partial(pgd, eps=0.1)``.
        batch_size, progress: as :func:`~cappaper.pgd`; a loader has its own batches.

    The model runs in eval mode. If it is stochastic, the mean of its probabilities over 64 passes
    is evaluated. NaN logits count as misclassified before the attack, and as not fooled after it.

    Warns:
        ReliabilityWarning: as :func:`~cappaper.pgd`.

    Raises:
        TypeError, ValueError: as :func:`~cappaper.pgd`; or the attack returns no images in [0, 1],
            leaves the ball of an ``eps`` that a ``partial`` binds, or is targeted.

    >>> from cappaper import load, mlp, pgd
    >>> evaluate(mlp(64, [32]), *load("digits", "test"), partial(pgd, eps=1.0)).robust_accuracy
    0.0
    """
    if isinstance(x, Tensor) or isinstance(y, Tensor):
        return _curve(model, _split(x, y, batch_size, progress), [attack])[0]
    return _curve(model, watched(x, progress, "batches"), [y if attack is None else attack])[0]


def robustness_curve(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attack: Callable[..., Tensor],
    epsilons: Sequence[float],
    *,
    batch_size: int = 2048,
    progress: Progress | None = None,
) -> list[Rates]:
    """:func:`evaluate` at each of ``epsilons``, radii of at least 0 that ascend.

    Arguments and errors are the same, but ``attack(model, x, y, eps=...) -> x_adv`` takes ``eps``.
    A success also counts for every larger ε, whose ball contains it, and is not attacked again.

    >>> from cappaper import load, mlp, pgd
    >>> curve = robustness_curve(mlp(64, [32]), *load("digits", "test"), pgd, [0.0, 1.0])
    >>> [rates.success_rate for rates in curve]
    [0.0, 1.0]
    """
    epsilons = checks.sequence(epsilons, "epsilons", "radii", ascending=True)
    checks.eps(epsilons[0])
    attacks = [partial(attack, eps=eps) for eps in epsilons]
    return _curve(model, _split(x, y, batch_size, progress), attacks)


def is_robust(
    model: nn.Module, x: Tensor, y: Tensor, attacks: Sequence[Attack], *, batch_size: int = 2048
) -> Tensor:
    """Which examples one classifier gets right, as booleans ``[1 + len(attacks), N]``.

    The first row is before any attack; each further row is after one more attack, on the
    examples that are still robust. Arguments and errors are as in :func:`evaluate`.

    >>> from cappaper import fgsm, load, mlp
    >>> is_robust(mlp(64, [32]), *load("digits", "test"), [partial(fgsm, eps=1.0)]).shape
    torch.Size([2, 360])
    """
    attacks = checks.sequence(attacks, "attacks", "attacks", empty=True)
    return _robust([model], _split(x, y, batch_size), attacks)[0]


def _split(x: Any, y: Any, batch_size: int, progress: Progress | None = None) -> Batches:
    checks.count(batch_size, "batch_size")
    checks.batch(x, y)
    size = min(batch_size, len(y) // 10 + 1) if progress else batch_size
    batches = list(zip(x.split(size), y.split(size), strict=True))
    return watched(batches, progress, "batches")


def _curve(model: nn.Module, batches: Batches, attacks: Sequence[Any]) -> list[Rates]:
    """The rates after each attack; lists of them for a population."""
    robust = _robust(members(model), batches, attacks)
    counts = robust.sum(2).T.cpu().double()  # [1 + attacks, models]
    shares = counts / robust.shape[2]
    success = (1 - counts / counts[0]).nan_to_num()  # 0 / 0 where no example is correct
    rates = torch.stack([shares[:1].expand_as(shares), shares, success], dim=1)[1:]
    numbers = rates if isinstance(model, Population) else rates[..., 0]
    return [Rates(*row) for row in numbers.tolist()]


def _robust(models: Sequence[nn.Module], batches: Batches, attacks: Sequence[Attack]) -> Tensor:
    """:func:`is_robust` of each model, ``[models, 1 + attacks, N]``."""
    results = []
    for batch in batches:
        if not (isinstance(batch, (tuple, list)) and len(batch) == 2):
            raise TypeError(f"a loader must give pairs (images, labels), got {checks.shown(batch)}")
        checks.batch(*batch)
        results.append(torch.stack([_robust_in_batch(m, *batch, attacks) for m in models]))
    if not results:
        raise ValueError("there are no images: the loader gave no batch")
    return torch.cat(results, dim=2)


def _robust_in_batch(model: nn.Module, x: Tensor, y: Tensor, attacks: Sequence[Attack]) -> Tensor:
    checks.module(model)
    device = next((p.device for p in model.parameters()), x.device)
    x, y = x.to(device), y.to(device)
    with common.undisturbed(model, in_eval_mode=True):
        judged = common.look(model, x, y)
        rows = [common.is_correct(judged, x, y)]
        for attack in attacks:
            bound = checks.untargeted(attack)
            rows.append(rows[-1].clone())
            left = rows[-1].nonzero().squeeze(1)
            if len(left):
                images, labels = x[left], y[left]
                adversarial = attack(model, images.clone(), labels.clone())  # it may work in place
                if model.training:  # an attack may have changed the mode
                    set_mode(model, False)
                checks.adversarial(adversarial, images, bound.get("eps", 1.0))
                fooled = common.is_fooled(common.predict(judged, adversarial, labels), labels)
                rows[-1][left] = ~fooled
    return torch.stack(rows)
