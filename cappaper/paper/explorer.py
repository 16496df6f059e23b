"""Turn every knob of one attack on one digit, where a kernel runs."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import ipywidgets
import torch
from IPython.display import display
from torch import Tensor, nn

from cappaper.activations import CappedReLU
from cappaper.attacks.pgd import adaptive_pgd, pgd
from cappaper.data import Dataset
from cappaper.paper.figures.portrait import portrait
from cappaper.paper.figures.style import Picture
from cappaper.zoo import PRETRAINED, about, pretrained

ATTACKS: dict[str, Callable[..., Tensor]] = {"PGD": pgd, "cap-aware PGD": adaptive_pgd}


def attacked_digit(
    test: Dataset,
    digit: int,
    *,
    network: str = "cap-0.05",
    betas: Sequence[float] | None = None,
    attack: str = "cap-aware PGD",
    eps: float = 0.1,
    steps: int = 40,
) -> Picture:
    """One attack on one digit as a picture.

    ``betas`` moves the caps of a trained network, which is not trained again; None leaves them.
    """
    model = _network(network, tuple(about(network)["beta"] if betas is None else betas))
    x, y = test.images[digit : digit + 1], test.labels[digit : digit + 1]
    adversarial = ATTACKS[attack](model, x, y, eps, steps=steps)
    with torch.no_grad():
        before, after = model(torch.cat([x, adversarial])).softmax(dim=1)
    return portrait(x[0], adversarial[0], before, after, int(y), eps)


def explore(test: Dataset, *, names: Sequence[str] = PRETRAINED, start: str = "cap-0.05") -> None:
    """Show controls for network, caps, attack, ε, steps and digit above what the attack does.

    The attack runs again whenever a control moves. A page without a kernel shows the first picture.

    Args:
        test: images that the networks know, MNIST's.
        names: networks of :func:`cappaper.pretrained` to choose from.
        start: the one to begin with.
    """
    box = controls(test, names, start)
    bundle = dict(box._repr_mimebundle_())
    still = base64.b64encode(box.children[-1].value).decode()
    said = "A digit, the digit as PGD has changed it, the change, and what the network says of both"
    bundle["text/html"] = f'<img alt="{said}" src="data:image/png;base64,{still}">'
    bundle["text/plain"] = said
    display(bundle, raw=True)


def controls(test: Dataset, names: Sequence[str], start: str) -> ipywidgets.VBox:
    """The controls, and the picture as the last of them."""
    style, layout = {"description_width": "7em"}, {"width": "26em"}
    named: dict[str, Any] = {"style": style, "layout": layout}
    network = ipywidgets.Dropdown(options=list(names), value=start, description="network", **named)
    caps = [ipywidgets.Text(description=f"β of layer {i}", **named) for i in (1, 2)]
    refusals = [ipywidgets.HTML() for _ in caps]
    attack = ipywidgets.ToggleButtons(options=list(ATTACKS), description="attack", style=style)
    eps = ipywidgets.FloatSlider(0.1, min=0, max=0.4, step=0.01, description="ε", **named)
    steps = ipywidgets.IntSlider(40, min=1, max=100, description="steps", **named)
    digit = ipywidgets.IntSlider(
        0, min=0, max=len(test.labels) - 1, description="test digit", **named
    )
    picture = ipywidgets.Image(format="png")

    def turn(_: Any = None) -> None:
        betas = [_cap(cap.value) for cap in caps]
        for beta, refusal in zip(betas, refusals, strict=True):
            refusal.value = "" if beta else "<b>a cap is a number above 0, or inf for ReLU</b>"
        moved = [beta for beta in betas if beta]
        if len(moved) == len(caps):
            asked = {"attack": attack.value, "eps": eps.value, "steps": steps.value}
            made = attacked_digit(test, digit.value, network=network.value, betas=moved, **asked)
            picture.value = made.png()

    def change(_: Any = None) -> None:
        for cap, beta in zip(caps, about(network.value)["beta"], strict=True):
            cap.value = str(beta)
        turn()

    change()
    network.observe(change, names="value")
    for control in (*caps, attack, eps, steps, digit):
        control.observe(turn, names="value")
    rows = [ipywidgets.HBox(list(pair)) for pair in zip(caps, refusals, strict=True)]
    return ipywidgets.VBox([network, *rows, attack, eps, steps, digit, picture])


def _cap(text: str) -> float | None:
    try:
        beta = float(text)
    except ValueError:
        return None
    return beta if beta > 0 else None


@lru_cache(maxsize=32)
def _network(name: str, betas: tuple[float | str, ...]) -> nn.Module:
    model = pretrained(name)
    caps = [part for part in model if isinstance(part, CappedReLU)]
    for cap, beta in zip(caps, betas, strict=True):
        cap.beta.fill_(float(beta))
    return model
