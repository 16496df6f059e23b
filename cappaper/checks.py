"""Bad input gets one sentence at the public functions: what was wrong, and what is allowed."""

import inspect
import math
import numbers
import traceback
import warnings
from collections.abc import Collection, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class ReliabilityWarning(UserWarning):
    """There is reason to doubt the result of an attack, for example because gradients are zero."""


def warn(text: str, kind: type[UserWarning] = ReliabilityWarning) -> None:
    """Issue a warning for the line outside this package that led here."""
    frames = [frame for frame, _ in traceback.walk_stack(inspect.currentframe())]
    owners = [str(frame.f_globals.get("__name__")).split(".")[0] for frame in frames]
    inside = ("cappaper", "torch", "tqdm")
    outside = (level for level, owner in enumerate(owners, 1) if owner not in inside)
    warnings.warn(text, kind, stacklevel=next(outside, 1))


def batch(x: Tensor, y: Tensor) -> None:
    """Refuse anything but images of single or double precision in [0, 1], an int64 label each."""
    for value, what in ((x, "images"), (y, "labels")):
        if not isinstance(value, Tensor):
            raise TypeError(f"{what} must be a tensor, got {type(value).__name__}")
    if x.dtype not in (torch.float32, torch.float64):  # half precision rounds by more than an ε
        raise TypeError(f"images must be float32 or float64 in [0, 1], got {x.dtype}")
    if y.dtype != torch.int64:
        raise TypeError(f"labels must be int64 class indices, got {y.dtype}")
    if y.ndim not in (1, 2) or x.ndim <= y.ndim or x.shape[: y.ndim] != y.shape:
        got = f"got {list(x.shape)} and {list(y.shape)}"
        raise ValueError(f"labels [B] need images [B, ...], labels [M, B] need [M, B, ...]; {got}")
    if not x.numel():
        raise ValueError("the batch is empty: expected at least one image")
    low, high = torch.aminmax(x.detach())
    if not (low >= 0 and high <= 1):  # NaN fails too
        got = f"got values from {low:.3g} to {high:.3g}, outside it by {max(-low, high - 1):.3g}"
        helps = "divide bytes by 255, or clamp rounding errors"
        raise ValueError(f"images must lie in [0, 1], {got}: {helps}")


def attack(
    x: Tensor, y: Tensor, radius: float, seed: int = 0, *, norm: str = "linf", **counts: int
) -> None:
    """Refuse bad images, labels, radii, norms, seeds, and counts below 1."""
    batch(x, y)
    eps(radius)
    one_of(norm, ("linf", "l2"), "norm")
    if radius > 1 and norm == "linf":
        warn(f"ε = {radius:g} allows any image: pixels lie in [0, 1], so write 8/255, not 8")
    whole(seed, "the seed")
    for what, value in counts.items():
        count(value, what)


def pictures(x: Tensor, y: Tensor, attack: str) -> None:
    """Refuse images without channels, rows and columns, in which no square can be drawn."""
    if x.ndim != y.ndim + 3:
        raise ValueError(f"{attack} takes images [B, C, H, W], got shape {list(x.shape)}")


def adversarial(examples: Tensor, x: Tensor, radius: float = 1.0) -> None:
    """Refuse examples of another shape than ``x``, outside [0, 1], or outside the ball."""
    if not (isinstance(examples, Tensor) and examples.shape == x.shape):
        raise ValueError(f"an attack must give images of shape {[*x.shape]}, got {shown(examples)}")
    if not (examples.amin() >= 0 and examples.amax() <= 1):  # NaN fails too
        raise ValueError("the attack must return finite images in [0, 1]")
    # Right for both norms: the L2 ball lies in the L∞ ball. 1e-4 allows for rounding.
    if (moved := (examples - x).abs().amax().item()) > radius + 1e-4:
        raise ValueError(f"the attack left its ball: a pixel moved by {moved:.4g}, ε is {radius:g}")


def untargeted(attack: Any) -> dict[str, Any]:
    """The arguments that a ``partial`` binds to an attack, which must be untargeted."""
    if not callable(attack):
        raise TypeError(f"an attack must be a function, got {shown(attack)}")
    arguments: dict[str, Any] = getattr(attack, "keywords", {})
    if arguments.get("targeted"):
        raise ValueError("a targeted attack needs the classes to reach, and gets true labels here")
    return arguments


def module(model: nn.Module, what: str = "the model") -> None:
    """Refuse what is not a torch module, and a module whose weights hold no numbers yet."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"{what} must be a torch module, got {type(model).__name__}")
    if any(map(nn.parameter.is_lazy, model.parameters())):
        raise ValueError(f"{what} has lazy weights: call it on a batch of images first")


def has_hooks(model: nn.Module) -> bool:
    """Whether a part has hooks or a patched ``forward``, which its layers do not show."""
    # torch has no public list of a module's hooks.
    parts = [vars(part) for part in model.modules()]
    return any(p["_forward_hooks"] or p["_forward_pre_hooks"] or "forward" in p for p in parts)


def no_hooks(model: nn.Module, what: str) -> None:
    if has_hooks(model):
        raise ValueError(f"{what} may have no hooks and no patched forward: remove them first")


def logits_of(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The model's logits for images, checked against their labels."""
    if isinstance(model, nn.Module):
        module(model)
    version = None if x.is_inference() else x._version  # torch has no public name for it
    result: Tensor = model(x)
    if version is not None and version != x._version:
        raise ValueError("the model has changed its images in place: let it work on a copy")
    logits(result, y)
    return result


def logits(values: Tensor, y: Tensor) -> None:
    """Refuse logits that do not fit the labels, and labels that are not a class of the model."""
    if not isinstance(values, Tensor):
        got, helps = type(values).__name__, "wrap it in a module that returns the logits alone"
        raise TypeError(f"the model must return a tensor of logits, got {got}: {helps}")
    if not values.is_floating_point():
        raise TypeError(f"the model's logits must be real floating point, got {values.dtype}")
    if values.ndim != y.ndim + 1 or values.shape[:-1] != y.shape:
        need = f"labels of shape {list(y.shape)} need logits of shape {[*y.shape, 'classes']}"
        more = "; a population needs [M, B]" if values.ndim == y.ndim + 2 else ""
        raise ValueError(f"{need}, the model gave {list(values.shape)}{more}")
    if (last := values.shape[-1] - 1) < 1:
        raise ValueError("the model has one class: a classifier needs at least 2")
    low, high = torch.aminmax(y)
    if low < 0 or high > last:
        raise ValueError(f"labels must lie in 0 to {last}, got values from {low} to {high}")


def warn_of_nan(values: Tensor, gradient: Tensor | None = None) -> None:
    """Warn, in the same words at each step, of images whose logits or gradient have NaN."""
    nan = values.isnan().any(-1)
    if nan.any():
        warn("the logits of some images are NaN: these count neither as correct nor as fooled")
    if gradient is not None and (gradient.flatten(nan.ndim).isnan().any(-1) & ~nan).any():
        why = "the input gradient of some images has NaN, as after a root of 0"
        warn(f"{why}: attacks along it do not move these pixels")


def warn_of_probabilities(values: Tensor) -> None:
    """Warn of outputs that are probabilities, or a multiple of them: their gradients vanish."""
    rows = values.detach().flatten(0, -2).double()
    sums = rows.sum(-1)
    total = sums[0] if (rows != rows[0]).any() else torch.ones_like(sums[0])
    if total > 0 and (rows >= 0).all() and ((sums - total).abs() <= 1e-3 * total).all():
        why = f"none is below 0, and all sum to {total:.4g}"
        warn(f"the outputs look like probabilities: {why}. Attacks need the logits before softmax")


def input_gradient(total: Tensor, point: Tensor) -> Tensor:
    """The gradient of a sum with respect to the images that it was computed from."""
    if not isinstance(total, Tensor) or total.ndim:
        raise TypeError(f"the loss must be a tensor without dimensions, got {shown(total)}")
    gradient = None
    if total.requires_grad:
        (gradient,) = torch.autograd.grad(total, point, allow_unused=True)
    if gradient is None:
        why = "the model detaches, compares or rounds on the way; cappaper.square needs no gradient"
        raise ValueError(f"no gradient leads from the logits back to the images: {why}")
    return gradient


def number(
    value: float, what: str, low: float = -math.inf, *, above: bool = False, whole: bool = False
) -> None:
    """Refuse what is not a real number of at least ``low``, or with ``above`` more than it."""
    single = isinstance(value, Tensor) and not value.ndim and not value.is_complex()
    kind = numbers.Integral if whole else numbers.Real
    if isinstance(value, bool) or not (isinstance(value, kind) or (single and not whole)):
        raise TypeError(f"{what} must be a {'whole ' * whole}number, got {shown(value)}")
    if low > -math.inf and not (low < value < math.inf or (value == low and not above)):
        bound = f"above {low:g}" if above else f"at least {low:g}"
        finite = "" if whole else "a finite number " if above else "a finite number of "
        raise ValueError(f"{what} must be {finite}{bound}, got {value}")


eps = partial(number, what="ε", low=0)
whole = partial(number, whole=True)
count = partial(number, low=1, whole=True)
positive = partial(number, low=0, above=True)


def sequence(
    values: Any, what: str, like: str, *, empty: bool = False, ascending: bool = False
) -> tuple[Any, ...]:
    """The entries of a sequence or an array of one dimension; refuses all else, even a string."""
    listed = entries(values)
    if listed is None:
        raise TypeError(f"{what} must be a sequence of {like}, got {shown(values)}")
    if not (listed or empty):
        raise ValueError(f"{what} must not be empty: give {like}")
    if ascending and not all(a <= b for a, b in pairwise(listed)):
        raise ValueError(f"{what} must ascend, got {list(listed)}")
    return listed


def each(value: Any, count: int, what: str, of: str, *, whole: bool = False) -> list[Any]:
    """One number for all of ``count``, or a sequence with one number for each, as a list."""
    values = entries(value)
    values = (value,) * count if values is None else values
    if len(values) != count:
        raise ValueError(f"got {len(values)} {what}s for {count} {of}: give one or {count}")
    for one in values:
        number(one, f"the {what}", whole=whole)
    return [int(one) if whole else float(one) for one in values]


per_layer = partial(each, what="max value", of="layers")


def entries(values: Any) -> tuple[Any, ...] | None:
    """The entries of a sequence, or of an array of one dimension; None of anything else."""
    if isinstance(values, (np.ndarray, Tensor)) and values.ndim == 1:
        return tuple(values.tolist())
    if isinstance(values, Sequence) and not isinstance(values, (str, bytes)):
        return tuple(values)
    return None


def one_of(value: str, allowed: Collection[str], what: str) -> str:
    """The name; refuses one that is not on the list."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"unknown {what} {shown(value)}: use one of {', '.join(allowed)}")
    return value


def shown(value: Any) -> str:
    """A value in a sentence: on one line, and short."""
    if isinstance(value, Tensor):
        return f"a {value.dtype} tensor of shape {list(value.shape)}"
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
