"""The likelihood of decoders against closed forms: linear-Gaussian models in SciPy and
scikit-learn, finite differences, and targets that a sampler must leave as they are.
"""

import tracemalloc

import numpy as np
import pytest
from scipy.optimize import minimize, minimize_scalar
from scipy.special import logsumexp
from scipy.stats import kstest, multivariate_normal

from biolearn.core.arrays import to_numpy
from biolearn.core.data import load_dataset
from biolearn.core.inference import Inference, infer
from biolearn.core.layers import Dense, LayerPair, angle, exact_gradient, target_step
from biolearn.core.model import Model, TopPrior, encode, init_model
from biolearn.core.rng import Random
from biolearn.evaluation import likelihood as lk
from biolearn.evaluation.likelihood import (
    Decoder,
    ais,
    bidirectional,
    importance_bound,
    likelihood_gradient,
    log_likelihood,
    simulate,
    temperatures,
    whiten,
)
from biolearn.evaluation.statistics import mean_and_stderr


def decoder(widths, units, sigmas, seed=0, dtype="float64"):
    "Random maps from the top down."
    rng = np.random.default_rng(seed)
    maps = [
        Dense((rng.normal(size=(a, b)) / a**0.5).astype(dtype), rng.normal(size=b).astype(dtype), u)
        for a, b, u in zip(widths, widths[1:], units)
    ]
    return Decoder(
        tuple(maps),
        TopPrior(
            rng.normal(size=widths[0]).astype(dtype), rng.uniform(0.5, 2, widths[0]).astype(dtype)
        ),
        sigmas,
    )


def linear(sigmas, widths=(3, 6, 12), **kw):
    return decoder(widths, ("linear",) * len(sigmas), sigmas, **kw)


def exact(d, x):
    "log p(x) of a linear decoder: its mean and covariance, layer by layer."
    mean, cov = d.prior.mean.astype(float), np.diag(d.prior.var.astype(float))
    for m, sd in zip(d.maps, d.sigmas):
        W = m.W.astype(float)
        mean, cov = mean @ W + m.b, W.T @ cov @ W + sd**2 * np.eye(W.shape[1])
    return multivariate_normal(mean, cov).logpdf(x)


def posterior(d, x):
    """Mean (n, D) and covariance of z given x for a linear decoder: the painting is A z + c, read
    off from unit vectors.
    """
    D = sum(d.widths)
    c = lk._forward(d, np.zeros((1, D)))[-1]
    A = lk._forward(d, np.eye(D))[-1] - c
    cov = np.linalg.inv(np.eye(D) + A @ A.T / d.sigmas[-1] ** 2)
    return (x - c) @ A.T @ cov / d.sigmas[-1] ** 2, cov


# ---------------------------------------------------------------- the decoder


@pytest.mark.parametrize("sigmas", [(0.3, 0.2, 0.5), (0.3, 0, 0.5), (0, 0, 0.5), (0, 0.2, 0.5)])
def test_likelihood_and_gradient_against_scipy_and_finite_differences(sigmas):
    d = decoder((3, 5, 4, 6), ("sigmoid", "softplus", "tanh"), sigmas)
    x, z = simulate(d, 4, rng=Random(1))
    assert z.shape == (4, 3 + 5 * (sigmas[0] > 0) + 4 * (sigmas[1] > 0))
    value, gradient = likelihood_gradient(d, x, z)
    means = lk._forward(d, z)[-1]
    assert np.allclose(
        value,
        [multivariate_normal(m, sigmas[-1] ** 2 * np.eye(6)).logpdf(t) for m, t in zip(means, x)],
        rtol=1e-10,
    )
    assert np.allclose(value, log_likelihood(d, x, z), rtol=1e-12) and value.dtype == np.float64
    quotient = np.stack(
        [
            (log_likelihood(d, x, z + e) - log_likelihood(d, x, z - e)) / 2e-5
            for e in 1e-5 * np.eye(z.shape[1])
        ],
        axis=1,
    )
    assert np.allclose(gradient, quotient, atol=1e-6 * np.abs(gradient).max())


def test_simulated_pictures_have_the_moments_of_the_model():
    d = linear((0.7, 0.4))
    x, z = simulate(d, 40_000, rng=Random(0))
    C = np.diag(d.prior.var)
    for m, sd in zip(d.maps, d.sigmas):
        C = m.W.T @ C @ m.W + sd**2 * np.eye(m.W.shape[1])
    # an entry of a covariance of n draws has a standard error of at most sqrt(2 C_ii C_jj / n); 5
    # of them for 78 entries
    assert np.all(
        np.abs(np.cov(x.T) - C) < 5 * np.sqrt(2 * np.outer(np.diag(C), np.diag(C)) / len(x))
    )


def test_whiten_undoes_the_forward_pass():
    for sigmas in ((0.3, 0.2, 0.5), (0.3, 0, 0.5), (0, 0, 0.5)):
        d = decoder((3, 5, 4, 6), ("sigmoid", "softplus", "tanh"), sigmas)
        x, z = simulate(d, 7, rng=Random(1))
        h, at, states = d.prior.mean + np.sqrt(d.prior.var) * z[:, :3], 3, []
        states.append(h)
        for m, sd in zip(d.maps[:-1], sigmas):
            h = m(h)
            if sd:
                h, at = h + sd * z[:, at : at + h.shape[1]], at + h.shape[1]
            states.append(h)
        assert np.allclose(whiten(d, [x, *states[::-1]]), z, atol=1e-12)


def test_whiten_takes_a_unit_without_a_prior_width_as_known():
    d = Decoder(
        (Dense(np.ones((2, 3), "float32"), np.zeros(3, "float32"), "linear"),),
        TopPrior(np.float32([0.5, 0]), np.float32([1e-18, 4])),
        (1.0,),
    )
    assert np.array_equal(
        whiten(d, [np.zeros((1, 3), "float32"), np.float32([[0.6, 2]])]), [[0, 1]]
    )


def test_the_decoder_of_a_model_is_its_generative_half():
    model = init_model((6, 5, 3), ("sigmoid", "softplus", "sigmoid"), rng=Random(0))
    model = Model(model.pairs, TopPrior(np.zeros(3, "float32"), np.ones(3, "float32")))
    d = Decoder.from_model(model, np.array([0.1, 0.2]))
    x = Random(1).uniform((9, 6))
    assert (
        [m.W.shape for m in d.maps] == [(3, 5), (5, 6)]
        and d.sigmas == (0.1, 0.2)
        and isinstance(d.sigmas[0], float)
    )
    h = infer(model, x, Inference(n_steps=3))
    want = tuple(np.sqrt(np.mean((h[k - 1] - model.g(k, h[k])).astype(float) ** 2)) for k in (2, 1))
    assert lk.fit_sigmas(model, x, Inference(n_steps=3)) == pytest.approx(want, rel=1e-5)
    z = whiten(d, h)
    total = (
        log_likelihood(d, x, z)
        - 0.5 * (z.astype(float) ** 2).sum(1)
        - 8 / 2 * np.log(2 * np.pi)
        - 5 * np.log(0.1)
    )  # d z / d h of the middle layer
    joint = sum(
        multivariate_normal(np.zeros(n), sd**2 * np.eye(n)).logpdf(r)
        for n, sd, r in (
            (6, 0.2, x - model.g(1, h[1])),
            (5, 0.1, h[1] - model.g(2, h[2])),
            (3, 1, h[2]),
        )
    )
    assert np.allclose(total, joint, rtol=1e-5)


PAIR = (Dense(np.ones((2, 3)), np.zeros(3), "linear"),)
PRIOR = TopPrior(np.zeros(2), np.ones(2))


@pytest.mark.parametrize(
    "change, error, words",
    [
        (dict(maps=()), ValueError, "at least one map"),
        (dict(prior=None), ValueError, "no prior"),
        (dict(sigmas=(1.0, 1.0)), ValueError, "each of the 1 maps"),
        (dict(sigmas=(0,)), ValueError, "pixels, must be positive"),
        (dict(sigmas=(-1.0,)), ValueError, "at least 0"),
        (dict(sigmas=("a",)), TypeError, "sigmas"),
        (
            dict(maps=PAIR + PAIR, sigmas=(1, 1)),
            ValueError,
            "starts from 2 units, but the layer above it has 3",
        ),
        (dict(prior=TopPrior(np.zeros(5), np.ones(5))), ValueError, "has 5"),
    ],
)
def test_a_decoder_that_does_not_fit_is_refused(change, error, words):
    with pytest.raises(error, match=words):
        Decoder(**(dict(maps=PAIR, prior=PRIOR, sigmas=(1.0,)) | change))


# ---------------------------------------------------------------- the moves


@pytest.mark.parametrize("beta, step", [(0.0, 1.0), (0.3, 0.7), (1.0, 0.5)])
def test_a_move_leaves_its_gaussian_as_it_is(beta, step):
    """4,000 exact draws of f_beta, moved three times, are still draws of it: each whitened
    coordinate passes a Kolmogorov-Smirnov test, and means and covariances stay (5 standard errors).
    The steps are long enough that many a move is rejected: without Metropolis the cloud would
    widen.
    """
    d, rng = linear((0.5, 0.3), (2, 3, 4)), np.random.default_rng(0)
    x, _ = simulate(d, 1, rng=Random(0))
    tempered = Decoder(d.maps, d.prior, (d.sigmas[0], d.sigmas[1] / beta**0.5)) if beta else None
    mean, cov = posterior(tempered, x) if beta else (np.zeros((1, 5)), np.eye(5))
    root = np.linalg.cholesky(cov)
    z = mean + rng.normal(size=(4000, 5)) @ root.T
    target = lambda z: likelihood_gradient(d, x, z)
    state, moved = (z, *target(z)), Random(1)
    for _ in range(3):
        state, p = lk._move(target, state, beta, step, 4, moved)
    assert 0.4 < p < 0.9
    u = np.linalg.solve(root, (state[0] - mean).T)
    assert (
        np.abs(state[0] - z).mean() > 0.05 and min(kstest(row, "norm").pvalue for row in u) > 1e-3
    )
    assert (
        np.abs(u.mean(axis=1)).max() < 5 / 4000**0.5
        and np.abs(np.cov(u) - np.eye(5)).max() < 5 * (2 / 4000) ** 0.5
    )
    assert np.allclose(state[1], target(state[0])[0]) and np.allclose(state[2], target(state[0])[1])


def test_temperatures_rise_from_zero_to_one_first_by_steps_then_by_ratios():
    betas = temperatures(500)
    ratios = betas[2:] / betas[1:-1]
    assert (
        betas[0] == 0
        and betas[-1] == pytest.approx(1, abs=1e-12)
        and np.all(np.diff(betas) > 0)
        and len(betas) == 501
    )
    assert np.ptp(ratios[-150:]) < 1e-3 and betas[2] == pytest.approx(2 * betas[1], rel=0.02)


# ---------------------------------------------------------------- annealing


@pytest.mark.parametrize(
    "d",
    [
        linear((0.3,), (4, 10), dtype="float32"),
        linear((0.5, 0.2), (3, 6, 12), dtype="float32"),
        linear((0, 0.2), (3, 6, 12), dtype="float32"),
    ],
    ids=["one layer", "two layers", "middle layer by its mean"],
)
def test_both_sides_close_in_on_the_exact_value(d):
    """Bounds hold on average: over 60 pictures, within 3.5 standard errors of the difference, which
    its own spread gives. With few temperatures the truth is clearly inside.
    """
    gaps = []
    for n in (15, 400):
        both = bidirectional(
            d, 60, rng=Random(0), n_temperatures=n, n_leapfrog=4, n_chains=4, progress=False
        )
        truth = exact(d, simulate(d, 60, rng=Random(0).stream("simulated"))[0])
        (low, low_error), (high, high_error) = (
            mean_and_stderr(side.log_p - truth) for side in (both.lower, both.upper)
        )
        assert low < 3.5 * low_error and high > -3.5 * high_error
        if n == 15:
            assert low < -3 * low_error and high > 3 * high_error
        gaps.append(both.gap.mean())
        assert np.allclose(both.gap, both.upper.log_p - both.lower.log_p)
    assert gaps[1] < gaps[0] / 8
    assert (
        np.median(np.abs(both.lower.log_p - truth)) < 0.5 and both.lower.log_p.dtype == np.float64
    )


def test_the_mean_weight_is_the_evidence_in_few_temperatures_too():
    """E[w] = p(x) whatever the number of temperatures: 20,000 chains of three, in a case so easy
    that their weights vary little. Four standard errors.
    """
    d = linear((1.0,), (2, 3))
    x, _ = simulate(d, 3, rng=Random(3))
    found = ais(
        d, x, rng=Random(0), n_temperatures=3, n_leapfrog=2, n_chains=20_000, progress=False
    )
    assert np.all(found.stderr < 0.03) and np.all(
        np.abs(found.log_p - exact(d, x)) < 4 * found.stderr
    )


def test_probabilistic_pca_agrees_with_scikit_learn():
    from sklearn.decomposition import PCA

    digits = load_dataset("digits")
    pca = PCA(10).fit(digits.train.astype(float))
    W = pca.components_ * np.sqrt(pca.explained_variance_ - pca.noise_variance_)[:, None]
    d = lambda sd: Decoder(
        (Dense(W.astype("float32"), pca.mean_.astype("float32"), "linear"),),
        TopPrior(np.zeros(10, "float32"), np.ones(10, "float32")),
        (sd,),
    )
    sd, x = pca.noise_variance_**0.5, digits.test[:60]
    truth = pca.score_samples(x.astype(float))
    assert np.allclose(exact(d(sd), x), truth, atol=1e-3)
    off, error = mean_and_stderr(
        ais(d(sd), x, rng=Random(0), n_temperatures=300, progress=False).log_p - truth
    )
    assert (
        -0.6 < off < 3.5 * error
    )  # a lower bound; at 300 temperatures the gap of such a decoder is below 0.6
    # EM finds the noise that maximises the exact likelihood of these digits; one draw for each of
    # 100 × 64 residuals: 0.9 % standard error
    best = minimize_scalar(
        lambda s: -exact(d(s), digits.valid[:100]).mean(), bounds=(0.05, 0.5), method="bounded"
    ).x
    assert lk.tune_sigmas(d(2 * sd), digits.valid[:100], rng=Random(0), progress=False).sigmas[
        0
    ] == pytest.approx(best, rel=0.03)


def test_tuned_noise_of_two_layers_maximises_the_exact_likelihood():
    """EM from twice the noise ends near the maximum of the exact likelihood, found by SciPy: 500
    pictures, one draw each, give the pixels' sd to 1 % and the other, seen through them only, to a
    few per cent; the exact likelihood there is flat, so 0.05 nats below its maximum is what such
    errors cost.
    """
    d = linear((0.6, 0.3), (3, 4, 12), dtype="float32")
    x, _ = simulate(d, 500, rng=Random(0))
    level = lambda sigmas: exact(Decoder(d.maps, d.prior, tuple(sigmas)), x).mean()
    best = np.exp(minimize(lambda s: -level(np.exp(s)), np.log(d.sigmas), method="Nelder-Mead").x)
    found = lk.tune_sigmas(
        Decoder(d.maps, d.prior, (1.2, 0.6)), x, rng=Random(1), rounds=15, progress=False
    )
    assert (
        found.sigmas == pytest.approx(best, rel=0.05)
        and level(found.sigmas) > level(best) - 0.05 > level((1.2, 0.6)) + 1
    )
    kept = lk.tune_sigmas(
        Decoder(d.maps, d.prior, (0, 0.6)), x[:50], rng=Random(1), rounds=1, progress=False
    )
    assert kept.sigmas[0] == 0 and kept.sigmas[1] != 0.6


def test_steps_that_are_too_long_are_noticed(monkeypatch):
    d = linear((0.5, 0.2), (3, 6, 12), dtype="float32")
    x, _ = simulate(d, 20, rng=Random(0))
    good = ais(d, x, rng=Random(0), n_temperatures=100, progress=False)
    assert (
        0.5 < good.acceptance.mean() < 0.8
        and good.acceptance.min() > 0.2
        and good.acceptance.shape == good.steps.shape == (100,)
    )
    monkeypatch.setattr(lk, "_pilot", lambda *args: np.full(100, 5.0))
    with np.errstate(all="ignore"):
        bad = ais(d, x, rng=Random(0), n_temperatures=100, progress=False)
    assert (
        bad.acceptance[50:].max() < 0.05
        and np.median(bad.ess) < 1.3
        and bad.log_p.mean() < good.log_p.mean() - 20
    )
    assert "acceptance" in str(bad) and "effective chains 1." in str(bad)


def test_one_picture_is_told_without_a_standard_error():
    d = linear((0.5, 0.2), (3, 6, 12), dtype="float32")
    settings = dict(rng=Random(0), n_temperatures=20, progress=False)
    one, two = bidirectional(d, 1, **settings), bidirectional(d, 2, **settings)
    assert str(one.lower).startswith(f"{one.lower.log_p[0]:.2f} nats over 1 picture; ")
    assert str(one).endswith(f"\ngap: {one.gap[0]:.2f} nats")
    mean, stderr = mean_and_stderr(two.lower.log_p)
    assert str(two.lower).startswith(f"{mean:.2f} ± {stderr:.2f} nats over 2 pictures; ")


def test_no_step_is_adapted_in_the_chains_that_count(monkeypatch):
    """All of them use the schedule that the pilot wrote down, whatever it is; and the same seed
    gives the same bits.
    """
    d = linear((0.5, 0.2), (3, 6, 12), dtype="float32")
    x, _ = simulate(d, 5, rng=Random(0))
    anneal = lambda seed: ais(d, x, rng=Random(seed), n_temperatures=30, progress=False)
    first = anneal(0)
    assert np.array_equal(first.log_p, anneal(0).log_p) and not np.array_equal(
        first.log_p, anneal(1).log_p
    )
    schedule, used, plain = np.linspace(0.3, 0.1, 30), [], lk._move
    monkeypatch.setattr(lk, "_pilot", lambda *args: schedule)
    monkeypatch.setattr(
        lk,
        "_move",
        lambda target, state, beta, step, *rest: (
            used.append(step),
            plain(target, state, beta, step, *rest),
        )[1],
    )
    assert np.array_equal(anneal(0).steps, schedule) and used == schedule.tolist()


def test_estimate_of_known_weights():
    """Weights 1, 3 and e^1000 times that: log-mean-exp, standard error of the log of a mean,
    effective number of chains.
    """
    logs = np.log([[1.0, 3.0], [2.0, 2.0]]) + [[0], [1000]]
    e = lk._estimate(logs, np.ones(1), np.ones(1), None)
    assert np.allclose(e.log_p, [np.log(2), 1000 + np.log(2)]) and np.allclose(e.ess, [16 / 10, 2])
    assert np.allclose(e.stderr, [np.std([1, 3], ddof=1) / 2**0.5 / 2, 0])


def test_memory_does_not_grow_with_the_pictures():
    """2,000 pictures × 4 chains × 200 units would be 6 MB per array and a dozen of them; blocks of
    rows are smaller. NumPy reports to tracemalloc.
    """
    d = decoder((5, 500), ("sigmoid",), (0.3,), dtype="float32")
    x, _ = simulate(d, 2000, rng=Random(0))
    peaks = []
    for n in (500, 2000):
        tracemalloc.start()
        ais(d, x[:n], rng=Random(0), n_temperatures=2, n_leapfrog=1, progress=False)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 2**25 and peaks[1] < 1.3 * peaks[0] + 2**20


@pytest.mark.parametrize(
    "change, error, words",
    [
        (dict(x=np.ones((2, 5), "float32")), ValueError, "12 columns"),
        (dict(x=np.ones((2, 12), int)), TypeError, "floating"),
        (dict(n_temperatures=0), ValueError, "n_temperatures"),
        (dict(n_leapfrog=0), ValueError, "n_leapfrog"),
        (dict(n_chains=1), ValueError, "n_chains must be at least 2"),
        (dict(n_chains=2.5), TypeError, "n_chains"),
    ],
)
def test_ais_refuses(change, error, words):
    with pytest.raises(error, match=words):
        ais(
            **(
                dict(decoder=linear((0.5, 0.2)), x=np.ones((2, 12)), rng=Random(0), progress=False)
                | change
            )
        )


# ---------------------------------------------------------------- the importance-weighted bound


def test_the_exact_posterior_makes_the_bound_tight_with_one_draw():
    """Orthogonal rows: the posterior has independent units.

    Every weight is then p(x), in double precision to 1e-9.
    """
    d = linear((0.3,), (3, 8))
    W = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 3)))[0].T * [[1], [2], [3]]
    d = Decoder((Dense(W, d.maps[0].b, "linear"),), TopPrior(d.prior.mean, np.ones(3)), d.sigmas)
    x, _ = simulate(d, 20, rng=Random(0))
    mean, cov = posterior(d, x)
    assert np.abs(cov - np.diag(np.diag(cov))).max() < 1e-12
    found = importance_bound(d, x, mean, np.diag(cov) ** 0.5, (1, 5), rng=Random(1))
    assert found.shape == (2, 20) and np.abs(found - exact(d, x)).max() < 1e-9
    wide = importance_bound(d, x, mean, 2 * np.diag(cov) ** 0.5, (1,), rng=Random(1))
    kl = 3 * (
        -np.log(2) + (4 - 1) / 2
    )  # KL of a Gaussian twice too wide, per unit: what the bound is short of
    off, error = mean_and_stderr(wide[0] - exact(d, x))
    assert abs(off + kl) < 4 * error
    assert np.allclose(
        lk.proposal_sd(d, np.repeat(x, 50, 0), np.repeat(mean, 50, 0), rng=Random(2)),
        np.diag(cov) ** 0.5,
        rtol=0.1,
    )


def test_the_bound_rises_with_k_stays_below_and_reaches_the_truth():
    d = linear((0.5, 0.3), (2, 3, 5))
    x, _ = simulate(d, 200, rng=Random(0))
    mean, cov = posterior(d, x)
    found = importance_bound(
        d, x, mean + 0.2, 1.2 * np.diag(cov) ** 0.5, (1, 10, 100, 1000), rng=Random(1)
    )
    assert np.all(np.diff(found, axis=0) >= -1e-12)  # nested groups: for every picture, by Jensen
    gaps = (found - exact(d, x)).mean(axis=1)
    assert (
        gaps[0] < -0.5
        and abs(gaps[-1]) < 0.1
        and gaps[-1] < 3 * mean_and_stderr(found[-1] - exact(d, x))[1]
    )
    each = np.stack(
        [
            importance_bound(
                d,
                x[:2],
                mean[:2],
                np.broadcast_to(np.diag(cov) ** 0.5, (2, 5)),
                (k,),
                rng=Random(1),
            )[0]
            for k in (1, 1500)
        ]
    )
    assert np.isfinite(each).all()  # more draws than one block holds


def test_the_bound_is_the_formula():
    "One picture, seven draws: groups of 3 leave one draw out."
    d = decoder((3, 5, 6), ("sigmoid", "tanh"), (0.3, 0.5))
    x, z = simulate(d, 1, rng=Random(0))
    sd = np.linspace(0.5, 1.5, 8)
    noise = Random(9).stream("picture", 0).normal((7, 8), "float64")
    draws = z + sd * noise
    log_w = (
        np.array([log_likelihood(d, x, t[None])[0] for t in draws])
        + multivariate_normal(np.zeros(8), np.eye(8)).logpdf(draws)
        - multivariate_normal(z[0], np.diag(sd**2)).logpdf(draws)
    )
    want = [
        log_w.mean(),
        np.mean([logsumexp(log_w[:3]), logsumexp(log_w[3:6])]) - np.log(3),
        logsumexp(log_w) - np.log(7),
    ]
    assert np.allclose(
        importance_bound(d, x, z, sd, (1, 3, 7), rng=Random(9))[:, 0], want, rtol=1e-10
    )


@pytest.mark.parametrize(
    "change, error, words",
    [
        (dict(mean=np.zeros((2, 3))), ValueError, "mean must have 9 columns"),
        (dict(mean=np.zeros((3, 9))), ValueError, "3 rows for 2"),
        (dict(K=(0,)), ValueError, "K"),
        (dict(sd=0.0), ValueError, "sd"),
        (dict(sd=-1.0), ValueError, "sd"),
        (dict(x=np.ones((2, 4))), ValueError, "12 columns"),
    ],
)
def test_importance_bound_refuses(change, error, words):
    with pytest.raises(error, match=words):
        importance_bound(
            **(
                dict(
                    decoder=linear((0.5, 0.2)),
                    x=np.ones((2, 12)),
                    mean=np.zeros((2, 9)),
                    sd=1.0,
                    rng=Random(0),
                )
                | change
            )
        )


# ------------------------------------------------------------- the mechanism, other array libraries


def test_alignment_is_the_mean_angle():
    model = init_model((6, 5, 3), ("sigmoid", "softplus", "sigmoid"), rng=Random(0))
    h = encode(model, Random(1).uniform((30, 6)))
    found = lk.alignment(model, h)
    for k, pair in enumerate(model.pairs):
        angles = angle(target_step(pair, h[k], h[k + 1]), exact_gradient(pair, h[k], h[k + 1]))
        assert found[k] == pytest.approx((angles.mean(), angles.std(ddof=1) / 30**0.5), rel=1e-5)
    W = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 3)))[0]
    mirror = Model(
        (LayerPair(Dense(W, np.zeros(3), "linear"), Dense(W.T, np.zeros(6), "linear")),)
    )  # f = gᵀ, linear: the step is the gradient
    x = np.random.default_rng(1).normal(size=(20, 6))
    assert lk.alignment(mirror, [x, np.zeros((20, 3))])[0][0] == pytest.approx(0, abs=1e-4)


def test_everything_runs_where_the_host_cannot_read(strict_backend):
    away = lambda a: strict_backend.asarray(a, None)
    d = decoder((3, 5, 6), ("sigmoid", "softplus"), (0.3, 0.5), dtype="float32")
    there = Decoder(
        tuple(Dense(away(m.W), away(m.b), m.unit) for m in d.maps),
        TopPrior(away(d.prior.mean), away(d.prior.var)),
        d.sigmas,
    )
    x, z = simulate(d, 3, rng=Random(0))
    x_there, z_there = simulate(there, 3, rng=Random(0, strict_backend))
    assert np.allclose(x, to_numpy(x_there), atol=1e-5)
    settings = dict(n_temperatures=5, n_leapfrog=2, n_chains=2, progress=False)
    both = [
        bidirectional(a, 3, rng=Random(1, b), **settings)
        for a, b in ((d, None), (there, strict_backend))
    ]
    assert np.allclose(both[0].lower.log_p, both[1].lower.log_p, atol=1e-2) and np.allclose(
        both[0].upper.log_p, both[1].upper.log_p, atol=1e-2
    )
    for a, b in zip(likelihood_gradient(d, x, z), likelihood_gradient(there, x_there, z_there)):
        assert np.allclose(a, to_numpy(b), rtol=1e-3, atol=1e-4)
    bounds = [
        importance_bound(a, b, c, e, (1, 4), rng=r)
        for a, b, c, e, r in (
            (d, x, z, 0.5, Random(2)),
            (there, x_there, z_there, 0.5, Random(2, strict_backend)),
        )
    ]
    assert np.allclose(*bounds, atol=1e-3)
    sigmas = [
        to_numpy(lk.proposal_sd(a, b, c, rng=r))
        for a, b, c, r in (
            (d, x, z, Random(3)),
            (there, x_there, z_there, Random(3, strict_backend)),
        )
    ]
    assert np.allclose(*sigmas, rtol=1e-3)
    assert np.allclose(
        whiten(d, [x, d.maps[0](x[:, :3]), x[:, :3]]),
        to_numpy(whiten(there, [x_there, there.maps[0](x_there[:, :3]), x_there[:, :3]])),
        atol=1e-3,
    )
    assert lk.tune_sigmas(
        there, x_there, rng=Random(4, strict_backend), rounds=1, n_temperatures=5, progress=False
    ).sigmas == pytest.approx(
        lk.tune_sigmas(d, x, rng=Random(4), rounds=1, n_temperatures=5, progress=False).sigmas,
        rel=1e-2,
    )
