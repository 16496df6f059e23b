"""A gradient where a bounded activation has none: exact outputs, a smooth slope on the way back."""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cappaper.attacks.batches import undisturbed
from cappaper.bounded import Bound, Bounded, read_call, reader_of
from cappaper.checks import check_flag, check_module, check_positive, logits_of
from cappaper.operators import is_fast
from cappaper.population import Population


class UnreachedWarning(UserWarning):
    """An attack that knows about bounded activations met none, or cannot reach into one."""


class OutOfReachWarning(UnreachedWarning):
    """It cannot reach into a part of the model, bounded or not."""


@contextmanager
def surrogate_gradient(
    model: nn.Module, sharpness: float | None, relu: bool = False
) -> Iterator[nn.Module]:
    """Inside the block, gradients pass through units that a bounded activation holds at its bounds.

    The forward pass stays as it is, to the last bit. In the backward pass the derivative of every
    bounded activation becomes ``slope · σ(k(z - lower)) · σ(k(upper - z))``, which is smooth,
    positive everywhere, and close to its own derivative for a large k. For capped ReLU that is
    ``σ(kz) · σ(k(β - z))``; for a sigmoid, wherever it saturates, ``σ(kz) · σ(-kz)``. Here
    ``k = sharpness / s``, and s is the root mean square of the layer's pre-activations for that
    example: the surrogate does not change when a network is :func:`~cappaper.rescale`\\ d.

    It reaches capped ReLU, ``relu6``, ``hardtanh``, ``hardsigmoid``, ``sigmoid``, ``tanh``,
    ``clamp``, ``minimum`` and ``maximum`` with a bound, as modules, functions and methods, in
    subclasses and populations, and whatever :func:`~cappaper.register_bounded` was told. A ReLU is
    not bounded: it keeps its own gradient, unless a cap follows at once or ``relu`` is set. A clamp
    that is no activation is left out inside :func:`~cappaper.exact_gradient`. Traced and scripted
    models and custom ``torch.autograd.Function``\\ s are out of reach.

    Source: backward pass differentiable approximation, Athalye et al., arXiv 1802.00420, section
    4.1; the smooth slope is this project's.

    Args:
        model: any torch module, or a :class:`~cappaper.Population`; it is not changed, and only
            calls of itself are meant, not of its parts. Other threads that use it at the same time
            keep their own gradients.
        sharpness: above 0; None is the exact gradient.
        relu: also give ReLU the slope of a cap at ∞, ``σ(kz)``: between a capped network and one of
            ReLUs, both under such a gradient, the cap alone is another.

    Yields:
        ``model``.

    Raises:
        TypeError, ValueError: ``sharpness`` is not above 0; ``relu`` is neither True nor False.

    >>> z = torch.tensor([[2.0, 0.5]], requires_grad=True)
    >>> with surrogate_gradient(nn.ReLU6(), sharpness=2.0) as relu6:
    ...     relu6(z * 10).sum().backward()
    >>> bool((z.grad > 0).all())
    True
    """
    check_module(model)
    check_flag(relu, "relu")
    if sharpness is None:
        yield model
        return
    check_positive(sharpness, "the sharpness")
    with _watching(model, lambda call, output: _smooth(call, output, sharpness, relu)):
        yield model


def bounded_calls(model: nn.Module, x: Tensor, y: Tensor) -> tuple[list[Bounded], Tensor]:
    """What the registry sees in one forward pass, ReLUs too, and the logits with their graph."""
    seen: dict[int, Bounded] = {}

    def keep(call: Bounded, output: Tensor) -> Tensor:
        seen[id(call.z)] = call  # a ReLU that a cap follows becomes that capped ReLU
        # The graph goes past the activation, as that of the surrogate does.
        return output.detach() + _nothing(call.z)

    with undisturbed(model), _watching(model, keep):
        logits = logits_of(model, x.detach().clone().requires_grad_(), y)
    return list(seen.values()), logits


def warn_unreached(model: nn.Module, x: Tensor, y: Tensor, who: str) -> None:
    """Warn where the surrogate gradient has nothing to do, or cannot get at what there is."""
    check_module(model, f"the model of {who}")
    few = min(2, y.shape[-1])  # not one: a BatchNorm in train mode refuses it
    calls, logits = bounded_calls(model, x.narrow(y.ndim - 1, 0, few), y[..., :few])
    traced = [
        name or "the model"
        for name, module in model.named_modules()
        if isinstance(module, torch.jit.ScriptModule)
    ]
    own = sorted({type(node).__name__.removesuffix("Backward") for node in _custom_nodes(logits)})
    kind: type[UnreachedWarning] = OutOfReachWarning
    if traced:
        said = f"cannot reach into {traced[0]}, which is traced or scripted: attack the original"
    elif own:
        said = (
            f"cannot reach into the custom autograd function {own[0]}: name the module that calls"
            " it with cappaper.register_bounded, or its gradient stays as it is"
        )
    elif not any(_is_bounded(call) for call in calls):
        kind = UnreachedWarning
        said = (
            f"met no bounded activation in {type(model).__name__}, so it adds starts and losses to"
            " PGD, and nothing else: if there is one, name it with cappaper.register_bounded"
        )
    else:
        return
    warnings.warn(f"{who} {said}", kind, stacklevel=3)


class _Watch(TorchFunctionMode):
    """Shows every bounded activation of a forward pass, once all of its bounds are known."""

    def __init__(self, seen: Callable[[Bounded, Tensor], Tensor]) -> None:
        super().__init__()
        self._seen = seen
        # By id, beside the tensor itself, so that no other can come to have that id; and its
        # version, because what is changed in place is no longer that clamp's output.
        self._known: dict[int, tuple[Tensor, int, Bounded]] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        call = read_call(func, args, kwargs) if torch.is_grad_enabled() else None
        if call is None or not call.z.is_floating_point():  # indices are clamped, too
            return func(*args, **kwargs)
        in_place = func.__name__.endswith("_") or kwargs.get("inplace")
        in_place = in_place or any(argument is True for argument in args[1:])
        before = self._known.get(id(call.z))
        if before and before[1] == call.z._version:
            call = _both(before[2], call)
        if in_place:
            call = call._replace(z=call.z.clone())
        output = func(*args, **kwargs)
        seen = self._seen(call, output)
        result = output.copy_(seen) if in_place and seen is not output else seen
        if _is_clamp(call):
            self._known[id(result)] = result, result._version, call
        return result


@contextmanager
def _watching(model: nn.Module, seen: Callable[[Bounded, Tensor], Tensor]) -> Iterator[None]:
    owner, entered = threading.get_ident(), list[_Watch]()

    def enter(module: nn.Module, inputs: Any) -> None:
        if threading.get_ident() == owner:
            entered.append(_Watch(seen))
            entered[-1].__enter__()  # type: ignore[no-untyped-call]

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        if threading.get_ident() == owner and entered:
            entered.pop().__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def registered(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
        read = reader_of(module)
        if threading.get_ident() != owner or read is None:
            return None
        call = read(module, *inputs)
        return None if call is None else seen(call, output)

    handles = [
        model.register_forward_pre_hook(enter),
        model.register_forward_hook(leave, prepend=True, always_call=True),
    ]
    handles += [
        module.register_forward_hook(registered)
        for part in _parts(model)
        for module in part.modules()
        if reader_of(module) is not None
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _smooth(call: Bounded, output: Tensor, sharpness: float, relu: bool) -> Tensor:
    """``output`` with the smooth slope behind it; without a finite cap, that is for ``relu``."""
    z, lower, upper, slope = call
    if isinstance(upper, float | int) and math.isinf(upper) and not relu:
        return output
    still = z.detach()
    # Where all of an example's pre-activations are 0, ∞ · 0 would be no number.
    k = (sharpness / _scale(still)).clamp(max=torch.finfo(z.dtype).max)
    rise = slope * torch.sigmoid(k * (upper - still))
    if not (isinstance(lower, float | int) and math.isinf(lower)):
        rise = rise * torch.sigmoid(k * (still - lower))
    if isinstance(upper, Tensor) and not relu:  # β = ∞ is ReLU, also as one of a population's caps
        rise = torch.where(upper.detach().isinf(), (still > lower).to(still), rise)
    return output.detach() + _nothing(z) * rise.detach().nan_to_num(0.0)


def _nothing(z: Tensor) -> Tensor:
    """0, with the graph of ``z`` behind it; where ``z`` is infinite, too."""
    return (z - z.detach()).nan_to_num(0.0)


def _scale(z: Tensor) -> Tensor:
    """Root mean square of each example's pre-activations, shaped to broadcast against them."""
    dims = tuple(range(1, z.ndim))
    square = z.square().mean(dims, keepdim=True) if dims else z.square()
    return square.sqrt().clamp(min=torch.finfo(z.dtype).tiny)


def _both(first: Bounded, then: Bounded) -> Bounded:
    """A clamp of a clamp is one clamp: capped ReLU is often written as ReLU, then a minimum."""
    return Bounded(
        first.z,
        _extreme(first.lower, then.lower, max, torch.maximum),
        _extreme(first.upper, then.upper, min, torch.minimum),
        then.slope,
    )


def _extreme(one: Bound, other: Bound, number: Any, tensor: Any) -> Any:
    if not isinstance(one, Tensor) and not isinstance(other, Tensor):
        return number(one, other)
    like = cast(Tensor, one if isinstance(one, Tensor) else other)
    return tensor(*(torch.as_tensor(bound).to(like) for bound in (one, other)))


def _is_clamp(call: Bounded) -> bool:
    """Whether the output is ``z`` itself between its bounds, so that another clamp may follow."""
    numbers = not isinstance(call.lower, Tensor) and not isinstance(call.upper, Tensor)
    return call.slope == 1.0 and not (numbers and call.lower == call.upper)


def _is_bounded(call: Bounded) -> bool:
    return isinstance(call.upper, Tensor) or math.isfinite(call.upper)


def _custom_nodes(logits: Tensor) -> Iterator[Any]:
    """The nodes of a graph that belong to custom autograd functions."""
    todo, seen = [logits.grad_fn], set[Any]()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(node, torch.autograd.function.BackwardCFunction) and not is_fast(node):
            yield node
        todo += [following for following, _ in node.next_functions]


def _parts(model: nn.Module) -> list[nn.Module]:
    """Where the model keeps its layers: a population has them outside its registered modules."""
    return [model, *(m._skeleton[0] for m in model.modules() if isinstance(m, Population))]
