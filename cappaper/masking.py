"""Signs that an attack stands still instead of failing: gradient masking, in numbers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cappaper.attacks.ascent import classified
from cappaper.attacks.balls import BALLS
from cappaper.attacks.batches import Progress, in_batches
from cappaper.attacks.gradient import adaptive_pgd, fgsm, pgd
from cappaper.attacks.surrogate import UnreachedWarning, bounded_calls
from cappaper.bounded import Bounded
from cappaper.checks import (
    check_ascending,
    check_batch,
    check_count,
    check_eps,
    check_function,
    check_module,
    check_sequence,
    check_whole,
    input_gradient,
    logits_of,
)
from cappaper.signs import MaskingReport

_POINTS = 100
_PATH = (1, 2, 5, 10, 20, 40)


def masking_report(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    steps: Sequence[int] = (10, 40, 100, 1000),
    epsilons: Sequence[float] = (0.2, 0.3, 0.5, 1.0),
    other: nn.Module | None = None,
    batch_size: int | None = None,
    progress: Progress | None = None,
    seed: int = 0,
) -> MaskingReport:
    """Ask PGD on this model what Athalye, Carlini, Pintor and others ask of every evaluation.

    Source: Athalye, Carlini and Wagner, arXiv 1802.00420, section 3.1; Carlini et al.,
    arXiv 1902.06705, section 5; Pintor et al., arXiv 2106.09947, section 3.

    Args:
        model: one classifier, as :func:`~cappaper.adaptive_pgd` takes it, in the mode it is to be
            attacked in.
        x: images ``[B, ...]`` in [0, 1].
        y: int64 labels ``[B]``.
        eps: L∞ radius, at least 0, in units of the pixels' range.
        steps: of PGD at ``eps``, ascending.
        epsilons: radii of PGD with 40 steps, ascending; 1 allows any image.
        other: a model whose adversarial examples are tried on this one, such as a twin with ReLU.
        batch_size: examples attacked at once, as in :func:`~cappaper.pgd`.
        progress: called with (questions answered, questions in all).
        seed: of the random starts.

    Warns:
        UnreachedWarning: as :func:`~cappaper.adaptive_pgd`: ``adaptive`` is then little more than
            PGD.

    Raises:
        TypeError, ValueError: as :func:`~cappaper.pgd`; or there are no steps or no radii, or they
            do not ascend.

    >>> from cappaper import load, masking_report, mlp
    >>> digits, net = load("digits", "test", limit=20), mlp(64, [32], beta=1.0)
    >>> masking_report(net, *digits, eps=0.3, steps=[10], epsilons=[1.0]).signs()
    []
    """
    check_module(model)
    check_batch(x, y)
    check_eps(eps)
    check_whole(seed, "the seed")
    steps = check_sequence(steps, "steps", "numbers of steps")
    epsilons = check_sequence(epsilons, "epsilons", "radii")
    for count in steps:
        check_count(count, "steps")
    for radius in epsilons:
        check_eps(radius)
    check_ascending(steps, "steps")
    check_ascending(epsilons, "epsilons")
    if other is not None:
        check_function(other, "the other model")
    if y.ndim != 1:
        raise ValueError("masking_report takes one classifier and labels [B], not a population")
    asked, answered = len(_PATH) + len(steps) + len(epsilons) + 6 + (other is not None), 0

    def told() -> None:
        nonlocal answered
        answered += 1
        if progress is not None:
            progress(answered, asked)

    def right(images: Tensor) -> Tensor:
        return in_batches(partial(classified, model), model, images, y, batch_size, None)

    def left(adversarial: Tensor) -> float:
        stands = right(adversarial)
        told()
        return (correct & stands).double().mean().item()

    correct = right(x)
    signals = _signals(model, x, y, batch_size)
    told()
    attack = partial(pgd, seed=seed, batch_size=batch_size)
    # A run of k steps is the beginning of every longer one.
    fixed = partial(attack, early_exit=False, step_size=2.5 * (eps or 1.0) / 40)
    losses, fell, stands = {0: _loss(model, x, y, batch_size)}, ~correct, correct
    for k in _PATH:
        adversarial = fixed(model, x, y, eps, steps=k)
        losses[k], stands = _loss(model, adversarial, y, batch_size), right(adversarial)
        fell = fell | ~stands
        told()
    silent = correct & fell & stands
    ball, stands = BALLS["linf"](eps, 1), correct
    for point in range(_POINTS):
        stands = stands & right(ball.random(x, seed, point))
    told()
    unstable = _unstable(model, x, y, eps, batch_size, seed)
    told()
    one_step = partial(fgsm, model, eps=eps)
    aware = partial(adaptive_pgd, model, x, y, eps, seed=seed, batch_size=batch_size)
    moved = None
    if other is not None:
        adversarial = fixed(other, x, y, eps)
        fooled = ~in_batches(partial(classified, other), other, adversarial, y, batch_size, None)
        moved = right(adversarial)[fooled & correct].double().mean().nan_to_num().item()
        told()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnreachedWarning)  # the attack itself says it, below
        control = left(aware(sharpnesses=(None, None, None)))
    return MaskingReport(
        standard=correct.double().mean().item(),
        zero_gradient=signals[correct.cpu(), 0].mean().item() if correct.any() else 0.0,
        at_zero=signals[:, 1].mean().item(),
        at_cap=signals[:, 2].mean().item(),
        unstable=unstable,
        loss=losses,
        silent=silent.double().mean().item(),
        noise=stands.double().mean().item(),
        one_step=left(in_batches(one_step, model, x, y, batch_size, None)),
        by_steps={k: left(attack(model, x, y, eps, steps=k)) for k in steps},
        by_eps={radius: left(attack(model, x, y, radius)) for radius in epsilons},
        adaptive=left(aware()),
        control=control,
        moved=moved,
    )


def _signals(model: nn.Module, x: Tensor, y: Tensor, batch_size: int | None) -> Tensor:
    """For each example: whether its gradient is zero, and its units' shares at either bound."""

    def signals(x: Tensor, y: Tensor) -> Tensor:
        point = x.detach().requires_grad_()
        loss = F.cross_entropy(logits_of(model, point, y), y, reduction="sum")
        gradient = input_gradient(loss, point)
        silent = gradient.flatten(1).eq(0).all(1)
        calls, _ = bounded_calls(model, x, y)
        return torch.stack([silent.double().cpu(), *_shares(calls, len(y))], dim=1)

    return in_batches(signals, model, x, y, batch_size, None)


def _unstable(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, batch_size: int | None, seed: int
) -> float:
    """By how much of their length logits change within a thousandth of ε, on average."""
    nearby = BALLS["linf"](eps / 1000, 1).random(x, seed, 0)

    def change(x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            here, there = (logits_of(model, images, y) for images in x.unbind(1))
        share: Tensor = (there - here).norm(dim=1) / here.norm(dim=1).clamp(min=1e-12)
        return share

    both = torch.stack([x, nearby], dim=1)
    return in_batches(change, model, both, y, batch_size, None).clamp(max=1).mean().item()


def _shares(calls: Sequence[Bounded], count: int) -> tuple[Tensor, Tensor]:
    """Of all units behind these activations, the shares at their lower and upper bounds.

    Weights are clamped, too; they are no units.
    """
    calls = [c for c in calls if not isinstance(c.z, nn.Parameter) and c.z.numel() % count == 0]
    units = sum(call.z.numel() for call in calls) // count
    low, high = torch.zeros(count).double(), torch.zeros(count).double()
    for z, lower, upper, _ in calls:
        numbers = not isinstance(lower, Tensor) and not isinstance(upper, Tensor)
        if not (numbers and lower == upper):  # a sigmoid is never quite there
            low += (z <= lower).reshape(count, -1).sum(1).cpu() / units
            high += (z >= upper).reshape(count, -1).sum(1).cpu() / units
    return low, high


def _loss(model: nn.Module, x: Tensor, y: Tensor, batch_size: int | None) -> float:
    def losses(x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            return F.cross_entropy(logits_of(model, x, y), y, reduction="none")

    return in_batches(losses, model, x, y, batch_size, None).mean().item()
