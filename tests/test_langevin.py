"""Langevin's noise in INFERENCE: where its walk settles, against the discrete Lyapunov equation and
by hand; without noise it is INFERENCE; what it refuses.
"""

from dataclasses import replace

import numpy as np
import pytest
from scipy.linalg import solve_discrete_lyapunov

from biolearn.core.generation import generate, sample_directed
from biolearn.core.inference import Inference, infer
from biolearn.core.layers import Dense, LayerPair, exact_gradient
from biolearn.core.learning import TrainConfig, fit
from biolearn.core.model import Model, init_model
from biolearn.core.rng import Random
from biolearn.extensions.langevin import LangevinInference, noise_units

CHAINS = 20_000


def linear(W, b):
    return Dense(W, b, "linear")


def close(states, mean, cov):
    """Are the mean and the covariance of independent rows of `states` these, to five standard
    errors of each entry?
    """
    n, found = len(states), np.cov(states, rowvar=False).reshape(cov.shape)
    off_mean, off_cov = (
        np.abs(states.mean(axis=0) - mean) / np.sqrt(np.diag(cov) / n),
        np.abs(found - cov) / np.sqrt((np.outer(np.diag(cov), np.diag(cov)) + cov**2) / n),
    )
    return off_mean.max() < 5 and off_cov.max() < 5


def test_without_noise_it_is_inference_bit_for_bit(small_network, digits):
    x = digits.test[:30]
    cold = LangevinInference(7, alpha=0.2, temperature=0.0, sigmas=(0.1, 0.1))
    for a, b in zip(
        Inference(7, alpha=0.2).steps(small_network, x),
        cold.steps(small_network, x, rng=Random(0)),
        strict=True,
    ):
        assert all((u == v).all() for u, v in zip(a, b))
    cold = LangevinInference(alpha=0.3, temperature=0.0, sigmas=(0.1, 0.1))
    ours = generate(small_network, 40, rounds=2, inference=cold, rng=Random(3))
    # `infer` has another order of sums: float32 round-off
    assert np.abs(ours - generate(small_network, 40, rounds=2, rng=Random(3))).max() < 1e-5


def test_each_round_has_its_temperature(small_network):
    "By hand: a directed sample, a noisy round and a cold one, with the streams of their rounds."
    hot = LangevinInference(alpha=0.3, temperature=5.0, sigmas=(0.1, 0.1))
    cold = replace(hot, temperature=0.0)
    ours = generate(small_network, 1000, rounds=2, inference=[hot, cold], rng=Random(3))
    block = Random(3).stream("block", 0)
    x = sample_directed(small_network, 1000, rng=Random(3))
    for r, inference in enumerate((hot, cold)):
        x = small_network.g(1, inference(small_network, x, rng=block.stream("round", r))[1])
    assert (ours == x).all()
    with pytest.raises(ValueError, match="3 rounds need as many inferences, got 2"):
        generate(small_network, 40, rounds=3, inference=[hot, cold], rng=Random(3))


def test_one_layer_settles_where_the_lyapunov_equation_says(linear_world):
    rng, delta, T, sd = Random(1), 0.3, 0.7, 0.4
    model = Model((linear_world(rng.stream("world"), 5, 3),))
    x = rng.stream("x").normal((1, 5), "float64")
    F = np.eye(3) - delta * model.pairs[0].g.W @ model.pairs[0].f.W  # rows: h <- h F + const
    mean = np.linalg.lstsq(model.pairs[0].g.W.T, (x - model.pairs[0].g.b)[0], rcond=None)[
        0
    ]  # least squares: no prior acts on the top layer
    cov = solve_discrete_lyapunov(F.T, 2 * delta * T * sd**2 * np.eye(3))
    walk = LangevinInference(300, delta, temperature=T, sigmas=(sd,))
    h = walk(model, np.repeat(x, CHAINS, axis=0), rng=rng.stream("walk"))[1]
    assert np.abs(np.linalg.eigvals(F)).max() ** 300 < 1e-3 and close(h, mean, cov)
    assert not close(h, mean, 1.1 * cov)  # five standard errors would see a tenth


def test_two_layers_settle_where_the_lyapunov_equation_says(linear_world):
    "The top layer moves first, and its noise reaches h_1 within the same step."
    rng, delta, alpha, T, sigmas = Random(2), 0.2, 0.3, 1.0, (0.5, 0.3)
    one, two = linear_world(rng.stream("low"), 5, 3), linear_world(rng.stream("high"), 3, 2)
    x = rng.stream("x").normal((1, 5), "float64")
    A, B, C, D = one.g.W @ one.f.W, two.g.W @ two.f.W, two.f.W, two.g.W
    top = np.vstack([delta * C, np.eye(2) - delta * B])  # (h_1, h_2) -> h_2
    low = (
        np.vstack([(1 - alpha) * np.eye(3) - delta * A, np.zeros((2, 3))]) + alpha * top @ D
    )  # (h_1, h_2) -> h_1, which sees the new h_2
    F = np.hstack([low, top])
    unit = np.sqrt(2 * delta * T)
    G = unit * np.vstack(
        [
            np.hstack([sigmas[0] * np.eye(3), np.zeros((3, 2))]),
            np.hstack([sigmas[1] * alpha * D, sigmas[1] * np.eye(2)]),
        ]
    )
    cov = solve_discrete_lyapunov(F.T, G.T @ G)
    c_top = delta * (-(two.g.b @ two.f.W))  # f_2(h_1) - f_2(g_2(h_2)) has this constant
    c_low = delta * ((x[0] - one.g.b) @ one.f.W) + alpha * (c_top @ D + two.g.b)
    mean = np.linalg.solve((np.eye(5) - F).T, np.concatenate([c_low, c_top]))
    walk = LangevinInference(400, delta, alpha, temperature=T, sigmas=sigmas)
    h = walk(Model((one, two)), np.repeat(x, CHAINS, axis=0), rng=rng.stream("walk"))
    assert np.abs(np.linalg.eigvals(F)).max() ** 400 < 1e-3
    states = np.hstack(h[1:])
    assert close(states, mean, cov)
    assert not close(
        states,
        mean,
        solve_discrete_lyapunov(
            F.T, unit**2 * np.diag([sigmas[0] ** 2] * 3 + [sigmas[1] ** 2] * 2)
        ),
    )  # as if the noise of h_2 came a step late


@pytest.mark.parametrize("T", [0.3, 1.0, 2.0])
def test_in_its_own_unit_the_walk_samples_the_likelihood_at_temperature_one(T):
    """Where the posterior is round, sigma_h of Eq. 12 is its sd, and the stationary variance is T ×
    that of p(x|h) as a function of h, too large by the factor 1 / (1 - delta (1 - v) / 2) of a
    finite step.
    """
    w, sd, delta, n = 1.5, 0.8, 0.2, 4
    Q = np.linalg.qr(Random(3).normal((6, n), "float64"))[
        0
    ].T  # orthonormal rows: every direction of h alike
    v = 1 / (1 + w**2 / sd**2)
    model = Model(
        (LayerPair(linear(w * Q.T * v / sd**2, np.zeros(n)), linear(w * Q, np.zeros(6))),)
    )
    x = Random(4).normal((1, 6), "float64")
    walk = LangevinInference(200, delta, temperature=T, sigmas=(np.sqrt(v),))
    h = walk(model, np.repeat(x, CHAINS, axis=0), rng=Random(5))[1]
    assert close(h, x[0] @ Q.T / w, T * sd**2 / w**2 / (1 - delta * (1 - v) / 2) * np.eye(n))


def test_the_unit_is_what_the_guess_leaves_of_the_settled_state():
    """One linear pair by hand: f(x) = x, g(h) = 2h, one step of delta from h = x moves by delta
    (x - 2x).
    """
    eye = np.eye(3)
    model = Model((LayerPair(linear(eye, np.zeros(3)), linear(2 * eye, np.zeros(3))),))
    x = Random(6).normal((50, 3), "float64")
    assert noise_units(model, x, Inference(1, 0.1)) == pytest.approx(
        (0.1 * np.sqrt(np.mean(x**2)),), rel=1e-12
    )
    assert noise_units(model, x, Inference(0)) == (0.0,)


def test_the_same_seed_walks_the_same_way_and_another_does_not(small_network, digits):
    inference = LangevinInference(temperature=1.0, sigmas=(0.1, 0.1))
    walk = lambda seed: infer(small_network, digits.test[:20], inference, rng=Random(seed))
    a, b, c = walk(0), walk(0), walk(1)
    assert all((u == v).all() for u, v in zip(a, b)) and all(
        (u != v).any() for u, v in zip(a[1:], c[1:])
    )
    assert all(layer.dtype == np.float32 for layer in a) and (a[0] == digits.test[:20]).all()


def test_only_the_layers_with_a_unit_are_shaken(small_network, digits):
    rng, x = Random(7), digits.test[:20]
    only_the_top = LangevinInference(1, alpha=0.0, temperature=1.0, sigmas=(0.0, 0.1))
    still, shaken = (
        infer(small_network, x, Inference(n_steps=1, alpha=0.0)),
        infer(small_network, x, only_the_top, rng=rng),
    )
    assert np.abs(still[1] - shaken[1]).max() < 1e-5
    assert np.std(shaken[2] - still[2]) == pytest.approx(
        0.1 * np.sqrt(0.2), rel=5 / np.sqrt(2 * still[2].size)
    )


def test_training_with_cold_noise_is_training(digits):
    config = TrainConfig(epochs=2, batch_size=50, n_steps=3, noise=(0.22, 0.1, "spikes"))
    start, x = (
        init_model((64, 20, 6), ("sigmoid", "softplus", "sigmoid"), rng=Random(0)),
        digits.train[:200],
    )
    learn = lambda inference: fit(
        start, x, config, rng=Random(1), inference=inference, progress=False
    )[0]
    at = lambda T: LangevinInference(3, temperature=T, sigmas=(0.05, 0.05))
    plain, cold, warm, again = learn(None), learn(at(0.0)), learn(at(1.0)), learn(at(1.0))
    W = lambda model: model.pairs[0].g.W
    assert (
        np.abs(W(plain) - W(cold)).max() < 1e-3 < np.abs(W(warm) - W(cold)).max()
    )  # Adam takes steps of 1e-3: round-off moves none by a whole one
    assert (W(warm) == W(again)).all()


@pytest.mark.parametrize(
    "wrong, error, word",
    [
        (dict(temperature=-1.0), ValueError, "temperature"),
        (dict(temperature=float("nan")), ValueError, "temperature"),
        (dict(sigmas=(0.1,)), ValueError, "2 hidden layers"),
        (dict(sigmas=(0.1, -0.1)), ValueError, "standard deviation"),
        (dict(n_steps=1.5), TypeError, "n_steps"),
        (dict(delta=-0.1), ValueError, "delta"),
        (dict(alpha=2.0), ValueError, "alpha"),
    ],
)
def test_bad_settings_are_refused(small_network, digits, wrong, error, word):
    with pytest.raises(error, match=word):
        inference = LangevinInference(**{"temperature": 1.0, "sigmas": (0.1, 0.1)} | wrong)
        inference(small_network, digits.test[:2], rng=Random(0))


def test_bad_calls_are_refused(small_network, digits):
    with pytest.raises(ValueError, match="columns"):
        noise_units(small_network, digits.test[:5, :10])
    with pytest.raises(TypeError, match="direction"):
        LangevinInference(temperature=1.0, sigmas=(0.1, 0.1), direction=exact_gradient)
    with pytest.raises(ValueError, match="LangevinInference draws: it needs rng"):
        LangevinInference(temperature=1.0, sigmas=(0.1, 0.1))(small_network, digits.test[:5])


def test_settings_are_comparable():
    one, same, other = (
        LangevinInference(temperature=1.0, sigmas=s) for s in ([0.1], (0.1,), [0.2])
    )
    assert one == same != other and hash(one) == hash(same)
