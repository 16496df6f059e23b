"""AutoAttack, the field's standard ensemble, as an attack like the others of this package."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from cappaper.attacks.ascent import classified
from cappaper.attacks.batches import undisturbed
from cappaper.checks import check_batch, check_count, check_eps, one_of
from cappaper.population import members

PARTS = ("apgd-ce", "apgd-t", "fab-t", "square")
"""The standard ensemble: two automatic PGDs, a minimum-norm attack, and a black-box one."""

_NORMS = {"linf": "Linf", "l2": "L2"}


class ReliabilityWarning(UserWarning):
    """AutoAttack doubts its own result, for example because gradients are zero."""


def auto_attack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    norm: str = "linf",
    parts: Sequence[str] = PARTS,
    batch_size: int = 500,
    seed: int = 0,
) -> Tensor:
    """AutoAttack with the settings of its standard version; parts after the first attack the rest.

    Source: Croce and Hein, arXiv 2003.01690; the implementation is ``pyautoattack``.

    Args:
        model: any module from images to logits of at least 4 classes, in the mode it is to be
            attacked in.
        x: images ``[B, C, H, W]`` or ``[M, B, C, H, W]``, floating point in [0, 1].
        y: int64 labels ``[B]`` or ``[M, B]``; a population's members are attacked one by one.
        eps: radius, above 0, in units of the pixels' range (L∞) or their L2 norm.
        norm: ``"linf"`` or ``"l2"``.
        parts: of :data:`PARTS`, in their order; one alone shows what that one finds.
        batch_size: examples attacked at once.
        seed: of all random choices; the global random state stays as it was.

    Returns:
        Examples shaped like ``x``; ``x`` itself where nothing was found.

    Warns:
        ReliabilityWarning: where AutoAttack warns, once for each message.

    Raises:
        ImportError: ``pyautoattack`` is not installed.
        TypeError, ValueError: as :func:`~cappaper.pgd`; or an unknown part or none, ``eps`` of 0,
            images that are not ``[B, C, H, W]``, or fewer than 4 classes, which the targeted
            parts need.

    >>> from cappaper import auto_attack, load, mlp
    >>> x, y = load("digits", "test", limit=8)
    >>> auto_attack(mlp(64, [32]), x, y, eps=0.3, parts=["apgd-ce"]).shape
    torch.Size([8, 1, 8, 8])
    """
    check_batch(x, y)
    check_eps(eps)
    check_count(batch_size, "batch_size")
    one_of(norm, tuple(_NORMS), "norm")
    for part in parts:
        one_of(part, PARTS, "part")
    if not parts or eps == 0:
        raise ValueError("auto_attack needs at least one part, and an eps above 0")
    if x.ndim != y.ndim + 3:
        raise ValueError(f"auto_attack takes images [B, C, H, W], got shape {list(x.shape)}")
    with undisturbed(model):
        if y.ndim == 1:
            return _attack(model, x, y, eps, _NORMS[norm], parts, batch_size, seed)
        found = [
            _attack(member, images, labels, eps, _NORMS[norm], parts, batch_size, seed)
            for member, images, labels in zip(members(model), x, y, strict=True)
        ]
        return torch.stack(found)


def _attack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    norm: str,
    parts: Sequence[str],
    batch_size: int,
    seed: int,
) -> Tensor:
    try:
        from pyautoattack import AutoAttack
    except ImportError as error:
        raise ImportError(
            'auto_attack needs pyautoattack: pip install "cappaper[autoattack]"'
        ) from error
    classified(model, x, y)  # refuses labels that are no class
    with torch.no_grad():
        classes = model(x[:1]).shape[-1]
    if classes < 4:
        raise ValueError(f"auto_attack needs at least 4 classes, the model has {classes}")
    attack = AutoAttack(model, norm=norm, eps=eps, seed=seed, device=x.device)
    attack.attacks_to_run = list(parts)
    targets = min(9, classes - 1)
    attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = targets
    devices = [x.device] if x.is_cuda else []
    with torch.random.fork_rng(devices), _warnings_of("auto-attack"):
        adversarial: Tensor = attack.run_standard_evaluation(x, y, batch_size=batch_size)[0]
    return adversarial.detach()


@contextmanager
def _warnings_of(name: str) -> Iterator[None]:
    """What is logged as a warning inside the block is warned about once it is over."""
    seen: dict[str, None] = {}

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen[record.getMessage()] = None

    logger, handler = logging.getLogger(name), Keep(logging.WARNING)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
    for message in seen:
        warnings.warn(message, ReliabilityWarning, stacklevel=4)
