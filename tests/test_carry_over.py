"""What would spoil a rule on its way to another simulator: the pairs at lag zero, the place of a
delay, a parameter under the wrong name. The oracles are Brian2 itself and the definition of the
rule; NEST itself is run by experiments/nest_synapse.py.
"""

import math

import numpy as np
import pytest
from brian2_oracle import import_brian2
from hypothesis import given, settings
from hypothesis import strategies as st

from biolearn.core.rng import Random
from biolearn.theory.carry_over import brian2_synapse, nest_synapse
from biolearn.theory.pairs import Window, pairwise_stdp
from biolearn.theory.stdp import poisson_spikes

WINDOW = Window(0.8, 16.8, 0.5, 33.7)


def trains(seed, shape, dt):
    rng = Random(seed)
    return [
        poisson_spikes(np.full(shape, 100.0), dt, rng=rng.stream(k)).astype("float64")
        for k in ("pre", "post")
    ]


def later(spikes, steps):
    "The trains as they arrive `steps` steps later."
    arrived = np.zeros_like(spikes)
    arrived[:, steps:] = spikes[:, : spikes.shape[1] - steps]
    return arrived


def weights_in_brian2(synapse, pre, post, dt):
    "The weight after every step of Brian2, (n, n_t)."
    b2 = import_brian2()
    b2.start_scope()
    clock = dict(dt=dt * b2.ms)
    groups = []
    for spikes in (pre, post):
        i, k = np.nonzero(spikes)
        groups.append(b2.SpikeGeneratorGroup(len(spikes), i, k * dt * b2.ms, **clock))
    synapses = b2.Synapses(*groups, **synapse, **clock)
    synapses.connect(j="i")
    monitor = b2.StateMonitor(synapses, "w", record=True, when="end", **clock)
    b2.Network(*groups, synapses, monitor).run(pre.shape[1] * dt * b2.ms)
    return np.asarray(monitor.w)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Brian2 calls pyparsing by its old names
@pytest.mark.parametrize("pairing", ["nearest", "all"])
@pytest.mark.parametrize("axonal, dendritic", [(0, 0), (3, 0), (0, 7), (5, 2)])
def test_brian2_learns_the_same_weights(pairing, axonal, dendritic):
    import_brian2()
    dt = 0.5
    pre, post = trains(7, (4, 1000), dt)
    pre[:2, 0], post[1:3, 0] = 1, 1  # the first step is no exception
    arrived = later(pre, axonal), later(post, dendritic)
    assert np.sum(arrived[0] * arrived[1]) > 5  # pairs at lag zero are in the test
    synapse = brian2_synapse(WINDOW, pairing=pairing, axonal=axonal * dt, dendritic=dendritic * dt)
    ours = np.cumsum(pairwise_stdp(*arrived, WINDOW, dt=dt, pairing=pairing), axis=1)
    theirs = weights_in_brian2(synapse, pre, post, dt)
    assert theirs.shape == ours.shape and np.max(np.abs(ours)) > 1
    assert np.max(np.abs(theirs - ours)) < 1e-9


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_brian2_makes_of_two_plain_traces_and_of_its_own_delay():
    "The numbers of the page: Brian2 with the traces of its documentation, in units of A_plus."
    b2 = import_brian2()
    window = Window(1.0, 16.8, 0.5, 33.7)
    plain = brian2_synapse(window, pairing="all") | {
        "on_pre": "x += 1\nw -= 0.5 * y",
        "on_post": "y += 1\nw += x",
    }
    together = np.zeros((1, 200))
    together[0, [100, 110, 120]] = 1
    ours = pairwise_stdp(together, together, window, dt=1.0, pairing="all").sum()
    assert ours == pytest.approx(0.3875, abs=5e-5)
    assert weights_in_brian2(plain, together, together, 1.0)[0, -1] == pytest.approx(ours + 3)
    pre, post = np.zeros((2, 1, 200))
    pre[0, 100] = post[0, 97] = 1
    delayed = plain | {"delay": 5 * b2.ms}  # Brian2's own delay, which is axonal
    change = weights_in_brian2(delayed, pre, post, 1.0)[0, -1]
    assert change == pytest.approx(-0.5 * math.exp(-8 / 33.7))


@settings(max_examples=30, deadline=None)
@given(
    a_plus=st.floats(1e-3, 5),
    a_minus=st.floats(1e-3, 5),
    tau_plus=st.floats(2, 50),
    tau_minus=st.floats(2, 50),
    w_max=st.floats(0.1, 1e3),
)
def test_nest_parameters_give_the_window(a_plus, a_minus, tau_plus, tau_minus, w_max):
    "NEST adds lambda Wmax exp(-lag/tau_plus), and takes alpha lambda Wmax exp(lag/tau_minus)."
    made = nest_synapse(Window(a_plus, tau_plus, a_minus, tau_minus), w_max=w_max, pairing="all")
    p = made["synapse"]
    assert p["lambda"] * p["Wmax"] == pytest.approx(a_plus)
    assert p["alpha"] * p["lambda"] * p["Wmax"] == pytest.approx(a_minus)
    assert p["mu_plus"] == p["mu_minus"] == 0 and p["tau_plus"] == tau_plus
    assert made["neuron"] == {"tau_minus": tau_minus} and "tau_minus" not in p


def test_nest_has_a_relay_for_an_axonal_delay_alone():
    assert "relay" not in nest_synapse(w_max=1.0)
    made = nest_synapse(w_max=1.0, axonal=2.0, dendritic=3.0)
    assert made["relay"]["delay"] == 2 and made["synapse"]["delay"] == 3
    assert nest_synapse(w_max=1.0)["synapse"]["synapse_model"] == "stdp_nn_symm_synapse"
    assert nest_synapse(w_max=1.0, pairing="all")["synapse"]["synapse_model"] == "stdp_synapse"


def test_the_texts_need_no_brian2_and_hold_every_digit():
    window = Window(np.float64(1 / 3), 16.8, np.float32(0.1), 33.7)
    text = brian2_synapse(window, pairing="all")
    assert set(text) == {"model", "on_pre", "on_post"} and "np." not in "".join(text.values())
    assert repr(1 / 3) in text["on_post"] and repr(float(np.float32(0.1))) in text["on_pre"]


@pytest.mark.parametrize(
    "make, name",
    [
        (lambda: brian2_synapse(pairing="some"), "pairing"),
        (lambda: brian2_synapse(axonal=-1.0), "axonal"),
        (lambda: brian2_synapse(dendritic=float("nan")), "dendritic"),
        (lambda: nest_synapse(w_max=0.0), "w_max"),
        (lambda: nest_synapse(w_max=1.0, dendritic=0.0), "dendritic"),
        (lambda: nest_synapse(w_max=1.0, pairing=None), "pairing"),
    ],
)
def test_bad_arguments_are_refused_by_name(make, name):
    with pytest.raises(ValueError, match=name):
        make()
