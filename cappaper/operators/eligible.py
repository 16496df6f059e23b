"""Which tensors may take the fast way, and which gradients are wanted of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch._C import _functorch
from torch.autograd.forward_ad import unpack_dual


def plain(*tensors: Tensor | None) -> bool:
    """Whether these are tensors that oneDNN takes, with nothing about them that needs torch."""
    given = [t for t in tensors if t is not None]
    return (
        bool(torch.backends.mkldnn.enabled)
        and all(
            type(t) in (Tensor, nn.Parameter)
            and t.dtype is torch.float32
            and t.is_cpu
            and t.layout is torch.strided
            and unpack_dual(t).tangent is None
            for t in given
        )
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    )


def functorch_level(*tensors: Tensor | None) -> int | None:
    """0 outside of torch.func, 1 in one vmap; None in anything else, which is left to torch."""
    wrapped = [t for t in tensors if t is not None and _functorch.is_functorch_wrapped_tensor(t)]
    for t in wrapped:
        inside = _functorch.get_unwrapped(t)
        if not _functorch.is_batchedtensor(t) or _functorch.is_functorch_wrapped_tensor(inside):
            return None
    return int(bool(wrapped))


def wanted(ctx: Any) -> list[bool]:
    """Of which of input, weight and bias a backward pass needs a gradient.

    An attack wants that of the input alone, which costs half as much as all.
    """
    of_input, *needed = ctx.needs_input_grad[:3]
    nodes = [node for node, _ in (*ctx.next_functions[1:], (None, 0))]  # none for no bias
    return [of_input, *map(_is_wanted, needed, nodes)]


def _is_wanted(needed: bool, node: Any) -> bool:
    # A leaf's node may not be asked: pass views.
    return needed and (hasattr(node, "variable") or torch._C._will_engine_execute_node(node))
