"""The programs of experiments/: each says what it does, finds what was measured before, and adds to
its table what is not there.
"""

import ast
import importlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import experiments
from biolearn.core.data import load_digits
from biolearn.core.files import as_plain
from biolearn.core.model import init_model
from biolearn.core.priors import TopPrior
from biolearn.core.rng import Random
from biolearn.evaluation.features import train_features
from biolearn.reproduction.measures import Size
from biolearn.reproduction.profiles import PROFILES
from biolearn.reproduction.study import Work, study
from experiments import PAPER, command_line, extend_table, read_table, some

PROGRAMS = sorted(
    path.stem
    for path in (Path(__file__).resolve().parent.parent / "experiments").glob("*.py")
    if "def main(" in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_has_help_that_holds_its_docstring(name):
    root = Path(__file__).resolve().parent.parent
    argv = [sys.executable, "-m", f"experiments.{name}", "--help"]
    env = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(argv, cwd=root, env=env, capture_output=True, text=True, timeout=60)
    program = ast.parse((root / "experiments" / f"{name}.py").read_text(encoding="utf-8"))
    assert done.returncode == 0, done.stderr
    assert ast.get_docstring(program).split("\n")[0] in done.stdout
    assert f"python -m experiments.{name}" in done.stdout


# program: (its arguments for the seeds that were measured, its table)
STORED = {
    "clock": (["--seeds", "0-4"], "biology/clock.json"),
    "noise": (["--seeds", "0-4"], "biology/noise.json"),
    "lateral": (["--seeds", "7-11"], "biology/lateral.json"),
    "spikes": (["--seeds", "0-4"], "biology/spikes.json"),
    "dale": (["--seeds", "0-9"], "biology/dale.json"),
    "training": (["--seeds", "0-4"], "biology/training.json"),
    "supervised": (["--part", "rules", "--seeds", "0-1"], "supervised.json"),
    "mcpc": (["--theirs", "models"], "mcpc.json"),
    "reinforcement": (["--only", "CartPole-v1", "mnist"], "reinforcement.json"),
}


@pytest.mark.parametrize("name", STORED)
def test_what_was_measured_before_is_not_measured_again(name, tmp_path, monkeypatch):
    argv, table = STORED[name]
    there, copy = PAPER / table, tmp_path / "table.json"
    copy.write_bytes(there.read_bytes())
    program = importlib.import_module(f"experiments.{name}")
    for module in (experiments, program):
        never = lambda settings, seeds, *a, **k: pytest.fail(f"measures {list(settings)} {seeds}")
        monkeypatch.setattr(module, "study", never, raising=False)
    assert program.main([*argv, "--out", str(copy)]) == 0
    assert copy.read_bytes() == there.read_bytes()
    assert list(tmp_path.iterdir()) == [copy]


@pytest.mark.parametrize(
    "name", ["clock", "dale", "lateral", "mcpc", "noise", "spikes", "supervised", "training"]
)
def test_stored_settings_and_verdicts_are_those_of_today(name):
    table = read_table(PAPER / STORED[name][1])
    about = as_plain(importlib.import_module(f"experiments.{name}").finish(table))
    for part in {"settings", "verdict", "verdicts", "trained"} & set(about):
        assert about[part] == table[part], part


def test_a_study_takes_what_the_programs_measure(tmp_path, monkeypatch):
    from experiments import clock, dale, noise, spikes, training

    digits, quick = load_digits(), PROFILES["quick"]
    net = init_model(quick.sizes(64), quick.units, rng=Random(0))
    prior = TopPrior(np.full(50, 0.5, np.float32), np.full(50, 0.1, np.float32))
    run = SimpleNamespace(model=replace(net, prior=prior), dataset=digits, key="k", profile=quick)
    features = train_features(digits.train, digits.train_labels, rng=Random(1), epochs=1)
    small = Size(samples=40, digits=5)
    for module in (clock, noise, spikes):
        monkeypatch.setattr(module, "network", lambda seed, runs: run)
    for module in (clock, noise, dale, training):
        monkeypatch.setattr(module, "mnist", lambda: digits)
    monkeypatch.setattr(noise, "features_of", lambda data: features)
    monkeypatch.setattr(noise, "N_SAMPLES", 40)
    monkeypatch.setattr(noise, "LEVELS", replace(noise.LEVELS, temperatures=(0.0,)))
    for module in (clock, spikes):
        monkeypatch.setattr(module, "SIZE", small)
    tiny = dict(hidden=(20, 10), rows=100, epochs=1, samples=40, digits=5, filled=4)
    monkeypatch.setitem(dale.SETTINGS, "sigma", 0.2)
    for name, value in tiny.items():
        monkeypatch.setitem(dale.SETTINGS, name, value)
    ways = {"ways": {"lock step": dict(p=1)}}
    for name, settings, measure in (
        ("3", {}, partial(spikes.measured, runs=None)),
        ("seeds", ways, partial(clock.measured, runs=None)),
        ("seeds", {}, partial(noise.measured, runs=None)),
        ("interneurons, 1", {}, dale.measured),
        ("noise, T = 1", {}, training.trained),
        ("3 spikes in a window", {}, training.trained),
    ):
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        work = Work(1, None, progress=False, table="")
        (record,) = study({name: settings}, (0,), measure, folder, work=work)
        assert "error" not in record, record["error"]


def test_stored_rewards_are_read_with_their_verdicts_and_history():
    from experiments import reinforcement

    table = read_table(PAPER / "reinforcement.json")
    runs = reinforcement.read_runs(PAPER / "reinforcement.json")
    assert runs == table["runs"] and reinforcement.verdicts(runs) == table["verdicts"]
    assert as_plain(reinforcement.EARLIER) == table["earlier"]


def squared(trial):
    if trial.seed == 3:
        raise RuntimeError("no")
    return {"square": trial.seed**2 * trial.settings["times"]}


def test_a_table_is_extended_by_what_it_lacks(tmp_path, capsys):
    out = tmp_path / "table.json"
    out.write_text(json.dumps({"a": {"once": {"1": {"square": "old"}}}, "kept": 5}))
    parser = command_line("toy", "What it does.", out, seeds="1-3")
    asked = parser.parse_args(["--workers", "1"])
    rows = {"once": {"times": 1}, "twice": {"times": 2}}
    place = lambda trial: ("a", trial.name, trial.seed)
    finish = lambda table: {"n": len(table["a"])}
    assert extend_table(asked, rows, asked.seeds, squared, place, finish) == 2
    table = read_table(out)
    values = {
        name: {seed: found["square"] for seed, found in of.items()}
        for name, of in table["a"].items()
    }
    assert values == {"once": {"1": "old", "2": 4}, "twice": {"1": 2, "2": 8}}
    assert table["kept"] == 5 and table["n"] == 2
    assert {"revision", "date", "algorithm", "seconds"} <= table["a"]["twice"]["2"].keys()
    printed = capsys.readouterr().out
    assert "once seed 3: FAILED, RuntimeError: no" in printed and "twice seed 2" in printed
    assert extend_table(asked, rows, (1, 2), squared, place, finish) == 0  # nothing is lacking


def test_seeds_may_be_none_at_all():
    assert some("") == [] and some("7-9") == [7, 8, 9]
