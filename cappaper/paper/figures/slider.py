"""A slider for β, which works on a page without a kernel, too."""

import base64
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets
from IPython.display import display

from cappaper.paper.figures.style import Picture, beta_label

# The script of the slider on a page without a kernel; no ids, as a page may have several sliders.
_SCRIPT = (
    "const box = this.closest('.beta-explorer');"
    "box.querySelectorAll('img').forEach((image, i) => { image.hidden = i != this.value; });"
    "box.querySelector('output').value ="
    " 'β = ' + box.querySelectorAll('img')[this.value].dataset.beta;"
)


def beta_explorer(
    draw: Callable[[float], Picture], betas: Sequence[float], *, start: float | None = None
) -> None:
    """Show ``draw(β)`` under a slider that turns β.

    In a notebook with a kernel the slider is an ipywidget, and ``draw`` is called as it moves. The
    same output has a picture for each β and a script for pages without a kernel.

    Args:
        draw: makes the figure for one β.
        betas: the max values on the slider, in its order.
        start: the first one; the middle by default.

    Raises:
        ValueError: there is no β, or ``start`` is none of them.
    """
    if not betas:
        raise ValueError("an explorer needs at least one max value β")
    start = betas[len(betas) // 2] if start is None else start
    if start not in betas:
        raise ValueError(f"β = {start} is not on the slider: use one of {list(betas)}")
    options = [(beta_label(beta), beta) for beta in betas]
    frames = {beta_label(beta): draw(beta).png() for beta in betas}
    slider = ipywidgets.SelectionSlider(
        options=options,
        value=start,
        description="max value β",
        style={"description_width": "initial"},
        layout={"width": "28em"},
    )
    picture = ipywidgets.Image(value=frames[beta_label(start)], format="png")

    def redraw(change: dict[str, Any]) -> None:
        picture.value = draw(change["new"]).png()

    slider.observe(redraw, names="value")
    static = _static_slider(frames, beta_label(start))
    show_with_static(
        ipywidgets.VBox([slider, picture]), static, f"β explorer over {', '.join(frames)}"
    )


def _static_slider(frames: dict[str, bytes], start: str) -> str:
    images = "".join(
        f'<img alt="the figure at β = {beta}" data-beta="{beta}"'
        f'{"" if beta == start else " hidden"} src="{data_url(frame)}">'
        for beta, frame in frames.items()
    )
    return (
        '<div class="beta-explorer"><label>max value β '
        f'<input type="range" min="0" max="{len(frames) - 1}" value="{list(frames).index(start)}"'
        f' oninput="{_SCRIPT}"></label> <output>β = {start}</output><br>{images}</div>'
    )


def show_with_static(box: ipywidgets.VBox, static: str, text: str) -> None:
    """Show controls; a page without a kernel shows ``static`` HTML, a terminal ``text``."""
    bundle = dict(box._repr_mimebundle_())
    display(bundle | {"text/html": static, "text/plain": text}, raw=True)


def data_url(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
