"""A gradient where a bounded activation has none: exact outputs, a smooth slope on the way back."""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, get_testing_overrides

from cappaper.attacks.common import undisturbed
from cappaper.checks import check_flag, check_function, check_module, check_positive, logits_of
from cappaper.population import Population

Bound = float | Tensor


class Bounded(NamedTuple):
    """One call of a bounded activation: it rises between two bounds of ``z`` and is flat outside.

    ``z``: pre-activations, any shape. ``lower``, ``upper``: the bounds, in units of ``z``; tensors
    must broadcast against it. ``slope``: between the bounds. A sigmoid is flat everywhere but
    around 0: both bounds are 0, where ``slope / 4`` is its slope.
    """

    z: Tensor
    lower: Bound = -math.inf
    upper: Bound = math.inf
    slope: float = 1.0


Reader = Callable[..., Bounded | None]


def register_bounded(activation: Callable[..., Any] | type[nn.Module], read: Reader) -> None:
    """Tell :func:`~cappaper.surrogate_gradient` about a bounded activation of yours.

    Args:
        activation: a function of torch, for example ``torch.nn.functional.softsign``, in the
            spelling that the model uses (``torch.sign`` and ``Tensor.sign`` are two); or a class of
            modules (its subclasses are meant too), whatever their ``forward`` does: a function of
            your own, or a ``torch.autograd.Function``, can be reached in no other way.
        read: takes what the function takes, or the module and its input, and says where it is flat;
            None leaves this call alone.

    >>> class Step(nn.Module):
    ...     def forward(self, z):
    ...         return z.sign().clamp(min=0)
    >>> register_bounded(Step, lambda module, z: Bounded(z, 0.0, 0.0))
    """
    check_function(activation, "the activation")
    check_function(read, "read")
    if not isinstance(activation, type) and activation not in get_testing_overrides():
        raise ValueError(
            f"{getattr(activation, '__name__', activation)!r} is none of torch's functions, and"
            " others are not seen: make it a module, and name the module's class"
        )
    _READERS[activation] = read


@contextmanager
def exact_gradient() -> Iterator[None]:
    """Inside the block, clamps and the like are no activations: their gradient stays as it is.

    For a ``forward`` that clips its input, or guards a division.

    >>> class Clipped(nn.Sequential):
    ...     def forward(self, x):
    ...         with exact_gradient():
    ...             x = x.clamp(0, 1)
    ...         return super().forward(x)
    """
    token = _exact.set(True)
    try:
        yield
    finally:
        _exact.reset(token)


def read_call(function: Callable[..., Any], args: Any, kwargs: Any) -> Bounded | None:
    """What the registry says of one call of a torch function; None if it is no activation."""
    read = None if _exact.get() else _READERS.get(function)
    return None if read is None else read(*args, **kwargs)


def reader_of(module: nn.Module) -> Reader | None:
    """What the registry has for a module's class, or for the nearest class above it."""
    return next((_READERS[kind] for kind in type(module).__mro__ if kind in _READERS), None)


_exact: ContextVar[bool] = ContextVar("exact", default=False)


def _relu(input: Tensor, *_: Any, **__: Any) -> Bounded:
    return Bounded(input, 0.0)


def _relu6(input: Tensor, *_: Any, **__: Any) -> Bounded:
    return Bounded(input, 0.0, 6.0)


def _hardtanh(
    input: Tensor, min_val: float = -1.0, max_val: float = 1.0, *_: Any, **__: Any
) -> Bounded:
    return Bounded(input, min_val, max_val)


def _hardsigmoid(input: Tensor, *_: Any, **__: Any) -> Bounded:
    return Bounded(input, -3.0, 3.0, 1 / 6)


def _sigmoid(input: Tensor, *_: Any, **__: Any) -> Bounded:
    return Bounded(input, 0.0, 0.0)


def _tanh(input: Tensor, *_: Any, **__: Any) -> Bounded:
    return Bounded(input, 0.0, 0.0, 4.0)


def _clamp(input: Tensor, min: Any = None, max: Any = None, **_: Any) -> Bounded:
    return Bounded(input, -math.inf if min is None else min, math.inf if max is None else max)


def _clamp_max(input: Tensor, max: Any) -> Bounded:
    return Bounded(input, upper=max)


def _clamp_min(input: Tensor, min: Any) -> Bounded:
    return Bounded(input, lower=min)


def _minimum(input: Tensor, other: Any = None, *_: Any, **__: Any) -> Bounded | None:
    both = _with_bound(input, other)
    return both and Bounded(both[0], upper=both[1])


def _maximum(input: Tensor, other: Any = None, *_: Any, **__: Any) -> Bounded | None:
    both = _with_bound(input, other)
    return both and Bounded(both[0], lower=both[1])


def _with_bound(one: Any, other: Any) -> tuple[Tensor, Tensor] | None:
    """Pre-activations and their bound, which has fewer entries, or does not hang on the image."""
    if not (isinstance(one, Tensor) and isinstance(other, Tensor)):
        return None
    if one.numel() == other.numel() and one.ndim == other.ndim:
        given = [_is_given(one), _is_given(other)]
        return None if given[0] == given[1] else (other, one) if given[0] else (one, other)
    return (one, other) if (one.ndim, one.numel()) > (other.ndim, other.numel()) else (other, one)


def _is_given(value: Tensor) -> bool:
    return isinstance(value, nn.Parameter) or not value.requires_grad


_READERS: dict[Any, Reader] = {
    **dict.fromkeys((F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_), _relu),
    F.relu6: _relu6,
    **dict.fromkeys((F.hardtanh, F.hardtanh_), _hardtanh),
    F.hardsigmoid: _hardsigmoid,
    **dict.fromkeys((torch.sigmoid, torch.special.expit), _sigmoid),
    **dict.fromkeys((torch.sigmoid_, Tensor.sigmoid, Tensor.sigmoid_), _sigmoid),
    **dict.fromkeys((torch.tanh, torch.tanh_, Tensor.tanh, Tensor.tanh_), _tanh),
    **dict.fromkeys((torch.clamp, torch.clamp_, Tensor.clamp, Tensor.clamp_), _clamp),
    **dict.fromkeys((torch.clip, torch.clip_, Tensor.clip, Tensor.clip_), _clamp),
    **dict.fromkeys((torch.clamp_max, Tensor.clamp_max, Tensor.clamp_max_), _clamp_max),
    **dict.fromkeys((torch.clamp_min, Tensor.clamp_min, Tensor.clamp_min_), _clamp_min),
    **dict.fromkeys((torch.minimum, Tensor.minimum, torch.min, Tensor.min), _minimum),
    **dict.fromkeys((torch.maximum, Tensor.maximum, torch.max, Tensor.max), _maximum),
}


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
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            yield node
        todo += [following for following, _ in node.next_functions]


def _parts(model: nn.Module) -> list[nn.Module]:
    """Where the model keeps its layers: a population has them outside its registered modules."""
    return [model, *(m.template for m in model.modules() if isinstance(m, Population))]
