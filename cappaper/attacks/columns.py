"""Examples as columns: finished ones are dropped, and what is left is attacked again.

Columns are along the last dimension of the labels, ``[B]`` or ``[M, B]``. The members of a
population are left with as many as the one with the most.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cappaper.attacks.balls import column

_WIDTHS = 32  # libraries prepare for every shape anew
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
    rows, places = _rows(examples, index)
    taken: Tensor = rows.index_select(0, places).unflatten(0, index.shape)
    return taken


def put(end: Tensor, index: Tensor, here: Tensor) -> Tensor:
    """``end`` with the columns ``here`` where they belong."""
    rows, places = _rows(end, index)
    return rows.index_copy(0, places, here.flatten(0, index.ndim - 1)).view(end.shape)


def retry(
    attack: Callable[..., Tensor], adversarial: Tensor, stands: Tensor, *inputs: Tensor
) -> Tensor:
    """``adversarial`` with another attack's finds in place of the examples that stand.

    Args:
        attack: takes ``inputs`` and ``stands``, of the columns that stand in some member, and of
            few others.
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
    """Columns for ``width`` of them: a few more, so that layers of few shapes come up.

    Never one column alone where there are more: BatchNorm in train mode refuses it.
    """
    if width > _WIDTHS:
        width = -(-width // _WIDTHS) * _WIDTHS
    elif width:
        width = 2 ** max(1, (width - 1).bit_length())
    return min(width, live.shape[-1])


def _rows(examples: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """All members' examples one below the other, and where the columns ``index`` are there."""
    count = examples.shape[index.ndim - 1]
    if index.ndim > 1:
        index = index + count * torch.arange(len(index), device=index.device).unsqueeze(-1)
    return examples.flatten(0, index.ndim - 1), index.flatten()
