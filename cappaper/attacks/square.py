"""Square Attack: random search with squares, which asks for logits and never for a gradient."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from cappaper.attacks.common import (
    Progress,
    column,
    fingerprint,
    in_batches,
    integers,
    is_correct,
    looks_every,
    margin,
    packed,
    put,
)
from cappaper.checks import (
    check_batch,
    check_count,
    check_eps,
    check_number,
    check_whole,
    output_of,
)

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""The queries after which a square covers half of what it did."""

_REFRESH = 100  # queries between two fresh starts of a sum, which rounding moves

_Window = tuple[slice, slice]


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
    """Random search in the L∞ ball: squares of ±ε that shrink, kept where they lower the margin.

    No gradient is asked for, so none can be hidden from it. The defaults are those of AutoAttack's
    standard version.

    Source: Andriushchenko, Croce, Flammarion and Hein, arXiv 1912.00049, algorithms 1 and 2. As in
    AutoAttack, all examples get their squares at the same places. The signs hang on the seed and
    an example's own pixels, so its fate is the same in any batch.

    Args:
        model, y, eps, batch_size, progress: as :func:`~cappaper.pgd`.
        x: images ``[B, C, H, W]`` or ``[M, B, C, H, W]``, float32 or float64 in [0, 1].
        queries: of the model for each example, the first one with stripes.
        share: of the image that the first squares cover, above 0 and at most 1.
        seed: of the search.

    Returns:
        Examples shaped like ``x``: the first success of each; the one with the smallest margin that
        was found where there was none; ``x`` itself where it was misclassified to begin with.

    Raises:
        TypeError, ValueError: as :func:`~cappaper.pgd`; or images that are not ``[B, C, H, W]``,
            or a share outside (0, 1].

    >>> from cappaper import load, mlp
    >>> x, y = load("digits", "test", limit=8)
    >>> square(mlp(64, [32]), x, y, eps=0.3, queries=50).shape
    torch.Size([8, 1, 8, 8])
    """
    check_batch(x, y)
    check_eps(eps)
    check_count(queries, "queries")
    if x.ndim != y.ndim + 3:
        raise ValueError(f"square takes images [B, C, H, W], got shape {list(x.shape)}")
    check_whole(seed, "the seed")
    check_number(share, "the share of the first squares")
    if not 0 < share <= 1:
        raise ValueError(f"the share of the first squares must be in (0, 1], got {share}")

    def attack(x: Tensor, y: Tensor) -> Tensor:
        stands = is_correct(model, x, y)
        with torch.no_grad():
            found = _search(model, x, y, eps, stands, queries, share, seed)
        return torch.where(column(stands, x), found, x)

    return in_batches(attack, model, x, y, batch_size, progress)


def _search(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    live: Tensor,
    queries: int,
    share: float,
    seed: int,
) -> Tensor:
    (inner, outer), looks = _split(model), looks_every(x)
    channels, height, width = x.shape[-3:]
    mark = fingerprint(x.flatten(y.ndim))

    def signs(mark: Tensor, factor: Tensor, shift: Tensor) -> Tensor:
        """Up or not, for each example and factor: the top bit of a product is the most random."""
        return torch.addcmul(shift, mark, factor) < 0

    stripes = signs(mark, *(integers(channels * width, seed, i).to(x.device) for i in (1, 2)))
    squares = [integers(queries * channels, seed, i).view(queries, -1).to(x.device) for i in (3, 4)]
    generator = torch.Generator().manual_seed(int(seed))
    places = torch.rand(queries, 2, generator=generator).tolist()
    lower, upper = (x - eps).clamp_(min=0), (x + eps).clamp_(max=1)
    here = torch.where(stripes.unflatten(-1, (channels, 1, width)), upper, lower)
    end, index, labels = here, torch.arange(y.shape[-1], device=y.device).expand_as(y), y
    lead = margin(output_of(model, here), labels)
    for query, (down, right) in enumerate(places[1:], start=1):
        live = live & (lead >= 0)
        fewer = query % looks == 0 and packed(live, index, labels, mark, here, lead, lower, upper)
        if fewer:
            end = put(end, index, here)
            live, index, labels, mark, here, lead, lower, upper = fewer
            if not live.numel():
                return end
        if fewer or query % _REFRESH == 1:
            hidden = inner.of(here)
        side = _side(query, share, height, width)
        top, left = int(down * (height - side + 1)), int(right * (width - side + 1))
        window = slice(top, top + side), slice(left, left + side)
        old = here[..., *window]
        up = signs(mark, *(draws[query] for draws in squares))[..., None, None]
        new = torch.where(up, upper[..., *window], lower[..., *window])
        candidate = inner.changed(hidden, old, new, window)
        margins = margin(outer(candidate), labels)
        closer = live & (margins < lead)
        lead = torch.where(closer, margins, lead)
        hidden = torch.where(column(closer, hidden), candidate, hidden)
        here[..., *window] = torch.where(column(closer, here), new, old)
    return put(end, index, here)


def _split(model: nn.Module) -> tuple[_Images | _Dense, nn.Module]:
    """What a square's change goes through first, and the rest of the model.

    A dense first layer is most of the work of a small network, and hears of few pixels at a time.
    """
    if type(model) is nn.Sequential and len(model) > 2:
        flat, dense, *_ = model
        parts = (model, flat, dense)
        own = any(m._forward_hooks or m._forward_pre_hooks or "forward" in vars(m) for m in parts)
        if isinstance(flat, nn.Flatten) and isinstance(dense, nn.Linear) and not own:
            known = type(flat) is nn.Flatten and type(dense) is nn.Linear
            if known and (flat.start_dim, flat.end_dim) == (1, -1):
                return _Dense(dense), model[2:]
    return _Images(), model


class _Images:
    """The images themselves, for the whole model."""

    def of(self, x: Tensor) -> Tensor:
        return x.clone()

    def changed(self, x: Tensor, old: Tensor, new: Tensor, window: _Window) -> Tensor:
        x = x.clone()
        x[..., *window] = new
        return x


class _Dense:
    """The pre-activations of a dense first layer, which are told only what changes."""

    def __init__(self, layer: nn.Linear) -> None:
        self._layer = layer
        self._weight = layer.weight.t().contiguous()

    def of(self, x: Tensor) -> Tensor:
        self._weight = self._weight.view(*x.shape[1:], -1)
        z: Tensor = self._layer(x.flatten(1))
        return z

    def changed(self, z: Tensor, old: Tensor, new: Tensor, window: _Window) -> Tensor:
        weight = self._weight[:, *window].flatten(0, -2)
        return torch.addmm(z, (new - old).flatten(1), weight)


def _side(query: int, share: float, height: int, width: int) -> int:
    """The side of a square: at least one pixel, and less than the image."""
    covered = share / 2 ** sum(query > at for at in _HALVINGS) * height * width
    return max(1, min(round(math.sqrt(covered)), height - 1, width - 1))
