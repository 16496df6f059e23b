"""The balls that attacks stay in: steepest ascent, projection, and a random point."""

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Linf:
    """All images in which every pixel differs from an example's by at most ``eps``."""

    eps: float
    batch_dims: int  # the first dimensions of every tensor, which count examples

    def direction(self, gradient: Tensor) -> Tensor:
        """Steepest ascent of length 1, in a new tensor; zero where the gradient is zero."""
        return gradient.sign()

    def projection(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """A function that projects points onto the ball around ``x`` and onto [0, 1], in place."""
        # Compute the bounds once: on small networks, passes over images take a third of the time.
        lower, upper = (x - self.eps).clamp(min=0), (x + self.eps).clamp(max=1)
        return lambda point: point.clamp_(lower, upper)

    def random(self, x: Tensor, seed: int, run: int = 0) -> Tensor:
        """Uniform in the ball around ``x``, then clipped to [0, 1]; drawn as by :func:`uniform`."""
        noise = uniform(x.flatten(self.batch_dims), seed, run).reshape(x.shape)
        return torch.add(x, noise.mul_(2).sub_(1), alpha=self.eps).clamp_(0, 1)


@dataclass(frozen=True)
class L2(Linf):
    """All images whose Euclidean distance from an example is at most ``eps``."""

    def direction(self, gradient: Tensor) -> Tensor:
        # Divide by the largest entry first: in float32 the squares of a tiny gradient are zero.
        gradient = gradient.nan_to_num()  # some slopes are infinite, as a root's is at 0
        largest = column(gradient.flatten(self.batch_dims).abs().amax(-1), gradient)
        scaled = gradient / largest.where(largest > 0, 1)
        unit: Tensor = scaled / self._length(scaled).clamp(min=1)
        return unit

    def projection(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        def project(point: Tensor) -> Tensor:
            delta = point.sub_(x)
            shrink = self.eps / self._length(delta).clamp(min=torch.finfo(x.dtype).tiny)
            inside: Tensor = delta.mul_(shrink.clamp(max=1)).add_(x)
            return inside.clamp_(0, 1)  # x lies in [0, 1], so clipping only shortens delta

        return project

    def random(self, x: Tensor, seed: int, run: int = 0) -> Tensor:
        flat = x.flatten(self.batch_dims)
        draws = uniform(flat, seed, run, extra=1)
        normal = torch.erfinv(2 * draws[..., :-1] - 1)  # its scale cancels in the next lines
        radius = draws[..., -1:] ** (1 / flat.shape[-1])
        noise = normal / normal.norm(dim=-1, keepdim=True) * radius
        return torch.add(x, noise.reshape(x.shape), alpha=self.eps).clamp_(0, 1)

    def _length(self, delta: Tensor) -> Tensor:
        return column(delta.flatten(self.batch_dims).norm(dim=-1), delta)


BALLS: dict[str, type[Linf]] = {"linf": Linf, "l2": L2}


def uniform(x: Tensor, seed: int, run: int, extra: int = 0) -> Tensor:
    """Numbers in (0, 1): one for each of the P pixels of examples ``[..., P]``, then ``extra``.

    They depend on the seed, the run and the example's own pixels alone. Over seeds they are
    uniform, and those of two examples are independent.

    Source: multiply-shift hashing of an image's fingerprint, Dietzfelbinger, Hagerup, Katajainen
    and Penttonen, A reliable randomized algorithm for the closest-pair problem, Journal of
    Algorithms 25, 1997.
    """
    count = x.shape[-1] + extra
    factor, shift = (integers(count, seed, 2 * run + i).to(x.device) for i in (1, 2))
    draws = torch.addcmul(shift, fingerprint(x), factor)  # modulo 2^32
    draws = draws.bitwise_right_shift_(9).bitwise_and_(0x7FFFFF).to(x.dtype)
    return draws.add_(0.5).mul_(2.0**-23)


def fingerprint(x: Tensor) -> Tensor:
    """A 32-bit integer ``[..., 1]`` for each example ``[..., P]``, from its pixels alone."""
    weights = integers(x.shape[-1], 0, 0).to(x.device)
    bits = x.float().view(torch.int32)
    # Round numbers leave the lower half of their bits zero: mix the upper half into it.
    bits = torch.bitwise_right_shift(bits, 16).bitwise_xor_(bits).mul_(weights)
    return bits.sum(-1, keepdim=True, dtype=torch.int32)


@functools.lru_cache(maxsize=256)
def integers(count: int, seed: int, stream: int) -> Tensor:
    """Random odd 32-bit integers, from a seed and the number of a stream."""
    mixed = int.from_bytes(hashlib.sha256(f"{seed} {stream}".encode()).digest()[:7], "big")
    draw = torch.Generator("cpu").manual_seed(mixed)
    wide = torch.randint(-(2**31), 2**31, (count,), generator=draw, device="cpu")
    return wide.to(torch.int32) | 1


def is_zero(values: Tensor, batch_dims: int) -> Tensor:
    """Which examples are zero in every entry; false where one is NaN."""
    return values.flatten(batch_dims).abs().amax(-1).eq(0)  # any() takes three times as long


def choose(which: Tensor, one: Tensor, other: Tensor, out: Tensor | None = None) -> Tensor:
    """Examples of ``one`` where ``which`` is true, else of ``other``; both must be finite."""
    # On a CPU, torch.where takes eight times as long with one condition per example.
    return torch.lerp(other, one, column(which.to(one.dtype), one), out=out)


def column(values: Tensor, like: Tensor) -> Tensor:
    """One value per example, shaped to broadcast against the examples ``like``."""
    return values.reshape(*values.shape, *[1] * (like.ndim - values.ndim))
