"""Ensembles: the union of all L∞ attacks of this package, and AutoAttack, the field's standard."""

import itertools
import logging
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from cappaper import checks
from cappaper.attacks import common
from cappaper.attacks.auto_pgd import apgd
from cappaper.attacks.common import Progress
from cappaper.attacks.pgd import SHARPNESSES, cap_aware, pgd
from cappaper.attacks.square import square
from cappaper.checks import ReliabilityWarning as ReliabilityWarning
from cappaper.population import members
from cappaper.surrogate import surrogate_gradient, warn_unreached

PARTS = ("apgd-ce", "apgd-t", "fab-t", "square")
"""AutoAttack's standard ensemble: two Auto-PGDs, a minimum-norm attack, and a black-box attack."""


def strongest_attack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    twins: Sequence[nn.Module] = (),
    steps: int = 100,
    restarts: int = 1,
    queries: int = 5000,
    batch_size: int | None = None,
    progress: Progress | None = None,
    seed: int = 0,
) -> Tensor:
    """The union of this package's L∞ attacks: an example is robust only if it is under each.

    In turn, each on what the ones before have left: examples made against ``twins``,
    :func:`~cappaper.adaptive_pgd`, :func:`~cappaper.apgd` on the cross-entropy and towards the nine
    likeliest other classes (of 4 classes or more), along the exact gradient and along the
    surrogate, and :func:`~cappaper.square`.

    Source: an ensemble of different attacks, as Croce and Hein, arXiv 2003.01690, argue for;
    transfer, and attacks that know the defence, as Tramèr et al., arXiv 2002.08347, ask for.

    Args:
        model, y, eps, batch_size, progress, seed: as :func:`~cappaper.adaptive_pgd`.
        x: images ``[B, C, H, W]`` or ``[M, B, C, H, W]``, float32 or float64 in [0, 1].
        twins: models whose examples are tried first: the same network with ReLU or another cap.
        steps: gradient steps of a run, and of PGD on a twin.
        restarts: runs of every gradient attack with each loss.
        queries: of Square Attack.

    Returns:
        Examples shaped like ``x``: a success of each, or the end of the last attack.

    Warns:
        UnreachedWarning: as :func:`~cappaper.adaptive_pgd`.

    Raises:
        TypeError, ValueError: as the attacks that it is made of.

    >>> from cappaper import load, mlp, strongest_attack
    >>> net, (x, y) = mlp(64, [32], beta=0.05), load("digits", "test", limit=8)
    >>> strongest_attack(net, x, y, eps=0.3, twins=[mlp(64, [32])], steps=5, queries=20).shape
    torch.Size([8, 1, 8, 8])
    """
    checks.attack(x, y, eps, seed, steps=steps, restarts=restarts, queries=queries)
    checks.pictures(x, y, "strongest_attack")
    twins = checks.sequence(twins, "twins", "models", empty=True)
    warn_unreached(model, x, y, "strongest_attack")
    model = common.look(model, x, y)
    rest: dict[str, Any] = {"eps": eps, "steps": steps, "restarts": restarts, "seed": seed}
    transfer = partial(pgd, eps=eps, steps=steps, early_exit=False, seed=seed)

    def along(sharpness: float | None, targets: int, x: Tensor, y: Tensor) -> Tensor:
        with surrogate_gradient(model, sharpness):
            return apgd(model, x, y, targets=targets, **rest)

    def attack(x: Tensor, y: Tensor) -> Tensor:
        classes = common.judge(model, x, y).shape[-1]
        targets = min(9, classes - 1) if classes >= 4 else 0  # as AutoAttack
        settings = itertools.product(dict.fromkeys((0, targets)), (None, SHARPNESSES[0]))
        attacks: list[Any] = [
            *(partial(transfer, twin) for twin in twins),
            *cap_aware(model, **rest),
            *(partial(along, slope, goals) for goals, slope in settings),
            partial(square, model, eps=eps, queries=queries, seed=seed),
        ]
        return common.run_in_turn(model, attacks, x, y)

    return common.in_batches(attack, model, x, y, batch_size, progress)


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
    checks.positive(eps, "ε of auto_attack")
    foreign = {"fab-t"} if norm == "linf" else {"fab-t", "square"}
    if foreign & set(parts) and find_spec("pyautoattack") is None:
        how = 'pip install "cappaper[autoattack]"'
        raise ImportError(f"FAB-T, and Square in L2, need pyautoattack: {how}")
    model, silent = common.look(model, x, y), 0

    def attack(x: Tensor, y: Tensor) -> Tensor:
        nonlocal silent
        if (classes := common.judge(model, x, y).shape[-1]) < 4:
            raise ValueError(f"auto_attack needs at least 4 classes, the model has {classes}")
        targets = min(9, classes - 1)
        climb = partial(apgd, norm=norm)
        attacks: dict[str, Any] = {"apgd-ce": climb, "apgd-t": partial(climb, targets=targets)}
        if {*attacks} & set(parts):
            silent += _silent(model, x, y)
        attacks |= {"square": square}
        attacks |= {part: partial(_peer, part, norm, targets) for part in foreign}
        runs = [partial(attacks[part], model, eps=eps, seed=seed) for part in parts]
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

    alike = lambda x: model(x).to(x.dtype)  # noqa: E731  FAB and Square mix logits with images
    attack = AutoAttack(alike, norm=norm.capitalize(), eps=eps, seed=seed, device=x.device)
    attack.attacks_to_run, attack.fab.n_target_classes = [part], targets
    attack.logger = logging.Logger("auto-attack", logging.WARNING)
    attack.logger.addFilter(lambda record: checks.warn(record.getMessage()))  # Python's warnings
    with torch.random.fork_rng([x.device] if x.is_cuda else []):
        adversarial: Tensor = attack.run_standard_evaluation(x, y, batch_size=len(x))[0]
    return adversarial.detach()
