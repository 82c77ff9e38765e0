"""The chain model, Eq. 7, against SciPy's densities; the top prior of Algorithm 2."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import norm

import biolearn.core.priors as priors
from biolearn.core.arrays import to_numpy
from biolearn.core.model import Model, TopPrior, decode, encode, init_model, log_p_joint, log_q
from biolearn.core.priors import (
    fit_mixture_prior,
    fit_top_prior,
    log_components,
    log_prior,
    sample_prior,
)
from biolearn.core.rng import Random

NETWORKS = [
    ((6, 4), ("sigmoid", "tanh")),
    ((6, 5, 4), ("sigmoid", "softplus", "sigmoid")),
    ((6, 5, 4, 3), ("linear", "relu", "softplus", "sigmoid")),
]


@pytest.mark.parametrize("sizes, units", NETWORKS)
def test_densities(backend, sizes, units):
    model = init_model(sizes, units, rng=Random(0, backend))
    h = [backend.asarray(Random(1).stream(k).normal((7, n))) for k, n in enumerate(sizes)]
    model = replace(
        model,
        prior=TopPrior(
            backend.asarray(np.linspace(-1, 1, sizes[-1])),
            backend.asarray(np.linspace(0.5, 2, sizes[-1])),
        ),
    )
    host, M = [to_numpy(a).astype(float) for a in h], len(model.pairs)
    p = sum(norm.logpdf(host[k - 1], to_numpy(model.g(k, h[k]))).sum(1) for k in range(1, M + 1))
    q = sum(norm.logpdf(host[k], to_numpy(model.f(k, h[k - 1]))).sum(1) for k in range(1, M + 1))
    top = norm.logpdf(host[-1], to_numpy(model.prior.mean), np.sqrt(to_numpy(model.prior.var))).sum(
        1
    )
    close = lambda a, b: np.testing.assert_allclose(to_numpy(a), b, rtol=1e-5)
    close(log_p_joint(model, h, constants=True), p)
    close(log_q(model, h, constants=True), q)
    close(log_prior(model.prior, h[-1]), top)
    close(log_p_joint(model, h, constants=True, prior=True), p + top)
    close(log_p_joint(model, h), p + 0.5 * np.log(2 * np.pi) * sum(sizes[:-1]))
    close(log_q(model, h), q + 0.5 * np.log(2 * np.pi) * sum(sizes[1:]))


@pytest.mark.parametrize("sizes, units", NETWORKS)
def test_up_and_down(backend, sizes, units):
    model = init_model(sizes, units, rng=Random(0, backend))
    assert model.sizes == sizes and model.units == units
    up = encode(model, backend.asarray(Random(1).uniform((3, 6))))
    down = decode(model, up[-1])
    assert [tuple(a.shape) for a in up] == [tuple(a.shape) for a in down] == [(3, n) for n in sizes]
    for k in range(1, len(sizes)):
        assert (to_numpy(up[k]) == to_numpy(model.pairs[k - 1].f(up[k - 1]))).all() and (
            to_numpy(down[k - 1]) == to_numpy(model.pairs[k - 1].g(down[k]))
        ).all()


def test_weights_are_born_independent():
    model = init_model((50, 50, 50), ("relu",) * 3, rng=Random(0))
    weights = [d.W for p in model.pairs for d in (p.f, p.g)]
    for i, a in enumerate(weights):
        assert (
            abs(a).max() <= (6 / 100) ** 0.5 and abs(a.var() - 2 / 100) < 0.002
        )  # Glorot: variance 2 / (n_in + n_out)
        for b in weights[:i] + [w.T for w in weights[:i]]:
            assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 5 / 50


def test_top_prior_has_four_times_the_variance():
    top = Random(0).normal((500, 3)) * np.asarray([1, 2, 3], np.float32)
    prior = fit_top_prior(top)
    np.testing.assert_allclose(prior.var, 4 * top.astype(float).var(0), rtol=1e-5)
    np.testing.assert_allclose(prior.mean, top.astype(float).mean(0), atol=1e-6)
    draws = sample_prior(prior, 40_000, rng=Random(1)).astype(float)
    assert np.abs((draws.mean(0) - prior.mean) / np.sqrt(prior.var / 40_000)).max() < 5 and np.abs(
        draws.var(0) / prior.var - 1
    ).max() < 5 * np.sqrt(2 / 40_000)


def mixture(backend):
    """A mixture prior of three components over four units, far from zero and narrow: hard on single
    precision.
    """
    put = lambda a: backend.asarray(np.asarray(a))
    return TopPrior(
        put(5 + np.arange(12.0).reshape(3, 4) / 10),
        put(0.01 + np.arange(12.0).reshape(3, 4) / 100),
        put([0.5, 0.3, 0.2]),
    )


def test_mixture_density(backend):
    prior, h = mixture(backend), 5.5 + 0.3 * Random(1).normal((50, 4))
    mean, var, weight = (to_numpy(a).astype(float) for a in (prior.mean, prior.var, prior.weight))
    parts = norm.logpdf(h.astype(float)[:, None, :], mean, np.sqrt(var)).sum(2) + np.log(weight)
    np.testing.assert_allclose(
        to_numpy(log_components(prior, backend.asarray(h))), parts, rtol=1e-4, atol=1e-3
    )
    np.testing.assert_allclose(
        to_numpy(log_prior(prior, backend.asarray(h))),
        logsumexp(parts, axis=1),
        rtol=1e-4,
        atol=1e-3,
    )


def test_mixture_draws_have_its_moments(backend):
    prior, n = mixture(backend), 40_000
    mean, var, weight = (to_numpy(a).astype(float) for a in (prior.mean, prior.var, prior.weight))
    draws = to_numpy(sample_prior(prior, n, rng=Random(2, backend))).astype(float)
    first, second = weight @ mean, weight @ (var + mean**2)
    assert np.abs((draws.mean(0) - first) / np.sqrt((second - first**2) / n)).max() < 5
    assert np.abs(draws.var(0) / (second - first**2) - 1).max() < 5 * np.sqrt(
        2 / n
    )  # tails no heavier than a Gaussian's: this bounds it
    nearest = to_numpy(log_components(prior, backend.asarray(draws))).argmax(1)
    far = TopPrior(
        prior.mean * backend.asarray(np.array([[1.0], [2.0], [3.0]])), prior.var, prior.weight
    )  # apart: every draw tells its component
    nearest = to_numpy(log_components(far, sample_prior(far, n, rng=Random(3, backend)))).argmax(1)
    fraction = np.bincount(nearest, minlength=3) / n
    assert np.abs((fraction - weight) / np.sqrt(weight * (1 - weight) / n)).max() < 5


def test_mixture_of_one_is_a_gaussian_and_never_falls(backend):
    top = backend.asarray(Random(0).normal((3000, 3)) * np.asarray([1, 2, 3], np.float32) + 1)
    one, plain = (
        fit_mixture_prior(top, 1, rng=Random(0, backend), reg_covar=0),
        fit_top_prior(top, widen=1),
    )
    np.testing.assert_allclose(to_numpy(one.mean)[0], to_numpy(plain.mean), atol=1e-4)
    np.testing.assert_allclose(to_numpy(one.var)[0], to_numpy(plain.var), rtol=1e-4)
    climb = [
        float(
            to_numpy(log_prior(fit_mixture_prior(top, 5, rng=Random(0, backend), n_epochs=n), top))
            .astype(float)
            .mean()
        )
        for n in (1, 2, 4, 8)
    ]
    assert min(np.diff(climb)) > -1e-4


def test_mixture_survives_copies_and_components_that_win_nothing(backend):
    same = fit_mixture_prior(backend.asarray(np.ones((10, 3))), 4, rng=Random(0, backend))
    lonely = fit_mixture_prior(
        backend.asarray(np.r_[np.zeros((50, 2)), np.full((1, 2), 1e3)]), 20, rng=Random(1, backend)
    )
    for prior in (same, lonely):
        assert (
            all(np.isfinite(to_numpy(a)).all() for a in (prior.mean, prior.var, prior.weight))
            and abs(float(to_numpy(prior.weight).sum()) - 1) < 1e-5
        )
        assert np.isfinite(to_numpy(sample_prior(prior, 100, rng=Random(2, backend)))).all()
    far = TopPrior(
        backend.asarray(np.array([[0.0, 0.0], [100.0, 90.0]])),
        backend.asarray(np.ones((2, 2))),
        backend.asarray(np.full(2, 0.5)),
    )
    far = priors._compete(far, backend.asarray(Random(3).normal((500, 2))), 1e-4)
    np.testing.assert_allclose(to_numpy(far.mean)[1], [100, 90], rtol=1e-5)
    assert float(to_numpy(far.weight)[1]) < 1e-6  # it stays where it was


@given(st.lists(st.integers(1, 8), min_size=2, max_size=5), st.integers(1, 4))
@settings(max_examples=25)
def test_any_depth_and_width(sizes, batch):
    model = init_model(sizes, ("sigmoid",) * len(sizes), rng=Random(0))
    h = encode(model, Random(1).uniform((batch, sizes[0])))
    assert (
        log_p_joint(model, h).shape == log_q(model, h).shape == (batch,)
        and log_p_joint(model, h).dtype == np.float32
        and (log_p_joint(model, h) <= 0).all()
    )
    assert (log_q(model, h) == 0).all()  # the feedforward guess is the mean of q


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: init_model((3,), ("relu",), rng=Random(0)),
            "sizes must be .* at least two numbers",
        ),
        (lambda: init_model((3, 2), ("relu",), rng=Random(0)), "units one of as many kinds"),
        (lambda: init_model((3, 0), ("relu",) * 2, rng=Random(0)), "number of units"),
        (lambda: init_model((3, 2), ("relu", "step"), rng=Random(0)), "softplus"),
        (lambda: Model(()), "at least one pair"),
        (lambda: sample_prior(None, 1, rng=Random(0)), "no top prior"),
        (lambda: log_prior(None, np.ones((1, 1))), "no top prior"),
        (lambda: fit_top_prior(np.full((2, 2), np.nan)), "h_top holds NaN"),
        (lambda: fit_mixture_prior(np.ones((2, 2)), 3, rng=Random(0)), "2 rows, too few for 3"),
        (lambda: fit_mixture_prior(np.ones((2, 2)), 0, rng=Random(0)), "n_components"),
        (lambda: fit_mixture_prior(np.full((2, 2), np.inf), 1, rng=Random(0)), "h_top holds"),
    ],
)
def test_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_pairs_must_fit_together():
    a, b = (init_model(s, ("relu", "relu"), rng=Random(0)).pairs[0] for s in ((4, 3), (2, 1)))
    with pytest.raises(ValueError, match="pair 1 ends in 3 units, pair 2 starts from 2"):
        Model((a, b))
