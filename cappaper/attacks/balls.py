"""The balls that attacks live in: which way is up, the way back in, a random point."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


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
    def random(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Uniform in the ball around ``x``, then clipped to [0, 1].

        Drawn for one batch and shared by a population's members, so that company changes nothing.
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

    def random(self, x: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.rand(x.shape[self.batch_dims - 1 :], generator=generator) * 2 - 1
        return (x + self.eps * noise.to(x)).clamp(0, 1)


@dataclass(frozen=True)
class L2(Ball):
    """All pixels together change by at most ``eps`` in Euclidean length."""

    def direction(self, gradient: Tensor) -> Tensor:
        # By the largest entry first: in float32 the squares of a tiny gradient are all zero.
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

    def random(self, x: Tensor, generator: torch.Generator) -> Tensor:
        shape = x.shape[self.batch_dims - 1 :]
        flat = torch.randn(shape, generator=generator).flatten(1)
        radius = torch.rand(len(flat), 1, generator=generator) ** (1 / flat.shape[1])
        noise: Tensor = (flat / flat.norm(dim=-1, keepdim=True) * radius).reshape(shape)
        return (x + self.eps * noise.to(x)).clamp(0, 1)

    def _length(self, delta: Tensor) -> Tensor:
        return column(delta.flatten(self.batch_dims).norm(dim=-1), delta)


BALLS: dict[str, type[Ball]] = {"linf": Linf, "l2": L2}


def column(values: Tensor, like: Tensor) -> Tensor:
    """Per-example values shaped to broadcast against the examples ``like``."""
    return values.reshape(*values.shape, *[1] * (like.ndim - values.ndim))
