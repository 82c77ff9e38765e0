"""The baselines of the table, each against an exact answer; and what is kept of them."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm

from biolearn.core.arrays import to_numpy
from biolearn.core.data import load_dataset
from biolearn.core.generation import half_masks
from biolearn.core.layers import Dense
from biolearn.core.learning import DivergenceError
from biolearn.core.model import TopPrior
from biolearn.core.rng import Random
from biolearn.evaluation import baselines as B
from biolearn.evaluation.baselines import (
    BaselineResult,
    LangevinConfig,
    LatentMixture,
    Pictures,
    PredictiveCoding,
    fit_centroids,
    fit_mixture,
    fit_ppca,
    fit_predictive_coding,
    langevin_step,
    load_baseline_result,
    prediction_errors,
    save_baseline_result,
)
from biolearn.evaluation.likelihood import Decoder
from biolearn.reproduction.study import StudyError, Trial
from biolearn.theory.tractable import exact_posterior, init_linear_gaussian

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
SMALL = LangevinConfig(
    hidden=(5, 12), sigmas=(0.2, 0.2), deltas=(0.02, 0.005), epochs=2, batch_size=50, rate=3e-3
)


GOLDEN = LangevinConfig(
    hidden=(2, 6), sigmas=(0.2, 0.2), deltas=(0.02, 0.005), epochs=3, batch_size=20, rate=3e-3
)
KNOWN = [0.2067535, 0.3132456, 0.5335924, 0.1395765, -2.011647]


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


@pytest.fixture(scope="module")
def company(digits):
    "One of each baseline that needs no PyTorch."
    return {
        "real": Pictures(digits.valid),
        "kmeans": fit_centroids(digits.train, 50, rng=Random(0)),
        "ppca": fit_ppca(digits.train, 10),
        "gmm": fit_mixture(digits.train, 10, 5, rng=Random(0)),
        "mcpc": replace(
            fit_predictive_coding(digits.train, SMALL, rng=Random(0), progress=False)[0],
            inpaint_steps=20,
        ),
    }


MODELS = ("real", "kmeans", "ppca", "gmm", "mcpc")


# ---- what all of them promise --------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_samples_are_pictures_and_a_seed_means_the_same_bits(name, company, digits):
    baseline = company[name]
    s, again, other = (to_numpy(baseline.sample(120, rng=Random(seed))) for seed in (1, 1, 2))
    assert s.shape == (120, 64) and s.dtype == np.float32 and s.min() >= 0 and s.max() <= 1
    assert (s == again).all() and (s != other).any()


@pytest.mark.parametrize("name", MODELS[1:])
def test_in_painting_keeps_what_is_visible_and_never_reads_the_rest(name, company, digits):
    baseline, x, mask = company[name], digits.test[:6], np.arange(64) % 3 > 0
    completed, again = (
        baseline.inpaint(a, mask, rng=Random(3)) for a in (x, np.where(mask, x, 1 - x))
    )
    assert (completed[:, mask] == x[:, mask]).all() and (completed == again).all()
    assert (
        completed.min() >= 0 and completed.max() <= 1 and (completed[:, ~mask] != x[:, ~mask]).any()
    )


@pytest.mark.parametrize("name, better", [("kmeans", 1.0), ("ppca", 1.0), ("gmm", 1.0)])
def test_in_painting_beats_the_mean_digit(name, better, company, digits):
    for mask in half_masks((8, 8), Random(0).backend).values():
        error = lambda x: ((x - digits.test)[:, ~mask] ** 2).mean()
        assert error(company[name].inpaint(digits.test, mask, rng=Random(0))) < better * error(
            np.broadcast_to(digits.train.mean(0), digits.test.shape)
        )


def test_what_a_baseline_has_not_is_none(company, digits):
    has = {
        name: (
            baseline.inpaint(digits.test[:1], np.arange(64) < 9, rng=Random(0)) is not None,
            baseline.decoder() is not None,
            baseline.log_density(digits.test) is not None,
        )
        for name, baseline in company.items()
    }
    assert has == {
        "real": (False, False, False),
        "kmeans": (True, False, False),
        "ppca": (True, True, True),
        "gmm": (True, False, True),
        "mcpc": (True, True, False),
    }


def test_real_digits_are_handed_out_once_each(company, digits):
    s = company["real"].sample(300, rng=Random(0))
    assert (np.unique(s, axis=0) == np.unique(digits.valid, axis=0)).all() and (
        s != digits.valid
    ).any()
    with pytest.raises(ValueError, match="at most 300"):
        company["real"].sample(301, rng=Random(0))


def test_centroids_are_drawn_as_often_as_they_stand_for_digits():
    """Two heaps of 30 and 90 pictures: fractions of 1/4 and 3/4, and 4,000 draws within four
    standard errors of them.
    """
    x = np.concatenate([np.full((30, 4), 0.1), np.full((90, 4), 0.9)]).astype(
        np.float32
    ) + 0.01 * Random(0).uniform((120, 4))
    baseline = fit_centroids(x, 2, rng=Random(1))
    dark = baseline.centres[:, 0] > 0.5
    assert sorted(baseline.fractions) == [0.25, 0.75] and baseline.fractions[dark] == 0.75
    assert (baseline.sample(4000, rng=Random(2))[:, 0] > 0.5).mean() == pytest.approx(
        0.75, abs=4 * math.sqrt(0.75 * 0.25 / 4000)
    )


# ---- linear baselines ----------------------------------------------------------------------------


def pixels(m):
    "The components of a mixture over all pixels: means (K, n_0) and covariances."
    return m.means @ m.A.T + m.b, [
        m.A @ L @ L.T @ m.A.T + m.sigma**2 * np.eye(len(m.b)) for L in m.roots
    ]


def test_ppca_density_is_scikit_learns(digits):
    """In double precision; scikit-learn divides the covariance by n - 1, so it gets data that are
    wider by that much.
    """
    from sklearn.decomposition import PCA

    x, t = digits.train.astype(float), digits.test.astype(float)
    wider = x.mean(0) + (x - x.mean(0)) * np.sqrt((len(x) - 1) / len(x))
    np.testing.assert_allclose(
        fit_ppca(x, 12).log_density(t), PCA(12).fit(wider).score_samples(t), atol=1e-7
    )


def test_ppca_decoder_is_its_density(digits):
    """What it hands over, W, b, prior and noise, has the same density by the formula of the
    marginal Gaussian. float32 weights: 1e-3 nats.
    """
    model = fit_ppca(digits.train.astype(float), 12)
    decoder = model.decoder()
    (dense,), prior, (sd,) = decoder.maps, decoder.prior, decoder.sigmas
    cov = (dense.W.astype(float).T * prior.var) @ dense.W + sd**2 * np.eye(64)
    np.testing.assert_allclose(
        model.log_density(digits.test),
        multivariate_normal(dense(prior.mean[None])[0].astype(float), cov).logpdf(digits.test),
        atol=1e-3,
    )


def test_mixture_density_is_scikit_learns_plus_the_rest_of_the_pixels(digits):
    """Fitted in the plane of the components with the noise's variance added: there it is
    scikit-learn's own density, beside it white noise.
    """
    from sklearn.mixture import GaussianMixture

    x, t = digits.train.astype(float), digits.test.astype(float)
    model, seed = (
        fit_mixture(x, 8, 6, rng=Random(4)),
        int(Random(4).uniform((1,), "float64")[0] * 2**31),
    )
    plane = lambda a: (a - model.b) @ model.A
    sk = GaussianMixture(6, reg_covar=model.sigma**2, random_state=seed, max_iter=200).fit(plane(x))
    rest = ((t - model.b - plane(t) @ model.A.T) ** 2).sum(1)
    expected = (
        sk.score_samples(plane(t))
        - rest / (2 * model.sigma**2)
        - 56 / 2 * math.log(2 * math.pi * model.sigma**2)
    )
    np.testing.assert_allclose(model.log_density(t), expected, atol=1e-6)


@pytest.mark.parametrize("K", [1, 4])
def test_mixture_completes_like_a_brute_force_conditional(K):
    """A made-up mixture, another mask for every row: weights and conditional means from full
    covariance matrices.
    """
    rng = np.random.default_rng(0)
    model = LatentMixture(
        "m",
        rng.normal(size=(9, 3)) * 0.1,
        np.full(9, 0.5),
        0.05,
        np.arange(1, K + 1) / (K * (K + 1) / 2),
        rng.normal(size=(K, 3)),
        rng.normal(size=(K, 3, 3)),
    )
    x, visible, (means, covs) = (
        rng.uniform(0.2, 0.8, (5, 9)),
        rng.uniform(size=(5, 9)) < 0.6,
        pixels(model),
    )
    visible[3] = visible[1]  # two rows that share a mask
    completed = model.inpaint(x, visible, rng=Random(0))
    for i, v in enumerate(visible):
        log_p = np.array(
            [
                math.log(w) + multivariate_normal(m[v], C[np.ix_(v, v)]).logpdf(x[i, v])
                for w, m, C in zip(model.weights, means, covs)
            ]
        )
        paint = [
            m[~v] + C[np.ix_(~v, v)] @ np.linalg.solve(C[np.ix_(v, v)], x[i, v] - m[v])
            for m, C in zip(means, covs)
        ]
        np.testing.assert_allclose(
            completed[i, ~v], np.clip(np.exp(log_p - logsumexp(log_p)) @ paint, 0, 1), atol=1e-9
        )
        assert (completed[i, v] == x[i, v]).all()


def test_mixture_samples_have_its_mean_and_covariance():
    """20,000 samples of a mixture that stays inside [0, 1], without pixel noise: four standard
    errors of the mean, and 4 √(2/n) of the largest variance.
    """
    rng = np.random.default_rng(1)
    model = LatentMixture(
        "m",
        rng.normal(size=(6, 2)),
        np.full(6, 0.5),
        0.05,
        np.array([0.3, 0.7]),
        0.03 * rng.normal(size=(2, 2)),
        0.02 * rng.normal(size=(2, 2, 2)),
    )
    s, mean = model.sample(20_000, rng=Random(0)).astype(float), model.weights @ model.means
    z = sum(
        w * (L @ L.T + np.outer(m - mean, m - mean))
        for w, m, L in zip(model.weights, model.means, model.roots)
    )
    cov = model.A @ z @ model.A.T
    assert (
        np.abs(s.mean(0) - model.b - model.A @ mean) < 4 * np.sqrt(cov.diagonal() / 20_000)
    ).all()
    assert np.abs(np.cov(s.T) - cov).max() < 4 * math.sqrt(2 / 20_000) * cov.max()


# ---- predictive coding ---------------------------------------------------------------------------


def a_net(units=("softplus", "tanh", "sigmoid"), sizes=(3, 4, 5, 6), seed=0):
    "A net in double precision with a state of seven rows."
    r = np.random.default_rng(seed)
    maps = tuple(
        Dense(r.normal(size=(a, b)), r.normal(size=b), unit)
        for a, b, unit in zip(sizes, sizes[1:], units)
    )
    net = PredictiveCoding(
        maps, TopPrior(r.normal(size=3), r.uniform(0.5, 2, 3)), (0.3, 0.7, 0.2), (0.02, 0.01, 0.005)
    )
    return net, [r.normal(size=(7, n)) for n in sizes[:-1]] + [r.uniform(size=(7, sizes[-1]))]


class Still:
    "Random numbers that are all zero: Langevin without its noise."

    def normal(self, shape, dtype="float32"):
        return np.zeros(shape, dtype)


def joint_by_hand(net, layers):
    "log p(x, h), Eq. 7, by SciPy's normal density."
    total = norm.logpdf(layers[0], net.prior.mean, np.sqrt(net.prior.var)).sum(1)
    return total + sum(
        norm.logpdf(b, dense(a), sd).sum(1)
        for a, b, dense, sd in zip(layers, layers[1:], net.maps, net.sigmas)
    )


def test_log_p_joint_is_scipys():
    net, layers = a_net()
    np.testing.assert_allclose(net.log_p_joint(layers), joint_by_hand(net, layers), rtol=1e-12)


def test_the_drift_is_the_gradient_of_log_p():
    """A step without noise, over delta, against central differences of log p(x, h) in every unit of
    every layer.
    """
    net, layers = a_net()
    moved = langevin_step(net, layers, net.deltas, rng=Still())
    for k, (h, new, delta) in enumerate(zip(layers, moved, net.deltas)):
        for j in range(h.shape[1]):
            e = np.zeros_like(h)
            e[:, j] = 1e-5
            up, down = ([*layers[:k], h + s * e, *layers[k + 1 :]] for s in (1, -1))
            np.testing.assert_allclose(
                (new - h)[:, j] / delta,
                (joint_by_hand(net, up) - joint_by_hand(net, down)) / 2e-5,
                rtol=1e-5,
                atol=1e-6,
            )


def test_hidden_pixels_are_integrated_out():
    "With a pixel hidden the drift is that of the net without this pixel."
    net, layers = a_net()
    keep = [0, 1, 2, 4, 5]
    short = replace(
        net, maps=(*net.maps[:-1], Dense(net.maps[-1].W[:, keep], net.maps[-1].b[keep], "sigmoid"))
    )
    seen = langevin_step(net, layers, net.deltas, visible=np.arange(6) != 3, rng=Still())
    for a, b in zip(
        seen, langevin_step(short, [*layers[:-1], layers[-1][:, keep]], net.deltas, rng=Still())
    ):
        np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize("start", [0.0, 3.0])
def test_langevin_visits_the_posterior_of_a_linear_model(start):
    """4,000 chains from far away: mean and covariance of p(h | x), which is known. Four standard
    errors each; and Langevin without rejection is wider by 1 / (1 - delta λ / 2) in a direction of
    precision λ: delta λ <= 0.05 here, so 2.6 % of the largest variance at most.
    """
    model, n = init_linear_gaussian(6, 3, rng=Random(1), sigma=0.5, scale=0.7), 4000
    x = 2 * Random(2).normal((1, 6), "float64")
    mean, cov = exact_posterior(model, x)
    delta, noise = 0.05 * np.linalg.eigvalsh(cov)[0], Random(3)
    net = PredictiveCoding(
        (Dense(model.W.T, model.b, "linear"),), TopPrior(np.zeros(3), np.ones(3)), (0.5,), (delta,)
    )
    h = [np.full((n, 3), start)]
    for _ in range(int(8 * np.linalg.eigvalsh(cov)[-1] / delta)):
        h = langevin_step(
            net, [*h, np.broadcast_to(x, (n, 6))], net.deltas, rng=noise
        )  # eight times the slowest time constant
    assert (np.abs(h[0].mean(0) - mean[0]) < 4 * np.sqrt(cov.diagonal() / n)).all()
    assert np.abs(np.cov(h[0].T) - cov).max() < (4 * math.sqrt(2 / n) + 0.026) * cov.max()


@pytest.fixture
def still(monkeypatch):
    """Learning from given states: Langevin does not move them, and plain descent at rate 1 shows
    the gradient.
    """
    monkeypatch.setattr(B, "langevin_step", lambda net, layers, deltas, *, rng: list(layers[:-1]))
    step = B.local_step
    monkeypatch.setattr(
        B, "local_step", lambda *a, **kw: step(*a, **kw | {"optimizer": "sgd", "rate": 1.0})
    )


def learnt(net, layers):
    "What one visit does to the weights of each map, for a net that is left alone: [(dW, db), ...]."
    copy = replace(net, maps=tuple(Dense(d.W.copy(), d.b.copy(), d.unit) for d in net.maps))
    books = [B.new_optimizer_state(d, "sgd") for d in copy.maps]
    B._visit(
        copy,
        books,
        list(layers[:-1]),
        layers[-1],
        replace(
            SMALL,
            n_steps=1,
            sigmas=net.sigmas,
            deltas=net.deltas,
            hidden=(3, 4, 5),
            units=("softplus", "tanh", "sigmoid"),
        ),
        1,
        None,
    )
    return [(new.W - old.W, new.b - old.b) for new, old in zip(copy.maps, net.maps)]


def test_each_map_climbs_log_p(still):
    """The change of every weight and bias is the gradient of the mean of log p(x, h) in it, times
    the variance of the layer it leads to: central differences.
    """
    net, layers = a_net()
    for k, (dW, db) in enumerate(learnt(net, layers)):
        old = net.maps[k]
        at = lambda W, b: joint_by_hand(
            replace(net, maps=(*net.maps[:k], Dense(W, b, old.unit), *net.maps[k + 1 :])), layers
        ).mean()
        for array, change in ((old.W, dW), (old.b, db)):
            for i in np.ndindex(array.shape):
                e = np.zeros_like(array)
                e[i] = 1e-5
                slope = (
                    at(old.W + e, old.b) - at(old.W - e, old.b)
                    if array is old.W
                    else at(old.W, old.b + e) - at(old.W, old.b - e)
                ) / 2e-5
                assert change[i] == pytest.approx(net.sigmas[k] ** 2 * slope, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("k", [0, 1, 2])
def test_distant_layers_are_not_seen(k, still):
    """Given the two layers at its ends, a map's update is the same to the bit whatever the other
    layers do and whatever the other maps are.
    """
    net, layers = a_net()
    before = learnt(net, layers)[k]
    elsewhere = [h if j in (k, k + 1) else h + 1 for j, h in enumerate(layers)]
    others = replace(
        net,
        maps=tuple(
            d if j == k else o for j, (d, o) in enumerate(zip(net.maps, a_net(seed=9)[0].maps))
        ),
        prior=TopPrior(np.ones(3), np.ones(3)),
    )
    for a, b in ((net, elsewhere), (others, layers)):
        assert all((p == q).all() for p, q in zip(before, learnt(a, b)[k]))
    near = [h + 0.1 * (j == k) for j, h in enumerate(layers)]
    assert (before[0] != learnt(net, near)[k][0]).any()  # the test can fail


def test_prediction_errors_of_a_dream_are_as_large_as_the_noise():
    """Layers drawn from the model itself: the errors' variance is 1 / sd² in every layer; 5
    standard errors of a variance of n × units numbers.
    """
    net, _ = a_net()
    layers = net.dream(20_000, rng=Random(0))
    errors, _ = prediction_errors(net, layers)
    for e, variance in zip(errors, (net.prior.var, 0.3**2, 0.7**2)):
        z = e * np.sqrt(variance)
        assert np.mean(z**2) == pytest.approx(1, abs=5 * math.sqrt(2 / z.size)) and abs(
            z.mean()
        ) < 5 / math.sqrt(z.size)
    assert not errors[-1].any()  # the picture is the mean


def test_training_brings_the_error_down_and_is_the_same_twice(digits):
    recipe = replace(SMALL, sigmas=(0.1, 0.12), epochs=40)
    (a, history), (b, again), (c, _) = (
        fit_predictive_coding(digits.train, recipe, rng=Random(seed), progress=False)
        for seed in (0, 0, 1)
    )
    assert (
        history == again
        and all((p.W == q.W).all() for p, q in zip(a.maps, b.maps))
        and (a.maps[0].W != c.maps[0].W).any()
    )
    mean_digit = digits.train.std(axis=0)
    assert (
        history[-1]["rms_errors"][-1] < 0.8 * math.sqrt((mean_digit**2).mean())
        and len(history) == 40
    )
    assert (a.prior.var > 0.1).all() and json.loads(json.dumps(history)) == history


def test_every_digit_keeps_its_own_state(monkeypatch, digits):
    """States that are set to something of the digit at its first visit come back with the same
    digit at the second, in another order.
    """
    seen = []

    def visit(net, books, h, x, recipe, t, rng):
        seen.append((h[0] == x[:, 20:25]).all())
        return [x[:, 20:25], h[1]], [x[0, 0], x[0, 0]]

    monkeypatch.setattr(B, "_visit", visit)
    fit_predictive_coding(digits.train[:230], SMALL, rng=Random(0), progress=False)
    assert not any(seen[:5]) and all(seen[5:]) and len(seen) == 10


def test_in_painting_by_langevin_beats_the_mean_digit(digits):
    """A random half of the pixels is enough for a short training to do better than a third below
    the mean digit's error.
    """
    net, _ = fit_predictive_coding(
        digits.train,
        replace(SMALL, hidden=(10, 60), sigmas=(0.1, 0.12), deltas=(0.01, 0.003), epochs=40),
        rng=Random(0),
        progress=False,
    )
    mask = Random(1).uniform((100, 64)) < 0.5
    x, completed = (
        digits.test[:100],
        replace(net, inpaint_steps=200).inpaint(digits.test[:100], mask, rng=Random(2)),
    )
    assert ((completed - x)[~mask] ** 2).mean() < 2 / 3 * (
        (digits.train.mean(0) - x)[~mask] ** 2
    ).mean()


def test_every_backend(backend, digits):
    """The strict namespace's second device cannot be read by the host: nothing leaks.

    Its numbers are NumPy's.
    """
    x = digits.train[:60]
    net, history = fit_predictive_coding(
        backend.asarray(x), SMALL, rng=Random(0, backend), progress=False
    )
    s = to_numpy(net.sample(5, rng=Random(1, backend)))
    completed = to_numpy(
        replace(net, inpaint_steps=4).inpaint(
            backend.asarray(x[:3]),
            backend.asarray(np.arange(64) < 30, "bool"),
            rng=Random(2, backend),
        )
    )
    if backend.name == "gpu":
        return  # draws other numbers, by design
    here, _ = fit_predictive_coding(x, SMALL, rng=Random(0), progress=False)
    np.testing.assert_allclose(s, here.sample(5, rng=Random(1)), atol=1e-4)
    np.testing.assert_allclose(
        completed,
        replace(here, inpaint_steps=4).inpaint(x[:3], np.arange(64) < 30, rng=Random(2)),
        atol=1e-4,
    )


def test_steps_that_are_too_large_are_said(digits):
    with np.errstate(all="ignore"), pytest.raises(DivergenceError, match="smaller deltas"):
        fit_predictive_coding(
            digits.train, replace(SMALL, deltas=(5.0, 5.0)), rng=Random(0), progress=False
        )


def test_noise_and_steps_fall_geometrically_and_the_rate_linearly():
    half = replace(SMALL, sigmas_end=(0.05, 0.2), deltas_end=(0.005, 0.005), rate=0.1).at(0.5)
    assert (
        half.sigmas == pytest.approx((0.1, 0.2))
        and half.deltas == pytest.approx((0.01, 0.005))
        and half.rate == pytest.approx(0.05)
    )
    assert SMALL.at(0.5).sigmas == SMALL.sigmas and SMALL.at(0.0) == SMALL


def test_training_ends_with_the_noise_that_it_fell_to(monkeypatch, digits):
    "Every visit sees the noise of its time; the model that comes out has the last."
    seen, step = [], B.langevin_step
    monkeypatch.setattr(
        B,
        "langevin_step",
        lambda net, layers, deltas, *, rng: (
            seen.append((net.sigmas[0], deltas[0])) or step(net, layers, deltas, rng=rng)
        ),
    )
    net, _ = fit_predictive_coding(
        digits.train[:100],
        replace(SMALL, n_steps=1, sigmas_end=(0.05, 0.2), deltas_end=(0.01, 0.005)),
        rng=Random(0),
        progress=False,
    )
    np.testing.assert_allclose(
        seen, [(0.2 * 0.25 ** (t / 4), 0.02 * 0.5 ** (t / 4)) for t in range(4)]
    )
    assert net.sigmas == (0.05, 0.2) and net.deltas == (0.01, 0.005)


@pytest.mark.parametrize(
    "bad",
    [
        dict(sigmas_end=(0.1,)),
        dict(hidden=(5,)),
        dict(sigmas=(0.1,)),
        dict(units=("softplus", "step")),
        dict(n_steps=0),
        dict(epochs=1.5),
        dict(rate=-1),
    ],
)
def test_bad_recipes_are_refused(bad):
    with pytest.raises((ValueError, TypeError)):
        replace(SMALL, **bad)


def test_bad_input_is_refused(digits, company):
    for fit in (
        lambda x: fit_centroids(x, 3, rng=Random(0)),
        lambda x: fit_ppca(x, 3),
        lambda x: fit_mixture(x, 3, 2, rng=Random(0)),
        lambda x: fit_predictive_coding(x, SMALL, rng=Random(0), progress=False),
    ):
        with pytest.raises((TypeError, ValueError), match="x "):
            fit(np.full((20, 4), np.nan, np.float32))
    with pytest.raises(ValueError, match="sigma or delta"):
        PredictiveCoding(company["mcpc"].maps, company["mcpc"].prior, (0.0, 0.1), (0.1, 0.1))
    for name in MODELS[1:]:
        with pytest.raises(ValueError):
            company[name].inpaint(digits.test[:2], np.arange(63) < 5, rng=Random(0))


# ---- what is kept --------------------------------------------------------------------------------


def test_a_result_comes_back(tmp_path, company, digits):
    "Pictures to half a grey level, everything else as it was."
    x, masks = (
        digits.test[:7],
        {"halves": np.arange(64) < 32, "random": Random(0).uniform((7, 64)) < 0.5},
    )
    for name, baseline in company.items():
        completed = (
            {}
            if name == "real"
            else {kind: baseline.inpaint(x, mask, rng=Random(1)) for kind, mask in masks.items()}
        )
        made = BaselineResult(
            {"model": name, "seconds": {"training": 1.5}},
            baseline.sample(20, rng=Random(0)),
            masks,
            completed,
            baseline.decoder(),
            baseline.log_density(digits.test),
        )
        save_baseline_result(tmp_path / f"{name}.npz", made)
        back = load_baseline_result(tmp_path / f"{name}.npz")
        assert (
            back.about == made.about
            and set(back.inpainted) == set(completed)
            and all((back.visible[k] == m).all() for k, m in masks.items())
        )
        for a, b in zip(
            [back.samples, *back.inpainted.values()], [made.samples, *completed.values()]
        ):
            assert a.dtype == np.float32 and np.abs(a - b).max() <= 0.5 / 255 + 1e-6
        assert (
            back.log_density is made.log_density is None
            or (back.log_density == made.log_density).all()
        )
        if not made.decoder:
            assert back.decoder is None
            continue
        assert all(
            (p.W == q.W).all() and (p.b == q.b).all() and p.unit == q.unit
            for p, q in zip(back.decoder.maps, made.decoder.maps, strict=True)
        )
        assert (
            (back.decoder.prior.mean == made.decoder.prior.mean).all()
            and (back.decoder.prior.var == made.decoder.prior.var).all()
            and back.decoder.sigmas == made.decoder.sigmas
        )


def test_a_damaged_result_is_named(tmp_path, company, digits):
    path = tmp_path / "a.npz"
    save_baseline_result(path, BaselineResult({}, digits.test[:3], {}, {}))
    whole = path.read_bytes()
    for broken in (
        b"",
        whole[:-30],
        whole[: len(whole) // 2],
        b"no archive",
        whole[:200] + b"\xff" * 60 + whole[260:],
    ):
        path.write_bytes(broken)
        with pytest.raises(
            ValueError, match="a.npz is not the result of a baseline.*experiments.baselines"
        ):
            load_baseline_result(path)
    np.savez(path, samples=np.zeros(3))
    with pytest.raises(ValueError, match="a.npz"):
        load_baseline_result(path)


# ---- the runner ----------------------------------------------------------------------------------


@pytest.fixture
def runner(monkeypatch, tmp_path):
    from experiments import baselines as runner

    monkeypatch.setattr(runner, "TABLE", tmp_path / "trials.csv")
    monkeypatch.setitem(runner.CHOSEN, "gmm", dict(d=6, k=3))
    return runner


def test_the_runner_writes_once_what_is_scored(runner, tmp_path, digits, monkeypatch):
    main = lambda *argv: runner.main(
        ["--model", "gmm", "--dataset", "digits", "--out", str(tmp_path), *argv]
    )
    main("--seeds", "0-1")
    path = tmp_path / "gmm-seed1.npz"
    assert (tmp_path / "gmm-seed0.npz").is_file()
    found, stamp = load_baseline_result(path), path.stat().st_mtime_ns
    assert found.samples.shape == (10_000, 64) and found.log_density.shape == (300,)
    assert found.about["settings"] == dict(d=6, k=3) and found.about["seconds"]["training"] > 0
    for kind in ("halves", "random"):
        seen, completed = found.visible[kind], found.inpainted[kind]
        assert completed.shape == seen.shape == (300, 64) and 0.4 < seen.mean() < 0.6
        assert np.abs(completed - digits.test)[seen].max() <= 0.5 / 255 + 1e-6
    main("--seeds", "1")
    assert path.stat().st_mtime_ns == stamp
    path.write_bytes(path.read_bytes()[:-9])  # damaged: made again
    main("--seeds", "1")
    again = load_baseline_result(path)
    assert (again.samples == found.samples).all()


def test_results_of_other_settings_are_kept_and_those_of_an_older_version_made_again(
    runner, tmp_path, monkeypatch
):
    argv = ["--model", "gmm", "--dataset", "digits", "--out", str(tmp_path), "--seeds", "1"]
    runner.main(argv)
    path = tmp_path / "gmm-seed1.npz"
    stamp = path.stat().st_mtime_ns
    monkeypatch.setitem(runner.CHOSEN, "gmm", dict(d=6, k=2))
    with pytest.raises(StudyError, match="gmm-seed1.json.*another trial"):
        runner.main(argv)
    assert path.stat().st_mtime_ns == stamp
    monkeypatch.setitem(runner.CHOSEN, "gmm", dict(d=6, k=3))
    monkeypatch.setattr(runner, "VERSION", runner.VERSION + 1)
    runner.main(argv)
    assert path.stat().st_mtime_ns > stamp
    assert load_baseline_result(path).about["version"] == runner.VERSION


def test_predictive_coding_can_be_put_together_again(runner, tmp_path, digits, monkeypatch):
    "Decoder and steps come back from the file, and with them the same dreams."
    few = replace(digits, train=digits.train[:100], test=digits.test[:2])
    monkeypatch.setattr(runner, "load_dataset", lambda name: few)
    settings = dict(
        hidden=(5, 12), sigmas=(0.2, 0.2), deltas=(0.02, 0.005), deltas_end=(0.01, 0.004), epochs=1
    )
    runner.make(Trial("mcpc", {"dataset": "digits", **settings}, 0), out=tmp_path)
    found = load_baseline_result(runner.result_path("mcpc", 0, tmp_path))
    d = found.decoder
    net = PredictiveCoding(d.maps, d.prior, d.sigmas, tuple(found.about["deltas"]))
    samples = net.sample(10_000, rng=Random(0).stream("peers", "samples"))
    assert net.deltas == (0.01, 0.004)
    assert np.abs(samples - found.samples).max() <= 0.5 / 255 + 1e-6


def test_the_version_is_raised_when_numbers_change():
    """A small training, by Langevin dynamics and by PCA's closed form: if this fails,
    raise VERSION in experiments/baselines.py and put the new numbers here.
    """
    from experiments.baselines import VERSION

    x = Random(0).stream("golden").uniform((60, 12))
    net, history = fit_predictive_coding(x, GOLDEN, rng=Random(0), progress=False)
    s = net.sample(40, rng=Random(1))
    linear = fit_ppca(x, 3)
    numbers = [*history[-1]["rms_errors"], s.mean(), s.std(), linear.log_density(x).mean()]
    assert VERSION == 1 and numbers == pytest.approx(KNOWN, rel=1e-4)


def test_one_training_sampled_otherwise_is_another_row(runner, digits):
    pytest.importorskip("torch")
    first, second = runner.trial(
        "dae",
        dict(hidden=8, n_code=4, noise=0.3, start="code", rounds=1, epochs=1),
        0,
        digits,
        also=[dict(rounds=4)],
    )
    assert (
        json.loads(second["settings"]) == json.loads(first["settings"]) | {"rounds": 4}
        and first["parzen"] != second["parzen"]
        and first["halves"] == second["halves"]
    )


def test_a_trial_is_a_row(runner, tmp_path, capsys):
    import csv

    runner.main(
        [
            "--model",
            "kmeans",
            "--dataset",
            "digits",
            "--try",
            "k=40",
            "--rows",
            "500",
            "--png",
            str(tmp_path / "s.png"),
            "--notes",
            "a test",
        ]
    )
    (row,) = csv.DictReader((tmp_path / "trials.csv").open())
    assert (
        json.loads(row["settings"]) == {"k": 40}
        and row["rows"] == "500"
        and row["notes"] == "a test"
        and 0 < float(row["halves"]) < 0.2
        and row["log_p"] == ""
    )
    assert (tmp_path / "s.png").stat().st_size > 100


# ---- the twins in PyTorch ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def twins():
    pytest.importorskip("torch")
    from experiments import torch_models

    return torch_models


def test_elbo_terms_by_hand(twins):
    """A tiny auto-encoder, the draw given: the Gaussian densities by SciPy, the KL as an average
    over its closed form's definition by quadrature.
    """
    import torch

    vae = twins.Vae(6, 5, 2, rng=Random(0))
    x, noise = Random(1).uniform((4, 6)), Random(2).normal((4, 2))
    log_p, kl = (t.detach().numpy() for t in vae.elbo_terms(torch.tensor(x), torch.tensor(noise)))
    up, down = ([m.dense() for m in stack] for stack in (vae.up, vae.down))
    mean, log_var = np.split(up[1](up[0](x)), 2, axis=1)
    sd = np.exp(log_var / 2)
    decoded, s = down[1](down[0](mean + sd * noise)), float(torch.exp(vae.log_sd.detach()))
    np.testing.assert_allclose(log_p, norm.logpdf(x, decoded, s).sum(1), rtol=1e-5)
    z = np.linspace(-12, 12, 40_001)
    q = norm.pdf(z, mean[..., None], sd[..., None])
    np.testing.assert_allclose(
        kl,
        (q * (norm.logpdf(z, mean[..., None], sd[..., None]) - norm.logpdf(z))).sum((1, 2))
        * (z[1] - z[0]),
        rtol=1e-4,
        atol=1e-5,
    )


def test_elbo_stays_below_the_truth_and_reaches_it(twins):
    """Where p(x) is known: with a constant decoder x ~ N(y, s²), z does not matter; the bound is
    log p(x) minus KL, and equal to it where q is the prior.
    """
    import torch

    vae = twins.Vae(3, 4, 2, rng=Random(0))
    with torch.no_grad():
        vae.down[1].W.zero_()
        vae.down[1].b.fill_(0.3)
        vae.up[1].W.zero_()
    x, y = Random(1).uniform((5, 3)), 1 / (1 + math.exp(-0.3))
    truth = norm.logpdf(x, y, math.exp(-1.5)).sum(1)
    np.testing.assert_allclose(vae.elbo(x, rng=Random(0)), truth, rtol=1e-5)
    with torch.no_grad():
        vae.up[1].b[0] = 2.0
    np.testing.assert_allclose(
        vae.elbo(x, rng=Random(0)), truth - 2.0, rtol=1e-4
    )  # KL of N(2, 1) from N(0, 1)


@pytest.fixture(scope="module")
def trained(twins, digits):
    loop = dict(hidden=60, epochs=60, batch_size=50, rate=3e-3)
    vae, lost = twins.fit_vae(digits.train, twins.VaeConfig(**loop, n_z=8), rng=Random(0))
    config = twins.DaeConfig(**loop, n_code=20, noise=0.2, rounds=2)
    dae, loss = twins.fit_dae(digits.train, config, rng=Random(0))
    return {"vae": (vae, lost), "dae": (dae, loss)}


def test_training_raises_the_bound(trained, digits, twins):
    vae, lost = trained["vae"]
    before = (
        twins.Vae(64, 60, 8, rng=Random(0).stream("init")).elbo(digits.valid, rng=Random(1)).mean()
    )
    after = vae.elbo(digits.valid, rng=Random(1)).mean()
    white = (
        norm.logpdf(digits.valid, digits.train.mean(0), (digits.train - digits.train.mean(0)).std())
        .sum(1)
        .mean()
    )  # the best that one Gaussian with a single width can do
    assert after > before + 10 and after > white + 3 and lost[-1] < lost[0]
    dae, loss = trained["dae"]
    assert loss[-1] < 0.6 * loss[0]


def test_the_decoder_of_the_vae_gives_what_it_decodes(trained):
    import torch

    vae, z = trained["vae"][0], Random(3).normal((5, 8))
    decoder = vae.decoder()
    maps, prior, sigmas = decoder.maps, decoder.prior, decoder.sigmas
    np.testing.assert_allclose(
        maps[1](maps[0](z)), vae.down(torch.tensor(z)).detach().numpy(), atol=1e-5
    )
    assert (
        sigmas[0] == 0
        and 0.05 < sigmas[1] < 0.4
        and (prior.var == 1).all()
        and not prior.mean.any()
    )


@pytest.mark.parametrize("name", ["vae", "dae"])
def test_the_twins_keep_the_promises_of_a_baseline(name, trained, digits):
    baseline, x, mask = trained[name][0], digits.test[:50], np.arange(64) % 2 > 0
    s, again, other = (baseline.sample(120, rng=Random(seed)) for seed in (1, 1, 2))
    assert (
        s.shape == (120, 64)
        and s.dtype == np.float32
        and s.min() >= 0
        and s.max() <= 1
        and (s == again).all()
        and (s != other).any()
    )
    completed, same = (
        baseline.inpaint(a, mask, rng=Random(3)) for a in (x, np.where(mask, x, 1 - x))
    )
    assert (
        (completed[:, mask] == x[:, mask]).all()
        and (completed == same).all()
        and completed.dtype == np.float32
    )
    assert ((completed - x)[:, ~mask] ** 2).mean() < 0.6 * (
        (digits.train.mean(0) - x)[:, ~mask] ** 2
    ).mean()
    assert baseline.log_density(x) is None and (baseline.decoder() is None) == (name == "dae")


@pytest.mark.parametrize("name", ["vae", "dae"])
def test_a_twin_with_a_mixture_is_the_same_network_with_another_prior(name, twins, digits):
    """Its codes are drawn from Gaussians that together have the mean of the codes of digits, and its
    pictures lie nearer to digits than those of the single Gaussian.
    """
    from biolearn.evaluation.neighbours import nearest_distance

    loop = dict(hidden=60, epochs=20, batch_size=50, rate=3e-3)
    fit, Config = getattr(twins, f"fit_{name}"), {"vae": twins.VaeConfig, "dae": twins.DaeConfig}
    how = Config[name](**loop) if name == "vae" else Config[name](**loop, rounds=0)
    plain, _ = fit(digits.train, how, rng=Random(0))
    twin, _ = fit(digits.train, replace(how, components=50), rng=Random(0))
    for a, b in zip(plain.parameters(), twin.parameters()):
        assert (a == b).all()
    codes = twin.up(twins.tensor(digits.train)).detach().numpy()
    weight, mean = twin.prior.weight, twin.prior.mean
    assert weight.shape == (50,) and weight.sum() == pytest.approx(1, rel=1e-5)
    if name == "dae":
        np.testing.assert_allclose(weight @ mean, codes.mean(0), rtol=1e-3, atol=1e-4)
    else:
        spread = twin.decoder().prior.mean.std(axis=0).max()
        assert spread > 0.3  # the single Gaussian has one mean
    far = [
        np.median(nearest_distance(net.sample(300, rng=Random(1)), digits.train))
        for net in (twin, plain)
    ]
    assert far[0] < 0.95 * far[1]


def test_the_start_of_the_chain(trained, digits):
    """Without a round: the picture of a code, or plain noise; rounds of reconstruction bring the
    noise nearer to digits.
    """
    from biolearn.evaluation.neighbours import nearest_distance

    dae = trained["dae"][0]
    near = {}
    for start, rounds in (("noise", 0), ("noise", 5), ("code", 0)):
        dae.start, dae.rounds = start, rounds
        near[start, rounds] = float(
            np.median(nearest_distance(dae.sample(200, rng=Random(0)), digits.train))
        )
    assert near["noise", 5] < 0.7 * near["noise", 0] and near["code", 0] < 0.7 * near["noise", 0]
    dae.start, dae.rounds = "code", 2


def test_the_same_training_twice(twins, digits):
    for fit, Config in ((twins.fit_vae, twins.VaeConfig), (twins.fit_dae, twins.DaeConfig)):
        config = Config(hidden=10, epochs=2)
        (a, one), (b, two), (_, three) = (
            fit(digits.train[:200], config, rng=Random(seed)) for seed in (0, 0, 1)
        )
        assert (
            one == two != three and (a.sample(3, rng=Random(0)) == b.sample(3, rng=Random(0))).all()
        )


def test_a_given_deviation_is_not_learnt(twins, digits):
    (given, _), (learnt, _) = (
        twins.fit_vae(
            digits.train[:200], twins.VaeConfig(hidden=10, n_z=3, sd=sd, epochs=2), rng=Random(0)
        )
        for sd in (0.3, None)
    )
    assert given.decoder().sigmas == (0.0, pytest.approx(0.3))
    assert learnt.decoder().sigmas[1] not in (
        pytest.approx(0.3),
        pytest.approx(math.exp(-1.5)),
    )


def test_a_mixture_on_top_is_kept(tmp_path):
    prior = TopPrior(
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.ones((2, 3), np.float32),
        np.array([0.25, 0.75], np.float32),
    )
    b = np.zeros(4, np.float32)
    save_baseline_result(
        tmp_path / "p.npz",
        BaselineResult(
            {},
            np.zeros((2, 4), np.float32),
            {},
            {},
            Decoder((Dense(np.ones((3, 4), np.float32), b, "linear"),), prior, (0.5,)),
        ),
    )
    back = load_baseline_result(tmp_path / "p.npz").decoder.prior
    assert all((a == b).all() for a, b in zip(vars(prior).values(), vars(back).values()))
