"""The chain of denoisers: levels against Bayes' rule, the E-step against finite differences, levels
that know nothing of each other, and the walk.
"""

from dataclasses import replace

import numpy as np
import pytest

import biolearn.extensions.denoisers as denoisers
from biolearn.core.data import load_digits
from biolearn.core.layers import Dense, LayerPair, angle
from biolearn.core.rng import Random
from biolearn.extensions.denoisers import FEEDBACK, Chain, ChainConfig, fit_chain, walk

SMALL = ChainConfig((1.0, 0.3), hidden=12, steps=30, batch_size=20)


@pytest.fixture(scope="module")
def x():
    return load_digits().train[:200]


@pytest.mark.parametrize("feedback", FEEDBACK)
def test_a_pixel_is_repaired_as_bayes_would(feedback):
    pixel = (np.random.default_rng(3).random((2000, 1)) < 0.4).astype(np.float32)
    how = ChainConfig((0.8, 0.4), hidden=30, steps=2000, rate=0.01, feedback=feedback)
    chain, losses = fit_chain(pixel, how, rng=1, progress=False)
    black = pixel.mean()
    for k, sigma in enumerate(how.sigmas):
        seen = np.linspace(0.5 - sigma, 0.5 + sigma, 21, dtype=np.float32)[:, None]
        odds = np.log(black / (1 - black)) + (seen - 0.5) / sigma**2
        assert np.abs(chain.repair(k, seen) - 1 / (1 + np.exp(-odds))).max() < 0.05
        assert len(losses[k]) == 20
    # its loss is half a squared error: that of Bayes, the mean of p (1 - p) / 2 over noisy pixels
    rng = np.random.default_rng(4)
    for k, sigma in enumerate(how.sigmas):
        noisy = pixel + sigma * rng.normal(size=pixel.shape)
        p = 1 / (1 + np.exp(-np.log(black / (1 - black)) - (noisy - 0.5) / sigma**2))
        assert np.mean(losses[k][-5:]) == pytest.approx((p * (1 - p)).mean() / 2, rel=0.1)


def level_of(x, seed=0):
    return denoisers._Level(x.shape[1], 12, Random(seed))


def test_the_exact_move_is_the_gradient_of_the_log_probability(x):
    level, rng = level_of(x), np.random.default_rng(0)
    g = Dense(level.pair.g.W.astype(np.float64), level.pair.g.b.astype(np.float64), "linear")
    level.pair = LayerPair(level.pair.f, g)
    h = rng.random((1, 12))

    def log_p(h):
        a = g(h)
        return float((x[:1] * a - np.logaddexp(0, a)).sum())

    made, how = 1 / (1 + np.exp(-g(h))), replace(SMALL, feedback="exact")
    move = denoisers._move(level, h, x[:1], made, lambda picture: picture, how)
    for i in range(12):
        e = np.zeros((1, 12))
        e[0, i] = 1e-5
        assert move[0, i] == pytest.approx((log_p(h + e) - log_p(h - e)) / 2e-5, rel=1e-5, abs=1e-8)


def test_learnt_feedback_points_where_the_transposed_weights_would(x):
    level, how = level_of(x), replace(SMALL, forget=0.01)
    h = np.random.default_rng(0).random((100, 12), dtype=np.float32)
    surprise = np.random.default_rng(1).normal(size=(100, 64)).astype(np.float32)
    for _ in range(1000):
        move = denoisers._move(level, h, surprise, 0 * surprise, lambda picture: picture, how)
    exact = surprise @ level.pair.g.W.T
    assert angle(move, exact).mean() < 15
    np.testing.assert_array_equal(level.pair.g.W, level_of(x).pair.g.W)  # it only observes


def test_no_level_knows_of_another(x):
    both, _ = fit_chain(x, SMALL, rng=5, progress=False)
    alone, _ = fit_chain(x, replace(SMALL, sigmas=(1.0,)), rng=5, progress=False)
    other, _ = fit_chain(x, replace(SMALL, sigmas=(1.0, 0.9)), rng=5, progress=False)
    for chain in (alone, other):
        assert (chain.pairs[0].f.W == both.pairs[0].f.W).all()
        assert (chain.pairs[0].g.W == both.pairs[0].g.W).all()
    assert (other.pairs[1].f.W != both.pairs[1].f.W).any()


def test_the_same_seed_learns_the_same_chain(x):
    first, second = (fit_chain(x, SMALL, rng=5, progress=False)[0] for _ in range(2))
    assert (first.pairs[1].f.W == second.pairs[1].f.W).all()
    third, _ = fit_chain(x, SMALL, rng=6, progress=False)
    assert (first.pairs[1].f.W != third.pairs[1].f.W).any()


def sure(picture, sigmas):
    "A chain that always repairs to `picture`."
    n_0 = len(picture)
    f = Dense(np.zeros((n_0, 3), np.float32), np.zeros(3, np.float32), "softplus")
    potentials = np.log(picture / (1 - picture)).astype(np.float32)
    g = Dense(np.zeros((3, n_0), np.float32), potentials, "linear")
    return Chain(sigmas, (LayerPair(f, g),) * len(sigmas), np.zeros(n_0, np.float32), 1e-6)


def test_where_the_picture_is_sure_each_level_sees_it_with_its_own_noise(monkeypatch):
    picture, sigmas = np.array([0.2, 0.9]), (3.0, 1.0, 0.4, 0.1)
    chain, seen = sure(picture, sigmas), {}
    read = Chain.repair
    monkeypatch.setattr(
        Chain, "repair", lambda self, k, x: seen.setdefault(k, x) * 0 + read(self, k, x)
    )
    drawn = walk(chain, 1000, rng=0)
    np.testing.assert_allclose(drawn, np.tile(picture, (1000, 1)), atol=1e-6)
    for k, sigma in enumerate(sigmas[1:], 1):  # what remains of the first level's start is small
        left = sigma**2 / sigmas[0] ** 2  # the share of the start, whose mean is not the picture
        error = sigma / 1000**0.5
        assert np.abs(seen[k].mean(axis=0) - picture * (1 - left)).max() < 4 * error
        assert seen[k].std(axis=0) == pytest.approx(sigma, rel=4 / 2000**0.5)


def test_a_picture_does_not_depend_on_how_many_are_drawn(x):
    chain, _ = fit_chain(x, SMALL, rng=5, progress=False)
    np.testing.assert_allclose(walk(chain, 3, rng=1), walk(chain, 1200, rng=1)[:3], atol=1e-5)
    assert (walk(chain, 3, rng=1) != walk(chain, 3, rng=2)).any()


@pytest.mark.parametrize(
    "wrong, named",
    [
        ({"sigmas": ()}, "sigmas"),
        ({"sigmas": (0.1, 0.2)}, "falling"),
        ({"sigmas": (0.2, 0.2)}, "falling"),
        ({"sigmas": (0.2, 0.0)}, "sigmas"),
        ({"feedback": "guessed"}, "feedback"),
        ({"steps": 0}, "steps"),
        ({"rate": float("nan")}, "rate"),
    ],
)
def test_what_cannot_be_meant_is_refused(wrong, named):
    with pytest.raises(ValueError, match=named):
        ChainConfig(**wrong)


def test_a_single_picture_can_be_learnt(x):
    chain, _ = fit_chain(x[:1], SMALL, rng=0, progress=False)
    assert np.isfinite(walk(chain, 2, rng=0)).all()


def test_pictures_outside_of_their_range_are_refused(x):
    with pytest.raises(ValueError, match="x"):
        fit_chain(x * 255, SMALL, rng=0, progress=False)
