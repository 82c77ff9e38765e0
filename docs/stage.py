"""Lays out the sources of the book in one folder: `python docs/stage.py TARGET FIGURES`.

TARGET mirrors nbs/, so that the notebooks' links to each other hold as they stand: the library's
notebooks with their committed outputs; the figure notebooks as FIGURES (made by `make figures`) has
executed them, each with the picture and the claims at the scale of the paper; the paper's
equations; a page for each module. What only the machinery needs is left out, and every picture has
an alternative text. Exit code 3: the figure notebooks must be run first; 1: something else is
missing; the message says what.
"""

import json
import re
import sys
from pathlib import Path

import nbformat
import reference

from biolearn.reproduction.claims import Claim, claims_markdown

DOCS = Path(__file__).parent
ROOT = DOCS.parent
NBS, PAPER = ROOT / "nbs", ROOT / "figures" / "paper"
DIRECTIVE = re.compile(r"^#\s*\|\s*([\w-]+)\s*:?\s*(.*)$")
LINK = re.compile(r"(\]\()([^)#\s:]+)(#[^)]*)?(\))|(<img[^>]*\ssrc=\")([^\":]+)(\")")
BADGE = re.compile(r"\[!\[([^\]]*)\]\(https?:[^)]*\)\]\(([^)]*)\)")
BETWEEN = re.compile(r"\)\s+(?=\[!\[)")
PICTURES = ("image/png", "image/svg+xml", "image/jpeg")


class StageError(Exception):
    "The sources of the book cannot be laid out; the message says what is missing and what to do."


class StaleFigures(StageError):
    "The figure notebooks have not been run as they are now."


def library():
    return sorted(NBS.glob("[0-9]*.ipynb"))


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
        text = BADGE.sub(
            r"[\1](\2)", BETWEEN.sub(") · ", text)
        )  # a badge is a picture from another server; its words say as much
        text = re.sub(r"\]\(#([^)]*)\)", lambda m: f"](#{slug(m[1])})", text)
        return LINK.sub(self.one, text)

    def one(self, match):
        before, link, anchor, after = (
            (match[1], match[2], match[3] or "", match[4])
            if match[1]
            else (match[5], match[6], "", match[7])
        )
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
        if path.suffix in (".png", ".svg"):
            self.wanted.add(inside)
            up = "../" * len(self.folder.relative_to(NBS).parts)
            return f"{before}{up}_pictures/{inside.as_posix().replace('/', '-')}{after}"
        return f"{before}{self.address}/{'tree' if path.is_dir() else 'blob'}/main/{inside.as_posix()}{anchor}{after}"


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
    neither a fig-alt line nor one of `captions` describes.
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
            metadata, pictures = (
                {},
                [o for o in cell.outputs if any(kind in o.get("data", {}) for kind in PICTURES)],
            )
            if pictures:
                alt = said.get("fig-alt") or next(captions, None)
                if not alt:
                    missing.append((number, source.splitlines()[0]))
                metadata["mystnb"] = {"image": {"alt": alt}}
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
    sources = lambda cells: [
        c.source for c in cells if "injected-parameters" not in c.metadata.get("tags", [])
    ]
    if sources(run.cells) != sources(read(path).cells):
        raise StaleFigures(
            f"{done} was run from another version of nbs/figures/{path.name}: run `make figures` again."
        )
    return run


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
    told, parts = records(PAPER, stem, stems), ["## At the scale of the paper"]
    if not told:
        return "\n\n".join(
            (
                *parts,
                "Not run yet: `make figures PROFILE=paper` does it. Everything below is the notebook on 8×8 digits, where it takes seconds.",
            )
        )
    for name, record in told:
        if (PAPER / f"{name}.svg").exists():
            parts.append(
                f"```{{figure}} ../{picture(PAPER / name)}\n:alt: {plain(record['caption'])}\n:target: ../_images/{Path(picture(PAPER / name)).name}\n\n{formulas(record['caption'])}\n```"
            )
        claims = [Claim(**claim) for claim in record["claims"]]
        if claims:
            parts.append(formulas(claims_markdown(claims)))
    parts.append(
        "Everything below is the same notebook on 8×8 digits, where it takes seconds; "
        "`make figures PROFILE=paper` makes what stands above."
    )
    return "\n\n".join(parts)


def picture(path):
    return f"_pictures/figures-{path.parent.name}-{path.name}.svg"


def formulas(text):
    return text.replace("$", r"\$")  # a record holds plain text


def plain(caption):
    return " ".join(caption.split())


def gallery(stems, titles, first):
    """The page that leads to all figures: picture, caption and how many claims hold.

    `first`: for each, the folder and name of its first record.
    """
    parts = [
        "# Figures and tables",
        "Each page shows what the paper claims and what was measured at its scale (MNIST, 784–1000–100, 20 epochs), whether it holds, and the notebook that draws it.",
    ]
    for stem in stems:
        path = first[stem]
        record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        holds, where = (
            [c["holds"] for c in record["claims"] if c["holds"] is not None],
            "" if path.parent == PAPER else " on 8×8 digits",
        )
        parts += [
            f"## {titles[stem]}",
            f"{formulas(record['caption'])} **{sum(holds)} of {len(holds)} claims hold{where}.** [{titles[stem].split(':')[0]}: claims and notebook]({stem}.ipynb)",
        ]
        if path.with_suffix(".svg").exists():
            parts.append(
                f"```{{image}} ../{picture(path)}\n:alt: {plain(record['caption'])}\n:width: 480px\n:target: {stem}.html\n```"
            )
    return "\n\n".join((*parts, toctree(None, stems))) + "\n"


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


def layout(figures_folder, address):
    "Every source of the book: {relative path: bytes}."
    made, wanted, missing = {}, set(), {}
    stems = [p.stem for p in figures()]
    titles = {p.stem: title(p) for p in figures()}

    def add(path, notebook, **more):
        made[path], lost = page(notebook, Linker(NBS / Path(path).parent, address, wanted), **more)
        made[path] = nbformat.writes(made[path]).encode()
        if lost:
            missing[path] = lost

    for path in (*library(), *companions()):
        add(path.name, read(path))
    first = {}
    for path in figures():
        run = executed(path, figures_folder)
        here, paper = (records(folder, path.stem, stems) for folder in (figures_folder, PAPER))
        if not here:
            raise StaleFigures(
                f"{figures_folder}/{path.stem}.json is not there: run `make figures`."
            )
        first[path.stem] = PAPER / paper[0][0] if paper else figures_folder / here[0][0]
        for svg in {first[path.stem], *(PAPER / name for name, _ in paper)}:
            if svg.with_suffix(".svg").exists():
                made[picture(svg)] = svg.with_suffix(".svg").read_bytes()
        add(
            f"figures/{path.name}",
            run,
            captions=[record["caption"] for _, record in here],
            extra=[paper_scale(path.stem, stems)],
        )
    api = reference.modules()
    contents = (
        toctree("Read", [f"{p.stem[:2]} {title(p)} <{p.stem}>" for p in library()]),
        toctree("Look", ["figures/index"]),
        toctree("Look up", ["paper", *(p.stem for p in companions()), "api/index"]),
    )
    add("index.ipynb", read(NBS / "index.ipynb"), end=["\n\n".join(contents)])
    made["figures/index.md"] = gallery(stems, titles, first).encode()
    made["paper.md"] = (DOCS / "paper.md").read_bytes()
    made["api/index.md"] = api_index(api).encode()
    for module, notebook in api:
        made[f"api/{module}.rst"] = reference.page(module, notebook).encode()
    for path in wanted:
        made[f"_pictures/{path.as_posix().replace('/', '-')}"] = (ROOT / path).read_bytes()
    if missing:
        raise StageError(
            "these pictures have no alternative text; begin their cells with a line `#| fig-alt: what a reader who cannot see the picture should know`:\n"
            + "\n".join(
                f"  nbs/{path}, cell {n}: {line}"
                for path, lost in missing.items()
                for n, line in lost
            )
        )
    return made


def api_index(api):
    rows = [
        f"| [biolearn.{module}]({module}.rst) | {(sys.modules.get(f'biolearn.{module}') or __import__(f'biolearn.{module}', fromlist=['x'])).__doc__} |"
        for module, _ in api
    ]
    return (
        "\n".join(
            [
                "# API reference",
                "",
                "Every public name, from the docstrings: shapes, units, errors, and the equations that it implements. [source] leads to the notebook cell that defines it.",
                "",
                "| module | the question it answers |",
                "|---|---|",
                *rows,
                "",
                toctree(None, [m for m, _ in api]),
            ]
        )
        + "\n"
    )


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
    from configparser import ConfigParser

    parser = ConfigParser()
    parser.read(ROOT / "settings.ini", encoding="utf-8")
    return parser["DEFAULT"]


if __name__ == "__main__":
    try:
        write(layout(Path(sys.argv[2]), settings()["git_url"]), Path(sys.argv[1]))
    except StageError as error:
        print(f"book: {error}", file=sys.stderr)
        sys.exit(3 if isinstance(error, StaleFigures) else 1)
