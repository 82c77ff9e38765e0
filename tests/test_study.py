"""Studies: files that can be trusted, kills and resumes, failures that stay alone, processes that
share the work, and a table that says where its numbers are from.
"""

import csv
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import biolearn.reproduction.study as study_module
from biolearn.core.checkpoints import ALGORITHM
from biolearn.core.rng import Random
from biolearn.reproduction.study import (
    StudyError,
    Trial,
    Work,
    cores,
    numbers,
    read_record,
    study,
    study_rows,
)

TABLE = Work().table
ROOT = Path(__file__).resolve().parent.parent
HERE = Work(workers=1, progress=False)
SETTINGS = {"few": {"n": 3}, "many": {"n": 30}}


def total(trial):
    "A measure with a known answer: the sum of the first n numbers, and the seed."
    return {
        "total": trial.settings["n"] * (trial.settings["n"] - 1) // 2,
        "of": {"seed": trial.seed},
    }


def product(trial):
    "A product of matrices, whose last bits depend on the number of threads."
    a = Random(trial.seed).stream("a").normal((300, 300), "float32")
    return {"sum": float((a @ a).sum()), "first": float((a @ a)[0, 0])}


def dies(trial):
    "A measure whose process is killed for one of the seeds."
    if trial.seed == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"pid": os.getpid()}


def without_made(records):
    return [{k: v for k, v in record.items() if k != "made"} for record in records]


# ---- results and files ---------------------------------------------------------------------------


def test_every_setting_with_every_seed_a_file_each_and_one_table(tmp_path):
    records = study(SETTINGS, (0, 5), total, tmp_path / "new", work=HERE)
    assert [(r["name"], r["seed"], r["total"]) for r in records] == [
        ("few", 0, 3),
        ("few", 5, 3),
        ("many", 0, 435),
        ("many", 5, 435),
    ]
    names = {f"{name}-seed{seed}.json" for name in SETTINGS for seed in (0, 5)}
    assert {p.name for p in (tmp_path / "new").iterdir()} == {*names, TABLE}
    for record in records:
        path = tmp_path / "new" / f"{record['name']}-seed{record['seed']}.json"
        assert json.loads(path.read_text()) == record == read_record(path)
        made = record["made"]
        assert set(made) == {"version", "algorithm", "revision", "date", "seconds"}
        assert made["algorithm"] == ALGORITHM and made["date"].endswith("+00:00")
    rows = list(csv.DictReader((tmp_path / "new" / TABLE).open()))
    assert [(row["name"], row["seed"], row["total"], row["of.seed"]) for row in rows] == [
        ("few", "0", "3", "0"),
        ("few", "5", "3", "5"),
        ("many", "0", "435", "0"),
        ("many", "5", "435", "5"),
    ]
    for row in rows:
        assert row["made: algorithm"] == str(ALGORITHM) and float(row["made: seconds"]) >= 0
        assert row["made: date"] and "made: commit" in row and row["error"] == ""


def test_what_is_there_is_read_and_the_rest_is_measured(tmp_path):
    first = study(SETTINGS, (0,), total, tmp_path, work=HERE)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.glob("*.json")}
    begun = []
    again = study(SETTINGS, (0, 1), lambda t: begun.append(str(t)) or total(t), tmp_path, work=HERE)
    assert begun == ["few seed 1", "many seed 1"] and again[::2] == first
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_a_trial_without_chance_has_no_seed_in_its_name(tmp_path):
    (record,) = study({"a b": {"n": 3}}, (None,), total, tmp_path, work=HERE)
    assert (tmp_path / "a-b.json").is_file() and record["seed"] is None
    assert (
        str(Trial("a b", 0)) == "a b"
        and Trial("x, p = 0.5", 0, 1).file_name == "x-p-=-0.5-seed1.json"
    )


def test_names_that_would_share_a_file_are_refused_before_any_work(tmp_path):
    with pytest.raises(ValueError, match="same file"):
        study({"a b": 1, "A-b": 2}, (0,), total, tmp_path, work=HERE)
    with pytest.raises(ValueError, match="same file"):
        study({"a": 1}, (0, 0), total, tmp_path, work=HERE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[1, 2]",
        lambda text: "null",
        lambda text: "\x00" * 10,
        lambda text: "[" * 100_000,
        lambda text: text.replace('"seconds"', '"second"'),
        lambda text: json.dumps(json.loads(text) | {"made": [1]}),
        lambda text: json.dumps(json.loads(text) | {"made": {}}),
    ],
)
def test_a_damaged_file_is_made_again(tmp_path, capsys, damage):
    (first,) = study({"few": {"n": 3}}, (0,), total, tmp_path, work=HERE)
    path = tmp_path / "few-seed0.json"
    path.write_text(damage(path.read_text()))
    (again,) = study({"few": {"n": 3}}, (0,), total, tmp_path, work=HERE)
    assert without_made([again]) == without_made([first]) and read_record(path) == again
    assert f"{path} is damaged" in capsys.readouterr().err


def test_bytes_that_are_no_text_are_damage(tmp_path):
    (tmp_path / "few-seed0.json").write_bytes(b"\xff\xfe\x00{")
    (record,) = study({"few": {"n": 3}}, (0,), total, tmp_path, work=HERE)
    assert record["total"] == 3


@pytest.mark.parametrize(
    "foreign, word",
    [
        ({"total": 4}, "not the result of a study"),
        ({"settings": {"n": 4}}, "settings.n is 4 there and 3 here"),
        ({"seed": 7}, "seed is 7 there and 0 here"),
        ({"name": "none"}, "name is 'none' there"),
    ],
)
def test_a_foreign_file_is_refused_and_kept(tmp_path, foreign, word):
    study({"few": {"n": 3}}, (0,), total, tmp_path, work=HERE)
    path = tmp_path / "few-seed0.json"
    record = json.loads(path.read_text())
    text = json.dumps(foreign if "total" in foreign else record | foreign)
    path.write_text(text)
    with pytest.raises(StudyError, match="few-seed0.json.*Nothing was changed") as e:
        study({"none": {"n": 2}, "few": {"n": 3}}, (0,), total, tmp_path, work=HERE)
    assert word in str(e.value) and path.read_text() == text
    assert not (tmp_path / "none-seed0.json").exists()  # refused before anything was measured


def test_an_older_measure_or_algorithm_is_measured_again(tmp_path, monkeypatch):
    begun = []
    measure = lambda trial: begun.append(trial.seed) or total(trial)
    run = lambda **more: study({"few": {"n": 3}}, (0,), measure, tmp_path, work=HERE, **more)
    run()
    run()
    assert len(begun) == 1
    run(version=2)
    assert len(begun) == 2
    monkeypatch.setattr(study_module, "ALGORITHM", ALGORITHM + 1)
    run(version=2)
    assert len(begun) == 3


def test_a_rule_of_ones_own_says_what_counts(tmp_path):
    (tmp_path / "few-seed0.json").write_text('{"total": 3}')
    mine = lambda record, trial: record == {"total": 3}
    assert study({"few": 1}, (0,), total, tmp_path, fits=mine, work=HERE) == [{"total": 3}]
    (record,) = study({"few": {"n": 3}}, (0,), total, tmp_path, fits=lambda r, t: False, work=HERE)
    assert record["total"] == 3 and "made" in record


# ---- failures ------------------------------------------------------------------------------------


def test_a_failure_stops_no_other_is_told_and_is_tried_again(tmp_path, capsys):
    def measure(trial):
        if trial.seed == 1:
            raise RuntimeError("it broke")
        return total(trial)

    records = study({"few": {"n": 3}}, range(3), measure, tmp_path, work=HERE)
    assert [r.get("error") for r in records] == [None, "RuntimeError: it broke", None]
    assert "in measure" in records[1]["traceback"] and "total" not in records[1]
    assert "few seed 1: FAILED, RuntimeError: it broke" in capsys.readouterr().err
    assert not (tmp_path / "few-seed1.json").exists()
    rows = list(csv.DictReader((tmp_path / TABLE).open()))
    assert [row["error"] for row in rows] == ["", "RuntimeError: it broke", ""]
    assert study({"few": {"n": 3}}, range(3), total, tmp_path, work=HERE)[1]["total"] == 3


def test_results_that_no_file_can_hold_are_failures(tmp_path):
    for found, word in (({"x": float("nan")}, "NaN"), ({"seed": 3}, "may not return seed")):
        (record,) = study({"few": 1}, (0,), lambda trial: found, tmp_path, work=HERE)
        assert word in record["error"] and not (tmp_path / "few-seed0.json").exists()


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL there")
def test_a_process_that_dies_is_a_failure_of_its_trial_alone(tmp_path):
    records = study({"few": 1}, range(4), dies, tmp_path, work=Work(workers=2, progress=False))
    assert ["died" in r.get("error", "") for r in records] == [False, True, False, False]
    assert os.getpid() not in {r.get("pid") for r in records}


class Elsewhere:
    "What can be sent to another process, and not be read there."

    def __reduce__(self):
        return __import__, ("there_is_no_such_module",)


def test_a_measure_that_no_other_process_can_read_says_so(tmp_path):
    "It has not died of hunger, and must not seem so."
    cargo = Elsewhere()

    def measure(trial):
        return {"cargo": str(cargo)}

    two = Work(workers=2, progress=False)
    records = study({"a": {}}, range(2), measure, tmp_path / "s", work=two)
    for record in records:
        assert "un-serialize" in record["error"] and "memory" not in record["error"]
        assert "No module named 'there_is_no_such_module'" in record["error"]


def test_ctrl_c_ends_the_study_and_not_a_trial(tmp_path):
    def measure(trial):
        if trial.seed == 1:
            raise KeyboardInterrupt
        return total(trial)

    with pytest.raises(KeyboardInterrupt):
        study({"few": {"n": 3}}, range(3), measure, tmp_path, work=HERE)
    assert [p.name for p in tmp_path.iterdir()] == ["few-seed0.json"]


# ---- processes -----------------------------------------------------------------------------------


def test_results_do_not_depend_on_company(tmp_path):
    alone = study({"a": 1}, range(4), product, tmp_path / "1", work=HERE)
    company = study(
        {"a": 1}, range(4), product, tmp_path / "2", work=Work(workers=3, progress=False)
    )
    assert without_made(alone) == without_made(company)


def test_as_many_at_a_time_as_there_are_cores(monkeypatch):
    monkeypatch.setattr(study_module, "cores", lambda: 8)
    assert Work().at_a_time(100) == 8 and Work(threads=3).at_a_time(100) == 2
    assert Work().at_a_time(3) == 3 and Work(workers=2).at_a_time(3) == 2
    assert (
        Work(threads=None).at_a_time(9) == Work(threads=20).at_a_time(9) == Work().at_a_time(0) == 1
    )
    assert cores() >= 1
    for wrong in (dict(workers=0), dict(threads=0), dict(workers=1.5)):
        with pytest.raises((ValueError, TypeError)):
            Work(**wrong)


SLOW = """
import sys, time
from pathlib import Path
from biolearn.reproduction.study import Work, study
folder = Path(sys.argv[1])
def measure(trial):
    with (folder.parent / "begun").open("a") as file:
        file.write(f"{trial.seed}\\n")
    time.sleep(float(sys.argv[3]))
    return {"square": trial.seed ** 2}
records = study({"a": 1}, range(6), measure, folder, work=Work(workers=int(sys.argv[2]), progress=False))
print([r["square"] for r in records])
"""


def process(folder, workers, seconds):
    "A study of six trials in a process of its own."
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-c", SLOW, str(folder), str(workers), str(seconds)]
    return subprocess.Popen(
        argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def until(condition, seconds=60):
    "Wait until the condition is true."
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL there")
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_killed_and_started_again_only_the_rest_is_measured(tmp_path, workers, number):
    folder, begun = tmp_path / "study", tmp_path / "begun"
    child = process(folder, workers, 0.4)
    until(lambda: len(list(folder.glob("a-seed*.json"))) >= 2)
    child.send_signal(number)
    child.communicate(timeout=30)
    assert child.returncode != 0
    settled = lambda: not list(folder.glob("*.lock")) or all(map(_is_free, folder.glob("*.lock")))
    until(settled)  # processes of the killed one finish their trial, and end
    whole = {p.name for p in folder.glob("a-seed*.json")}
    assert 2 <= len(whole) < 6
    for path in folder.glob("a-seed*.json"):
        assert read_record(path)["square"] == read_record(path)["seed"] ** 2
    begun.unlink()
    again = process(folder, workers, 0.0)
    out, err = again.communicate(timeout=60)
    assert out.strip() == "[0, 1, 4, 9, 16, 25]", err
    rest = {seed for seed in range(6) if f"a-seed{seed}.json" not in whole}
    assert sorted(map(int, begun.read_text().split())) == sorted(rest)
    there = {p.name for p in folder.iterdir() if not p.name.startswith(".")}
    assert there == {TABLE, *(f"a-seed{s}.json" for s in range(6))}


def _is_free(path):
    "Whether no process holds the lock."
    from filelock import FileLock, Timeout

    try:
        with FileLock(path, timeout=0):
            return True
    except Timeout:
        return False


def test_two_processes_share_the_work(tmp_path):
    both = [process(tmp_path / "study", 1, 0.4) for _ in range(2)]
    told = [p.communicate(timeout=60) for p in both]
    assert [out.strip() for out, _ in told] == ["[0, 1, 4, 9, 16, 25]"] * 2, told
    begun = [int(line) for line in (tmp_path / "begun").read_text().split()]
    assert sorted(begun) == list(range(6))  # none was measured twice


# ---- tables --------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="locks of POSIX")
def test_where_nothing_can_be_locked_a_study_goes_on_with_a_line(tmp_path, monkeypatch, capsys):
    import fcntl

    def refused(*a):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    records = study(SETTINGS, (0,), total, tmp_path, work=HERE)
    assert [r["total"] for r in records] == [3, 435]
    assert capsys.readouterr().err.count("nothing keeps a second process out") == 2
    assert not list(tmp_path.glob("*.lock"))


def test_single_numbers_become_columns():
    nested = {
        "a": 1,
        "b": {"c": 2.5, "d": {"e": 3}},
        "text": "t",
        "yes": True,
        "list": [1],
        "n": None,
    }
    assert dict(numbers(nested)) == {"a": 1, "b.c": 2.5, "b.d.e": 3}
    rows = study_rows([{"name": "x", "seed": 1, "a": 1}, {"name": "y", "seed": 2, "b": 2}])
    assert [list(row) for row in rows] == [["name", "seed", "a", "error", "b"]] * 2
    assert [row["a"] for row in rows] == [1, None]


def test_the_line_about_each_trial(tmp_path, capsys):
    work = Work(
        workers=1, progress=False, tell=lambda record: f"{record['seed']} is {record['total']}"
    )
    study({"few": {"n": 3}}, (4, 5), total, tmp_path, work=work)
    assert capsys.readouterr().out == "[1/2] 4 is 3\n[2/2] 5 is 3\n"


def test_a_measure_gets_plain_numpy_results_into_its_file(tmp_path):
    measure = lambda trial: {"x": np.arange(3), "y": np.float32(0.5), "p": Path("a")}
    (record,) = study({"few": 1}, (0,), measure, tmp_path, work=HERE)
    assert (record["x"], record["y"], record["p"]) == ([0, 1, 2], 0.5, "a")
