"""Lays out the sources of the book in one folder: `python docs/stage.py TARGET FIGURES`.

TARGET mirrors nbs/, so that the notebooks' links to each other hold as they stand: the library's
notebooks with their committed outputs; the figure notebooks as FIGURES (made by `make figures`) has
executed them, each with the picture and the claims at the scale of the paper; the paper's
equations; a page for each module. What only the machinery needs is left out, and every picture has
an alternative text. Exit code 3: the figure notebooks must be run first; 1: something else is
missing; the message says what.
"""

import ast
import json
import re
import sys
from configparser import ConfigParser
from pathlib import Path

import nbformat
import reference

import biolearn
from biolearn.reproduction.claims import Claim, claims_markdown

DOCS = Path(__file__).parent
ROOT = DOCS.parent
NBS, PAPER = ROOT / "nbs", ROOT / "figures" / "paper"
DIRECTIVE = re.compile(r"^#\s*\|\s*([\w-]+)\s*:?\s*(.*)$")
LINK = re.compile(r"(\]\()([^)#\s:]+)(#[^)]*)?(\))|(<img[^>]*\ssrc=\")([^\":]+)(\")")
BADGE = re.compile(r"\[!\[([^\]]*)\]\(https?:[^)]*\)\]\(([^)]*)\)")
BETWEEN = re.compile(r"\)\s+(?=\[!\[)")
PICTURES = ("image/png", "image/svg+xml", "image/jpeg")
PARTS = {  # the parts of the book: the pages by what stands before the first _ of their names, in order
    "The idea": "zero 02 03 04 05 06 07 08",
    "The idea in depth": "67 62 68 69 63 66 37 12",
    "Does it work?": "results 09 13 43 49 25 20 21 22 71 23 24 41 42",
    "Beyond the paper": "26 72 73 27 28 29 30 31 32",
    "Engineering": (
        "55 00 33 01 36 38 39 40 34 35 19 53 52 64 65 70 14 10 15 11 44 60 61 45 46 47 59 "
        "48 56 57 16 17 58 18 50 51"
    ),
}


NO_WORDS = (
    "these pictures have no alternative text; begin their cells with a line "
    "`#| fig-alt: what a reader who cannot see the picture should know`"
)
NO_PICTURE = (
    "these cells have an alternative text and no picture; run their pages and keep the outputs"
)


class StageError(Exception):
    "The sources of the book cannot be laid out; the message says what is missing and what to do."


class StaleFigures(StageError):
    "The figure notebooks have not been run as they are now."


def library():
    "The pages that the book is made of: those with a number, page zero before them, the results."
    return [NBS / "zero.ipynb", *sorted(NBS.glob("[0-9]*.ipynb")), NBS / "results.ipynb"]


def number(path):
    "What PARTS calls a page: what stands before the first _ of its name."
    return path.stem.split("_")[0]


def entry(path):
    "A page in a table of contents: its number, if it has one, its title, and where it is."
    before = f"{number(path)} " if number(path).isdigit() else ""
    return f"{before}{title(path)} <{path.stem}>"


def parts(pages):
    "The `pages` in the parts of the book, {part: paths}; StageError if one is in none or in two."
    made = {
        part: [path for name in numbers.split() for path in pages if number(path) == name]
        for part, numbers in PARTS.items()
    }
    placed = [path for paths in made.values() for path in paths]
    wrong = [path.name for path in pages if placed.count(path) != 1]
    if wrong:
        raise StageError(f"not in exactly one of PARTS in docs/stage.py: {', '.join(wrong)}.")
    return made


def silent(made):
    "The pages of `made`, {part: paths}, that have code and no output; Engineering may be without."
    read_first = [path for part, paths in made.items() if part != "Engineering" for path in paths]
    code = {path: [c for c in read(path).cells if c.cell_type == "code"] for path in read_first}
    return [path for path, cells in code.items() if cells and not any(c.outputs for c in cells)]


def companions():
    return sorted(p for p in NBS.glob("*.ipynb") if p not in library() and p.stem != "index")


def figures():
    return sorted((NBS / "figures").glob("*.ipynb"))


def read(path):
    return nbformat.read(path, as_version=4)


# ---- links ---------------------------------------------------------------------------------------


class Linker:
    """Rewrites the relative links of one notebook; remembers the pictures from elsewhere in the
    repository that the book needs.
    """

    def __init__(self, folder, address, wanted):
        self.folder, self.address, self.wanted = folder, address, wanted

    def __call__(self, text):
        text = self.to_play(text)
        # A badge is a picture from another server; its words say as much.
        text = BADGE.sub(r"[\1](\2)", BETWEEN.sub(") · ", text))
        text = re.sub(r"\]\(#([^)]*)\)", lambda m: f"](#{slug(m[1])})", text)
        return LINK.sub(self.one, text)

    def to_play(self, text):
        """Links to the page `play` of the published book lead to that of this one.

        It is no source of the book (play.py writes it beside the pages), so Sphinx must not look.
        """
        address = re.escape("{doc_host}{doc_baseurl}/play/".format(**settings()))
        here = "../" * len(self.folder.relative_to(NBS).parts) + "play/index.html"
        return re.sub(rf"\[([^]]*)\]\({address}\)", rf'<a href="{here}">\1</a>', text)

    def one(self, match):
        if match[1]:
            before, link, anchor, after = match[1], match[2], match[3] or "", match[4]
        else:
            before, link, anchor, after = match[5], match[6], "", match[7]
        path = (self.folder / link).resolve()
        if not path.exists():
            raise StageError(
                f"{self.folder.name}: a notebook links to {link}, which does not exist."
            )
        inside = path.relative_to(ROOT)
        if path.suffix == ".ipynb" and NBS in path.parents:
            return before + link + (anchor and "#" + slug(anchor[1:])) + after
        if path == NBS / "figures":
            return before + link.rstrip("/") + "/index.md" + after
        up = "../" * len(self.folder.relative_to(NBS).parts)
        if path.parent == DOCS and path.suffix == ".md":
            return before + up + path.name + (anchor and "#" + slug(anchor[1:])) + after
        if path.suffix in (".png", ".svg"):
            self.wanted.add(inside)
            return f"{before}{up}_pictures/{inside.as_posix().replace('/', '-')}{after}"
        kind = "tree" if path.is_dir() else "blob"
        return f"{before}{self.address}/{kind}/main/{inside.as_posix()}{anchor}{after}"


def slug(anchor):
    """The address of a heading in the book, from its address in Jupyter, where only blanks are
    replaced.
    """
    return re.sub(r"[^\w-]", "", anchor.lower())


# ---- cells ---------------------------------------------------------------------------------------


def directives(source):
    "The `#| name: value` lines of a cell: {name: value}, and the source without them."
    found = {m[1]: m[2] for line in source.splitlines() if (m := DIRECTIVE.match(line))}
    return found, "\n".join(
        line for line in source.splitlines() if not DIRECTIVE.match(line)
    ).strip("\n")


def shown(cells, linker, captions, missing):
    """The cells that a reader sees, as the book shows them; adds to `missing` the pictures that
    neither a fig-alt line nor one of `captions` describes, and the fig-alt lines without a picture.
    """
    for number, cell in enumerate(cells):
        if "injected-parameters" in cell.metadata.get("tags", []):
            continue
        if cell.cell_type == "markdown":
            yield nbformat.v4.new_markdown_cell(
                linker(re.sub(r"\n(</details>)", r"\n\n\1", cell.source))
            )
        elif cell.cell_type == "code":
            said, source = directives(cell.source)
            if {"hide", "default_exp"} & said.keys() or not source:
                continue
            metadata = {}
            if any(kind in output.get("data", {}) for output in cell.outputs for kind in PICTURES):
                alt = said.get("fig-alt") or next(captions, None)
                if not alt:
                    missing.append((number, source.splitlines()[0], NO_WORDS))
                metadata["mystnb"] = {"image": {"alt": alt}}
            elif "fig-alt" in said:
                missing.append((number, source.splitlines()[0], NO_PICTURE))
            yield nbformat.v4.new_code_cell(source, outputs=cell.outputs, metadata=metadata)


def page(notebook, linker, captions=(), extra=(), end=()):
    """The notebook as the book shows it, with `extra` Markdown after the title cell and `end` after
    the last.
    """
    missing = []
    cells = list(shown(notebook.cells, linker, iter(captions), missing))
    cells[1:1] = [nbformat.v4.new_markdown_cell(text) for text in extra]
    cells += [nbformat.v4.new_markdown_cell(text) for text in end]
    for n, cell in enumerate(cells):
        cell["id"] = f"cell-{n}"  # the same at every run, or every page would be new
    language = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python", "pygments_lexer": "ipython3"},
    }
    return nbformat.v4.new_notebook(cells=cells, metadata=language), missing


# ---- the figures ---------------------------------------------------------------------------------


def executed(path, figures_folder):
    """The figure notebook as `make figures` has run it.

    StageError if it was another version of the notebook.
    """
    done = figures_folder / "notebooks" / path.name
    if not done.exists():
        raise StaleFigures(f"{done} is not there: run `make figures`.")
    run = read(done)
    if sources(run) != sources(read(path)):
        raise StaleFigures(
            f"{done} was run from another version of nbs/figures/{path.name}: run `make figures` again."
        )
    return run


def sources(notebook):
    "What was written in the cells of a notebook; the parameters that papermill puts in are not."
    return [
        cell.source
        for cell in notebook.cells
        if "injected-parameters" not in cell.metadata.get("tags", [])
    ]


def records(folder, stem, stems):
    "The records in `folder` that belong to a figure notebook, its own first: [(name, record)]."
    mine = [
        p
        for p in folder.glob(f"{stem}*.json")
        if max((s for s in stems if p.stem.startswith(s)), key=len) == stem
    ]
    return [(p.stem, json.loads(p.read_text(encoding="utf-8"))) for p in sorted(mine)]


def paper_scale(stem, stems):
    """Picture, caption and claims at the scale of the paper, as Markdown for the top of a figure's
    page.
    """
    told = records(PAPER, stem, stems)
    text = ["## At the scale of the paper"]
    if not told:
        text.append(
            "Not run yet: `make figures PROFILE=paper` does it. Everything below is the notebook on "
            "8×8 digits, where it takes seconds."
        )
        return "\n\n".join(text)
    for name, record in told:
        caption = record["caption"]
        if (PAPER / f"{name}.svg").exists():
            file = picture(PAPER / name)
            target = f"../_images/{Path(file).name}"
            text.append(directive("figure", file, caption, formulas(caption), target=target))
        claims = [Claim(**claim) for claim in record["claims"]]
        if claims:
            text.append(formulas(claims_markdown(claims)))
    text.append(
        "Everything below is the same notebook on 8×8 digits, where it takes seconds; "
        "`make figures PROFILE=paper` makes what stands above."
    )
    return "\n\n".join(text)


def directive(kind, file, caption, *below, **options):
    "A picture in Markdown: a `figure`, with its caption `below`, or an `image`."
    options = {"alt": " ".join(caption.split()), **options}
    lines = [f"```{{{kind}}} ../{file}", *(f":{name}: {text}" for name, text in options.items())]
    return "\n".join([*lines, *(f"\n{text}" for text in below), "```"])


def picture(path):
    return f"_pictures/figures-{path.parent.name}-{path.name}.svg"


def formulas(text):
    return text.replace("$", r"\$")  # a record holds plain text


def gallery(stems, titles, first):
    """The page that leads to all figures: picture, caption and how many claims hold.

    `first`: for each, the folder and name of its first record.
    """
    text = [
        "# Figures and tables",
        "Each page shows what the paper claims and what was measured at its scale (MNIST, "
        "784–1000–100, 20 epochs), whether it holds, and the notebook that draws it.",
    ]
    for stem in stems:
        path = first[stem]
        record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        caption = record["caption"]
        holds = [c["holds"] for c in record["claims"] if c["holds"] is not None]
        where = "" if path.parent == PAPER else " on 8×8 digits"
        text += [
            f"## {titles[stem]}",
            f"{formulas(caption)} "
            + f"**{sum(holds)} of {len(holds)} claims hold{where}.** " * bool(holds)
            + f"[{titles[stem].split(':')[0]}: claims and notebook]({stem}.ipynb)",
        ]
        if path.with_suffix(".svg").exists():
            options = {"width": "480px", "target": f"{stem}.html"}
            text.append(directive("image", picture(path), caption, **options))
    return "\n\n".join((*text, toctree(None, stems))) + "\n"


def title(path):
    """The title of a notebook as plain text, for lists of contents; a formula in it loses its
    dollars, and its indices become small letters.
    """
    text = re.search(r"^# (.*)", read(path).cells[0].source, re.M)[1]
    return re.sub(
        r"\$([^$]*)\$", lambda m: re.sub(r"_(\d)", lambda i: chr(0x2080 + int(i[1])), m[1]), text
    )


def toctree(caption, names, *options):
    "A hidden table of contents."
    return "\n".join(
        [
            "```{toctree}",
            ":hidden:",
            *([f":caption: {caption}"] if caption else []),
            *options,
            "",
            *names,
            "```",
        ]
    )


# ---- all together --------------------------------------------------------------------------------


class Book:
    "The sources of the book, `made` = {relative path: bytes}, as they come together."

    def __init__(self, address):
        self.address, self.made = address, {}
        self.wanted, self.missing = set(), {}
        self.stems = [p.stem for p in figures()]

    def add(self, path, notebook, **more):
        "A notebook as a page; remembers the pictures that it needs and those without words."
        linker = Linker(NBS / Path(path).parent, self.address, self.wanted)
        made, lost = page(notebook, linker, **more)
        self.made[path] = nbformat.writes(made).encode()
        if lost:
            self.missing[path] = lost

    def add_text(self, name):
        """A page of docs/ that links into the repository; docs/ lies beside nbs/, which the book
        mirrors.
        """
        linker = Linker(NBS, self.address, self.wanted)
        text = (DOCS / name).read_text(encoding="utf-8")
        self.made[name] = linker(text.replace("](../nbs/", "](")).encode()

    def add_figure(self, path, folder):
        "The page of a figure that was run in `folder`; returns folder and name of its first record."
        run = executed(path, folder)
        here, paper = (records(where, path.stem, self.stems) for where in (folder, PAPER))
        if not here:
            raise StaleFigures(f"{folder}/{path.stem}.json is not there: run `make figures`.")
        first = PAPER / paper[0][0] if paper else folder / here[0][0]
        for svg in {first, *(PAPER / name for name, _ in paper)}:
            if svg.with_suffix(".svg").exists():
                self.made[picture(svg)] = svg.with_suffix(".svg").read_bytes()
        captions = [record["caption"] for _, record in here]
        extra = [paper_scale(path.stem, self.stems)]
        self.add(f"figures/{path.name}", run, captions=captions, extra=extra)
        return first

    def add_reference(self):
        "A page for each module, and the one that leads to them."
        api = reference.modules()
        self.made["api/index.md"] = api_index(api).encode()
        for module, notebook in api:
            self.made[f"api/{module}.rst"] = reference.page(module, notebook).encode()

    def add_pictures(self):
        "The pictures from elsewhere in the repository; StageError if any has no words."
        for path in self.wanted:
            name = path.as_posix().replace("/", "-")
            self.made[f"_pictures/{name}"] = (ROOT / path).read_bytes()
        lost = [(path, *cell) for path, cells in self.missing.items() for cell in cells]
        for wrong in (NO_WORDS, NO_PICTURE):
            places = [
                f"  nbs/{path}, cell {n}: {line}" for path, n, line, why in lost if why == wrong
            ]
            if places:
                raise StageError("\n".join([f"{wrong}:", *places]))


def layout(figures_folder, address):
    "Every source of the book: {relative path: bytes}."
    book = Book(address)
    titles = {path.stem: title(path) for path in figures()}
    empty = silent(parts(library()))
    if empty:
        names = ", ".join(path.name for path in empty)
        raise StageError(f"no output on {names}: run these pages and keep what they show.")
    for path in (*library(), *companions()):
        book.add(path.name, read(path))
    first = {path.stem: book.add_figure(path, figures_folder) for path in figures()}
    book.made["figures/index.md"] = gallery(book.stems, titles, first).encode()
    book.add("index.ipynb", read(NBS / "index.ipynb"), end=[contents()])
    book.made["paper.md"] = (DOCS / "paper.md").read_bytes()
    book.add_text("reproducibility.md")
    book.add_reference()
    book.add_pictures()
    return book.made


def contents():
    "The table of contents: the parts of the book, its figures, and where to look things up."
    lists = [
        toctree(part, [entry(path) for path in paths]) for part, paths in parts(library()).items()
    ]
    look_up = ["paper", "notation", "api/index", "reproducibility"]
    return "\n\n".join(
        [
            toctree("Start", ["start", "contents"]),
            *lists,
            toctree("Look", ["figures/index"]),
            toctree("Look up", look_up),
        ]
    )


def api_index(api):
    "The page that leads to the reference: what the package offers, and all modules."
    lines = [
        "# API reference",
        "",
        "Every public name, from the docstrings: shapes, units, errors, and the equations that it "
        "implements. [source] leads to the notebook cell that defines it.",
        "",
        "## What `import biolearn` offers",
        "",
        "| name | what it is |",
        "|---|---|",
        *(face_row(name) for name in biolearn.__all__),
        "",
        "## Modules",
        "",
        "| module | the question it answers |",
        "|---|---|",
        *(module_row(module) for module, _ in api),
        "",
        toctree(None, [module for module, _ in api]),
    ]
    return "\n".join(lines) + "\n"


def face_row(name):
    "One name that the package offers: a link to where it lives, and the first sentence about it."
    offered = getattr(biolearn, name)
    about = " ".join((offered.__doc__ or "").split("\n\n")[0].split())
    about = re.sub(r"([|*_$\\])", r"\\\1", about)
    return f"| {{py:obj}}`{name} <{offered.__module__}.{name}>` | {about} |"


def module_row(module):
    asked = ast.get_docstring(ast.parse(reference.source(module)))
    return f"| [biolearn.{module}]({module}.rst) | {asked} |"


def write(made, target):
    "Write what has changed, delete what is no longer there."
    for path in [
        p for p in target.rglob("*") if p.is_file() and p.relative_to(target).as_posix() not in made
    ]:
        path.unlink()
    for name, content in made.items():
        path = target / name
        if path.exists() and path.read_bytes() == content:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def settings():
    "What the package says about itself."
    parser = ConfigParser()
    parser.read(ROOT / "settings.ini", encoding="utf-8")
    return parser["DEFAULT"]


if __name__ == "__main__":
    try:
        write(layout(Path(sys.argv[2]), settings()["git_url"]), Path(sys.argv[1]))
    except StageError as error:
        print(f"book: {error}", file=sys.stderr)
        sys.exit(3 if isinstance(error, StaleFigures) else 1)
