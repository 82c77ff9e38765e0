"""Sweeps: what is asked for is checked before anything runs; one table at the end; a failed run
stops no other; killed processes are survived, and leave nothing running.
"""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import nbformat
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat import v4

from biolearn.cli.main import main
from biolearn.cli.reproduction import summary_text
from biolearn.reproduction import sweep as S
from biolearn.reproduction.figures import ReproduceError, UnknownNotebook
from biolearn.reproduction.profiles import PROFILES
from biolearn.reproduction.runs import trained_run

ROOT = Path(__file__).resolve().parent.parent
POSIX = pytest.mark.skipif(os.name == "nt", reason="signals")


# ---- what is asked for ---------------------------------------------------------------------------

words = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True).filter(
    lambda w: w not in ("true", "false", "null")
)
numbers = st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False)
values = numbers | words | st.booleans() | st.none() | st.lists(numbers | words, max_size=4)


@given(st.lists(values, min_size=1, max_size=5))
def test_an_axis_written_as_json_is_read_back(asked):
    assert S.read_axis("delta=" + json.dumps(asked)[1:-1]) == ("delta", asked)
    assert S.read_axis("delta=" + ",".join(json.dumps(v) for v in asked)) == ("delta", asked)


@given(st.lists(numbers | words, min_size=1, max_size=5))
def test_numbers_and_bare_words_need_no_quotes(asked):
    assert S.read_axis(" delta =" + ", ".join(map(str, asked))) == ("delta", asked)


@given(
    st.lists(
        numbers | st.lists(numbers, max_size=3).map(tuple) | st.booleans() | st.none(),
        min_size=1,
        max_size=4,
    )
)
def test_python_literals_are_read_too(asked):
    assert S.read_axis(f"a={', '.join(map(repr, asked))}") == (
        "a",
        [list(v) if isinstance(v, tuple) else v for v in asked],
    )


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused_and_nothing_else(text):
    try:
        name, found = S.read_axis(text)
    except ValueError:
        return
    assert name and found and json.loads(json.dumps(found)) is not None


def test_nothing_is_evaluated(tmp_path):
    for text in (
        "a=open('x', 'w')",
        "a=__import__('os').getpid()",
        "a=[1 for x in (1, 2)]",
        "a=1+1",
        "a=(lambda: 0)()",
    ):
        with pytest.raises(ValueError):
            S.read_axis(text)


@given(
    st.dictionaries(words, st.lists(st.integers(), min_size=1, max_size=3, unique=True), max_size=3)
)
def test_a_grid_is_every_combination_once(axes):
    made = S.grid(axes)
    assert len(made) == np.prod([len(v) for v in axes.values()], dtype=int)
    assert len({json.dumps(m) for m in made}) == len(made) and all(
        set(m) == set(axes) and all(m[n] in axes[n] for n in axes) for m in made
    )


@given(
    st.lists(
        st.fixed_dictionaries(
            {"delta": numbers, "optimizer": words},
            optional={"noise": st.lists(numbers | words, min_size=1, max_size=3)},
        ),
        min_size=1,
        max_size=5,
    )
)
def test_lists_are_read_from_csv_and_json(sets):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "a.json").write_text(json.dumps(sets))
        with open(Path(folder, "a.csv"), "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["delta", "optimizer", "noise"])
            writer.writerows(
                [
                    [s["delta"], s["optimizer"], json.dumps(s["noise"]) if "noise" in s else ""]
                    for s in sets
                ]
            )
        assert S.read_list(Path(folder, "a.json")) == S.read_list(Path(folder, "a.csv")) == sets


@pytest.mark.parametrize(
    "name, text, said",
    [
        ("a.csv", "delta\n", "at least one line of values"),
        ("a.csv", "delta,delta\n1,2\n", "each once"),
        ("a.csv", "delta,alpha\n1\n", "line 2: 1 cells under 2 names"),
        ("a.csv", "delta\n1+1\n", "neither a number"),
        ("a.json", "{}", "list of objects"),
        ("a.json", "[]", "list of objects"),
        ("a.json", "[1]", "list of objects"),
        ("a.txt", "", ".csv or a .json"),
    ],
)
def test_a_list_that_is_none_is_refused(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=said):
        S.read_list(tmp_path / name)


def test_names_of_runs_fit_a_folder_and_do_not_collide():
    sets = [
        {},
        {"delta": 0.05},
        {"hidden": [20, 10]},
        {"hidden": [20, 1, 0]},
        {"optimizer": "../../x"},
        {"noise": ["spikes"] * 50},
        {"noise": ["spikes"] * 51},
        {"noise_end": None},
    ]
    names = [S.run_name(s, seed) for s in sets for seed in (0, 1)]
    assert len(set(names)) == len(names) and all(
        "/" not in n and len(n) < 120 and n[0] not in ".~" for n in names
    )
    assert names[:3] == ["seed=0", "seed=1", "delta=0.05,seed=0"]


@pytest.mark.parametrize(
    "asked, error, said",
    [
        (
            dict(sets=[{"delta": 0.1}, {"dleta": 0.1}]),
            ValueError,
            "parameter set 2 of 2.*no field 'dleta'",
        ),
        (dict(sets=[{"delta": "0.1"}]), TypeError, "parameter set 1.*delta must be a number"),
        (dict(sets=[{"noise": [0.1]}]), ValueError, "noise"),
        (dict(sets=[{"threads": 2}]), ValueError, "threads"),
        (dict(seeds=[-1]), ValueError, "seed"),
        (dict(sets=[{"seed": "x"}]), TypeError, "seed"),
        (dict(sets=[{"delta": 0.1}, {"delta": 0.10}]), ValueError, "asked for 2 times"),
        (dict(seeds=[]), ValueError, "nothing to run"),
        (dict(sets=[]), ValueError, "nothing to run"),
        (dict(profile="huge"), ValueError, "profile must be one of"),
        (dict(only=["fig99"]), UnknownNotebook, "fig99"),
        (dict(notebooks="/nowhere"), ReproduceError, "no notebooks"),
        (dict(table="results.xls"), ValueError, "ends with .csv or .parquet"),
        (dict(table="../results.csv"), ValueError, "ends with"),
        (dict(workers=0), ValueError, "workers"),
        (dict(workers=3, threads=2), ValueError, "need 6 cores, and there are 4"),
        (dict(workers=2, scheduler="tcp://localhost:1"), ValueError, "Leave one"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_written(
    asked, error, said, tmp_path, monkeypatch
):
    monkeypatch.setattr(S, "cores", lambda: 4)
    with pytest.raises(error, match=said):
        S.sweep(out=tmp_path / "out", **{"only": ["00_train"]} | asked)
    assert not (tmp_path / "out").exists()


def test_a_run_knows_what_it_is_made_of(tmp_path):
    def made(**asked):
        return S.plan(**{"only": ["00_train"], "device": "cpu"} | asked)[0]["made_of"]

    assert made() == made(sets=[{}]) == made(sets=[{"delta": PROFILES["quick"].recipe.delta}])
    others = [
        made(seeds=[1]),
        made(sets=[{"delta": 0.2}]),
        made(profile="paper"),
        made(only=["table1"]),
        made(device="auto"),
    ]
    assert len({made(), *others}) == 6


# ---- cores ---------------------------------------------------------------------------------------


@given(st.integers(1, 256), st.integers(1, 1000), st.integers(0, 16))
def test_cores_are_never_oversubscribed(n_cores, n_runs, wanted):
    workers, threads = S.fraction(n_cores, n_runs, wanted=wanted)
    assert (
        1 <= workers <= n_runs
        and threads >= 1
        and workers * threads <= n_cores
        and (not wanted or threads <= wanted)
    )
    assert n_runs < n_cores or wanted or workers == n_cores  # with enough runs every core has one


@pytest.mark.parametrize(
    "name, text, said",
    [
        ("a.csv", 'delta\n"0.1\n', "a.csv: .*end of"),
        ("a.csv", 'delta\n"' + "9" * 200_000 + '"\n', "a.csv: field larger than"),
        ("a.json", "[" * 100_000, "a.json: "),
        ("a.json", '[{"delta": 0.1}', "a.json: "),
        ("a.csv", "delta\n" + "[" * 100_000 + "\n", "a.csv: "),
        ("a.csv", ",,\n1,2,3\n", "a.csv: there must be"),
    ],
)
def test_a_list_that_is_broken_is_refused_by_its_name(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=said):
        S.read_list(tmp_path / name)


def test_blank_lines_and_rows_of_commas_are_passed_over(tmp_path):
    text = '\n delta,noise\n\n0.1,\n , \n0.2,"[0.1,\n0.2]"\n,,\n\n'.replace(",,\n\n", ",\n\n")
    (tmp_path / "a.CSV").write_text(text)
    assert S.read_list(tmp_path / "a.CSV") == [{"delta": 0.1}, {"delta": 0.2, "noise": [0.1, 0.2]}]


@pytest.mark.parametrize("address", ["nonsense", "tcp://", "/tmp/scheduler", "tcp://host", ""])
def test_an_address_of_the_wrong_form_is_refused_at_once(address):
    pytest.importorskip("distributed")
    began = time.monotonic()
    with pytest.raises(ValueError, match="no scheduler's address"):
        S._connect(address)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "text", ["", "{", "null", "[]", "7", '{"status": "done"}', '{"status": "?", "metrics": []}']
)
def test_a_result_that_is_none_is_done_again(tmp_path, text):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "result.json").write_text(text)
    assert S.ResultStore(tmp_path).results(["a"]) == {}


def test_results_of_something_else_are_kept(tmp_path):
    place = S.ResultStore(tmp_path)
    (tmp_path / "a" / "runs").mkdir(parents=True)
    for n in (1, 2):
        (tmp_path / "a" / "result.json").write_text(str(n))
        place.set_aside(["a"])
    kept = [tmp_path / f"a.before-{n}" for n in (1, 2)]
    assert [(k / "result.json").read_text() for k in kept] == ["1", "2"]
    assert not (kept[0] / "runs").exists()


@pytest.mark.parametrize("name", ["results.csv", "t.parquet"])
@pytest.mark.parametrize("content", [b"", b"name,mark\nAda,1\n", b"\xff\xfe\x00", b"PAR1", None])
def test_a_table_of_somebody_else_stops_the_sweep_and_stays(tmp_path, name, content):
    books, out = notebook(tmp_path / "books", "00_toy", TOY), tmp_path / "out"
    if name == "t.parquet":
        pytest.importorskip("pyarrow")
    (out / name).parent.mkdir()
    if content is None:  # a table that can be read
        S.write_table([{"row": 1, "seed": 2}], out / name)
    else:
        (out / name).write_bytes(content)
    before = (out / name).read_bytes()
    for address in (out, f"file://{out}"):
        with pytest.raises(ValueError, match=f"{name} in .* is no table of a sweep.*move it away"):
            toy_sweep(books, address, table=name)
    assert (out / name).read_bytes() == before and [p.name for p in out.iterdir()] == [name]


@pytest.mark.parametrize("name", ["results.csv", "t.parquet"])
def test_a_table_of_a_sweep_is_replaced(tmp_path, name):
    if name == "t.parquet":
        pytest.importorskip("pyarrow")
    runs = S.plan("quick", [{"delta": 0.05}], only=["00_train"])
    place = S.ResultStore(tmp_path)
    assert not place.is_in_the_way(name)  # there is nothing
    S.write_table(S.table(runs, {}), tmp_path / name)
    assert not place.is_in_the_way(name)


def test_files_in_the_folder_of_a_run_are_not_replaced_either(tmp_path):
    books, folder = notebook(tmp_path / "books", "00_toy", TOY), tmp_path / "out" / "seed=0"
    folder.mkdir(parents=True)
    (folder / "report.md").write_text("mine")
    with pytest.raises(ReproduceError, match="report.md in .*seed=0"):
        toy_sweep(books, tmp_path / "out")
    assert [p.name for p in folder.iterdir()] == ["report.md"]


# ---- runs on this machine ------------------------------------------------------------------------

TOY = """
import os
from threadpoolctl import threadpool_info
import numpy
from biolearn.reproduction.claims import Claim, record
delta = overrides.get("delta", 0.1)
if delta == 0.3: raise ValueError("delta is too large, and the run says so")
record("00_toy", None, [Claim("height", "high", 100 * delta + seed, True), Claim("word", "w", "no number", None)], out=out, caption="A toy.",
       values=dict(threads=max(lib["num_threads"] for lib in threadpool_info()), deep=dict(one=1), many=[1, 2], yes=True))
"""
KILL_ONCE = """
import os, pathlib, signal
if not pathlib.Path(out, "been here").exists():
    pathlib.Path(out, "been here").touch()
    os.kill(os.getppid(), signal.SIGKILL)
    import time; time.sleep(60)
"""


def notebook(folder, stem, *sources):
    folder.mkdir(exist_ok=True)
    defaults = v4.new_code_cell(
        'profile = "quick"\nseed = 0\ndevice = "auto"\nout = ""\noverrides = {}',
        metadata={"tags": ["parameters"]},
    )
    meta = {"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}
    nbformat.write(
        v4.new_notebook(cells=[defaults, *map(v4.new_code_cell, sources)], metadata=meta),
        folder / f"{stem}.ipynb",
    )
    return folder


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def toy_sweep(books, out, sets=({},), seeds=(0,), **more):
    return S.sweep(
        "quick",
        sets,
        seeds,
        out=out,
        only=["00"],
        device="cpu",
        notebooks=str(books),
        progress=False,
        **more,
    )


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep of two seeds of a parameter set that works and one of a set that fails, with two
    threads each on a pretended machine: (results, folder, notebooks).
    """
    folder = tmp_path_factory.mktemp("swept")
    books = notebook(folder / "books", "00_toy", TOY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(S, "cores", lambda: 4)
        patch.setenv("OPENBLAS_NUM_THREADS", "1")  # what the master has must not reach the runs
        results = toy_sweep(
            books, folder / "out", [{"delta": 0.05}, {"delta": 0.3, "seed": 0}], [0, 4], threads=2
        )
    return results, folder / "out", books


def test_a_failed_run_stops_no_other_and_is_told(swept):
    results, out, _ = swept
    assert [r["status"] for r in results] == ["done", "done", "failed"] and [
        r["name"] for r in results
    ] == ["delta=0.05,seed=0", "delta=0.05,seed=4", "delta=0.3,seed=0"]
    assert (
        "delta is too large, and the run says so" in results[2]["error"]
        and "00_toy.ipynb, cell 2 failed" in results[2]["error"]
    )
    assert (
        "FAILED" in S.result_line(results[2])
        and "too large" in S.result_line(results[2])
        and "\n" not in S.result_line(results[2])
    )
    assert (
        "Traceback" in (out / "delta=0.3,seed=0" / "log.txt").read_text()
        and results[2]["starts"] == 1
    )
    assert results[2]["manifest"]["failed"]


def test_the_table_has_every_run_its_manifest_and_mean_and_sd(swept):
    results, out, _ = swept
    told = rows(out / "results.csv")
    assert [(r["row"], r["delta"], r["seed"], r["status"]) for r in told] == [
        ("run", "0.05", "0", "done"),
        ("run", "0.05", "4", "done"),
        ("mean", "0.05", "", ""),
        ("sd", "0.05", "", ""),
        ("run", "0.3", "0", "failed"),
        ("mean", "0.3", "", ""),
        ("sd", "0.3", "", ""),
    ]
    for column in ("00_toy: height", "00_toy: deep.one", "seconds"):
        measured = np.array([float(r[column]) for r in told[:2]])
        assert float(told[2][column]) == pytest.approx(np.mean(measured), rel=1e-12) and float(
            told[3][column]
        ) == pytest.approx(np.std(measured, ddof=1), rel=1e-12)
    assert (
        [float(r["00_toy: height"]) for r in told[:2]] == [5.0, 9.0]
        and told[2]["n"] == "2"
        and told[5]["n"] == "0"
        and told[5]["00_toy: height"] == ""
    )
    assert not {"00_toy: word", "00_toy: many", "00_toy: yes"} & told[0].keys()
    for row, result in zip((told[0], told[1], told[4]), results):
        manifest = json.loads(row["manifest"])
        assert (
            manifest
            == json.loads((out / row["run"] / "manifest.json").read_text())
            == result["manifest"]
            and manifest["seed"] == int(row["seed"])
            and manifest["overrides"]["delta"] == float(row["delta"])
        )
    assert "too large" in told[4]["error"]


def test_the_threads_of_a_run_are_those_it_was_given(swept):
    told = rows(swept[1] / "results.csv")
    assert [r["00_toy: threads"] for r in told[:2]] == [
        str(min(2, os.cpu_count()))
    ] * 2  # OpenBLAS takes no more than there are


def test_started_again_only_what_is_missing_is_run(swept, monkeypatch):
    results, out, books = swept
    ran = []

    def pretend(task, master=None):
        ran.append(task["name"])
        return S._result(task, "failed", "pretended")

    monkeypatch.setattr(S, "run_apart", pretend)
    asked = [{"delta": 0.05}, {"delta": 0.3, "seed": 0}]
    again = toy_sweep(books, out, asked, [0, 4], table="again.csv")
    assert ran == ["delta=0.3,seed=0"] and again[:2] == results[:2]  # the failed one is tried again
    ran.clear()
    toy_sweep(books, out, asked, [0, 4, 5], table="again.csv")
    assert sorted(ran) == ["delta=0.05,seed=5", "delta=0.3,seed=0"]
    ran.clear()
    monkeypatch.setattr(S, "ALGORITHM", S.ALGORITHM + 1)
    toy_sweep(books, out, asked, [0, 4], table="again.csv")
    assert len(ran) == 3  # other code: nothing there counts


def test_a_waiting_run_is_in_the_table_too():
    runs = S.plan(sets=[{"delta": 0.1}], seeds=[0, 1], only=["00_train"])
    done = {
        runs[0]["name"]: S._result(
            runs[0] | {"threads": 1}, "done", metrics={"a: b": 2.0}, seconds=1.0
        )
    }
    made = S.table(runs, done)
    assert (
        [r["status"] for r in made] == ["done", "waiting", None, None]
        and made[2]["a: b"] == 2.0
        and made[3]["a: b"] is None
        and made[2]["n"] == 1
    )


def test_summary_is_for_people(swept):
    text = summary_text(swept[0])
    assert (
        "delta = 0.05: 2 of 2 runs done" in text
        and "00_toy: height: 7 ± 2.8" in text
        and "delta = 0.3: 0 of 1 runs done" in text
        and "delta=0.3,seed=0: FAILED" in text
    )


def test_parquet_and_an_address(tmp_path):
    fsspec, parquet = pytest.importorskip("fsspec"), pytest.importorskip("pyarrow.parquet")
    books = notebook(tmp_path / "books", "00_toy", TOY)
    cache = tmp_path / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(S, "_cache", lambda out: cache)
        (result,) = toy_sweep(
            books, "memory://sweeps/one", [{"hidden": [20, 10]}], table="results.parquet"
        )
        fs = fsspec.filesystem("memory")
        there = {Path(p).relative_to("/sweeps/one").as_posix() for p in fs.find("/sweeps/one")}
        assert {
            f"{result['name']}/{f}"
            for f in ("result.json", "manifest.json", "00_toy.json", "notebooks/00_toy.ipynb")
        } | {"results.parquet"} <= there
        assert not any(cache.iterdir())  # delivered: the working folder is gone
        with fs.open("/sweeps/one/results.parquet", "rb") as file:
            told = parquet.read_table(file).to_pylist()
        assert (
            told[0]["00_toy: height"] == 10.0
            and told[0]["hidden"] == "[20, 10]"
            and json.loads(told[0]["manifest"]) == result["manifest"]
            and told[1]["row"] == "mean"
        )
        patch.setattr(S, "run_apart", lambda *a: pytest.fail("repeated"))
        assert toy_sweep(
            books, "memory://sweeps/one", [{"hidden": [20, 10]}], table="results.parquet"
        ) == [result]


def test_mixed_columns_fit_parquet(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    S.write_table(
        [{"a": 1, "b": 1, "c": None, "d": True}, {"a": 2.5, "b": "x", "c": None, "d": None}],
        tmp_path / "t.parquet",
    )
    assert parquet.read_table(tmp_path / "t.parquet").to_pylist() == [
        {"a": 1.0, "b": "1", "c": None, "d": True},
        {"a": 2.5, "b": "x", "c": None, "d": None},
    ]


def test_an_address_without_a_protocol_is_refused():
    pytest.importorskip("fsspec")
    with pytest.raises(ValueError, match="nonsense"):
        S.ResultStore("nonsense://x/y")


@pytest.mark.parametrize("name", ["json", "argparse", "biolearn"])
def test_modules_in_the_folder_of_a_run_are_not_run(tmp_path, monkeypatch, name):
    "Python 3.10 does not know PYTHONSAFEPATH: it is set aside."
    real = S.kernel_environment
    monkeypatch.setattr(S, "kernel_environment", lambda: real() | {"PYTHONSAFEPATH": ""})
    books, folder = notebook(tmp_path / "books", "00_toy", TOY), tmp_path / "out" / "seed=0"
    folder.mkdir(parents=True)
    trap = tmp_path / "sprung"
    (folder / f"{name}.py").write_text(f"open({str(trap)!r}, 'w').write(__name__)\nraise OSError")
    (result,) = toy_sweep(books, tmp_path / "out")
    assert not trap.exists() and result["status"] == "done", result["error"]


# ---- deaths --------------------------------------------------------------------------------------


def alive(pid):
    "Does the process run? A zombie does not."
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(condition, seconds=90):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


@POSIX
def test_a_run_whose_process_is_killed_is_started_again(tmp_path, monkeypatch):
    books = notebook(tmp_path / "books", "00_toy", KILL_ONCE, TOY)
    monkeypatch.setattr(S, "ATTEMPTS", 1)
    (dead,) = toy_sweep(books, tmp_path / "out")
    assert (
        dead["status"] == "failed"
        and "was killed by SIGKILL, start 1 of 1" in dead["error"]
        and rows(tmp_path / "out" / "results.csv")[0]["status"] == "failed"
    )
    (tmp_path / "out" / "seed=0" / "been here").unlink()
    monkeypatch.setattr(S, "ATTEMPTS", 3)
    (result,) = toy_sweep(books, tmp_path / "out")
    assert (
        result["status"] == "done"
        and result["starts"] == 3
        and "started 3 times" in S.result_line(result)
    )


@POSIX
def test_a_folder_that_cannot_be_written_fails_its_run_alone(tmp_path):
    books = notebook(tmp_path / "books", "00_toy", TOY)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "seed=0").write_text("a file")
    blocked, good = toy_sweep(books, tmp_path / "out", seeds=[0, 1])
    assert (blocked["status"], good["status"]) == (
        "failed",
        "done",
    ) and "FileExistsError" in blocked["error"]


COMMAND = "import sys; from biolearn.cli.main import main; sys.exit(main(['sweep', *sys.argv[1:]]))"


def command(*argv, **more):
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, "--device", "cpu", *map(str, argv)],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="looks at processes in /proc")
@pytest.mark.parametrize("sent, code", [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_interrupted_or_killed_it_leaves_nothing_running(tmp_path, sent, code):
    wait = (
        "import os, pathlib, time\npathlib.Path(out, "
        "'kernel').write_text(str(os.getpid()))\ntime.sleep(60)"
    )
    books = notebook(tmp_path / "books", "00_toy", wait)
    child = command("--only", "00", "--notebooks", books, "--out", tmp_path / "out")
    where = tmp_path / "out" / "seed=0"
    assert until(lambda: (where / "kernel").is_file() and (where / "kernel").read_text())
    pids = [
        int((where / "kernel").read_text()),
        json.loads((where / "starts.json").read_text())[-1]["pid"],
    ]
    assert all(map(alive, pids))
    child.send_signal(sent)
    _, errors = child.communicate(timeout=60)
    assert (
        child.returncode == code
        and "Traceback" not in errors
        and (sent == signal.SIGKILL or "the same command goes on where it stopped" in errors)
    )
    assert until(lambda: not any(map(alive, pids)), 20), "a run outlived its master"


def test_the_command(tmp_path, capsys):
    def run(*argv):
        try:
            return main(
                [
                    "sweep",
                    "--out",
                    str(tmp_path / "out"),
                    "--device",
                    "cpu",
                    "--only",
                    "00",
                    *map(str, argv),
                ]
            )
        except SystemExit as e:
            return e.code

    books = notebook(tmp_path / "books", "00_toy", TOY)
    (tmp_path / "sets.csv").write_text("delta\n0.3\n0.05\n")
    assert (
        run(
            "--notebooks",
            books,
            "--list",
            tmp_path / "sets.csv",
            "--grid",
            "alpha=0.01",
            "--seeds",
            "3",
        )
        == 1
    )
    captured = capsys.readouterr()
    assert (
        "delta = 0.05, alpha = 0.01: 1 of 1 runs done" in captured.out
        and "00_toy: height: 8" in captured.out
        and captured.out.rstrip().endswith("results.csv")
        and "FAILED" in captured.err
    )
    for argv, said in (
        (["--grid", "dleta=1"], "no field 'dleta'"),
        (["--grid", "delta"], "a grid is NAME="),
        (["--grid", "delta=1", "--grid", "delta=2"], "two grids"),
        (["--seeds", "2-1"], "backwards"),
        (["--list", tmp_path / "none.csv"], "none.csv"),
        (["--table", "x.doc"], "x.doc"),
        (["--workers", "0"], "workers"),
        (["--run-limit", "0"], "a number of hours is needed"),
    ):
        assert run(*argv) == 2 and said in capsys.readouterr().err
    assert run("--only", "fig99") == 2 and "fig99" in capsys.readouterr().err


# ---- a cluster -----------------------------------------------------------------------------------

TRAIN = """
import json, pathlib, time
import biolearn.core.learning as L
if seed == 0 and len(json.loads(pathlib.Path(out, "starts.json").read_text())) == 1:          # the first start is slow: time enough to be killed
    quick = L.TrainSession.epoch
    def epoch(*args, **kwargs):
        time.sleep(0.3)
        return quick(*args, **kwargs)
    L.TrainSession.epoch = epoch
from biolearn.reproduction.claims import Claim, record
from biolearn.reproduction.runs import trained_run
run = trained_run(profile, seed=seed, device=device, out=out, overrides=overrides)
record("00_toy", None, [Claim("log p at the end", "rises", run.history[-1]["log_p_end"], None)], out=out, caption="Trained.", values=dict(epochs=len(run.history)))
"""
KILL_WORKER = """
import os, pathlib, signal, time
if overrides:
    worker = int(pathlib.Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(worker, signal.SIGKILL)
    time.sleep(60)
"""
LONG = {"hidden": [12, 6], "epochs": 60, "batch_size": 400, "n_steps": 3}
LINUX = pytest.mark.skipif(
    not Path("/proc/self/stat").is_file(), reason="looks at processes in /proc"
)


@pytest.fixture(scope="module")
def cluster():
    """A real cluster on this machine: a scheduler here, and two worker processes with one thread
    each.
    """
    distributed = pytest.importorskip("dask.distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=":0"
    ) as made:
        yield made


def parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def checkpoints(folder):
    return sorted(
        int(p.stem.removeprefix("epoch-"))
        for p in folder.glob("runs/*/checkpoints/epoch-*.safetensors")
    )


@LINUX
def test_a_killed_worker_is_survived_and_its_run_goes_on_from_its_checkpoint(
    cluster, tmp_path, monkeypatch
):
    monkeypatch.setattr(S, "cores", lambda: 2)
    books, out = notebook(tmp_path / "books", "00_toy", TRAIN), tmp_path / "out"
    sweeping = ThreadPoolExecutor(1).submit(
        toy_sweep, books, out, [LONG], [0, 1], scheduler=cluster.scheduler_address
    )
    victim = out / S.run_name(LONG, 0)
    assert until(lambda: max(checkpoints(victim), default=0) >= 5)
    first = json.loads((victim / "starts.json").read_text())[-1]
    worker = parent(first["pid"])
    assert worker in {w.pid for w in cluster.workers.values()}, (
        "the run is the child of a real worker process"
    )
    os.kill(worker, signal.SIGKILL)
    assert until(lambda: not alive(first["pid"]), 20), "the run outlived its worker"
    killed, other = sweeping.result(timeout=120)
    assert (killed["status"], other["status"]) == ("done", "done") and (
        killed["starts"],
        other["starts"],
    ) == (2, 1)
    assert killed["resumed_from"] >= 5 and other["resumed_from"] is None
    (about,) = (json.loads(p.read_text()) for p in victim.glob("runs/*/run.json"))
    assert (
        about["resumed"]
        and len(about["history"]) == 60
        and killed["metrics"]["00_toy: epochs"] == 60
    )
    alone = trained_run(
        "quick", device="cpu", out=tmp_path / "alone", overrides=LONG
    )  # the same run, undisturbed: as if nothing had happened
    assert killed["metrics"]["00_toy: log p at the end"] == pytest.approx(
        alone.history[-1]["log_p_end"], rel=1e-3
    )
    told = rows(out / "results.csv")
    assert [(r["status"], r["starts"]) for r in told[:2]] == [("done", "2"), ("done", "1")] and int(
        told[0]["resumed_from"]
    ) >= 5


@LINUX
def test_a_run_that_kills_its_workers_fails_and_stops_no_other(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(S, "cores", lambda: 2)
    monkeypatch.setattr(cluster.scheduler, "allowed_failures", 0)
    books = notebook(tmp_path / "books", "00_toy", KILL_WORKER, TOY)
    assert until(lambda: len(cluster.scheduler.workers) == 2)  # a worker for each run
    results = toy_sweep(
        books, tmp_path / "out", [{"delta": 0.05}, {}], scheduler=cluster.scheduler_address
    )
    assert results[0]["status"] == "failed" and "KilledWorker" in results[0]["error"]
    assert results[1]["status"] == "done"


def test_a_cluster_that_would_be_oversubscribed_is_refused(cluster, tmp_path, monkeypatch):
    distributed = pytest.importorskip("dask.distributed")
    books = notebook(tmp_path / "books", "00_toy", TOY)
    assert until(
        lambda: len(cluster.scheduler.workers) == 2
    )  # the test before kills them, and they come back
    with pytest.raises(ValueError, match="offers 2 runs at a time with 999 threads"):
        toy_sweep(books, tmp_path / "out", scheduler=cluster.scheduler_address, threads=999)
    assert not (tmp_path / "out").exists()
    with distributed.LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address=":0") as empty:
        with pytest.raises(ValueError, match="has no workers"):
            S._connect(empty.scheduler_address, seconds=1)
    with pytest.raises(ValueError, match="no Dask scheduler"):
        S._connect("tcp://127.0.0.1:1", seconds=1)


# ---- what never ends -----------------------------------------------------------------------------

STUCK = """
import os, pathlib, time
pathlib.Path(out, "kernel").write_text(str(os.getpid()))
if seed == 0: time.sleep(600)
"""


class Impatient(subprocess.Popen):
    "A process whose time limit is reached as soon as the cell of its notebook that hangs has begun."

    def __init__(self, argv, *, cwd=None, **more):
        self.began = Path(cwd or ".") / "kernel"
        super().__init__(argv, cwd=cwd, **more)

    def has_begun(self):
        return self.began.is_file() and self.began.read_text() != ""

    def wait(self, timeout=None):
        if timeout is None:
            return super().wait()
        assert until(lambda: self.has_begun() or self.poll() is not None)
        return super().wait(0.01 if "seed=0" in str(self.began) else None)


@POSIX
def test_a_run_that_hangs_is_stopped_at_its_limit_and_stops_no_other(tmp_path, monkeypatch):
    books = notebook(tmp_path / "books", "00_toy", STUCK, TOY)
    monkeypatch.setattr(S.subprocess, "Popen", Impatient)
    hung, good = toy_sweep(books, tmp_path / "out", seeds=[0, 1], run_limit=86399)
    assert (hung["status"], hung["starts"], good["status"]) == ("failed", 1, "done")
    assert "did not end within 86399 s and was stopped" in hung["error"]
    assert "--run-limit" in hung["error"]
    kernel = int((tmp_path / "out" / "seed=0" / "kernel").read_text())
    starts = json.loads((tmp_path / "out" / "seed=0" / "starts.json").read_text())
    assert until(lambda: not alive(kernel) and not alive(starts[-1]["pid"]), 20)
    monkeypatch.undo()
    assert toy_sweep(books, tmp_path / "out", seeds=[1]) == [good]  # the limit is no part of a run


def test_the_limit_is_one_for_all_that_a_run_does(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(S, "reproduce", lambda *a, cell_limit, **kw: given.append(cell_limit))
    (run,) = S.plan(only=["00_train"])
    S.perform(run | {"threads": 1, "limit": 7.0}, tmp_path)
    assert given[0] > 7  # no cell meets a limit of its own, which a sweep could not raise


@pytest.mark.parametrize("limit", [0, -1, float("nan"), float("inf"), "1", None, True])
def test_a_limit_that_is_none_is_refused(limit, tmp_path):
    with pytest.raises((ValueError, TypeError), match="run_limit"):
        S.sweep(out=tmp_path / "out", only=["00_train"], run_limit=limit)
    assert not (tmp_path / "out").exists()


class Heard:
    "What is said, and what happens at each look at what is waited for."

    def __init__(self, monkeypatch, *looks):
        monkeypatch.setattr(S, "_LOOK", 0.01)
        self.said, self.looks = [], iter(looks)

    def say(self, result, line):
        self.said.append(line)

    def trouble(self):
        what = next(self.looks)
        return what() if callable(what) else what


def test_what_is_waited_for_is_said_now_and_then(monkeypatch):
    monkeypatch.setattr(S, "_SILENCE", 2)
    a, b = Future(), Future()
    heard = Heard(monkeypatch, None, None, None, lambda: a.set_result(1), None, None, None, None)
    found = S._as_they_end([a, b], heard.say, heard.trouble)
    assert next(found) is a and len(heard.said) == 2
    b.set_result(2)
    assert list(found) == [b]
    assert "2 to go, none has ended for 0.02 s" in heard.said[0] and "log.txt" in heard.said[0]


def test_trouble_is_said_at_each_look_and_given_up_when_it_lasts(monkeypatch):
    monkeypatch.setattr(S, "_PATIENCE", 3)
    heard = Heard(monkeypatch, "no worker", "no worker", None, *3 * ["no scheduler"])
    with pytest.raises(TimeoutError, match="no scheduler; .*same command goes on"):
        list(S._as_they_end([Future()], heard.say, heard.trouble))
    assert [line.partition(": ")[2] for line in heard.said] == 2 * ["no worker"] + 2 * [
        "no scheduler"
    ]


@pytest.fixture
def frail(tmp_path):
    "A scheduler and one worker without a guard, each a process of its own: (address, them)."
    pytest.importorskip("distributed")
    told = tmp_path / "scheduler.json"
    dask = lambda name, *argv: subprocess.Popen(
        [sys.executable, "-m", f"distributed.cli.dask_{name}", "--no-dashboard", *map(str, argv)],
        stderr=subprocess.DEVNULL,
    )
    here = ("--host", "127.0.0.1", "--port", "0")
    scheduler = dask("scheduler", *here, "--scheduler-file", told)
    assert until(lambda: told.is_file() and told.read_text().strip().endswith("}"))
    address = json.loads(told.read_text())["address"]
    place = ("--local-directory", tmp_path / "dask")
    worker = dask("worker", address, "--nthreads", "1", "--no-nanny", *place)
    with S._connect(address) as client:
        client.run(S._machine)  # the worker is there, and has imported what it will be asked for
    yield address, {"scheduler": scheduler, "worker": worker}
    for process in (worker, scheduler):
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


@LINUX
@pytest.mark.parametrize(
    "who, sent, said",
    [
        ("scheduler", signal.SIGSTOP, "the scheduler at .* does not answer"),
        ("scheduler", signal.SIGKILL, "the scheduler was lost"),
        ("worker", signal.SIGKILL, "has lost its last worker; start one: dask worker tcp:"),
    ],
)
def test_a_cluster_that_is_no_more_is_not_waited_for_without_end(
    frail, who, sent, said, tmp_path, monkeypatch, capfd
):
    address, processes = frail
    books, look = notebook(tmp_path / "books", "00_toy", STUCK, TOY), S._trouble

    def strike(client):
        processes[who].send_signal(sent)  # at the first look; later ones do no more harm
        return look(client)

    monkeypatch.setattr(S, "_trouble", strike)
    monkeypatch.setattr(S, "_LOOK", 1.0)
    monkeypatch.setattr(S, "_PATIENCE", 3)
    results = S.sweep(
        sets=[{}],
        seeds=[0, 1],
        out=tmp_path / "out",
        only=["00"],
        device="cpu",
        notebooks=str(books),
        scheduler=address,
    )
    told, errors = rows(tmp_path / "out" / "results.csv"), capfd.readouterr().err
    assert [r["status"] for r in results] == [r["status"] for r in told[:2]] == 2 * ["failed"]
    for result in results:
        assert re.search(said, result["error"]) and "the same command goes on" in result["error"]
    assert re.search(said, errors) and "Traceback" not in errors


@LINUX
def test_a_worker_that_hangs_is_told_before_anything_runs(frail, tmp_path, monkeypatch):
    address, processes = frail
    monkeypatch.setattr(S, "_LOOK", 1.0)
    processes["worker"].send_signal(signal.SIGSTOP)
    with pytest.raises(ValueError, match="not all workers of the cluster answer within 1 s"):
        S.sweep(out=tmp_path / "out", only=["00_train"], device="cpu", scheduler=address)
    assert not (tmp_path / "out").exists()


def test_a_worker_without_the_package_is_named(tmp_path):
    distributed = pytest.importorskip("distributed")
    books = notebook(tmp_path / "books", "00_toy", TOY)
    code = (
        "import sys; sys.modules['biolearn'] = None\n"
        "from distributed.cli.dask_worker import main; main()"
    )
    argv = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", tmp_path / "d"]
    with distributed.LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address=":0") as made:
        address = made.scheduler_address
        worker = subprocess.Popen([sys.executable, "-c", code, address, *map(str, argv)])
        try:
            said = r"worker at tcp://\S+ cannot run biolearn .*install the same version there"
            with pytest.raises(ValueError, match=said):
                toy_sweep(books, tmp_path / "out", scheduler=address)
        finally:
            worker.kill()
            worker.wait()
    assert not (tmp_path / "out").exists()
