"""Networks of the paper, and populations of networks that train and fall as one."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from cappaper.activations import Activation, CappedReLU, per_layer
from cappaper.checks import check_count


def mlp(
    in_features: int,
    hidden: Sequence[int],
    *,
    num_classes: int = 10,
    beta: float | Sequence[float] = math.inf,
    seed: int = 0,
    activation: Activation = CappedReLU,
) -> nn.Sequential:
    """A fully connected classifier with capped hidden layers.

    Args:
        in_features: pixels of an image (channels × height × width).
        hidden: units of each hidden layer, from the input on, for example ``[300, 100]``.
        num_classes: logits that come out.
        beta: the max value of every hidden layer, or one per hidden layer; ``inf`` is ReLU.
        seed: of the initialisation (torch's default for ``nn.Linear``); it does not depend on
            ``beta``, and the global random state stays as it was.
        activation: made from each layer's ``beta``; :class:`~cappaper.activations.ScaledSigmoid`
            reads it as its constant ``c``.

    Returns:
        A module from images ``[B, 1, H, W]`` to logits ``[B, num_classes]``.

    Raises:
        ValueError: a width below 1, a ``beta`` not above 0, or one ``beta`` too many or too few.

    >>> mlp(784, [300, 100], beta=[0.1, math.inf])(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    widths = [in_features, *hidden]
    if min(*widths, num_classes) < 1:
        raise ValueError(f"every layer needs at least 1 unit, got {[*widths, num_classes]}")
    layers: list[nn.Module] = [nn.Flatten()]
    with seeded(seed):
        for fan_in, units, constant in zip(
            widths, hidden, per_layer(beta, len(hidden)), strict=False
        ):
            layers += [nn.Linear(fan_in, units), activation(constant)]
        layers.append(nn.Linear(widths[-1], num_classes))
    return nn.Sequential(*layers)


def convnet(
    side: int,
    hidden: Sequence[int],
    *,
    in_channels: int = 1,
    num_classes: int = 10,
    beta: float | Sequence[float] = math.inf,
    seed: int = 0,
    activation: Activation = CappedReLU,
) -> nn.Sequential:
    """A convolutional classifier with capped hidden layers: convolutions, then one dense layer.

    Every convolution is 5×5 with stride 2, so that it halves the side and nothing needs pooling.

    Args:
        side: height and width of an image.
        hidden: filters of each convolution, from the input on, then units of the dense layer, for
            example ``[8, 16, 100]``.
        in_channels: 1 for grey images.
        num_classes, beta, seed, activation: as :func:`mlp`.

    Returns:
        A module from images ``[B, in_channels, side, side]`` to logits ``[B, num_classes]``.

    Raises:
        ValueError: as :func:`mlp`; or there is no convolution in ``hidden``.

    >>> convnet(28, [8, 16, 100], beta=0.5)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    for count in (side, in_channels, num_classes, *hidden):
        check_count(count, "every width of a network")
    if len(hidden) < 2:
        raise ValueError(
            f"hidden must hold at least one convolution and the dense layer, got {[*hidden]}"
        )
    *caps, dense_cap = per_layer(beta, len(hidden))
    *filters, units = hidden
    layers: list[nn.Module] = []
    with seeded(seed):
        for before, after, cap in zip([in_channels, *filters], filters, caps, strict=False):
            layers += [nn.Conv2d(before, after, 5, stride=2, padding=2), activation(cap)]
            side = math.ceil(side / 2)
        layers += [nn.Flatten(), nn.Linear(filters[-1] * side**2, units), activation(dense_cap)]
        layers.append(nn.Linear(units, num_classes))
    return nn.Sequential(*layers)


def rescale(model: nn.Sequential, beta: float | Sequence[float]) -> nn.Sequential:
    """Copy a network with other max values and the same logits.

    A cap is only a scale: ``a(z, β) = (β/β') · a((β'/β) · z, β')``. So a layer's weights and bias
    take the factor β'/β, the next layer's weights its inverse, and nothing else changes.

    Args:
        model: as :func:`mlp` or :func:`convnet` give it, with :class:`CappedReLU` layers.
        beta: the new max value of every capped layer, or one per layer. A ReLU layer (β = ∞) has
            no cap to move, so its new one must be ``inf``.

    Raises:
        TypeError: the model is not a sequence of linear, convolutional, capped and flatten layers.
        ValueError: a finite cap for a ReLU layer or the reverse, or one cap too many or too few.

    >>> net = mlp(64, [32, 16], beta=1.0)
    >>> x = torch.rand(5, 1, 8, 8)
    >>> torch.allclose(net(x), rescale(net, 0.05)(x), atol=1e-5)
    True
    """
    known = (nn.Flatten, nn.Linear, nn.Conv2d, CappedReLU)
    for module in model:
        if not isinstance(module, known):
            names = ", ".join(kind.__name__ for kind in known)
            raise TypeError(f"rescale knows {names} in sequence, not {type(module).__name__}")
    model = copy.deepcopy(model)
    caps = [module for module in model if isinstance(module, CappedReLU)]
    factors = []
    for cap, new in zip(caps, per_layer(beta, len(caps)), strict=True):
        old = cap.beta.item()
        if math.isinf(old) != math.isinf(new):
            raise ValueError(f"a cap at {old:g} cannot be rescaled to {new:g}: both finite, or ∞")
        factors.append(1.0 if math.isinf(old) else new / old)
        with torch.no_grad():
            cap.beta.copy_(CappedReLU(new).beta)
    weighted = [module for module in model if isinstance(module, (nn.Linear, nn.Conv2d))]
    with torch.no_grad():
        for module, before, after in zip(weighted, [1.0, *factors], [*factors, 1.0], strict=True):
            module.weight.mul_(after / before)
            if module.bias is not None:
                module.bias.mul_(after)
    return model


class Population(nn.Module):
    """Many networks of one architecture as one module, by ``torch.func.vmap``.

    Parameters and buffers (β among them) are stacked along a new first dimension of size M; each
    member computes what it would compute alone.

    Args:
        models: M modules of one class and architecture. They are copied, not changed.
        sample_dims: dimensions of one input; 3 for images ``[C, H, W]``. It tells inputs that all
            members share from inputs of their own.

    Raises:
        ValueError: there is no model, or their architectures differ.

    >>> sweep = Population([mlp(64, [32], beta=b) for b in (0.1, 1.0, math.inf)])
    >>> sweep(torch.zeros(5, 1, 8, 8)).shape  # [B, ...]: every member sees the same images
    torch.Size([3, 5, 10])
    >>> sweep(torch.zeros(3, 5, 1, 8, 8)).shape  # [M, B, ...]: each its own
    torch.Size([3, 5, 10])
    """

    def __init__(self, models: Sequence[nn.Module], *, sample_dims: int = 3) -> None:
        super().__init__()
        if not models:
            raise ValueError("a population needs at least one model")
        shapes = [{k: v.shape for k, v in m.state_dict().items()} for m in models]
        if any(s != shapes[0] for s in shapes) or len({str(type(m)) for m in models}) > 1:
            raise ValueError("the members of a population must share one architecture")
        parameters, buffers = stack_module_state([copy.deepcopy(m) for m in models])
        self._parameter_names, self._buffer_names = list(parameters), list(buffers)
        for name, tensor in parameters.items():
            self.register_parameter(_flat(name), nn.Parameter(tensor.detach()))
        for name, tensor in buffers.items():
            self.register_buffer(_flat(name), tensor)
        # In a tuple, so that the skeleton's own tensors are not taken for the population's.
        self._skeleton = (copy.deepcopy(models[0]),)
        self._size = len(models)
        self._sample_dims = sample_dims
        self.train(models[0].training)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> nn.Module:
        """Member ``index`` as a module of its own, with copies of its tensors."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"member {index} of a population of {len(self)}")
        member = copy.deepcopy(self._skeleton[0]).train(self.training)
        member.to(next(iter(self.state_dict().values())).device)
        parameters, buffers = self._state()
        member.load_state_dict({k: v[index] for k, v in {**parameters, **buffers}.items()})
        return member

    def __iter__(self) -> Iterator[nn.Module]:
        return (self[i] for i in range(len(self)))

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

        def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Any:
            return functional_call(self._skeleton[0], (parameters, buffers), (x,))

        mapped = vmap(one, in_dims=(0, 0, 0 if own else None), randomness="different")
        logits: Tensor = mapped(*self._state(), x)
        return logits

    def _state(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return (
            {name: getattr(self, _flat(name)) for name in self._parameter_names},
            {name: getattr(self, _flat(name)) for name in self._buffer_names},
        )


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from ``seed`` inside the block; the global random state is restored after it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def members(model: nn.Module) -> list[nn.Module]:
    """The members of a population; a single model is its own only member."""
    return list(model) if isinstance(model, Population) else [model]


def _flat(name: str) -> str:
    # Parameter names may not hold dots; "__" keeps apart what a dot kept apart.
    return name.replace(".", "__")
