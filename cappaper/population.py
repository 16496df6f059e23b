"""Populations: many networks of one architecture that train and are attacked as one module."""

import copy
import hashlib
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from inspect import getattr_static
from itertools import zip_longest
from types import CodeType, FunctionType, MethodType
from typing import Any, Self, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from cappaper import checks
from cappaper.activations import copy_of

# functional_call puts other weights into a population's template: one thread at a time may do so.
_template_lock = threading.RLock()
_NO_SETTINGS = frozenset(vars(nn.Module()))  # parameters, children, hooks, mode


class Population(nn.Module):
    """Many networks of one architecture as one module, by ``torch.func.vmap``.

    Parameters and buffers (β among them) are stacked along a new first dimension of size M; each
    member computes what it would compute alone.

    Args:
        models: M modules of one class and architecture. They are copied, not changed.
        sample_dims: dimensions of one input; 3 for images ``[C, H, W]``. It tells inputs that all
            members share, ``[B, ...]``, from those with a part for each, ``[M, B, ...]``.

    Raises:
        ValueError: there is no model; the models' layers, modes or settings (attributes of a layer)
            differ or cannot be compared; a model has hooks or cannot be copied; or, on the first
            forward pass, ``vmap`` has no rule for a layer.

    >>> import torch
    >>> from cappaper import mlp
    >>> sweep = Population([mlp(64, [32], beta=b) for b in (0.1, 1.0, float("inf"))])
    >>> sweep(torch.zeros(5, 1, 8, 8)).shape  # [B, ...]: every member sees the same images
    torch.Size([3, 5, 10])
    >>> sweep(torch.zeros(3, 5, 1, 8, 8)).shape  # [M, B, ...]: each its own
    torch.Size([3, 5, 10])
    """

    def __init__(self, models: Sequence[nn.Module], *, sample_dims: int = 3) -> None:
        super().__init__()
        checks.count(sample_dims, "sample_dims")
        models = cast(tuple[nn.Module, ...], checks.sequence(models, "models", "modules"))
        for model in models:
            checks.module(model, "a member of a population")
            checks.no_hooks(model, "a member of a population")
            pairs = zip_longest(layout(models[0], True), layout(model, True))
            if different := [one or other for one, other in pairs if one != other]:
                share = "must share one architecture, its modes and its settings"
                where = different[0][0] or "the top"
                raise ValueError(f"members of a population {share}: they differ first at {where}")
        parameters, buffers = stack_module_state([copy_of(m) for m in models])
        # Parameter names may not hold dots.
        self._names = {name.replace(".", ":"): name for name in (*parameters, *buffers)}
        for flat, name in self._names.items():
            if name in buffers:
                self.register_buffer(flat, buffers[name])
            else:
                stack = parameters[name]
                self.register_parameter(flat, nn.Parameter(stack.detach(), stack.requires_grad))
        # In a tuple they are not submodules. The first template computes every member, and may keep
        # tensors of vmap, which cannot be copied; copies are made of the second.
        self._templates = (copy.deepcopy(models[0]), copy.deepcopy(models[0]))
        self._size = len(models)
        self._sample_dims = sample_dims
        self.training = models[0].training

    @property
    def template(self) -> nn.Module:
        """The module that computes every member; it starts with the first member's numbers."""
        return self._templates[0]

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> nn.Module:
        """Member ``index`` as a module of its own, with copies of its tensors."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"member {index} of a population of {len(self)}")
        member = self._fresh()
        stacked = self._tensors()
        for name, tensor in [*member.named_parameters(), *member.named_buffers()]:
            tensor.data = stacked[name][index].detach().clone()
        return member

    def train(self, mode: bool = True) -> Self:
        self.template.train(mode)
        return super().train(mode)

    def _fresh(self) -> nn.Module:
        """A copy of the layers, in their present modes."""
        fresh = copy.deepcopy(self._templates[1])
        for part, its in zip(fresh.modules(), self.template.modules(), strict=True):
            part.training = its.training
        return fresh

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_templates": (self._fresh(), self._templates[1])}

    def forward(self, x: Tensor) -> Tensor:
        own_inputs, shared = (x.ndim == self._sample_dims + more for more in (2, 1))
        if not shared and not (own_inputs and len(x) == len(self)):
            shapes = f"[B, ...] of {self._sample_dims + 1} dimensions, or [{len(self)}, B, ...]"
            raise ValueError(f"the population takes inputs {shapes}, got shape {list(x.shape)}")

        def one(tensors: dict[str, Tensor], x: Tensor) -> Any:
            return functional_call(self.template, tensors, (x,))

        mapped = vmap(one, in_dims=(0, 0 if own_inputs else None), randomness="different")
        try:
            with nullcontext() if torch.compiler.is_compiling() else _template_lock:
                logits: Tensor = mapped(self._tensors(), x)
        except RuntimeError as error:
            if not any(of in str(error) for of in ("vmap", "Batching rule", "not implemented")):
                raise
            why = f"torch.func.vmap has no rule for a layer of {type(self.template).__name__}"
            raise ValueError(f"{why}: use the members one by one ({error})") from error
        return logits

    def _tensors(self) -> dict[str, Tensor]:
        """Every stacked parameter and buffer under the name that it has in a member."""
        return {name: getattr(self, flat) for flat, name in self._names.items()}


def members(model: nn.Module) -> list[nn.Module]:
    """The members of a population; of any other model, a list of that model alone."""
    return [model[i] for i in range(len(model))] if isinstance(model, Population) else [model]


def set_mode(model: nn.Module, training: bool) -> None:
    """Set train or eval mode; a module of ``torch.export`` has only one mode and keeps it."""
    with suppress(NotImplementedError):
        model.train(training)


def layout(model: nn.Module, strict: bool) -> Iterator[tuple[Any, ...]]:
    """What a model is, layer by layer: name, type, mode, forward, tensors, settings (attributes).

    If not ``strict``, the texts are the same in another process, as checkpoints need.
    """
    for name, part in model.named_modules():
        named = [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]
        tensors = [(n, t.shape, t.dtype, t.requires_grad, strict and t.device) for n, t in named]
        held = vars(part) | {"its class's forward": getattr_static(type(part), "forward", None)}
        kept = object if strict else (int, float, str, tuple, list, FunctionType)
        settings = {k: v for k, v in held.items() if k not in _NO_SETTINGS and isinstance(v, kept)}
        yield name, str(type(part)), part.training, tensors, described(settings, strict=strict)
    # Tied weights are listed once, under their first name.
    yield "a weight", [name for name, _ in model.named_parameters()]


def described(value: Any, strict: bool = False, within: tuple[int, ...] = ()) -> str:
    """A text for a setting; equal settings have the same text, also in another process.

    The text of a function is its code and what it holds: defaults, a closure, a
    ``partial``'s arguments. That of a module is its type; if ``strict``, each object has its own.
    """
    if isinstance(value, nn.Module | type) or id(value) in within:
        kind = value if isinstance(value, type) else type(value)
        return f"{kind.__qualname__} {id(value) if strict else ''}"
    inner = partial(described, strict=strict, within=(*within, id(value)))
    match value:
        case nn.Parameter() | weakref.ref():  # a layer's own list of its weights
            return ""
        case partial():
            return f"{inner(value.func)}({inner(value.args)}, {inner(value.keywords)})"
        case MethodType():
            return f"{inner(value.__self__)} {inner(value.__func__)}"
        case FunctionType():
            closure = [cell.cell_contents for cell in value.__closure__ or ()]
            carried = [value.__defaults__, value.__kwdefaults__, closure]
            return f"{value.__qualname__} {inner(value.__code__)} {inner(carried)}"
        case CodeType():
            return f"{value.co_code.hex()} {value.co_names} {inner(value.co_consts)}"
        case dict():
            return str(sorted((str(key), inner(part)) for key, part in value.items()))
        case tuple() | list():
            return str([inner(part) for part in value])
        case set() | frozenset():
            return str(sorted(inner(part) for part in value))
        case np.ndarray():
            return f"{value.dtype} {value.tolist()}"
        case Tensor() if value.layout == torch.strided and not value.is_meta:
            plain = value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
            return f"{value.dtype} {list(value.shape)} {hashlib.sha256(plain.data).hexdigest()}"
    if (attributes := getattr(value, "__dict__", None)) is None or isinstance(value, Tensor):
        return repr(value)
    called = getattr_static(type(value), "__call__", None)
    return f"{type(value).__qualname__} {inner(called)} {inner(attributes)}"
