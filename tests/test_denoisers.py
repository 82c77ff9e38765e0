"""The chain of denoisers: levels against Bayes' rule, learning against finite differences, what goes
down between layers, the walk, homeostasis and completion.
"""

from dataclasses import replace

import numpy as np
import pytest

import biolearn.extensions.denoisers as denoisers
from biolearn.core.data import load_digits
from biolearn.core.layers import Dense, LayerPair, angle, local_gradient
from biolearn.core.model import Model, encode, init_model
from biolearn.core.rng import Random
from biolearn.extensions.denoisers import (
    FEEDBACK,
    Chain,
    ChainConfig,
    balance,
    complete,
    fit_chain,
    walk,
)

SMALL = ChainConfig((1.0, 0.3), layers=(12, 11), steps=30, batch_size=20, dreams=0)


@pytest.fixture(scope="module")
def x():
    return load_digits().train[:200]


def bayes(seen, black, sigma):
    "How probable it is that a black or white pixel was black, given it with noise."
    return 1 / (1 + np.exp(-np.log(black / (1 - black)) - (seen - 0.5) / sigma**2))


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("feedback", FEEDBACK)
def test_a_pixel_is_repaired_as_bayes_would(feedback, shared):
    pixel = (np.random.default_rng(3).random((2000, 1)) < 0.4).astype(np.float32)
    how = ChainConfig(
        (0.8, 0.4),
        layers=(30,),
        steps=2000,
        batch_size=100,
        rate=0.01,
        feedback=feedback,
        shared=shared,
        dreams=0,
    )
    chain, losses = fit_chain(pixel, how, rng=1, progress=False)
    black, expected = pixel.mean(), []
    rng = np.random.default_rng(4)
    for k, sigma in enumerate(how.sigmas):
        seen = np.linspace(0.5 - sigma, 0.5 + sigma, 21, dtype=np.float32)[:, None]
        assert np.abs(chain.repair(k, seen) - bayes(seen, black, sigma)).max() < 0.06
        p = bayes(pixel + sigma * rng.normal(size=pixel.shape), black, sigma)
        expected.append((p * (1 - p)).mean() / 2)
    # the loss is half a squared error: that of Bayes, the mean of p (1 - p) / 2 over noisy pixels
    assert len(losses) == 20
    assert np.mean(losses[-5:]) == pytest.approx(np.mean(expected), rel=0.1)


def learner_of(x, how=SMALL, seed=0, dtype=np.float64):
    "A network that has not learnt, in double precision, and the chain it is of."
    chain, (learner,) = denoisers._start(x.astype(dtype), how, Random(seed))
    wide = lambda d: Dense(d.W.astype(dtype), d.b.astype(dtype), d.unit)
    pairs = tuple(LayerPair(wide(p.f), wide(p.g)) for p in learner.model.pairs)
    learner.model = Model(pairs)
    linear = (LayerPair(Dense(p.f.W, p.f.b, "linear"), p.g) for p in pairs)
    learner.potentials = Model(tuple(linear))
    return learner, replace(chain, networks=(learner.model,))


def minibatch(x, how=SMALL):
    "Pictures, with noise, and their levels."
    level = np.arange(len(x)) % len(how.sigmas)
    noise = np.random.default_rng(0).normal(size=x.shape)
    return level, x.astype(np.float64), x + np.array(how.sigmas)[level, None] * noise


def test_with_exact_feedback_the_m_steps_are_the_gradient_of_the_cross_entropy(x, monkeypatch):
    how = replace(SMALL, feedback="exact")
    learner, chain = learner_of(x, how)
    level, clean, noisy = minibatch(x[:30])
    learnt = []

    def instead(dense, memory, inputs, targets, **settings):
        learnt.append(local_gradient(dense, inputs, targets))
        return learnt[-1][2]

    monkeypatch.setattr(denoisers, "local_step", instead)
    denoisers._learn(learner, chain, level, clean, noisy, how, 1)

    def cross_entropy():
        a = encode(learner.model, denoisers._read(chain, level, noisy))[-1] + denoisers._own(
            chain, level, noisy
        )
        return float((np.logaddexp(0, a) - clean * a).sum(axis=1).mean())

    for pair, (dW, db, _) in zip(learner.model.pairs, learnt):
        for weights, found in ((pair.f.W, dW), (pair.f.b, db)):
            for i in np.random.default_rng(1).choice(weights.size, 8, replace=False):
                at, values = np.unravel_index(i, weights.shape), []
                for step in (1e-5, -1e-5):
                    weights[at] += step
                    values.append(cross_entropy())
                    weights[at] -= step
                slope = (values[0] - values[1]) / 2e-5
                assert found[at] == pytest.approx(slope, rel=1e-4, abs=1e-7)


def test_nothing_comes_down_but_through_the_feedback(x):
    "Without its feedback synapses a hidden layer does not learn: no other way leads down to it."
    how = replace(SMALL, forget=0.0)  # its weights stay zero
    learner, chain = learner_of(x, how)
    before = [pair.f.W.copy() for pair in learner.model.pairs]
    for t in range(1, 4):
        denoisers._learn(learner, chain, *minibatch(x[:30]), how, t)
    same = [bool((pair.f.W == W).all()) for pair, W in zip(learner.model.pairs, before)]
    assert same == [True, True, False]


def test_learnt_feedback_is_what_moves_a_layer(x, monkeypatch):
    """h_k moves by B_{k+1} times the move above, a unit's times its slope; each map learns from before
    the move to after it.
    """
    learner, chain = learner_of(x)
    level, clean, noisy = minibatch(x[:30])
    B = {
        k: np.random.default_rng(k).normal(size=W.shape)
        for k, W in learner.feedback.weights.items()
    }
    learner.feedback.rate = 0.0
    for k, W in learner.feedback.weights.items():
        W[...] = B[k]
    seen = []
    monkeypatch.setattr(
        denoisers, "local_step", lambda dense, memory, *ends, **settings: seen.append(ends) or 0.0
    )
    denoisers._learn(learner, chain, level, clean, noisy, SMALL, 1)
    h = encode(learner.model, denoisers._read(chain, level, noisy))
    move = clean - 1 / (1 + np.exp(-h[-1] - denoisers._own(chain, level, noisy)))
    for k in (3, 2, 1):
        below, above = seen[k - 1]
        np.testing.assert_allclose(below, h[k - 1], rtol=1e-6)
        np.testing.assert_allclose(above, h[k] + move, rtol=1e-4, atol=1e-5)
        slope = 1 - np.exp(-h[k]) if k < 3 else 1  # of softplus, from its activity
        if k > 1:
            move = (move * slope) @ learner.feedback.weights[k - 1]


def test_learnt_feedback_points_where_the_gradient_does(x):
    learner, chain = learner_of(x, replace(SMALL, forget=0.005))
    level, clean, noisy = minibatch(x)
    h = encode(learner.model, denoisers._read(chain, level, noisy))
    for _ in range(2000):
        learner.feedback.learn(learner.potentials, h)
    asked = [*h[:-1], h[-1] + clean - 0.5]
    learnt, exact = (
        denoisers.push_down(learner.model, asked, push)
        for push in (learner.push, denoisers.transported)
    )
    for k in (1, 2):
        assert angle(learnt[k] - h[k], exact[k] - h[k]).mean() < 10
    again, _ = learner_of(x)
    for mine, new in zip(learner.model.pairs, again.model.pairs):
        np.testing.assert_array_equal(mine.f.W, new.f.W)  # feedback only observes


def test_networks_of_their_own_know_nothing_of_each_other(x):
    "What the second level sees does not change the first."
    own = replace(SMALL, shared=False, batch_size=20)
    both, _ = fit_chain(x, own, rng=5, progress=False)
    other, _ = fit_chain(x, replace(own, sigmas=(1.0, 0.9)), rng=5, progress=False)
    for a, b in zip(both.networks[0].pairs, other.networks[0].pairs):
        assert (a.f.W == b.f.W).all() and (a.f.b == b.f.b).all()
    assert (both.networks[1].pairs[0].f.W != other.networks[1].pairs[0].f.W).any()
    shared, _ = fit_chain(x, SMALL, rng=5, progress=False)
    assert len(shared.networks) == 1 and len(both.networks) == 2


def test_how_grey_pictures_are(x):
    "Nothing where all pixels are black or white, 1 where all are the same, and in between 1 - var/max."
    grey_of = lambda pictures: denoisers._start(pictures, SMALL, Random(0))[0].grey
    black_or_white = (x > 0.5).astype(np.float32)
    assert grey_of(black_or_white) == 0
    assert grey_of(np.full((4, 3), 0.7, np.float32)) == pytest.approx(1, rel=1e-5)
    m = float(x.mean())
    assert grey_of(x) == pytest.approx(1 - float(((x - m) ** 2).mean()) / (m * (1 - m)), rel=1e-4)
    assert np.isfinite(grey_of(np.zeros((4, 3), np.float32)))


def test_every_level_learns_where_a_minibatch_is_smaller_than_their_number(x):
    sigmas = (2.0, 1.0, 0.5, 0.2, 0.1)
    how = replace(SMALL, sigmas=sigmas, shared=False, batch_size=3, steps=10)
    chain, _ = fit_chain(x, how, rng=0, progress=False)
    new = [
        init_model(model.sizes, ("sigmoid", "softplus", "softplus", "linear"), rng=rng)
        for model, rng in zip(
            chain.networks, (Random(0).stream("network", k).stream("init") for k in range(5))
        )
    ]
    for learnt, before in zip(chain.networks, new):
        assert (learnt.pairs[0].f.W != before.pairs[0].f.W).any()


def test_the_same_seed_learns_the_same_chain(x):
    how = replace(SMALL, dreams=50)
    first, second = (fit_chain(x, how, rng=5, progress=False)[0] for _ in range(2))
    assert (first.networks[0].pairs[1].f.W == second.networks[0].pairs[1].f.W).all()
    assert (first.bias == second.bias).all() and first.bias.any()
    third, _ = fit_chain(x, how, rng=6, progress=False)
    assert (first.networks[0].pairs[1].f.W != third.networks[0].pairs[1].f.W).any()


def sure(picture, sigmas):
    "A chain that repairs to `picture`, whatever it sees."
    n_0 = len(picture)
    nothing = lambda *shape: np.zeros(shape, np.float32)
    potentials = np.log(picture / (1 - picture)).astype(np.float32)
    f = Dense(nothing(n_0 + len(sigmas), n_0), potentials, "linear")
    g = Dense(nothing(n_0, n_0 + len(sigmas)), nothing(n_0 + len(sigmas)), "sigmoid")
    network, bias = Model((LayerPair(f, g),)), nothing(len(sigmas), n_0)
    return Chain(sigmas, (network,), nothing(n_0), 1e-6, 0.0, bias)


@pytest.fixture
def blind(monkeypatch):
    "Pixels say nothing of themselves."
    monkeypatch.setattr(denoisers, "_own", lambda chain, level, x: 0 * x)


def test_where_the_picture_is_sure_each_level_sees_it_with_its_own_noise(monkeypatch, blind):
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


def test_balanced_pixels_have_the_mean_ink_of_the_pictures(x):
    "Of a chain that repairs everything to one wrong picture, at every level."
    chain = sure(np.array([0.2, 0.9, 0.5]), (1.0, 0.4))
    chain = replace(chain, mean=np.array([0.3, 0.75, 0.5], np.float32))
    even = balance(chain, 500, rng=0)
    ink = walk(even, 2000, rng=1)

    assert np.abs(ink.mean(axis=0) - chain.mean).max() < 0.02
    assert not chain.bias.any()  # the chain that was given stays as it was


def test_homeostasis_is_the_bias_that_a_root_finder_finds():
    from scipy.optimize import brentq

    rng = np.random.default_rng(0)
    potentials, mean = rng.normal(size=(400, 3)) * [0.5, 1, 2], np.array([0.4, 0.6, 0.2])
    found = denoisers._homeostasis(potentials, mean)
    for i in range(3):
        ink = lambda bias: (1 / (1 + np.exp(-potentials[:, i] - bias))).mean() - mean[i]
        assert found[i] == pytest.approx(brentq(ink, -3, 3), abs=0.02)
    # a pixel that never has ink: as far as it may go
    assert denoisers._homeostasis(potentials, np.zeros(3)).min() == -3


def test_what_is_visible_stays_and_decides_the_rest():
    "Two pixels that are always equal: given one, the other follows, and two repairs at a level make it surer."
    rng = np.random.default_rng(0)
    twins = np.repeat((rng.random((2000, 1)) < 0.5), 2, axis=1).astype(np.float32)
    sigmas = tuple(np.geomspace(2, 0.1, 12).tolist())
    how = ChainConfig(sigmas, layers=(30,), steps=1500, batch_size=120, rate=0.01, dreams=0)
    chain, _ = fit_chain(twins, how, rng=0, progress=False)
    half, visible = twins[:500].copy(), np.array([True, False])
    half[:, 1] = rng.random(500)  # what is hidden is not looked at
    made = complete(chain, half, visible, rng=1)
    np.testing.assert_array_equal(made[:, 0], twins[:500, 0])
    follows = lambda made: np.mean((made[:, 1] > 0.5) == (twins[:500, 0] > 0.5))
    assert follows(made) > 0.97
    assert follows(complete(chain, half, visible, rounds=1, rng=1)) < follows(made)
    with pytest.raises(ValueError, match="x"):
        complete(chain, half[:, :1], visible[:1])
    other = complete(chain, np.where(visible, half, 0), visible, rng=1)
    np.testing.assert_array_equal(made, other)


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
        ({"forget": 2.0}, "forget"),
        ({"sd": 1e-8}, "sd"),
        ({"layers": ()}, "layers"),
        ({"layers": (10, 0)}, "layers"),
        ({"feedback": "target"}, "feedback"),
        ({"shared": "no"}, "shared"),
        ({"dreams": -1}, "dreams"),
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
