"""Formulas as MathML, made while the book is built: a browser shows them without a script and
without a network, a screen reader reads them, and one that cannot be read fails the build.
"""

import re
from html import escape

from docutils.nodes import SkipNode
from math_core import LatexError, LatexToMathML
from sphinx.util import logging

log = logging.getLogger(__name__)
CONVERT = LatexToMathML()
COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # the error messages are made for a terminal


def mathml(latex, display, where=None):
    """One formula as a <math> element that remembers its LaTeX; a warning, and the LaTeX itself,
    where it is not understood.
    """
    try:
        made = CONVERT.convert_with_local_state(latex, displaystyle=display)
    except LatexError as error:
        log.warning(
            "formula not understood: %s\n%s",
            latex,
            COLOURS.sub("", str(error)),
            location=where,
            type="math",
            subtype="latex",
        )
        return f"<code>{escape(latex)}</code>"
    return made.replace("<math", f'<math alttext="{escape(latex)}"', 1)


def visit_inline(self, node):
    self.body.append(mathml(node.astext(), False, node))
    raise SkipNode


def visit_display(self, node):
    """A formula on a line of its own, which scrolls by itself where the page is narrow; its number
    leads to the paper's equations.
    """
    self.body.append(self.starttag(node, "div", CLASS="math-line"))
    self.body.append(f'<div class="math-scroll">{mathml(node.astext(), True, node)}</div>')
    number = node.get("paper")
    if number:
        page = self.builder.get_relative_uri(self.builder.current_docname, "paper")
        self.body.append(
            f'<a class="math-number" href="{page}#eq-{number}" '
            f'aria-label="Equation {number} of the paper">({number})</a>'
        )
    self.body.append("</div>\n")
    raise SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
