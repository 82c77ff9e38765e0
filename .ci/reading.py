"""How far is it to the first training and to the first sample, in the book's order of reading?

A reader meets the pages in the order that docs/stage.py gives them, and on each the cells that are
not hidden. Words are those of the text, lines those of the code that are not empty. The standard
library is enough, as for structure.py, which prints these numbers.
"""

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TRAINS = {"train", "fit"}  # functions that train a network: the library's, and that of page zero
SAMPLES = {"generate", "sample_directed"}
HIDDEN = re.compile(r"#\|\s*(hide|default_exp)\b")
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


def calls(cell: Cell, names: set[str]) -> bool:
    "Does a cell, when it runs, call one of the functions `names`, by whatever import?"
    if not cell.is_code or cell.exported:
        return False
    body = ast.parse(MAGIC.sub(r"\1pass", cell.text)).body
    run = [n for n in body if not isinstance(n, (ast.FunctionDef, ast.ClassDef))]
    called = [n.func for top in run for n in ast.walk(top) if isinstance(n, ast.Call)]
    return any(
        isinstance(f, ast.Name)
        and f.id in names
        or isinstance(f, ast.Attribute)
        and f.attr in names
        and ast.unparse(f.value) == "bl"
        for f in called
    )


def way_to(names: set[str], cells: list[Cell]) -> tuple[int, int, int, str]:
    """The cells, words and lines of code before the first cell that calls one of `names`, and its
    place; all of them, and no place, where no cell does.
    """
    first = next((n for n, cell in enumerate(cells) if calls(cell, names)), len(cells))
    passed = cells[:first]
    words = sum(len(cell.text.split()) for cell in passed if not cell.is_code)
    lines = sum(
        bool(line.strip()) and not line.startswith("#|")
        for cell in passed
        if cell.is_code
        for line in cell.text.splitlines()
    )
    return first, words, lines, cells[first].place if first < len(cells) else ""


def measure_reading(root: Path) -> dict[str, tuple[float, list[str]]]:
    "{measure: (number, the places that make it up)} for the book in `root`; empty without one."
    parts = order(root)
    if not parts:
        return {}
    cells = [c for paths in parts.values() for path in paths for c in visible_cells(path)]
    measured: dict[str, tuple[float, list[str]]] = {}
    for goal, names in (("training", TRAINS), ("sample", SAMPLES)):
        *numbers, place = way_to(names, cells)
        for unit, number in zip(("cells", "words", "lines of code"), numbers):
            measured[f"before the first {goal} ({unit})"] = (number, [place])
    idea = [c for path in parts["The idea"] for c in visible_cells(path) if c.is_code]
    shown = sum(c.has_output for c in idea)
    bare = [c.place for c in idea if not c.has_output and not c.exported]
    measured["code of the idea with an output (%)"] = (100 * shown / len(idea), bare)
    return measured
