"""A Sphinx extension: a word of the glossary says what it means where the pointer rests on it."""

from __future__ import annotations

from typing import Any

from docutils import nodes


def meanings(document: Any) -> dict[str, str]:
    """What each term of a document's glossary means, by the term's id: its first sentence."""
    found: dict[str, str] = {}
    for item in document.findall(nodes.definition_list_item):
        said = next(item.findall(nodes.definition), None)
        if said is not None:
            sentence = said.astext().split("\n")[0].partition(". ")[0].rstrip(".") + "."
            found |= {i: sentence for term in item.findall(nodes.term) for i in term["ids"]}
    return found


def explain(document: Any, known: dict[str, str]) -> None:
    """Give every link to a term its meaning as a title."""
    for link in document.findall(nodes.reference):
        term = link.get("refid") or link.get("refuri", "").rpartition("#")[2]
        if term in known:
            link["reftitle"] = known[term]


def setup(app: Any) -> dict[str, bool]:
    """What Sphinx calls."""

    def learn(app: Any, document: Any) -> None:
        known = getattr(app.env, "meanings", {})
        app.env.meanings = known | meanings(document)

    app.connect("doctree-read", learn)
    app.connect("doctree-resolved", lambda app, document, page: explain(document, app.env.meanings))
    return {"parallel_read_safe": False, "parallel_write_safe": True}
