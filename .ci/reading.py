"""What a reader of the book has to read, page by page: `python .ci/reading.py` prints words, lines of
code and minutes of every page; with --write it puts the minutes into contents.ipynb.

A reader meets the pages in the order that docs/stage.py gives them, and on each the cells that are
not hidden. Words are those of the text, lines those of the code that are not empty. structure.py
prints the summary: the way to the first training and to the first sample, the length of exported
cells, cells without an output, and the words that notation.ipynb has replaced. The standard library
is enough.
"""

import ast
import io
import json
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

TRAINS = {"train", "fit"}  # functions that train a network: the library's, and that of page zero
SAMPLES = {"generate", "sample_directed"}
HIDDEN = re.compile(r"#\|\s*(hide|default_exp)\b")
LONGEST = 25  # lines of code in an exported cell
WORDS_A_MINUTE, LINES_A_MINUTE = 200, 20  # of a reader who follows the code without typing it
NO_CODE = {  # tokens that are no code
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
DEFINITIONS = (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
MAGIC = re.compile(r"^(\s*)(%%?|!)\w.*", re.M)


@dataclass
class Cell:
    """A cell that a reader sees.

    Parameters
    ----------
    place : the page, and the number of the cell in it.
    text : what is written in it.
    is_code : or Markdown.
    exported : does it define what the package has?
    has_output : does something stand under it?
    """

    place: str
    text: str
    is_code: bool
    exported: bool
    has_output: bool


def order(root: Path) -> dict[str, list[Path]]:
    "{part of the book: its pages}, in the order of reading; empty where there is no book."
    stage = root / "docs" / "stage.py"
    if not stage.exists():
        return {}
    for node in ast.parse(stage.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PARTS":
            parts = ast.literal_eval(node.value)
            break
    else:
        raise ValueError(f"{stage} has no PARTS: this is where the order of reading stands.")
    pages = {p.stem.split("_")[0]: p for p in sorted((root / "nbs").glob("*.ipynb"))}
    return {part: [pages[name] for name in names.split()] for part, names in parts.items()}


def visible_cells(path: Path) -> Iterator[Cell]:
    "The cells of the page at `path` that a reader sees."
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        text = "".join(cell["source"])
        is_code = cell["cell_type"] == "code"
        if not (is_code and HIDDEN.match(text)):
            exported = is_code and bool(re.match(r"#\|\s*export", text))
            output = bool(cell.get("outputs"))
            yield Cell(f"{path.name}, cell {number}", text, is_code, exported, output)


def running(cell: Cell) -> list[ast.stmt]:
    """The statements of a code cell that do more than define and import; none of an exported cell.
    What only IPython understands is left out.
    """
    if not cell.is_code or cell.exported:
        return []
    body = ast.parse(MAGIC.sub(r"\1pass", cell.text)).body
    return [statement for statement in body if not isinstance(statement, DEFINITIONS)]


def code_lines(text: str) -> int:
    "How many lines of `text` hold code: neither docstrings, nor imports, nor comments."
    text = MAGIC.sub(r"\1pass", text)
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        unread = [node] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node):
            unread = node.body[:1]
        for part in unread:
            lines.difference_update(range(part.lineno, (part.end_lineno or part.lineno) + 1))
    return len(lines)


def calls(cell: Cell, names: set[str]) -> bool:
    "Does a cell, when it runs, call one of the functions `names`, by whatever import?"
    called = [n.func for top in running(cell) for n in ast.walk(top) if isinstance(n, ast.Call)]
    return any(
        isinstance(f, ast.Name)
        and f.id in names
        or isinstance(f, ast.Attribute)
        and f.attr in names
        and ast.unparse(f.value) == "bl"
        for f in called
    )


def length(cells: list[Cell]) -> tuple[int, int]:
    "How many words of text, and how many lines of code, `cells` have."
    words = sum(len(cell.text.split()) for cell in cells if not cell.is_code)
    lines = sum(
        bool(line.strip()) and not line.startswith("#|")
        for cell in cells
        if cell.is_code
        for line in cell.text.splitlines()
    )
    return words, lines


def minutes(cells: list[Cell]) -> int:
    "How long one reads `cells`, at WORDS_A_MINUTE and LINES_A_MINUTE; at least one minute."
    words, lines = length(cells)
    return max(1, round(words / WORDS_A_MINUTE + lines / LINES_A_MINUTE))


def prose(text: str) -> list[str]:
    "The words of a Markdown `text` that are read: no code blocks, pictures, or addresses."
    text = re.sub(r"```.*?```", " ", text, flags=re.S)
    text = re.sub(r"<img[^>]*>|!\[[^\]]*\]\([^)]*\)", " ", text)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    return re.findall(r"\w[\w'’×-]*", text)


def index_words(root: Path) -> tuple[int, list[str]]:
    "The words of the index, without its code."
    index = root / "nbs" / "index.ipynb"
    if not index.exists():
        return 0, []
    cells = [cell for cell in visible_cells(index) if not cell.is_code]
    return sum(len(prose(cell.text)) for cell in cells), []


def replaced_words(root: Path) -> list[str]:
    """The words that notation.ipynb has replaced: the second column of its table of words, split at
    commas; none where there is no such table.
    """
    page = root / "nbs" / "notation.ipynb"
    text = "\n".join(cell.text for cell in visible_cells(page)) if page.exists() else ""
    _, found, table = text.partition("| write | not |")
    rows = [line for line in table.split("\n\n")[0].splitlines()[2:] if found]
    words = [word.strip(" *") for row in rows for word in row.split("|")[2].split(",")]
    return [word for word in words if word]


def private_words(root: Path) -> tuple[int, list[str]]:
    "Where the text of pages, without names in code, still uses one of `replaced_words`."
    words = replaced_words(root)
    if not words:
        return 0, []
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, words))})\b", re.I)
    pages = [p for p in sorted((root / "nbs").rglob("*.ipynb")) if p.name != "notation.ipynb"]
    places = [
        f"{cell.place}: {match[0]}"
        for page in pages
        for cell in visible_cells(page)
        if not cell.is_code
        for match in pattern.finditer(re.sub(r"`[^`]*`", "", cell.text))
    ]
    return len(places), places


def way_to(names: set[str], cells: list[Cell]) -> tuple[int, int, int, str]:
    """The cells, words and lines of code before the first cell that calls one of `names`, and its
    place; all of them, and no place, where no cell does.
    """
    first = next((n for n, cell in enumerate(cells) if calls(cell, names)), len(cells))
    words, lines = length(cells[:first])
    return first, words, lines, cells[first].place if first < len(cells) else ""


def silent_cells(cells: list[Cell]) -> list[str]:
    "The cells that run and show nothing."
    return [cell.place for cell in cells if running(cell) and not cell.has_output]


def cells_of(paths: list[Path]) -> list[Cell]:
    "The visible cells of several pages."
    return [cell for path in paths for cell in visible_cells(path)]


def measure_reading(root: Path) -> dict[str, tuple[float, list[str]]]:
    "{measure: (number, the places that make it up)} for the book in `root`; empty without one."
    parts = order(root)
    if not parts:
        return {}
    cells = cells_of([path for paths in parts.values() for path in paths])
    measured: dict[str, tuple[float, list[str]]] = {}
    for goal, names in (("training", TRAINS), ("sample", SAMPLES)):
        *numbers, place = way_to(names, cells)
        for unit, number in zip(("cells", "words", "lines of code"), numbers):
            measured[f"before the first {goal} ({unit})"] = (number, [place])
    for name, part in (("the idea", cells_of(parts["The idea"])), ("the book", cells)):
        exported = [(code_lines(cell.text), cell.place) for cell in part if cell.exported]
        sizes = [size for size, _ in exported] or [0]
        long = [f"{place}: {n}" for n, place in sorted(exported, reverse=True) if n > LONGEST]
        measured[f"median exported cell of {name} (code)"] = (median(sizes), [])
        measured[f"largest exported cell of {name} (code)"] = (max(sizes), long)
        silent = silent_cells(part)
        measured[f"cells of {name} that show nothing"] = (len(silent), silent)
    measured["words of the index"] = index_words(root)
    measured["replaced words that are still written"] = private_words(root)
    return measured


def write_minutes(root: Path) -> None:
    "Write the measured minutes into the tables of contents.ipynb."
    contents = root / "nbs" / "contents.ipynb"
    text = contents.read_text(encoding="utf-8")
    for path in (path for paths in order(root).values() for path in paths):
        measured = minutes(list(visible_cells(path)))
        row = re.compile(rf"(\]\({re.escape(path.name)}\) \| )\d+( \|)")
        text = row.sub(rf"\g<1>{measured}\g<2>", text)
    contents.write_text(text, encoding="utf-8")


def main() -> None:
    "Print words, lines of code and minutes of each page, and of each part."
    root = Path(__file__).resolve().parent.parent
    if sys.argv[1:] == ["--write"]:
        write_minutes(root)
    for part, paths in order(root).items():
        print(f"{part}: {sum(minutes(list(visible_cells(path))) for path in paths)} minutes")
        for path in paths:
            cells = list(visible_cells(path))
            words, lines = length(cells)
            print(f"    {path.name:32}{words:6} words{lines:6} lines{minutes(cells):5} minutes")


if __name__ == "__main__":
    main()
