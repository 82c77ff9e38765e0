"""Evaluation against independent oracles: plain formulas, scikit-learn, SciPy, and sets whose
answer is known.
"""

import math
import tracemalloc
import warnings

import array_api_strict as strict
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import biolearn.evaluation.baselines as baselines
import biolearn.evaluation.completion as completion
import biolearn.evaluation.neighbours as neighbours
import biolearn.evaluation.parzen as parzen
import biolearn.evaluation.statistics as statistics_module
from biolearn.core.arrays import to_numpy
from biolearn.core.data import load_dataset
from biolearn.core.rng import Random

SIGMAS = (0.05, 0.1, 0.2, 0.5, 2.0)


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


def exact_parzen(test, samples, sigma):
    """The formula in double precision, one test row at a time."""
    from scipy.special import logsumexp

    test, samples = np.asarray(test, float), np.asarray(samples, float)
    constant = math.log(len(samples)) + test.shape[1] / 2 * math.log(2 * math.pi * sigma**2)
    return (
        np.array([logsumexp(-((t - samples) ** 2).sum(axis=1) / (2 * sigma**2)) for t in test])
        - constant
    )


def on_device(a):
    return strict.asarray(a, device=strict.Device("device1"))


# ---------------------------------------------------------------- Parzen


@pytest.mark.parametrize("sigma", SIGMAS)
def test_parzen_agrees_with_kernel_density(digits, sigma):
    """One leaf: with its default tree scikit-learn loses precision at narrow widths (scikit-learn
    issue 25799).
    """
    from sklearn.neighbors import KernelDensity

    oracle = (
        KernelDensity(bandwidth=sigma, leaf_size=len(digits.train))
        .fit(digits.train)
        .score_samples(digits.test)
    )
    ours = parzen.parzen_log_likelihood(digits.test, digits.train, sigma)
    assert digits.test.dtype == np.float32
    assert np.max(np.abs(ours - oracle)) < 1e-3


def test_parzen_in_784_dimensions_in_single_precision():
    """Sparse rows as bright as MNIST's, their nearest samples close: the worst case for
    cancellation at the paper's width.
    """
    rng = np.random.default_rng(0)
    samples = (rng.random((3000, 784)) * (rng.random((3000, 784)) < 0.2)).astype(np.float32)
    test = np.clip(samples[:200] + 0.15 * rng.standard_normal((200, 784)), 0, 1).astype(np.float32)
    assert (
        np.max(
            np.abs(
                parzen.parzen_log_likelihood(test, samples, 0.2) - exact_parzen(test, samples, 0.2)
            )
        )
        < 1e-3
    )


@pytest.mark.parametrize("offset", [0, 100, -1000])
def test_parzen_does_not_notice_an_offset(digits, offset):
    test, samples = (
        np.round(a * 16) / 16 + np.float32(offset) for a in (digits.test[:50], digits.train)
    )
    assert test.dtype == np.float32
    assert (
        np.max(
            np.abs(
                parzen.parzen_log_likelihood(test, samples, 0.1) - exact_parzen(test, samples, 0.1)
            )
        )
        < 1e-3
    )


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 30),
    m=st.integers(1, 30),
    d=st.integers(1, 12),
    chunk=st.integers(1, 40),
    seed=st.integers(0, 10**6),
    dtype=st.sampled_from(["float32", "float64"]),
    sigma=st.floats(0.05, 3),
)
def test_parzen_any_shape_chunk_and_precision(n, m, d, chunk, seed, dtype, sigma):
    rng = np.random.default_rng(seed)
    test, samples = rng.random((n, d)).astype(dtype), rng.random((m, d)).astype(dtype)
    ours = parzen.parzen_log_likelihood(test, samples, sigma, chunk=chunk)
    assert ours.shape == (n,) and ours.dtype == np.float64
    assert np.allclose(
        ours, exact_parzen(test, samples, sigma), atol=1e-3 if dtype == "float32" else 1e-8, rtol=0
    )


def test_parzen_of_far_away_rows_is_finite():
    """exp of every term underflows; the logarithm of their sum must not."""
    test, samples = np.full((3, 5), 50.0, np.float32), np.zeros((4, 5), np.float32)
    ours = parzen.parzen_log_likelihood(test, samples, 0.01)
    assert np.all(np.isfinite(ours)) and np.allclose(
        ours, exact_parzen(test, samples, 0.01), rtol=1e-6
    )


def test_parzen_integrates_to_one():
    samples, x = np.array([[-1.0], [0.2], [0.5]]), np.linspace(-8, 8, 4001)[:, None]
    assert np.trapezoid(
        np.exp(parzen.parzen_log_likelihood(x, samples, 0.4)), x[:, 0]
    ) == pytest.approx(1, abs=1e-6)


def test_parzen_order_and_repeats_do_not_matter(digits):
    t, s = digits.test[:40], digits.train[:300]
    plain = parzen.parzen_log_likelihood(t, s, 0.2)
    assert np.allclose(plain, parzen.parzen_log_likelihood(t, s[::-1], 0.2, chunk=64), atol=1e-4)
    assert np.allclose(
        plain, parzen.parzen_log_likelihood(t, np.concatenate([s, s]), 0.2), atol=1e-4
    )


def test_parzen_memory_does_not_grow_with_the_rows():
    """12,000 by 12,000 distances would be 576 MB at once; NumPy reports its allocations to
    tracemalloc.
    """
    rng = np.random.default_rng(0)
    a, b = (rng.random((12000, 4), dtype=np.float32) for _ in range(2))
    tracemalloc.start()
    parzen.parzen_log_likelihood(a, b, 0.2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * 2**20
    wide = rng.random((40, 2_000_000), dtype=np.float32)  # 320 MB: blocks of 8 rows
    tracemalloc.start()
    parzen.parzen_log_likelihood(wide[:20], wide[20:], 0.2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**30


def test_parzen_products_stay_in_single_precision(monkeypatch):
    """The (test, samples) tables that are exponentiated are float32, even where the width is a
    NumPy float64.
    """
    import array_api_compat.numpy as xp

    seen, plain = [], np.exp
    monkeypatch.setattr(
        xp, "exp", lambda a, **kw: (seen.append((a.ndim, a.dtype)), plain(a, **kw))[1]
    )
    a = np.random.default_rng(0).random((5, 4), dtype=np.float32)
    parzen.parzen_log_likelihood(a, a, np.float64(0.2))
    assert (2, np.float32) in seen and (2, np.float64) not in seen


@pytest.mark.parametrize(
    "change, error, words",
    [
        (dict(sigma=0), ValueError, "sigma"),
        (dict(sigma=-1.0), ValueError, "sigma"),
        (dict(sigma=np.nan), ValueError, "sigma"),
        (dict(sigma="0.2"), TypeError, "sigma"),
        (dict(chunk=0), ValueError, "chunk"),
        (dict(chunk=1.5), TypeError, "chunk"),
        (dict(test=np.ones((2, 3))), ValueError, "samples must have 3 columns"),
        (dict(test=np.ones(4)), ValueError, "test"),
        (dict(test=np.ones((2, 4), int)), TypeError, "test"),
        (dict(samples=np.ones((0, 4))), ValueError, "samples is empty"),
        (dict(samples=np.full((2, 4), np.nan)), ValueError, "samples holds NaN"),
        (dict(test=[[0.0] * 4]), TypeError, "test"),
    ],
)
def test_parzen_refuses(change, error, words):
    good = dict(test=np.ones((2, 4)), samples=np.ones((3, 4)), sigma=0.2)
    with pytest.raises(error, match=words):
        parzen.parzen_log_likelihood(**(good | change))


def test_a_nan_deep_in_a_long_array_is_found():
    samples = np.zeros((5000, 3), np.float32)
    samples[4321, 1] = np.inf
    with pytest.raises(ValueError, match=r"samples holds NaN.*\(4321, 1\)"):
        parzen.parzen_log_likelihood(np.zeros((2, 3), np.float32), samples, 0.2)


# ---------------------------------------------------------------- width, mean and error


def test_choose_sigma_is_the_best_of_separate_calls(digits):
    grid = (0.3, 0.1, 0.14, 0.2)  # any order
    sigma, means = parzen.choose_sigma(digits.valid, digits.train, grid)
    each = [exact_parzen(digits.valid, digits.train, s).mean() for s in grid]
    assert sigma == grid[int(np.argmax(each))] == 0.14
    assert np.allclose(means, each, atol=1e-3)


@pytest.mark.parametrize(
    "grid, hint", [((0.3, 0.4, 0.5), "smaller"), ((0.05, 0.08, 0.1), "larger")]
)
def test_choose_sigma_warns_at_the_edge(digits, grid, hint):
    with pytest.warns(UserWarning, match=f"edge.*{hint}"):
        parzen.choose_sigma(digits.valid, digits.train, grid)


def test_choose_sigma_is_silent_inside(digits):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parzen.choose_sigma(digits.valid, digits.train, np.array([0.1, 0.14, 0.2]))


@pytest.mark.parametrize("grid", [[], [0.2], [0.2, 0.2]])
def test_choose_sigma_needs_a_grid(digits, grid):
    with pytest.raises(ValueError, match="grid"):
        parzen.choose_sigma(digits.valid, digits.train, grid)


def test_mean_and_stderr():
    from scipy.stats import sem

    values = np.random.default_rng(0).random(50)
    assert statistics_module.mean_and_stderr(values) == pytest.approx((values.mean(), sem(values)))
    assert statistics_module.mean_and_stderr(on_device(values)) == pytest.approx(
        (values.mean(), sem(values))
    )
    for bad in (np.ones(1), np.ones((2, 2)), np.array([1.0, np.nan])):
        with pytest.raises(ValueError):
            statistics_module.mean_and_stderr(bad)


# -------------------------------------------------------- variety, classes, recognisability, copies


def test_variety_of_a_shrunk_set_is_the_square_of_the_shrinking(digits):
    mean = digits.train.mean(axis=0)
    for shrink in (1.0, 0.5, 0.1):
        assert neighbours.variety(
            mean + shrink * (digits.train - mean), digits.train
        ) == pytest.approx(shrink**2, rel=1e-3)
    assert neighbours.variety(np.tile(mean, (50, 1)), digits.train) == pytest.approx(0, abs=1e-9)


def test_variety_refuses():
    a = np.random.default_rng(0).random((4, 3))
    with pytest.raises(ValueError, match="does not vary"):
        neighbours.variety(a, np.ones((4, 3)))
    with pytest.raises(ValueError, match="two rows"):
        neighbours.variety(a[:1], a)
    with pytest.raises(ValueError, match="columns"):
        neighbours.variety(a, a[:, :2])


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 20),
    m=st.integers(3, 40),
    d=st.integers(1, 6),
    chunk=st.integers(1, 50),
    seed=st.integers(0, 10**6),
)
def test_distances_agree_with_scikit_learn(n, m, d, chunk, seed):
    from sklearn.neighbors import NearestNeighbors

    rng = np.random.default_rng(seed)
    samples, train, labels = rng.random((n, d)), rng.random((m, d)), rng.integers(0, 3, m)
    nearest = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(train).kneighbors(samples)
    assert np.allclose(neighbours.nearest_distance(samples, train, chunk=chunk), nearest[0][:, 0])
    assert np.array_equal(
        neighbours.nearest_class(samples, train, labels, chunk=chunk), labels[nearest[1][:, 0]]
    )
    by_class = neighbours.class_distances(samples, train, labels, chunk=chunk)
    for k, c in enumerate(np.unique(labels)):
        plain = np.sqrt(((samples[:, None] - train[labels == c][None]) ** 2).sum(axis=2)).min(
            axis=1
        )
        assert np.allclose(by_class[:, k], plain)


def test_a_copy_has_distance_exactly_zero(digits):
    assert np.all(neighbours.nearest_distance(digits.train[:200], digits.train) == 0)
    assert np.min(neighbours.nearest_distance(digits.test, digits.train)) > 0


def test_labels_need_not_be_consecutive(digits):
    shifted = digits.train_labels * 7 - 3
    assert np.array_equal(
        neighbours.nearest_class(digits.test, digits.train, shifted),
        neighbours.nearest_class(digits.test, digits.train, digits.train_labels) * 7 - 3,
    )


def test_class_histogram_and_entropy():
    assert np.array_equal(neighbours.class_histogram(np.array([0, 2, 2, 1]), 4), [1, 1, 2, 0])
    assert neighbours.class_entropy(np.arange(10)) == pytest.approx(1)
    assert neighbours.class_entropy(np.zeros(30, int)) == 0
    assert neighbours.class_entropy(np.array([0, 1] * 5)) == pytest.approx(
        math.log(2) / math.log(10)
    )
    for bad in (
        np.array([10]),
        np.array([-1]),
        np.array([0.5]),
        np.array([], int),
        np.ones((2, 2), int),
    ):
        with pytest.raises(ValueError, match="labels"):
            neighbours.class_entropy(bad)


def test_recognisability_on_controls(digits):
    rng = np.random.default_rng(0)
    fraction = lambda s: neighbours.recognisability(
        s.astype(np.float32), digits.train, digits.train_labels
    )
    assert fraction(digits.test) > 0.9
    assert fraction(rng.random((300, 64))) < 0.05
    assert fraction(np.clip(rng.standard_normal((300, 64)), 0, 1)) < 0.05
    assert fraction(digits.train.mean(axis=0)[None]) == 0
    assert fraction(digits.test[:, rng.permutation(64)]) < 0.1
    assert fraction((digits.test[:150] + digits.test[150:300]) / 2) < 0.6


def test_recognisability_has_no_length_scale(digits):
    args = digits.test, digits.train, digits.train_labels
    doubled = neighbours.recognisability(2 * args[0], 2 * args[1], args[2])
    assert doubled == neighbours.recognisability(*args)


def test_recognisability_refuses(digits):
    with pytest.raises(ValueError, match="one class"):
        neighbours.recognisability(digits.test, digits.train, np.zeros(len(digits.train), int))
    with pytest.raises(ValueError, match="train_labels has 3"):
        neighbours.recognisability(digits.test, digits.train, np.zeros(3, int))
    with pytest.raises(ValueError, match="ratio"):
        neighbours.recognisability(digits.test, digits.train, digits.train_labels, ratio=1.5)


# ---------------------------------------------------------------- in-painting


def test_inpainting_error_counts_hidden_pixels_only():
    truth, filled = np.zeros((2, 4), np.float32), np.array([[9, 9, 1, 3], [9, 2, 9, 9]], np.float32)
    visible = np.array([[1, 1, 0, 0], [1, 0, 1, 1]], bool)
    assert np.array_equal(completion.inpainting_error(truth, filled, visible), [5, 4])
    assert np.array_equal(
        completion.inpainting_error(truth, filled, visible.astype(np.float32)), [5, 4]
    )
    assert np.array_equal(
        completion.inpainting_error(truth, filled, visible[0]), [5, (81 + 81) / 2]
    )


def test_inpainting_error_refuses():
    a = np.zeros((2, 4))
    with pytest.raises(ValueError, match="no hidden pixel"):
        completion.inpainting_error(a, a, np.ones((2, 4), bool))
    with pytest.raises(ValueError, match="visible must have shape"):
        completion.inpainting_error(a, a, np.ones((4, 2), bool))
    with pytest.raises(ValueError, match="zeros and ones"):
        completion.inpainting_error(a, a, np.full((2, 4), 0.5))
    with pytest.raises(ValueError, match="completed has shape"):
        completion.inpainting_error(a, a[:1], np.zeros(4, bool))


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 12),
    m=st.integers(1, 30),
    d=st.integers(1, 8),
    chunk=st.integers(1, 40),
    seed=st.integers(0, 10**6),
)
def test_impute_nearest_agrees_with_the_plain_loop(n, m, d, chunk, seed):
    rng = np.random.default_rng(seed)
    x, train, visible = rng.random((n, d)), rng.random((m, d)), rng.random((n, d)) < 0.5
    visible[:, 0] = True  # with nothing visible every digit is as near
    wanted = np.stack(
        [
            np.where(v, a, train[((a - train)[:, v] ** 2).sum(axis=1).argmin()])
            for a, v in zip(x, visible)
        ]
    )
    assert np.array_equal(completion.impute_nearest(x, visible, train, chunk=chunk), wanted)


@pytest.mark.parametrize("impute", [completion.impute_mean, completion.impute_nearest])
def test_imputations_keep_visible_pixels_and_do_not_peek(digits, impute):
    visible = np.random.default_rng(0).random(digits.test.shape) < 0.5
    filled = impute(digits.test, visible, digits.train)
    assert filled.dtype == np.float32 and np.array_equal(filled[visible], digits.test[visible])
    assert np.array_equal(
        filled, impute(np.where(visible, digits.test, 1 - digits.test), visible, digits.train)
    )


def test_impute_mean_is_the_mean(digits):
    filled = completion.impute_mean(digits.test[:3], np.zeros(64, bool), digits.train)
    assert np.allclose(filled, digits.train.mean(axis=0), atol=1e-6)


def test_nearest_beats_the_mean(digits):
    visible = np.random.default_rng(0).random(digits.test.shape) < 0.5
    error = [
        completion.inpainting_error(
            digits.test, f(digits.test, visible, digits.train), visible
        ).mean()
        for f in (completion.impute_mean, completion.impute_nearest)
    ]
    assert error[1] < 0.8 * error[0]


# ---------------------------------------------------------------- control rows


def test_control_samples(digits):
    n, n_train = 500, len(digits.train)
    got = baselines.control_samples(digits.train, n, rng=Random(0))
    assert tuple(got) == baselines.CONTROLS
    assert [len(v) for v in got.values()] == [n, n_train // 4, n, n]
    assert all(
        v.dtype == np.float32 and v.shape[1] == 64 and v.min() >= 0 and v.max() <= 1
        for v in got.values()
    )
    real, centroids, pca, gaussian = got.values()
    assert (
        np.all(neighbours.nearest_distance(real, digits.train) == 0)
        and len(np.unique(real, axis=0)) >= n - 2
    )
    mean = digits.train.mean(axis=0)
    assert np.abs(gaussian.mean(axis=0) - mean).max() < 0.2
    assert (
        0.2 < neighbours.variety(pca, digits.train) < 1
        and neighbours.variety(centroids, digits.train) < 1
    )


def test_pca_reconstructions_agree_with_scikit_learn(digits):
    from sklearn.decomposition import PCA

    pca = baselines.control_samples(digits.train, 400, rng=Random(3))
    model = PCA(16).fit(digits.train)
    oracle = model.inverse_transform(model.transform(pca["training digits"]))
    assert np.allclose(pca["PCA reconstructions"], np.clip(oracle, 0, 1), atol=1e-4)


def test_gaussian_has_the_covariance_of_the_data():
    """Data far from the ends of their range, so that clipping does nothing: 20,000 draws know a
    covariance to about 2 %.
    """
    rng = np.random.default_rng(0)
    train = rng.standard_normal((5000, 4)) @ rng.standard_normal((4, 4))
    train = np.concatenate([train, np.full((1, 4), 99.0), np.full((1, 4), -99.0)])
    gaussian = baselines.control_samples(train, 20000, rng=Random(0))["full-covariance Gaussian"]
    wanted = np.cov(train, rowvar=False)
    assert np.abs(np.cov(gaussian, rowvar=False) - wanted).max() < 0.06 * wanted.max()


def test_same_seed_same_controls_and_another_seed_differs(digits):
    one, two, other = (
        baselines.control_samples(digits.train, 100, rng=Random(s)) for s in (0, 0, 1)
    )
    assert all(np.array_equal(one[k], two[k]) for k in one)
    assert not any(np.array_equal(one[k], other[k]) for k in one)


def test_centroids_beat_as_many_real_digits(digits):
    """The reason for the control rows: a set that is nobody's handwriting scores above real
    handwriting.
    """
    got = baselines.control_samples(digits.train, len(digits.train), rng=Random(0))
    k = len(got["k-means centroids"])
    gain = parzen.parzen_log_likelihood(
        digits.test, got["k-means centroids"], 0.16
    ) - parzen.parzen_log_likelihood(digits.test, got["training digits"][:k], 0.16)
    mean, stderr = statistics_module.mean_and_stderr(gain)
    assert mean > 3 * stderr


def test_control_samples_refuses(digits):
    with pytest.raises(ValueError, match="at least 8"):
        baselines.control_samples(digits.train[:5], 10, rng=Random(0))
    with pytest.raises(ValueError, match="n must be"):
        baselines.control_samples(digits.train, 0, rng=Random(0))


# ---------------------------------------------------------------- other array libraries


def test_everything_runs_on_another_array_library(digits):
    """`array_api_strict` on its pretend device: no NumPy-only call, and no reading of device memory
    by NumPy.
    """
    t, s, labels = digits.test[:30], digits.train[:300], digits.train_labels[:300]
    visible = np.random.default_rng(0).random(t.shape) < 0.5
    T, S, V = on_device(t), on_device(s), on_device(visible)
    pairs = [
        (lambda a, b, v: parzen.parzen_log_likelihood(a, b, 0.2, chunk=7), 1e-3),
        (lambda a, b, v: neighbours.nearest_distance(a, b), 1e-6),
        (lambda a, b, v: neighbours.class_distances(a, b, labels), 1e-6),
        (lambda a, b, v: completion.impute_mean(a, v, b), 1e-6),
        (lambda a, b, v: completion.inpainting_error(a, completion.impute_mean(a, v, b), v), 1e-6),
    ]
    for f, tolerance in pairs:
        theirs = f(T, S, V)
        assert theirs.device == T.device
        assert np.allclose(to_numpy(theirs), f(t, s, visible), atol=tolerance)
    assert completion.impute_nearest(T, V, S).device == T.device
    assert neighbours.variety(T, S) == pytest.approx(neighbours.variety(t, s), rel=1e-5)
    assert neighbours.recognisability(T, S, labels) == neighbours.recognisability(t, s, labels)
    assert np.array_equal(
        neighbours.nearest_class(T, S, labels), neighbours.nearest_class(t, s, labels)
    )
    assert (
        parzen.choose_sigma(T, S, (0.1, 0.15, 0.3))[0]
        == parzen.choose_sigma(t, s, (0.1, 0.15, 0.3))[0]
    )
    controls = baselines.control_samples(S, 20, rng=Random(0))
    assert all(v.device == T.device and v.dtype == strict.float32 for v in controls.values())


def test_importing_is_light():
    import subprocess
    import sys

    light = ("parzen", "completion", "neighbours", "statistics")
    code = (
        f"import sys, {', '.join(f'biolearn.evaluation.{name}' for name in light)}; "
        "bad = {'sklearn', 'scipy', 'matplotlib', 'cupy'} & set(sys.modules); "
        "sys.exit(str(bad) if bad else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr == ""


# ---------------------------------------------------------------- Gaussian imputations


def test_impute_pca_is_the_conditional_mean_of_a_gaussian():
    """Oracle: the textbook formula with the covariance W diag(prior) Wᵀ + noise · 1, inverted over
    the visible pixels.
    """
    rng = np.random.default_rng(0)
    train = (rng.random((400, 5)) @ rng.random((5, 16)) / 5 + 0.05 * rng.random((400, 16))).astype(
        np.float64
    )
    x, visible = train[:6] + 0.01, rng.random((6, 16)) < 0.5
    centre = train.mean(0)
    values, axes = np.linalg.eigh(np.cov(train, rowvar=False))
    W, prior, noise = axes[:, -4:], values[-4:], values[:-4].mean()
    C = W @ np.diag(prior) @ W.T + noise * np.eye(16)
    got = completion.impute_pca(x, visible, train)
    for row, v, filled in zip(x, visible, got):
        want = centre[~v] + C[np.ix_(~v, v)] @ np.linalg.solve(C[np.ix_(v, v)], (row - centre)[v])
        np.testing.assert_allclose(
            filled[~v], np.clip(want, train.min(), train.max()), rtol=1e-6, atol=1e-8
        )
        np.testing.assert_array_equal(filled[v], row[v])


def test_impute_gaussian_is_the_conditional_mean():
    """Oracle: the precision matrix.

    The mean of the hidden given the visible is m_h - P_hh^-1 P_hv (x_v - m_v).
    """
    rng = np.random.default_rng(0)
    train = rng.normal(size=(500, 12)) @ rng.normal(size=(12, 12))
    x, visible = 0.3 * train[:7], rng.random((7, 12)) < 0.6
    cov = np.cov(train, rowvar=False)
    P, mean = np.linalg.inv(cov + 1e-3 * np.trace(cov) / 12 * np.eye(12)), train.mean(axis=0)
    for row, v, filled in zip(x, visible, completion.impute_gaussian(x, visible, train)):
        want = mean[~v] - np.linalg.solve(P[np.ix_(~v, ~v)], P[np.ix_(~v, v)] @ (row - mean)[v])
        np.testing.assert_allclose(
            filled[~v], np.clip(want, train.min(), train.max()), rtol=1e-6, atol=1e-8
        )
        np.testing.assert_array_equal(filled[v], row[v])


def test_draws_of_impute_gaussian_have_the_conditional_distribution():
    """Whitened by the conditional covariance (a Schur complement, not what the code computes),
    20,000 draws are standard normal: scipy's log-density has its known mean.
    """
    from scipy.stats import multivariate_normal

    rng = np.random.default_rng(0)
    train = rng.normal(size=(300, 5)) @ rng.normal(size=(5, 5))
    train[0], train[1] = 1e3, -1e3  # a range that clips nothing
    cov = np.cov(train, rowvar=False)
    cov += 1e-3 * np.trace(cov) / 5 * np.eye(5)
    v, n = np.array([True, False, True, False, False]), 20_000
    drawn = completion.impute_gaussian(np.tile(train[5], (n, 1)), v, train, rng=Random(0))[:, ~v]
    mean = completion.impute_gaussian(train[5:6], v, train)[0, ~v]
    schur = np.linalg.inv(np.linalg.inv(cov)[np.ix_(~v, ~v)])
    density = multivariate_normal(mean, schur).logpdf(drawn)
    expected = -1.5 * (1 + math.log(2 * math.pi)) - 0.5 * np.linalg.slogdet(schur)[1]
    assert (
        abs(density.mean() - expected) < 3 * (1.5 / n) ** 0.5
    )  # half a chi-square with 3 degrees: variance 3/2
    assert np.all(np.abs(drawn.mean(axis=0) - mean) < 4 * np.sqrt(np.diag(schur) / n))


def test_gaussian_imputations_with_nothing_visible_and_with_dead_pixels(digits):
    x = digits.test[:5]
    for impute in (completion.impute_gaussian, completion.impute_pca):
        np.testing.assert_allclose(
            impute(x, np.zeros(64, bool), digits.train),
            np.tile(digits.train.mean(axis=0), (5, 1)),
            atol=1e-6,
        )
        assert np.isfinite(
            impute(x, np.arange(64) % 8 > 0, digits.train)
        ).all()  # column 0 hardly varies
        assert impute(x, np.arange(64) < 32, digits.train).dtype == np.float32
        device = impute(on_device(x), on_device(np.arange(64) < 32), on_device(digits.train))
        np.testing.assert_allclose(
            to_numpy(device), impute(x, np.arange(64) < 32, digits.train), atol=1e-6
        )
    with pytest.raises(ValueError, match="at least two"):
        completion.impute_gaussian(x, np.arange(64) < 32, digits.train[:1])
