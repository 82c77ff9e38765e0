"""What the book calls the items of the paper, and what is wrong with a book that names one that
does not exist or never names one that does.
"""

import re

KINDS = {
    "eq": "Eq.",
    "algorithm": "Algorithm",
    "section": "Section",
    "figure": "Figure",
    "table": "Table",
}
PAPER = {"eq": 13, "algorithm": 2, "figure": 5}  # so many of each has the paper
NUMBER = r"\d+(?:\.\d+)?"
NAMED = re.compile(
    r"\b(?:(?P<many>Eqs\.|Equations|Algorithms|Sections|Figures|Tables)"
    r"|(?P<one>Eq\.|Equation|Algorithm|Section|Figure|Table))\s+"
    rf"(?P<numbers>{NUMBER}"
    rf"(?(many)(?:(?:\s*,\s*|\s*[-–]\s*|\s+(?:and|or|to)\s+|,\s+and\s+){NUMBER})*))"
)


def mentions(text):
    """The items named in a text: (start, end, [keys]) for each piece that becomes a link; the inner
    numbers of a range go with its last piece.
    """
    found = []
    for match in NAMED.finditer(text):
        kind = (
            (match["many"] or match["one"])
            .lower()
            .rstrip(".")
            .rstrip("s")
            .replace("equation", "eq")
        )
        last, end = None, match.start()
        for number in re.finditer(NUMBER, match["numbers"]):
            start = match.start("numbers") + number.start()
            ranged = last and text[end:start].strip() in ("-", "–", "to")
            inner = range(int(last) + 1, int(number[0])) if ranged else ()
            begin, end, last = (
                match.start() if last is None else start,
                match.start("numbers") + number.end(),
                number[0],
            )
            found.append((begin, end, [f"{kind}-{n}" for n in (*inner, last)]))
    return found


def spoken(key):
    "eq-8 as people say it: Eq. 8."
    kind, number = key.split("-", 1)
    return f"{KINDS[kind]} {number}"


def complaints(names, told, pages):
    """What is wrong with the book as an account of the paper: (document or None, sentence) for each
    item named that does not exist, and each equation, algorithm and figure that nothing names or
    docs/paper.md does not tell.

    names : {key: name} that docs/paper.md tells; told : {document: [(key, kind, anchor,
        title)]}; pages : {key: document} of figures and tables
    """
    wrong = []
    for document, entries in sorted(told.items()):
        for key, _, _, title in entries:
            if key in names or key in pages or key.startswith("table"):
                continue  # the paper has no tables: these are others'
            wrong.append(
                (
                    document,
                    f"{title!r} names {spoken(key)}, which the paper (docs/paper.md) does not have",
                )
            )
    mentioned = {key for entries in told.values() for key, *_ in entries}
    for kind, count in PAPER.items():
        for key in (f"{kind}-{n}" for n in range(1, count + 1)):
            if key not in names:
                wrong.append((None, f"docs/paper.md does not tell {spoken(key)}"))
            elif key not in mentioned:
                wrong.append(
                    (None, f"{spoken(key)} of the paper is named by no docstring and no notebook")
                )
    return wrong
