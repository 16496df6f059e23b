"""Square Attack: random search with squares, from logits alone."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cappaper import checks
from cappaper.attacks.balls import column, fingerprint, integers
from cappaper.attacks.common import Progress, in_batches, is_correct, margin, worth_dropping

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""The queries after which the squares' area halves."""

_REFRESH = 100  # queries after which the sums of a first layer are computed afresh


def square(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    queries: int = 5000,
    share: float = 0.8,
    batch_size: int | None = None,
    progress: Progress | None = None,
    seed: int = 0,
) -> Tensor:
    """Square Attack: random search with squares of ±ε that shrink, without any gradient.

    Source: Andriushchenko, Croce, Flammarion and Hein, arXiv 1912.00049, algorithms 1 and 2; the
    defaults are AutoAttack's. All examples get their squares at the same places, and an example's
    signs depend on the seed and its own pixels, so its result is the same in any batch.

    Args:
        model, y, eps, batch_size, progress, seed: as :func:`~cappaper.pgd`.
        x: images ``[B, C, H, W]`` or ``[M, B, C, H, W]``, float32 or float64 in [0, 1].
        queries: forward passes for each example, the first one with stripes.
        share: the part of the image that the first squares cover, above 0 and at most 1.

    Returns:
        Examples shaped like ``x``: the first success of each; where there was none, the one with
        the smallest margin; ``x`` itself where it is misclassified.

    Raises:
        TypeError, ValueError: as :func:`~cappaper.pgd`; or images of another shape, or a share
            outside (0, 1].

    >>> from cappaper import load, mlp
    >>> x, y = load("digits", "test", limit=8)
    >>> square(mlp(64, [32]), x, y, eps=0.3, queries=50).shape
    torch.Size([8, 1, 8, 8])
    """
    checks.attack(x, y, eps, seed, queries=queries)
    if x.ndim != y.ndim + 3:
        raise ValueError(f"square takes images [B, C, H, W], got shape {list(x.shape)}")
    checks.number(share, "the share of the first squares")
    if not 0 < share <= 1:
        raise ValueError(f"the share of the first squares must be in (0, 1], got {share}")

    def attack(x: Tensor, y: Tensor) -> Tensor:
        correct = is_correct(model, x, y)
        with torch.no_grad():
            adversarial = _search(model, x, y, eps, correct, queries, share, seed)
        return torch.where(column(correct, x), adversarial, x)

    return in_batches(attack, model, x, y, batch_size, progress)


def _search(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    running: Tensor,
    queries: int,
    share: float,
    seed: int,
) -> Tensor:
    batch, (channels, height, width) = y.ndim - 1, x.shape[-3:]
    mark = fingerprint(x.flatten(y.ndim))

    def signs(factor: Tensor, shift: Tensor) -> Tensor:
        """Up or not, for each example and factor: the top bit of a hash."""
        return torch.addcmul(shift, mark, factor) < 0

    stripes = signs(*(integers(channels * width, seed, i).to(x.device) for i in (1, 2)))
    squares = [integers(queries * channels, seed, i).view(queries, -1).to(x.device) for i in (3, 4)]
    generator = torch.Generator().manual_seed(int(seed))
    places = torch.rand(queries, 2, generator=generator).tolist()
    lower, upper = (x - eps).clamp_(min=0), (x + eps).clamp_(max=1)
    here = torch.where(stripes.unflatten(-1, (channels, 1, width)), upper, lower)
    start, change, rest = _split(model, x.shape[-3:])
    end, index, hidden = here, torch.arange(y.shape[-1], device=y.device), start(here)
    lead = margin(rest(hidden), y)
    look_every = 1 if x.device.type == "cpu" else 8
    for query, (down, right) in enumerate(places[1:], start=1):
        running = running & (lead >= 0)
        left = worth_dropping(running) if query % look_every == 0 else None
        if left is not None:
            end, index = end.index_copy(batch, index, here), index[left]
            if not len(left):
                return end
            tensors = (running, y, mark, here, lead, lower, upper)
            running, y, mark, here, lead, lower, upper = (
                t.index_select(batch, left) for t in tensors
            )
        if left is not None or query % _REFRESH == 0:
            hidden = start(here)
        side = _side(query, share, height, width)
        top, leftmost = int(down * (height - side + 1)), int(right * (width - side + 1))
        window = (..., slice(top, top + side), slice(leftmost, leftmost + side))
        up = signs(*(draws[query] for draws in squares))[..., None, None]
        new = torch.where(up, upper[window], lower[window])
        candidate = change(hidden, here[window], new, window)
        margins = margin(rest(candidate), y)
        closer = running & (margins < lead)
        lead = torch.where(closer, margins, lead)
        hidden = torch.where(column(closer, hidden), candidate, hidden)
        here[window] = torch.where(column(closer, here), new, here[window])
    return end.index_copy(batch, index, here)


def _split(model: nn.Module, shape: Sequence[int]) -> tuple[Any, Any, Any]:
    """Return ``start``, ``change`` and ``rest``.

    ``start(x)`` is the tensor that squares change, ``change`` updates it for one square, and
    ``rest`` maps it to logits. The tensor is the images, or the pre-activations of a dense first
    layer: a square moves few pixels, and that layer is most of the work of a small network.
    """
    if type(model) is nn.Sequential and len(model) > 2 and not checks.has_hooks(model):
        flat, dense = model[0], model[1]
        plain = type(flat) is nn.Flatten and (flat.start_dim, flat.end_dim) == (1, -1)
        if plain and type(dense) is nn.Linear:
            weight = dense.weight.t().reshape(*shape, -1)

            def add(z: Tensor, old: Tensor, new: Tensor, window: Any) -> Tensor:
                return torch.addmm(z, (new - old).flatten(1), weight[:, *window[1:]].flatten(0, -2))

            # A copy, because an activation may work in place.
            return (lambda x: dense(x.flatten(1))), add, lambda z: model[2:](z.clone())

    def put(x: Tensor, old: Tensor, new: Tensor, window: Any) -> Tensor:
        x = x.clone()
        x[window] = new
        return x

    return Tensor.clone, put, model


def _side(query: int, share: float, height: int, width: int) -> int:
    """The side of a square: at least one pixel, and less than the image."""
    covered = share / 2 ** sum(query > at for at in _HALVINGS) * height * width
    return max(1, min(round(math.sqrt(covered)), height - 1, width - 1))
