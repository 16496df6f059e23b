"""What may take the fast way: tensors and gradients with nothing about them that needs torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

_autograd: Any = getattr(torch._C, "_autograd", None)
_functorch: Any = getattr(torch._C, "_functorch", None)
_ASKED = [
    (torch._C, "_will_engine_execute_node"),
    (_autograd, "_top_saved_tensors_default_hooks"),
    (_functorch, "get_interpreter_stack"),
    (_functorch, "is_functorch_wrapped_tensor"),
    (_functorch, "is_legacy_batchedtensor"),
    (_functorch, "TransformType"),
    (forward_ad, "_current_level"),
]
SUPPORTED = all(hasattr(module, name) for module, name in _ASKED)
"""Whether this torch answers what is asked here, for which it has no public functions."""


def plain(*tensors: Tensor | None) -> bool:
    """Whether these are tensors that oneDNN takes, and torch has nothing else to do with them."""
    given = [t for t in tensors if t is not None]
    return (
        bool(torch.backends.mkldnn.enabled)
        and all(
            type(t) in (Tensor, nn.Parameter)
            and t.dtype is torch.float32
            and t.is_cpu
            and t.layout is torch.strided
            for t in given
        )
        and forward_ad._current_level < 0
        and not torch.is_autocast_enabled("cpu")
        and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        # Whoever stores or recomputes what a graph saves counts on what torch saves.
        and _autograd._top_saved_tensors_default_hooks(True) is None
    )


def networks(*tensors: Tensor | None) -> bool | None:
    """True inside one vmap, False outside of torch.func; None elsewhere, which is torch's."""
    stack = _functorch.get_interpreter_stack()
    if not stack:
        return False
    given = [t for t in tensors if t is not None]
    wrapped = [t for t in given if _functorch.is_functorch_wrapped_tensor(t)]
    one = len(stack) == 1 and stack[0].key() == _functorch.TransformType.Vmap
    return True if one and wrapped else None


def settled(gradient: Tensor) -> bool:
    """Whether a gradient is one tensor of numbers, and no graph of it is wanted."""
    return (
        not torch.is_grad_enabled()
        and plain(gradient)
        and not _functorch.get_interpreter_stack()
        and not _functorch.is_legacy_batchedtensor(gradient)
    )


def wanted(ctx: Any) -> list[bool]:
    """Of which of input, weight and bias a backward pass needs a gradient.

    An attack wants that of the input alone, which costs half as much as all. Give weight and bias
    as views: of a leaf nobody can say, and it gets its gradient.
    """
    of_input, *needed = ctx.needs_input_grad[:3]
    nodes = [node for node, _ in (*ctx.next_functions[1:], (None, 0))]  # none for no bias
    return [of_input, *map(_is_wanted, needed, nodes)]


def _is_wanted(needed: bool, node: Any) -> bool:
    return needed and (hasattr(node, "variable") or torch._C._will_engine_execute_node(node))
