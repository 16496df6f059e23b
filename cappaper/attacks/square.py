"""Square Attack: random search with squares, from logits alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cappaper import checks
from cappaper.attacks import common
from cappaper.attacks.balls import Linf, choose, column, fingerprint, integers
from cappaper.attacks.common import Averaged, margin
from cappaper.progress import Progress

# The squares' area halves after these of 10,000 queries; other numbers scale the schedule.
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
_SHARE = 0.8  # the part of the image that the first squares cover
_REFRESH = 100  # recompute a first layer after so many queries: rounding errors add up


def square(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    queries: int = 5000,
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
        queries: forward passes for each example, the first one with stripes; the authors' schedule
            is scaled to this number.

    Returns:
        Examples shaped like ``x``: the first success of each; where there was none, the one with
        the smallest margin; ``x`` itself where it is misclassified.

    Raises:
        TypeError, ValueError: as :func:`~cappaper.pgd`; or images of another shape.

    >>> from cappaper import load, mlp
    >>> square(mlp(64, [32]), *load("digits", "test", limit=8), eps=0.3, queries=50).shape
    torch.Size([8, 1, 8, 8])
    """
    checks.attack(x, y, eps, seed, queries=queries)
    checks.pictures(x, y, "square")
    model, (channels, height, width) = common.look(model, x, y), x.shape[-3:]
    stops, ball = not isinstance(model, Averaged), Linf(float(eps), y.ndim)
    start, change, rest = _split(model, x.shape[-3:])
    draw = torch.Generator("cpu").manual_seed(int(seed))
    places = torch.rand(queries, 2, generator=draw, device="cpu").tolist()
    stripes = [integers(channels * width, seed, i).to(x.device) for i in (1, 2)]
    squares = [integers(queries * channels, seed, i).to(x.device) for i in (3, 4)]

    def moved(x: Tensor, mark: Tensor, factor: Tensor, shift: Tensor) -> Tensor:
        """Each channel's columns, or its square, moved by ±ε; a hash's top bit is the sign."""
        up = (torch.addcmul(shift, mark, factor) < 0).unflatten(-1, (channels, 1, -1))
        return torch.where(up, x + ball.eps, x - ball.eps).clamp_(0, 1)

    def margins(hidden: Tensor, y: Tensor) -> Tensor:
        """Infinite where a logit is NaN: neither a success nor a step towards one."""
        lead = margin(rest(hidden), y)
        return lead.where(~lead.isnan(), math.inf)

    def search(x: Tensor, y: Tensor) -> Tensor:
        mark = fingerprint(x.flatten(y.ndim))
        here = moved(x, mark, *stripes)
        hidden = start(here)
        state = _State(ball, stops, x, y, here, mark, hidden, margins(hidden, y))
        return common.climb(step, state, range(1, queries))

    def step(query: int, s: _State) -> None:
        s.stop(s.lead < 0)
        if query % _REFRESH == 0:
            s.hidden = start(s.here)
        side = _side(query, queries, height, width)
        top = int(places[query][0] * (height - side + 1))
        left = int(places[query][1] * (width - side + 1))
        window = (..., slice(top, top + side), slice(left, left + side))
        own = slice(query * channels, (query + 1) * channels)
        new = moved(s.x[window], s.mark, *(numbers[own] for numbers in squares))
        candidate = change(s.hidden, s.here[window], new, window)
        lead = margins(candidate, s.y)
        closer = s.running & (lead < s.lead)
        s.lead = torch.where(closer, lead, s.lead)
        s.hidden = torch.where(column(closer, s.hidden), candidate, s.hidden)  # may be infinite
        s.here[window] = choose(closer, new, s.here[window])

    attack = torch.no_grad()(partial(common.run_in_turn, model, [search]))
    return common.in_batches(attack, model, x, y, batch_size, progress)


@dataclass
class _State(common.State):
    mark: Tensor  # what an example's signs depend on
    hidden: Tensor  # the tensor that squares change
    lead: Tensor  # the smallest margin so far


def _split(model: nn.Module, shape: Sequence[int]) -> tuple[Any, Any, Any]:
    """Functions that compute a tensor, update it for a square, and map it to logits.

    The tensor is the image, or the pre-activations of a dense first layer, which is faster.
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


def _side(query: int, queries: int, height: int, width: int) -> int:
    """The side of a square: at least one pixel, and less than the image."""
    halvings = sum(query * 10_000 > at * queries for at in _HALVINGS)
    covered = _SHARE / 2**halvings * height * width
    return max(1, min(round(math.sqrt(covered)), height - 1, width - 1))
