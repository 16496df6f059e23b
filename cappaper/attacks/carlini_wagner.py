"""Carlini and Wagner's L2 attack: the smallest perturbation that it finds, of any size."""

import math

import torch
from torch import Tensor, nn

from cappaper import checks
from cappaper.attacks import common
from cappaper.attacks.balls import column
from cappaper.attacks.common import Progress


def cw_l2(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    confidence: float = 0.0,
    steps: int = 1000,
    search_steps: int = 9,
    lr: float = 1e-2,
    initial_const: float = 1e-2,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Minimise ``‖x' - x‖² + c · max(margin(x') + κ, 0)`` over images x', with a search for c.

    The margin is the true class's logit minus the largest other one; x' = (tanh w + 1) / 2 keeps
    pixels in [0, 1], Adam minimises over w, and c is found for each example by binary search.

    Source: Carlini and Wagner, arXiv 1608.04644, section V (the function f₆, untargeted).

    Args:
        model, x, y, batch_size, progress: as :func:`~cappaper.pgd`.
        confidence: κ, at least 0, in units of logits: by how much another class must win.
        steps: of Adam for one c; an example stops when a tenth of them lowers its loss by less than
            a ten-thousandth.
        search_steps: values of c that are tried.
        lr: Adam's step size in w, above 0. Black and white pixels start at w = ±7.3: where
            ``steps`` times ``lr`` is less, the attack hardly moves them.
        initial_const: the first c, above 0.

    Returns:
        Examples shaped like ``x``: the nearest misclassified one that was found; ``x`` itself where
        there was none, or where it is misclassified.

    Raises:
        TypeError, ValueError: as :func:`~cappaper.pgd`; or a setting out of its range.

    >>> from cappaper import cw_l2, load, mlp
    >>> x, y = load("digits", "test", limit=8)
    >>> cw_l2(mlp(64, [32]), x, y, steps=20, search_steps=2).shape
    torch.Size([8, 1, 8, 8])
    """
    checks.attack(x, y, 0, steps=steps, search_steps=search_steps)
    checks.number(confidence, "the confidence", 0)
    checks.positive(lr, "lr")
    checks.positive(initial_const, "initial_const")
    model = common.look(model, x, y)

    def attack(x: Tensor, y: Tensor) -> Tensor:
        best = x.clone()
        # Squared distances; 0 where nothing is to be done, so that nothing is nearer.
        nearest = torch.where(common.is_fooled(common.judge(model, x, y), y), 0.0, math.inf).to(x)
        const = torch.full_like(nearest, initial_const)
        low, high = torch.zeros_like(const), torch.full_like(const, math.inf)
        for _ in range(search_steps):
            w = torch.atanh((2 * x - 1) * (1 - 1e-6)).requires_grad_()
            optimizer = torch.optim.Adam([w], lr=lr)
            hit, running = (
                torch.zeros_like(y, dtype=torch.bool),
                torch.ones_like(y, dtype=torch.bool),
            )
            before = torch.full_like(const, math.inf)
            for step in range(steps):
                image = (torch.tanh(w) + 1) / 2
                lead = common.margin(model(image), y)
                distance = (image - x).flatten(y.ndim).square().sum(-1)
                loss = distance + const * (lead + confidence).clamp(min=0)
                w.grad = checks.input_gradient(loss.sum(), w)
                image, distance, loss = (t.detach() for t in (image, distance, loss))
                # An example that has stopped keeps its result, however long the others go on.
                found = running & (lead < -confidence)
                closer, hit = found & (distance < nearest), hit | found
                best = torch.where(column(closer, x), image, best)
                nearest = torch.where(closer, distance, nearest)
                if step % max(1, steps // 10) == 0:
                    running, before = running & (loss < before * 0.9999), loss
                    if not running.any():
                        break
                optimizer.step()
            high, low = torch.where(hit, const, high), torch.where(hit, low, const)
            const = torch.where(high < math.inf, (low + high) / 2, const * 10)
        return best

    return common.in_batches(attack, model, x, y, batch_size, progress)
