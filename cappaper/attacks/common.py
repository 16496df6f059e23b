"""What attacks share: losses, batches, and the examples that are left to attack.

Labels ``[B]`` (one model) or ``[M, B]`` (a population) say which dimensions count examples.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cappaper import checks
from cappaper.attacks.balls import column

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""An attack with its settings bound, as ``functools.partial(pgd, eps=0.1)`` gives."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""From logits ``[N, classes]`` and labels ``[N]`` to a sum over examples; attacks raise it."""

Progress = Callable[[int, int], None]
"""Called with (examples done, examples in all)."""

_BATCH_ON_CPU = 2048  # more examples leave the cache, fewer leave the cores idle
_DROP_BELOW = 0.8  # drop finished examples once this share of the batch, or less, is left


def is_correct(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Which examples the model classifies correctly, ``[B]`` or ``[M, B]``."""
    with torch.no_grad():
        correct: Tensor = checks.logits_of(model, x, y).argmax(-1) == y
    return correct


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """The true class's logit minus the largest other one; below 0 where misclassified."""
    true = labels.unsqueeze(-1)
    others = logits.scatter(-1, true, -torch.inf).amax(-1)
    return logits.gather(-1, true).squeeze(-1) - others


LOSSES: dict[str, Loss] = {
    "cross-entropy": lambda logits, labels: F.cross_entropy(logits, labels, reduction="sum"),
    "margin": lambda logits, labels: -margin(logits, labels).sum(),
}


def in_batches(
    attack: Callable[[Tensor, Tensor], Tensor],
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    batch_size: int | None,
    progress: Progress | None,
) -> Tensor:
    """``attack(x, y)`` batch by batch, with gradients on, concatenated.

    ``batch_size`` counts the examples of all members of a population; None is the default.
    """
    if batch_size is not None:
        checks.count(batch_size, "batch_size")
    elif x.device.type == "cpu":
        batch_size = _BATCH_ON_CPU
    batch, count = y.ndim - 1, y.shape[-1]
    size = max(1, (batch_size or y.numel()) * count // y.numel())
    results: list[Tensor] = []
    with undisturbed(model):
        # A tensor made in inference mode has no gradient; its clone has.
        x, y = (t.clone() if t.is_inference() else t.detach() for t in (x, y))
        for images, labels in zip(x.split(size, batch), y.split(size, batch), strict=True):
            results.append(attack(images, labels))
            if progress is not None:
                progress(min(len(results) * size, count), count)
    return torch.cat(results, batch)


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Gradients are on inside the block, and the model's buffers are as before after it.

    A forward pass may move them: a BatchNorm's statistics, a counter, an observer's range.
    """
    parts = list(model.modules()) if isinstance(model, nn.Module) else []
    named = [(part, *one) for part in parts for one in part.named_buffers(recurse=False)]
    dense = [one for one in named if one[2].layout == torch.strided and not one[2].is_meta]
    kept = [(part, name, buffer, buffer.clone()) for part, name, buffer in dense]
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        with torch.no_grad():
            for part, name, buffer, before in kept:
                setattr(part, name, buffer)  # a forward pass may have put another in its place
                # Writing invalidates graphs that the buffer is part of: only where it has moved.
                if not torch.equal(buffer, before):
                    buffer.copy_(before)


def left_over(running: Tensor) -> Tensor:
    """The positions of examples that some member still works on, ascending.

    One example alone gets another for company: BatchNorm in train mode refuses a batch of one.
    """
    some = running.reshape(-1, running.shape[-1]).any(0)
    count = int(some.sum())
    order = some.int().argsort(descending=True, stable=True)
    return order[: max(count, 2) if count else 0].sort().values


def worth_dropping(running: Tensor) -> Tensor | None:
    """:func:`left_over`, or None while dropping the finished examples would save too little."""
    count = running.shape[-1]
    if int(running.reshape(-1, count).any(0).sum()) > _DROP_BELOW * count:
        return None
    left = left_over(running)
    return left if len(left) < count else None


def retry(
    attack: Callable[..., Tensor], adversarial: Tensor, robust: Tensor, *inputs: Tensor
) -> Tensor:
    """``adversarial``, with ``attack(*inputs)`` in place of the examples that are ``robust``."""
    batch, left = robust.ndim - 1, left_over(robust)
    if not len(left):
        return adversarial
    results = attack(*(t.index_select(batch, left) for t in inputs))
    candidate = adversarial.index_copy(batch, left, results)
    return torch.where(column(robust, adversarial), candidate, adversarial)


def run_in_turn(
    model: nn.Module, attacks: Sequence[Callable[[Tensor, Tensor], Tensor]], x: Tensor, y: Tensor
) -> Tensor:
    """Attacks ``attack(x, y) -> x_adv`` one after the other, each on what is still robust."""
    adversarial = x
    for attack in attacks:
        adversarial = retry(attack, adversarial, is_correct(model, adversarial, y), x, y)
    return adversarial
