"""A slider for β that needs no kernel."""

import base64
from collections.abc import Callable, Sequence

from IPython.display import display

from cappaper.paper.figures.parts import Picture, beta_label

# No ids: a page may have several sliders.
_SCRIPT = (
    "const box = this.closest('.beta-explorer');"
    "box.querySelectorAll('img').forEach((image, i) => { image.hidden = i != this.value; });"
    "box.querySelector('output').value ="
    " 'β = ' + box.querySelectorAll('img')[this.value].dataset.beta;"
)


def beta_explorer(
    draw: Callable[[float], Picture], betas: Sequence[float], *, start: float | None = None
) -> None:
    """Show ``draw(β)`` under a slider that turns β, in a notebook as on a page of the book.

    Args:
        draw: makes the figure for one β.
        betas: the max values on the slider, in its order.
        start: the first one; the middle by default.

    Raises:
        ValueError: there is no β, or ``start`` is none of them.
    """
    start = betas[len(betas) // 2] if betas and start is None else start
    if start is None or start not in betas:
        raise ValueError(f"β = {start} is not on the slider: use one of {list(betas)}")
    labels = [beta_label(beta) for beta in betas]
    images = "".join(
        still(draw(beta).png(), f"the figure at β = {label}", f'data-beta="{label}"{hidden}')
        for beta, label in zip(betas, labels, strict=True)
        for hidden in (" hidden" * (beta != start),)
    )
    first = list(betas).index(start)
    show(
        '<div class="beta-explorer"><label>max value β '
        f'<input type="range" min="0" max="{len(betas) - 1}" value="{first}"'
        # JupyterLab would take the arrow keys for its own.
        f' oninput="{_SCRIPT}" onkeydown="event.stopPropagation()"></label>'
        f" <output>β = {labels[first]}</output><br>{images}</div>",
        f"β explorer over {', '.join(labels)}",
    )


def show(html: str, text: str, **more: object) -> None:
    """Show HTML, in a terminal ``text``; ``more`` are other forms of the output."""
    display(more | {"text/html": html, "text/plain": text}, raw=True)


def still(png: bytes, alt: str, attributes: str = "") -> str:
    """A picture as HTML that needs no file."""
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return f'<img alt="{alt}" {attributes} src="{source}">'
