"""Dense layers by whichever of torch's two libraries is fast on this processor.

Torch leaves them to MKL, which takes AVX-512 on Intel's processors alone; oneDNN, which comes with
torch as well, takes it wherever it is. On an AMD processor that has it, a product takes half the
time.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from cappaper.operators.eligible import networks, plain, settled, wanted

_ROWS = 32  # with fewer of them, or fewer multiplications, oneDNN is no faster
_MULTIPLICATIONS = 2**21  # a thread

_Layer = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
    """``F.linear`` by oneDNN, or None where that is no faster."""
    if not (_onednn_leads() and plain(input, weight, bias)):
        return None
    if input.ndim < 2 or weight.ndim != 2 or input.shape[-1] != weight.shape[-1]:
        return None  # torch knows what that means, or says what is wrong
    if bias is not None and bias.shape != weight.shape[:1]:
        return None
    rows = input.shape[:-1].numel()
    if rows < _ROWS or rows * weight.numel() < _MULTIPLICATIONS * torch.get_num_threads():
        return None
    many = networks(input, weight, bias)
    if many is None:
        return None
    # Views because of what wanted() asks.
    product: Any = (Products if many else Product).apply
    found: Tensor = product(
        input if input.ndim == 2 else input.flatten(0, -2),
        weight.mT,
        None if bias is None else bias.view_as(bias),
    )
    return found if input.ndim == 2 else found.unflatten(0, input.shape[:-1])


class Product(Function):
    """``x @ w + b``: [B, k], [k, n] and [n] to [B, n]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        _keep(ctx, x, weight)
        return _onednn(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return _backward(_onednn, ctx, *gradients)


class Products(Function):
    """The same of many networks, inside vmap: [M, B, k], [M, k, n] and [M, n] to [M, B, n]."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _each(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _keep(ctx, *inputs[:2])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return _backward(_each, ctx, *gradients)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor | None
    ) -> tuple[Tensor, int]:
        size, given = info.batch_size, zip(inputs, in_dims, strict=True)
        all_of = [
            t if t is None else t.expand(size, *t.shape) if dim is None else t.movedim(dim, 0)
            for t, dim in given
        ]
        x, weight, bias = all_of
        if x is not None and x.stride(0) == 0 and not x.requires_grad:
            return _of_one_input(x[0], weight, bias), 0
        product: Any = Products.apply
        return product(x, weight, bias), 0


def _of_one_input(x: Tensor, weight: Any, bias: Tensor | None) -> Tensor:
    """What networks that see the same make of it, [M, B, n]: they are parts of a wider one."""
    product: Any = Product.apply
    # Views because of what wanted() asks.
    found: Tensor = product(x, weight.mT.flatten(0, 1).mT, None if bias is None else bias.flatten())
    members: Tensor = found.unflatten(-1, (len(weight), -1)).movedim(1, 0)
    return members.contiguous()  # as torch's, for a model that goes on with a view


def _keep(ctx: Any, x: Tensor, weight: Tensor) -> None:
    """As torch, what a gradient will need and no more: the rest may change in place."""
    of_x, of_weight, _ = ctx.needs_input_grad
    ctx.save_for_backward(x if of_weight else None, weight if of_x else None)


def _backward(product: _Layer, ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    of_x, of_weight, of_bias = wanted(ctx)
    if not settled(gradient):
        product = _torchs
    return (
        product(gradient, weight.mT, None) if of_x else None,
        # In this order the weights themselves, of which ``weight`` is a view, get rows in a row.
        product(gradient.mT, x, None).mT if of_weight else None,
        gradient.sum(-2) if of_bias else None,
    )


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    # Rows with gaps between them would take forty times as long, and a bias with gaps be misread.
    x, weight = (
        t if t.is_contiguous() or t.mT.is_contiguous() else t.contiguous() for t in (x, weight)
    )
    bias = None if bias is None else bias.contiguous()
    layer = torch.ops.mkldnn._linear_pointwise.default
    found: Tensor = layer(x, weight.mT, bias, "none", [], "")
    return found


def _each(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    biases = [None] * len(x) if bias is None else bias
    found = x.new_empty(*x.shape[:-1], weight.shape[-1])
    for i, own in enumerate(zip(x, weight, biases, strict=True)):
        found[i].copy_(_onednn(*own))  # at once, while it is in the cache
    return found


def _torchs(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x @ weight


@cache
def _onednn_leads() -> bool:
    """AVX-512 on a processor that MKL, if torch has it, does not use it on."""
    return (
        "AuthenticAMD" in _processor()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and torch.backends.mkl.is_available()
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _processor() -> str:
    try:  # Linux
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor()
