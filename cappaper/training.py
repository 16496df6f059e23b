"""Training, standard and adversarial, of one network or of a population at the cost of one loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cappaper.attacks.gradient import Attack
from cappaper.checks import check_batch, check_count, check_logits
from cappaper.population import Population

M = TypeVar("M", bound=nn.Module)


def fit(
    model: M,
    x: Tensor,
    y: Tensor,
    *,
    epochs: int = 10,
    batch_size: int = 128,
    lr: float = 1e-3,
    attack: Attack | None = None,
    attack_at: Callable[[int, int], Attack] | None = None,
    seed: int | Sequence[int] = 0,
    progress: Callable[[int, int], None] | None = None,
) -> M:
    """Train in place with Adam on the cross-entropy.

    Source of adversarial training: Madry et al., arXiv 1706.06083, equation 2.1: every batch is
    replaced by the examples that ``attack`` makes of it.

    Args:
        model: one network, or a :class:`~cappaper.Population`. A member's result does not
            depend on the others: each sees its own batches, in the order of its own seed. Only
            rounding may differ with their number, and long training amplifies it.
        x: images ``[N, ...]`` in [0, 1], on the model's device.
        y: int64 labels ``[N]``.
        epochs, batch_size: passes over the data, and examples in a step (the last one of an epoch
            takes what is left).
        lr: Adam's step size.
        attack: ``attack(model, x, y) -> x_adv``. Bind ``early_exit=False`` in
            :func:`~cappaper.pgd`: training wants the end of each run, not its first
            success.
        attack_at: in place of ``attack``: ``attack_at(step, steps)`` is the attack of one step
            out of all. For an ε that grows, and for random starts that differ from step to step.
        seed: of the batch order; one for all members, or one each.
        progress: called after every epoch with (epochs done, epochs in all).

    Returns:
        ``model``, in eval mode.

    Raises:
        TypeError, ValueError: images outside [0, 1], of the wrong shape or dtype; labels that are
            no class; a count below 1; a learning rate not above 0; one seed too many or too few;
            both ``attack`` and ``attack_at``.

    >>> from functools import partial
    >>> from cappaper import load, mlp, pgd
    >>> x, y = load("digits", "train", limit=256)
    >>> madry = partial(pgd, eps=0.1, steps=7, early_exit=False)
    >>> net = fit(mlp(64, [32]), x, y, epochs=1, attack=madry)
    """
    check_batch(x, y)
    check_count(epochs, "epochs")
    check_count(batch_size, "batch_size")
    if not lr > 0:
        raise ValueError(f"the learning rate must be above 0, got {lr}")
    if attack is not None and attack_at is not None:
        raise ValueError("got both attack and attack_at: give one of them")
    size = len(model) if isinstance(model, Population) else 1
    seeds = list(seed) if isinstance(seed, Sequence) else [seed] * size
    if len(seeds) != size:
        raise ValueError(f"got {len(seeds)} seeds for {size} networks: give one, or {size}")
    generators = [torch.Generator().manual_seed(s) for s in seeds]
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, fused=True)
    model.train()
    step, steps = 0, epochs * math.ceil(len(y) / batch_size)
    for epoch in range(epochs):
        order = torch.stack([torch.randperm(len(y), generator=g) for g in generators]).to(y.device)
        if not isinstance(model, Population):
            order = order[0]
        for batch in torch.split(order, batch_size, dim=-1):
            images, labels = x[batch], y[batch]
            current = attack if attack_at is None else attack_at(step, steps)
            if current is not None:
                images = current(model, images, labels)
            optimizer.zero_grad(set_to_none=True)
            logits = model(images)
            if epoch == 0:
                check_logits(logits, labels)
            # The sum over members of their mean losses: no member's gradient sees another's.
            loss = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="sum")
            torch.autograd.backward(loss / batch.shape[-1])
            optimizer.step()
            step += 1
        if progress is not None:
            progress(epoch + 1, epochs)
    return model.eval()
