"""A slider for β, which works on a page without a kernel, too."""

import base64
from collections.abc import Callable, Sequence

import ipywidgets
from IPython.display import display

from cappaper.paper.figures.parts import Picture, beta_label

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
    frames = {beta_label(beta): draw(beta).png() for beta in betas}
    first = list(betas).index(start)
    images = "".join(
        still(png, f"the figure at β = {beta}", f'data-beta="{beta}"{" hidden" * (i != first)}')
        for i, (beta, png) in enumerate(frames.items())
    )
    static = (
        '<div class="beta-explorer"><label>max value β '
        f'<input type="range" min="0" max="{len(frames) - 1}" value="{first}"'
        f' oninput="{_SCRIPT}"></label> <output>β = {beta_label(start)}</output><br>{images}</div>'
    )
    slider = ipywidgets.SelectionSlider(
        options=list(zip(frames, betas, strict=True)), value=start, description="max value β"
    )
    slider.style.description_width, slider.layout.width = "initial", "28em"
    box = above_picture([slider], [slider], lambda: draw(slider.value).png())
    show(box, static, f"β explorer over {', '.join(frames)}")


def above_picture(
    rows: Sequence[ipywidgets.Widget],
    controls: Sequence[ipywidgets.Widget],
    draw: Callable[[], bytes | None],
) -> ipywidgets.VBox:
    """Rows with controls above a PNG, which is drawn again when a control moves, unless None."""
    picture = ipywidgets.Image(format="png", value=draw())

    def redraw(_: object) -> None:
        if png := draw():
            picture.value = png

    for control in controls:
        control.observe(redraw, names="value")
    return ipywidgets.VBox([*rows, picture])


def show(box: ipywidgets.VBox, static: str, text: str) -> None:
    """Show controls; a page without a kernel shows ``static`` HTML, a terminal ``text``."""
    bundle = dict(box._repr_mimebundle_())
    display(bundle | {"text/html": static, "text/plain": text}, raw=True)


def still(png: bytes, alt: str, attributes: str = "") -> str:
    """A picture as HTML that needs no file."""
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return f'<img alt="{alt}" {attributes} src="{source}">'
