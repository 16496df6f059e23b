"""FGSM, PGD and cap-aware PGD, which also work inside ``torch.no_grad()``."""

import itertools
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cappaper import checks
from cappaper.attacks import common
from cappaper.attacks.balls import BALLS, is_zero
from cappaper.attacks.common import LOSSES, Loss, is_fooled
from cappaper.progress import Progress
from cappaper.surrogate import surrogate_gradient, warn_unreached

#: Sharpnesses of the surrogate gradients that the cap-aware attack follows in turn.
SHARPNESSES = (10.0, 30.0, 3.0)
_SETTINGS = ("steps", "step_size", "norm", "restarts", "targeted", "autocast")


def fgsm(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """Fast gradient sign method: one step of size ``eps`` for every example.

    Source: Goodfellow, Shlens and Szegedy, arXiv 1412.6572, section 4. Arguments, errors and
    result are as in :func:`pgd`, with the L∞ ball.

    >>> from cappaper import load, mlp
    >>> x, y = load("digits", "test", limit=8)
    >>> (fgsm(mlp(64, [32]), x, y, eps=0.1) - x).abs().max()
    tensor(0.1000)
    """
    # A step of 1 ends at the bound of any ball.
    return pgd(model, x, y, eps, steps=1, step_size=1.0, random_start=False, early_exit=False)


def pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    steps: int = 40,
    step_size: float | None = None,
    norm: str = "linf",
    random_start: bool = True,
    restarts: int = 1,
    early_exit: bool = True,
    loss: str | Loss = "cross-entropy",
    targeted: bool = False,
    autocast: torch.dtype | None = None,
    samples: int = 1,
    batch_size: int | None = None,
    progress: Progress | None = None,
    seed: int = 0,
) -> Tensor:
    """Projected gradient descent, by default on the cross-entropy.

    Source: Madry et al., arXiv 1706.06083, section 2.1.

    Args:
        model: any module or function from images to logits ``[B, classes]`` (``[M, B, classes]``),
            in the mode, train or eval, in which it is to be attacked.
        x: images ``[B, ...]`` or ``[M, B, ...]``, float32 or float64 in [0, 1].
        y: int64 labels ``[B]`` or ``[M, B]``.
        eps: radius, at least 0, in units of the pixels' range (L∞) or their L2 norm.
        steps: gradient steps in a run.
        step_size: length of a step in ``norm``; by default 2.5 · eps / steps, as Madry et al.
        norm: ``"linf"`` or ``"l2"``.
        random_start: start each run at a uniform random point of the ball, which depends on the
            seed, the run and the example's own pixels alone.
        restarts: number of runs; each attacks the examples that are still robust.
        early_exit: return an example's first success, and ``x`` itself where it is misclassified.
            With ``False`` every example takes all steps, as adversarial training needs.
        loss: ``"cross-entropy"``; ``"margin"``, the largest other logit minus the true class's,
            whose gradient does not vanish where the network is very sure; or a function from logits
            ``[N, classes]`` and labels ``[N]`` to a sum over examples.
        targeted: ``y`` holds the classes to reach: the loss goes down, and success is to reach it.
        autocast: ``torch.bfloat16`` to take the steps in that dtype, which is faster for dense
            networks, and to confirm every success in the model's own dtype.
        samples: forward passes in a step; the attack follows the mean of their probabilities. If
            the model is stochastic, no example stops early, and its best run is kept.
        batch_size: examples attacked at once; 2048 by default on a CPU, all of them elsewhere.
        progress: True for a bar; or a function to call with (batches done, in all), 0 if unknown.
            A batch is then about a tenth of the examples, or less.
        seed: of the random starts; members of a population share them.

    Returns:
        Examples shaped like ``x``; where no run succeeded, the end of the last run.

    Warns:
        ReliabilityWarning: the model is stochastic, its outputs look like probabilities, or logits
            depend on the batch (these three not with ``early_exit=False``); ``eps`` > 1 in L∞; or
            some logits or gradients are NaN: examples with NaN logits count as not fooled.

    Raises:
        TypeError: images or labels of the wrong dtype, or a model that does not return a tensor.
        ValueError: images outside [0, 1] or of the wrong shape, labels that are not a class,
            ``eps`` < 0, a step size not above 0, a count below 1, an unknown norm or loss, or
            restarts without a random start.

    >>> from cappaper import load, mlp
    >>> pgd(mlp(64, [32]), *load("digits", "test", limit=8), eps=0.3, steps=10).shape
    torch.Size([8, 1, 8, 8])
    """
    checks.attack(x, y, eps, seed, norm=norm, steps=steps, restarts=restarts, samples=samples)
    if step_size is not None:
        checks.positive(step_size, "the step size")
    if autocast not in (None, torch.bfloat16):  # float16 rounds small gradients to zero
        raise ValueError(f"autocast must be None or torch.bfloat16, got {autocast}")
    if restarts > 1 and not (random_start and early_exit):
        raise ValueError("restarts need random_start=True and early_exit=True: else use restarts=1")
    objective = loss if callable(loss) else LOSSES[checks.one_of(loss, LOSSES, "loss")]
    ball, batch = BALLS[norm](float(eps), y.ndim), y.ndim - 1
    rate = (2.5 * ball.eps / steps if step_size is None else step_size) * (-1 if targeted else 1)
    if early_exit or samples > 1:
        model = common.look(model, x, y, samples)

    def ascend(run: int, x: Tensor, y: Tensor) -> Tensor:
        start = ball.random(x, seed, run) if random_start else x
        stops = early_exit and not isinstance(model, common.Averaged)
        return common.climb(step, common.State(ball, stops, x, y, start), range(steps))

    def step(number: int, s: common.State) -> None:
        point = s.here.detach().requires_grad_()
        with torch.autocast(x.device.type, autocast) if autocast else nullcontext():
            # Check the first step only: later ones have no other examples.
            logits = checks.logits_of(model, point, s.y) if number == 0 else model(point)
        logits = logits.to(x.dtype) if autocast else logits
        gradient = checks.input_gradient(objective(logits.flatten(0, -2), s.y.flatten()), point)
        ahead = s.project(ball.direction(gradient).mul_(rate).add_(s.here))
        if s.stops:
            fooled = confirmed(s, s.running & is_fooled(logits, s.y, targeted))
            s.stop(fooled | is_zero(gradient, y.ndim))  # where it is zero, later steps are, too
        s.move(ahead)
        if number == steps - 1:
            checks.warn_of_nan(logits, gradient)

    def confirmed(s: common.State, fooled: Tensor) -> Tensor:
        """The successes that are not due to autocast's rounding."""
        if not autocast or not len(left := common.left_over(fooled)):
            return fooled
        here, labels = (t.index_select(batch, left) for t in (s.here, s.y))
        still = is_fooled(common.predict(model, here, labels), labels, targeted)
        return fooled & torch.zeros_like(fooled).index_copy(batch, left, still)

    runs = [partial(ascend, run) for run in range(restarts)]
    union = partial(common.run_in_turn, model, runs, targeted=targeted)
    attack = union if early_exit else runs[0]
    return common.in_batches(attack, model, x, y, batch_size, progress)


def adaptive_pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    sharpnesses: Sequence[float | None] = SHARPNESSES,
    losses: Sequence[str | Loss] = tuple(LOSSES),
    samples: int = 1,
    batch_size: int | None = None,
    progress: Progress | None = None,
    seed: int = 0,
    **settings: Any,
) -> Tensor:
    """Cap-aware PGD: the union of :func:`pgd` and of PGD along surrogate gradients.

    After :func:`pgd`, each sharpness of :func:`surrogate_gradient`, which gives units at 0 and at
    their cap a gradient, is tried with each loss on the examples that are still robust.

    Source: the adaptive attacks that Tramèr et al., arXiv 2002.08347, ask of every evaluation, with
    the backward pass approximation of Athalye et al., arXiv 1802.00420, section 4.1.

    Args:
        model: a module from images to logits.
        x, y, eps, samples, batch_size, progress, seed: as :func:`pgd`; so are the ``settings``
            ``steps``, ``step_size``, ``norm``, ``restarts``, ``targeted`` and ``autocast``.
        sharpnesses: of the surrogate gradient; None is the exact one.
        losses: as in :func:`pgd`; each sharpness and loss has one run, or ``restarts`` runs.

    Returns:
        Examples shaped like ``x``; where no run succeeded, the end of the last run.

    Warns:
        UnreachedWarning: :func:`surrogate_gradient` reaches no bounded activation, or part of the
            model is traced, runs in another thread, or is a custom autograd function.

    Raises:
        TypeError, ValueError: as :func:`pgd` and :func:`surrogate_gradient`.

    >>> from cappaper import load, mlp
    >>> x, y = load("digits", "test", limit=8)
    >>> adaptive_pgd(mlp(64, [32], beta=0.05), x, y, eps=0.3, steps=5).shape
    torch.Size([8, 1, 8, 8])
    """
    sharpnesses = checks.sequence(sharpnesses, "sharpnesses", "numbers or None")
    losses = checks.sequence(losses, "losses", "names or functions")
    losses = [loss if callable(loss) else checks.one_of(loss, LOSSES, "loss") for loss in losses]
    for sharpness in sharpnesses:
        checks.positive(1 if sharpness is None else sharpness, "the sharpness")
    for name in settings:
        checks.one_of(name, _SETTINGS, "setting of adaptive_pgd")
    checks.attack(x, y, eps, seed, samples=samples, norm=settings.get("norm", "linf"))
    warn_unreached(model, x, y, "adaptive_pgd")
    model = common.look(model, x, y, samples)
    runs = cap_aware_runs(model, sharpnesses, losses, eps=eps, seed=seed, **settings)
    attack = partial(common.run_in_turn, model, runs, targeted=settings.get("targeted", False))
    return common.in_batches(attack, model, x, y, batch_size, progress)


def cap_aware_runs(
    model: nn.Module,
    sharpnesses: Sequence[float | None] = SHARPNESSES,
    losses: Sequence[str | Loss] = tuple(LOSSES),
    **settings: Any,
) -> list[Callable[[Tensor, Tensor], Tensor]]:
    """The runs of :func:`adaptive_pgd` as functions ``run(x, y)``, with settings of :func:`pgd`."""

    def along(run: int, sharpness: float | None, loss: str | Loss, x: Tensor, y: Tensor) -> Tensor:
        # Each run has its own start: without a cap, runs of all sharpnesses would be the same.
        own = settings | {"loss": loss, "seed": settings["seed"] + run}
        with surrogate_gradient(model, sharpness):
            return pgd(model, x, y, **own)

    grid = [(None, "cross-entropy"), *itertools.product(sharpnesses, losses)]
    return [partial(along, run, *pair) for run, pair in enumerate(grid)]
