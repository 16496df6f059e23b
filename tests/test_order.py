"""A chapter's page begins with what came out, and loses nothing on the way there."""

from docutils import nodes

from cappaper.paper import hints
from cappaper.paper.order import CAME_OUT, HOW, arrange


def section(title, *content):
    return nodes.section("", nodes.title("", title), *content)


def cell(*content):
    return nodes.container("", *content, classes=["cell"])


def page(*parts):
    document = nodes.document(None, None)
    document += section("Figure 9", nodes.paragraph("", "why"), *parts)
    return document


def headings(document):
    return [part[0].astext() for part in document[0].findall(nodes.section)]


def test_what_came_out_leads_with_the_first_figure_behind_its_first_words():
    first, second = nodes.figure("", nodes.caption("", "one")), nodes.figure()
    document = page(
        cell(nodes.figure("", *first.children)),
        section("More", cell(second)),
        section(CAME_OUT, cell(nodes.paragraph("", "said")), nodes.paragraph("", "meant")),
        section("What this decides"),
    )
    before = document.astext()
    arrange(document)
    assert headings(document)[1:] == [CAME_OUT, HOW, "More", "What this decides"]
    came_out, how, more, _ = document[0].children[1:]
    assert [node.astext() for node in came_out.children[1:]] == ["said", "one", "meant"]
    assert how.astext().endswith("why") and more.next_node(nodes.figure)
    assert sorted(document.astext().split()) == sorted([*before.split(), *HOW.split()])


def test_the_figure_says_the_finding_to_who_cannot_see_it():
    image = nodes.image("", alt="A line over β.")
    words = "With β = 0.05 it\nis 0.9. With ReLU it is 0.1, and no more, under every attack. More."
    said = nodes.paragraph("", words)
    document = page(cell(nodes.figure("", image)), section(CAME_OUT, cell(said)))
    arrange(document)
    assert image["alt"] == f"A line over β. {words[:-6]}".replace("\n", " ")


def test_a_page_without_conclusions_stays_as_it_is():
    for document in (page(section("More")), nodes.document(None, None)):
        before = document.pformat()
        arrange(document)
        assert document.pformat() == before


def test_a_link_to_a_term_says_what_it_means():
    term = nodes.term("", "ε", ids=["term-eps"])
    said = nodes.definition("", nodes.paragraph("", "The radius. It is a number."))
    item = nodes.definition_list_item("", term, said)
    document = page(nodes.definition_list("", item), nodes.reference("", "ε", refid="term-eps"))
    document += nodes.reference("", "ε", refuri="background.html#term-eps")
    document += nodes.reference("", "other", refuri="other.html#elsewhere")
    known = hints.meanings(document)
    assert known == {"term-eps": "The radius."}
    hints.explain(document, known)
    titles = [link.get("reftitle") for link in document.findall(nodes.reference)]
    assert titles == ["The radius.", "The radius.", None]
