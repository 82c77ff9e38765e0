"""What would spoil the page on ten simulators: a convention that gives other numbers than the package
it stands for, a trace that is not its recurrence, a balance that drifts, a stored table that nobody
can make again.
"""

import importlib
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biolearn.theory.pairs import (
    PAIRINGS,
    SIMULATORS,
    Convention,
    Window,
    balanced_window,
    pairwise_stdp,
)

script = importlib.import_module("experiments.stdp_simulators")
ROOT = Path(__file__).resolve().parent.parent
STORED = json.loads((ROOT / "experiments" / "stdp_simulators.json").read_text(encoding="utf-8"))
WINDOW = Window(1.0, 16.8, 0.5, 33.7)
ANNARCHY, NORSE = "ANNarchy 5.0.4.1 STDP", "Norse 1.1.0 stdp_step_linear"
RELAY, VAR = "NEST 3.10.0 stdp_synapse behind a relay", "VarTrace, n_nearest_spikes=1"
EVERY_PAIR = (0.5514, -0.3716, 0, 1.2940, -0.8027, 0.3875)
EULER = (0.5413, -0.3700, 0.5, 1.2771, -0.8000, 1.8621)
OBSERVED = {  # in November 2026, in the order of the stimuli; the last: with a delay of 5 ms
    "NEST 3.10.0 stdp_synapse": (*EVERY_PAIR, 0.8878),
    "NEST 3.10.0 stdp_nn_symm_synapse": (0.5514, -0.3690, 0.0026, 0.7426, -0.4265, 0.3622),
    "NEST 3.10.0 stdp_nn_restr_synapse": (0.5514, -0.3690, 0.0026, 0.7426, -0.4285, 0.3622),
    "NEST 3.10.0 stdp_nn_pre_centered_synapse": (0.5514, -0.3716, 0, 1.2940, -0.4311, 0.3596),
    "Brian2 2.9.0 two traces": (0.5514, -0.3716, 1, 1.2940, -0.8027, 3.3875, -0.3943),
    "Brian2 2.9.0 traces reset": (0.5514, -0.3716, 1, 0.7426, -0.4311, 2.2568),
    "Arbor 0.12.2 expsyn_stdp": (0.5514, -0.3716, -0.5, 1.2940, -0.8027, -1.1125, -0.3943),
    ANNARCHY: (0.5853, -0.3716, -0.5, 1.4093, -0.8027, -1.0457, -0.4062),
    "BindsNET 0.3.4 PostPre, additive traces": (0.5514, -0.3716, 0.5, 1.2940, -0.8027, 1.8875),
    "BindsNET 0.3.4 PostPre": (0.5514, -0.3716, 0.5, 0.7426, -0.4311, 1.5),
    "ngc-learn 3.2.1 TraceSTDP": (0.5514, -0.3716, 0.5, 1.2940, -0.8027, 1.8875),
    "ngc-learn 3.2.1 TraceSTDP, a_delta=0": (0.5514, -0.3716, 0.5, 0.7426, -0.4311, 1.5),
    "SpikingJelly 2.0.0 STDPLearner": EULER,
    "snnTorch 1.0.0 STDPLearner": EULER,
    NORSE: (0.0322, -0.0110, 0.0447, 0.0760, -0.0237, 0.1859),
}


def ours(name, stimulus):
    "The stimulus by pairwise_stdp with the simulator's convention."
    pre, post, delay = stimulus
    if "nn_symm" in name or "nn_restr" in name:
        pre = [0, *pre]  # NEST begins with a presynaptic spike at t = 0
    if name == ANNARCHY and delay:
        delay -= 1  # a delay of one step is none
    trains = np.zeros((2, 1, 200))
    trains[0, 0, pre] = trains[1, 0, post] = 1
    how = replace(SIMULATORS[name], delay=float(delay))
    return float(pairwise_stdp(*trains, WINDOW, dt=1.0, pairing=how).sum())


def by_hand(name):
    "The seven numbers of a rule in closed form, from exponentials alone."
    euler = name in ("SpikingJelly 2.0.0 STDPLearner", "snnTorch 1.0.0 STDPLearner", NORSE)

    def p(n):
        return (1 - 1 / 16.8) ** n if euler else math.exp(-n / 16.8)

    def m(n):
        return 0.5 * ((1 - 1 / 33.7) ** n if euler else math.exp(-n / 33.7))

    how = SIMULATORS[name]
    zeros = {"none": (0, 0), "potentiation": (1, 0), "depression": (0, 1), "both": (1, 1)}
    grows, shrinks = zeros[how.lag_zero]
    if name == ANNARCHY:  # each presynaptic spike takes a step out of the decay
        shrink = 1.5 + 2 * m(9) + m(18)
        six = p(9), -m(10), -0.5, p(4) + p(8), -m(10) - m(5), 2 * p(9) + p(18) - shrink
        return (*six, -m(7))
    extra = p(100) if "nn_symm" in name or "nn_restr" in name else 0.0  # the spike at t = 0
    more = p(105) if "nn_symm" in name else 0.0
    grow = {  # three times both, 10 ms apart
        "all": grows * 3 + 2 * p(10) + p(20),
        "pre_centred": 2 * p(10),
        "nearest": 3 if grows else 2 * p(10),
        "reduced": 2 * p(10),
    }[how.pairing]
    shrink = {"all": shrinks * 1.5 + 2 * m(10) + m(20)}.get(
        how.pairing, 1.5 if shrinks else 2 * m(10)
    )
    many = how.pairing in ("all", "pre_centred")
    plus = [p(10), 0, grows, p(5) + many * p(10), 0, grow, 0]
    minus = [0, m(10), 0.5 * shrinks, 0, m(5) + (how.pairing == "all") * m(10), shrink, m(8)]
    if how.delay_side == "dendritic":
        plus[6], minus[6] = p(2), 0
    scale = (1 / 16.8, 1 / 33.7) if name == NORSE else (1, 1)
    added = [0, extra, extra, 0, extra + more, extra, 0]
    return tuple(scale[0] * a - scale[1] * b + c for a, b, c in zip(plus, minus, added))


# ---- the table -----------------------------------------------------------------------------------


def test_every_convention_is_held_to_what_was_observed():
    assert set(OBSERVED) == set(SIMULATORS)


@pytest.mark.parametrize("name", SIMULATORS)
def test_the_closed_forms_are_the_numbers_of_the_simulators(name):
    for observed, exact in zip(OBSERVED[name], by_hand(name)):
        assert abs(observed - exact) < 5.01e-5  # half of the fourth decimal


@pytest.mark.parametrize("name", SIMULATORS)
def test_the_conventions_give_the_closed_forms(name):
    got = [ours(name, stimulus) for stimulus in script.STIMULI.values()]
    assert np.allclose(got, by_hand(name), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SIMULATORS)
def test_the_stored_table_holds_what_was_observed(name):
    given = [change for change in STORED[name]["changes"].values() if change is not None]
    assert list(STORED[name]["changes"]) == list(script.STIMULI)
    for stored, observed in zip(given, OBSERVED[name]):
        assert abs(stored - observed) < 1.01e-4  # both rounded to the fourth decimal


def test_a_relay_in_front_of_nests_synapse_makes_the_delay_axonal():
    given = STORED[RELAY]["changes"]
    assert given | {"delay 5": None} == STORED["NEST 3.10.0 stdp_synapse"]["changes"] | {
        "delay 5": None
    }
    assert abs(given["delay 5"] + 0.5 * math.exp(-8 / 33.7)) < 5.01e-5


def test_the_row_outside_the_options_is_a_trace_that_takes_off_its_value_of_a_step_ago():
    "ngc-learn with n_nearest_spikes=1: x becomes k x + S (1 - x), where k x + S (1 - k x) is meant."

    def trace(spikes, tau):
        x, path = 0.0, []
        for t in range(200):
            x = math.exp(-1 / tau) * x + (t in spikes) * (1 - x)
            path.append(x)
        return path

    for stimulus, (pre, post, delay) in script.STIMULI.items():
        x, y = trace(pre, 16.8), trace(post, 33.7)
        change = sum(x[t] for t in post) - 0.5 * sum(y[t] for t in pre)
        stored = STORED[f"ngc-learn 3.2.1 {VAR}"]["changes"][stimulus]
        assert stored is None if delay else abs(stored - change) < 5.01e-5


# ---- the recurrence ------------------------------------------------------------------------------


def in_a_loop(pre, post, how, dt):
    "Both traces, one step and one event at a time."
    late = round(how.delay / dt)
    n_t = len(pre)
    shifted = {"axonal": (late, 0), "dendritic": (0, late)}[how.delay_side]
    pre, post = (np.r_[np.zeros(n), s][:n_t] for n, s in zip(shifted, (pre, post)))
    x = y = 0.0
    changes = []

    def kept(tau, t):
        if how.decay == "skipping" and t > 0 and pre[t - 1]:
            return 1.0
        return 1 - dt / tau if how.decay == "euler" else math.exp(-dt / tau)

    for t in range(n_t):
        x, y, change = x * kept(9.0, t), y * kept(21.0, t), 0.0
        sizes = (dt / 9.0, dt / 21.0) if how.jump == "dt/tau" else (1.0, 1.0)
        seen_x, seen_y = x, y
        of_pre, of_post = PAIRINGS[how.pairing]
        after_x = sizes[0] if of_pre[0] else x + sizes[0]
        after_y = sizes[1] if of_post[0] else y + sizes[1]
        counts_x = how.lag_zero in ("potentiation", "both")
        counts_y = how.lag_zero in ("depression", "both")
        if pre[t] and counts_x:
            seen_x = after_x
        if post[t] and counts_y:
            seen_y = after_y
        if post[t]:
            change += 1.3 * seen_x
        if pre[t]:
            change -= 0.7 * seen_y
        x = after_x if pre[t] else x
        y = after_y if post[t] else y
        if (
            post[t] and of_pre[1]
        ):  # a trace that has been read ends, except for what it had not seen
            x = sizes[0] if pre[t] and not counts_x else 0.0
        if pre[t] and of_post[1]:
            y = sizes[1] if post[t] and not counts_y else 0.0
        changes.append(change)
    return changes


@settings(max_examples=120, deadline=None)
@given(
    how=st.builds(
        Convention,
        st.sampled_from(list(PAIRINGS)),
        st.sampled_from(["none", "potentiation", "depression", "both"]),
        st.sampled_from(["exact", "euler", "skipping"]),
        st.sampled_from(["one", "dt/tau"]),
        st.sampled_from([0.0, 0.5, 3.0, 40.0]),
        st.sampled_from(["axonal", "dendritic"]),
    ),
    n_t=st.integers(1, 40),
    density=st.floats(0, 1),
    seed=st.integers(0, 999),
)
def test_every_convention_is_its_loop(how, n_t, density, seed):
    pre, post = (np.random.default_rng(seed).random((2, 2, n_t)) < density).astype("float64")
    window = Window(1.3, 9.0, 0.7, 21.0)
    got = pairwise_stdp(pre, post, window, dt=0.5, pairing=how)
    want = [in_a_loop(a, b, how, 0.5) for a, b in zip(pre, post)]
    assert np.allclose(got, want, rtol=0, atol=1e-11)


@settings(max_examples=60, deadline=None)
@given(
    pairing=st.sampled_from(["pre_centred", "reduced"]),
    n_t=st.integers(1, 40),
    density=st.floats(0, 1),
    seed=st.integers(0, 999),
)
def test_neighbours_are_those_of_morrison_et_al(pairing, n_t, density, seed):
    """Each presynaptic spike pairs with the postsynaptic ones just before and just after it; in the
    reduced scheme only if no presynaptic spike lies in between, either.
    """
    pre, post = np.random.default_rng(seed).random((2, n_t)) < density
    want = 0.0
    for t in np.flatnonzero(pre):
        for u in np.flatnonzero(post):
            inside = slice(min(t, u) + 1, max(t, u))
            if not np.any(post[inside]) and (pairing == "pre_centred" or not np.any(pre[inside])):
                size = 1.0 if u > t else -0.5
                tau = 16.8 if u > t else 33.7
                want += (u != t) * size * math.exp(-abs(int(u) - int(t)) / tau)
    trains = (s.astype("float64")[None] for s in (pre, post))
    got = pairwise_stdp(*trains, WINDOW, dt=1.0, pairing=pairing).sum()
    assert abs(got - want) < 1e-11


@pytest.mark.parametrize("how", [*SIMULATORS.values(), Convention("reduced", "both", delay=3.0)])
def test_a_strict_namespace_gives_the_numbers_of_numpy(how):
    strict = pytest.importorskip("array_api_strict")
    trains = (np.random.default_rng(2).random((2, 3, 120)) < 0.15).astype("float32")
    there = pairwise_stdp(*map(strict.asarray, trains), WINDOW, dt=1.0, pairing=how)
    here = pairwise_stdp(*trains, WINDOW, dt=1.0, pairing=how)
    assert there.dtype == strict.float32 and here.dtype == np.float32
    assert np.allclose(np.asarray(there), here, rtol=0, atol=1e-5)


def test_a_name_stands_for_the_convention_with_this_pairing():
    pre, post = (np.random.default_rng(1).random((2, 3, 200)) < 0.1).astype("float64")
    results = []
    for pairing in PAIRINGS:
        plain = pairwise_stdp(pre, post, dt=1.0, pairing=pairing)
        assert np.array_equal(plain, pairwise_stdp(pre, post, dt=1.0, pairing=Convention(pairing)))
        results.append(plain.sum())
    assert len(set(results)) == len(PAIRINGS)  # the four differ on these trains


# ---- balance -------------------------------------------------------------------------------------


def mean_trace(tau, dt, p, pairing):
    "The mean of a trace just before a step, as a plain sum over the ages of spikes."
    ages = np.arange(1, round(60 * tau / dt))
    chance = p * (1 - p) ** (ages - 1) if pairing == "nearest" else p
    return np.sum(chance * np.exp(-ages * dt / tau))


@pytest.mark.parametrize("dt", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("pairing, rate", [("all", 0.0), ("nearest", 5.0), ("nearest", 60.0)])
def test_the_balance_is_exact_for_every_step(pairing, rate, dt):
    p = (rate or 30.0) * dt / 1000
    window = balanced_window(rate, dt=dt)
    grow = mean_trace(window.tau_plus, dt, p, pairing)
    shrink = window.a_minus * mean_trace(window.tau_minus, dt, p, pairing)
    assert abs(grow - shrink) < 1e-11 * grow  # round-off of a thousand terms and more
    trains = np.full((1, round(1500 / dt)), p)  # probabilities: the expected change, no sampling
    change = pairwise_stdp(trains, trains, window, dt=dt, pairing=pairing)[0, -1]
    assert abs(change) < 1e-11 * p * grow


@pytest.mark.parametrize("dt, before", [(1.0, -0.015), (5.0, -0.080)])
def test_equal_areas_drift(dt, before):
    window = balanced_window()
    assert window == Window()  # its default: both sides have the same area
    grow, shrink = (mean_trace(tau, dt, 0.02, "all") for tau in (16.8, 33.7))
    assert abs(1 - window.a_minus * shrink / grow - before) < 5.5e-4


def test_without_a_step_the_balance_is_that_of_continuous_time():
    assert math.isclose(balanced_window(20.0).a_minus, (0.02 + 1 / 33.7) / (0.02 + 1 / 16.8))
    assert math.isclose(
        balanced_window(20.0, dt=1e-7).a_minus, balanced_window(20.0).a_minus, rel_tol=1e-8
    )


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: Convention("some"), "pairing"),
        (lambda: Convention(lag_zero="half"), "lag_zero"),
        (lambda: Convention(decay="slow"), "decay"),
        (lambda: Convention(jump="two"), "jump"),
        (lambda: Convention(delay=-1.0), "delay"),
        (lambda: Convention(delay_side="left"), "delay_side"),
        (lambda: pairwise_stdp(*ONES, dt=1.0, pairing="some"), "pairing"),
        (lambda: pairwise_stdp(*ONES, dt=1.0, pairing=Convention(delay=0.5)), "whole number"),
        (lambda: pairwise_stdp(*ONES, dt=17.0, pairing=Convention(decay="euler")), "at most 16.8"),
        (lambda: balanced_window(dt=-1.0), "dt"),
        (lambda: balanced_window(rate=-1.0), "rate"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


ONES = np.ones((2, 1, 3))


def test_a_delay_of_steps_that_are_no_binary_fractions_is_whole():
    spikes = np.zeros((1, 40))
    spikes[0, 5] = 1
    how = Convention(delay=0.7, delay_side="axonal")  # seven steps of 0.1, up to round-off
    change = pairwise_stdp(spikes, spikes, WINDOW, dt=0.1, pairing=how)
    assert np.flatnonzero(change[0]).tolist() == [12] and change[0, 12] < 0


# ---- the program ---------------------------------------------------------------------------------


def test_the_program_needs_the_standard_library_alone(tmp_path):
    "In a simulator's environment there is no biolearn, nor what biolearn needs."
    argv = [sys.executable, "-I", "-S", str(ROOT / "experiments" / "stdp_simulators.py"), "--help"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "--envs" in done.stdout, done.stderr


@pytest.fixture
def measured(monkeypatch, tmp_path):
    "The program with a table of its own, and with a simulator that gives the numbers of a dict."
    monkeypatch.setattr(script, "TABLE", tmp_path / "table.json")
    now = {"changes": dict.fromkeys(script.STIMULI, 0.25), "when": "now", "versions": {}}
    monkeypatch.setattr(script, "measure", lambda folder, name: {f"rule of {name}": now})
    return now["changes"]


def test_the_program_says_what_has_changed(measured, tmp_path, capsys):
    argv = ["--envs", str(tmp_path), "--only", "nest"]
    assert script.main([*argv, "--write"]) == 0
    assert script.main(argv) == 0 and "rule of nest: as in the table" in capsys.readouterr().out
    stored = script.TABLE.read_text(encoding="utf-8")
    measured["both 100"] = 0.5
    assert script.main(argv) == 1
    assert "both 100: 0.25 before, 0.5 now" in capsys.readouterr().out
    assert script.TABLE.read_text(encoding="utf-8") == stored  # without --write it only looks


def test_the_program_asks_for_the_folder_of_the_environments(capsys):
    with pytest.raises(SystemExit):
        script.main([])
    assert "--envs FOLDER is needed" in capsys.readouterr().err


def test_every_pin_is_one_version_and_every_simulator_has_a_function():
    for name, pins in script.PINS.items():
        assert callable(getattr(script, name))
        assert all(pin.count("==") == 1 for pin in pins)
    assert {row["environment"] for row in STORED.values()} == set(script.PINS)
    assert all(row["when"].startswith(("run again on", "observed")) for row in STORED.values())
