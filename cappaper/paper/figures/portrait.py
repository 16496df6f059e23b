"""One image under attack: before, after, what changed, and what the network makes of it."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from cappaper.paper.figures.style import COLOURS, Picture, style


def portrait(
    image: Tensor, adversarial: Tensor, before: Tensor, after: Tensor, label: int, eps: float
) -> Picture:
    """A digit, the attacked digit, the change, and the classes' probabilities before and after.

    Args:
        image, adversarial: ``[1, H, W]`` in [0, 1].
        before, after: probabilities ``[classes]``.
        label: the right class.
        eps: the largest change, for the colours of the change.
    """
    with style():
        figure = Picture(figsize=(8.2, 2.6))
        axes = figure.subplots(1, 4, width_ratios=(1, 1, 1, 1.7))
        said = f"taken for a {int(after.argmax())}" if int(after.argmax()) != label else "it stands"
        shown = {f"a {label}": image[0], said: adversarial[0]}
        for axis, (title, pixels) in zip(axes, shown.items(), strict=False):
            axis.imshow(pixels.numpy(), cmap="gray_r", vmin=0, vmax=1)
            axis.set_title(title)
        change, bound = (adversarial - image)[0].numpy(), eps or 1.0
        axes[2].imshow(change, cmap="PuOr_r", vmin=-bound, vmax=bound)
        axes[2].set_title("what changed")
        for axis in axes[:3]:
            axis.set_xticks([])
            axis.set_yticks([])
            axis.grid(False)
        classes = np.arange(len(before))
        axes[3].bar(classes - 0.2, before.numpy(), 0.4, color=COLOURS[0], label="before")
        bars = {"color": COLOURS[1], "label": "after", "hatch": "///", "edgecolor": "white"}
        axes[3].bar(classes + 0.2, after.numpy(), 0.4, **bars)
        axes[3].set_xticks(classes)
        axes[3].set_ylim(0, 1.03)
        axes[3].set_title("probability of each class")
        axes[3].legend(fontsize="small")
    return figure
