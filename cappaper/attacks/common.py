"""What attacks share: balls, batches, and the examples that are left to attack."""

from __future__ import annotations

import functools
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cappaper.checks import (
    check_count,
    check_function,
    logits_of,
)


@dataclass(frozen=True)
class Ball(ABC):
    """All points within ``eps`` of an example that are images, with values in [0, 1].

    The first ``batch_dims`` dimensions of every tensor count examples.
    """

    eps: float
    batch_dims: int

    @abstractmethod
    def direction(self, gradient: Tensor) -> Tensor:
        """Steepest ascent of length 1; zero where the gradient is zero."""

    @abstractmethod
    def around(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """The way back into the ball around ``x``: points of the ball stay where they are."""

    @abstractmethod
    def random(self, x: Tensor, seed: int, run: int = 0) -> Tensor:
        """Uniform in the ball around ``x``, then clipped to [0, 1].

        A point hangs on the seed, the run and the image itself, as :func:`uniform` does.
        """


@dataclass(frozen=True)
class Linf(Ball):
    """Every pixel changes by at most ``eps``."""

    def direction(self, gradient: Tensor) -> Tensor:
        return gradient.sign()

    def around(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        # Once for all steps: on small networks, passes over the images are a third of the work.
        lower, upper = (x - self.eps).clamp(min=0), (x + self.eps).clamp(max=1)
        return lambda point: point.clamp(lower, upper)

    def random(self, x: Tensor, seed: int, run: int = 0) -> Tensor:
        noise = uniform(x.flatten(self.batch_dims), seed, run).reshape(x.shape)
        return torch.add(x, noise.mul_(2).sub_(1), alpha=self.eps).clamp_(0, 1)


@dataclass(frozen=True)
class L2(Ball):
    """All pixels together change by at most ``eps`` in Euclidean length."""

    def direction(self, gradient: Tensor) -> Tensor:
        # By the largest entry first: in float32 the squares of a tiny gradient are all zero.
        gradient = gradient.nan_to_num()  # some slopes are infinite, as a root's is at 0
        largest = column(gradient.flatten(self.batch_dims).abs().amax(-1), gradient)
        scaled = gradient / largest.where(largest > 0, 1)
        unit: Tensor = scaled / self._length(scaled).clamp(min=1)
        return unit

    def around(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        def project(point: Tensor) -> Tensor:
            delta = point - x
            shrink = self.eps / self._length(delta).clamp(min=torch.finfo(x.dtype).tiny)
            inside: Tensor = x + delta * shrink.clamp(max=1)
            return inside.clamp(0, 1)  # x lies in [0, 1], so clipping only shortens delta

        return project

    def random(self, x: Tensor, seed: int, run: int = 0) -> Tensor:
        flat = x.flatten(self.batch_dims)
        draws = uniform(flat, seed, run, more=1)
        normal = torch.erfinv(2 * draws[..., :-1] - 1)  # but for a factor: the length follows
        radius = draws[..., -1:] ** (1 / flat.shape[-1])
        noise = normal / normal.norm(dim=-1, keepdim=True) * radius
        return torch.add(x, noise.reshape(x.shape), alpha=self.eps).clamp_(0, 1)

    def _length(self, delta: Tensor) -> Tensor:
        return column(delta.flatten(self.batch_dims).norm(dim=-1), delta)


def uniform(x: Tensor, seed: int, run: int, more: int = 0) -> Tensor:
    """Numbers in (0, 1) for examples ``[..., P]`` of P pixels: one each, and ``more`` behind them.

    What an example gets hangs on the seed, the run and its own pixels, and on nothing else: not on
    its place, the batch, the members of a population, the device, or what was drawn before. Over
    seeds the numbers are uniform, and those of two examples independent.

    Source: multiply-shift hashing of an image's fingerprint, Dietzfelbinger, Hagerup, Katajainen
    and Penttonen, A reliable randomized algorithm for the closest-pair problem, Journal of
    Algorithms 25, 1997.
    """
    mark = fingerprint(x)
    pixels = x.shape[-1] + more
    factor, shift = (integers(pixels, seed, 2 * run + i).to(x.device) for i in (1, 2))
    draws = torch.addcmul(shift, mark, factor)  # modulo 2^32
    draws = draws.bitwise_right_shift_(9).bitwise_and_(0x7FFFFF).to(x.dtype)
    return draws.add_(0.5).mul_(2.0**-23)


def fingerprint(x: Tensor) -> Tensor:
    """A 32-bit integer ``[..., 1]`` that hangs on the pixels of each example ``[..., P]`` alone."""
    weights = integers(x.shape[-1], 0, 0).to(x.device)
    bits = x.float().view(torch.int32)
    # Simple numbers leave the lower half of their bits empty, where a product starts.
    bits = torch.bitwise_right_shift(bits, 16).bitwise_xor_(bits).mul_(weights)
    return bits.sum(-1, keepdim=True, dtype=torch.int32)


@functools.lru_cache(maxsize=256)
def integers(count: int, seed: int, stream: int) -> Tensor:
    """Random 32-bit integers, odd so that their products keep every bit."""
    mixed = int.from_bytes(hashlib.sha256(f"{seed} {stream}".encode()).digest()[:7], "big")
    generator = torch.Generator().manual_seed(mixed)
    wide = torch.randint(-(2**31), 2**31, (count,), generator=generator)
    return wide.to(torch.int32) | 1


BALLS: dict[str, type[Ball]] = {"linf": Linf, "l2": L2}


def column(values: Tensor, like: Tensor) -> Tensor:
    """Per-example values shaped to broadcast against the examples ``like``."""
    return values.reshape(*values.shape, *[1] * (like.ndim - values.ndim))


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


Progress = Callable[[int, int], None]
"""Called with (examples done, examples in all)."""

_ON_CPU = 2048  # examples at once: more leave the cache, fewer leave the cores idle


def in_batches(
    attack: Callable[[Tensor, Tensor], Tensor],
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    batch_size: int | None,
    progress: Progress | None,
) -> Tensor:
    """``attack(x, y)`` batch by batch, with gradients on, and put together again.

    ``batch_size`` counts the examples of all members of a population; None is the default.
    """
    if batch_size is not None:
        check_count(batch_size, "batch_size")
    elif x.device.type == "cpu":
        batch_size = _ON_CPU
    if progress is not None:
        check_function(progress, "progress")
    batch, count = y.ndim - 1, y.shape[-1]
    at_once = max(1, (batch_size or y.numel()) * count // y.numel())
    found: list[Tensor] = []
    with undisturbed(model):
        # An inference tensor has no gradient; its clone may.
        whole = x.clone() if x.is_inference() else x.detach()
        labels = y.clone() if y.is_inference() else y
        for images, classes in zip(
            torch.split(whole, at_once, batch), torch.split(labels, at_once, batch), strict=True
        ):
            found.append(attack(images, classes))
            if progress is not None:
                progress(min(len(found) * at_once, count), count)
    return found[0] if len(found) == 1 else torch.cat(found, batch)


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Gradients are on inside the block, and the model's buffers are as before after it.

    A forward pass may move them: a BatchNorm's statistics, a counter, an observer's range.
    """
    parts = list(model.modules()) if isinstance(model, nn.Module) else []
    named = [(part, *one) for part in parts for one in part.named_buffers(recurse=False)]
    kept = [(part, name, buffer, buffer.clone()) for part, name, buffer in named]
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        with torch.no_grad():
            for part, name, buffer, before in kept:
                setattr(part, name, buffer)  # a forward may have put another in its place
                # Writing ends every graph that the buffer is part of: only where it has moved.
                if not torch.equal(buffer, before):
                    buffer.copy_(before)


Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""An attack with its settings bound, as ``functools.partial(pgd, eps=0.1)`` gives."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""From logits ``[N, classes]`` and labels ``[N]`` to a sum over examples, which goes up."""


def is_correct(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Which examples the model gets right, ``[B]`` or ``[M, B]``."""
    with torch.no_grad():
        correct: Tensor = logits_of(model, x, y).argmax(-1) == y
    return correct


def run_in_turn(
    model: nn.Module, parts: Sequence[Callable[[Tensor, Tensor], Tensor]], x: Tensor, y: Tensor
) -> Tensor:
    """Attacks ``part(x, y) -> x_adv`` one after the other, each on what the others have left."""
    adversarial = x
    for part in parts:

        def again(x: Tensor, y: Tensor, _: Tensor, part: Any = part) -> Tensor:
            found: Tensor = part(x, y)
            return found

        adversarial = retry(again, adversarial, is_correct(model, adversarial, y), x, y)
    return adversarial


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="sum")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """The true class's logit minus the largest other one; below 0 where misclassified."""
    true = labels.unsqueeze(-1)
    others = logits.scatter(-1, true, -torch.inf).amax(-1)
    return logits.gather(-1, true).squeeze(-1) - others


def _margin(logits: Tensor, labels: Tensor) -> Tensor:
    return -margin(logits, labels).sum()


LOSSES: dict[str, Loss] = {"cross-entropy": _cross_entropy, "margin": _margin}
