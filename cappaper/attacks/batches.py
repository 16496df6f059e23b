"""What every attack does around its work: batches, progress, and a model left as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from cappaper.checks import check_count, check_function
from cappaper.population import Population

Progress = Callable[[int, int], None]
"""Called with (examples done, examples in all)."""

_ON_CPU = 2048  # examples at once: more leave the cache, fewer leave the cores idle


def in_batches(
    attack: Callable[[Tensor, Tensor], Tensor],
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    batch_size: int | None,
    progress: Progress | None,
) -> Tensor:
    """``attack(x, y)`` batch by batch, with gradients on, and put together again.

    ``batch_size`` counts the examples of all members of a population; None is the default.
    """
    if batch_size is not None:
        check_count(batch_size, "batch_size")
    elif x.device.type == "cpu":
        batch_size = _ON_CPU
    if progress is not None:
        check_function(progress, "progress")
    batch, count = y.ndim - 1, y.shape[-1]
    at_once = max(1, (batch_size or y.numel()) * count // y.numel())
    found: list[Tensor] = []
    with undisturbed(model):
        # An inference tensor has no gradient; its clone may.
        whole = x.clone() if x.is_inference() else x.detach()
        labels = y.clone() if y.is_inference() else y
        for images, classes in zip(
            torch.split(whole, at_once, batch), torch.split(labels, at_once, batch), strict=True
        ):
            found.append(attack(images, classes))
            if progress is not None:
                progress(min(len(found) * at_once, count), count)
    return found[0] if len(found) == 1 else torch.cat(found, batch)


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """The module itself; of a population, whose buffers hold those of all layers, every layer."""
    yield from module._skeleton[0].modules() if isinstance(module, Population) else [module]


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Gradients are on inside the block, and the model is as it was after it.

    In train mode a forward pass moves buffers, such as a BatchNorm's statistics: they are put back.
    """
    modules = model.modules() if isinstance(model, nn.Module) else ()
    moving = [m for m in modules if any(layer.training for layer in _layers(m))]
    named = [(m, *name) for m in moving for name in m.named_buffers(recurse=False)]
    # On the meta device there is nothing to keep: the attack itself says so.
    kept = [(m, name, buffer, buffer.clone()) for m, name, buffer in named if not buffer.is_meta]
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        with torch.no_grad():
            for module, name, buffer, before in kept:
                module._buffers[name] = buffer  # a forward may have put another in its place
                # Writing ends every graph that the buffer is part of: only where it has moved.
                if buffer.layout != torch.strided or not torch.equal(buffer, before):
                    buffer.copy_(before)
