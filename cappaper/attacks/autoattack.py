"""AutoAttack, the field's standard ensemble, as an attack like the others of this package."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from cappaper import checks
from cappaper.attacks import common
from cappaper.attacks.auto_pgd import apgd
from cappaper.attacks.common import Progress
from cappaper.attacks.square import square
from cappaper.checks import ReliabilityWarning as ReliabilityWarning
from cappaper.population import members

PARTS = ("apgd-ce", "apgd-t", "fab-t", "square")
"""The standard ensemble: two Auto-PGDs, a minimum-norm attack, and a black-box attack."""

_NORMS = {"linf": "Linf", "l2": "L2"}


def auto_attack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    norm: str = "linf",
    parts: Sequence[str] = PARTS,
    batch_size: int = 500,
    progress: Progress | None = None,
    seed: int = 0,
) -> Tensor:
    """AutoAttack with the settings of its standard version.

    Auto-PGD and Square are :func:`~cappaper.apgd` and :func:`~cappaper.square`; FAB-T, and Square
    in L2, are those of ``pyautoattack``, its authors' package. Our Square rescales its schedule.

    Source: Croce and Hein, arXiv 2003.01690.

    Args:
        model, y, norm, batch_size, progress, seed: as :func:`~cappaper.pgd`, for 4 classes or more.
        x: images ``[B, C, H, W]`` or ``[M, B, C, H, W]``, float32 or float64 in [0, 1].
        eps: radius, above 0, in units of the pixels' range (L∞) or their L2 norm.
        parts: some of :data:`PARTS`; each attacks what the ones before have left.

    Returns:
        Examples shaped like ``x``; where nothing was found, the end of the last part.

    Warns:
        ReliabilityWarning: gradients are zero, so gradient attacks cannot start; what
            ``pyautoattack`` warns of; and as :func:`~cappaper.pgd`.

    Raises:
        ImportError: a part needs ``pyautoattack``, which is not installed.
        TypeError, ValueError: as :func:`~cappaper.pgd`; or an unknown part or none, ``eps`` of 0,
            images of another shape, or fewer than 4 classes.

    >>> from cappaper import auto_attack, load, mlp
    >>> x, y = load("digits", "test", limit=8)
    >>> auto_attack(mlp(64, [32]), x, y, eps=0.3, parts=["apgd-ce", "square"]).shape
    torch.Size([8, 1, 8, 8])
    """
    checks.attack(x, y, eps, seed, norm=norm, batch_size=batch_size)
    checks.pictures(x, y, "auto_attack")
    parts = checks.sequence(parts, "parts", "AutoAttack's parts")
    for part in parts:
        checks.one_of(part, PARTS, "part")
    if eps == 0:
        raise ValueError("auto_attack needs an eps above 0")
    foreign = {"fab-t"} if norm == "linf" else {"fab-t", "square"}
    if foreign & set(parts) and find_spec("pyautoattack") is None:
        raise ImportError(
            f'{parts} in {norm} need pyautoattack: pip install "cappaper[autoattack]"'
        )
    model, silent = common.look(model, x, y), 0

    def attack(x: Tensor, y: Tensor) -> Tensor:
        nonlocal silent
        classes = common.judge(model, x, y).shape[-1]
        if classes < 4:
            raise ValueError(f"auto_attack needs at least 4 classes, the model has {classes}")
        targets = min(9, classes - 1)
        own: dict[str, Callable[..., Tensor]] = {
            "apgd-ce": partial(apgd, norm=norm),
            "apgd-t": partial(apgd, norm=norm, targets=targets),
        }
        if {*own} & set(parts):
            silent += _silent(model, x, y)
        if norm == "linf":
            own["square"] = square
        attacks = [own.get(part) or partial(_peer, part, norm, targets) for part in parts]
        runs = [partial(run, model, eps=eps, seed=seed) for run in attacks]
        return common.run_in_turn(model, runs, x, y)

    adversarial = common.in_batches(attack, model, x, y, batch_size, progress)
    if silent:
        zero = f"there are {silent} points with zero gradient"
        checks.warn(f"{zero}: attacks that follow it start nowhere")
    return adversarial


def _silent(model: nn.Module, x: Tensor, y: Tensor) -> int:
    """How many correctly classified examples have an input gradient of exactly zero."""
    point = x.detach().requires_grad_()
    lead = common.margin(model(point), y)
    gradient = checks.input_gradient(lead.sum(), point)
    return int((gradient.flatten(y.ndim).eq(0).all(-1) & (lead > 0)).sum())


def _peer(
    part: str, norm: str, targets: int, model: Any, x: Tensor, y: Tensor, *, eps: float, seed: int
) -> Tensor:
    """A part as ``pyautoattack`` has it; ``x`` itself where it finds nothing."""
    from pyautoattack import AutoAttack

    if y.ndim == 2:
        peer = partial(_peer, part, norm, targets, eps=eps, seed=seed)
        return torch.stack([peer(*one) for one in zip(members(model), x, y, strict=True)])

    def single(x: Tensor) -> Tensor:
        logits: Tensor = model(x)
        return logits.to(x.dtype)  # FAB and Square mix logits with images

    attack = AutoAttack(single, norm=_NORMS[norm], eps=eps, seed=seed, device=x.device)
    attack.attacks_to_run, attack.fab.n_target_classes = [part], targets
    attack.logger = _Log("auto-attack", logging.WARNING)
    with torch.random.fork_rng([x.device] if x.is_cuda else []):
        adversarial: Tensor = attack.run_standard_evaluation(x, y, batch_size=len(x))[0]
    return adversarial.detach()


class _Log(logging.Logger):
    """A log whose warnings are Python's."""

    def handle(self, record: logging.LogRecord) -> None:
        checks.warn(record.getMessage())
