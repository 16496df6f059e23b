"""A gradient where the cap has none: exact outputs, a smooth slope on the way back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from cappaper.activations import CappedReLU, ScaledSigmoid
from cappaper.population import Population


@contextmanager
def surrogate_gradient(model: nn.Module, sharpness: float | None) -> Iterator[nn.Module]:
    """Inside the block, gradients pass through units at 0 and at their cap.

    The forward pass stays as it is, to the last bit. In the backward pass the derivative of every
    :class:`~cappaper.CappedReLU` becomes ``σ(kz) · σ(k(β - z))``, which is smooth, positive
    everywhere, and close to the cap's own derivative for a large k; that of every
    :class:`~cappaper.ScaledSigmoid` becomes ``σ(kz) · σ(-kz)``, wherever it saturates. Here
    ``k = sharpness / s``, and s is the root mean square of the layer's pre-activations for that
    example: the surrogate does not change when a network is :func:`~cappaper.rescale`\\ d.

    The model must not be capped everywhere: ReLU layers (β = ∞, and ``nn.ReLU``) keep their own
    gradient, so a network without caps is attacked as it always was.

    Source: backward pass differentiable approximation, Athalye et al., arXiv 1802.00420, section
    4.1; the smooth slope is this project's.

    Args:
        model: any torch module, or a :class:`~cappaper.Population`; it is not changed. Other
            threads that use it at the same time keep their own gradients.
        sharpness: above 0; None is the exact gradient.

    Yields:
        ``model``.

    Raises:
        ValueError: ``sharpness`` is not above 0.

    >>> z = torch.tensor([[2.0, 0.5]], requires_grad=True)
    >>> cap = nn.Sequential(CappedReLU(1.0))
    >>> with surrogate_gradient(cap, sharpness=2.0):
    ...     cap(z).sum().backward()
    >>> bool((z.grad > 0).all())
    True
    """
    if sharpness is None:
        yield model
        return
    if not sharpness > 0:
        raise ValueError(f"the sharpness must be above 0, or None, got {sharpness}")
    owner = threading.get_ident()

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if threading.get_ident() != owner:
            return output
        (z,) = inputs
        still = z.detach()
        return output.detach() + (z - still) * _SLOPES[type(module)](module, still, sharpness)

    handles = [
        module.register_forward_hook(hook)
        for part in _parts(model)
        for module in part.modules()
        if type(module) in _SLOPES
    ]
    try:
        yield model
    finally:
        for handle in handles:
            handle.remove()


def _capped(module: nn.Module, z: Tensor, sharpness: float) -> Tensor:
    assert isinstance(module, CappedReLU)
    k = sharpness / _scale(z)
    smooth = torch.sigmoid(k * z) * torch.sigmoid(k * (module.beta - z))
    return torch.where(module.beta.isinf(), (z > 0).to(z), smooth)


def _sigmoid(module: nn.Module, z: Tensor, sharpness: float) -> Tensor:
    k = sharpness / _scale(z)
    return torch.sigmoid(k * z) * torch.sigmoid(-k * z)


_SLOPES: dict[type[nn.Module], Callable[[nn.Module, Tensor, float], Tensor]] = {
    CappedReLU: _capped,
    ScaledSigmoid: _sigmoid,
}


def _scale(z: Tensor) -> Tensor:
    """Root mean square of each example's pre-activations, shaped to broadcast against them."""
    dims = tuple(range(1, z.ndim))
    return z.square().mean(dims, keepdim=True).sqrt().clamp(min=torch.finfo(z.dtype).tiny)


def _parts(model: nn.Module) -> list[nn.Module]:
    """Where the model keeps its layers: a population has them outside its registered modules."""
    return [model, *(m._skeleton[0] for m in model.modules() if isinstance(m, Population))]
