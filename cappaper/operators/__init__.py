"""Layers the fast way: what torch computes, in an order that suits the processor.

Torch leaves time on a CPU: in the products of dense layers, and in the gradients of convolutions
with a stride. The results are the same but for rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from cappaper.operators.convolutions import Convolution, conv2d
from cappaper.operators.dense import Product, Products, linear
from cappaper.operators.eligible import SUPPORTED

_FAST: dict[Any, Callable[..., Tensor | None]] = (
    {F.linear: linear, torch.conv2d: conv2d} if SUPPORTED else {}
)
"""What takes the place of a function of torch; None where it would be no faster."""


class FastOperators(TorchFunctionMode):
    """Inside the block, dense layers and convolutions on the CPU are computed the fast way.

    With ``torch.backends.mkldnn.flags(enabled=False)`` all stays as it is.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        fast = _FAST.get(func)
        if fast is not None and not torch.compiler.is_compiling():
            found = fast(*args, **kwargs)
            if found is not None:
                return found
        return func(*args, **kwargs)


def is_fast(node: Any) -> bool:
    """Whether a node of a graph is one of these layers', and no custom function of a model's."""
    return getattr(node, "_forward_cls", None) in (Convolution, Product, Products)
