"""Looks over the built book without a browser: `python docs/check_pages.py FOLDER [--external]`.

Every link inside the book leads to a page and an anchor that exist; every picture, script and style
sheet is in the book, so that it needs no other server; every picture has an alternative text;
headings go down one level at a time, from one title; no id stands twice on a page; no formula was
left as LaTeX. `--external` follows the links that leave the book too, which needs a network. Exit
code 1 if anything is wrong.
"""

import re
import sys
import urllib.error
import urllib.request
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

LATEX = re.compile(r"\$\$|\\(?:frac|begin|left|mathbb|text|tilde|partial)\b")
RESOURCES = {"img": "src", "script": "src", "source": "src", "iframe": "src"}


class Page(HTMLParser):
    "What a page has and what it asks for."

    def __init__(self, html):
        super().__init__()
        self.ids, self.links, self.resources = [], [], []
        self.headings, self.wrong, self.open = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        has = dict(attributes)
        if "id" in has:
            self.ids.append(has["id"])
        if tag == "a" and has.get("href"):
            self.links.append(has["href"])
        if tag == "link" and has.get("rel") in ("stylesheet", "icon", "shortcut icon"):
            self.resources.append(has["href"])
        if has.get(RESOURCES.get(tag)):
            self.resources.append(has[RESOURCES[tag]])
        if tag == "img" and not (has.get("alt") or "").strip():
            self.wrong.append(f"picture without an alternative text: {has.get('src')}")
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag in ("pre", "code", "script", "style", "math"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_data(self, data):
        if not self.open and LATEX.search(data):
            self.wrong.append(f"a formula was left as LaTeX: {data.strip()[:80]}")

    def faults(self):
        """What is wrong with this page by itself.

        (The page of the search has no heading before it has run.)
        """
        jumps = [
            f"heading of level {b} after one of level {a}"
            for a, b in zip(self.headings, self.headings[1:])
            if b > a + 1
        ]
        titles, twice = [], sorted({i for i in self.ids if self.ids.count(i) > 1})
        if self.headings and (self.headings.count(1) != 1 or self.headings[0] != 1):
            levels = self.headings[:3]
            titles.append(f"headings of levels {levels}...: one title of level 1 must come first")
        return self.wrong + titles + jumps + [f"the id {i!r} stands twice" for i in twice]


def check(folder):
    """All faults of the book in `folder` as sentences, the links that leave it as {address: a
    page}, and how many links stay inside.
    """
    pages = {
        p.relative_to(folder).as_posix(): Page(p.read_text(encoding="utf-8"))
        for p in sorted(folder.rglob("*.html"))
        if p.relative_to(folder).parts[0] != "tab"  # JupyterLite, which a button opens
    }
    faults, outside, inside = [], {}, 0
    for name, page in pages.items():
        faults += [f"{name}: {fault}" for fault in page.faults()]
        for link in page.resources:
            if urlsplit(link).scheme or link.startswith("//"):
                faults.append(f"{name}: needs another server: {link}")
            elif not (folder / target(name, link)[0]).is_file():
                faults.append(f"{name}: asks for {link}, which is not there")
        for link in page.links:
            if urlsplit(link).scheme in ("http", "https"):
                outside.setdefault(link, name)
                continue
            path, anchor = target(name, link)
            inside += 1
            if not (folder / path).is_file():
                faults.append(f"{name}: links to {link}, which is not there")
            elif anchor and path in pages and anchor not in pages[path].ids:
                faults.append(f"{name}: links to {link}, and there is no such place on that page")
    return pages, faults, outside, inside


def target(page, link):
    "(file, anchor) that a link on a page means."
    path, anchor = urldefrag(urljoin("http://book/" + page, link).removeprefix("http://book/"))
    path = urlsplit(path).path
    return unquote(path if path and not path.endswith("/") else path + "index.html"), unquote(
        anchor
    )


def answers(link):
    "None if the address answers; otherwise why not."
    try:
        urllib.request.urlopen(
            urllib.request.Request(link, headers={"User-Agent": "biolearn-book"}), timeout=20
        ).close()
    except (urllib.error.URLError, OSError) as error:
        return str(error)


def main(folder, external):
    pages, faults, outside, inside = check(Path(folder))
    if not pages:
        faults.append(f"{folder}: no page is there; run `make book`")
    if external:
        faults += [
            f"{page}: {link}: {why}" for link, page in outside.items() if (why := answers(link))
        ]
    for fault in faults:
        print(f"book: {fault}", file=sys.stderr)
    asked = "asked" if external else "not asked"
    print(
        f"The book has {len(pages)} pages and {inside} links inside it; "
        f"{len(outside)} addresses outside it were {asked}. {len(faults)} faults."
    )
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], "--external" in sys.argv))
