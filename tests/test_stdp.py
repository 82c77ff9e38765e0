"""What would spoil the page on STDP: a wrong pairing, a biased crossing, a lost unit, a namespace
that is not NumPy's.
"""

import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from brian2_oracle import import_brian2
from hypothesis import given, settings
from hypothesis import strategies as st

from biolearn.core.arrays import Backend, to_numpy
from biolearn.core.rng import Random
from biolearn.theory import stdp
from biolearn.theory.pairs import (
    Convention,
    Window,
    balanced_window,
    pairwise_stdp,
    stdp_window,
)
from biolearn.theory.stdp import (
    RateParams,
    TrialParams,
    central_slope,
    correlation,
    draw_trials,
    eq1_update,
    expected_curve,
    expected_rate_window,
    fit_exponential,
    nearest_spike,
    nudge,
    ou_noise,
    poisson_spikes,
    random_rates,
    simulate_trials,
    stdp_curve,
    update_by_lag,
    voltage,
    weight_change,
)

strict = pytest.importorskip("array_api_strict")
STRICT = Backend(strict, strict.Device("device1"))


def trains(seed, shape=(3, 400), rate=60.0, dt=1.0):
    "Two float64 spike trains."
    rng = Random(seed)
    return [
        poisson_spikes(np.full(shape, rate), dt, rng=rng.stream(k)).astype("float64")
        for k in ("pre", "post")
    ]


# ---- Eq. 1 ---------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    n_steps=st.integers(1, 5),
    batch=st.integers(1, 4),
    n_in=st.integers(1, 4),
    n_out=st.integers(1, 4),
    seed=st.integers(0, 999),
)
def test_eq1_is_its_definition(n_steps, batch, n_in, n_out, seed):
    rng = np.random.default_rng(seed)
    S = rng.integers(0, 2, (n_steps, batch, n_in)).astype("float32")
    V = rng.normal(size=(n_steps + 1, batch, n_out)).astype("float32")
    want = np.zeros((n_in, n_out))
    for t in range(n_steps):
        for b in range(batch):
            for i in range(n_in):
                for j in range(n_out):
                    want[i, j] += S[t, b, i] * (float(V[t + 1, b, j]) - float(V[t, b, j]))
    got = eq1_update(S, V)
    assert got.dtype == np.float32 and np.allclose(got, want, atol=1e-4)


def test_eq1_is_the_gradient_of_any_smooth_objective_for_a_short_nudge():
    rng = np.random.default_rng(0)
    x, W, y = rng.uniform(0, 1, (6, 5)), rng.normal(size=(5, 3)), rng.normal(size=(6, 3))

    def J(W):
        return -np.sum(np.cosh(y - x @ W))

    numeric = np.zeros_like(W)
    for i in np.ndindex(W.shape):
        step = np.zeros_like(W)
        step[i] = 1e-6
        numeric[i] = (J(W + step) - J(W - step)) / 2e-6
    V = nudge(x @ W, lambda V: np.sinh(y - V), beta=0.01, dt=1.0, n_steps=1)
    assert np.allclose(eq1_update(x[None], V) / 0.01, numeric, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("V_shape", [(3, 2, 1), (4, 3, 1), (5, 2, 1)])
def test_eq1_refuses_shapes_that_do_not_fit(V_shape):
    with pytest.raises(ValueError, match="n_steps"):
        eq1_update(np.zeros((3, 2, 2)), np.zeros(V_shape))


# ---- noise and spikes ----------------------------------------------------------------------------


def test_ou_noise_has_its_covariance():
    n, sigma, tau, dt = 40_000, 2.0, 5.0, 0.5
    x = ou_noise(n, 30, sigma=sigma, tau=tau, dt=dt, rng=Random(0)).astype("float64")
    lag = np.abs(np.subtract.outer(np.arange(30), np.arange(30))) * dt
    want = sigma**2 * np.exp(-lag / tau)
    stderr = np.sqrt((sigma**4 + want**2) / n)  # of a sample covariance of Gaussians
    assert np.max(np.abs(x.T @ x / n - want) / stderr) < 5  # 465 different entries


def test_poisson_spikes_have_their_rate_and_refuse_what_dt_cannot_hold():
    s = poisson_spikes(np.full((1000, 200), 80.0), 1.0, rng=Random(0))
    assert s.dtype == np.float32 and abs(s.mean() - 0.08) < 4 * math.sqrt(0.08 * 0.92 / s.size)
    for bad in (1001.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="rates must be"):
            poisson_spikes(np.full((2, 2), bad), 1.0, rng=Random(0))


# ---- the trials of Figure 1 ----------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(gap=st.floats(0.1, 20), slope=st.floats(0.02, 3), sign=st.sampled_from([-1, 1]))
def test_a_straight_line_crosses_where_it_should(gap, slope, sign):
    p = TrialParams(noise=0.0)
    V = voltage(
        np.asarray([gap], "float32"), np.asarray([sign * slope], "float32"), p, rng=Random(0)
    )
    delta_t, want = float(nearest_spike(V, p)[0]), sign * gap / slope
    if abs(want) > p.half_width + 1e-3:
        assert math.isnan(delta_t)
    elif abs(want) < p.half_width - 1e-3:
        assert delta_t == pytest.approx(want, abs=2e-3 + 2e-5 / slope)
    assert float(weight_change(V, p)[0]) == pytest.approx(sign * slope, rel=1e-4, abs=1e-4)


def test_nearest_spike_is_the_nearest_of_all_crossings():
    p = TrialParams(noise=3.0, noise_tau=4.0)
    V = voltage(*draw_trials(300, p, rng=Random(1)), p, rng=Random(2))
    got, t, m = nearest_spike(V, p), p.times, V.shape[1] // 2
    for row, delta_t in zip(V.astype("float64"), got):
        crossings = [
            t[k] + p.dt * (p.threshold - row[k]) / (row[k + 1] - row[k])
            for k in range(len(t) - 1)
            if (row[k] >= p.threshold) != (row[k + 1] >= p.threshold)
        ]
        if row[m] >= p.threshold or not crossings:
            assert math.isnan(delta_t)
        else:
            assert delta_t == pytest.approx(min(crossings, key=abs), abs=1e-3)


@pytest.mark.parametrize(
    "p", [TrialParams(noise=0.0), TrialParams(noise=0.0, gap=9.0, slope_up=0.9, slope_down=0.3)]
)
def test_trials_without_noise_follow_the_exact_curve(p):
    t, w = simulate_trials(60_000, p, rng=Random(3))
    residual = stdp_curve(t, w - expected_curve(t, p), np.arange(-40, 41, 4.0))
    assert np.max(np.abs(residual.mean / residual.stderr)) < 4


def test_a_hundred_thousand_trials_fit_in_bounded_memory():
    p = TrialParams()
    tracemalloc.start()
    t, w = simulate_trials(100_000, p, rng=Random(0), chunk=5_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    one = 5_000 * p.times.size * 4  # bytes of one array of one chunk
    assert t.shape == w.shape == (100_000,) and t.dtype == np.float32 and peak < 8 * one
    assert np.mean(np.isnan(t)) < 0.3 and not np.any(np.isnan(w))


def test_trials_depend_on_the_seed_alone_and_not_on_the_number_asked_for():
    p = TrialParams()
    a, b, c = (
        simulate_trials(n, p, rng=Random(s), chunk=100) for n, s in ((300, 5), (200, 5), (300, 6))
    )
    assert np.array_equal(a[0][:200], b[0], equal_nan=True) and not np.array_equal(a[1], c[1])


def test_curve_counts_means_and_spreads():
    t, w = (
        np.asarray([-1.0, -1.5, 1.0, 1.2, 1.4, 9.0, np.nan]),
        np.asarray([1.0, 3.0, 2.0, 4.0, 9.0, 100.0, 100.0]),
    )
    c = stdp_curve(t, w, [-2.0, 0.0, 2.0])
    assert (
        c.count.tolist() == [2, 3]
        and c.mean.tolist() == [2, 5]
        and np.allclose(c.sd, [np.std([1, 3], ddof=1), np.std([2, 4, 9], ddof=1)])
    )
    assert np.allclose(c.stderr, c.sd / np.sqrt(c.count))
    with pytest.raises(ValueError, match="wider bins"):
        stdp_curve(t, w, [-2.0, 0.0, 5.0, 8.0])


def test_fit_exponential_recovers_an_exponential():
    x = np.concatenate([-np.arange(1.0, 20)[::-1], np.arange(1.0, 20)])
    m = np.where(x > 0, 3 * np.exp(-np.abs(x) / 7), -2 * np.exp(-np.abs(x) / 13))
    c = stdp.Curve(x, m, m, np.full(x.size, 0.01), m)
    assert np.allclose(fit_exponential(c, 1)[:2], (3, 7)) and np.allclose(
        fit_exponential(c, -1)[:2], (2, 13)
    )


# ---- the classic rule ----------------------------------------------------------------------------


def test_window_at_known_points():
    w = stdp_window(np.asarray([-33.7, 0.0, 16.8]), Window(2.0, 16.8, 1.0, 33.7))
    assert np.allclose(w, [-math.exp(-1), 0.0, 2 * math.exp(-1)])


@settings(max_examples=30, deadline=None)
@given(
    pairing=st.sampled_from(["nearest", "all"]),
    n_t=st.integers(1, 40),
    density=st.floats(0, 1),
    seed=st.integers(0, 999),
)
def test_pairwise_stdp_is_its_definition(pairing, n_t, density, seed):
    rng, window, dt = np.random.default_rng(seed), Window(1.3, 9.0, 0.7, 21.0), 0.5
    pre, post = (rng.random((2, n_t)) < density for _ in range(2))
    want = np.zeros((2, n_t))
    for row in range(2):
        for t in range(n_t):
            for here, other, sign in ((post, pre, 1), (pre, post, -1)):
                if not here[row, t]:
                    continue
                partners = [u for u in range(t) if other[row, u]]
                if pairing == "nearest":
                    partners = partners[-1:]
                want[row, t] += sum(
                    float(stdp_window(np.asarray(sign * (t - u) * dt), window)) for u in partners
                )
    got = pairwise_stdp(
        pre.astype("float64"), post.astype("float64"), window, dt=dt, pairing=pairing
    )
    assert np.allclose(got, want, atol=1e-12)


BRIAN2_ORDERS = {  # lag_zero: the order of what happens within a step
    "none": ("read", "learn", "jump_pre", "jump_post"),
    "potentiation": ("jump_pre", "read", "learn", "jump_post"),  # as in its documentation
    "depression": ("jump_post", "read", "learn", "jump_pre"),
    "both": ("jump_pre", "jump_post", "read", "learn"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Brian2 calls pyparsing by its old names
@pytest.mark.parametrize("pairing", ["nearest", "all"])
@pytest.mark.parametrize("lag_zero", BRIAN2_ORDERS)
def test_the_same_weights_as_brian2(pairing, lag_zero):
    """Brian2 simulates the same spike trains; the weight after every step is the same. Its traces
    are written in the usual event-driven form; what a pair in the same step does depends on whether
    each trace jumps before it is read or after.
    """
    b2 = import_brian2()
    b2.start_scope()
    window, dt, shape = Window(0.8, 16.8, 0.5, 33.7), 0.5, (4, 2000)
    pre, post = trains(7, shape, rate=40.0, dt=dt)
    assert np.sum(pre * post) > 0  # coincident spikes are in the test
    clock = dict(dt=dt * b2.ms)
    groups = [
        b2.SpikeGeneratorGroup(
            shape[0], *(lambda i, k: (i, k * dt * b2.ms))(*np.nonzero(s)), **clock
        )
        for s in (pre, post)
    ]
    jump = "= 1" if pairing == "nearest" else "+= 1"
    synapses = b2.Synapses(
        *groups,
        """w : 1
                                       dx/dt = -x / tau_plus : 1 (event-driven)
                                       dy/dt = -y / tau_minus : 1 (event-driven)""",
        on_pre={"read": "w -= a_minus * y", "jump_pre": f"x {jump}"},
        on_post={"learn": "w += a_plus * x", "jump_post": f"y {jump}"},
        namespace=dict(
            tau_plus=window.tau_plus * b2.ms,
            tau_minus=window.tau_minus * b2.ms,
            a_plus=window.a_plus,
            a_minus=window.a_minus,
        ),
        **clock,
    )
    synapses.connect(j="i")
    for order, name in enumerate(BRIAN2_ORDERS[lag_zero]):
        getattr(synapses, name).order = order
    monitor = b2.StateMonitor(synapses, "w", record=True, when="end", **clock)
    network = b2.Network(*groups, synapses, monitor)
    network.run(shape[1] * dt * b2.ms)
    how = Convention(pairing, lag_zero)
    ours = np.cumsum(pairwise_stdp(pre, post, window, dt=dt, pairing=how), axis=1)
    assert monitor.w.shape == ours.shape and np.max(np.abs(ours)) > 1
    assert np.max(np.abs(np.asarray(monitor.w) - ours)) < 1e-9


@pytest.mark.parametrize("rate, pairing", [(20.0, "nearest"), (60.0, "nearest"), (0.0, "all")])
def test_the_balanced_window_does_not_drift(rate, pairing):
    "By sampling; tests/test_simulators.py holds the exact balance."
    drawn = [
        poisson_spikes(np.full((400, 2000), rate or 30.0), 0.5, rng=Random(k)).astype("float64")
        for k in (1, 2)
    ]

    def totals(window):
        "The change of each weight from step 500 on, when the traces are stationary."
        return np.sum(pairwise_stdp(*drawn, window, dt=0.5, pairing=pairing)[:, 500:], axis=1)

    window = balanced_window(rate, dt=0.5)
    total = totals(window)
    stderr = np.std(total, ddof=1) / math.sqrt(len(total))
    assert abs(np.mean(total)) < 4 * stderr
    assert np.mean(totals(replace(window, a_minus=0.3))) > 10 * stderr  # the test can tell


# ---- the companion's rates -----------------------------------------------------------------------


def test_rates_have_their_mean_and_depth():
    p = RateParams(mean=30.0, depth=0.5)
    r = random_rates(20_000, p, rng=Random(0)).astype("float64")
    assert r.shape == (20_000, 200) and r.min() > 0
    one = r[:, 7]
    assert (
        abs(one.mean() - 30) < 4 * one.std() / math.sqrt(len(one))
        and abs(np.log(one).std() - 0.5) < 0.02
    )


def test_update_by_lag_is_its_definition():
    pre, post = trains(3, (20, 120), rate=100.0)
    change, far = np.random.default_rng(0).normal(size=pre.shape), 10
    for pairing in ("all", "nearest"):
        got, found = update_by_lag(pre, post, change, dt=1.0, max_lag=far, pairing=pairing), {}
        for row in range(20):
            for t in range(far, 120 - far):
                if not pre[row, t]:
                    continue
                for sign in (-1, 1):
                    hits = [sign * k for k in range(1, far + 1) if post[row, t + sign * k]]
                    for lag in hits if pairing == "all" else hits[:1]:
                        found.setdefault(lag, []).append(change[row, t])
        for lag, m, sd, n in zip(got.centre, got.mean, got.sd, got.count):
            assert (
                n == len(found[lag])
                and m == pytest.approx(np.mean(found[lag]))
                and sd == pytest.approx(np.std(found[lag]))
            )


def test_the_rate_rule_follows_minus_the_slope_of_the_autocorrelation():
    p = RateParams(mean=60.0, depth=0.5, tau=12.0)
    r_pre, r_post = (random_rates(20_000, p, rng=Random(k)) for k in (1, 2))
    pre, post = (poisson_spikes(r, p.dt, rng=Random(k)) for r, k in ((r_pre, 3), (r_post, 4)))
    got = update_by_lag(pre, post, central_slope(r_post, window=4.0, dt=p.dt), dt=p.dt)
    z = (got.mean - expected_rate_window(got.centre, p, window=4.0)) / got.stderr
    assert np.max(np.abs(z)) < 4.5 and np.mean(z**2) < 2
    assert np.max(np.abs(got.mean / got.stderr)) > 8  # there is a signal to follow


def test_central_slope_of_a_line_and_its_limits():
    x = np.broadcast_to(np.arange(20.0) * 0.5 * 3, (2, 20))  # 3 per ms at dt = 0.5 ms
    s = central_slope(x, window=2.0, dt=0.5)
    assert np.allclose(s[:, 2:-2], 3) and np.all(s[:, :2] == 0) and np.all(s[:, -2:] == 0)
    with pytest.raises(ValueError, match="too long"):
        central_slope(x, window=20.0, dt=0.5)


def test_correlation_of_known_mixtures():
    a, b = np.random.default_rng(0).normal(size=(2, 20_000))
    r, s = correlation(a, 0.6 * a + 0.8 * b)
    assert abs(r - 0.6) < 5 * s and s < 0.02
    with pytest.raises(ValueError):
        correlation(a[:10], b[:10])


# ---- another array namespace ---------------------------------------------------------------------


def test_trials_on_a_strict_namespace_are_those_of_numpy():
    p = TrialParams(half_width=20.0)
    here, there = (
        simulate_trials(300, p, rng=Random(4, backend), chunk=128) for backend in (None, STRICT)
    )
    for a, b in zip(here, there):
        assert b.device == STRICT.device and b.dtype == strict.float32
        assert np.allclose(a, to_numpy(b), atol=2e-3, equal_nan=True)
    edges = [-20.0, 0.0, 20.0]
    assert np.allclose(stdp_curve(*here, edges).mean, stdp_curve(*there, edges).mean, atol=1e-3)


def test_rates_and_rules_on_a_strict_namespace_are_those_of_numpy():
    p, results = RateParams(mean=80.0), []
    for backend in (None, STRICT):
        rng = Random(4, backend)
        rates = [random_rates(50, p, rng=rng.stream(k)) for k in (1, 2)]
        pre, post = (
            poisson_spikes(r, p.dt, rng=rng.stream("spikes", k)) for k, r in enumerate(rates)
        )
        slope = central_slope(rates[1], window=4.0, dt=p.dt)
        rows = [pairwise_stdp(pre, post, dt=p.dt, pairing=q) for q in ("nearest", "all")] + [
            stdp_window(slope),
            slope,
        ]
        V = nudge(rates[1], lambda V: -V, beta=0.01, dt=1.0, n_steps=3)
        rows += [eq1_update(V[1:, ...], V)]
        assert all(str(a.dtype).endswith("float32") for a in rows)
        results.append(
            [to_numpy(a) for a in rows]
            + [
                update_by_lag(pre, post, slope, dt=p.dt, max_lag=5.0, pairing=q).mean
                for q in ("all", "nearest")
            ]
        )
    for a, b in zip(*results):
        assert np.allclose(a, b, rtol=1e-3, atol=1e-3 * max(1.0, np.max(np.abs(a))))


# ---- faults --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: TrialParams(gap=0.0),
        lambda: TrialParams(noise=-1.0),
        lambda: TrialParams(window=0.1),
        lambda: TrialParams(dt=float("nan")),
        lambda: RateParams(mean=0.0),
        lambda: Window(tau_plus=-1.0),
        lambda: balanced_window(-1.0),
        lambda: simulate_trials(0, rng=Random(0)),
        lambda: pairwise_stdp(np.ones((2, 3)), np.ones((2, 4)), dt=1.0),
        lambda: pairwise_stdp(np.ones((2, 3)), np.ones((2, 3)), dt=1.0, pairing="some"),
        lambda: pairwise_stdp(2 * np.ones((2, 3)), np.ones((2, 3)), dt=1.0),
    ],
)
def test_bad_arguments_are_refused(make):
    with pytest.raises(ValueError):
        make()
