"""The order of a chapter's page: what came out, its first figure, and only then how it was done.

A notebook runs in the order of its code, so its conclusions stand at its end; who reads a page
wants them first.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes

CAME_OUT = "What came out"
HOW = "How it was done"


def arrange(document: Any) -> None:
    """Move the conclusions of a chapter, and its first figure with a caption, under its title.

    What stood there gets a heading of its own. To who cannot see the figure it says the finding
    too. A document without conclusions stays as it is.
    """
    chapter: Any = next(document.findall(nodes.section), nodes.section())
    parts = [node for node in chapter.children if isinstance(node, nodes.section)]
    came_out = next((part for part in parts if part[0].astext() == CAME_OUT), None)
    if came_out is None:
        return
    figure = next((_cell(figure) for figure in chapter.findall(nodes.figure)), None)
    if figure is not None:
        for image in figure.findall(nodes.image):
            image["alt"] = f"{image.get('alt', '')} {_finding(came_out)}".strip()
        figure.parent.remove(figure)
        came_out.insert(2, figure)  # behind the heading and what the first cell says
    opening = [node for node in chapter.children[1:] if node not in parts]
    how = nodes.section("", nodes.title("", HOW), *opening, ids=[nodes.make_id(HOW)])
    rest = [part for part in parts if part is not came_out]
    chapter.children[1:] = []
    chapter += [came_out, how, *rest]


def _finding(came_out: Any) -> str:
    """The first sentences of what came out, tables aside: one, and another to a very short one."""
    paragraphs = came_out.findall(nodes.paragraph)
    said = [p.astext() for p in paragraphs if not isinstance(p.parent, nodes.entry)]
    text, found = " ".join(" ".join(said).split()), ""
    for sentence in re.findall(r".+?\.(?=\s|$)", text):  # a point within a number ends none
        if len(found) < 60:
            found += sentence
    return found.strip()


def _cell(figure: Any) -> Any:
    """The notebook's cell that a figure came out of."""
    node = figure
    while "cell" not in node.get("classes", ()):
        node = node.parent
    return node
