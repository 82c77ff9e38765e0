"""Features, Fréchet distance, neighbourhoods and the two-sample classifier against scikit-learn,
SciPy, closed forms and hand-made sets.
"""

import numpy as np
import pytest

from biolearn.core.arrays import to_numpy
from biolearn.core.data import load_dataset
from biolearn.core.rng import Random
from biolearn.evaluation import features as F


@pytest.fixture(scope="module")
def parts():
    """(train, its labels, unseen, its labels, test): the 8x8 digits, divided so that the held-out
    parts are large.
    """
    d = load_dataset("digits")
    x, y = (
        np.concatenate([d.train, d.valid, d.test]),
        np.concatenate([d.train_labels, d.valid_labels, d.test_labels]),
    )
    return x[:797], y[:797], x[797:1297], y[797:1297], x[1297:]


@pytest.fixture(scope="module")
def network(parts):
    return F.train_features(parts[0], parts[1], rng=Random(1), hidden=(64, 32), epochs=40)


@pytest.fixture(scope="module")
def flawed(parts):
    return F.flawed_sets(parts[2], parts[3], parts[0], (8, 8), rng=Random(2))


# ---------------------------------------------------------------- the classifier


def test_features_equal_those_of_scikit_learn(parts):
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    with pytest.warns(ConvergenceWarning):
        net = MLPClassifier((20, 9), max_iter=5, random_state=0).fit(parts[0], parts[1])
    ours = F.Features(tuple(net.coefs_), tuple(net.intercepts_), net.classes_)
    np.testing.assert_allclose(ours.probabilities(parts[4]), net.predict_proba(parts[4]), atol=1e-5)
    np.testing.assert_array_equal(ours.predict(parts[4]), net.predict(parts[4]))
    hidden = np.maximum(
        np.maximum(parts[4] @ net.coefs_[0] + net.intercepts_[0], 0) @ net.coefs_[1]
        + net.intercepts_[1],
        0,
    )
    np.testing.assert_allclose(ours(parts[4]), hidden, atol=1e-5)


def test_training_gives_a_scaled_float32_classifier_that_depends_on_the_seed_alone(parts, network):
    again, other = (
        F.train_features(parts[0], parts[1], rng=Random(s), hidden=(64, 32), epochs=40)
        for s in (1, 2)
    )
    assert all(
        np.array_equal(a, b) for a, b in zip(network.weights, again.weights)
    ) and not np.array_equal(network.weights[0], other.weights[0])
    z = network(parts[0])
    assert (
        z.dtype == np.float32
        and z.shape == (797, 32)
        and z.var(axis=0).sum() == pytest.approx(32, rel=1e-4)
    )
    assert np.mean(network.predict(parts[2]) == parts[3]) > 0.9


def test_scaling_the_features_changes_no_prediction(parts, network):
    "The same training, left unscaled in scikit-learn's own object."
    net = F._perceptron(parts[0], parts[1], (64, 32), 40, Random(1))
    np.testing.assert_allclose(
        network.probabilities(parts[4]), net.predict_proba(parts[4]), atol=1e-5
    )


def test_features_run_on_another_backend(parts, network, backend):
    x = backend.asarray(parts[4][:20])
    np.testing.assert_allclose(to_numpy(network(x)), network(parts[4][:20]), atol=1e-5)
    np.testing.assert_allclose(
        to_numpy(network.probabilities(x)), network.probabilities(parts[4][:20]), atol=1e-5
    )
    np.testing.assert_array_equal(network.predict(x), network.predict(parts[4][:20]))


def test_probabilities_of_sure_pictures_do_not_overflow():
    net = F.Features((np.eye(3), 1e4 * np.eye(3)), (np.zeros(3), np.zeros(3)), np.arange(3))
    np.testing.assert_array_equal(net.probabilities(np.eye(3)), np.eye(3))


def test_saved_and_loaded_it_is_the_same(parts, network, tmp_path):
    network.save(tmp_path / "net.safetensors")
    loaded = F.load_features(tmp_path / "net.safetensors")
    np.testing.assert_array_equal(loaded(parts[4]), network(parts[4]))
    np.testing.assert_array_equal(loaded.predict(parts[4]), network.predict(parts[4]))


def test_files_of_something_else_are_refused(tmp_path):
    from safetensors.numpy import save_file

    save_file({"weights": np.zeros(3)}, str(tmp_path / "other"))
    with pytest.raises(ValueError, match="not a classifier"):
        F.load_features(tmp_path / "other")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ValueError, match="no safetensors file"):
        F.load_features(tmp_path / "text")


# ---------------------------------------------------------------- Fréchet


def test_frechet_agrees_with_scipys_square_root():
    from scipy.linalg import sqrtm

    rng = np.random.default_rng(0)
    a, b = (
        rng.normal(size=(200, 6)) @ rng.normal(size=(6, 6)),
        rng.normal(size=(150, 6)) @ rng.normal(size=(6, 6)) + 1,
    )
    Ca, Cb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    oracle = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(Ca + Cb - 2 * sqrtm(Ca @ Cb).real)
    assert F.frechet_distance(a, b) == pytest.approx(oracle, rel=1e-9)
    assert F.frechet_distance(b, a) == pytest.approx(oracle, rel=1e-9)


def test_frechet_in_one_dimension_is_the_difference_of_means_and_deviations():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(50, 1)), 3 + 2 * rng.normal(size=(70, 1))
    assert F.frechet_distance(a, b) == pytest.approx(
        (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
    )


def test_frechet_of_a_set_to_itself_and_of_features_that_never_vary_is_fine():
    a = np.random.default_rng(0).normal(size=(30, 5))
    a[:, 2] = 0
    assert abs(F.frechet_distance(a, a)) < 1e-9
    constant = np.zeros((30, 5))
    assert F.frechet_distance(a, constant) == pytest.approx(
        np.sum(a.mean(0) ** 2) + np.trace(np.cov(a, rowvar=False))
    )


def test_the_jackknife_removes_the_bias_of_frechet_and_knows_its_spread():
    "Shifted and widened normals, whose distance is 16 (0.3² + 0.5²); 60 repeats."
    rng, truth = np.random.default_rng(3), 16 * (0.3**2 + 0.5**2)
    plain, found = [], []
    for i in range(60):
        a, b = rng.normal(size=(240, 16)), 0.3 + 1.5 * rng.normal(size=(240, 16))
        plain.append(F.frechet_distance(a, b))
        found.append(F.jackknife(F.frechet_distance, a, b, rng=Random(i)))
    value, error = np.mean(found, axis=0)
    mean_and_sd = np.std([v for v, _ in found], ddof=1)
    assert np.mean(plain) - truth > 5 * mean_and_sd / 60**0.5
    assert abs(value - truth) < 3 * mean_and_sd / 60**0.5 + 0.1 * (
        np.mean(plain) - truth
    )  # a tenth of the bias may be of higher order
    assert 0.72 < error / mean_and_sd < 1.38  # three standard errors of a spread of 60: 28 %


def test_the_jackknife_of_a_mean_is_the_mean():
    x = np.random.default_rng(0).normal(size=(400, 1))
    value, error = F.jackknife(lambda a: float(a.mean()), x, rng=Random(0))
    assert value == pytest.approx(x.mean(), abs=1e-12)
    assert abs(error / (x.std() / 20) - 1) < 0.5  # three times the 16 % of 20 groups


def test_the_jackknife_refuses_small_sets():
    with pytest.raises(ValueError, match="at least 40 rows"):
        F.jackknife(F.frechet_distance, np.zeros((39, 2)), np.zeros((80, 2)), rng=Random(0))


# ------------------------------------------------------------- precision, recall, density, coverage


def test_neighbourhoods_of_four_points_by_hand():
    """On a line, k = 1. Real 0, 1, 10: radii 1, 1, 9. Fake 0.5, 4, 30: radii 3.5, 3.5, 26. 0.5 lies
    in the balls of 0 and 1, 4 in that of 10 alone, 30 in none; 0 and 1 lie in the balls of 0.5 (and
    1 in that of 4), 10 in that of 30.
    """
    real, fake = np.array([[0.0], [1], [10]]), np.array([[0.5], [4], [30]])
    pr, dc = F.precision_recall(real, fake, 1), F.density_coverage(real, fake, 1)
    assert pr["precision"][0] == pytest.approx(2 / 3) and pr["recall"][0] == 1
    assert dc["density"][0] == pytest.approx((2 + 1 + 0) / 3) and dc["coverage"][0] == 1
    far = F.density_coverage(real, np.array([[0.5], [-40], [-60]]), 1)
    assert far["coverage"][0] == pytest.approx(2 / 3) and far["density"][0] == pytest.approx(2 / 3)
    assert F.precision_recall(real, np.array([[100.0], [101], [105]]), 1) == {
        "precision": F.fraction_and_stderr(np.zeros(3, bool)),
        "recall": F.fraction_and_stderr(np.zeros(3, bool)),
    }


@pytest.mark.parametrize("k", [1, 3, 5])
def test_neighbourhoods_against_all_pairs_written_out(k):
    rng = np.random.default_rng(k)
    real, fake = (
        rng.normal(size=(2100, 4)),
        0.8 * rng.normal(size=(1050, 4)) + 0.5,
    )  # more than one block of 1,000
    pair = lambda a, b: np.sqrt(((a[:, None] - b[None]) ** 2).sum(axis=2))
    r, s = np.sort(pair(real, real), axis=1)[:, k], np.sort(pair(fake, fake), axis=1)[:, k]
    d = pair(fake, real)
    pr, dc = F.precision_recall(real, fake, k), F.density_coverage(real, fake, k)
    assert (
        pr["precision"][0] == (d <= r).any(axis=1).mean()
        and pr["recall"][0] == (d.T <= s).any(axis=1).mean()
    )
    assert (
        dc["density"][0] == pytest.approx((d <= r).sum() / k / 1050)
        and dc["coverage"][0] == (d.min(axis=0) <= r).mean()
    )


def test_coverage_of_equal_sets_has_its_known_expectation():
    """1 - prod (n-1-j)/(2n-1-j), j < k: all of the first k neighbours among the 2n - 1 others are
    real.
    """
    rng, n, k = np.random.default_rng(0), 60, 3
    found = [F.density_coverage(*rng.normal(size=(2, n, 5)), k)["coverage"][0] for _ in range(150)]
    exact = 1 - np.prod([(n - 1 - j) / (2 * n - 1 - j) for j in range(k)])
    assert abs(np.mean(found) - exact) < 3 * np.std(found) / 150**0.5


def test_fraction_and_stderr_is_never_sure():
    assert F.fraction_and_stderr(np.array([True, False] * 50)) == (0.5, pytest.approx(0.05))
    value, error = F.fraction_and_stderr(np.ones(98, bool))
    assert value == 1 and error == pytest.approx((0.99 * 0.01 / 98) ** 0.5)
    with pytest.raises(ValueError, match="booleans"):
        F.fraction_and_stderr(np.ones(4))


# ---------------------------------------------------------------- classes, two samples, flawed sets


def test_class_report_counts_and_corrects(parts, network):
    told = F.class_report(network, parts[2], rng=Random(0))
    np.testing.assert_array_equal(
        told["histogram"], np.bincount(network.predict(parts[2]), minlength=10)
    )
    assert told["confidence"][0] == pytest.approx(
        network.probabilities(parts[2]).max(axis=1).mean(), rel=1e-6
    )
    one = F.class_report(network, np.repeat(parts[2][:1], 60, axis=0), rng=Random(0))
    assert one["entropy"] == (0, 0) and one["histogram"].max() == 60


def test_labels_that_are_not_0_to_n_are_kept(parts):
    net = F.train_features(parts[0], parts[1] * 2 + 5, rng=Random(0), hidden=(16,), epochs=20)
    assert (
        set(net.predict(parts[2])) <= set(range(5, 25, 2))
        and F.class_report(net, parts[2], rng=Random(0))["histogram"].sum() == 500
    )


def test_two_samples_from_the_same_distribution_cannot_be_told_apart():
    rng = np.random.default_rng(1)
    found = np.array(
        [
            F.two_sample_accuracy(
                rng.normal(size=(100, 4)), rng.normal(size=(140, 4)), rng=Random(i), epochs=10
            )[0]
            for i in range(40)
        ]
    )
    assert abs(found.mean() - 0.5) < 3 * found.std(ddof=1) / 40**0.5


def test_two_samples_that_are_disjoint_are_told_apart(parts):
    accuracy, error = F.two_sample_accuracy(parts[2], 1 - parts[4], rng=Random(0))
    assert accuracy == 1 and 0 < error < 0.01


def test_the_two_sample_accuracy_of_shifted_normals_stays_below_the_best_possible():
    "Two normals 2 apart: no classifier does better than Φ(1) = 0.841."
    rng = np.random.default_rng(0)
    value, error = F.two_sample_accuracy(
        rng.normal(size=(3000, 1)), 2 + rng.normal(size=(3000, 1)), rng=Random(0)
    )
    assert 0.81 < value < 0.8413 + 3 * error and error == pytest.approx(
        (value * (1 - value) / 3000) ** 0.5, rel=0.01
    )


def test_flawed_sets_are_what_they_say(parts, flawed):
    assert list(flawed) == [
        "good",
        "blurred",
        "noisy",
        "three classes",
        "twenty pictures",
        "mean digit",
        "memorised",
    ]
    assert all(
        p.min() >= 0 and p.max() <= 1 and p.shape[1] == 64 and p.dtype == np.float32
        for p in flawed.values()
    )
    assert (
        len(np.unique(flawed["twenty pictures"], axis=0)) == 20
        and len(np.unique(flawed["mean digit"], axis=0)) == 1
    )
    known = {row.tobytes() for row in parts[0]}
    assert (
        all(row.tobytes() in known for row in flawed["memorised"])
        and len(flawed["three classes"]) == np.isin(parts[3], (0, 1, 2)).sum()
    )


def test_the_estimators_rank_the_flawed_sets(parts, network, flawed):
    """Right orders, each by more than three standard errors of the difference; and what is not
    seen: copies, by any of them.
    """

    def worse(estimate, name, sign):
        (good, e), (bad, f) = estimate(flawed["good"]), estimate(flawed[name])
        return sign * (bad - good) / np.hypot(e, f) > 3

    real = network(parts[4])
    frechet = lambda p: F.jackknife(F.frechet_distance, network(p), real, rng=Random(0))
    two = lambda p: F.two_sample_accuracy(p, parts[4], rng=Random(0))
    near = lambda key: (
        lambda p: {**F.precision_recall(real, network(p)), **F.density_coverage(real, network(p))}[
            key
        ]
    )
    entropy = lambda p: F.class_report(network, p, rng=Random(0))["entropy"]
    for name in ("blurred", "three classes", "twenty pictures", "mean digit"):
        assert (
            worse(frechet, name, +1) and worse(two, name, +1) and worse(near("recall"), name, -1)
        ), name
    assert (
        worse(near("precision"), "noisy", -1)
        and worse(near("density"), "noisy", -1)
        and worse(two, "noisy", +1)
    )
    for name in ("three classes", "twenty pictures", "mean digit"):
        assert worse(near("coverage"), name, -1) and worse(entropy, name, -1), name
    assert not worse(near("density"), "blurred", -1)  # blur is at least as dense as digits
    for key in ("precision", "recall", "density", "coverage"):
        assert not worse(near(key), "memorised", -1), key
    assert (
        not worse(frechet, "memorised", +1)
        and not worse(two, "memorised", +1)
        and not worse(entropy, "memorised", -1)
    )


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "call, match",
    [
        (lambda x: F.train_features(x, np.zeros(len(x), int), rng=Random(0)), "at least three"),
        (lambda x: F.train_features(x, np.arange(3), rng=Random(0)), "3 entries"),
        (lambda x: F.frechet_distance(x, x[:1]), "two rows"),
        (lambda x: F.frechet_distance(x, x[:, :5]), "64 columns"),
        (lambda x: F.precision_recall(x, x[:4], 5), "fake has 4 rows"),
        (lambda x: F.density_coverage(x[:5], x, 5), "real has 5 rows"),
        (lambda x: F.precision_recall(x, np.full_like(x, np.nan), 5), "NaN"),
        (lambda x: F.two_sample_accuracy(x, x[:7], rng=Random(0)), "7 rows"),
        (
            lambda x: F.flawed_sets(x, np.zeros(len(x), int), x[:5], (8, 8), rng=Random(0)),
            "fewer than",
        ),
        (
            lambda x: F.flawed_sets(2 * x + 1, np.zeros(len(x), int), x, (8, 8), rng=Random(0)),
            "above 1",
        ),
    ],
)
def test_bad_input_is_told(parts, call, match):
    with pytest.raises(ValueError, match=match):
        call(parts[4][:30])
