"""The strongest attack: the union of all L∞ attacks of this package."""

import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from cappaper import checks
from cappaper.attacks import common
from cappaper.attacks.auto_pgd import apgd
from cappaper.attacks.common import LOSSES, Progress
from cappaper.attacks.pgd import SHARPNESSES, cap_aware, pgd
from cappaper.attacks.square import square
from cappaper.surrogate import surrogate_gradient, warn_unreached


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
    sharpness: float = 10.0,
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
        sharpness: of the surrogate gradient that Auto-PGD follows.

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
    checks.positive(sharpness, "the sharpness")
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
        settings = itertools.product(dict.fromkeys((0, targets)), (None, sharpness))
        attacks: list[Any] = [
            *(partial(transfer, twin) for twin in twins),
            partial(cap_aware, model, rest, SHARPNESSES, tuple(LOSSES)),
            *(partial(along, slope, goals) for goals, slope in settings),
            partial(square, model, eps=eps, queries=queries, seed=seed),
        ]
        return common.run_in_turn(model, attacks, x, y)

    return common.in_batches(attack, model, x, y, batch_size, progress)
