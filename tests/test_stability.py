"""Why h_1 grows: the closed forms against brute force, and the predicted edge against training on
both sides of it.
"""

import csv
import math
import runpy
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import biolearn.theory.stability as stability
from biolearn.core.inference import Inference
from biolearn.core.layers import Dense, LayerPair
from biolearn.core.learning import TrainConfig, fit
from biolearn.core.model import Model
from biolearn.core.rng import Random
from biolearn.theory.stability import (
    Signal,
    edge_noise,
    fixed_point,
    mean_drift,
    principal_spread,
    reconstructed_fraction,
    starting_noise,
    suit_noise,
)

EXPERIMENTS = Path(__file__).parent.parent / "experiments"
POSITIVE = dict(
    variance=st.floats(0.01, 10), sigma_x=st.floats(0.05, 2), sigma_h=st.floats(0.01, 2)
)
STEPS = dict(
    delta=st.floats(0.01, 0.5),
    n_steps=st.integers(1, 30),
    alpha=st.sampled_from([0.0, 0.001, 0.05, 0.5]),
)


@given(gain=st.floats(-2, 2), **STEPS)
def test_reconstructed_fraction_is_the_loop_written_out(gain, delta, n_steps, alpha):
    """Inference on one linear unit, step by step as Algorithm 2 prints it, with a layer above that
    reconstructs nothing.
    """
    f, g = 2.0, gain / 2
    h = f
    for _ in range(n_steps):
        h = h + delta * (f - f * (g * h)) + alpha * (0 - h)
    found = reconstructed_fraction(gain, Inference(n_steps, delta, alpha))
    assert found == pytest.approx(g * h, rel=1e-9, abs=1e-12)


def test_reconstructed_fraction_where_the_series_has_ratio_one():
    found = reconstructed_fraction(-1.0, Inference(3, 0.5, 0.5))
    assert found == pytest.approx(-1.0 * (1 + 3 * 0.5))
    assert reconstructed_fraction(0.7, Inference(5, 0.0, 0.0)) == pytest.approx(0.7)


def settled_by_iteration(variance, sigma_x, sigma_h, *, delta, n_steps, alpha, rounds=20_000):
    """The two regressions of the M-step done exactly, again and again, with h made step by step in
    between.
    """
    f, g = 0.5, 0.5
    for _ in range(rounds):
        c = f
        for _ in range(n_steps):
            c = c + delta * (f - f * g * c) - alpha * c
        f += 0.3 * (variance * c / (variance + sigma_x**2) - f)
        g += 0.3 * (variance * c / (variance * c * c + sigma_h**2) - g)
    return f * g, c * variance**0.5


@pytest.mark.parametrize(
    "knobs",
    [
        dict(variance=1.0, sigma_x=0.5, sigma_h=0.2, delta=0.1, n_steps=15, alpha=0.0),
        dict(variance=0.3, sigma_x=0.4, sigma_h=1.0, delta=0.2, n_steps=5, alpha=0.0),
        dict(variance=2.0, sigma_x=0.3, sigma_h=0.3, delta=0.1, n_steps=15, alpha=0.02),
        dict(variance=1.0, sigma_x=0.0, sigma_h=0.3, delta=0.1, n_steps=15, alpha=0.04),
    ],
)
def test_fixed_point_is_where_iteration_ends(knobs):
    knobs = dict(knobs)
    gain, size = settled_by_iteration(**knobs)
    inference = Inference(**{name: knobs.pop(name) for name in STEPS})
    rest = fixed_point(Signal(**knobs), inference)
    assert rest.gain == pytest.approx(gain, rel=1e-6) and rest.size == pytest.approx(size, rel=1e-5)


@given(**POSITIVE, **STEPS)
def test_at_the_fixed_point_nothing_drifts(variance, sigma_x, sigma_h, delta, n_steps, alpha):
    signal = Signal(variance, sigma_x, sigma_h)
    inference = Inference(n_steps, delta, alpha)
    rest = fixed_point(signal, inference)
    if not 1e-6 < rest.fraction < 1 - 1e-9:
        return
    c = rest.size / variance**0.5
    r = variance / (variance + sigma_x**2)
    drift = mean_drift(
        r * c, rest.fraction / c, signal, rate_f=1.0, rate_g=1.0, inference=inference
    )
    scale = (variance * c, variance * c * max(1.0, rest.fraction))
    assert all(abs(d) < 1e-6 * s for d, s in zip(drift, scale))


@given(**POSITIVE, **STEPS)
def test_alive_if_and_only_if_small_codes_grow(variance, sigma_x, sigma_h, delta, n_steps, alpha):
    "r T'(0) > 1 by a difference quotient; without a pull from above T'(0) = 1 + N delta."
    signal = Signal(variance, sigma_x, sigma_h)
    inference = Inference(n_steps, delta, alpha)
    slope = reconstructed_fraction(1e-7, inference) / 1e-7 * variance / (variance + sigma_x**2)
    if abs(slope - 1) > 1e-4:
        assert (fixed_point(signal, inference).size > 0) == (slope > 1)
    if not alpha:
        assert slope == pytest.approx(
            (1 + n_steps * delta) * variance / (variance + sigma_x**2), rel=1e-4
        )


@given(**POSITIVE, **STEPS)
def test_edge_noise_undoes_the_fixed_point(variance, sigma_x, sigma_h, delta, n_steps, alpha):
    inference = Inference(n_steps, delta, alpha)
    fraction = fixed_point(Signal(variance, sigma_x, sigma_h), inference).fraction
    if 1e-3 < fraction < 1 - 1e-6:
        found = edge_noise(variance, fraction, inference)
        assert found == pytest.approx(sigma_x, rel=1e-4)


def test_closed_forms_of_the_page():
    """Size of 1.96 s / sigma_x in units of sigma_h for little noise; sigma_h sqrt(delta /
    alpha - 1) without noise on x.
    """
    q = 0.9**15
    assert fixed_point(Signal(1.0, 0.01, 0.3)).size == pytest.approx(
        0.3 / 0.01 * math.sqrt((1 - q) / q), rel=1e-3
    )
    pulled = fixed_point(Signal(5.0, 0.0, 0.3), Inference(alpha=0.02))
    assert pulled.size == pytest.approx(0.3 * 2, rel=1e-9)
    assert math.isinf(fixed_point(Signal(1.0, 0.0, 0.3)).size)
    assert fixed_point(Signal(1.0, 0.3, 0.0)).size == 0
    assert math.isnan(fixed_point(Signal(1.0, 0.0, 0.0)).size)
    assert math.isnan(fixed_point(Signal(1.0, 0.0, 0.3), Inference(0, alpha=0.0)).size)


# ---- against training ----------------------------------------------------------------------------


def train(sigma_x, sigma_h, *, f=0.5, g=0.5, **changes):
    "rms of h_1 after each epoch of `fit` on one linear unit, x = +1 or -1."
    linear = lambda w: Dense(np.full((1, 1), w, np.float32), np.zeros(1, np.float32), "linear")
    model = Model((LayerPair(linear(f), linear(g)),))
    x = np.sign(Random(0).normal((1000, 1)))
    settings = dict(
        epochs=40, batch_size=50, rate_f=(0.05,), rate_g=(0.05,), optimizer="sgd", decay=False
    )
    config = TrainConfig(noise=(sigma_x, sigma_h), **settings | changes)
    _, history = fit(model, x, config, rng=Random(1), progress=False)
    return [e["rms"][1] for e in history]


@pytest.mark.parametrize("delta, n_steps", [(0.1, 15), (0.05, 8)])
def test_starving_edge_on_both_sides(delta, n_steps):
    """A small code with its inverse far away (u near 0) grows below sigma_x = s sqrt(N delta) and
    shrinks above.
    """
    edge = math.sqrt(n_steps * delta)
    inference = Inference(n_steps, delta, 0.0)
    assert fixed_point(Signal(1.0, 0.95 * edge, 0.3), inference).size > 0
    assert fixed_point(Signal(1.0, 1.05 * edge, 0.3), inference).size == 0
    small = dict(f=0.02, g=0.02, delta=delta, n_steps=n_steps, epochs=15)
    grows, dies = train(0.7 * edge, 0.3, **small), train(1.3 * edge, 0.3, **small)
    assert grows[-1] > 1.5 * grows[0] and dies[-1] < dies[0] / 1.5


@pytest.mark.parametrize("start", [0.4, 4.0])
def test_training_settles_at_the_predicted_size_from_both_sides(start):
    expected = fixed_point(Signal(1.0, 0.5, 0.3)).size
    assert 0.4 < expected < 4
    rms = train(0.5, 0.3, f=start, g=1 / start, epochs=40)
    assert np.mean(rms[-10:]) == pytest.approx(expected, rel=0.06)  # jitter of 50 examples a step


@pytest.mark.parametrize("factor, rises", [(0.6, True), (1.6, False)])
def test_the_edge_for_a_given_fraction_on_both_sides(factor, rises):
    """A pair that begins by reconstructing 95 % grows under less noise than edge_noise and shrinks
    under more.
    """
    fraction, sigma_h = 0.95, 0.3
    edge = edge_noise(1.0, fraction)
    c = sigma_h * math.sqrt(
        fraction / (1 - fraction)
    )  # where g's regression reconstructs just this fraction
    r = 1 / (1 + edge**2)
    rms = train(factor * edge, sigma_h, f=r * c, g=fraction / c, epochs=6, rate_g=(0.2,))
    assert (rms[-1] > c * 1.02) if rises else (rms[-1] < c / 1.02)


def test_without_noise_on_x_the_square_grows_steadily_at_the_predicted_speed():
    "Training follows the mean drift; the mean drift ends in the straight line of the formula."
    q, f, g, square = 0.9**15, 0.5, 0.5, []
    for _ in range(8001):
        square.append((reconstructed_fraction(f * g) / g) ** 2)
        df, dg = mean_drift(f, g, Signal(1.0, 0.0, 0.3), rate_f=0.03, rate_g=0.05)
        f, g = f + df, g + dg
    assert square[-1] - square[-2] == pytest.approx(2 * 0.03 * 0.3**2 * (1 - q) / q, rel=0.05)
    assert np.mean(np.array(train(0.0, 0.3, epochs=60, rate_f=(0.03,)))[-5:] ** 2) == pytest.approx(
        square[1160], rel=0.15
    )


# ---- the table -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def experiment():
    return runpy.run_path(str(EXPERIMENTS / "stability.py"))


def test_every_row_of_the_table_is_a_point_of_the_grid_once(experiment):
    grid = {
        experiment["key"](dict(network=network, **knobs, seed=seed))
        for dataset in ("linear", "digits", "mnist")
        for network, knobs, seed in experiment["points"](dataset)
    }
    rows = [
        experiment["key"](row) for row in csv.DictReader((EXPERIMENTS / "stability.csv").open())
    ]
    assert len(rows) == len(set(rows)) and set(rows) <= grid
    small = {key for key in grid if key[0] != "mnist"}
    assert not small - set(rows), f"not measured yet: {sorted(small - set(rows))[:3]}"


def test_an_interrupted_table_is_continued(experiment, tmp_path, monkeypatch):
    "Rows that are there are skipped, others appended as soon as they are measured."
    calls = []

    def measure(network, x, knobs, seed, backend):
        calls.append((network, seed))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return dict.fromkeys(experiment["RESULTS"], 1.0)

    monkeypatch.setitem(experiment["run"].__globals__, "TABLE", tmp_path / "t.csv")
    monkeypatch.setitem(experiment["run"].__globals__, "measure", measure)
    with pytest.raises(KeyboardInterrupt):
        experiment["run"]("linear")
    assert len(list(csv.DictReader((tmp_path / "t.csv").open()))) == 2
    experiment["run"]("linear")
    rows = list(csv.DictReader((tmp_path / "t.csv").open()))
    assert (
        len(rows)
        == len({experiment["key"](row) for row in rows})
        == len(experiment["points"]("linear"))
        == len(calls) - 1
    )


@pytest.mark.parametrize(
    "bad",
    [
        dict(variance=0.0),
        dict(sigma_x=-0.1),
        dict(sigma_h=math.inf),
        dict(delta=-0.1),
        dict(n_steps=1.5),
        dict(delta=0.9, alpha=0.2),
    ],
)
def test_settings_that_cannot_be_meant(bad):
    steps = {name: bad[name] for name in STEPS if name in bad}
    noise = {name: bad[name] for name in POSITIVE if name in bad}
    with pytest.raises((ValueError, TypeError), match=next(iter(bad))):
        signal = Signal(**dict(variance=1.0, sigma_x=0.1, sigma_h=0.1) | noise)
        fixed_point(signal, Inference(**steps))


def test_fractions_and_weights_that_cannot_be_meant():
    for fraction in (0, 1, -1, math.nan):
        with pytest.raises(ValueError, match="fraction"):
            edge_noise(1.0, fraction)
    with pytest.raises(ValueError, match="variance"):
        edge_noise(0.0, 0.5)
    with pytest.raises(ValueError, match="g must not be 0"):
        mean_drift(1.0, 0.0, Signal(1.0, 0.1), rate_f=1.0, rate_g=1.0)


def spread(values, n=400, n_0=6):
    "Rows whose standard deviations along random directions are exactly `values`."
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(n, len(values)))
    codes, _ = np.linalg.qr(codes - codes.mean(axis=0))  # columns of mean 0, norm 1, orthogonal
    axes, _ = np.linalg.qr(rng.normal(size=(n_0, len(values))))
    return (codes - codes.mean(axis=0)) * math.sqrt(n - 1) * values @ axes.T + 0.3


def test_the_principal_spread_of_rows_made_to_measure():
    found = principal_spread(spread(np.array([3.0, 1.2, 0.4])))
    assert found == pytest.approx((3.0, 1.2), rel=1e-9)
    assert principal_spread(spread(np.array([2.0]))) == pytest.approx((2.0, 0.0), abs=1e-7)


@pytest.mark.parametrize(
    "x, s_1",
    [
        (np.zeros((8, 3)), 0.0),
        (np.ones((1, 4)), 0.0),
        (np.array([[0.0], [1.0], [2.0]]), 1.0),
        (np.array([[0.0, 0.0], [1.0, 1.0]]), 1.0),
    ],
)
def test_where_there_are_no_two_directions(x, s_1, recwarn):
    assert principal_spread(x) == pytest.approx((s_1, 0.0)) and not recwarn.list


def test_the_noise_is_a_part_of_the_second_spread_and_at_least_a_little_of_the_first():
    assert starting_noise(spread(np.array([3.0, 1.2, 0.4]))) == 0.31  # 0.312
    assert starting_noise(spread(np.array([3.0, 0.2]))) == 0.09  # brightness alone, nearly
    assert starting_noise(spread(np.array([2.0]))) == 0.52  # one direction is all there is
    assert starting_noise(np.ones((5, 3))) == 0


def test_many_rows_are_looked_at_evenly():
    dark, bright = np.zeros((30_000, 2)), np.ones((30_000, 2))  # sorted, as classes may be
    assert principal_spread(np.concatenate([dark, bright]))[0] == pytest.approx(0.5**0.5, rel=1e-3)


def test_wide_rows_are_thinned_out_before_they_are_copied(monkeypatch):
    copied = []
    monkeypatch.setattr(stability, "to_numpy", lambda rows: copied.append(rows.shape) or rows[:3])
    principal_spread(np.broadcast_to(np.float32(0), (9_000, 2**16)))
    ((n, n_0),) = copied
    assert n * n_0 <= 2**26 < 2 * n * n_0


def test_noise_is_suited_at_both_ends_and_the_other_layers_keep_theirs():
    x = spread(np.array([3.0, 1.2, 0.4]))
    config = suit_noise(TrainConfig(epochs=3).for_layers(2), x)
    assert config.noise == (0.31, 0.1, "spikes") and config.noise_end == (0.25, 0.1, "spikes")
    assert config.epochs == 3
    usual = TrainConfig().for_layers(2)
    assert suit_noise(usual, np.ones((5, 3))) == usual  # nothing to suit
    with pytest.raises(ValueError, match="for_layers"):
        suit_noise(TrainConfig(), x)
