"""Every "Eq. 8", "Algorithm 2", "Section 5.2" and "Figure 4" in the book leads to its place, and
the page on the paper leads back:
under each item it lists the functions whose docstrings name it and the sections of the notebooks
that discuss it.

What may be named is what docs/paper.md defines by `{item} Eq. 8` and the pages of the figures. A
name outside it, or an equation or algorithm that neither code nor notebook mentions, is a warning,
and a warning fails the build.
"""

import re
from collections import defaultdict

from docutils import nodes
from mentions import complaints, mentions
from sphinx import addnodes
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

log = logging.getLogger(__name__)
PAGE = "paper"
CONTENTS = {
    "index",
    "figures/index",
}  # pages that lead to others: what they name is discussed elsewhere


class Item(SphinxDirective):
    """`{item} Eq. 8`: here the page on the paper speaks of Eq. 8; becomes the lists of its code and
    of the sections that discuss it.
    """

    required_arguments, final_argument_whitespace = 1, True

    def run(self):
        (key,) = mentions(self.arguments[0])[0][2]
        defined(self.env)[key] = self.arguments[0]
        return [nodes.container("", key=key, classes=["paper-item"])]


def defined(env):
    "The items that the page on the paper defines: {key: name}."
    return env.__dict__.setdefault("paper_defined", {})


def told(env):
    "Where each item is named: {document: [(key, 'code' or 'text', anchor, title)]}."
    return env.__dict__.setdefault("paper_told", defaultdict(list))


def purge(app, env, document):
    told(env).pop(document, None)
    if document == PAGE:
        defined(env).clear()


def merge(app, env, documents, other):
    defined(env).update(defined(other))
    for document in documents:
        told(env)[document] = told(other)[document]


def place(node):
    """The nearest thing around `node` that a link can lead to: ('code', id, full name) of a
    function, or ('text', id, title) of a section.
    """
    while node is not None:
        if isinstance(node, addnodes.desc):
            signature = node.next_node(addnodes.desc_signature)
            if signature["ids"]:
                return "code", signature["ids"][0], signature["fullname"]
        if isinstance(node, nodes.section):
            return "text", node["ids"][0], node.next_node(nodes.title).astext()
        node = node.parent
    return None


def skipped(node):
    "Is this text code, a formula or a diagram, or is it a link or a heading already?"
    unlinked = (
        nodes.literal,
        nodes.literal_block,
        nodes.reference,
        nodes.title,
        nodes.raw,
        nodes.math,
        nodes.math_block,
        addnodes.pending_xref,
        addnodes.desc_signature,
        addnodes.toctree,
    )
    while node is not None:
        if isinstance(node, unlinked):
            return node
        node = node.parent
    return None


def number_formulas(app, tree, document):
    r"A formula with \tag{8} is Eq. 8: the tag becomes a link at the right."
    for node in tree.findall(nodes.math_block):
        tag = re.search(r"\\tag\{(\d+)\}", node.astext())
        if not tag:
            continue
        formula = node.astext().replace(tag[0], "").strip()
        node.clear()
        node += nodes.Text(formula)
        node["paper"] = tag[1]
        note(app.env, document, f"eq-{tag[1]}", node)


def note(env, document, key, node):
    "Remember that `node` names the item."
    where = place(node)
    if where and document != PAGE:
        told(env)[document].append((key, *where))


def collect(app, tree):
    "Remember what a page names, and mark what is to become a link."
    env, document = app.env, app.env.docname
    number_formulas(app, tree, document)
    for text in list(tree.findall(nodes.Text)):
        within = skipped(text.parent)
        if within is not None and not isinstance(within, (nodes.title, nodes.reference)):
            continue
        found = mentions(text.astext())
        for _, _, keys in found:
            for key in keys:
                note(env, document, key, text)
        if found and within is None:
            split(text, found)


def split(text, found):
    """The text with each of its mentions in a node of its own, to be resolved when all pages are
    read.
    """
    whole, parts, at = text.astext(), [], 0
    for start, end, keys in found:
        parts += [
            nodes.Text(whole[at:start]),
            nodes.inline("", whole[start:end], key=keys[-1], classes=["paper-mention"]),
        ]
        at = end
    text.parent.replace(text, [part for part in (*parts, nodes.Text(whole[at:])) if part.astext()])


def figure_pages(env):
    """{key: document} of the pages of figures and tables, by their names: fig4_inference is
    Figure 4.
    """
    pages = {}
    for document in sorted(env.found_docs):
        match = re.fullmatch(r"figures/(fig|table)(\d+)_\w+", document)
        if match:
            pages[f"{'figure' if match[1] == 'fig' else 'table'}-{match[2]}"] = document
    return pages


def target(app, key):
    "(document, anchor) that a mention leads to; None if there is no such item."
    pages = figure_pages(app.env)
    if key in pages:
        return pages[key], ""
    return (PAGE, key.replace(".", "-")) if key in defined(app.env) else None


def link(app, document, to, anchor, inner, **attributes):
    uri = app.builder.get_relative_uri(document, to) + (f"#{anchor}" if anchor else "")
    return nodes.reference("", "", inner, internal=True, refuri=uri, **attributes)


def resolve(app, tree, document):
    "Turn mentions into links, and fill in the lists of the page on the paper."
    for node in list(
        tree.findall(lambda n: isinstance(n, nodes.inline) and "paper-mention" in n["classes"])
    ):
        to = target(app, node["key"])
        inner = nodes.inline(
            "", node.astext().replace(" ", "\u00a0")
        )  # "Eq." and its number stay on one line
        node.replace_self(
            inner
            if to is None or to[0] == document and to[0] != PAGE
            else link(app, document, *to, inner, classes=["paper-link"])
        )
    for node in list(
        tree.findall(lambda n: isinstance(n, nodes.container) and "paper-item" in n["classes"])
    ):
        node.extend(lists(app, document, node["key"]))


def lists(app, document, key):
    """For an item of the paper: its page, its code, and, chapter by chapter, the sections that
    discuss it.
    """
    code, text = places(app.env, key)
    figure, title = figure_pages(app.env).get(key), lambda to: app.env.titles[to].astext()
    rows = (
        [("Page", [link(app, document, figure, "", nodes.inline("", title(figure)))])]
        if figure
        else []
    )
    if code:
        rows.append(
            (
                "Code",
                [
                    link(app, document, to, anchor, nodes.literal("", name))
                    for to, anchor, name in code
                ],
            )
        )
    for to, sections in text.items():
        if to != figure:
            rows.append(
                (
                    numbered(to, title(to)),
                    [
                        link(
                            app,
                            document,
                            to,
                            anchor,
                            nodes.inline("", name if name != title(to) else "opening"),
                        )
                        for anchor, name in sections
                    ],
                )
            )
    return [
        nodes.definition_list(
            "", *[definition(term, links) for term, links in rows], classes=["paper-places"]
        )
    ]


def numbered(document, title):
    "The title of a chapter with its number."
    number = re.match(r"(\d+)_", document)
    return f"{number[1]} {title}" if number else title


def definition(term, links):
    body = nodes.paragraph()
    for n, one in enumerate(links):
        body += ([nodes.Text(" · ")] if n else []) + [one]
    return nodes.definition_list_item("", nodes.term("", term), nodes.definition("", body))


def places(env, key):
    """Where an item is named: code as [(document, anchor, name)], and {document: [(anchor,
    title)]}, in reading order without repeats.
    """
    code, text = [], {}
    for document in sorted(told(env).keys() - CONTENTS):
        for named, kind, anchor, title in told(env)[document]:
            if named != key:
                continue
            seen = code if kind == "code" else text.setdefault(document, [])
            entry = (document, anchor, title) if kind == "code" else (anchor, title)
            if entry not in seen:
                seen.append(entry)
    return code, text


def check(app, env):
    for document, sentence in complaints(defined(env), told(env), figure_pages(env)):
        log.warning("%s", sentence, location=document or PAGE, type="paper")


def reread(app, env):
    """The page on the paper lists what the others say, so it is written again with any of them; so
    are they, since its items are their targets.
    """
    return [PAGE]


def setup(app):
    app.add_directive("item", Item)
    for event, act in (
        ("env-purge-doc", purge),
        ("env-merge-info", merge),
        ("doctree-read", collect),
        ("env-updated", reread),
        ("env-check-consistency", check),
        ("doctree-resolved", resolve),
    ):
        app.connect(event, act)
    return {
        "version": "1",
        "env_version": 1,
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
