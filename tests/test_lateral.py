"""Lateral synapses against finite differences, numerical integration, closed forms and laws written
out by hand.
"""

import json

import array_api_strict as strict
import numpy as np
import pytest
from scipy.integrate import dblquad

from biolearn.core.arrays import Backend, to_numpy
from biolearn.core.rng import Random
from biolearn.extensions import lateral as L
from biolearn.reproduction.runs import checkout
from biolearn.theory.tractable import langevin_covariance


def prior(P, b=0.0, mean=0.5, scale=0.3, dtype=np.float32):
    "A `LateralPrior` with the same mean, scale and drive for all neurons unless arrays are given."
    n = len(P)
    full = lambda a: np.broadcast_to(np.asarray(a, dtype), (n,)).copy()
    return L.LateralPrior(full(mean), full(scale), np.asarray(P, dtype), full(b))


def integrated(p, powers):
    """⟨u_0^a u_1^b⟩ of two neurons by SciPy's adaptive integration over the box, for each (a, b) of
    `powers`.
    """
    (low0, low1), (high0, high1) = ((h - np.float64(p.mean)) / p.scale for h in (0, 1))
    P, b = np.float64(p.P), np.float64(p.b)
    density = lambda v, u: np.exp(
        -(0.5 * (P[0, 0] * u * u + 2 * P[0, 1] * u * v + P[1, 1] * v * v) - b[0] * u - b[1] * v)
    )
    integral = lambda f: dblquad(f, low0, high0, low1, high1, epsabs=1e-6)[0]
    Z = integral(density)
    return np.array([integral(lambda v, u: u**a * v**c * density(v, u)) for a, c in powers]) / Z


POWERS = ((1, 0), (0, 1), (2, 0), (1, 1), (0, 2))


def moments(u):
    return np.array(
        [np.mean(np.float64(u[:, 0]) ** a * np.float64(u[:, 1]) ** c) for a, c in POWERS]
    )


# ---------------------------------------------------------------- energy and walk


def test_the_drive_is_the_slope_of_the_energy():
    rng = np.random.default_rng(0)
    A = rng.normal(size=(5, 5))
    p, u, step = prior(A + A.T, rng.normal(size=5), dtype=np.float64), rng.normal(size=(3, 5)), 1e-6
    for i in range(5):
        shift = step * np.eye(5)[i]
        slope = -(L.lateral_energy(p, u + shift) - L.lateral_energy(p, u - shift)) / (2 * step)
        np.testing.assert_allclose(L.lateral_drive(p, u)[:, i], slope, atol=1e-7)
    np.testing.assert_allclose(L.lateral_energy(p, u), [0.5 * v @ p.P @ v - p.b @ v for v in u])


def test_without_walls_the_walk_has_the_covariance_of_the_closed_form():
    "20,000 chains: a variance is known to √(2/n) of itself, and 4 standard errors are allowed."
    P, n, delta = np.array([[2, 0.7, 0], [0.7, 1, -0.4], [0, -0.4, 1.5]]), 20_000, 0.3
    u = L.lateral_walk(
        prior(P), Random(0).normal((n, 3)), n_steps=100, delta=delta, rng=Random(1), box=False
    )
    expected = langevin_covariance(P, delta)
    np.testing.assert_allclose(
        expected, np.linalg.inv(P) @ np.linalg.inv(np.eye(3) - delta / 2 * P), rtol=1e-6
    )
    error = np.sqrt((expected**2 + np.outer(np.diag(expected), np.diag(expected))) / n)
    assert (np.abs(np.cov(u.T) - expected) < 4 * error).all()
    assert (
        np.abs(np.cov(u.T) - np.linalg.inv(P)) > 4 * error
    ).any()  # the step's own error is seen


@pytest.mark.parametrize(
    "P, b",
    [([[2, -1.5], [-1.5, 2]], (0.3, 0)), ([[-0.5, 0.8], [0.8, -0.5]], (0, -0.2))],
    ids=["positive", "negative leak"],
)
def test_within_walls_the_walk_has_the_integrals_moments(P, b):
    """10,000 draws of |u| < 1.7: four standard errors of a product are below 0.05, and the step
    adds about delta.
    """
    p = prior(P, b)
    u = p.to_u(L.sample_lateral(p, 10_000, rng=Random(2), n_steps=1500, delta=0.005))
    np.testing.assert_allclose(moments(u), integrated(p, POWERS), atol=0.055)


def test_rates_stay_in_the_box_and_silent_neurons_at_their_mean():
    p = prior(-2 * np.eye(4), mean=(0.1, 0.5, 0.9, 0.3), scale=(0.2, 0.3, 0.2, 0))
    h = L.sample_lateral(p, 300, rng=Random(0), n_steps=50, delta=0.1)
    assert (
        h.shape == (300, 4)
        and h.dtype == np.float32
        and h.min() >= -1e-6
        and h.max() <= 1 + 1e-6
        and (h[:, 3] == p.mean[3]).all()
    )
    assert (p.to_u(np.full((2, 4), 7, np.float32))[:, 3] == 0).all()
    np.testing.assert_allclose(p.to_h(p.to_u(h)), h, atol=1e-6)


# ---------------------------------------------------------------- learning


def test_a_lesson_by_hand():
    p = prior([[1, 0.5], [0.5, 1]])
    awake, asleep = (
        np.array([[1, 2], [3, -1]], np.float32),
        np.array([[1, 0], [0, 2], [-1, 1]], np.float32),
    )
    new = L.lateral_step(p, awake, asleep, 0.6)
    np.testing.assert_allclose(
        new.P,
        [
            [1 + 0.6 * (2 / 3 - 5), 0.5 + 0.6 * (-1 / 3 + 0.5)],
            [0.5 + 0.6 * (-1 / 3 + 0.5), 1 + 0.6 * (5 / 3 - 2.5)],
        ],
        rtol=1e-5,
    )
    np.testing.assert_allclose(new.b, [0.6 * 2, 0.6 * (0.5 - 1)], rtol=1e-5)


def test_a_lesson_is_the_slope_of_log_p():
    """Two neurons: what a lesson changes is the slope of the mean log p of some codes by P_01 and
    b_0, from integrals of Z at shifted parameters.

    Asleep: 40,000 draws by rejection, so that its averages are known to about 0.005; 0.02 is four
    standard errors.
    """
    p, u, side, rng = (
        prior([[0.5, -0.6], [-0.6, 0.8]], (0.2, 0)),
        np.float32([[1, 0.5], [-0.5, 1], [0.2, 0.3]]),
        5 / 3,
        np.random.default_rng(0),
    )
    Z = lambda q: dblquad(
        lambda v, w: np.exp(-float(L.lateral_energy(q, np.array([[w, v]]))[0])),
        -side,
        side,
        -side,
        side,
        epsabs=1e-7,
    )[0]
    log_p = lambda q: float(np.mean(-L.lateral_energy(q, np.float64(u)))) - np.log(Z(q))
    trials = rng.uniform(-side, side, (400_000, 2)).astype(np.float32)
    density = np.exp(-L.lateral_energy(p, trials))
    asleep = trials[rng.uniform(0, density.max(), len(trials)) < density][:40_000]
    new, step = L.lateral_step(p, u, asleep, 1.0), 1e-3
    for shift_P, shift_b, change in (
        ([[0, 1], [1, 0]], (0, 0), new.P[0, 1] - p.P[0, 1]),
        (np.zeros((2, 2)), (1, 0), new.b[0] - p.b[0]),
    ):
        moved = [
            log_p(
                prior(
                    np.float64(p.P) + s * np.asarray(shift_P),
                    np.float64(p.b) + s * np.asarray(shift_b),
                    dtype=np.float64,
                )
            )
            for s in (step, -step)
        ]
        assert change == pytest.approx((moved[0] - moved[1]) / (2 * step), abs=0.02)


def test_a_synapse_sees_its_two_neurons_only_and_both_ways_are_equal():
    rng = np.random.default_rng(0)
    awake, asleep = (rng.normal(size=(40, 6)).astype(np.float32) for _ in range(2))
    p = prior(np.eye(6))
    new = L.lateral_step(p, awake, asleep, 0.1)
    awake[:, 2], asleep[:, 2] = 9, -7
    other, rest = L.lateral_step(p, awake, asleep, 0.1), [0, 1, 3, 4, 5]
    np.testing.assert_allclose(other.P[np.ix_(rest, rest)], new.P[np.ix_(rest, rest)], atol=1e-6)
    assert (
        (np.abs(other.P[2] - new.P[2]) > 1e-3).all()
        and (new.P == new.P.T).all()
        and (other.P == other.P.T).all()
    )


def test_learning_finds_the_energy_that_made_the_codes():
    """20,000 codes by rejection from a correlated Gaussian in the box: their true P is the inverse
    covariance, and the learnt prior has their moments, by SciPy's integral.
    """
    P = np.array([[1.5, -0.9], [-0.9, 1.2]])
    u = np.random.default_rng(0).multivariate_normal([0, 0], np.linalg.inv(P), 60_000)
    codes = (0.5 + 0.3 * u[(np.abs(u) < 0.5 / 0.3).all(axis=1)][:20_000]).astype(np.float32)
    learnt = L.fit_lateral(
        codes, L.LateralConfig(n_epochs=10, epsilon=0.1, delta=0.01, n_chains=1000), rng=Random(3)
    )
    unit = np.outer(learnt.scale, learnt.scale) / 0.09
    np.testing.assert_allclose(
        learnt.P / unit, P, atol=0.12
    )  # its standard error is about 0.02 from the codes, 0.05 from the walkers
    np.testing.assert_allclose(integrated(learnt, POWERS), moments(learnt.to_u(codes)), atol=0.05)


def test_pairs_cannot_learn_parity():
    bits = np.random.default_rng(0).integers(0, 2, (20_000, 2))
    codes = (0.1 + 0.8 * np.column_stack([bits, bits.sum(axis=1) % 2])).astype(np.float32)
    learnt = L.fit_lateral(codes, L.LateralConfig(n_epochs=3, n_chains=500), rng=Random(0))
    assert np.abs(learnt.P - np.diag(np.diag(learnt.P))).max() < 0.1
    h = L.sample_lateral(learnt, 5000, rng=Random(1), n_steps=300)
    assert (
        abs(np.prod(np.sign(h - 0.5), axis=1).mean()) < 0.06
        and np.prod(np.sign(codes - 0.5), axis=1).mean() == -1
    )


def test_learning_repeats_and_leaves_silent_neurons_alone():
    codes = np.column_stack(
        [np.random.default_rng(0).uniform(size=(500, 3)), np.full(500, 0.25)]
    ).astype(np.float32)
    a, b = (L.fit_lateral(codes, L.LateralConfig(n_epochs=2), rng=Random(5)) for _ in range(2))
    assert (a.P == b.P).all() and (a.b == b.b).all() and a.P.dtype == np.float32
    assert (
        a.scale[3] == 0
        and (a.P[3] == [0, 0, 0, 1]).all()
        and a.b[3] == 0
        and (L.sample_lateral(a, 9, rng=Random(0), n_steps=3)[:, 3] == 0.25).all()
    )


# ---------------------------------------------------------------- helpers, other arrays, bad input


def test_gaussian_draws_have_the_moments_of_the_codes():
    codes = (
        np.random.default_rng(0).normal(size=(4000, 3))
        @ [[0.2, 0.1, 0], [0, 0.1, 0.05], [0, 0, 0.02]]
        + 0.4
    ).astype(np.float32)
    h = L.gaussian_draws(codes, 40_000, rng=Random(0))
    np.testing.assert_allclose(
        np.cov(h.T), np.cov(codes.T), atol=4 * 0.05 * np.sqrt(2 / 40_000)
    )  # 0.05: the largest variance, rounded up
    np.testing.assert_allclose(h.mean(axis=0), codes.mean(axis=0), atol=4 * 0.25 / 200)


def test_the_gap_of_correlations_by_hand():
    p = prior(np.eye(3), scale=(0.25, 0.25, 0))
    codes, drawn = (
        np.float32([[0.75, 0.75, 0.5], [0.25, 0.25, 0.5]]),
        np.float32([[0.75, 0.25, 0.5], [0.25, 0.75, 0.5]]),
    )
    assert L.correlation_gap(p, codes, codes) == 0
    assert L.correlation_gap(p, codes, drawn) == pytest.approx(
        np.sqrt((0 + 4 + 4 + 0) / 4)
    )  # ⟨u_0 u_1⟩: 1 and -1


def test_it_works_in_another_array_library():
    codes = np.random.default_rng(0).uniform(size=(60, 4)).astype(np.float32)
    away, few = Backend(strict), L.LateralConfig(n_epochs=2, n_chains=20)
    here, there = (
        L.fit_lateral(codes, few, rng=Random(0)),
        L.fit_lateral(away.asarray(codes), few, rng=Random(0, away)),
    )
    np.testing.assert_allclose(to_numpy(there.P), here.P, atol=1e-5)
    np.testing.assert_allclose(
        to_numpy(L.sample_lateral(there, 5, rng=Random(1, away), n_steps=3)),
        L.sample_lateral(here, 5, rng=Random(1), n_steps=3),
        atol=1e-5,
    )
    np.testing.assert_allclose(
        to_numpy(L.gaussian_draws(away.asarray(codes), 4000, rng=Random(1, away))).mean(axis=0),
        codes.mean(axis=0),
        atol=0.03,
    )
    assert L.correlation_gap(there, away.asarray(codes), away.asarray(codes)) == 0


def test_a_step_too_long_for_the_codes_is_refused():
    """Two neurons that nearly agree: across them the variance is 0.02, and no step of 0.3 can stay
    within it.
    """
    rng = np.random.default_rng(0)
    one = rng.uniform(0.2, 0.8, 2000)
    codes = np.column_stack([one, one + 0.03 * rng.normal(size=2000)]).astype(np.float32)
    with pytest.raises(ValueError, match="unstable.*smaller delta"):
        L.fit_lateral(codes, L.LateralConfig(n_epochs=5, epsilon=0.5, delta=0.3), rng=Random(0))
    assert L.fit_lateral(codes, L.LateralConfig(n_epochs=1, delta=0.005), rng=Random(0)).P[0, 1] < 0


def test_bad_input_is_refused_by_name():
    codes = np.random.default_rng(0).uniform(size=(50, 3)).astype(np.float32)
    for wrong, message in (
        (dict(P=np.eye(2, dtype=np.float32)), "P must have shape"),
        (dict(b=np.zeros(4, np.float32)), "b must have shape"),
        (dict(scale=np.float32([1, -1, 0])), "scale holds"),
    ):
        with pytest.raises(ValueError, match=message):
            L.LateralPrior(
                **dict(
                    mean=np.zeros(3, np.float32),
                    scale=np.ones(3, np.float32),
                    P=np.eye(3, dtype=np.float32),
                    b=np.zeros(3, np.float32),
                )
                | wrong
            )
    for settings, message in (
        (dict(epsilon=-1), "epsilon"),
        (dict(n_epochs=0), "n_epochs"),
        (dict(n_chains=0), "n_chains"),
        (dict(floor=-1), "floor"),
        (dict(n_steps=-1), "n_steps"),
        (dict(delta=-0.1), "delta"),
        (dict(batch_size=0), "batch_size"),
    ):
        with pytest.raises(ValueError, match=message):
            L.fit_lateral(codes, L.LateralConfig(**dict(n_epochs=1) | settings), rng=Random(0))
    with pytest.raises(ValueError, match="one row"):
        L.fit_lateral(codes[:1], rng=Random(0))
    with pytest.raises(ValueError, match="NaN"):
        L.fit_lateral(codes * np.nan, rng=Random(0))
    with pytest.raises(ValueError, match="number of samples"):
        L.sample_lateral(prior(np.eye(2)), 0, rng=Random(0))
    with pytest.raises(ValueError, match="number of samples"):
        L.gaussian_draws(codes, 0, rng=Random(0))


# ---------------------------------------------------------------- what the page says


def test_the_page_repeats_the_committed_numbers():
    """Every row of the page's table is the mean over the seeds in
    figures/paper/biology/lateral.json, and the page names these seeds.
    """
    seeds = json.loads(
        (checkout() / "figures" / "paper" / "biology" / "lateral.json").read_text(encoding="utf-8")
    )["seeds"]
    page = "".join(
        "".join(c["source"]) + "\n"
        for c in json.loads((checkout() / "nbs" / "30_lateral.ipynb").read_text(encoding="utf-8"))[
            "cells"
        ]
    )
    rows = {
        "paper's prior": "paper",
        "independent neurons": "independent",
        "lateral synapses": "lateral",
        "full covariance": "gaussian",
        "mixture of 1,000": "mixture",
        "GENERATE": "chain",
        "lateral, then GENERATE": "lateral, GENERATE",
        "codes of digits": "codes",
    }
    forms = (
        ("Parzen", "{:.0f}"),
        ("Fréchet", "{:.1f}"),
        ("Fréchet to the chain", "{:.1f}"),
        ("precision", "{:.2f}"),
        ("recall", "{:.2f}"),
        ("coverage", "{:.2f}"),
    )
    for shown, name in rows.items():
        (line,) = [line for line in page.splitlines() if line.startswith(f"| {shown} |")]
        means = [
            form.format(np.mean([of["found"][name][key][0] for of in seeds.values()]))
            for key, form in forms
        ]
        if name == "chain":
            means[2] = "–"
        assert [cell.strip() for cell in line.strip("| ").split("|")][1:] == means, shown
    assert (
        f"seed{'s' * (len(seeds) > 1)} "
        f"{' and '.join(sorted(seeds, key=int)) if len(seeds) < 3 else ', '.join(sorted(seeds, key=int))}"
    ) in page
