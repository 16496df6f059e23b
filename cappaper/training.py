"""Training, standard and adversarial, of one network or of a population at the cost of one loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cappaper import checkpoints
from cappaper.activations import CappedReLU
from cappaper.attacks.common import Attack
from cappaper.checks import (
    check_batch,
    check_count,
    check_found,
    check_function,
    check_logits,
    check_module,
    check_positive,
    check_whole,
    entries,
    output_of,
)
from cappaper.population import Population, template_of

M = TypeVar("M", bound=nn.Module)


def fit(
    model: M,
    x: Tensor,
    y: Tensor,
    *,
    epochs: int = 10,
    batch_size: int = 128,
    lr: float | Callable[[int, int], float] = 1e-3,
    attack: Attack | None = None,
    attack_at: Callable[[int, int], Attack] | None = None,
    penalty: Callable[[nn.Module], Tensor] | None = None,
    seed: int | Sequence[int] = 0,
    checkpoint: str | Path | None = None,
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
        lr: Adam's step size; or a schedule, ``lr(step, steps)``, for one step out of all, which may
            be 0.
        attack: ``attack(model, x, y) -> x_adv``. Bind ``early_exit=False`` in
            :func:`~cappaper.pgd`: training wants the end of each run, not its first
            success.
        attack_at: in place of ``attack``: ``attack_at(step, steps)`` is the attack of one step
            out of all. For an ε that grows, and for random starts that differ from step to step.
        penalty: ``penalty(model)`` is a number that every step adds to its loss; of a population,
            the sum of what it adds to each member's.
        seed: of the batch order; one for all members, or one each.
        checkpoint: a file that is to hold the state after every epoch; where it is there already,
            training goes on from it, to the same result: weights, torch's global random state on
            the CPU (for dropout) and all. It stays when training ends.
        progress: called after every epoch with (epochs done, epochs in all), and first of all
            where training goes on from a checkpoint. It may read ``model``, in train mode then.

    Returns:
        ``model``, in eval mode.

    Raises:
        ValueError: ``checkpoint`` is damaged, or of another training: other data or caps, or other
            settings, those of ``attack``, ``attack_at``, ``penalty`` and a schedule and what these
            carry along among them.
        TypeError, ValueError: images outside [0, 1], of the wrong shape or dtype; labels that are
            no class; a count below 1; a learning rate that is not a finite number above 0; one seed
            too many or too few; both ``attack`` and ``attack_at``; a penalty that is no number.

    >>> from functools import partial
    >>> from cappaper import load, mlp, pgd
    >>> x, y = load("digits", "train", limit=256)
    >>> madry = partial(pgd, eps=0.1, steps=7, early_exit=False)
    >>> net = fit(mlp(64, [32]), x, y, epochs=1, attack=madry)
    """
    check_batch(x, y)
    check_count(epochs, "epochs")
    check_count(batch_size, "batch_size")
    if not callable(lr):
        check_positive(lr, "the learning rate")
    check_module(model)
    given = {"attack": attack, "attack_at": attack_at, "penalty": penalty, "progress": progress}
    for what, function in given.items():
        if function is not None:
            check_function(function, what)
    if attack is not None and attack_at is not None:
        raise ValueError("got both attack and attack_at: give one of them")
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError("the model has no weights to train: none requires a gradient")
    size = len(model) if isinstance(model, Population) else 1
    seeds = list(entries(seed) or [seed] * size)
    if len(seeds) != size:
        raise ValueError(f"got {len(seeds)} seeds for {size} networks: give one, or {size}")
    for each in seeds:
        check_whole(each, "the seed")
    generators = [torch.Generator().manual_seed(int(s)) for s in seeds]
    caps = learned_caps(model)
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    path = None if checkpoint is None else Path(checkpoint)
    about: list[Any] = [size, [int(s) for s in seeds], int(epochs), int(batch_size)]
    if path is not None:
        about += checkpoints.identity(model, x, y, lr, attack, attack_at, penalty)
    done = 0
    if path is not None and path.exists():
        done = checkpoints.resume(path, about, model, optimizer, generators)
    per_epoch = math.ceil(len(y) / batch_size)
    step, steps, fastest = done * per_epoch, epochs * per_epoch, 0.0
    if done and progress is not None:
        progress(done, epochs)
    for epoch in range(done, epochs):
        order = torch.stack([torch.randperm(len(y), generator=g) for g in generators]).to(y.device)
        for batch in torch.split(order, batch_size, dim=-1):
            images, labels = _examples(model, x, y, batch)
            current = attack if attack_at is None else attack_at(step, steps)
            if current is not None:
                check_function(current, "what attack_at returns")
                found = current(model, images, labels)
                if epoch == done:
                    check_found(found, images)
                images = found
            rate = _rate(lr, step, steps)
            fastest = max(fastest, rate)
            optimizer.zero_grad()
            logits = output_of(model, images)
            if epoch == done:
                check_logits(logits, labels)
                if not logits.requires_grad:
                    raise ValueError("no gradient leads from the logits to weights to be trained")
            # The sum over members of their mean losses: no member's gradient sees another's.
            loss = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="sum")
            loss = loss / batch.shape[-1]
            if penalty is not None:
                loss = loss + _number(penalty(model))
            torch.autograd.backward(loss)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            step += 1
        if not all(p.isfinite().all() for p in model.parameters()):
            raise ValueError(
                f"training diverged: weights are not finite after epoch {epoch + 1};"
                f" try a learning rate below {fastest:g}"
            )
        if not all((cap > 0).all() for cap in caps):
            raise ValueError(
                f"a learned max value β is not above 0 after epoch {epoch + 1}: weaken its"
                " penalty, or take a smaller learning rate"
            )
        if path is not None:
            checkpoints.save(path, about, epoch + 1, model, optimizer, generators)
        if progress is not None:
            progress(epoch + 1, epochs)
    return model.eval()


def _examples(model: nn.Module, x: Tensor, y: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
    """Images and labels of the batches ``[M, B]``; of the one batch of a single network."""
    chosen = batch if isinstance(model, Population) else batch[0]
    return x[chosen], y[chosen]


def _rate(lr: float | Callable[[int, int], float], step: int, steps: int) -> float:
    if not callable(lr):
        return float(lr)
    rate = lr(step, steps)
    if rate != 0:  # where a schedule may begin or end
        check_positive(rate, "the learning rate")
    return float(rate)


def learned_caps(model: nn.Module) -> list[nn.Parameter]:
    """The max values that training moves; of a population, those of all members."""
    names = [
        f"{name}.beta" if name else "beta"
        for name, part in template_of(model).named_modules()
        if isinstance(part, CappedReLU)
    ]
    weights = {name.replace("__", "."): weight for name, weight in model.named_parameters()}
    return [weights[name] for name in names if name in weights]


def _number(penalty: Tensor) -> Tensor:
    if not isinstance(penalty, Tensor) or penalty.numel() != 1:
        got = list(penalty.shape) if isinstance(penalty, Tensor) else type(penalty).__name__
        raise ValueError(f"what penalty returns must be a tensor of one number, got {got}")
    return penalty.squeeze()
