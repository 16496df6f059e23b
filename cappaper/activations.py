"""The activation of the paper, how to put it into any model, and which activations are bounded."""

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial
from types import FunctionType
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function_unary

from cappaper import checks

M = TypeVar("M", bound=nn.Module)
#: Makes a hidden layer's activation from the layer's constant (β, or c).
Activation = Callable[[float], nn.Module]


def capped_relu(z: Tensor, beta: float | Tensor) -> Tensor:
    """Capped ReLU, ``a(z, β) = max(0, min(z, β))``, with slope 1 on (0, β), 0 below and above.

    At 0 its slope is 0, at β the one that torch gives a clamp. Source: Sooksatra, Hamerly and
    Rivas, arXiv 2405.03777, the activation that the paper proposes.

    Args:
        z: pre-activations, any shape.
        beta: the max value; a number must be above 0, or a ValueError is raised; ``inf`` is ReLU. A
            tensor must broadcast against ``z``, and its values are not checked.

    >>> capped_relu(torch.tensor([-1.0, 0.5, 3.0]), 1.0)
    tensor([0.0000, 0.5000, 1.0000])
    """
    if not isinstance(beta, Tensor) and beta != math.inf:
        checks.positive(beta, "a max value β other than ∞")
    return cap(z, beta)  # type: ignore[arg-type]  # TorchScript has no union of float and Tensor


def cap(z: Tensor, beta: Tensor) -> Tensor:
    """:func:`capped_relu` without its checks, for TorchScript and for function modes."""
    if has_torch_function_unary(z):
        return handle_torch_function(cap, (z,), z, beta)
    return torch.relu(z).clamp(max=beta)


class CappedReLU(nn.Module):
    """:func:`capped_relu` as a layer, with ``beta`` as a buffer.

    Args:
        beta: the max value, above 0 or a ValueError is raised; ``inf`` makes the layer a ReLU.
        inplace: change the input, as ``nn.ReLU(inplace=True)`` does.
        learned: make ``beta`` a finite parameter that training changes, like the clipping level of
            Choi et al., arXiv 1805.06085, section 3, for quantisation.

    >>> CappedReLU(0.1)(torch.tensor([-1.0, 0.05, 3.0]))
    tensor([0.0000, 0.0500, 0.1000])
    """

    beta: Tensor

    def __init__(
        self, beta: float = math.inf, *, learned: bool = False, inplace: bool = False
    ) -> None:
        super().__init__()
        self.inplace = inplace
        if learned or beta != math.inf:
            checks.positive(beta, "a learned β" if learned else "a max value β other than ∞")
        value = torch.tensor(float(beta))
        if learned:
            self.beta = nn.Parameter(value)
        else:
            self.register_buffer("beta", value)

    def forward(self, z: Tensor) -> Tensor:
        capped = cap(z, self.beta)
        return z.copy_(capped) if self.inplace else capped

    def extra_repr(self) -> str:
        return f"beta={self.beta.item():g}"


class ScaledSigmoid(nn.Module):
    """Sigmoid with a slope constant, ``σ(c·z) = 1 / (1 + exp(-c·z))``.

    Source: the family in the caption of Figure 3 of arXiv 2405.03777, as this project reads it.

    Args:
        c: four times the slope at 0; finite and above 0, or a ValueError is raised.

    >>> ScaledSigmoid(4.0)(torch.tensor([0.0]))
    tensor([0.5000])
    """

    c: Tensor

    def __init__(self, c: float) -> None:
        super().__init__()
        checks.positive(c, "the sigmoid constant c")
        self.register_buffer("c", torch.tensor(float(c)))

    def forward(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.c * z)

    def extra_repr(self) -> str:
        return f"c={self.c.item():g}"


def replace_relu(
    model: nn.Module, beta: float | Sequence[float], layers: Sequence[int | str] | None = None
) -> nn.Module:
    """Copy a model with its ReLUs capped: same weights, same training mode.

    The ReLUs must be registered modules, as torchvision's are. A function that a ``forward``
    calls, such as ``torch.nn.functional.relu``, is not capped. There is no warning about that,
    because the model is not run.

    Args:
        model: any torch module; it stays as it is.
        beta: one max value for all chosen layers, or one per chosen layer, in their order.
        layers: which ReLUs, ReLU6s and capped ReLUs to cap, by position (0 is the first to be
            registered) or by name as in ``model.named_modules()``. By default all of them.

    Warns:
        UserWarning: ``layers`` is None, and the model lists other activations of torch's, or
            layers with activations inside, such as ``nn.RNN`` or ``nn.TransformerEncoderLayer``.

    Raises:
        ValueError: there is no such ReLU; a max value is not above 0, or there are too many or too
            few of them; or the model cannot be copied.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU6())
    >>> replace_relu(net, 0.5, layers=[1])[3]
    CappedReLU(beta=0.5)
    """
    checks.module(model)
    relus = {  # a module may have many names
        name: part
        for name, part in model.named_modules(remove_duplicate=False)
        if type(part) in (nn.ReLU, nn.ReLU6, CappedReLU)
    }
    if not relus:
        raise ValueError("the model has no ReLU to cap: functions in a forward must become modules")
    each = list(dict.fromkeys(relus.values()))
    known = dict[Any, nn.Module](enumerate(each)) | relus
    chosen = range(len(each)) if layers is None else layers
    chosen = checks.sequence(chosen, "layers", "positions or names")
    if unknown := [layer for layer in chosen if layer not in known]:
        use = ", ".join(map(repr, known))
        raise ValueError(f"there is no ReLU layer {checks.shown(unknown[0])}: use one of {use}")
    if len({known[layer] for layer in chosen}) < len(chosen):
        raise ValueError("a ReLU layer was named twice: name each layer once")
    device = next((weight.device for weight in model.parameters()), None)
    pairs = zip(map(known.__getitem__, chosen), checks.per_layer(beta, len(chosen)), strict=True)
    caps = {id(m): CappedReLU(b, inplace=m.inplace).train(m.training).to(device) for m, b in pairs}
    model = copy_of(model, {**caps})  # deepcopy adds to it
    for part in model.modules():
        if isinstance(part, nn.TransformerEncoderLayer) and part.activation in caps.values():
            part.activation_relu_or_gelu = 0  # else it computes ReLU itself in eval mode
    no_activations = (nn.MultiheadAttention, nn.Softmax, nn.Softmax2d, nn.Softmin, nn.LogSoftmax)
    blocks = (nn.RNNBase, nn.RNNCellBase, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
    others = [
        f"{type(part).__name__} at {name!r}"
        for name, part in model.named_modules()
        if (isinstance(part, blocks) and getattr(part, "activation", None) not in caps.values())
        or isinstance(part, (nn.ReLU, nn.ReLU6))  # a subclass of ReLU was left alone
        or (type(part).__module__ == nn.ReLU.__module__ and not isinstance(part, no_activations))
    ]
    if others and layers is None:
        checks.warn(f"replace_relu left alone: {'; '.join(others)}", UserWarning)
    return model


def copy_of(model: M, memo: dict[int, Any] | None = None) -> M:
    """A deep copy of a model, which runs its own layers; ``memo`` has others for some, by id."""
    try:
        copied = copy.deepcopy(model, memo)
    except Exception as error:
        why = str(error).partition("\n")[0]
        raise ValueError(f"{type(model).__name__} cannot be deep-copied: {why}") from error
    own = {*map(id, model.modules())}
    for part in copied.modules():
        for name, value in vars(part).items():
            calls = value.values() if isinstance(value, dict) else [value]
            # Functions are not copied: a closure goes on holding the layers of the original.
            held = [c.cell_contents for f in calls for c in getattr(f, "__closure__", None) or ()]
            shared = any(id(getattr(one, "__self__", one)) in own for one in held)
            if shared or (name == "forward" and isinstance(value, FunctionType)):
                what = f"a copy of this {type(part).__name__} would share its {name.strip('_')}"
                raise ValueError(f"{what}: define it in a class")
    return copied


class Bounded(NamedTuple):
    """One call of a bounded activation: its slope is ``slope`` between two bounds of ``z``, else 0.

    ``z``: pre-activations, any shape. ``lower``, ``upper``: numbers, or tensors that broadcast
    against ``z``. A sigmoid has no such range: both are 0, and its slope there is ``slope / 4``.
    """

    z: Tensor
    lower: float | Tensor = -math.inf
    upper: float | Tensor = math.inf
    slope: float = 1.0


Reader = Callable[..., Bounded | None]


def register_bounded(activation: Callable[..., Any] | type[nn.Module], read: Reader) -> None:
    """Make a bounded activation of yours known to :func:`~cappaper.surrogate_gradient`.

    Args:
        activation: a module class, with its subclasses; or the torch function that the model calls
            (others raise a ValueError): ``torch.sign`` and ``Tensor.sign`` are two functions.
        read: takes the function's arguments, or the module and its input. It returns the call as a
            :class:`~cappaper.Bounded`, or None to leave it alone.

    >>> class Step(nn.Module):
    ...     def forward(self, z):
    ...         return z.sign().clamp(min=0)
    >>> register_bounded(Step, lambda module, z: Bounded(z, 0.0, 0.0))
    """
    functions = torch.overrides.get_testing_overrides()
    if not isinstance(activation, type) and activation not in functions:
        name = getattr(activation, "__name__", activation)
        raise ValueError(f"{name!r} is none of torch's functions: register the module's class")
    _READERS[activation] = read


def reader_of(called: Any) -> Reader | None:
    """The reader of a torch function, or of a module's class or the nearest class above it."""
    if isinstance(called, nn.Module):
        return next((_READERS[kind] for kind in type(called).__mro__ if kind in _READERS), None)
    return _READERS.get(called)


def _clamp(input: Tensor, min: Any = None, max: Any = None, **_: Any) -> Bounded:
    return Bounded(input, -math.inf if min is None else min, math.inf if max is None else max)


def _pair(is_cap: bool, input: Any, other: Any = None, *_: Any, **__: Any) -> Bounded | None:
    """Read a minimum or maximum: its bound has fewer entries, or is a parameter or constant."""
    if not (isinstance(input, Tensor) and isinstance(other, Tensor)):
        return None
    one, two = (
        (t.ndim, t.numel(), t.requires_grad and not isinstance(t, nn.Parameter))
        for t in (input, other)
    )
    z, bound = (input, other) if one > two else (other, input)
    call = Bounded(z, upper=bound) if is_cap else Bounded(z, lower=bound)
    return None if one == two else call


_READERS: dict[Any, Reader] = {cap: lambda z, beta: Bounded(z, 0.0, beta)}
for _names, _read in (
    ("relu relu_", lambda input, *_, **__: Bounded(input, 0.0)),
    ("relu6", lambda input, *_, **__: Bounded(input, 0.0, 6.0)),
    (
        "hardtanh hardtanh_",
        lambda input, min_val=-1, max_val=1, *_, **__: Bounded(input, min_val, max_val),
    ),
    ("hardsigmoid", lambda input, *_, **__: Bounded(input, -3.0, 3.0, 1 / 6)),
    ("sigmoid sigmoid_ expit", lambda input, *_, **__: Bounded(input, 0.0, 0.0)),
    ("tanh tanh_", lambda input, *_, **__: Bounded(input, 0.0, 0.0, 4.0)),
    ("clamp clamp_ clip clip_", _clamp),
    ("clamp_max clamp_max_", lambda input, max: Bounded(input, upper=max)),
    ("clamp_min clamp_min_", lambda input, min: Bounded(input, lower=min)),
    ("minimum min", partial(_pair, True)),
    ("maximum max", partial(_pair, False)),
):
    for _name in _names.split():
        for _place in (F, torch, Tensor, torch.special):
            if hasattr(_place, _name):
                _READERS[getattr(_place, _name)] = _read
