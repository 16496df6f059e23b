"""A gradient where a bounded activation has none: outputs stay exact, the slope is smooth."""

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from cappaper import checks
from cappaper.activations import Bounded, reader_of
from cappaper.attacks.common import undisturbed
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
    becomes ``slope · σ(k(z - lower)) · σ(k(upper - z))``, with the bounds 0 and β for capped ReLU,
    and 0 and 0 for a sigmoid. Here ``k = sharpness / s``, and s is the root mean square of the
    layer's pre-activations over all but dimension 0, so :func:`~cappaper.rescale` keeps the slope.

    It reaches capped ReLU, ``relu6``, ``hardtanh``, ``hardsigmoid``, ``sigmoid``, ``tanh``,
    ``clamp``, ``minimum`` and ``maximum`` with a bound, as modules, functions and methods, and what
    :func:`~cappaper.register_bounded` names; ReLU only where a cap follows at once. It does not
    reach scripted models and custom autograd functions.

    Source: backward pass differentiable approximation, Athalye et al., arXiv 1802.00420, section
    4.1; the smooth slope is this project's.

    Args:
        model: any torch module, or a :class:`~cappaper.Population`, to be called in this thread.
        sharpness: above 0, or a ValueError is raised; None is the exact gradient.
        relu: also give ReLU the slope ``σ(kz)`` of a cap at ∞, so that only the cap differs.

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


def warn_unreached(model: nn.Module, x: Tensor, y: Tensor, attack: str) -> None:
    """Warn if the surrogate gradient meets no bounded activation, or cannot look into a part."""
    checks.module(model, f"the model of {attack}")
    own, ran, capped = threading.get_ident(), set[tuple[nn.Module, bool]](), set[bool]()

    def bypass(call: Bounded, output: Tensor) -> Tensor:
        capped.add(call.z is not few and (isinstance(call.upper, Tensor) or call.upper < math.inf))
        return output.detach() + _zero(call.z)  # hide its graph, as the surrogate does

    note = lambda part, _: ran.add((part, threading.get_ident() == own))  # noqa: E731
    with undisturbed(model), _watching(model, bypass, note):
        few = x.narrow(y.ndim - 1, 0, min(2, y.shape[-1])).detach().clone().requires_grad_()
        logits = checks.logits_of(model, few, y[..., :2])  # BatchNorm may refuse one image
    elsewhere = [type(m).__name__ for m, here in ran if not here and (m, True) not in ran]
    scripted = [n for n, m in model.named_modules() if isinstance(m, torch.jit.ScriptModule)]
    nodes = new = {node for node in [logits.grad_fn] if node}
    while new:
        new = {after for node in new for after, _ in node.next_functions if after} - nodes
        nodes = nodes | new
    custom = [n for n in nodes if isinstance(n, torch.autograd.function.BackwardCFunction)]
    hint = "to cappaper.register_bounded"
    if scripted:
        part = scripted[0] or "the model"
        why = f"cannot reach into {part}, which is traced or scripted: attack the original"
    elif elsewhere:
        why = f"cannot reach into {min(elsewhere)}, which runs in another thread: use one thread"
    elif custom:
        name = min(type(node).__name__ for node in custom).removesuffix("Backward")
        why = f"cannot reach into the custom autograd function {name}: give its module {hint}"
    elif True not in capped:
        why = f"met no bounded activation in {type(model).__name__}: if it has one, give it {hint}"
    else:
        return
    kind = OutOfReachWarning if scripted or elsewhere or custom else UnreachedWarning
    checks.warn(f"{attack} {why}", kind)


class _Watch(TorchFunctionMode):
    """Hands each call of a bounded activation to ``handle``; nested clamps count as one call."""

    def __init__(self, handle: Callable[[Bounded, Tensor], Tensor]) -> None:
        super().__init__()
        self._handle = handle
        self.owner = threading.get_ident()  # 0 when its block has ended
        self._depth = 0
        # By id, with the tensor itself, so that no other tensor can get that id; and with its
        # version, because a tensor that is changed in place is no clamp's output any more.
        self._clamped: dict[int, tuple[Tensor, int, Bounded]] = {}

    def enter(self) -> None:
        if threading.get_ident() == self.owner:
            self._depth += 1  # first here and last in leave: an interrupt may come between
            self.__enter__()  # type: ignore[no-untyped-call]

    def leave(self) -> None:
        if threading.get_ident() == self.owner and self._depth:
            self.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            self._depth -= 1
            self._clamped = self._clamped if self._depth else {}

    def close(self) -> None:
        """Switch the mode off: torch calls no hook after an interrupt."""
        self.owner = 0
        while self._depth:
            self._depth -= 1
            with suppress(RuntimeError):  # interrupted in a call, during which it is off
                self.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def hand(self, call: Bounded, output: Tensor) -> Tensor:
        with ExitStack() as stack:
            # Activation checkpointing repeats the forward pass and counts what it saves: hide what
            # the handle saves. Inside vmap there are neither such hooks nor checkpointing.
            with suppress(RuntimeError):
                stack.enter_context(saved_tensors_hooks(lambda t: t, lambda t: t))
            return self._handle(call, output)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        read = reader_of(func) if self.owner and torch.is_grad_enabled() else None
        call = read and read(*args, **kwargs)
        if call is None or not call.z.is_floating_point():  # indices are clamped, too
            return func(*args, **kwargs)
        in_place = func.__name__.endswith("_") or kwargs.get("inplace")
        in_place = in_place or any(argument is True for argument in args[1:])
        before = self._clamped.get(id(call.z))
        if before and before[1] == call.z._version:
            # A clamp of a clamp is one clamp: capped ReLU is often a ReLU and then a minimum.
            first = before[2]
            upper = -_larger(-first.upper, -call.upper)
            call = Bounded(first.z, _larger(first.lower, call.lower), upper, call.slope)
        if in_place:
            call = call._replace(z=call.z.clone())
        output = func(*args, **kwargs)
        result = self.hand(call, output)
        if in_place and result is not output:
            result = output.copy_(result)
        # Keep a call whose output is ``z`` between its bounds: another clamp may follow.
        fixed = not isinstance(call.lower, Tensor) and not isinstance(call.upper, Tensor)
        if call.slope == 1.0 and not (fixed and call.lower == call.upper):
            self._clamped[id(result)] = result, result._version, call
        return result


@contextmanager
def _watching(
    model: nn.Module, handle: Callable[[Bounded, Tensor], Tensor], note: Any = None
) -> Iterator[None]:
    """Hand this thread's bounded activations to ``handle``, and all parts that run to ``note``."""
    watch, hooks = _Watch(handle), list[Any]()

    def registered(module: nn.Module, inputs: Any, named: Any, output: Tensor) -> Tensor | None:
        read = reader_of(module) if threading.get_ident() == watch.owner else None
        call = read and read(module, *inputs, **named)
        return call and watch.hand(call, output)

    # The layers of a population are its template's.
    templates = [m.template for m in model.modules() if isinstance(m, Population)]
    layers = [layer for part in (model, *templates) for layer in part.modules()]
    with ExitStack() as again, ExitStack() as stack:  # again: an interrupt may end the first
        for each in (again, stack):
            each.callback(lambda: [hook.remove() for hook in hooks])
            each.callback(watch.close)
        if any(hasattr(m, "_orig_mod") or m._compiled_call_impl for m in model.modules()):
            stack.enter_context(torch.compiler.set_stance("force_eager"))  # as before compilation
        # Plain functions: a copy of the model shares them, but a method is copied with its self.
        before, after = (lambda *_: watch.enter()), (lambda *_: watch.leave())
        # Scripted modules take no hooks.
        parts = [part for part in model.modules() if not isinstance(part, torch.jit.ScriptModule)]
        if model in parts:
            hooks.append(model.register_forward_pre_hook(before))
            hooks.append(model.register_forward_hook(after, prepend=True, always_call=True))
        # Generators: each handle is in ``hooks`` at once, should an interrupt come between two.
        known = filter(reader_of, layers)
        hooks.extend(part.register_forward_hook(registered, with_kwargs=True) for part in known)
        hooks.extend(part.register_forward_pre_hook(note) for part in parts if note)
        yield


def _smooth(call: Bounded, output: Tensor, sharpness: float, relu: bool) -> Tensor:
    """``output`` with the smooth slope as its gradient; without a finite cap only if ``relu``."""
    z, lower, upper, slope = call
    if not isinstance(upper, Tensor) and math.isinf(upper) and not relu:
        return output
    still, limits = z.detach(), torch.finfo(z.dtype)
    dims = tuple(range(1, z.ndim))
    mean_square = still.square().mean(dims, keepdim=True) if dims else still.square()
    # Where all of an example's pre-activations are 0, k would be ∞, and ∞ · 0 is NaN.
    k = (sharpness / mean_square.sqrt().clamp(min=limits.tiny)).clamp(max=limits.max)
    rise = slope * torch.sigmoid(k * (upper - still))
    rise = rise * torch.sigmoid(k * (still - lower))
    if isinstance(upper, Tensor) and not relu:  # a cap at ∞ among a population's is a ReLU
        rise = torch.where(upper.detach().isinf(), (still > lower).to(still), rise)
    return output.detach() + _zero(z) * rise.detach().nan_to_num()


def _zero(z: Tensor) -> Tensor:
    """Zeros with the graph of ``z``, even where ``z`` is infinite."""
    return (z - z.detach()).nan_to_num()


def _larger(one: float | Tensor, other: float | Tensor) -> float | Tensor:
    if not isinstance(one, Tensor):
        one, other = other, one
    return one.clamp(min=other) if isinstance(one, Tensor) else max(one, other)
