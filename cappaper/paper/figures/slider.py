"""A slider for β: alive where a kernel runs, and a script of its own on a static page."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets
from IPython.display import display

from cappaper.paper.figures.style import Picture, beta_label

# No ids: several explorers may stand on one page.
_TURN = (
    "const box = this.closest('.beta-explorer');"
    "box.querySelectorAll('img').forEach((image, i) => { image.hidden = i != this.value; });"
    "box.querySelector('output').value ="
    " 'β = ' + box.querySelectorAll('img')[this.value].dataset.beta;"
)


def beta_explorer(
    draw: Callable[[float], Picture], betas: Sequence[float], *, start: float | None = None
) -> None:
    """Show ``draw(β)`` under a slider that turns β.

    In a notebook with a kernel the slider is an ipywidget and ``draw`` is called as it moves. The
    same output carries one frame per β and a few lines of script, for pages without a kernel.

    Args:
        draw: makes the figure for one β.
        betas: the max values the slider offers, in its order.
        start: the one it starts at; the middle one by default.

    Raises:
        ValueError: there is no β, or ``start`` is none of them.
    """
    if not betas:
        raise ValueError("an explorer needs at least one max value β")
    start = betas[len(betas) // 2] if start is None else start
    if start not in betas:
        raise ValueError(f"β = {start} is not on the slider: use one of {list(betas)}")
    frames = {beta: draw(beta).png() for beta in betas}
    slider = ipywidgets.SelectionSlider(
        options=[(beta_label(b), b) for b in betas],
        value=start,
        description="max value β",
        style={"description_width": "initial"},
        layout={"width": "28em"},
    )
    picture = ipywidgets.Image(value=frames[start], format="png")

    def turn(change: dict[str, Any]) -> None:
        picture.value = draw(change["new"]).png()

    slider.observe(turn, names="value")
    bundle = dict(ipywidgets.VBox([slider, picture])._repr_mimebundle_())
    bundle["text/html"] = _static(frames, start)
    bundle["text/plain"] = f"β explorer over {', '.join(beta_label(b) for b in betas)}"
    display(bundle, raw=True)


def _static(frames: dict[float, bytes], start: float) -> str:
    images = "".join(
        f'<img alt="the figure at β = {beta_label(beta)}" data-beta="{beta_label(beta)}"'
        f"{'' if beta == start else ' hidden'}"
        f' src="data:image/png;base64,{base64.b64encode(frame).decode()}">'
        for beta, frame in frames.items()
    )
    position = list(frames).index(start)
    return (
        '<div class="beta-explorer"><label>max value β '
        f'<input type="range" min="0" max="{len(frames) - 1}" value="{position}"'
        f' oninput="{_TURN}"></label> <output>β = {beta_label(start)}</output><br>{images}</div>'
    )
