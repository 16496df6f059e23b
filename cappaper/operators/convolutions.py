"""Convolutions whose gradients are convolutions, too.

oneDNN is slow at the gradient of images where a convolution has a stride, or they have one channel:
a convolution that gives the same is up to 6 times as fast.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.nn.grad import conv2d_weight

from cappaper.operators.eligible import networks, plain, settled, wanted

_MULTIPLICATIONS = 2**20  # fewer are not worth the detour

_Pair = tuple[int, int]


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | _Pair = 1,
    padding: str | int | _Pair = 0,
    dilation: int | _Pair = 1,
    groups: int = 1,
) -> Tensor | None:
    """``F.conv2d`` with a faster gradient, or None where there is none."""
    strides, pads = _pair(stride, 1), _pair(padding, 0)
    if strides is None or pads is None or dilation not in (1, (1, 1)) or groups != 1:
        return None
    if input.ndim != 4 or weight.ndim != 4 or not input.shape[1] or not plain(input, weight, bias):
        return None
    if input.shape[1] > 1 and max(strides) == 1:
        return None
    if input[:, :, :: strides[0], :: strides[1]].numel() * weight[:, 0].numel() < _MULTIPLICATIONS:
        return None
    if networks(input, weight, bias) is not False:
        return None
    # Views because of what wanted() asks.
    views = weight.view_as(weight), None if bias is None else bias.view_as(bias)
    convolve: Any = Convolution.apply
    found: Tensor = convolve(input, *views, strides, pads)
    return found


class Convolution(Function):
    """``F.conv2d`` of images [B, C, H, W] with a kernel [O, C, K, L]."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, strides: _Pair, pads: _Pair
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.settings = strides, pads
        return F.conv2d(x, weight, bias, strides, pads)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (x, weight), settings = gradients, ctx.saved_tensors, ctx.settings
        mask = of_x, of_weight, of_bias = wanted(ctx)
        if not settled(gradient):
            strides, pads = settings
            more = [len(weight)], strides, pads, (1, 1), False, (0, 0), 1, mask
            return *torch.ops.aten.convolution_backward(gradient, x, weight, *more), None, None
        return (
            _of_input(gradient, weight, x.shape, *settings) if of_x else None,
            conv2d_weight(x, weight.shape, gradient, *settings) if of_weight else None,
            gradient.sum((0, 2, 3)) if of_bias else None,
            None,
            None,
        )


def _of_input(
    gradient: Tensor, weight: Tensor, shape: torch.Size, strides: _Pair, pads: _Pair
) -> Tensor:
    """The gradient of images [B, C, H, W].

    With strides s and t, pixels whose row is r and whose column is q, modulo s and t, get theirs
    from every s-th row and t-th column of the kernel. A convolution for each (r, q), all of them
    at once as channels of one, and their results shuffled together: that is the gradient.
    """
    rows, top = _phases(weight.shape[-2], strides[0], pads[0])
    columns, left = _phases(weight.shape[-1], strides[1], pads[1])
    # [O, C, r, i, q, j] to [C·r·q, O, i, j]; what the kernel does not reach is 0.
    padded = F.pad(weight, (0, 1, 0, 1))
    kernels = padded[..., rows[:, :, None, None], columns].permute(1, 2, 4, 0, 3, 5).flatten(0, 2)
    counts = [math.ceil(n / s) for n, s in zip(shape[-2:], strides, strict=True)]
    bottom = counts[0] + rows.shape[1] - 1 - top - gradient.shape[-2]
    right = counts[1] + columns.shape[1] - 1 - left - gradient.shape[-1]
    around = (0, 0)
    if (top, left) == (bottom, right) and min(top, left) >= 0:
        around = (top, left)
    else:
        gradient = F.pad(gradient, (left, right, top, bottom))
    mixed = F.conv2d(gradient, kernels, None, 1, around).unflatten(1, (-1, *strides))
    shuffled = mixed.permute(0, 1, 4, 2, 5, 3).flatten(-2).flatten(-3, -2)
    within: Tensor = shuffled[..., : shape[-2], : shape[-1]]
    return within.contiguous()


def _phases(kernel: int, stride: int, pad: int) -> tuple[Tensor, int]:
    """For each phase r and each offset, which entry of the kernel; and how far it reaches back.

    Pixel s·m + r met output m + d through entry r + p - s·d; ``kernel`` stands for none.
    """
    first, last = -((kernel - 1 - pad) // stride), (stride - 1 + pad) // stride
    phase, offset = torch.arange(stride).unsqueeze(-1), torch.arange(first, last + 1)
    entry = phase + pad - stride * offset
    return entry.where((entry >= 0) & (entry < kernel), kernel), -first


def _pair(value: Any, least: int) -> _Pair | None:
    """Two whole numbers of at least ``least``; None for what torch may understand, or refuse."""
    both = value if isinstance(value, tuple) else (value, value)
    fine = len(both) == 2 and all(type(each) is int and each >= least for each in both)
    return both if fine else None
