"""Populations: many networks of one architecture that train and fall as one."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import stack_module_state, vmap

from cappaper.alike import difference
from cappaper.checks import check_count, check_module, check_sequence
from cappaper.operators import FastOperators

_turn = threading.RLock()  # threads may share a population, whose skeleton serves one at a time


class Population(nn.Module):
    """Many networks of one architecture as one module, by ``torch.func.vmap``.

    Parameters and buffers (β among them) are stacked along a new first dimension of size M; each
    member computes what it would compute alone.

    Args:
        models: M modules of one class and architecture. They are copied, not changed.
        sample_dims: dimensions of one input; 3 for images ``[C, H, W]``. It tells inputs that all
            members share from inputs of their own.

    Raises:
        ValueError: there is no model, their architectures or settings differ (a function, a number
            or a tensor that is neither parameter nor buffer is a setting), or one has hooks.

    >>> import torch
    >>> from cappaper import mlp
    >>> sweep = Population([mlp(64, [32], beta=b) for b in (0.1, 1.0, float("inf"))])
    >>> sweep(torch.zeros(5, 1, 8, 8)).shape  # [B, ...]: every member sees the same images
    torch.Size([3, 5, 10])
    >>> sweep(torch.zeros(3, 5, 1, 8, 8)).shape  # [M, B, ...]: each its own
    torch.Size([3, 5, 10])
    """

    # For output_of: members are called inside of FastOperators, which vmap need not pass through.
    _has_fast_operators = True

    def __init__(self, models: Sequence[nn.Module], *, sample_dims: int = 3) -> None:
        super().__init__()
        check_count(sample_dims, "sample_dims")
        models = cast(tuple[nn.Module, ...], check_sequence(models, "models", "modules"))
        for model in models:
            check_module(model, "a member of a population")
        for model in models[1:]:
            if (what := difference(models[0], model)) is not None:
                raise ValueError(
                    f"the members of a population must share one architecture, and differ in {what}"
                )
        if any(p._forward_hooks or p._forward_pre_hooks for m in models for p in m.modules()):
            raise ValueError("the members of a population may have no hooks: remove them first")
        parameters, buffers = stack_module_state([copy.deepcopy(m) for m in models])
        self._parameter_names, self._buffer_names = list(parameters), list(buffers)
        for name, tensor in parameters.items():
            trained = tensor.requires_grad
            self.register_parameter(_flat(name), nn.Parameter(tensor.detach(), trained))
        for name, tensor in buffers.items():
            self.register_buffer(_flat(name), tensor)
        # In a tuple, so that the skeleton's own tensors are not taken for the population's. The
        # first is called with the members' tensors in it, the second is what a member is made of.
        self._skeleton = (copy.deepcopy(models[0]), copy.deepcopy(models[0]))
        self._size = len(models)
        self._sample_dims = sample_dims
        self.training = models[0].training

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> nn.Module:
        """Member ``index`` as a module of its own, with copies of its tensors."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"member {index} of a population of {len(self)}")
        member = self._fresh()
        parameters, buffers = self._state()
        stacked = parameters | buffers
        for name, tensor in [*member.named_parameters(), *member.named_buffers()]:
            tensor.data = stacked[name][index].detach().clone()
        return member

    def __iter__(self) -> Iterator[nn.Module]:
        return (self[i] for i in range(len(self)))

    def _fresh(self) -> nn.Module:
        """A member before it has its numbers, in the modes that the members are in."""
        fresh = copy.deepcopy(self._skeleton[1])
        modes = {name: part.training for name, part in self._skeleton[0].named_modules()}
        for name, part in fresh.named_modules():
            part.training = modes[name]
        return fresh

    def __getstate__(self) -> dict[str, Any]:
        """Without what calls have left in the skeleton: tensors of vmap, which cannot be copied."""
        state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]
        return state | {"_skeleton": (self._fresh(), self._skeleton[1])}

    def train(self, mode: bool = True) -> Population:
        self._skeleton[0].train(mode)
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        own = x.ndim == self._sample_dims + 2
        if not own and x.ndim != self._sample_dims + 1:
            raise ValueError(
                f"a population takes inputs [B, ...] or [M, B, ...] of {self._sample_dims + 1} or"
                f" {self._sample_dims + 2} dimensions, got shape {list(x.shape)}"
            )
        if own and len(x) != len(self):
            raise ValueError(f"got inputs for {len(x)} members, the population has {len(self)}")

        with nullcontext() if torch.compiler.is_compiling() else _turn:
            parameters, buffers = self._state()
            places = _places(self._skeleton[0], [*parameters, *buffers])

            def one(tensors: tuple[Tensor, ...], x: Tensor) -> Any:
                with FastOperators(), _held(places, tensors):
                    return self._skeleton[0](x)

            mapped = vmap(one, in_dims=(0, 0 if own else None), randomness="different")
            logits: Tensor = mapped((*parameters.values(), *buffers.values()), x)
        return logits

    def _state(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return (
            {name: getattr(self, _flat(name)) for name in self._parameter_names},
            {name: getattr(self, _flat(name)) for name in self._buffer_names},
        )


_Place = tuple[dict[str, Any], str]


def _places(module: nn.Module, names: Sequence[str]) -> list[list[_Place]]:
    """Where a module keeps its named tensors: in several places, if layers share one."""
    kept: dict[int, list[_Place]] = {}
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for key, tensor in tensors.items():
                kept.setdefault(id(tensor), []).append((tensors, key))
    own = dict(module.named_parameters()) | dict(module.named_buffers())
    return [kept[id(own[name])] for name in names]


@contextmanager
def _held(places: Sequence[Sequence[_Place]], tensors: Sequence[Tensor]) -> Iterator[None]:
    """Inside the block other tensors are in these places.

    As :func:`torch.func.functional_call`, in a fraction of the time: of small networks that was a
    fifth of the work.
    """
    before = [kept[key] for (kept, key), *_ in places]
    try:
        _put(places, tensors)
        yield
    finally:
        _put(places, before)


def _put(places: Sequence[Sequence[_Place]], tensors: Sequence[Any]) -> None:
    for same, tensor in zip(places, tensors, strict=True):
        for kept, key in same:
            kept[key] = tensor


def members(model: nn.Module) -> list[nn.Module]:
    """The members of a population; a single model is its own only member."""
    return list(model) if isinstance(model, Population) else [model]


def _flat(name: str) -> str:
    # Parameter names may not hold dots; "__" keeps apart what a dot kept apart.
    return name.replace(".", "__")


def architecture(model: nn.Module) -> nn.Module:
    """The model itself, or what the members of a population have in common: its layers."""
    return model._skeleton[0] if isinstance(model, Population) else model
