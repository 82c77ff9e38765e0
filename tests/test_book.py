"""The book: what its strict build notices.

(How it looks in a browser is asked by docs/check_browser.py: make book-check.)
"""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import biolearn

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
sys.path[:0] = [str(DOCS), str(ROOT / ".ci")]
import check_pages
import mentions
import reading
import reference
import stage

# ---- names of the paper's items ------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, pieces",
    [
        ("Eqs. 8 and 12 and Eq. 3", {"Eqs. 8": ["eq-8"], "12": ["eq-12"], "Eq. 3": ["eq-3"]}),
        (
            "(Section 5.1, Eqs. 9-11): x",
            {"Section 5.1": ["section-5.1"], "Eqs. 9": ["eq-9"], "11": ["eq-10", "eq-11"]},
        ),
        (
            "Eqs. 2–6, Algorithm 1",
            {
                "Eqs. 2": ["eq-2"],
                "6": ["eq-3", "eq-4", "eq-5", "eq-6"],
                "Algorithm 1": ["algorithm-1"],
            },
        ),
        ("Figure 4, 3 of 5 claims", {"Figure 4": ["figure-4"]}),
        ("Figures 1, 2, and 3.", {"Figures 1": ["figure-1"], "2": ["figure-2"], "3": ["figure-3"]}),
        ("Fig. 7 of another paper, sequence 12, Eq 3", {}),
    ],
)
def test_mentions(text, pieces):
    assert {text[a:b]: keys for a, b, keys in mentions.mentions(text)} == pieces


NAMES = {f"{kind}-{n}": "" for kind, count in mentions.PAPER.items() for n in range(1, count + 1)}
TOLD = {"notes": [(key, "text", "here", "Notes") for key in NAMES]}


def test_a_book_that_tells_and_names_every_item_has_no_complaints():
    assert mentions.complaints(NAMES, TOLD, {}) == []


def test_complaints():
    "Items that do not exist, items that nobody names, items that the page on the paper forgets."
    named = mentions.complaints(
        NAMES,
        {
            **TOLD,
            "api/x": [("eq-14", "code", "f", "x.f"), ("table-4", "text", "", "others' table")],
        },
        {},
    )
    assert named == [("api/x", "'x.f' names Eq. 14, which the paper (docs/paper.md) does not have")]
    silent = mentions.complaints(
        NAMES, {"notes": [e for e in TOLD["notes"] if e[0] not in ("eq-13", "algorithm-2")]}, {}
    )
    assert [s for _, s in silent] == [
        "Eq. 13 of the paper is named by no docstring and no notebook",
        "Algorithm 2 of the paper is named by no docstring and no notebook",
    ]
    assert [
        s
        for _, s in mentions.complaints(
            {k: "" for k in NAMES if k != "eq-4"},
            {"notes": [e for e in TOLD["notes"] if e[0] != "eq-4"]},
            {},
        )
    ] == ["docs/paper.md does not tell Eq. 4"]


# ---- the layout of the sources -------------------------------------------------------------------


def test_every_page_is_in_one_part_of_the_book():
    made = stage.parts(stage.library())
    assert sorted(path for paths in made.values() for path in paths) == sorted(stage.library())
    assert list(made) == [
        "The idea",
        "The idea in depth",
        "Does it work?",
        "Beyond the paper",
        "Engineering",
    ]
    idea = [stage.number(path) for path in made["The idea"]]
    assert idea == ["zero", "02", "03", "04", "05", "06", "07", "08"]
    contents = stage.contents()
    assert [contents.count(f"<{path.stem}>") for path in stage.library()] == [1] * len(
        stage.library()
    )


CONTENTS = "\n".join(cell.source for cell in stage.read(stage.NBS / "contents.ipynb").cells)


def test_the_pages_are_listed_in_the_same_parts_and_order():
    found = re.findall(r"^## (.*)$|^\| \[[^]]*\]\((\w+)\.ipynb\)", CONTENTS, re.M)
    listed = {}
    for part, page in found:
        if part:
            listed[part] = []
        else:
            list(listed.values())[-1].append(page)
    assert listed == {
        part: [path.stem for path in paths] for part, paths in stage.parts(stage.library()).items()
    }


def test_the_minutes_of_each_page_are_those_that_are_measured():
    for name, minutes in re.findall(r"^\| \[.*?\]\((\w+\.ipynb)\) \| (\d+) \|", CONTENTS, re.M):
        measured = reading.minutes(list(reading.visible_cells(stage.NBS / name)))
        assert abs(int(minutes) - measured) <= max(1, measured / 10), name


def test_the_paths_of_the_index_take_as_long_as_it_says():
    index = "\n".join(cell.source for cell in stage.read(stage.NBS / "index.ipynb").cells)
    (zero,) = re.findall(r"\*\*(\d+) minutes, the paper:", index)
    assert "**An hour, the idea:**" in index and "three hours with the code" in index
    idea = [list(reading.visible_cells(p)) for p in stage.parts(stage.library())["The idea"]]
    words = sum(reading.length(cells)[0] for cells in idea)
    assert abs(int(zero) - reading.minutes(idea[0])) <= 1
    assert abs(words / reading.WORDS_A_MINUTE - 60) <= 8
    assert abs(sum(map(reading.minutes, idea)) - 180) <= 20


def test_a_page_in_no_part_or_in_two_is_an_error(monkeypatch):
    with pytest.raises(stage.StageError, match="not in exactly one of PARTS.*: 99_new.ipynb"):
        stage.parts([ROOT / "nbs" / "02_stdp.ipynb", ROOT / "nbs" / "99_new.ipynb"])
    monkeypatch.setitem(stage.PARTS, "Twice", "02")
    with pytest.raises(stage.StageError, match=": 02_stdp.ipynb"):
        stage.parts([ROOT / "nbs" / "02_stdp.ipynb"])


def linked(text, folder=ROOT / "nbs"):
    wanted = set()
    return stage.Linker(folder, "https://example.org/r", wanted)(text), wanted


def test_links_lead_to_pages_pictures_and_the_repository():
    assert (
        linked(
            "[a](06_inference.ipynb#It-climbs,-always) [b](https://example.org) [c](#Here-it-is!)"
        )[0]
        == "[a](06_inference.ipynb#it-climbs-always) [b](https://example.org) [c](#here-it-is)"
    )
    assert (
        linked("[t](../experiments/trials.csv), [f](../figures/paper)")[0]
        == "[t](https://example.org/r/blob/main/experiments/trials.csv), [f](https://example.org/r/tree/main/figures/paper)"
    )
    assert linked("[e](../docs/paper.md#eq-8)")[0] == "[e](paper.md#eq-8)"
    play = "a [page to play](https://biolearn.github.io/biolearn/play/) with"
    assert linked(play)[0] == 'a <a href="play/index.html">page to play</a> with'
    there = linked(play, ROOT / "nbs" / "figures")[0]
    assert there == 'a <a href="../play/index.html">page to play</a> with'
    assert linked("[e](../../docs/paper.md)", ROOT / "nbs" / "figures")[0] == "[e](../paper.md)"
    assert linked(
        '<img src="../../figures/paper/fig3_samples.png" alt="x">', ROOT / "nbs" / "figures"
    ) == (
        '<img src="../_pictures/figures-paper-fig3_samples.png" alt="x">',
        {Path("figures/paper/fig3_samples.png")},
    )
    assert (
        linked(
            "[![Colab](https://a.org/b.svg)](https://a.org/open)\n[![Binder](https://b.org/b.svg)](https://b.org)"
        )[0]
        == "[Colab](https://a.org/open) · [Binder](https://b.org)"
    )
    with pytest.raises(stage.StageError, match="missing.csv, which does not exist"):
        linked("[t](../bench/missing.csv)")


def headings(path):
    "The addresses of the headings of a notebook, as Jupyter makes them."
    told = "\n\n".join(c.source for c in stage.read(path).cells if c.cell_type == "markdown")
    prose = re.sub(r"```.*?```", "", told, flags=re.S)
    return {stage.slug(h.replace(" ", "-")) for h in re.findall(r"^#+ (.*)$", prose, re.M)}, prose


@pytest.mark.parametrize(
    "path", [*stage.library(), *stage.companions(), *stage.figures()], ids=lambda p: p.stem
)
def test_links_to_a_heading_find_it(path):
    for link, anchor in re.findall(r"\]\(([^)\s#:]*)#([^)\s]+)\)", headings(path)[1]):
        target = (path.parent / link).resolve() if link else path
        if target.suffix == ".ipynb":
            assert stage.slug(anchor) in headings(target)[0], f"{link}#{anchor}"


def notebook(*cells):
    picture = [nbformat.v4.new_output("display_data", {"image/png": "iVBORw0KGgo="})]
    return nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell("# Title")]
        + [nbformat.v4.new_code_cell(c, outputs=picture if "plot" in c else []) for c in cells]
    )


def test_what_only_the_machinery_needs_is_left_out_and_pictures_keep_their_words():
    linker = stage.Linker(ROOT / "nbs", "", set())
    page, missing = stage.page(
        notebook(
            "#| hide\nimport x",
            "#| default_exp y",
            "#| export\ndef f(): pass",
            "#| fig-alt: A rising line.\nplot()",
            "plot(2)",
            "#| fig-alt: A falling line.\ndraw()",
        ),
        linker,
    )
    assert [c.source for c in page.cells[1:]] == ["def f(): pass", "plot()", "plot(2)", "draw()"]
    assert page.cells[2].metadata["mystnb"]["image"]["alt"] == "A rising line."
    assert missing == [(5, "plot(2)", stage.NO_WORDS), (6, "draw()", stage.NO_PICTURE)]
    assert (
        stage.page(notebook("plot()"), linker, captions=["A caption."])[0]
        .cells[1]
        .metadata["mystnb"]["image"]["alt"]
        == "A caption."
    )


@pytest.mark.parametrize("wrong", [stage.NO_WORDS, stage.NO_PICTURE])
def test_pictures_without_words_and_words_without_a_picture_end_the_build(wrong):
    book = stage.Book("")
    book.missing = {"01_a.ipynb": [(3, "plot()", wrong)]}
    with pytest.raises(stage.StageError) as error:
        book.add_pictures()
    assert str(error.value) == f"{wrong}:\n  nbs/01_a.ipynb, cell 3: plot()"


def test_a_page_of_the_reading_path_without_any_output_ends_the_build(tmp_path, monkeypatch):
    paths = [tmp_path / f"{name}.ipynb" for name in ("01_bare", "02_shows", "03_text", "04_inner")]
    pages = [notebook("x = 1"), notebook("plot()"), notebook(), notebook("x = 1")]
    for path, page in zip(paths, pages):
        nbformat.write(page, path)
    made = {"The idea": paths[:2], "Beyond": paths[2:3], "Engineering": paths[3:]}
    assert stage.silent(made) == paths[:1]
    monkeypatch.setattr(stage, "parts", lambda pages: made)
    with pytest.raises(stage.StageError, match="no output on 01_bare.ipynb: run these pages"):
        stage.layout(tmp_path, "")


def test_figures_that_were_not_run_or_run_from_another_version_are_refused(tmp_path):
    path = stage.figures()[0]
    with pytest.raises(stage.StaleFigures, match="is not there: run `make figures`"):
        stage.executed(path, tmp_path)
    (tmp_path / "notebooks").mkdir()
    ran = nbformat.read(path, as_version=4)
    ran.cells.insert(
        2, nbformat.v4.new_code_cell("seed = 3", metadata={"tags": ["injected-parameters"]})
    )
    nbformat.write(ran, tmp_path / "notebooks" / path.name)
    assert len(stage.executed(path, tmp_path).cells) == len(ran.cells)
    ran.cells[-1].source += "\n# changed"
    nbformat.write(ran, tmp_path / "notebooks" / path.name)
    with pytest.raises(stage.StaleFigures, match="another version"):
        stage.executed(path, tmp_path)


def test_every_notebook_picture_is_described():
    "Without running anything: the committed pictures of the library's notebooks."
    lost = {
        path.name: missing
        for path in (*stage.library(), *stage.companions())
        if (missing := stage.page(nbformat.read(path, as_version=4), lambda text: text)[1])
    }
    assert lost == {}, "begin these cells with a line `#| fig-alt: ...`"


def test_the_papers_figures_show_the_claims_at_the_scale_of_the_paper():
    stems = [p.stem for p in stage.figures()]
    for stem in [s for s in stems if re.match(r"fig[1-6]_|table", s)]:
        text = stage.paper_scale(stem, stems)
        record = json.loads((stage.PAPER / f"{stem}.json").read_text())
        assert (
            text.count("\n| ") >= len(record["claims"]) > 0 and f"figures-paper-{stem}.svg" in text
        ), stem
    assert "Not run yet" in stage.paper_scale("fig99_none", [*stems, "fig99_none"])


# ---- the reference -------------------------------------------------------------------------------


def test_docstrings_are_taken_literally():
    (line,) = reference.restructured(
        "Eq. 8: |h_1|² * x_ in `n_steps`, like `infer`.", "core.inference"
    )
    link = r":py:obj:`infer <biolearn.core.inference.infer>`"
    assert line == rf"Eq. 8: \|h\_1\|² \* x\_ in \ ``n_steps``\ , like \ {link}\ ."
    given = "What.\n\nW : (n_x, n_h)\na, b : (n,)\n   and more\nThe end."
    assert reference.restructured(given, "core.model") == [
        "What.",
        "",
        "- ``W``: (n\\_x, n\\_h)",
        "- ``a, b``: (n,)",
        "  and more",
        "",
        "The end.",
    ]
    assert reference.restructured("See `a\nb` here.", "core.model") == [r"See \ ``a b``\  here."]


@pytest.mark.parametrize(
    "name", ["Random", "rng.Random", "core.rng.Random", "biolearn.core.rng.Random"]
)
def test_a_name_of_another_module_is_found(name):
    link = f":py:obj:`{name} <biolearn.core.rng.Random>`"
    assert link in reference.named(name, "core.inference")


DOCSTRING = """The states, from the pixels up.

Parameters
----------
x : (n, n_0) float32
    Pixels in [0, 1].

    See `Random`.
rng, seed
    Numbers.

Returns
-------
A list of arrays (n, n_k).

Raises
------
ValueError
    If `x` is |wrong|.

Notes
-----
Eq. 8.
"""


def test_sections_of_a_docstring_become_lists():
    link = r"\ :py:obj:`Random <biolearn.core.rng.Random>`\ "
    made = [line for line in reference.restructured(DOCSTRING, "core.inference") if line]
    assert made == [
        "The states, from the pixels up.",
        ".. rubric:: Parameters",
        "- ``x``: (n, n\\_0) float32",
        "  Pixels in [0, 1].",
        f"  See {link}.",
        "- ``rng, seed``",
        "  Numbers.",
        ".. rubric:: Returns",
        "- A list of arrays (n, n\\_k).",
        ".. rubric:: Raises",
        "- ``ValueError``",
        r"  If \ ``x``\  is \|wrong\|.",
        ".. rubric:: Notes",
        "Eq. 8.",
    ]


def test_what_is_said_of_a_field_stands_behind_it_or_in_the_lines_above(tmp_path, monkeypatch):
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "made_up.py").write_text("""
class Config:
    n_steps: int = 15  # N, steps
    delta: float = 0.1
    # how fast a state moves,
    # Eq. 8
    alpha: float = 0.001

# %% ../../nbs/01_made.ipynb #ab12
BARE = 2

# %% ../../nbs/01_made.ipynb #cd34
# how many
COUNT = 3
ALONE = (
    4,  # within
)
""")
    monkeypatch.setattr(reference, "PACKAGE", tmp_path)
    assert reference.fields("core.made_up", "Config") == [
        ("n_steps", "int", "15", "N, steps"),
        ("delta", "float", "0.1", ""),
        ("alpha", "float", "0.001", "how fast a state moves, Eq. 8"),
    ]
    where = reference.definitions("core.made_up")
    said = {name: reference.comment("core.made_up", where[name]) for name in where}
    del said["Config"]
    assert said == {"BARE": "", "COUNT": "how many", "ALONE": "within"}


@pytest.mark.parametrize("module, told", reference.modules(), ids=dict(reference.modules()))
def test_the_reference_has_every_public_name(module, told):
    page = reference.page(module, told)
    for name in importlib.import_module(f"biolearn.{module}").__all__:
        assert re.search(rf"[.` ]{name}\b", page), f"{module}.{name}"


def test_every_module_that_a_page_exports_is_in_the_reference():
    told = "\n".join(path.read_text(encoding="utf-8") for path in stage.library())
    exported = set(re.findall(r'"#\| default_exp (?!__)([\w.]+)', told))
    assert {module for module, _ in reference.modules()} == exported == set(reference.names())


def test_the_reference_begins_with_what_the_package_offers():
    page = stage.api_index(reference.modules())
    rows = re.findall(r"^\| \{py:obj\}`(\w+) <biolearn\.([\w.]+)\.(\w+)>` \| (.+) \|$", page, re.M)
    assert [name for name, *_ in rows] == biolearn.__all__
    assert all(same == name in reference.public(module) for name, module, same, _ in rows)


# ---- the pages that were built -------------------------------------------------------------------

GOOD = (
    '<html><h1>Title</h1><h2 id="a">A</h2><img src="p.png" alt="a cat"><a href="two.html#b">two</a>'
    '<a href="#a">a</a><a href="https://example.org">out</a><pre>$$</pre></html>'
)


def built(tmp_path, one=GOOD, two='<h1 id="b">Two</h1>'):
    (tmp_path / "one.html").write_text(one)
    (tmp_path / "two.html").write_text(two)
    (tmp_path / "p.png").write_bytes(b"")
    _, faults, outside, inside = check_pages.check(tmp_path)
    return faults, outside, inside


def test_pages_without_fault(tmp_path):
    assert built(tmp_path) == ([], {"https://example.org": "one.html"}, 2)


@pytest.mark.parametrize(
    "old, new, fault",
    [
        ("two.html#b", "three.html", "one.html: links to three.html, which is not there"),
        (
            "two.html#b",
            "two.html#c",
            "one.html: links to two.html#c, and there is no such place on that page",
        ),
        ("#a", "#z", "one.html: links to #z, and there is no such place on that page"),
        ("p.png", "q.png", "one.html: asks for q.png, which is not there"),
        (
            "p.png",
            "https://example.org/p.png",
            "one.html: needs another server: https://example.org/p.png",
        ),
        ('alt="a cat"', 'alt=" "', "one.html: picture without an alternative text: p.png"),
        ("h2", "h3", "one.html: heading of level 3 after one of level 1"),
        (
            "h1",
            "h2",
            "one.html: headings of levels [2, 2]...: one title of level 1 must come first",
        ),
        (
            "<pre>$$</pre>",
            r"<p>$$x$$ \frac</p>",
            r"one.html: a formula was left as LaTeX: $$x$$ \frac",
        ),
        ("<pre>", '<pre id="a">', "one.html: the id 'a' stands twice"),
    ],
)
def test_faults_of_pages(tmp_path, old, new, fault):
    assert built(tmp_path, GOOD.replace(old, new))[0] == [fault]


# ---- the strict build, on a book of three pages --------------------------------------------------

NOTES = "# Notes\n\nEqs. 1-13, Algorithms 1 and 2, Figures 1-5, $x^2$.\n"


def build(tmp_path, notes):
    "Sphinx's exit code and messages for a book that has the page on the paper and these notes."
    pytest.importorskip("sphinx", reason="Sphinx is not installed: make book installs it")
    (tmp_path / "paper.md").write_text((DOCS / "paper.md").read_text())
    (tmp_path / "notes.md").write_text(notes)
    (tmp_path / "index.md").write_text("# Book\n\n```{toctree}\npaper\nnotes\n```\n")
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "sphinx",
            "-W",
            "--keep-going",
            "-n",
            "-q",
            "-b",
            "html",
            "-c",
            DOCS,
            tmp_path,
            tmp_path / "html",
        ],
        capture_output=True,
        text=True,
    )
    return ran.returncode, ran.stderr


def test_a_strict_build_links_both_ways_and_sets_formulas(tmp_path):
    assert build(tmp_path, NOTES) == (0, "")
    notes, paper = ((tmp_path / "html" / f"{page}.html").read_text() for page in ("notes", "paper"))
    assert 'href="paper.html#eq-13"' in notes and "<msup><mi>x</mi><mn>2</mn></msup>" in notes
    assert paper.count('href="notes.html#notes"') >= 20 and "\\frac" not in re.sub(
        r'alttext="[^"]*"', "", paper
    )


def test_a_strict_build_fails(tmp_path):
    "One build with a defect of each kind: each has its line, and the exit code says failure."
    defects = {
        (
            "Figures",
            "Eq. 14, Figures",
        ): "'Notes' names Eq. 14, which the paper (docs/paper.md) does not have",
        ("1-13", "1-12"): "Eq. 13 of the paper is named by no docstring and no notebook",
        ("$x^2$", r"$\nonsense{x}$, [there](nowhere.md)"): "formula not understood: \\nonsense{x}",
    }
    notes = NOTES
    for change in defects:
        notes = notes.replace(*change)
    code, said = build(tmp_path, notes)
    assert (
        code == 1
        and [m for m in (*defects.values(), "nowhere.md") if m not in said] == []
        and said.count("WARNING") == 4
    ), said
