"""What stands in a folder of figures, and whose it is: records say what made them, stored
measurements say so, a folder has one owner, and nothing that lies in it is run.
"""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pytest
from test_reproduce import DEFAULTS, DRAW, RECORD, files, notebook, start, wait_for

import biolearn.reproduction.figures as figures
import biolearn.reproduction.measurements as measurements
import biolearn.reproduction.report as report
import biolearn.reproduction.runs as runs
from biolearn.cli.main import main
from biolearn.core.arrays import Backend
from biolearn.core.files import UsageError
from biolearn.plotting import LiveCurves
from biolearn.reproduction.claims import Claim, read_record, record
from biolearn.reproduction.figures import ReproduceError, reproduce
from biolearn.reproduction.measurements import STORED, find_measurements
from biolearn.reproduction.profiles import PROFILES

PAPER, QUICK = PROFILES["paper"], PROFILES["quick"]
ROOT = runs.checkout()
NOTEBOOKS = sorted((ROOT / "nbs" / "figures").glob("*.ipynb"))


@pytest.fixture
def books(tmp_path):
    return tmp_path / "books"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def toys(books, out, only=None, seed=0, **settings):
    return reproduce("quick", only, "cpu", seed, out, notebooks=books, **settings)


def told(out):
    return json.loads((out / "manifest.json").read_text(encoding="utf-8"))


# ---- measured here, or stored --------------------------------------------------------------------


def code_of(path):
    cells = nbformat.read(path, 4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "code")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_figure_that_draws_stored_measurements_is_in_the_table_and_says_what_made_it(path):
    code = code_of(path)
    asked = re.findall(r"find_measurements\(\s*\"(\w+)\"", code)
    assert asked == [path.stem] * (path.stem in STORED)
    assert code.count("made_by=") >= code.count("\nrecord(") > 0
    assert "json.loads" not in code  # what is read is read, checked and named in one place


@pytest.mark.parametrize("stem", STORED)
def test_stored_measurements_are_found_for_any_folder_and_name_commit_and_date(stem, tmp_path):
    measured = find_measurements(stem, "paper", tmp_path / "new")
    assert measured.path == ROOT / "figures" / "paper" / STORED[stem].path
    assert measured.made_by["stored"] == STORED[stem].path
    assert re.fullmatch("[0-9a-f]{40}", measured.made_by["commit"])
    assert re.search(r"Not measured in this run.*commit [0-9a-f]{12} of 20\d\d-", measured.sentence)
    assert not (tmp_path / "new").exists()


def test_the_index_is_that_of_the_files():
    index = json.loads((ROOT / "figures" / "paper" / "measurements.json").read_text())
    assert index.keys() == {source.path for source in STORED.values()}
    for path, entry in index.items():
        assert entry["sha256"] == measurements.fingerprint(ROOT / "figures" / "paper" / path), path


@pytest.mark.parametrize("stem", STORED)
def test_other_settings_have_no_stored_measurements_and_are_refused_before_any_work(stem, tmp_path):
    for profile, overrides in (("mixture", None), ("paper", {"sigma": 0.3})):
        with pytest.raises(ReproduceError, match=f"(?s){stem} is not measured.*experiments"):
            reproduce(profile, [stem], "cpu", out=tmp_path / "out", overrides=overrides)
    with pytest.raises(ReproduceError, match="profile paper as it is"):
        reproduce("mixture", [stem], "cpu", out=tmp_path / "out", remeasure=True)
    assert not (tmp_path / "out").exists()


def test_what_was_measured_into_the_folder_goes_before_what_is_stored(tmp_path):
    stored = (ROOT / "figures/paper/biology/spikes.json").read_bytes()
    for folder, text in (("", b'{"seeds": {}}'), ("remeasured", b"{}"), ("remeasured", stored)):
        path = tmp_path / folder / "biology" / "spikes.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
        measured = find_measurements("fig10_spikes", "paper", tmp_path)
        assert measured.path == path and ("stored" in measured.made_by) == (text == stored)
    with pytest.raises(ReproduceError):  # they are of the paper's profile
        find_measurements("fig10_spikes", "mixture", tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '"seeds"', "{}", "[" * 100_000])
def test_measurements_of_another_shape_are_named(tmp_path, text):
    path = tmp_path / "spikes.json"
    path.write_text(text)
    with pytest.raises(ReproduceError, match=r"spikes\.json holds no measurements"):
        measurements.Measured(path, {}).read("seeds")


def test_measuring_again_runs_the_commands_once_and_goes_on_after_a_failure(tmp_path, monkeypatch):
    out, log, room = (tmp_path / name for name in ("out", "log", "room"))
    programs = {
        "note": f"open({str(log)!r}, 'a').write('x')",
        "fail": f"import os, sys; sys.exit(not os.path.exists({str(room)!r}))",
        "write": "import sys; open(sys.argv[1], 'w').write('{\"seeds\": {}}')",
    }
    for name, program in programs.items():
        (tmp_path / f"{name}.py").write_text(program)
    commands = tuple(f"python {tmp_path / name}.py {{at}}" for name in programs)
    source = replace(STORED["fig10_spikes"], commands=commands)
    monkeypatch.setitem(STORED, "fig10_spikes", source)
    monkeypatch.setitem(STORED, "fig11_dale", source)  # the same commands: once
    with pytest.raises(ReproduceError, match="ended with status 1.*goes on from there"):
        measurements.measure_again(["fig10_spikes", "fig11_dale", "00_train"], out)
    room.touch()
    measurements.measure_again(["fig10_spikes", "fig11_dale", "00_train"], out)
    assert log.read_text() == "xx"
    assert find_measurements("fig10_spikes", "paper", out).path.parent.parent == out / "remeasured"


def test_measuring_again_needs_the_repository_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(measurements, "checkout", lambda: None)
    with pytest.raises(ReproduceError, match="--remeasure needs the experiments.*clone"):
        reproduce("paper", ["fig10"], "cpu", out=tmp_path / "out", remeasure=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stem", STORED)
def test_the_commands_that_measure_again_are_commands(stem, tmp_path):
    for line in measurements._commands(STORED[stem], tmp_path):
        program, *rest = line.split()
        if program == "python":
            module, flags = rest[1].removeprefix("experiments."), set(re.findall(r"--\w+", line))
            files = (ROOT / "experiments" / f"{name}.py" for name in (module, "__init__"))
            source = "".join(file.read_text(encoding="utf-8") for file in files)
            assert all(f'"{flag}"' in source for flag in flags), (line, flags)
        else:
            assert program == "biolearn" and rest[0] == "experiments"


# ---- records say what made them ------------------------------------------------------------------


def test_a_record_of_another_run_is_not_in_the_manifest_and_is_named(books, out):
    notebook(books, "fig1_true", RECORD.format(name="fig1_true"))
    other = "made_by='quick-seed3-cpu-0123456789ab'"
    notebook(
        books,
        "fig2_other",
        RECORD.format(name="fig2_other").replace("out=out", f"out=out, {other}"),
    )
    stored = "made_by=dict(stored='x.json', seeds='7 and 8', commit='0' * 40, date='2026-01-01')"
    notebook(
        books, "fig3_old", RECORD.format(name="fig3_old").replace("out=out", f"out=out, {stored}")
    )
    m = toys(books, out, seed=5)
    key = runs.run_key("quick", 5, Backend())
    assert m["key"] == key and list(m["pictures"]) == ["fig1_true", "fig3_old"]
    assert m["pictures"]["fig1_true"]["made_by"] == {"key": key}
    assert read_record(out / "fig1_true.json").made_by == {"key": key}
    assert m["left_out"] == ["fig2_other"]
    assert "quick-seed3" in m["left_out_because"]["fig2_other"]
    text, page = (out / "report.md").read_text(), (out / "report.html").read_text()
    for said in (text, page):
        assert "left out: fig2_other, made by the run quick-seed3" in said
        assert "of other seeds: fig3_old" in said and "seeds 7 and 8" in said
        assert f"Measured by the run {key}" in said


def test_a_run_that_only_draws_what_is_stored_does_not_claim_its_seed(books, out):
    stored = "made_by=dict(stored='x.json', seeds='7 and 8', commit='0' * 40, date='2026-01-01')"
    notebook(
        books, "fig10_a", RECORD.format(name="fig10_a").replace("out=out", f"out=out, {stored}")
    )
    m = toys(books, out, seed=5)
    assert m["pictures"]["fig10_a"]["made_by"]["seeds"] == "7 and 8"
    assert "Measured with that" not in (out / "report.md").read_text()


def test_records_of_papermill_alone_are_told_apart(books, out):
    "Drawn into the folder by something else, they are not what the manifest before described."
    notebook(books, "fig1_a", RECORD.format(name="fig1_a"))
    notebook(books, "fig2_b", RECORD.format(name="fig2_b"))
    toys(books, out)
    record("fig1_a", None, [], out=out, caption="by hand")
    record("fig9_z", None, [], out=out, caption="nobody's")
    m = toys(books, out, "fig2")
    assert m["left_out"] == ["fig1_a", "fig9_z"]
    assert m["left_out_because"]["fig9_z"] == "it does not say which run made it"


def test_files_that_are_no_records_are_left_alone(books, out):
    notebook(books, "fig1_a", DRAW.format(name="fig1_a"))
    toys(books, out)
    mine = {"fig1_a_seed0.png": b"mine", "fig1_a_notes.json": b"{}", "supervised.json": b"[1]"}
    for name, content in mine.items():
        (out / name).write_bytes(content)
    m = toys(books, out)
    assert {name: (out / name).read_bytes() for name in mine} == mine
    assert m["left_out"] == [] and list(m["pictures"]) == ["fig1_a"]


def test_the_committed_manifest_accounts_for_every_record():
    folder = ROOT / "figures" / "paper"
    m = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    records = {p.stem for p in folder.glob("*.json") if read_record(p) is not None}
    assert records == {*m["pictures"], *m["left_out"]}
    for entry in m["pictures"].values():
        assert report._intact(entry, folder)


# ---- a manifest or a record of another shape -----------------------------------------------------

SHAPES = [
    "",
    "{",
    "[]",
    "null",
    "3",
    '"text"',
    "{}",
    "[" * 100_000,
    '{"key": KEY, "pictures": [], "notebooks": {}}',
    '{"key": KEY, "pictures": null, "notebooks": {}}',
    '{"key": KEY, "pictures": {"fig1_a": null}, "notebooks": {}}',
    '{"key": KEY, "pictures": {"fig1_a": {"notebook": "fig1_a"}}, "notebooks": {}}',
    '{"key": KEY, "pictures": {"fig1_a": {"notebook": "fig1_a", "files": {}, "caption": "", '
    '"claims": []}}, "notebooks": {}}',
    '{"key": KEY, "pictures": {"fig1_a": {"notebook": "fig1_a", "files": [], "caption": "", '
    '"claims": []}}, "notebooks": {"fig1_a": {"seconds": 1}}}',
    '{"key": KEY, "pictures": {"fig1_a": {"notebook": "fig1_a", "files": {}, "caption": 3, '
    '"claims": []}}, "notebooks": {"fig1_a": {"seconds": 1}}}',
    '{"key": KEY, "pictures": {"fig1_a": {"notebook": "fig1_a", "files": {}, "caption": "", '
    '"claims": [3]}}, "notebooks": {"fig1_a": {"seconds": "soon"}}}',
    '{"key": 3, "pictures": {}, "notebooks": {}}',
]


@pytest.fixture(scope="module")
def one_book(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one") / "books"
    notebook(folder, "fig1_a")
    notebook(folder, "fig2_b")
    return folder


@pytest.mark.parametrize("text", SHAPES)
def test_a_manifest_of_another_shape_is_told_and_replaced(one_book, out, text, monkeypatch, capsys):
    def quick_run(path, parameters, out, **settings):
        record(path.stem, None, [], out=out, caption="", made_by=settings["key"])

    monkeypatch.setattr(figures, "run_notebook", quick_run)
    out.mkdir()
    (out / "manifest.json").write_text(
        text.replace("KEY", json.dumps(runs.run_key("quick", 0, Backend())))
    )
    argv = ["--device", "cpu", "--out", str(out), "--notebooks", str(one_book), "--only", "fig2"]
    assert main(["reproduce", *argv]) == 0
    said = capsys.readouterr().err
    assert "defect" not in said and "manifest.json is no manifest" in said
    assert list(told(out)["pictures"]) == ["fig2_b"]


def test_what_notebooks_say_is_text_in_every_report(out):
    out.mkdir()
    bad = "<script>alert(1)</script> a|b\nnext\r\n# title\u2028line <img src=x>"
    record("fig1_a", None, [Claim(bad, bad, bad, True, bad)], out=out, caption=bad, made_by="k")
    about = dict(profile="<b>", overrides={"<i>": "<i>"}, seed=3, device="cpu", key="k", keys=["k"])
    about |= dict(revision=None, versions={"<u>": "1"}, seconds=1.0)
    m = report.write_manifest(
        out, about=about, seconds={"fig1_a": 1.0}, stems=["fig1_a"], failed=f"{bad}"
    )
    text, page = report.report_markdown(m), report.report_html(m, out)
    for said in (text, page):
        assert not re.search(r"<(script|img src=x|b|i|u)>", said)
    rows = [line for line in text.splitlines() if line.startswith("| Figure 1: a: &lt;script")]
    assert len(rows) == 1 and len(re.findall(r"(?<!\\)\|", rows[0])) == 6
    assert not re.search(r"(?m)^# title|^next", text)


# ---- a folder has one owner ----------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_folder_has_one_owner_while_a_command_runs(books, out, tmp_path):
    slow = f"open({str(tmp_path / 'started')!r}, 'w').close()\nimport time; time.sleep(60)"
    notebook(books, "fig1_a", slow, RECORD.format(name="fig1_a"))
    process = start(books, out, "--seed", "1")
    try:
        wait_for(tmp_path / "started", process)
        with pytest.raises(ReproduceError, match="Another biolearn command is writing.*--out"):
            toys(books, out, seed=2)
        before = files(out)
        second = start(books, out, "--seed", "2")
        said = second.communicate(timeout=60)[1]
        assert second.returncode == 1 and said.count("\n") == 1 and "Another biolearn" in said
        assert files(out) == before
    finally:
        process.kill()
        process.communicate()
    notebook(books, "fig1_a", RECORD.format(name="fig1_a"))
    assert toys(books, out, seed=2)["failed"] is None  # the lock of a process that died is open
    assert not [name for name in files(out) if Path(name).name.startswith(".")]


# ---- places --------------------------------------------------------------------------------------

ADDRESSES = ["s3://bucket/x", "gs://bucket", "gcs://b/c", "https://example.org/x", "memory://a"]


@pytest.mark.parametrize("address", [*ADDRESSES, "file:///tmp/x", Path("s3://bucket/x")])
def test_an_address_is_refused_wherever_a_folder_is_written(
    address, books, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    notebook(books, "fig1_a")
    before = files(tmp_path)
    for work in (
        lambda: runs.output_folder(address),
        lambda: runs.trained_run("quick", device="cpu", out=address),
        lambda: toys(books, address),
        lambda: find_measurements("fig10_spikes", "paper", address),
    ):
        with pytest.raises(UsageError, match="is an address.*biolearn sweep"):
            work()
    for command in (["reproduce", "--device", "cpu"], ["train", "--device", "cpu"]):
        with pytest.raises(SystemExit) as e:
            main([*command, "--out", str(address)])
        assert e.value.code == 2 and "is an address" in capsys.readouterr().err
    assert files(tmp_path) == before and not list(tmp_path.glob("*:*"))


@pytest.mark.parametrize("path", ["C:/figures", "a:b", "a/s3:/b", "s3:", "~"])
def test_what_only_looks_like_an_address_is_a_path(path):
    assert runs.local_path(path) == Path(path).expanduser()


# ---- parameters ----------------------------------------------------------------------------------

SETS = [
    'profile: str = "quick"\nseed: int | None = 0\ndevice: str = "auto"\nout: "str" = ""\n'
    "overrides: dict[str, float] = {}",
    'profile, seed = "quick", 0\ndevice, *_ = ("auto",)\n(out, [overrides]) = ("", [{}])',
    'profile = name = "quick"\nseed = 0; device = "auto"\nif True:\n    out = ""\n'
    "with open('/dev/null') as overrides:\n    pass",
    '%matplotlib inline\nprofile = "quick"\nseed = 0\ndevice = "auto"\nout = ""\n'
    "for overrides in [{}]:\n    pass",
    '(profile := "quick")\nseed = 0\ndevice = "auto"\nout = ""\noverrides = {}',
]
LACKING = [
    (DEFAULTS.replace("seed = 0", "seed: int"), "seed"),
    (DEFAULTS.replace("seed = 0", "seed == 0"), "seed"),
    (DEFAULTS.replace("seed = 0", "def f():\n    seed = 0"), "seed"),
    (DEFAULTS.replace("seed = 0", "# seed = 0"), "seed"),
    (DEFAULTS.replace("seed = 0", "s.seed = 0"), "seed"),
    (DEFAULTS.replace("seed = 0", "[0 for seed in ()]"), "seed"),
]


@pytest.mark.parametrize("source", SETS)
def test_parameters_may_be_set_in_any_way(books, source):
    notebook(books, "fig1_a", parameters=source)
    assert figures.notebook_problems(books / "fig1_a.ipynb") == []


@pytest.mark.parametrize("source, lacks", LACKING)
def test_a_parameter_that_is_not_set_is_missed(books, source, lacks):
    notebook(books, "fig1_a", parameters=source)
    (problem,) = figures.notebook_problems(books / "fig1_a.ipynb")
    assert problem.endswith(f"does not set {lacks}")


def test_a_cell_of_parameters_that_is_no_python_is_named(books):
    notebook(books, "fig1_a", parameters="seed = = 0")
    (problem,) = figures.notebook_problems(books / "fig1_a.ipynb")
    assert "is not Python" in problem


@pytest.mark.parametrize("seed", [np.int64(3), np.uint8(3), np.int32(3)])
def test_a_seed_may_be_numpys(books, out, seed, monkeypatch):
    notebook(books, "fig1_a", RECORD.format(name="fig1_a"))
    if not isinstance(seed, np.int64):  # one whole run is enough
        monkeypatch.setattr(
            figures, "run_notebook", lambda path, given, out, **kw: json.dumps(given)
        )
    m = toys(books, out, seed=seed, overrides={"epochs": np.int64(20), "delta": np.float32(0.5)})
    assert m["seed"] == 3 and type(m["seed"]) is int and "seed3-" in m["key"]
    assert told(out)["overrides"] == {"epochs": 20, "delta": 0.5}


@pytest.mark.parametrize("seed", [-1, 1.5, "3", None, True, float("nan")])
def test_a_seed_that_cannot_be_is_refused_before_any_work(books, out, seed):
    notebook(books, "fig1_a", RECORD.format(name="fig1_a"))
    with pytest.raises((TypeError, ValueError), match="seed"):
        toys(books, out, seed=seed)
    assert not out.exists()


# ---- time ----------------------------------------------------------------------------------------


def test_a_cell_that_never_ends_has_a_limit_and_is_named(books, out):
    notebook(books, "fig1_a", "1 + 1", "while True:\n    pass", RECORD.format(name="fig1_a"))
    with pytest.raises(figures.NotebookFailed, match=r"fig1_a.ipynb, cell 4 did not end within 2"):
        toys(books, out, cell_limit=2)
    assert "did not end" in told(out)["failed"]
    with pytest.raises((ValueError, TypeError), match="cell_limit"):
        toys(books, out, cell_limit=0)


def test_a_silent_cell_shows_that_time_goes_on():
    beats, class_bar = [], type("Bar", (), {"refresh": lambda self: beats.append(1)})
    with figures._heartbeat(class_bar(), every=0.01):
        while len(beats) < 3:
            pass


@pytest.mark.parametrize("booted", [0.0, 1e-3, 1e9])
def test_nothing_waits_for_the_machine_to_have_been_up(monkeypatch, booted):
    "The origin of the monotonic clock is arbitrary: what happens first must not depend on it."
    import biolearn.plotting as plotting
    import biolearn.reproduction.sweep as sweep

    monkeypatch.setattr(plotting, "_in_notebook", lambda: True)
    monkeypatch.setattr(plotting.time, "monotonic", lambda: booted)
    drawn = []
    monkeypatch.setattr(plotting, "training_curves", lambda *a, **k: drawn.append(1))
    monkeypatch.setattr("IPython.display.display", lambda *a, **k: None)
    LiveCurves(10)(None, [{}])
    assert drawn == [1]
    assert "time.monotonic() < " not in Path(sweep.__file__).read_text()


# ---- nothing that lies in a folder of results is run ---------------------------------------------


@pytest.mark.parametrize("where", ["", "notebooks", "runs"])
def test_modules_in_a_folder_of_results_are_not_run(books, out, tmp_path, where, monkeypatch):
    trap = f"open({str(tmp_path / 'sprung')!r}, 'w').write(__name__)\n"
    (out / where).mkdir(parents=True)
    for name in ("argparse", "numpy", "ipykernel_launcher", "json", "biolearn", "sitecustomize"):
        (out / where / f"{name}.py").write_text(trap)
    monkeypatch.chdir(out / where)
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", ":".join(["", *sys.path[1:2]]))
    here = "import os; assert os.path.basename(os.getcwd()) == 'notebooks', os.getcwd()"
    notebook(books, "fig1_a", "import argparse, json, numpy", here, DRAW.format(name="fig1_a"))
    assert toys(books, out)["failed"] is None
    assert not (tmp_path / "sprung").exists(), (tmp_path / "sprung").read_text()


def test_kernels_of_old_pythons_find_no_modules_in_results_either(books, out, tmp_path):
    "Python 3.10 does not know PYTHONSAFEPATH: there the kernel's own folder is what protects."
    trap = f"open({str(tmp_path / 'sprung')!r}, 'w').write(__name__)\n"
    (out / "notebooks").mkdir(parents=True)
    for name in ("ipykernel_launcher", "json", "argparse"):
        (out / "notebooks" / f"{name}.py").write_text(trap)
    notebook(books, "fig1_a", "import argparse, json", RECORD.format(name="fig1_a"))
    code = (
        "import biolearn.reproduction.figures as f\nreal = f.kernel_environment\n"
        "f.kernel_environment = lambda n: {k: v for k, v in real(n).items() if 'SAFE' not in k}\n"
        f"f.reproduce('quick', None, 'cpu', 0, {str(out)!r}, notebooks={str(books)!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    assert not (tmp_path / "sprung").exists()
