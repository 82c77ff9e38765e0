"How Sphinx makes the book out of the sources that stage.py has laid out; `make book` runs both."

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from stage import settings

about = settings()
project, author, copyright, release = (
    about["title"],
    about["author"],
    about["copyright"],
    about["version"],
)
language = "en"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.linkcode",
    "mathml",
    "paperlinks",
    "cells",
    "reference",
    "accessible",
    "play",
    "tab",
]
html_math_renderer = "mathml"
nitpicky = True
# Type hints may name what has no page here: other packages, private types, and pieces of a nested
# type that Sphinx cuts at its comma.
nitpick_ignore_regex = [
    ("py:.*", r"(numpy|types|collections|pathlib|matplotlib|argparse)\..*"),
    ("py:class", r"biolearn\.(\w+\.)*_\w+"),
    ("py:class", r"Figure|(Posix|Windows)Path|(tuple|dict|list)\[.*"),
]

nb_execution_mode = "off"  # the notebooks keep their outputs; make test runs them
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "html_image"]
myst_heading_anchors = 3
suppress_warnings = ["config.cache"]

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
toc_object_entries_show_parents = "hide"

html_theme = "furo"
pygments_style, pygments_dark_style = "a11y-high-contrast-light", "a11y-high-contrast-dark"
html_title = project
html_static_path = ["_static"]
templates_path = ["_templates"]
html_favicon = "_static/favicon.svg"
html_css_files = ["book.css"]
html_js_files = ["book.js", "tab.js"]
html_show_sourcelink = html_copy_source = False
html_permalinks_icon = "#"
html_last_updated_fmt = None
html_theme_options = {
    "top_of_page_buttons": [],
    "footer_icons": [
        {
            "name": "Repository",
            "url": about["git_url"],
            "html": "repository",
            "class": "footer-word",
        }
    ],
    "light_css_variables": {"color-brand-primary": "#0b5c8a", "color-brand-content": "#0b5c8a"},
    "dark_css_variables": {"color-brand-primary": "#7cc4f0", "color-brand-content": "#7cc4f0"},
}


def linkcode_resolve(domain, info):
    "[source] leads to the notebook cell that defines a name."
    from cells import cell_address

    return cell_address(info["module"], info["fullname"].split(".")[0])
