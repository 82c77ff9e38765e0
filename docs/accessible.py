"""What the theme leaves out for readers with a screen reader, put into every page that has been
written: axe (make book-check) asks for it.
"""

from pathlib import Path

MENDED = (
    ('<p class="caption" role="heading">', '<p class="caption" role="heading" aria-level="2">'),
    (
        '<aside class="sidebar-drawer">',
        '<aside class="sidebar-drawer" aria-label="Contents of the book">',
    ),
    ('<aside class="toc-drawer', '<aside aria-label="On this page" class="toc-drawer'),
    ('<th class="head"><p></p></th>', "<td></td>"),
)  # the empty corner of a table is no heading


def mend(app, error):
    if error or app.builder.name != "html":
        return
    for path in Path(app.outdir).rglob("*.html"):
        text = mended = path.read_text(encoding="utf-8")
        for old, new in MENDED:
            mended = mended.replace(old, new)
        if mended != text:
            path.write_text(mended, encoding="utf-8")


def setup(app):
    app.connect("build-finished", mend)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
