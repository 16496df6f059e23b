"""A Sphinx extension: formulas as MathML, which every browser draws without asking a server."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from latex2mathml.converter import convert


def formula(latex: str, display: str = "inline") -> str:
    """MathML for a formula in LaTeX; ``display`` is ``"inline"`` or ``"block"``.

    >>> formula("x")[-30:]
    '<mrow><mi>x</mi></mrow></math>'
    """
    return convert(latex, display=display)


def setup(app: Any) -> dict[str, bool]:
    """What Sphinx calls."""

    def inline(translator: Any, node: Any) -> None:
        translator.body.append(formula(node.astext()))
        raise nodes.SkipNode

    def block(translator: Any, node: Any) -> None:
        translator.body.append(f'<div class="book-formula">{formula(node.astext(), "block")}</div>')
        raise nodes.SkipNode

    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
