"""What would spoil the page on layers: a wrong sign or slope in a local update, a hidden transpose,
a dtype that changes, a namespace that is not NumPy's.
"""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import biolearn.core.learning as learning
from biolearn.core import inference, layers
from biolearn.core.arrays import Backend, to_numpy
from biolearn.core.layers import (
    UNITS,
    Dense,
    LayerPair,
    angle,
    corrupt,
    exact_gradient,
    init_dense,
    init_pair,
    local_gradient,
    sigmoid,
    softplus,
    target_step,
)
from biolearn.core.rng import Random

strict = pytest.importorskip("array_api_strict")
STRICT = Backend(strict, strict.Device("device1"))
SIZES = st.integers(1, 6)
DTYPES = st.sampled_from(["float32", "float64"])
UNIT = st.sampled_from(sorted(UNITS))


def dense(n_in, n_out, unit, seed=0, dtype="float64"):
    "A map with normal weights and biases that are not zero."
    rng = Random(seed).stream("dense", unit, n_in, n_out)
    return Dense(rng.normal((n_in, n_out), dtype), rng.normal((n_out,), dtype), unit)


def normal(shape, seed=0, dtype="float64"):
    return Random(seed).stream("data", *shape).normal(shape, dtype)


def numerical(loss, value, step=1e-6):
    "Central differences of the scalar function `loss` in every entry of `value`."
    grad = np.empty_like(value)
    for i in np.ndindex(value.shape):
        up, down = value.copy(), value.copy()
        up[i] += step
        down[i] -= step
        grad[i] = (loss(up) - loss(down)) / (2 * step)
    return grad


# ---- units ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", UNITS)
def test_slope_read_off_the_rate_is_the_derivative(unit):
    a = np.linspace(-3.03, 3.01, 100)  # keeps away from relu's kink at 0
    rate = UNITS[unit].rate
    assert np.allclose(
        UNITS[unit].slope(rate(a)), (rate(a + 1e-6) - rate(a - 1e-6)) / 2e-6, atol=1e-8
    )


def test_units_against_textbook_formulas():
    a = np.linspace(-5, 5, 41)
    assert np.allclose(softplus(a), np.log(1 + np.exp(a)), rtol=1e-13) and np.allclose(
        sigmoid(a), 1 / (1 + np.exp(-a)), rtol=1e-12
    )
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        for dtype in (np.float32, np.float64):
            far = np.asarray([-1e5, -200, 200, 1e5], dtype)
            assert (softplus(far) == [0, softplus(far)[1], 200, 1e5]).all() and (
                sigmoid(far) == [0, 0, 1, 1]
            ).all()


# ---- the M-step ----------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("which", ["f", "g"])
def test_every_local_update_is_the_gradient_of_its_own_loss(unit, which):
    """Weights and biases of f (up, 4 to 3) and g (down, 3 to 4), each against finite differences of
    an independently written loss.
    """
    n_in, n_out = (4, 3) if which == "f" else (3, 4)
    d, x, t = dense(n_in, n_out, unit), normal((5, n_in)), normal((5, n_out), seed=1)
    loss = lambda W, b: (
        sum(
            0.5
            * (UNITS[unit].rate(sum(x[n, i] * W[i, j] for i in range(n_in)) + b[j]) - t[n, j]) ** 2
            for n in range(5)
            for j in range(n_out)
        )
        / 5
    )
    dW, db, value = local_gradient(d, x, t)
    assert np.allclose(dW, numerical(lambda W: loss(W, d.b), d.W), atol=1e-8)
    assert np.allclose(db, numerical(lambda b: loss(d.W, b), d.b), atol=1e-8)
    assert np.isclose(value, loss(d.W, d.b), rtol=1e-12)


@settings(max_examples=30)
@given(n=SIZES, n_in=SIZES, n_out=SIZES, unit=UNIT, dtype=DTYPES, seed=st.integers(0, 99))
def test_shapes_dtypes_and_a_small_step_down(n, n_in, n_out, unit, dtype, seed):
    d, x, t = (
        dense(n_in, n_out, unit, seed, dtype),
        normal((n, n_in), seed, dtype),
        normal((n, n_out), seed + 1, dtype),
    )
    dW, db, loss = local_gradient(d, x, t)
    assert dW.shape == d.W.shape and db.shape == d.b.shape and loss.shape == ()
    assert {str(a.dtype) for a in (dW, db, loss, d(x))} == {dtype}
    size = float((dW * dW).sum() + (db * db).sum())
    after = local_gradient(Dense(d.W - 1e-3 * dW, d.b - 1e-3 * db, unit), x, t)[2]
    if size > 1e-2 and unit != "relu":
        assert after < loss  # relu: a kink may lie in between


def test_the_update_of_a_map_ignores_its_partner():
    """f's update is a function of f, its inputs and its targets: replacing g by anything changes
    nothing, to the bit.
    """
    pair, x, t = (
        LayerPair(dense(4, 3, "softplus"), dense(3, 4, "sigmoid")),
        normal((5, 4)),
        normal((5, 3)),
    )
    other = LayerPair(pair.f, dense(3, 4, "sigmoid", seed=9))
    for a, b in zip(local_gradient(pair.f, x, t), local_gradient(other.f, x, t)):
        assert (a == b).all()


# ---- containers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "W, b, unit, word",
    [
        ((2, 3), (2,), "relu", "W must be"),
        ((2, 3), (3, 1), "relu", "W must be"),
        ((2,), (2,), "relu", "W must be"),
        ((2, 3), (3,), "step", "unit"),
    ],
)
def test_dense_refuses_what_does_not_fit(W, b, unit, word):
    with pytest.raises(ValueError, match=word):
        Dense(np.ones(W), np.ones(b), unit)


def test_pair_refuses_maps_that_do_not_meet():
    with pytest.raises(ValueError, match="f maps 2 to 3 units, but g maps 2 to 3"):
        LayerPair(dense(2, 3, "relu"), dense(2, 3, "relu"))
    with pytest.raises(ValueError):
        LayerPair(dense(2, 3, "relu"), dense(3, 4, "relu"))


def test_containers_are_frozen():
    with pytest.raises(AttributeError):
        dense(2, 3, "relu").W = 0
    with pytest.raises(AttributeError):
        LayerPair(dense(2, 3, "relu"), dense(3, 2, "relu")).f = 0


@settings(max_examples=20)
@given(n_in=SIZES, n_out=SIZES, seed=st.integers(0, 99))
def test_init_pair_meets_and_stays_in_glorots_bounds(n_in, n_out, seed):
    pair = init_pair(n_in, n_out, "sigmoid", "softplus", rng=Random(seed))
    assert pair.f.W.shape == (n_in, n_out) == pair.g.W.shape[::-1] and (
        pair.f.unit,
        pair.g.unit,
    ) == ("softplus", "sigmoid")
    for d in (pair.f, pair.g):
        assert (
            np.abs(d.W).max() <= math.sqrt(6 / (n_in + n_out))
            and (d.b == 0).all()
            and d.W.dtype == np.float32
        )


def test_init_has_glorots_variance_and_independent_maps():
    pair = init_pair(200, 300, "sigmoid", "softplus", rng=Random(0))
    n = pair.f.W.size  # uniform: the variance of a squared entry is 4/45 limit^4
    for d in (pair.f, pair.g):
        assert abs(d.W.var() - 2 / 500) < 5 * (6 / 500) * math.sqrt(4 / 45 / n)
    for g in (pair.g.W.T, pair.g.W):
        assert abs(np.corrcoef(pair.f.W.ravel(), g.ravel())[0, 1]) < 5 / math.sqrt(n)
    for above, gain in (
        ("sigmoid", 4),
        ("tanh", 1),
    ):  # only f to sigmoid units is born louder; its g is not
        louder = init_pair(200, 300, "sigmoid", above, rng=Random(0))
        assert np.allclose(louder.f.W, gain * pair.f.W) and (louder.g.W == pair.g.W).all()
    with pytest.raises(ValueError):
        init_dense(0, 3, "relu", rng=Random(0))
    with pytest.raises(TypeError):
        init_dense(2.5, 3, "relu", rng=Random(0))


# ---- corruption ----------------------------------------------------------------------------------


@settings(max_examples=20)
@given(shape=st.tuples(SIZES, SIZES), dtype=DTYPES, noise=st.sampled_from([0, 0.0, 0.3, "spikes"]))
def test_corrupt_keeps_shape_and_dtype_and_leaves_its_input_alone(shape, dtype, noise):
    h = np.abs(normal(shape, dtype=dtype)) % 1
    before = h.copy()
    noisy = corrupt(h, noise, rng=Random(0))
    assert noisy.shape == shape and noisy.dtype == dtype and (h == before).all()
    assert (noisy == corrupt(h, noise, rng=Random(0))).all()  # the same stream, the same noise
    if noise == 0.3 and dtype == "float64":
        assert (
            corrupt(0 * h, 1.0, rng=Random(0)).astype("float32")
            != corrupt(0 * h, 1.0, rng=Random(0))
        ).any()  # noise of full precision
    if noise == 0:
        assert (noisy == h).all()
    if noise == "spikes":
        assert np.isin(np.round(3 * noisy), [0, 1, 2, 3]).all() and np.allclose(
            3 * noisy, np.round(3 * noisy), atol=1e-6
        )


def test_statistics_of_corruption():
    n, p = 200_000, np.asarray([0.05, 0.4, 0.9])
    spikes = corrupt(np.tile(p, (n, 1)), "spikes", rng=Random(1))
    assert (np.abs(spikes.mean(0) - p) < 4 * np.sqrt(p * (1 - p) / 3 / n)).all()
    fraction = np.stack(
        [(np.round(3 * spikes) == k).mean(0) for k in range(4)]
    )  # all four values, by the binomial law
    law = np.stack([math.comb(3, k) * p**k * (1 - p) ** (3 - k) for k in range(4)])
    assert (np.abs(fraction - law) < 4.5 * np.sqrt(law * (1 - law) / n)).all()
    noise = corrupt(np.full((n, 2), 5.0), 0.3, rng=Random(2)) - 5
    assert (np.abs(noise.mean(0)) < 4 * 0.3 / math.sqrt(n)).all() and (
        np.abs(noise.std(0) - 0.3) < 4 * 0.3 / math.sqrt(2 * n)
    ).all()
    assert abs(np.corrcoef(noise.T)[0, 1]) < 4 / math.sqrt(n)


def test_spikes_outside_the_unit_interval_and_bad_noise():
    assert (
        corrupt(np.asarray([[-0.2, 0.0, 1.0, 1.7]]), "spikes", rng=Random(0)) == [[0, 0, 1, 1]]
    ).all()
    for bad in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="noise"):
            corrupt(np.ones((2, 2)), bad, rng=Random(0))
    with pytest.raises(TypeError, match="noise"):
        corrupt(np.ones((2, 2)), "poisson", rng=Random(0))


# ---- targets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("below", UNITS)
def test_exact_gradient_against_finite_differences(below):
    pair, x, h = (
        LayerPair(dense(4, 3, "softplus"), dense(3, 4, below)),
        normal((1, 4)),
        normal((1, 3), seed=3),
    )
    log_p = lambda h: -0.5 * float(((x - UNITS[below].rate(h @ pair.g.W + pair.g.b)) ** 2).sum())
    assert np.allclose(exact_gradient(pair, x, h), numerical(log_p, h), atol=1e-8)


def test_exact_gradient_of_many_is_that_of_each():
    pair, x, h = (
        LayerPair(dense(4, 3, "softplus"), dense(3, 4, "sigmoid")),
        normal((6, 4)),
        normal((6, 3)),
    )
    assert np.allclose(
        exact_gradient(pair, x, h),
        np.concatenate([exact_gradient(pair, x[i : i + 1], h[i : i + 1]) for i in range(6)]),
        rtol=1e-13,
    )


@settings(max_examples=20)
@given(n=SIZES, n_above=SIZES, extra=st.integers(0, 4), seed=st.integers(0, 99))
def test_target_step_is_the_gradient_for_orthonormal_linear_pairs(n, n_above, extra, seed):
    V = np.linalg.qr(normal((n_above + extra, n_above), seed))[0]
    pair = LayerPair(
        Dense(V, np.zeros(n_above), "linear"),
        Dense(V.T.copy(), np.zeros(n_above + extra), "linear"),
    )
    x, h = normal((n, n_above + extra), seed + 1), normal((n, n_above), seed + 2)
    assert np.allclose(target_step(pair, x, h), exact_gradient(pair, x, h), atol=1e-12)


@settings(max_examples=20)
@given(n_above=SIZES, extra=st.integers(0, 4), s=st.floats(0.2, 5), seed=st.integers(0, 99))
def test_target_step_is_gradient_times_posterior_covariance_in_the_linear_gaussian_world(
    n_above, extra, s, seed
):
    """Eq. 12 with the matrix it stands for; f is found by conditioning the joint Gaussian of (h,
    x), not by the formula of the notebook.
    """
    n_below = n_above + extra
    W, x, h = (
        normal((n_above, n_below), seed),
        normal((4, n_below), seed + 1),
        normal((4, n_above), seed + 2),
    )
    cov_x = W.T @ W + s**2 * np.eye(n_below)
    to_h = np.linalg.solve(cov_x, W.T)  # E[h | x] = x @ to_h
    posterior = np.eye(n_above) - W @ to_h  # cov[h | x]
    pair = LayerPair(
        Dense(to_h, np.zeros(n_above), "linear"), Dense(W, np.zeros(n_below), "linear")
    )
    step, gradient = target_step(pair, x, h), exact_gradient(pair, x, h)
    assert np.allclose(step, gradient @ posterior / s**2, atol=1e-8)
    assert (angle(step, gradient) < 90).all()


def test_denoiser_of_a_gaussian_has_the_blurred_score():
    """Alain & Bengio's theorem: a least-squares denoiser gives the score, with an error of second
    order in the noise.
    """
    C = np.asarray([[1.0, 0.4], [0.4, 0.7]])
    n, errors = 400_000, []
    clean = normal((n, 2), seed=5) @ np.linalg.cholesky(C).T
    for sigma in (0.5, 1.0):
        noisy = corrupt(clean, sigma, rng=Random(6))
        R = np.linalg.lstsq(noisy, clean, rcond=None)[0].T
        found, blurred = (R - np.eye(2)) / sigma**2, np.linalg.inv(C + sigma**2 * np.eye(2))
        stderr = np.sqrt(np.outer(np.diag(C - C @ blurred @ C), np.diag(blurred)) / n) / sigma**2
        assert (np.abs(found + blurred) < 4.5 * stderr).all()
        errors.append(np.abs(-blurred + np.linalg.inv(C)).max())
    assert errors[0] < errors[1]


def test_angle_on_known_cases():
    a = np.asarray([[1.0, 0], [1, 0], [1, 0], [2, 0], [0, 0], [1, 1]])
    b = np.asarray([[3.0, 0], [0, 5], [-1, 0], [1, 1], [1, 0], [0, 0]])
    assert np.allclose(angle(a, b), [0, 90, 180, 45, 90, 90])
    assert not np.isnan(angle(np.float32([[0.1] * 50]), np.float32([[0.3] * 50]))).any()


@settings(max_examples=20)
@given(n=SIZES, n_below=SIZES, n_above=SIZES, below=UNIT, above=UNIT, dtype=DTYPES)
def test_targets_keep_shape_and_dtype(n, n_below, n_above, below, above, dtype):
    pair = LayerPair(
        dense(n_below, n_above, above, 0, dtype), dense(n_above, n_below, below, 0, dtype)
    )
    x, h = normal((n, n_below), 1, dtype), normal((n, n_above), 2, dtype)
    for direction in (target_step, exact_gradient):
        assert direction(pair, x, h).shape == h.shape and direction(pair, x, h).dtype == dtype
    assert angle(h, h).shape == (n,) and angle(h, h).dtype == dtype


def test_target_step_reads_no_weights_but_only_what_the_maps_say():
    """A pair whose maps are plain functions, without any weights to transpose: target_step works,
    exact_gradient cannot.
    """

    class Blind:
        f, g = staticmethod(np.tanh), staticmethod(np.sin)

    x, h = normal((3, 2)), normal((3, 2), seed=1)
    assert np.allclose(target_step(Blind, x, h), np.tanh(x) - np.tanh(np.sin(h)))
    with pytest.raises(AttributeError):
        exact_gradient(Blind, x, h)


def test_training_never_calls_the_exact_gradient(monkeypatch):
    from biolearn.core.model import init_model

    def forbidden(*args):
        raise AssertionError("the diagnostic was called in the default path")

    for module in (layers, inference, learning):
        monkeypatch.setattr(module, "exact_gradient", forbidden, raising=False)
    model = init_model((6, 5, 3), ("sigmoid", "softplus", "sigmoid"), rng=Random(0))
    learning.fit(
        model,
        Random(1).uniform((20, 6)),
        learning.TrainConfig(epochs=1, batch_size=10),
        rng=Random(2),
        progress=False,
    )


# ---- another namespace, another device -----------------------------------------------------------


@pytest.mark.parametrize("above", UNITS)
@pytest.mark.parametrize("below", UNITS)
def test_strict_namespace_gives_numpys_numbers_on_its_own_device(below, above):
    here, there = (init_pair(5, 4, below, above, rng=Random(0, b)) for b in (Backend(), STRICT))
    x = Random(1).uniform((3, 5))
    away = STRICT.asarray(x)
    h, h_away = (
        corrupt(p.f(v), 0.1, rng=Random(2, b))
        for p, v, b in ((here, x, Backend()), (there, away, STRICT))
    )
    pairs = [
        (h, h_away),
        (target_step(here, x, h), target_step(there, away, h_away)),
        (exact_gradient(here, x, h), exact_gradient(there, away, h_away)),
        (angle(h, 2 * h[::-1, :]), angle(h_away, 2 * strict.flip(h_away, axis=0))),
        (corrupt(x, "spikes", rng=Random(3)), corrupt(away, "spikes", rng=Random(3, STRICT))),
        *zip(local_gradient(here.f, x, h + 1), local_gradient(there.f, away, h_away + 1)),
        *zip(local_gradient(here.g, h, x), local_gradient(there.g, h_away, away)),
    ]
    for n, (a, b) in enumerate(pairs):
        assert b.device == STRICT.device and str(b.dtype).endswith("float32")
        assert np.allclose(
            a, to_numpy(b), atol=0.1 if n == 3 else 1e-5
        )  # n = 3, degrees: acos is steep near 0 and 180
