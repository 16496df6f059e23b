"""A gradient where a bounded activation has none: exact outputs, a smooth slope behind them."""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cappaper import checks
from cappaper.attacks.common import undisturbed
from cappaper.bounded import Bound, Bounded, read_call, reader_of
from cappaper.population import Population


class UnreachedWarning(UserWarning):
    """A cap-aware attack met no bounded activation, or cannot look into one."""


class OutOfReachWarning(UnreachedWarning):
    """A cap-aware attack cannot look into a part of the model, bounded or not."""


@contextmanager
def surrogate_gradient(
    model: nn.Module, sharpness: float | None, relu: bool = False
) -> Iterator[nn.Module]:
    """Inside the block, gradients pass through units that a bounded activation holds at its bounds.

    The forward pass stays exact. In the backward pass the derivative of every bounded activation
    becomes ``slope · σ(k(z - lower)) · σ(k(upper - z))``, which is smooth, positive everywhere, and
    close to the true derivative for a large k. For capped ReLU that is ``σ(kz) · σ(k(β - z))``; for
    a sigmoid it is ``σ(kz) · σ(-kz)``. Here ``k = sharpness / s``, and s is the root mean square of
    the layer's pre-activations for that example, so the surrogate does not change when a network is
    :func:`~cappaper.rescale`\\ d.

    It reaches capped ReLU, ``relu6``, ``hardtanh``, ``hardsigmoid``, ``sigmoid``, ``tanh``,
    ``clamp``, ``minimum`` and ``maximum`` with a bound, as modules, functions and methods, in
    subclasses and populations, and all that :func:`~cappaper.register_bounded` names. A ReLU is not
    bounded: it keeps its own gradient, unless a cap follows at once or ``relu`` is set. It does not
    reach clamps inside :func:`~cappaper.exact_gradient`, traced and scripted models, and custom
    ``torch.autograd.Function``\\ s.

    Source: backward pass differentiable approximation, Athalye et al., arXiv 1802.00420, section
    4.1; the smooth slope is this project's.

    Args:
        model: any torch module, or a :class:`~cappaper.Population`; it is not changed. Only calls
            of the whole model are meant, in this thread.
        sharpness: above 0; None is the exact gradient.
        relu: also give ReLU the slope of a cap at ∞, ``σ(kz)``: then a capped network and one of
            ReLUs, both under the surrogate, differ in the cap alone.

    Yields:
        ``model``.

    Raises:
        TypeError, ValueError: ``sharpness`` is not above 0.

    >>> z = torch.tensor([[2.0, 0.5]], requires_grad=True)
    >>> with surrogate_gradient(nn.ReLU6(), sharpness=2.0) as relu6:
    ...     relu6(z * 10).sum().backward()
    >>> bool((z.grad > 0).all())
    True
    """
    checks.module(model)
    if sharpness is None:
        yield model
        return
    checks.positive(sharpness, "the sharpness")
    with _watching(model, lambda call, output: _smooth(call, output, sharpness, relu)):
        yield model


def bounded_calls(model: nn.Module, x: Tensor, y: Tensor) -> tuple[list[Bounded], Tensor]:
    """What the registry sees in one forward pass, ReLUs too, and the logits with their graph."""
    calls: dict[int, Bounded] = {}

    def keep(call: Bounded, output: Tensor) -> Tensor:
        calls[id(call.z)] = call  # a ReLU that a cap follows becomes that capped ReLU
        # As under the surrogate, the graph bypasses the activation.
        return output.detach() + _zero(call.z)

    with _watching(model, keep):
        logits = checks.logits_of(model, x.detach().clone().requires_grad_(), y)
    return list(calls.values()), logits


def warn_unreached(model: nn.Module, x: Tensor, y: Tensor, attack: str) -> None:
    """Warn where the surrogate gradient has nothing to do, or cannot look inside."""
    checks.module(model, f"the model of {attack}")
    few = min(2, y.shape[-1])  # not one: a BatchNorm in train mode refuses it
    with undisturbed(model):
        calls, logits = bounded_calls(model, x.narrow(y.ndim - 1, 0, few), y[..., :few])
    scripted = [
        name or "the model"
        for name, module in model.named_modules()
        if isinstance(module, torch.jit.ScriptModule)
    ]
    kind: type[UnreachedWarning] = OutOfReachWarning
    if scripted:
        why = f"cannot reach into {scripted[0]}, which is traced or scripted: attack the original"
    elif custom := _custom_functions(logits):
        why = (
            f"cannot reach into the custom autograd function {custom[0]}: name the module that"
            " calls it with cappaper.register_bounded, or its gradient stays as it is"
        )
    elif not any(isinstance(c.upper, Tensor) or math.isfinite(c.upper) for c in calls):
        kind = UnreachedWarning
        why = (
            f"met no bounded activation in {type(model).__name__}, so it adds starts and losses to"
            " PGD, and nothing else: if there is one, name it with cappaper.register_bounded"
        )
    else:
        return
    warnings.warn(f"{attack} {why}", kind, stacklevel=3)


class _Watch(TorchFunctionMode):
    """Hands every call of a bounded activation to ``handle``, once all of its bounds are known."""

    def __init__(self, handle: Callable[[Bounded, Tensor], Tensor]) -> None:
        super().__init__()
        self._handle = handle
        # By id, with the tensor itself, so that no other tensor can get that id; and with its
        # version, because a tensor that is changed in place is no clamp's output any more.
        self._clamped: dict[int, tuple[Tensor, int, Bounded]] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        call = read_call(func, args, kwargs) if torch.is_grad_enabled() else None
        if call is None or not call.z.is_floating_point():  # indices are clamped, too
            return func(*args, **kwargs)
        in_place = func.__name__.endswith("_") or kwargs.get("inplace")
        in_place = in_place or any(argument is True for argument in args[1:])
        before = self._clamped.get(id(call.z))
        if before and before[1] == call.z._version:
            call = _intersection(before[2], call)
        if in_place:
            call = call._replace(z=call.z.clone())
        output = func(*args, **kwargs)
        handled = self._handle(call, output)
        result = output.copy_(handled) if in_place and handled is not output else handled
        if _is_clamp(call):
            self._clamped[id(result)] = result, result._version, call
        return result


@contextmanager
def _watching(model: nn.Module, handle: Callable[[Bounded, Tensor], Tensor]) -> Iterator[None]:
    """Hand the bounded activations in this thread's calls of ``model`` to ``handle``."""
    owner, entered = threading.get_ident(), list[_Watch]()

    def enter(module: nn.Module, inputs: Any) -> None:
        if threading.get_ident() == owner:
            mode = _Watch(handle)
            mode.__enter__()  # type: ignore[no-untyped-call]
            entered.append(mode)

    def leave(*_: Any) -> None:
        if threading.get_ident() == owner and entered:
            entered.pop().__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def registered(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
        read = reader_of(module)
        if threading.get_ident() != owner or read is None:
            return None
        call = read(module, *inputs)
        return None if call is None else handle(call, output)

    # The layers of a population are its template's.
    templates = [m.template for m in model.modules() if isinstance(m, Population)]
    layers = [layer for part in (model, *templates) for layer in part.modules()]
    handles = []
    try:
        handles.append(model.register_forward_pre_hook(enter))
        handles.append(model.register_forward_hook(leave, prepend=True, always_call=True))
        handles += [m.register_forward_hook(registered) for m in layers if reader_of(m)]
        yield
    finally:
        for hook in handles:
            hook.remove()
        while entered:  # torch calls no hook after an interrupt, which is no Exception
            leave()


def _smooth(call: Bounded, output: Tensor, sharpness: float, relu: bool) -> Tensor:
    """``output`` with the smooth slope behind it; calls without a finite cap only for ``relu``."""
    z, lower, upper, slope = call
    if not isinstance(upper, Tensor) and math.isinf(upper) and not relu:
        return output
    still = z.detach()
    # Where all of an example's pre-activations are 0, k would be ∞ and ∞ · 0 no number.
    k = (sharpness / _scale(still)).clamp(max=torch.finfo(z.dtype).max)
    rise = slope * torch.sigmoid(k * (upper - still))
    if isinstance(lower, Tensor) or not math.isinf(lower):
        rise = rise * torch.sigmoid(k * (still - lower))
    if isinstance(upper, Tensor) and not relu:  # a cap at ∞ among a population's is a ReLU
        rise = torch.where(upper.detach().isinf(), (still > lower).to(still), rise)
    return output.detach() + _zero(z) * rise.detach().nan_to_num(0.0)


def _zero(z: Tensor) -> Tensor:
    """0, with the graph of ``z`` behind it; where ``z`` is infinite, too."""
    return (z - z.detach()).nan_to_num(0.0)


def _scale(z: Tensor) -> Tensor:
    """Root mean square of each example's pre-activations, shaped to broadcast against them."""
    dims = tuple(range(1, z.ndim))
    square = z.square().mean(dims, keepdim=True) if dims else z.square()
    return square.sqrt().clamp(min=torch.finfo(z.dtype).tiny)


def _intersection(first: Bounded, then: Bounded) -> Bounded:
    """A clamp of a clamp is one clamp: capped ReLU is often a ReLU and then a minimum."""
    lower = _extreme(first.lower, then.lower, max, torch.maximum)
    return Bounded(
        first.z, lower, _extreme(first.upper, then.upper, min, torch.minimum), then.slope
    )


def _extreme(one: Bound, other: Bound, of_numbers: Any, of_tensors: Any) -> Any:
    like = next((bound for bound in (one, other) if isinstance(bound, Tensor)), None)
    if like is None:
        return of_numbers(one, other)
    return of_tensors(*(torch.as_tensor(bound).to(like) for bound in (one, other)))


def _is_clamp(call: Bounded) -> bool:
    """Whether the output is ``z`` itself between its bounds, so that another clamp may follow."""
    numbers = not isinstance(call.lower, Tensor) and not isinstance(call.upper, Tensor)
    return call.slope == 1.0 and not (numbers and call.lower == call.upper)


def _custom_functions(logits: Tensor) -> list[str]:
    """The names of the custom autograd functions in a graph."""
    todo, seen = [logits.grad_fn], set[Any]()
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            todo += [following for following, _ in node.next_functions]
    custom = [n for n in seen if isinstance(n, torch.autograd.function.BackwardCFunction)]
    return sorted({type(node).__name__.removesuffix("Backward") for node in custom})
