"""The chain model, Eq. 7, against SciPy's densities; the top prior of Algorithm 2."""
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.stats import norm

from biolearn.backend import Random, to_numpy
from biolearn.model import Model, TopPrior, decode, encode, fit_top_prior, init_model, log_p_joint, log_prior, log_q, sample_prior

NETWORKS = [((6, 4), ("sigmoid", "tanh")), ((6, 5, 4), ("sigmoid", "softplus", "sigmoid")), ((6, 5, 4, 3), ("linear", "relu", "softplus", "sigmoid"))]


@pytest.mark.parametrize("sizes, units", NETWORKS)
def test_densities(backend, sizes, units):
    model = init_model(sizes, units, rng=Random(0, backend))
    h = [backend.asarray(Random(1).stream(k).normal((7, n))) for k, n in enumerate(sizes)]
    model = replace(model, prior=TopPrior(backend.asarray(np.linspace(-1, 1, sizes[-1])), backend.asarray(np.linspace(0.5, 2, sizes[-1]))))
    host, M = [to_numpy(a).astype(float) for a in h], len(model.pairs)
    p = sum(norm.logpdf(host[k - 1], to_numpy(model.g(k, h[k]))).sum(1) for k in range(1, M + 1))
    q = sum(norm.logpdf(host[k], to_numpy(model.f(k, h[k - 1]))).sum(1) for k in range(1, M + 1))
    top = norm.logpdf(host[-1], to_numpy(model.prior.mean), np.sqrt(to_numpy(model.prior.var))).sum(1)
    close = lambda a, b: np.testing.assert_allclose(to_numpy(a), b, rtol=1e-5)
    close(log_p_joint(model, h, constants=True), p); close(log_q(model, h, constants=True), q); close(log_prior(model.prior, h[-1]), top)
    close(log_p_joint(model, h, constants=True, prior=True), p + top)
    close(log_p_joint(model, h), p + 0.5 * np.log(2 * np.pi) * sum(sizes[:-1])); close(log_q(model, h), q + 0.5 * np.log(2 * np.pi) * sum(sizes[1:]))


@pytest.mark.parametrize("sizes, units", NETWORKS)
def test_up_and_down(backend, sizes, units):
    model = init_model(sizes, units, rng=Random(0, backend))
    assert model.sizes == sizes and model.units == units
    up = encode(model, backend.asarray(Random(1).uniform((3, 6))))
    down = decode(model, up[-1])
    assert [tuple(a.shape) for a in up] == [tuple(a.shape) for a in down] == [(3, n) for n in sizes]
    for k in range(1, len(sizes)):
        assert (to_numpy(up[k]) == to_numpy(model.pairs[k - 1].f(up[k - 1]))).all() and (to_numpy(down[k - 1]) == to_numpy(model.pairs[k - 1].g(down[k]))).all()


def test_weights_are_born_independent():
    model = init_model((50, 50, 50), ("relu",) * 3, rng=Random(0))
    weights = [d.W for p in model.pairs for d in (p.f, p.g)]
    for i, a in enumerate(weights):
        assert abs(a).max() <= (6 / 100) ** 0.5 and abs(a.var() - 2 / 100) < 0.002          # Glorot: variance 2 / (n_in + n_out)
        for b in weights[:i] + [w.T for w in weights[:i]]: assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 5 / 50


def test_top_prior_has_four_times_the_variance():
    top = Random(0).normal((500, 3)) * np.asarray([1, 2, 3], np.float32)
    prior = fit_top_prior(top)
    np.testing.assert_allclose(prior.var, 4 * top.astype(float).var(0), rtol=1e-5); np.testing.assert_allclose(prior.mean, top.astype(float).mean(0), atol=1e-6)
    draws = sample_prior(prior, 40_000, rng=Random(1)).astype(float)
    assert np.abs((draws.mean(0) - prior.mean) / np.sqrt(prior.var / 40_000)).max() < 5 and np.abs(draws.var(0) / prior.var - 1).max() < 5 * np.sqrt(2 / 40_000)


@given(st.lists(st.integers(1, 8), min_size=2, max_size=5), st.integers(1, 4))
@settings(max_examples=25)
def test_any_depth_and_width(sizes, batch):
    model = init_model(sizes, ("sigmoid",) * len(sizes), rng=Random(0))
    h = encode(model, Random(1).uniform((batch, sizes[0])))
    assert log_p_joint(model, h).shape == log_q(model, h).shape == (batch,) and log_p_joint(model, h).dtype == np.float32 and (log_p_joint(model, h) <= 0).all()
    assert (log_q(model, h) == 0).all()                        # the feedforward guess is the mean of q


@pytest.mark.parametrize("make, message", [
    (lambda: init_model((3,), ("relu",), rng=Random(0)), "at least two layers"), (lambda: init_model((3, 2), ("relu",), rng=Random(0)), "one unit per layer"),
    (lambda: init_model((3, 0), ("relu",) * 2, rng=Random(0)), "number of units"), (lambda: init_model((3, 2), ("relu", "step"), rng=Random(0)), "softplus"),
    (lambda: Model(()), "at least one pair"), (lambda: sample_prior(None, 1, rng=Random(0)), "no top prior"), (lambda: log_prior(None, np.ones((1, 1))), "no top prior"),
    (lambda: fit_top_prior(np.full((2, 2), np.nan)), "h_top holds NaN")])
def test_refuses(make, message):
    with pytest.raises(ValueError, match=message): make()


def test_pairs_must_fit_together():
    a, b = (init_model(s, ("relu", "relu"), rng=Random(0)).pairs[0] for s in ((4, 3), (2, 1)))
    with pytest.raises(ValueError, match="pair 1 ends in 3 units, pair 2 starts from 2"): Model((a, b))
