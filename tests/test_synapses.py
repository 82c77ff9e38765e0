"""What would spoil the fits to measured synapses: a file misread, a fit that misses its minimum, an
interval that is too short, a verdict for a curve that the points do not come from; and what would
spoil the prediction for pairs at a rate.
"""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import curve_fit

from biolearn.core.rng import Random
from biolearn.theory.pairs import Window, pairwise_stdp
from biolearn.theory.stdp import TrialParams, expected_curve
from biolearn.theory.synapses import (
    _WIDTHS,
    CURVES,
    burst,
    fit_side,
    nearest_change,
    pair_change,
    read_points,
)


def written(tmp_path, text):
    path = tmp_path / "points.csv"
    path.write_bytes(text.encode("utf-8"))
    return path


def points(n, shape, rng, *, height=80.0, width=16.8, noise=0.28):
    "Distances in ms and changes around a known curve."
    t = 1 - 20 * np.log(rng.stream("t").uniform((n,), "float64"))
    y = CURVES[shape](t / width) + noise * rng.stream("y").normal((n,), "float64")
    return t, height * y


# ---- the file ------------------------------------------------------------------------------------


def test_a_file_is_read_whatever_the_order_of_its_columns(tmp_path):
    t = np.asarray([-3.0, -2.5, -1.0, 1.0, 2.0, 4.5, 0.0])
    y = np.asarray([-10.0, -9.0, -8.5, 7.0, 1e1, -0.5, 3.0])
    lines = "".join(f"{b:g}, {a:g}\r\n\r\n" for a, b in zip(t, y))
    path = written(tmp_path, "\ufeffchange, delta_t\r\n" + lines)
    delta_t, change = read_points(path, at_least=3)
    assert delta_t.tolist() == t.tolist() and change.tolist() == y.tolist()


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("", "line 1: the columns"),
        ("delta_t\n1\n", "line 1: the columns"),
        ("delta_t,change,change\n1,2,3\n", "line 1: the columns"),
        ("Delta_t,change\n1,2\n", "line 1: the columns"),
        ("1,2\n3,4\n", "line 1: the columns"),
        ("delta_t,change\n1,2\n\n3,four\n", "line 4: not two numbers"),
        ("delta_t,change\n1,\n", "line 2: not two numbers"),
        ("delta_t,change\n1,2\n3,4%\n", "line 3: not two numbers"),
        ("delta_t,change\n1,2,3\n", "line 2: two cells"),
        ("delta_t,change\n1,nan\n", "line 2: not two finite"),
        ("delta_t,change\n" + "1,2\n" * 5 + "-1,-2\n" * 4, "4 points with negative delta_t, 5"),
        ("delta_t,change\n" + "-1,2\n" * 5 + "0,-2\n" * 9, "0 points with positive delta_t, 5"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_with_its_line(tmp_path, text, complaint):
    with pytest.raises(ValueError, match=complaint):
        read_points(written(tmp_path, text))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(OSError):
        read_points(tmp_path / "nothing.csv")


# ---- the fits ------------------------------------------------------------------------------------


def test_the_voltage_curve_is_the_mean_of_figure_1():
    p, t = TrialParams(gap=7.0, slope_up=0.3), np.linspace(0.1, 90, 50)
    curve = math.sqrt(math.pi / 2) * 0.3 * CURVES["voltage"](t * 0.3 / 7)
    assert np.allclose(curve, expected_curve(t, p), rtol=1e-12)


@pytest.mark.parametrize("shape", CURVES)
@pytest.mark.parametrize("side", [1, -1])
def test_points_on_a_curve_give_it_back(shape, side):
    t = np.concatenate([-np.arange(1.0, 40.0, 1.5), np.arange(1.0, 40.0, 1.5)])
    width = np.where(t > 0, 9.0, 25.0)
    change = np.sign(t) * np.where(t > 0, 70.0, 30.0) * CURVES[shape](np.abs(t) / width)
    found = fit_side(t, change, side=side, rng=Random(0), n_resamples=50)
    f = found.fits[shape]
    assert found.n == 26 and f.r2 == pytest.approx(1, abs=1e-9)
    assert f.height == pytest.approx(70 if side == 1 else 30, rel=1e-5)
    assert f.width == pytest.approx(9 if side == 1 else 25, rel=1e-5)
    assert all(f.r2 > other.r2 for name, other in found.fits.items() if name != shape)


@pytest.mark.parametrize("seed", range(4))
def test_the_fits_are_those_of_scipy(seed):
    t, y = points(40, "exponential", Random(seed))
    found = fit_side(-t, -y, side=-1, rng=Random(0), n_resamples=20)
    for name, shape in CURVES.items():
        (a, c), _ = curve_fit(
            lambda u, a, c: a * shape(u / c), t, y, (80, 20), ftol=1e-13, xtol=1e-13
        )
        f = found.fits[name]
        r2 = 1 - np.sum((y - a * shape(t / c)) ** 2) / np.sum((y - y.mean()) ** 2)
        assert f.height == pytest.approx(a, rel=1e-5) and f.width == pytest.approx(abs(c), rel=1e-5)
        assert f.r2 == pytest.approx(r2, abs=1e-9)


def test_the_unit_of_the_file_does_not_matter():
    t, y = points(30, "voltage", Random(5))
    whole, part = (fit_side(t, k * y, rng=Random(1), n_resamples=100) for k in (1.0, 0.01))
    assert whole.verdict == part.verdict and whole.lead == pytest.approx(part.lead)
    for name, f in whole.fits.items():
        g = part.fits[name]
        assert g.height == pytest.approx(f.height / 100) and g.width == pytest.approx(f.width)
        assert g.r2_interval == pytest.approx(f.r2_interval)


def test_the_resamples_depend_on_the_seed_alone():
    t, y = points(30, "voltage", Random(5))
    a, b, c = (fit_side(t, y, rng=Random(s), n_resamples=100) for s in (1, 1, 2))
    assert a == b and a != c
    assert a.fits["voltage"].height == c.fits["voltage"].height  # only the intervals are drawn


@pytest.mark.parametrize("shape", CURVES)
def test_the_intervals_cover_the_truth(shape):
    """Nominally 95 %. Percentile intervals of so few points are a little short: in 700 sets they
    covered 89 to 94 %. With 120 sets the standard error is 2.7 %; 80 % lies three of them below.
    """
    sets, inside = 120, np.zeros(2)
    for k in range(sets):
        rng = Random(11).stream(shape, k)
        f = fit_side(*points(40, shape, rng), rng=rng.stream("b"), n_resamples=200).fits[shape]
        for i, (low, high, truth) in enumerate(
            [(*f.height_interval, 80.0), (*f.width_interval, 16.8)]
        ):
            inside[i] += low <= truth <= high
    assert np.all(inside >= 0.8 * sets) and np.all(inside < sets)


# ---- the verdict ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape, verdict",
    [("exponential", "exponential"), ("hyperbola", "Eq. 1"), ("voltage", "Eq. 1")],
)
def test_clean_points_are_decided_for_where_they_come_from(shape, verdict):
    found = fit_side(*points(60, shape, Random(3), noise=0.02), rng=Random(0))
    assert found.verdict == verdict
    low, high = found.lead_interval
    assert low > 0 if verdict == "Eq. 1" else high < 0
    assert low < found.lead < high


def test_points_that_do_not_decay_are_called_so():
    rng = Random(4)
    t, _ = points(22, "voltage", rng)
    y = -30 + 10 * rng.stream("flat").normal((22,), "float64")
    found = fit_side(-t, y, side=-1, rng=rng.stream("b"))
    assert found.verdict == "no decay" and found.fits["exponential"].r2 < 0.2
    assert found.fits["exponential"].width_interval[1] == _WIDTHS[-1]


def test_the_verdict_is_rarely_wrong_and_25_points_rarely_decide():
    names = {"exponential": "exponential", "hyperbola": "Eq. 1"}
    for shape in names:
        found = []
        for k in range(80):
            rng = Random(12).stream(shape, k)
            found.append(
                fit_side(*points(25, shape, rng), rng=rng.stream("b"), n_resamples=200).verdict
            )
        wrong = sum(v in names.values() and v != names[shape] for v in found)
        assert wrong <= 6  # 2.5 % are 2 of 80; more than 6 have probability 1 %
        assert found.count("undecided") > 40


def test_two_places_decide_nothing():
    "A curve of each family passes through any two heights."
    t = np.tile([1.0, 84.0], 50)
    for k in range(5):
        y = CURVES["hyperbola"](t / 16.8) + 0.28 * Random(k).normal((100,), "float64")
        found = fit_side(t, y, rng=Random(k), n_resamples=100)
        assert abs(found.lead) < 1e-3


# ---- pairs at a rate -----------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    period=st.integers(3, 200),
    lag=st.integers(-60, 60),
    n_pairs=st.integers(1, 7),
)
def test_a_burst_by_pairs_is_a_burst_by_traces(period, lag, n_pairs):
    window = Window(1.3, 9.0, 0.7, 21.0)
    t_pre, t_post = burst(1000 / period, float(lag), n_pairs=n_pairs)
    assert np.allclose(np.diff(t_pre), period) and np.allclose(t_post - t_pre, lag)
    trains = np.zeros((2, 1, 1500))
    for train, times in zip(trains, (t_pre, t_post)):
        train[0, np.round(times).astype(int) + 60] = 1
    want = pairwise_stdp(*trains, window, dt=1.0, pairing="all").sum()
    assert pair_change(t_pre, t_post, window) == pytest.approx(want, rel=1e-9, abs=1e-12)


def test_the_nearest_spike_counts_and_two_that_are_equally_near_count_half():
    curve = lambda lag: np.where(lag > 0, 3.0, -1.0) * np.exp(-np.abs(lag))
    pre, post = np.asarray([0.0, 10.0, 20.0]), np.asarray([2.0, 8.0, 12.0, 19.0])
    want = 3 * math.exp(-2) + (3 - 1) * math.exp(-2) / 2 - math.exp(-1)
    assert nearest_change(pre, post, curve) == pytest.approx(want)


def test_at_50_hz_both_orders_are_one_train():
    "Far from the ends the change of one more pair is the same for +10 ms and for -10 ms."
    for change in (pair_change, lambda a, b: nearest_change(a, b, expected_curve)):
        more = [
            change(*burst(50.0, lag, n_pairs=201)) - change(*burst(50.0, lag, n_pairs=200))
            for lag in (10.0, -10.0)
        ]
        assert more[0] == pytest.approx(more[1], abs=1e-9)


# ---- faults --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, error",
    [
        (lambda t: fit_side(t, t, side=0, rng=Random(0)), "side must be"),
        (lambda t: fit_side(t, t, side=-1, rng=Random(0)), "side -1 has 0 points"),
        (lambda t: fit_side(t, 0 * t, rng=Random(0)), "not all with one change"),
        (lambda t: fit_side(t, t[1:], rng=Random(0)), "one length"),
        (lambda t: fit_side(t * np.nan, t, rng=Random(0)), "delta_t holds NaN"),
        (lambda t: fit_side(t, t, rng=Random(0), n_resamples=3), "n_resamples"),
        (lambda t: burst(0.0, 10.0), "rate must be"),
        (lambda t: burst(10.0, float("nan")), "delta_t must be"),
        (lambda t: burst(10.0, 1.0, n_pairs=0), "n_pairs must be"),
    ],
)
def test_bad_arguments_are_refused(make, error):
    with pytest.raises(ValueError, match=error):
        make(np.arange(1.0, 9.0))
