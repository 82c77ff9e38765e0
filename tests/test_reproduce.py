"""The runner: it refuses what would run wrongly, says where a notebook failed, leaves nothing
half-written, and tells the truth in its manifest.
"""

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbformat import v4

import biolearn
import biolearn.core.arrays as arrays_module
import biolearn.core.learning as learning
import biolearn.reproduction.figures as figures
import biolearn.reproduction.profiles as profiles
import biolearn.reproduction.report as report
import biolearn.reproduction.runs as runs_module
from biolearn.cli.main import main
from biolearn.core.arrays import Backend
from biolearn.core.priors import log_prior
from biolearn.reproduction.claims import Claim, record
from biolearn.reproduction.profiles import Profile
from biolearn.reproduction.runs import trained_run

DEFAULTS = 'profile = "quick"\nseed = 0\ndevice = "auto"\nout = ""\noverrides = {}'
RECORD = (
    "from biolearn.reproduction.claims import Claim, record\nrecord({name!r}, "
    "None, [Claim('x', 1, 2.0, True)], out=out, caption=f'{{profile}} {{seed}} "
    "{{device}}')"
)
DRAW = """from matplotlib.figure import Figure
from biolearn.reproduction.claims import Claim, record
fig = Figure(figsize=(2, 1))
_ = fig.subplots().plot([0, 1], [0, 1])
record({name!r}, fig, [Claim('<rises> & "so" | on', 'rises', 2.0, True), Claim('falls', 236, 1.25, False), Claim('a control', '–', 'x', None)],
       out=out, caption='A <picture>.', values=dict(seed=seed))"""


def notebook(folder, stem, *sources, tags=("parameters",), parameters=DEFAULTS):
    "A figure notebook with a title, a parameters cell, and the code cells `sources`."
    folder.mkdir(exist_ok=True)
    cells = [
        v4.new_markdown_cell(f"# {stem}"),
        v4.new_code_cell(parameters, metadata={"tags": list(tags)}),
        *map(v4.new_code_cell, sources),
    ]
    meta = {"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}
    nbformat.write(v4.new_notebook(cells=cells, metadata=meta), folder / f"{stem}.ipynb")


@pytest.fixture
def books(tmp_path):
    return tmp_path / "books"


@pytest.fixture
def command(tmp_path, books, capsys):
    "The `biolearn reproduce` command on toy notebooks: returns exit code, output, error output."

    def run(*argv, out=tmp_path / "out"):
        try:
            code = main(
                [
                    "reproduce",
                    "--profile",
                    "quick",
                    "--device",
                    "cpu",
                    "--out",
                    str(out),
                    "--notebooks",
                    str(books),
                    *argv,
                ]
            )
        except SystemExit as e:
            code = e.code
        return (code, *capsys.readouterr())

    return run


def start(books, out, *argv):
    "The same command in a process of its own."
    rest = ["--device", "cpu", "--out", str(out), "--notebooks", str(books), *argv]
    code = (
        f"import sys; from biolearn.cli.main import main; sys.exit(main({['reproduce', *rest]!r}))"
    )
    env = os.environ | {"PYTHONPATH": str(Path(biolearn.__file__).parent.parent)}
    return subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, env=env
    )


def wait_for(path, process):
    "Wait until `path` is there; fails if the process ends before."
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)


def files(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


# ---- refusals, before anything runs --------------------------------------------------------------


@pytest.mark.parametrize(
    "spoil, said",
    [
        (dict(tags=()), "0 cells are tagged"),
        (dict(tags=("parameter",)), "0 cells are tagged"),
        (
            dict(parameters='profile = "quick"\nseed = 0\nout = ""'),
            "does not set device, overrides",
        ),
        (dict(parameters="# nothing"), "does not set profile, seed, device, out, overrides"),
    ],
)
def test_a_notebook_that_would_ignore_its_parameters_stops_everything(
    command, books, tmp_path, spoil, said
):
    ran = f"open({str(tmp_path / 'ran')!r}, 'w').close()"
    notebook(books, "00_good", ran, RECORD.format(name="00_good"))
    notebook(books, "fig9_bad", ran, **spoil)
    code, printed, errors = command("--only", "00")  # even if the bad one is not asked for
    assert code == 1 and said in errors and "fig9_bad.ipynb" in errors and "Traceback" not in errors
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out").exists()


def test_all_problems_are_told_at_once(books):
    notebook(books, "a", tags=())
    notebook(books, "b", DEFAULTS)
    twice = nbformat.read(books / "b.ipynb", 4)
    twice.cells[2].metadata["tags"] = ["parameters"]
    nbformat.write(twice, books / "b.ipynb")
    (books / "c.ipynb").write_text("{")
    (books / "d.ipynb").write_text("")
    with pytest.raises(figures.ReproduceError) as e:
        figures.find_notebooks(books)
    assert all(
        f"{name}.ipynb: " in str(e.value) for name in "abcd"
    ) and "2 cells are tagged" in str(e.value)


def test_an_empty_folder_is_an_error(command, books):
    books.mkdir()
    code, _, errors = command()
    assert code == 1 and "no notebooks" in errors


def test_unknown_only_lists_what_exists(command, books, tmp_path):
    notebook(books, "fig1_a")
    notebook(books, "fig2_b")
    code, _, errors = command("--only", "fig1", "fig3")
    assert (
        code == 2
        and "'fig3'" in errors
        and "fig1_a, fig2_b" in errors
        and not (tmp_path / "out").exists()
    )


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["draw"],
        ["reproduce", "--seed", "-1"],
        ["reproduce", "--seed", "x"],
        ["reproduce", "--profile", "big"],
        ["reproduce", "--device", "tpu"],
        ["reproduce", "--only"],
    ],
)
def test_a_command_not_understood_exits_with_2(argv, capsys):
    with pytest.raises(SystemExit) as e:
        main(argv)
    assert e.value.code == 2 and "usage:" in capsys.readouterr().err


def test_a_figures_number_means_that_figure():
    "fig1 is not fig10 to fig14; what no notebook is called is the beginning of names."
    paths = [
        Path(f"{stem}.ipynb") for stem in ("00_train", "fig1_stdp", "fig10_spikes", "fig11_dale")
    ]
    names = lambda only: [p.stem for p in figures.select(paths, only)]
    assert names("fig1") == names("fig1_stdp") == ["fig1_stdp"]
    assert names(["fig10", "fig1"]) == ["fig1_stdp", "fig10_spikes"]
    assert names("fig") == ["fig1_stdp", "fig10_spikes", "fig11_dale"] and names(None) == [
        p.stem for p in paths
    ]
    with pytest.raises(figures.UnknownNotebook, match="begins with 'fig2'"):
        names("fig2")


def test_out_that_is_a_file_is_refused(command, books, tmp_path):
    notebook(books, "fig1_a")
    (tmp_path / "file").write_text("mine")
    code, _, errors = command(out=tmp_path / "file")
    assert code == 2 and "file is a file, and a folder is needed" in errors.splitlines()[-1]
    assert (tmp_path / "file").read_text() == "mine"


def test_a_gpu_that_is_not_there_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(arrays_module, "gpu_problem", lambda: "there is none")
    assert main(["reproduce", "--device", "gpu"]) == 1
    errors = capsys.readouterr().err
    assert "there is none" in errors and errors.count("\n") == 1


FOREIGN = [
    *("report.md", "report.html", "fig1_a.json", "fig1_a.png", "fig1_a.svg"),
    *("notebooks/fig1_a.ipynb", "notebooks/fig1_a.failed.ipynb"),
]


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_that_no_run_has_written_stops_everything_and_stays(command, books, tmp_path, name):
    ran = f"open({str(tmp_path / 'ran')!r}, 'w').close()"
    notebook(books, "fig1_a", ran, DRAW.format(name="fig1_a"))
    mine = tmp_path / "out" / name
    mine.parent.mkdir(parents=True)
    notebook(tmp_path, "mine", "my_own = 1")
    mine.write_bytes((tmp_path / "mine.ipynb").read_bytes())  # also of the right kind
    before = mine.read_bytes()
    code, _, errors = command()
    assert code == 1 and name in errors and "Move it away" in errors and "defect" not in errors
    assert mine.read_bytes() == before and files(tmp_path / "out") == {name}
    assert not (tmp_path / "ran").exists()


def test_what_runs_have_written_is_replaced_whatever_else_is_lost(command, books, tmp_path):
    "Without the manifest, and without the record of a picture that a kill has left waiting."
    notebook(books, "fig1_a", DRAW.format(name="fig1_a"))
    assert command()[0] == 0
    out = tmp_path / "out"
    (out / "manifest.json").unlink()
    assert command()[0] == 0
    (out / ".drawing-fig1_a").mkdir()
    os.replace(out / "fig1_a.json", out / ".drawing-fig1_a" / "fig1_a.json")
    assert command()[0] == 0
    (out / "report.md").write_text("a report of another version, beside its manifest")
    assert command()[0] == 0


def test_a_second_record_replaces_no_file_of_somebody_else(command, books, tmp_path):
    "Its name is known only when the notebook has run."
    (tmp_path / "out").mkdir()
    mine = tmp_path / "out" / "fig1_a_more.json"
    mine.write_text("{}")
    both = (DRAW.format(name=name) for name in ("fig1_a", "fig1_a_more"))
    notebook(books, "fig1_a", *both)
    code, _, errors = command()
    assert code == 1 and "fig1_a_more.json in" in errors and mine.read_text() == "{}"
    assert not (tmp_path / "out" / "fig1_a.json").exists()


# ---- a run that goes well ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def good_run(tmp_path_factory):
    """A good run of three notebooks, the middle one with two pictures, made once: (exit code,
    output, error output), its folder, its notebooks.
    """
    folder = tmp_path_factory.mktemp("good")
    notebook(
        folder / "books",
        "00_train",
        "import sys; print('epoch 1', file=sys.stderr)",
        RECORD.format(name="00_train"),
    )
    notebook(
        folder / "books",
        "fig1_one",
        DRAW.format(name="fig1_one"),
        DRAW.format(name="fig1_one_more"),
    )
    notebook(folder / "books", "fig2_two", DRAW.format(name="fig2_two"))
    printed, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(errors):
        code = main(
            [
                "reproduce",
                "--device",
                "cpu",
                "--seed",
                "7",
                "--profile",
                "quick",
                "--out",
                str(folder / "out"),
                "--notebooks",
                str(folder / "books"),
            ]
        )
    return (code, printed.getvalue(), errors.getvalue()), folder


@pytest.fixture
def drawn(good_run, books, tmp_path):
    "The good run, with a copy of its folders to spoil: (result of the command, output folder)."
    result, folder = good_run
    shutil.copytree(folder / "books", books)
    shutil.copytree(folder / "out", tmp_path / "out")
    return result, tmp_path / "out"


def test_a_run_writes_everything_and_the_parameters_arrive(drawn, books):
    (code, printed, errors), out = drawn
    assert code == 0
    pictures = {
        f"{n}.{s}"
        for n in ("fig1_one", "fig1_one_more", "fig2_two")
        for s in ("png", "svg", "json")
    }
    assert files(out) == pictures | {
        "00_train.json",
        "manifest.json",
        "report.html",
        "report.md",
        *(f"notebooks/{n}.ipynb" for n in ("00_train", "fig1_one", "fig2_two")),
    }
    assert (
        json.loads((out / "00_train.json").read_text())["caption"] == "quick 7 cpu"
    )  # the defaults say 0 and auto
    assert (
        "No claim of the paper was judged." in printed  # toy notebooks name no source
        and printed.rstrip().endswith("report.html")
    )
    assert re.search(r"^fig1_one$.*?^  no   falls: 1\.25  \[paper: 236\]$", printed, re.M | re.S)
    assert "epoch 1" in errors or "3/3" in errors


def test_the_manifest_says_what_was_run(drawn):
    _, out = drawn
    m = json.loads((out / "manifest.json").read_text())
    assert (m["profile"], m["seed"], m["device"], m["failed"]) == ("quick", 7, "cpu", None)
    assert m["key"] == runs_module.run_key("quick", 7, Backend()) and m["ran_now"] == [
        "00_train",
        "fig1_one",
        "fig2_two",
    ]
    assert {"python", "numpy", "matplotlib", "papermill", "biolearn"} <= m["versions"].keys()
    assert (
        m["settings"]["hidden"] == list(profiles.PROFILES["quick"].hidden) and m["left_out"] == []
    )
    assert m["seconds"] > max(e["seconds"] for e in m["notebooks"].values()) > 0
    assert list(m["pictures"]) == ["00_train", "fig1_one", "fig1_one_more", "fig2_two"]
    assert m["pictures"]["fig1_one_more"]["notebook"] == "fig1_one"
    for entry in m["pictures"].values():
        for name, sha in entry["files"].items():
            assert hashlib.sha256((out / name).read_bytes()).hexdigest() == sha
    assert [c["measured"] for c in m["pictures"]["fig2_two"]["claims"]] == [2.0, 1.25, "x"]
    assert m["revision"] is None or re.fullmatch("[0-9a-f]{40}", m["revision"]["commit"])


def test_the_reports_show_every_picture_and_claim(drawn):
    _, out = drawn
    page, text = (out / "report.html").read_text(), (out / "report.md").read_text()
    assert page.count("data:image/png;base64,") == 3 and "http" not in re.sub(
        r"data:[^\"]*", "", page
    )
    assert (
        "&lt;rises&gt; &amp; &quot;so&quot; | on" in page
        and "<rises>" not in page
        and "A &lt;picture&gt;." in page
    )
    assert (
        page.count('<td class="no"><strong>no</strong></td>') == 3
        and "prefers-color-scheme: dark" in page
        and 'name="viewport"' in page
    )
    for name in ("fig1_one", "fig1_one_more", "fig2_two"):
        assert f"![{name}]({name}.png)" in text and f'id="{name}"' in page
    assert '&lt;rises&gt; &amp; "so" \\| on' in text and "<rises>" not in text


def test_the_same_run_gives_the_same_bytes(drawn, command):
    _, out = drawn
    before = {p.name: p.read_bytes() for p in out.glob("fig*")}
    assert len(before) == 9 and command("--seed", "7")[0] == 0
    assert {p.name: p.read_bytes() for p in out.glob("fig*")} == before


def test_only_keeps_the_others_if_they_belong_to_the_run(drawn, command):
    _, out = drawn
    code, _, errors = command("--seed", "7", "--only", "fig2")
    m = json.loads((out / "manifest.json").read_text())
    assert (
        code == 0
        and m["ran_now"] == ["fig2_two"]
        and len(m["pictures"]) == 4
        and m["left_out"] == []
    )
    assert {n: e["ran_now"] for n, e in m["notebooks"].items()} == {
        "00_train": False,
        "fig1_one": False,
        "fig2_two": True,
    }
    assert "earlier run with the same key: 00_train, fig1_one" in (out / "report.md").read_text()


def test_only_leaves_out_what_belongs_to_another_run_or_was_changed(drawn, command):
    _, out = drawn
    (out / "fig1_one.png").write_bytes(b"painted over")
    command("--seed", "7", "--only", "fig2")
    m = json.loads((out / "manifest.json").read_text())
    assert (
        m["left_out"] == ["fig1_one"]
        and "fig1_one" not in m["pictures"]
        and "fig1_one_more" in m["pictures"]
    )
    command("--seed", "8", "--only", "fig2")
    m = json.loads((out / "manifest.json").read_text())
    assert list(m["pictures"]) == ["fig2_two"] and m["left_out"] == [
        "00_train",
        "fig1_one",
        "fig1_one_more",
    ]
    assert "left out: 00_train" in (out / "report.md").read_text()


# ---- a run that fails ----------------------------------------------------------------------------


def test_a_failing_cell_is_named_and_costs_nothing_that_was_there(drawn, command, books):
    _, out = drawn
    before = {p.name: p.read_bytes() for p in out.glob("fig*")}
    notebook(
        books,
        "fig1_one",
        DRAW.format(name="fig1_one"),  # another picture than before, whose notebook then fails
        "a = 2\n\n\n\n\n\n\n\nassert a == 3, 'two is not three'\nb = 0",
    )
    code, printed, errors = command("--seed", "7", "--workers", "1")  # one after the other
    assert code == 1 and "fig1_one.ipynb, cell 4 failed" in errors
    assert "AssertionError: two is not three" in errors
    assert errors.splitlines()[-1].startswith("biolearn: ")
    assert not any(word in errors for word in ("Traceback", "papermill", "assert a"))
    assert {p.name: p.read_bytes() for p in out.glob("fig*")} == before
    m = json.loads((out / "manifest.json").read_text())
    assert m["ran_now"] == ["00_train"] and "cell 4" in m["failed"]
    assert "> assert a == 3" in m["failed"] and "a = 2" not in m["failed"]
    # the pictures of before are of the same run, and still true
    assert list(m["pictures"]) == ["00_train", "fig1_one", "fig1_one_more", "fig2_two"]
    assert {n: e["ran_now"] for n, e in m["notebooks"].items()} == {
        "00_train": True,
        "fig1_one": False,
        "fig2_two": False,
    }
    assert "THE RUN FAILED" in (out / "report.md").read_text()
    assert 'class="failed"' in (out / "report.html").read_text()
    assert (out / "notebooks" / "fig1_one.failed.ipynb").exists()
    assert not [f for f in files(out) if Path(f).name.startswith(".")]
    notebook(books, "fig1_one", RECORD.format(name="fig1_one"))
    assert command("--seed", "7")[0] == 0
    assert not (out / "notebooks" / "fig1_one.failed.ipynb").exists()
    assert [p.name for p in out.glob("fig1_one*")] == ["fig1_one.json"]  # it draws nothing any more


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_killed_repeat_costs_nothing_that_was_there(drawn, books):
    _, out = drawn
    before = {p.name: p.read_bytes() for p in out.glob("fig*")}
    slow = f"open({str(out / 'started')!r}, 'w').close()\nimport time; time.sleep(60)"
    notebook(books, "fig1_one", DRAW.format(name="fig1_one"), slow)
    process = start(books, out, "--seed", "7", "--workers", "1")  # one after the other
    wait_for(out / "started", process)
    process.kill()
    process.communicate()
    (out / "started").unlink()
    assert {p.name: p.read_bytes() for p in out.glob("fig*")} == before
    m = json.loads((out / "manifest.json").read_text())  # written when 00_train was done
    assert m["ran_now"] == ["00_train"] and m["failed"] == "not finished: 1 of 3 notebooks"
    for entry in m["pictures"].values():
        for name, sha in entry["files"].items():
            assert hashlib.sha256((out / name).read_bytes()).hexdigest() == sha
    notebook(books, "fig1_one", DRAW.format(name="fig1_one"))
    again = figures.reproduce("quick", device="cpu", seed=7, out=out, notebooks=books)
    assert again["failed"] is None and len(again["pictures"]) == 3  # fig1_one_more is given up
    assert not [f for f in files(out) if Path(f).name.startswith(".")]


def test_a_syntax_error_is_named(command, books):
    notebook(books, "fig1_a", "x = = 1")
    code, _, errors = command()
    assert code == 1 and "fig1_a.ipynb, cell 3 failed" in errors and "SyntaxError" in errors


def test_a_kernel_that_dies_is_told(command, books):
    notebook(books, "fig1_a", "import os; os._exit(1)")
    code, _, errors = command()
    assert (
        code == 1 and "fig1_a.ipynb" in errors and "kernel" in errors and "Traceback" not in errors
    )


def test_a_notebook_that_records_nothing_under_its_name_fails(command, books):
    notebook(books, "fig1_a", RECORD.format(name="fig1_b"))
    code, _, errors = command()
    assert code == 1 and "fig1_a.ipynb has run but recorded nothing" in errors


def test_a_longer_name_owns_its_own_records(tmp_path):
    for name in ("fig1", "fig1_a", "fig1_a_b", "fig10"):
        record(name, None, [], out=tmp_path, caption="")
    (tmp_path / "fig1_notes.json").write_text("{}")  # somebody's own, no record
    (tmp_path / "fig1_mine.png").write_bytes(b"mine")
    stems = ("fig1", "fig1_a", "fig10")
    owned = {stem: [p.stem for p in figures.drawn_by(stem, stems, tmp_path)] for stem in stems}
    assert owned == {"fig1": ["fig1"], "fig1_a": ["fig1_a", "fig1_a_b"], "fig10": ["fig10"]}


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_is_one_line_and_130(books, tmp_path):
    started = tmp_path / "started"
    slow = f"open({str(started)!r}, 'w').close()\nimport time; time.sleep(60)"
    notebook(books, "fig1_slow", slow)
    process = start(books, tmp_path / "out")
    wait_for(started, process)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and errors.rstrip().endswith("biolearn: interrupted")
    assert "Traceback" not in errors
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["failed"] == "interrupted"


# ---- pictures and records ------------------------------------------------------------------------


def figure():
    from matplotlib.figure import Figure

    fig = Figure(figsize=(2, 2))
    ax = fig.subplots()
    ax.imshow(np.arange(9).reshape(3, 3) / 9)
    ax.plot([0, 2], [0, 2], clip_on=True)
    ax.set_title("3 × 3")
    return fig


def test_pictures_are_byte_stable_across_time_and_processes(tmp_path):
    record("a", figure(), [], out=tmp_path, caption="")
    first = {p.suffix: p.read_bytes() for p in tmp_path.iterdir()}
    code = (
        f"import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}]; import "
        "test_reproduce as t; from pathlib import Path\n"
        f"t.record('a', t.figure(), [], out=Path({str(tmp_path)!r}), caption='')"
    )
    time.sleep(1.1)  # a date in seconds would differ
    env = os.environ | {
        "PYTHONPATH": str(Path(biolearn.__file__).parent.parent),
        "PYTHONHASHSEED": "1",
    }
    subprocess.run([sys.executable, "-c", code], check=True, env=env)
    assert {p.suffix: p.read_bytes() for p in tmp_path.iterdir()} == first and set(first) == {
        ".png",
        ".svg",
        ".json",
    }
    assert b"Software" not in first[".png"] and not re.search(rb"20\d\d-\d\d-\d\d", first[".svg"])


def test_a_picture_that_cannot_be_drawn_leaves_the_record_of_before(tmp_path):
    class Broken:
        def savefig(self, file, **kw):
            Path(file).write_bytes(b"half") if isinstance(file, (str, Path)) else file.write(
                b"half"
            )
            raise RuntimeError("no ink")

    record("a", figure(), [], out=tmp_path, caption="old")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises((RuntimeError, TypeError, AttributeError)):
        record("a", Broken(), [], out=tmp_path, caption="new")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    (tmp_path / "a.gif").write_bytes(b"somebody's own")
    record("a", None, [], out=tmp_path, caption="numbers alone")
    assert files(tmp_path) == {"a.json", "a.gif"}  # only what the record named is dropped


@pytest.mark.parametrize("name", ["", "../a", "a/b", ".a", "a b", "a\n"])
def test_a_record_has_a_name_that_is_a_file_name(tmp_path, name):
    with pytest.raises(ValueError, match="file's name"):
        record(name, None, [], out=tmp_path, caption="")


def test_values_become_plain_json(tmp_path):
    claims = [Claim("c", np.float32(0.5), np.int64(3), np.bool_(False), note="n")]
    record(
        "a",
        None,
        claims,
        out=tmp_path,
        caption="c",
        values={"x": np.arange(3), 2: (np.float64(1.5), None, "é"), "claim": claims[0]},
    )
    told = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert (
        told["values"]["x"] == [0, 1, 2]
        and told["values"]["2"] == [1.5, None, "é"]
        and told["values"]["claim"]["measured"] == 3
    )
    assert told["claims"] == [
        {"name": "c", "paper": 0.5, "measured": 3, "holds": False, "note": "n"}
        | {"source": "", "margin": None}
    ]
    for bad in (np.nan, [1.0, np.inf]):
        with pytest.raises(ValueError, match="b.json"):
            record("b", None, [], out=tmp_path, caption="", values=bad)
    assert files(tmp_path) == {"a.json"}


@pytest.mark.parametrize("holds", [1, 0, 1.0, "yes", [True]])
def test_a_claim_holds_or_not(holds):
    with pytest.raises(TypeError, match="holds"):
        Claim("c", "p", 1.0, holds)


@pytest.mark.parametrize("measured", [float("nan"), float("inf"), np.float32("nan")])
def test_a_claim_is_a_finite_number(measured):
    with pytest.raises(ValueError, match="not a finite number"):
        Claim("c", "p", measured, True)


# ---- the trained model is reused exactly when it may be ------------------------------------------

TINY = replace(
    profiles.PROFILES["quick"],
    name="tiny",
    hidden=(9, 5),
    recipe=replace(profiles.PROFILES["quick"].recipe, epochs=1),
)


def arrays(run):
    return [np.asarray(w) for p in run.model.pairs for d in (p.f, p.g) for w in (d.W, d.b)] + [
        run.model.prior.mean,
        run.model.prior.var,
    ]


def test_training_happens_once(tmp_path, monkeypatch):
    first = trained_run(TINY, seed=3, device="cpu", out=tmp_path)
    assert (
        first.key == first.folder.name == runs_module.run_key(TINY, 3, Backend())
        and first.folder.parent == tmp_path / "runs"
    )
    monkeypatch.setattr(runs_module, "fit", None)
    again = trained_run(TINY, seed=3, device="cpu", out=tmp_path)
    assert (
        all(np.array_equal(a, b) for a, b in zip(arrays(first), arrays(again), strict=True))
        and first.history == again.history
    )
    assert np.array_equal(first.rng.stream("a").normal((4,)), again.rng.stream("a").normal((4,)))
    about = json.loads((first.folder / "run.json").read_text())
    assert (
        about["settings"]["hidden"] == [9, 5]
        and about["seed"] == 3
        and about["key"] == first.key
        and len(about["history"]) == 1
    )


def test_a_profile_with_a_mixture_learns_it_on_top_of_the_same_network(tmp_path):
    plain, mixed = (
        trained_run(replace(TINY, components=n), seed=3, device="cpu", out=tmp_path) for n in (0, 4)
    )
    assert (
        plain.key != mixed.key
        and plain.model.prior.weight is None
        and mixed.model.prior.mean.shape == (4, 5)
    )
    assert all(
        (a.W == b.W).all()
        for one, two in zip(plain.model.pairs, mixed.model.pairs)
        for a, b in ((one.f, two.f), (one.g, two.g))
    )
    top = np.concatenate(
        list(learning.top_states(mixed.model, mixed.dataset.train, TINY.recipe.inference))
    )
    assert float(log_prior(mixed.model.prior, top).mean()) > float(
        log_prior(plain.model.prior, top).mean()
    )


def test_same_seed_same_bits_other_seed_other_bits(tmp_path):
    a, b, c = (
        trained_run(TINY, seed=s, device="cpu", out=tmp_path / n)
        for s, n in ((1, "a"), (1, "b"), (2, "c"))
    )
    assert all(np.array_equal(x, y) for x, y in zip(arrays(a), arrays(b))) and not np.array_equal(
        arrays(a)[0], arrays(c)[0]
    )


@pytest.mark.parametrize(
    "change",
    [
        dict(name="x"),
        dict(dataset="mnist"),
        dict(hidden=(9, 6)),
        dict(units=("relu", "softplus", "sigmoid")),
        dict(n_samples=7),
        dict(sigma=0.21),
        dict(recipe=replace(TINY.recipe, alpha=0.0011)),
    ],
)
def test_a_changed_setting_changes_the_key(change):
    assert runs_module.run_key(replace(TINY, **change), 0, Backend()) != runs_module.run_key(
        TINY, 0, Backend()
    )


def test_another_version_of_the_algorithm_changes_the_key_and_a_changed_comment_does_not(
    tmp_path, monkeypatch
):
    """The key names what was imported: a number that is raised by hand (tests/test_golden.py says
    when).
    """
    package = Path(biolearn.__file__).parent
    shutil.copytree(package, tmp_path / "biolearn", ignore=shutil.ignore_patterns("__pycache__"))
    with open(tmp_path / "biolearn" / "core" / "learning.py", "a") as file:
        file.write("\n# changed\n")
    code = (
        "from biolearn.reproduction.runs import run_key; from "
        "biolearn.core.arrays import Backend; print(run_key('quick', 0, "
        "Backend()))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    key = runs_module.run_key("quick", 0, Backend())
    assert found.stdout.strip() == key
    monkeypatch.setattr(runs_module, "ALGORITHM", runs_module.ALGORITHM + 1)
    assert runs_module.run_key("quick", 0, Backend()) != key


def test_a_failed_training_leaves_no_run(tmp_path, monkeypatch):
    def broken(*args, **kw):
        raise ArithmeticError("diverged")

    monkeypatch.setattr(runs_module, "save_model", broken)
    with pytest.raises(ArithmeticError):
        trained_run(TINY, device="cpu", out=tmp_path)
    assert {Path(f).suffix for f in files(tmp_path)} <= {".safetensors", ".lock", ""} and not list(
        tmp_path.rglob("run.json")
    )
    monkeypatch.undo()
    assert trained_run(TINY, device="cpu", out=tmp_path).history and [
        p.suffix for p in (tmp_path / "runs").iterdir()
    ] == [""]  # the same call goes on


def test_two_trainings_at_once_keep_one_whole_model(tmp_path):
    runs = []

    def one():
        runs.append(trained_run(TINY, device="cpu", out=tmp_path))

    threads = [threading.Thread(target=one) for _ in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(runs) == 2 and all(np.array_equal(a, b) for a, b in zip(*map(arrays, runs)))
    assert [p.name for p in (tmp_path / "runs").iterdir()] == [runs[0].key]


def test_a_damaged_model_is_named(tmp_path):
    run = trained_run(TINY, device="cpu", out=tmp_path)
    (run.folder / "model.safetensors").write_bytes(b"x" * 20)
    with pytest.raises(ValueError, match="model.safetensors"):
        trained_run(TINY, device="cpu", out=tmp_path)


@pytest.mark.parametrize("profile", ["huge", "", None, 3])
def test_unknown_profiles_are_refused(profile):
    with pytest.raises(ValueError, match="profile must be one of 'quick', 'paper'"):
        profiles.get_profile(profile)


# ---- changes -------------------------------------------------------------------------------------


def test_changes_reach_profile_and_recipe_and_the_key():
    made = profiles.get_profile(
        "quick", {"hidden": [30, 10], "delta": 0.05, "rate_f": [0.1, 0.2], "noise_end": None}
    )
    assert (made.hidden, made.recipe.delta, made.recipe.rate_f, made.recipe.noise_end) == (
        (30, 10),
        0.05,
        (0.1, 0.2),
        None,
    )
    quick = profiles.PROFILES["quick"]
    assert (
        replace(made, hidden=quick.hidden, recipe=quick.recipe)
        == quick
        == profiles.get_profile("quick", {})
        == profiles.get_profile("quick")
    )
    assert (
        profiles.get_profile(
            "quick",
            {
                k: list(v) if isinstance(v, tuple) else v
                for k, v in profiles.changeable("quick").items()
            },
        )
        == quick
    )  # every field can be named
    keys = {
        runs_module.run_key(profiles.get_profile("quick", c), 0, Backend())
        for c in (
            {},
            {"delta": 0.1},
            {"delta": 0.05},
            {"sigma": 0.3},
            {"noise": [0.22, 0.2, "spikes"]},
        )
    }
    assert len(keys) == 4  # 0.1 is what the profile has: the same run


@pytest.mark.parametrize(
    "overrides, said",
    [
        ({"dleta": 0.1}, "no field 'dleta'; there are dataset, hidden"),
        ({"name": "x"}, "no field 'name'"),
        ({"recipe": {}}, "no field 'recipe'"),
        ({"delta": "0.1"}, "delta must be a number"),
        ({"delta": -1}, "delta must be at least 0"),
        ({"delta": [0.1]}, "delta must be a single value"),
        ({"alpha": 2}, "alpha"),
        ({"noise": 0.1}, "noise must be a list"),
        ({"noise": [0.1, 0.1]}, "noise"),
        ({"rate_f": [1e-3]}, "rate_f needs 2 entries for 2 hidden layers"),
        ({"rate_g": [1e-3]}, "rate_g needs 2 entries for 2 hidden layers"),
        ({"hidden": [20]}, "units needs 2 entries for 1 hidden layers"),
        ({"hidden": [20, 0]}, "hidden must be at least 1"),
        ({"units": ["sigmoid", "softplus", "bold"]}, "units must be one of"),
        ({"dataset": "faces"}, "dataset must be one of"),
        ({"epochs": 1.5}, "epochs must be a whole number"),
        ({"decay": "no"}, "decay must be True or False"),
        ({"threads": -1}, "threads"),
        ({"sigma": 0}, "sigma"),
        ({"noise_end": 0.2}, "noise_end"),
        ({"rate_g": [1e-3, float("nan")]}, "learning rate"),
        ("delta", "must be a dict"),
        ([], "must be a dict"),
    ],
)
def test_wrong_changes_are_refused_before_any_work(overrides, said, tmp_path):
    for work in (
        lambda: profiles.get_profile("quick", overrides),
        lambda: trained_run("quick", device="cpu", out=tmp_path / "out", overrides=overrides),
        lambda: figures.reproduce("quick", device="cpu", out=tmp_path / "out", overrides=overrides),
    ):
        with pytest.raises((ValueError, TypeError), match=re.escape(said)):
            work()
    assert not (tmp_path / "out").exists()


def test_changes_arrive_in_the_notebook_and_in_the_manifest(books, tmp_path):
    notebook(
        books,
        "fig1_a",
        "assert overrides == {'delta': 0.05, 'hidden': [30, 10]}",
        RECORD.format(name="fig1_a"),
    )
    given = {"delta": 0.05, "hidden": (30, 10)}
    m = figures.reproduce(
        "quick", device="cpu", out=tmp_path / "out", notebooks=books, overrides=given
    )
    told = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert (
        told["overrides"] == {"delta": 0.05, "hidden": [30, 10]}
        and told["settings"]["recipe"]["delta"] == 0.05
    )
    assert (
        m["key"] == runs_module.run_key(profiles.get_profile("quick", given), 0, Backend())
        and "delta = 0.05" in (tmp_path / "out" / "report.md").read_text()
    )


# ---- kernels beside each other -------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="no socket files")
def test_kernels_started_together_share_no_port_and_leave_no_socket(books, tmp_path):
    tell = (
        "import json, pathlib\nfrom ipykernel.connect import get_connection_file\n"
        "pathlib.Path(out, "
        "'told.json').write_text(pathlib.Path(get_connection_file()).read_text())\n"
    )
    notebook(books, "fig1_a", tell, RECORD.format(name="fig1_a"))
    outs = [tmp_path / str(n) for n in range(4)]
    for out in outs:
        out.mkdir()
    errors = []

    def one(out):
        try:
            figures.run_notebook(
                books / "fig1_a.ipynb",
                dict(profile="quick", seed=0, device="cpu", out=str(out), overrides={}),
                out,
            )
        except Exception as e:
            errors.append(e)

    threads = [threading.Thread(target=one, args=(out,)) for out in outs]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors
    told = [json.loads((out / "told.json").read_text()) for out in outs]
    assert {t["transport"] for t in told} == {"ipc"} and len({t["ip"] for t in told}) == 4
    assert not any(Path(t["ip"]).parent.exists() for t in told)


def test_a_kernel_keeps_nothing_of_one_notebook_for_the_next(books, tmp_path):
    "Two notebooks in one kernel: what the first sets, the second does not find."
    tell = "import os, pathlib\npathlib.Path(out, {0!r}).write_text(str(os.getpid()))"
    leave = (
        "import matplotlib.pyplot as plt, os\n"
        "mine = 1\nplt.rcParams['lines.linewidth'] = 99\nfigure = plt.figure()"
    )
    find = (
        "import matplotlib.pyplot as plt\n"
        "assert 'mine' not in globals() and '_ih' in globals()\n"
        "assert plt.rcParams['lines.linewidth'] == plt.rcParamsDefault['lines.linewidth']\n"
        "assert not plt.get_fignums()"
    )
    notebook(books, "fig1_a", tell.format("a"), leave, RECORD.format(name="fig1_a"))
    notebook(books, "fig1_b", tell.format("b"), find, RECORD.format(name="fig1_b"))
    figures.reproduce("quick", device="cpu", out=tmp_path / "o", notebooks=books, workers=1)
    assert (tmp_path / "o" / "a").read_text() == (tmp_path / "o" / "b").read_text()


MEET = (
    "import pathlib, time\npathlib.Path(out, {mine!r}).touch()\n"
    "while not pathlib.Path(out, {other!r}).exists():\n    time.sleep(0.05)"
)


def test_two_notebooks_run_at_a_time(books, tmp_path):
    "Each waits for the other: one after the other they would wait for ever."
    for mine, other in ("ab", "ba"):
        meet = MEET.format(mine=mine, other=other)
        notebook(books, f"fig1_{mine}", meet, RECORD.format(name=f"fig1_{mine}"))
    made = figures.reproduce(
        "quick", device="cpu", out=tmp_path / "o", notebooks=books, workers=2, cell_limit=120
    )
    assert list(made["pictures"]) == ["fig1_a", "fig1_b"] and made["failed"] is None
    assert made["peak_memory_mib"] > 50  # of the kernels, which have been waited for


def test_a_failure_ends_the_notebooks_beside_it(books, tmp_path):
    notebook(books, "fig1_a", MEET.format(mine="a", other="b"), "assert False, 'on purpose'")
    forever = "while True:\n    pass"
    tell = "import os\npathlib.Path(out, 'pid').write_text(str(os.getpid()))"
    notebook(books, "fig1_b", "import pathlib", tell, MEET.format(mine="b", other="a"), forever)
    with pytest.raises(figures.NotebookFailed, match=r"fig1_a.ipynb, cell 4 .*on purpose"):
        figures.reproduce("quick", device="cpu", out=tmp_path / "o", notebooks=books, workers=2)
    assert "on purpose" in json.loads((tmp_path / "o" / "manifest.json").read_text())["failed"]
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "o" / "pid").read_text()), 0)


def test_the_notebooks_that_take_longest_begin_first():
    stems = ["00_train", "fig1_stdp", "fig2_target_propagation", "fig6_ablations", "table2_seeds"]
    turns = [path.stem for path in figures._in_turn(Path(f"{stem}.ipynb") for stem in stems)]
    assert turns == [*figures._LONGEST, "fig1_stdp"]
    there = {path.stem for path in figures.find_notebooks(figures.notebook_folder())}
    assert set(figures._LONGEST) <= there


def test_the_bar_names_all_that_run_and_shows_the_last_line_of_the_first():
    said = []
    bar = type(
        "Bar",
        (),
        {
            "set_postfix_str": lambda self, text, refresh: said.append(("line", text)),
            "set_description": lambda self, text: said.append(("names", text)),
            "refresh": lambda self: None,
        },
    )
    board = figures._Board(bar(), interval=0.0)
    with board.running_now("fig1") as one, board.running_now("fig2") as two:
        two.write("of the second")
        one.write("of the first")
    lines = [text for kind, text in said if kind == "line" and text]
    names = [text for kind, text in said if kind == "names"]
    assert lines == ["of the first"] and names == ["fig1", "fig1, fig2", "fig1", "figures"]


@pytest.mark.skipif(os.name == "nt", reason="users of Unix")
def test_a_user_without_a_home_folder_can_run_notebooks(books, tmp_path):
    "No HOME, and a user whom the system does not know: as in many containers."
    unknown = "import pwd\ndef nobody(uid): raise KeyError(uid)\npwd.getpwuid = nobody\n"
    (tmp_path / "sitecustomize.py").write_text(unknown)
    homeless = "import pathlib, pytest\nwith pytest.raises(RuntimeError): pathlib.Path.home()"
    notebook(books, "00_toy", homeless, RECORD.format(name="00_toy"))
    code = (
        "import biolearn.reproduction.figures as figures\n"
        f"figures.reproduce('quick', device='cpu', out='made', notebooks={str(books)!r})"
    )
    path = f"{Path(biolearn.__file__).parent.parent}{os.pathsep}{tmp_path}"
    env = {name: value for name, value in os.environ.items() if name != "HOME"}
    where = tmp_path / "where"
    where.mkdir()
    made = subprocess.run(
        [sys.executable, "-c", code],
        cwd=where,
        env=env | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    assert json.loads((where / "made" / "manifest.json").read_text())["failed"] is None
    assert [p.name for p in where.iterdir()] == ["made"]  # no folder called ~


# ---- where things go, and small pieces -----------------------------------------------------------


def test_output_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        runs_module.output_folder("a/b") == tmp_path.resolve() / "a" / "b"
        and (tmp_path / "a" / "b").is_dir()
    )
    monkeypatch.setattr(runs_module, "checkout", lambda: None)
    assert runs_module.output_folder("", "paper") == tmp_path.resolve() / "figures" / "paper"
    monkeypatch.setattr(runs_module, "checkout", lambda: tmp_path / "repository")
    assert runs_module.output_folder() == tmp_path.resolve() / "repository" / "figures" / "quick"


@pytest.mark.parametrize("booted", [0.0, 1e-3, 1e6])  # the clock's origin is arbitrary
def test_the_last_line_of_a_stream_is_shown(monkeypatch, booted):
    shown = []
    monkeypatch.setattr(figures.time, "monotonic", lambda: booted)

    class Bar:
        def set_postfix_str(self, text, refresh):
            shown.append(text)

        def refresh(self):
            shown.append("refresh")

    stream = figures._LastLine(Bar(), interval=1000.0)
    for text in ("\rone", "", "\n", "two\nthree\r\x1b[Kfour \x1b[A\r\n", "x" * 500):
        stream.write(text)
    stream.flush()
    assert [s for s in shown if s != "refresh"] == ["one", "four", "x" * 100] and shown.count(
        "refresh"
    ) == 1


def test_kernels_import_this_very_package_and_find_the_data(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BIOLEARN_DATA", "here")
    monkeypatch.setenv("PYTHONPATH", "mine")
    env = figures.kernel_environment()
    assert env["BIOLEARN_DATA"] == str(tmp_path.resolve() / "here")
    assert env["PYTHONPATH"].split(os.pathsep) == [
        str(Path(biolearn.__file__).resolve().parent.parent),
        str(tmp_path.resolve() / "mine"),
    ]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", "mine", ""]))  # empty: the current folder
    assert figures.kernel_environment()["PYTHONPATH"] == env["PYTHONPATH"]
    assert env["PYTHONSAFEPATH"] == "1"
    monkeypatch.setenv("PYTHONPATH", "mine")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    assert (
        figures.kernel_environment(threads=1)["OPENBLAS_NUM_THREADS"] == "1"
        and "OPENBLAS_NUM_THREADS" not in figures.kernel_environment()
    )
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    assert "OPENBLAS_NUM_THREADS" not in figures.kernel_environment(
        threads=1
    )  # the user has chosen
    with figures._environ({"PYTHONPATH": "x", "BIOLEARN_NEW": "y"}):
        assert (os.environ["PYTHONPATH"], os.environ["BIOLEARN_NEW"]) == ("x", "y")
    assert os.environ["PYTHONPATH"] == "mine" and "BIOLEARN_NEW" not in os.environ


def test_git_revision(monkeypatch, tmp_path):
    monkeypatch.setattr(report, "checkout", lambda: None)
    assert report.git_revision() is None
    monkeypatch.setattr(report, "checkout", lambda: tmp_path)
    assert report.git_revision() is None
    if not shutil.which("git"):
        pytest.skip("no git")

    def git(*args):
        subprocess.run(
            [
                "git",
                "-C",
                str(tmp_path),
                "-c",
                "user.name=t",
                "-c",
                "user.email=t@example.org",
                *args,
            ],
            check=True,
            capture_output=True,
        )

    git("init", "-q")
    assert report.git_revision() is None  # no commit yet
    (tmp_path / "figures").mkdir()
    for name in ("code", "figures/picture"):
        (tmp_path / name).write_text("1")
    git("add", ".")
    git("commit", "-qm", "first")
    assert (
        re.fullmatch("[0-9a-f]{40}", report.git_revision()["commit"])
        and report.git_revision()["dirty"] is False
    )
    (tmp_path / "figures" / "picture").write_text("2")
    assert report.git_revision()["dirty"] is False  # a redrawn picture is not a change of code
    (tmp_path / "code").write_text("2")
    assert report.git_revision()["dirty"] is True


def test_profiles_are_the_papers():
    paper, quick = profiles.PROFILES["paper"], profiles.PROFILES["quick"]
    assert (paper.dataset, paper.sizes(784), paper.units) == (
        "mnist",
        (784, 1000, 100),
        ("sigmoid", "softplus", "sigmoid"),
    )
    assert (
        paper.recipe.epochs,
        paper.recipe.batch_size,
        paper.recipe.n_steps,
        paper.recipe.delta,
        paper.recipe.alpha,
    ) == (20, 100, 15, 0.1, 0.001)
    assert (paper.n_samples, paper.sigma) == (10_000, 0.2) and quick.dataset == "digits"
    assert (paper.components, paper.rounds) == (0, 3) and profiles.PROFILES["mixture"] == replace(
        paper, name="mixture", components=1000, rounds=0
    )
    for p in (paper, quick):
        assert isinstance(p, Profile) and len(p.units) == len(p.hidden) + 1
