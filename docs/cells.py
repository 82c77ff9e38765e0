"""Notebook cells and the API reference lead to each other: the cell that defines a function has an
address, which [source] in the reference leads to, and under it stands a link back.
"""

import reference
from docutils import nodes
from sphinx import addnodes


def anchor(name):
    return f"code-{name}"


def cell_address(module, name):
    """From a page of the reference to the cell that defines `name` of that module; None if it is
    not defined in a cell of its own.
    """
    module = module.removeprefix("biolearn.")
    notebook = dict(reference.modules()).get(module)
    if notebook and name in reference.definitions(module):
        return f"../{notebook}.html#{anchor(name)}"
    return None


def connect(app, tree):
    "Give the cells of a notebook that define public names their addresses and their links."
    for module, notebook in reference.modules():
        if notebook == app.env.docname:
            connect_module(app, tree, module)


def connect_module(app, tree, module):
    "The same for the names of one module."
    defined = reference.definitions(module)
    source = reference.source(module)
    done = set()
    for cell in list(
        tree.findall(lambda n: isinstance(n, nodes.container) and "cell" in n["classes"])
    ):
        block = cell.next_node(nodes.literal_block)
        if block is None or block.astext().strip() not in source:
            continue
        names = [n for n in reference.defined_in(block.astext()) if n in defined and n not in done]
        done |= set(names)
        cell["ids"] += [anchor(n) for n in names]
        public = [n for n in names if n in reference.public(module)]
        if public:
            cell.parent.insert(cell.parent.index(cell) + 1, back(app, module, public))


def back(app, module, names):
    "A line with links to the reference."
    line = nodes.paragraph("", "", nodes.Text("In the reference: "), classes=["in-reference"])
    for n, name in enumerate(names):
        target = addnodes.pending_xref(
            "",
            nodes.literal("", name),
            refdomain="py",
            reftype="obj",
            reftarget=f"biolearn.{module}.{name}",
            refdoc=app.env.docname,
            refwarn=True,
        )
        line += ([nodes.Text(", ")] if n else []) + [target]
    return line


def setup(app):
    app.connect("doctree-read", connect)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
