"""Every page reads as a page of the tutorial: one title, a question, what one needs, badges that
open it elsewhere, what was learnt, exercises with answers.
"""

import ast
import builtins
import configparser
import json
import re
import sys

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from biolearn.reproduction.runs import checkout

ROOT = checkout()
NBS = ROOT / "nbs"
LIBRARY = [NBS / "zero.ipynb", *sorted(NBS.glob("[0-9]*.ipynb"))]
FIGURES = sorted((NBS / "figures").glob("*.ipynb"))
TEXT = [NBS / f"{name}.ipynb" for name in ("results", "start", "contents", "notation")]
PLAIN = [NBS / "index.ipynb", *TEXT]  # text only: nothing to run, nothing to practise
SETTINGS = configparser.ConfigParser()
SETTINGS.read(ROOT / "settings.ini", encoding="utf-8")
USER, REPO, BRANCH, URL = (SETTINGS["DEFAULT"][k] for k in ("user", "repo", "branch", "git_url"))
OUTPUT, PAGE, WALL = (
    200_000,
    600_000,
    55,
)  # characters of one output, of all on a page; statements of code without a sentence

pages = pytest.mark.parametrize("path", LIBRARY + FIGURES, ids=lambda p: p.stem)
everything = pytest.mark.parametrize("path", LIBRARY + FIGURES + PLAIN, ids=lambda p: p.stem)

READ = {}


def cells(path, kind=None):
    "The cells of a notebook, read once, of one kind or all."
    if path not in READ:
        READ[path] = nbformat.read(path, 4).cells
    return [c for c in READ[path] if kind in (None, c.cell_type)]


def prose(path):
    "All the markdown of a page, without blocks of code."
    return re.sub(
        r"```.*?```", "", "\n\n".join(c.source for c in cells(path, "markdown")), flags=re.S
    )


def name(path):
    return path.relative_to(NBS).as_posix()


@everything
def test_headings_begin_with_one_title_and_do_not_jump(path):
    levels = [len(h) for h in re.findall(r"^(#+) ", prose(path), re.M)]
    assert cells(path)[0].source.startswith("# ") and levels.count(1) == 1, levels
    assert all(b <= a + 1 for a, b in zip(levels, levels[1:])), levels


def badges(path):
    "The two badges that open a page elsewhere."
    return (
        f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/{USER}/{REPO}/blob/{BRANCH}/nbs/{name(path)})\n"
        f"[![Launch on Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/{USER}/{REPO}/{BRANCH}?urlpath=lab/tree/nbs/{name(path)})"
    )


@pages
def test_the_first_cell_opens_the_page(path):
    first, up = cells(path)[0].source, "../" * (len(path.relative_to(NBS).parts) - 1)
    title, shown, question = re.fullmatch(
        r"# ([^\n]+)\n\n(.*?)\n\n> ([^\n]+)\n\n.*", first, re.S
    ).groups()
    assert shown == badges(path)
    assert "?" in question and "?" not in title
    assert "**You need** " in first and f"[notation table]({up}notation.ipynb)" in first


@pytest.mark.parametrize("path", TEXT, ids=lambda p: p.stem)
def test_pages_of_text_open_elsewhere_too(path):
    assert badges(path) in prose(path)


@pages
def test_it_ends_with_what_was_learnt_and_exercises_with_folded_answers(path):
    assert len(re.findall(r"^## What (?:was|we) learnt", prose(path), re.M)) == 1
    last = cells(path)[-1]
    assert last.cell_type == "markdown" and last.source.startswith("## Exercises\n\n**1.** ")
    asked = [int(n) for n in re.findall(r"^\*\*(\d)\.\*\* ", last.source, re.M)]
    answers = re.findall(
        r"\n\n<details><summary>Answer</summary>\n\n(.*?)\n\n</details>(?=\n\n\*\*|$)",
        last.source,
        re.S,
    )  # the blank lines let markdown within be read
    assert asked == list(range(1, len(asked) + 1)) and 2 <= len(asked) <= 4
    assert len(answers) == last.source.count("<details") == len(asked)
    assert all(len(answer.split()) >= 15 for answer in answers)


def statements(nodes):
    "How many statements there are in syntax trees, without docstrings."
    found = [n for top in nodes for n in ast.walk(top) if isinstance(n, ast.stmt)]
    texts = [n for n in found if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)]
    return len(found) - len(texts)


def visible_statements(cell):
    """Statements that a reader meets, however they are laid out; a class cannot be told in pieces,
    so one that fills a cell counts as its longest method.
    """
    if cell.source.startswith("#| hide"):
        return 0
    body = ast.parse(TransformerManager().transform_cell(cell.source)).body
    if len(body) == 1 and isinstance(body[0], ast.ClassDef):
        return max(statements([part]) for part in body[0].body)
    return statements(body)


@pages
def test_no_wall_of_code_stands_without_a_sentence(path):
    met = 0
    for cell in cells(path):
        if cell.cell_type == "markdown":
            met = 0
            assert cell.source.strip(), "an empty cell"
        else:
            met += visible_statements(cell)
        assert met <= WALL, f"{met} statements up to\n{cell.source[:200]}"


@everything
def test_outputs_are_small_and_shown_by_a_code_host(path):
    outputs = [o for cell in cells(path, "code") for o in cell.outputs]
    sizes = [len(json.dumps(o)) for o in outputs]
    assert max(sizes, default=0) <= OUTPUT and sum(sizes) <= PAGE, sizes
    for o in outputs:
        assert o.output_type != "error" and o.get("name") != "stderr"
        assert not {"text/html", "application/javascript"} & set(o.get("data", ())), (
            "a code host may not show this"
        )


@everything
def test_links_lead_to_files_that_exist(path):
    for link in re.findall(r"\]\(([^)\s#]+)[^)]*\)", prose(path)):
        assert "://" in link or (path.parent / link).exists(), link


def test_every_page_is_listed_and_the_index_leads_to_the_list():
    contents, index = prose(NBS / "contents.ipynb"), prose(NBS / "index.ipynb")
    for path in LIBRARY + [NBS / "results.ipynb", NBS / "start.ipynb", NBS / "notation.ipynb"]:
        assert f"]({path.name})" in contents, path.name
    assert "](contents.ipynb)" in index and "](start.ipynb)" in index


# ---- the cell that installs at need --------------------------------------------------------------


def install_cell(path):
    """The first code cell of a page of the library; of a figure, whose parameters come first, the
    second.
    """
    tagged = path in FIGURES
    if tagged:
        assert cells(path)[1].metadata.get("tags") == ["parameters"]
    return cells(path)[1 + tagged].source


class Shell:
    "Keeps what a notebook would have told IPython to do."

    def __init__(self):
        self.told = []

    def run_line_magic(self, *args):
        self.told.append(" ".join(map(str, args[:2])))

    def system(self, command):
        self.told.append(command)


def run(source, missing=()):
    """Run an install cell where the modules `missing` cannot be imported; returns what it asked
    IPython for.
    """
    shell, real = Shell(), builtins.__import__

    def find(module, *args):
        if module.split(".")[0] in missing:
            raise ImportError(module)
        return real(module, *args)

    exec(
        TransformerManager().transform_cell(source),
        {"get_ipython": lambda: shell, "__builtins__": {**vars(builtins), "__import__": find}},
    )
    return shell.told


@pages
def test_the_install_cell_installs_at_need_and_only_then(path):
    source = install_cell(path)
    assert source.count("\n") < 8 and run(source) == []
    told = run(source, missing=["biolearn"])
    assert any(line.startswith("pip install -q") for line in told) and any(
        URL in line for line in told
    ), told


# what comes with the package, its requirements and theirs
BROUGHT = {
    "numpy",
    "PIL",
    "array_api_compat",
    "matplotlib",
    "cycler",
    "sklearn",
    "scipy",
    "papermill",
    "nbformat",
    "nbconvert",
    "IPython",
    "tqdm",
    "safetensors",
    "platformdirs",
    "threadpoolctl",
    "joblib",
    "filelock",
    "cupy",
    "biolearn",
}


def imports(source):
    """The modules that a cell imports when it runs; what stands in functions is imported when it is
    needed, or not at all.
    """
    here = [
        n
        for n in ast.parse(TransformerManager().transform_cell(source)).body
        if not isinstance(n, (ast.FunctionDef, ast.ClassDef))
    ]
    nodes = [n for top in here for n in ast.walk(top)]
    return {
        m.split(".")[0]
        for n in nodes
        for m in (
            [a.name for a in n.names]
            if isinstance(n, ast.Import)
            else [n.module]
            if isinstance(n, ast.ImportFrom)
            else []
        )
    }


@pages
def test_what_a_page_imports_is_there_after_its_install_cell(path):
    told = " ".join(run(install_cell(path), missing=["biolearn"])).replace("-", "_")
    for module in set().union(*(imports(c.source) for c in cells(path, "code"))):
        known = module in sys.stdlib_module_names or module in BROUGHT or module in told
        assert known or (ROOT / module).is_dir() and "git clone" in told, module


# ---- the notation --------------------------------------------------------------------------------

ROWS = [
    [c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in prose(NBS / "notation.ipynb").splitlines()
    if line.startswith("| $")
    or line.startswith("| nat")
    or line.startswith("| score")
    or line.startswith("| rms")
]


def test_the_notation_table_names_what_is_in_the_code():
    table = [row for row in ROWS if len(row) == 6]
    assert len(table) > 40
    for symbol, code, meaning, shape, introduced, equation in table:
        (page,) = re.findall(r"\((\w+\.ipynb)\)", introduced)
        source = "\n".join(c.source for c in cells(NBS / page, "code"))
        assert meaning and all(
            re.search(rf"(?<!\w){re.escape(n)}(?!\w)", source)
            for n in re.findall(r"`([^`]+)`", code)
        ), (symbol, code, page)
