"""Controls for every setting of one attack on one digit."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets
import numpy as np
import torch
from torch import Tensor

from cappaper.activations import CappedReLU
from cappaper.attacks.pgd import adaptive_pgd, pgd
from cappaper.data import Dataset
from cappaper.models import PRETRAINED, about, pretrained
from cappaper.paper.figures import parts

CAPS = [(parts.beta_label(cap), cap) for cap in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, math.inf)]
ATTACKS: dict[str, Callable[..., Tensor]] = {"PGD": pgd, "cap-aware PGD": adaptive_pgd}


@parts.style()
def attacked_digit(
    test: Dataset,
    digit: int,
    network: str,
    betas: Sequence[float],
    attack: str,
    eps: float,
    steps: int,
) -> parts.Picture:
    """A digit, the attacked digit, the change, and the probabilities of the classes.

    ``betas`` replaces the caps of a trained network, which is not trained again.
    """
    model = pretrained(network)
    capped = [part for part in model if isinstance(part, CappedReLU)]
    for part, beta in zip(capped, betas, strict=True):
        part.beta.fill_(beta)
    x, y = test.images[digit : digit + 1], test.labels[digit : digit + 1]
    adversarial = ATTACKS[attack](model, x, y, eps, steps=steps)
    with torch.no_grad():
        before, after = model(torch.cat([x, adversarial])).softmax(dim=1)
    label, predicted = int(y), int(after.argmax())
    figure = parts.Picture(figsize=(8.2, 2.6))
    clean, attacked, change, bars = figure.subplots(1, 4, width_ratios=(1, 1, 1, 1.7))
    parts.draw_pixels(clean, x[0], f"a {label}")
    outcome = "still correct" if predicted == label else f"taken for a {predicted}"
    parts.draw_pixels(attacked, adversarial[0], outcome)
    parts.draw_pixels(change, (adversarial - x)[0], "what changed", change=eps or 1.0)
    classes = np.arange(len(before))
    bars.bar(classes - 0.2, before.numpy(), 0.4, color=parts.COLOURS[0], label="before")
    hatched = {"color": parts.COLOURS[1], "hatch": "///", "edgecolor": "white"}
    bars.bar(classes + 0.2, after.numpy(), 0.4, label="after", **hatched)
    bars.set(xticks=classes, ylim=(0, 1.03))
    bars.set_title("probability of each class")
    bars.legend(fontsize="small")
    return figure


def explore(test: Dataset) -> None:
    """Show controls for network, caps, attack, ε, steps and digit above the attacked digit.

    The attack runs again when a control moves. A page without a kernel shows the first picture.
    ``test`` has images of MNIST.
    """
    box = controls(test)
    text = "A digit, the digit as PGD has changed it, the change, and the classes of both"
    parts.show(parts.still(box.children[-1].value, text), text, **box._repr_mimebundle_())


def controls(test: Dataset, start: str = "cap-0.05") -> ipywidgets.VBox:
    """A box of the controls, with the picture as the last child."""
    style = {"description_width": "7em"}
    wide: dict[str, Any] = {"style": style, "layout": {"width": "26em"}}
    network = ipywidgets.Dropdown(options=PRETRAINED, value=start, description="network", **wide)
    caps = [
        ipywidgets.Dropdown(options=CAPS, value=beta, description=f"β of layer {i}", **wide)
        for i, beta in enumerate(_caps(start), 1)
    ]
    attack = ipywidgets.ToggleButtons(options=list(ATTACKS), description="attack", style=style)
    eps = ipywidgets.FloatSlider(0.1, min=0, max=0.4, step=0.01, description="ε", **wide)
    steps = ipywidgets.IntSlider(40, min=1, max=100, description="steps", **wide)
    last = len(test.labels) - 1
    digit = ipywidgets.IntSlider(0, min=0, max=last, description="test digit", **wide)
    moving = [network, *caps, attack, eps, steps, digit]
    picture = ipywidgets.Image(format="png")

    def draw(_: object = None) -> None:
        if network.disabled:  # its caps are not all there yet
            return
        settings = {"attack": attack.value, "eps": eps.value, "steps": steps.value}
        settings |= {"network": network.value, "betas": [cap.value for cap in caps]}
        picture.value = attacked_digit(test, digit.value, **settings).png()

    def take_caps(_: object) -> None:
        network.disabled = True
        for cap, beta in zip(caps, _caps(network.value), strict=True):
            cap.value = beta
        network.disabled = False

    network.observe(take_caps, names="value")  # before the picture is drawn
    for control in moving:
        control.observe(draw, names="value")
    draw()
    return ipywidgets.VBox([*moving, picture])


def _caps(network: str) -> list[float]:
    return [float(beta) for beta in about(network)["beta"]]
