"""Examples as columns: finished ones are dropped, and what is left is attacked again.

Columns are along the last dimension of the labels, ``[B]`` or ``[M, B]``. The members of a
population are left with as many as the one with the most.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cappaper.attacks.balls import column

_REPACK = 0.8  # move the survivors together once this share of the columns, or less, is alive


def looks_every(x: Tensor) -> int:
    """In how many steps an attack looks once for finished examples: a GPU has to wait for that."""
    return 1 if x.device.type == "cpu" else 8


def packed(live: Tensor, *state: Tensor) -> tuple[Tensor, ...] | None:
    """``live`` and ``state`` without finished columns; None while that would save too little."""
    width = _company(int(live.sum(-1).max()), live)
    if width > _REPACK * live.shape[-1]:
        return None
    keep = live.argsort(dim=-1, descending=True, stable=True)[..., :width]
    return tuple(take(t, keep) for t in (live, *state))


def take(examples: Tensor, index: Tensor) -> Tensor:
    """The columns ``index`` of each member's ``examples``."""
    return examples.gather(index.ndim - 1, _whole(index, examples))


def put(end: Tensor, index: Tensor, here: Tensor) -> Tensor:
    """``end`` with the columns ``here`` where they belong."""
    return end.scatter(index.ndim - 1, _whole(index, here), here)


def retry(
    attack: Callable[..., Tensor], adversarial: Tensor, stands: Tensor, *inputs: Tensor
) -> Tensor:
    """``adversarial`` with another attack's finds in place of the examples that stand.

    Args:
        attack: takes ``inputs`` and ``stands``, of those columns alone that stand in some member.
        adversarial: examples ``[B, ...]`` or ``[M, B, ...]``.
        stands: which of them have not fooled the model, ``[B]`` or ``[M, B]``.
        inputs: images, labels and whatever else there is of each example.
    """
    batch = stands.ndim - 1
    some = stands.reshape(-1, stands.shape[-1]).any(0)
    if not some.any():
        return adversarial
    width = _company(int(some.sum()), stands)
    left = some.int().argsort(descending=True, stable=True)[:width].sort().values
    found = attack(*(t.index_select(batch, left) for t in (*inputs, stands)))
    candidate = adversarial.index_copy(batch, left, found)
    return torch.where(column(stands, adversarial), candidate, adversarial)


def _company(width: int, live: Tensor) -> int:
    """Never one column alone where there are more: BatchNorm in train mode refuses it."""
    return 2 if width == 1 < live.shape[-1] else width


def _whole(index: Tensor, examples: Tensor) -> Tensor:
    """Indices of columns for ``gather`` and ``scatter`` of whole examples."""
    return column(index, examples).expand(*index.shape, *examples.shape[index.ndim :])
