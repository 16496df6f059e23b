"""Ensembles: the union of all L∞ attacks of this package, and AutoAttack, the field's standard."""

import itertools
import logging
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cappaper import checks
from cappaper.attacks import common
from cappaper.attacks.auto_pgd import apgd
from cappaper.attacks.pgd import SHARPNESSES, cap_aware_runs, pgd
from cappaper.attacks.square import square
from cappaper.population import members
from cappaper.progress import Progress
from cappaper.surrogate import surrogate_gradient, warn_unreached

#: AutoAttack's standard ensemble of two Auto-PGDs, a minimum-norm and a black-box attack.
PARTS = ("apgd-ce", "apgd-t", "fab-t", "square")


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
    """The union of this package's L∞ attacks: an example is robust only if none succeeds.

    The attacks run in turn on the examples that are still robust: transfer from ``twins``,
    :func:`~cappaper.adaptive_pgd`, :func:`~cappaper.apgd` on the cross-entropy and (with 4 classes
    or more) towards the nine likeliest others, each along the exact and the surrogate gradient,
    and :func:`~cappaper.square`.

    Source: Croce and Hein, arXiv 2003.01690, for an ensemble of different attacks; Tramèr et al.,
    arXiv 2002.08347, for transfer and for attacks that know the defence.

    Args:
        model, y, eps, batch_size, progress, seed: as :func:`~cappaper.adaptive_pgd`; so are the
            warnings and the errors.
        x: images ``[B, C, H, W]`` or ``[M, B, C, H, W]``, float32 or float64 in [0, 1].
        twins: models to transfer examples from, such as the same network with ReLU or another cap.
        steps: gradient steps of a run, and of PGD on a twin.
        restarts: runs of every gradient attack with each loss.
        queries: of Square Attack.

    Returns:
        Examples shaped like ``x``: a success of each, or the end of the last attack.

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
        classes = common.predict(model, x, y).shape[-1]
        targets = min(9, classes - 1) if classes >= 4 else 0  # as AutoAttack
        settings = itertools.product(dict.fromkeys((0, targets)), (None, SHARPNESSES[0]))
        attacks: list[Any] = [
            *(partial(transfer, twin) for twin in twins),
            *cap_aware_runs(model, **rest),
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
    """AutoAttack, the standard version, by ``pyautoattack``, its authors' package.

    Source: Croce and Hein, arXiv 2003.01690. Its random starts depend on the batch, too.

    Args:
        model, y, norm, batch_size, progress, seed: as :func:`~cappaper.pgd`, for 4 classes or more.
        x: images ``[B, C, H, W]`` or ``[M, B, C, H, W]``, float32 or float64 in [0, 1].
        eps: radius, above 0, in units of the pixels' range (L∞) or their L2 norm.
        parts: ``"apgd-ce"``, ``"apgd-t"``, ``"fab-t"``, ``"square"``, or some of them; each attacks
            the examples that are still robust.

    Returns:
        Examples shaped like ``x``: a success of each, or ``x`` itself where there was none.

    Warns:
        ReliabilityWarning: what ``pyautoattack`` warns of, such as gradients that are zero; and as
            :func:`~cappaper.pgd`.

    Raises:
        ImportError: ``pyautoattack`` is not installed.
        TypeError, ValueError: as :func:`~cappaper.pgd`; or an unknown part or none, ``eps`` of 0,
            images of another shape, or fewer than 4 classes.

    >>> from cappaper import auto_attack, load, mlp
    >>> x, y = load("digits", "test", limit=8)
    >>> auto_attack(mlp(64, [32]), x, y, eps=0.3, parts=["apgd-ce"]).shape
    torch.Size([8, 1, 8, 8])
    """
    checks.attack(x, y, eps, seed, norm=norm, batch_size=batch_size)
    checks.pictures(x, y, "auto_attack")
    names = checks.sequence(parts, "parts", "AutoAttack's parts")
    parts = [checks.one_of(name, PARTS, "part") for name in names]
    checks.positive(eps, "ε of auto_attack")
    try:
        from pyautoattack import AutoAttack
        from pyautoattack.checks import funcs as calls_seen
    except ImportError as error:
        raise ImportError('auto_attack needs more: pip install "cappaper[autoattack]"') from error

    def attack(x: Tensor, y: Tensor, model: nn.Module = model) -> Tensor:
        if y.ndim == 2:
            return torch.stack([attack(*one) for one in zip(x, y, members(model), strict=True)])
        model = common.look(model, x, y)
        if (classes := common.predict(model, x, y).shape[-1]) < 4:
            raise ValueError(f"auto_attack needs at least 4 classes, the model has {classes}")
        # pyautoattack computes in single precision, and mixes logits with images.
        logits = lambda z: model(z.to(x.dtype)).to(z.dtype)  # noqa: E731
        run = AutoAttack(logits, norm=norm.capitalize(), eps=float(eps), seed=seed, device=x.device)
        run.attacks_to_run = parts
        run.fab.n_target_classes = run.apgd_targeted.n_target_classes = min(9, classes - 1)
        log: Any = logging.Logger("auto-attack", logging.WARNING)
        log.addFilter(lambda record: checks.warn(record.getMessage()))  # Python's warnings
        run.logger = run.apgd.logger = run.apgd_targeted.logger = log
        # pyautoattack traces calls to tell a dynamic defence, and never sets its counts back to 0.
        calls_seen.update(dict.fromkeys(calls_seen, 0))
        with torch.random.fork_rng([x.device] if x.is_cuda else []), ExitStack() as stack:
            stack.callback(sys.settrace, sys.gettrace())
            adversarial: Tensor = run.run_standard_evaluation(x.float(), y, batch_size=len(x))[0]
        return adversarial.detach().to(x.dtype)

    return common.in_batches(attack, model, x, y, batch_size, progress)
