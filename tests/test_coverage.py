"""Bins, copies, birthdays and in-painting against SciPy, hand-made sets and draws whose answer is
known.
"""

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from biolearn.core.arrays import to_numpy
from biolearn.core.data import Dataset, load_dataset
from biolearn.core.rng import Random
from biolearn.evaluation import coverage as C
from biolearn.evaluation import features as F
from biolearn.evaluation.completion import (
    compare_completions,
    impute_gaussian,
    impute_mean,
    inpainting_masks,
)
from biolearn.evaluation.features import flawed_sets, train_features
from biolearn.evaluation.neighbours import recognisability, variety
from biolearn.evaluation.parzen import parzen_log_likelihood
from biolearn.evaluation.statistics import jackknife, mean_and_stderr


@pytest.fixture(scope="module")
def parts():
    """(train, valid, unseen, test) and their labels: the 8x8 digits, divided so that the held-out
    parts are large.
    """
    d = load_dataset("digits")
    x, y = (
        np.concatenate([d.train, d.valid, d.test]),
        np.concatenate([d.train_labels, d.valid_labels, d.test_labels]),
    )
    return np.split(x, [597, 997, 1397]), np.split(y, [597, 997, 1397])


@pytest.fixture(scope="module")
def network(parts):
    return train_features(parts[0][0], parts[1][0], rng=Random(1), hidden=(64, 32), epochs=50)


@pytest.fixture(scope="module")
def flawed(parts):
    return flawed_sets(parts[0][2], parts[1][2], parts[0][0], (8, 8), rng=Random(2))


# ---------------------------------------------------------------- bins


def test_bin_tests_are_binomial_tests_corrected():
    """Twice the smaller one-sided p-value of scipy.stats.binomtest, then Benjamini and Hochberg's
    rule written out.
    """
    from scipy.stats import binomtest

    a, b = np.array([30, 5, 100, 0, 12]), np.array([10, 20, 31, 0, 0])
    raw = []
    for i, j in zip(a, b):
        sides = [
            binomtest(int(j), int(i + j), 61 / (147 + 61), alternative=s).pvalue if i + j else 1
            for s in ("less", "greater")
        ]
        raw.append(min(1, 2 * min(sides)))
    order = np.argsort(raw)
    want = np.empty(5)
    want[order] = np.minimum.accumulate((np.array(raw)[order] * 5 / np.arange(1, 6))[::-1])[::-1]
    np.testing.assert_allclose(C._bin_tests(a, b, 147, 61), np.minimum(1, want), rtol=1e-9)


def test_bins_are_no_bolder_than_fishers_exact_test_and_decide_alike():
    """Fisher's test knows that both totals are fixed, the binomial one does not: it must be the
    more careful of the two.
    """
    from scipy.stats import false_discovery_control, fisher_exact

    a, b = np.array([200, 150, 120, 4530]), np.array([30, 60, 18, 892])
    exact = false_discovery_control(
        [fisher_exact([[i, 5000 - i], [j, 1000 - j]]).pvalue for i, j in zip(a, b)]
    )
    ours = C._bin_tests(a, b, 5000, 1000)
    assert (ours >= exact).all() and list((ours < 0.05)[:3]) == list((exact < 0.05)[:3]) == [
        False,
        True,
        False,
    ]


def test_equal_distributions_raise_few_alarms_and_a_changed_bin_is_found():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(50) * 5)
    alarms = (
        (
            C._bin_tests(
                rng.multinomial(5000, p, size=400), rng.multinomial(1000, p, size=400), 5000, 1000
            )
            < 0.05
        )
        .any(axis=1)
        .mean()
    )
    assert alarms < 0.05 + 3 * (0.05 * 0.95 / 400) ** 0.5
    q = p.copy()
    q[7] *= 3
    found = (
        C._bin_tests(rng.multinomial(5000, p), rng.multinomial(1000, q / q.sum()), 5000, 1000)
        < 0.05
    )
    assert found[7] and found.sum() <= 3


def test_different_bins_counts_what_lies_where():
    "Four far corners; the samples visit two of them only."
    rng = np.random.default_rng(0)
    corners = np.array([[0, 0], [0, 9], [9, 0], [9, 9.0]])
    train, samples = (
        corners[np.arange(400) % 4] + 0.1 * rng.normal(size=(400, 2)),
        corners[np.arange(100) % 2] + 0.1 * rng.normal(size=(100, 2)),
    )
    found = C.different_bins(train, samples, rng=Random(0), n_bins=4)
    np.testing.assert_allclose(found.train, 0.25)
    assert (
        sorted(found.samples) == [0, 0, 0.5, 0.5]
        and found.different.all()
        and found.fraction[0] == 1
    )
    same = C.different_bins(train, train[:100], rng=Random(0), n_bins=4)
    assert not same.different.any() and same.fraction[0] == 0 and same.fraction[1] > 0


def test_real_digits_fill_the_bins_and_three_classes_do_not(parts, flawed):
    (train, _, _, test), _ = parts
    count = lambda a: C.different_bins(train, a, rng=Random(0), n_bins=20).different.sum()
    assert (
        count(test) <= 2
        and count(flawed["three classes"]) >= 5
        and count(flawed["twenty pictures"]) >= 5
        and count(flawed["mean digit"]) >= 15
    )


# ---------------------------------------------------------------- copies


def test_closer_is_the_mann_whitney_statistic(parts):
    from scipy.stats import mannwhitneyu

    (train, valid, unseen, test), _ = parts
    d = [
        np.sqrt(((a[:, None].astype(float) - train[None]) ** 2).sum(axis=2)).min(axis=1)
        for a in (unseen, test)
    ]
    oracle = mannwhitneyu(*d, method="asymptotic", use_continuity=False)
    told = C.copying(unseen, train, valid, test)
    assert told["closer"][0] == pytest.approx(
        1 - oracle.statistic / (len(unseen) * len(test)), abs=1e-4
    )  # float32 breaks or makes a tie
    assert math.erfc(abs(told["z"]) / 2**0.5) == pytest.approx(oracle.pvalue, rel=0.02)


def test_the_standard_error_of_closer_is_its_spread():
    """One training point at 0, so that a distance is the number itself: log-normals one half apart,
    closer with probability Φ(0.5/√2) = 0.638. 200 repeats know the spread to 5 %.
    """
    rng, found = np.random.default_rng(0), []
    for _ in range(200):
        samples, test = np.exp(rng.normal(size=(60, 1))), np.exp(0.5 + rng.normal(size=(80, 1)))
        found.append(C.copying(samples, np.zeros((1, 1)), np.full((1, 1), 1e6), test)["closer"])
    mean, spread = np.mean(found, axis=0), np.std(found, axis=0, ddof=1)[0]
    assert abs(mean[0] - 0.6382) < 3 * spread / 200**0.5 and abs(mean[1] / spread - 1) < 0.15


def test_placements_count_ties_as_halves():
    np.testing.assert_array_equal(
        C._placements(np.array([1, 2, 3.0]), np.array([1, 2, 2, 5.0])), [3.5 / 4, 2 / 4, 1 / 4]
    )


@pytest.mark.parametrize("fraction", [0, 0.3, 1])
def test_the_fraction_of_copies_is_estimated(fraction):
    """Uniform points in eight dimensions, of which a known share are training points; train and
    valid are of different sizes.
    """
    rng = np.random.default_rng(0)
    train, valid, test, new = (rng.random((n, 8)) for n in (900, 500, 400, 400))
    samples = np.concatenate([train[: int(400 * fraction)], new[int(400 * fraction) :]])
    told = C.copying(samples, train, valid, test)
    value, error = told["copied"]
    assert abs(value - fraction) < 3 * error
    assert error == pytest.approx((0.643 * 0.357 / 400) ** 0.5 / 0.357, rel=0.1) or fraction
    assert (told["z"] < -3) == (fraction > 0)


def test_copies_are_found_blurred_or_not_and_blur_alone_is_none(parts, flawed):
    (train, valid, _, test), _ = parts
    smooth = gaussian_filter(flawed["memorised"].reshape(-1, 8, 8), (0, 0.5, 0.5)).reshape(-1, 64)
    copied = lambda a: C.copying(a, train, valid, test)["copied"]
    assert copied(flawed["memorised"])[0] == 1 and copied(smooth)[0] > 0.9
    for name in ("good", "blurred", "noisy"):
        assert abs(copied(flawed[name])[0]) < 3 * copied(flawed[name])[1], name


# ---------------------------------------------------------------- birthdays


def test_birthdays_by_hand():
    "Five samples of which two pairs are twins: 2 of 10 pairs, so N = 5."
    found = C.birthday_support(np.array([[0.0], [0], [5], [5.05], [9]]), 0.1)
    assert (
        found.size == pytest.approx(5)
        and found.rate[0] == pytest.approx(0.2)
        and found.low < 5 < found.high
    )
    assert C.birthday_support(np.zeros((30, 2)), 0.1).size == 1


@pytest.mark.parametrize("N", [50, 500, 5000])
def test_uniform_draws_from_known_pictures_give_their_number(N):
    rng = np.random.default_rng(N)
    pictures = rng.random((N, 16))
    found = [C.birthday_support(pictures[rng.integers(N, size=250)], 1e-4) for _ in range(60)]
    held, rates = np.mean([s.low <= N <= s.high for s in found]), np.array([s.rate for s in found])
    assert held > 0.95 - 3 * (0.95 * 0.05 / 60) ** 0.5
    assert abs(rates[:, 0].mean() - 1 / N) < 3 * rates[:, 0].std(ddof=1) / 60**0.5
    assert (
        0.6 < np.sqrt((rates[:, 1] ** 2).mean()) / rates[:, 0].std(ddof=1) < 1.6
    )  # three standard errors of a spread of 60 and of rare pairs


def test_unequal_pictures_give_the_effective_number():
    """The collision rate is the sum of squared probabilities, and frequent pictures widen the
    interval.
    """
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.full(100, 0.3))
    N = 1 / np.sum(p**2)
    found = [
        C.birthday_support(rng.choice(100, p=p, size=(300, 1)).astype(float), 0.5)
        for _ in range(100)
    ]
    assert np.mean([s.low <= N <= s.high for s in found]) > 0.85
    flat = C.birthday_support(rng.integers(round(N), size=(300, 1)).astype(float), 0.5)
    assert np.median([s.high / s.low for s in found]) > 1.2 * flat.high / flat.low


def test_no_pair_gives_a_lower_bound_alone():
    "No event among 45 pairs: fewer than 3.69 expected, with 97.5 % confidence."
    found = C.birthday_support(np.arange(10.0)[:, None], 0.5)
    assert (
        found.size == found.high == math.inf
        and found.low == pytest.approx(45 / 3.6889, rel=1e-3)
        and found.rate == (0, 0)
    )


def test_the_threshold_is_the_distance_of_the_tenth_pair():
    x = np.random.default_rng(0).random((80, 5))
    i, j = np.triu_indices(80, 1)
    assert C.near_duplicate(x) == pytest.approx(np.sort(np.linalg.norm(x[i] - x[j], axis=1))[9])
    assert C.near_duplicate(x, 3) == pytest.approx(np.sort(np.linalg.norm(x[i] - x[j], axis=1))[2])


# ---------------------------------------------------------------- in-painting


def test_masks_hide_what_they_say():
    masks = inpainting_masks((8, 12), 300, rng=Random(0))
    assert list(masks) == ["left", "right", "top", "bottom", "frame", "random"] and all(
        m.shape == (300, 96) and m.dtype == bool for m in masks.values()
    )
    frame = masks["frame"][0].reshape(8, 12)
    assert not frame[2:6, 3:9].any() and frame.sum() == 96 - 24
    assert (
        masks["left"][0].reshape(8, 12)[:, :6].all()
        and not masks["left"][0].reshape(8, 12)[:, 6:].any()
    )
    assert abs(masks["random"].mean() - 0.5) < 3 * 0.5 / (300 * 96) ** 0.5 and not np.array_equal(
        masks["random"][0], masks["random"][1]
    )


def test_completions_are_measured_and_what_they_must_not_see_is_hidden(parts, network):
    (train, _, _, test), (_, _, _, y) = parts
    masks = inpainting_masks((8, 8), 400, rng=Random(0))
    given = []

    def peek(x, visible):
        given.append(np.abs(x[~to_numpy(visible)]).max())
        return impute_mean(x, visible, train)

    ways = {"peek": peek, "oracle": lambda x, v: test}
    report = {
        name: compare_completions(
            test, visible, ways, ours="oracle", predict=network.predict, labels=y
        )
        for name, visible in (("left", masks["left"][0]), ("random", masks["random"]))
    }
    assert given == [0, 0]
    hidden = ~masks["random"]
    by_hand = np.array([((train.mean(0) - t)[h] ** 2).mean() for t, h in zip(test, hidden)])
    wanted = (
        pytest.approx(by_hand.mean(), rel=1e-5),
        pytest.approx(by_hand.std(ddof=1) / 20, rel=1e-5),
    )
    assert report["random"]["peek"]["error"] == wanted == report["random"]["peek"]["lead"]
    for row in report.values():
        assert row["oracle"]["error"][0] == 0 and "lead" not in row["oracle"]
        right = np.mean(network.predict(test) == y)
        assert row["oracle"]["recognised"][0] == right > row["peek"]["recognised"][0]


def test_variety_is_one_for_the_right_distribution_less_for_a_narrow_one_and_zero_for_one_answer():
    rng = np.random.default_rng(0)
    visible = np.array([True, True, False, False])
    truth, drawn = rng.normal(size=(3000, 4)), rng.normal(size=(4, 3000, 4))
    value, error = C.completion_variety(drawn, truth, visible, rng=Random(0))
    assert abs(value - 1) < 3 * error and error < 0.03
    value, error = C.completion_variety(
        0.5 * drawn, truth, visible, rng=Random(0)
    )  # 2 · 0.25 over 1 + 0.25
    assert abs(value - 0.4) < 3 * error
    assert C.completion_variety(np.stack([drawn[0]] * 2), truth, visible, rng=Random(0)) == (0, 0)


def test_variety_of_a_true_gaussian_conditional_is_one():
    "Points of a known Gaussian, filled by draws from the Gaussian fitted to many of them."
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(6, 6))
    train, truth = rng.normal(size=(20_000, 6)) @ mix, rng.normal(size=(2000, 6)) @ mix
    visible = np.arange(6) < 3
    drawn = np.stack(
        [impute_gaussian(truth, visible, train, ridge=1e-9, rng=Random(i)) for i in range(3)]
    )
    value, error = C.completion_variety(drawn, truth, visible, rng=Random(0))
    assert abs(value - 1) < 3 * error + 0.01  # and a hundredth for the fit


# ---------------------------------------------------------------- all together


@pytest.fixture(scope="module")
def data(parts):
    (train, valid, _, test), (labels, *_) = parts
    return Dataset("parts", (8, 8), train, valid, test, train_labels=labels)


def test_every_fault_is_seen_and_copies_by_the_copy_tests_alone(data, network, flawed):
    found = {
        name: C.score_samples(flawed[name], data, features=network, rng=Random(3), n_bins=20)
        for name in flawed
    }
    low_is_good = {"Fréchet", "two-sample", "bins", "copied", "closer", "duplicates"}

    def seen(name):
        z = {
            k: (v - found["good"][k][0])
            / np.hypot(e, found["good"][k][1])
            * (1 if k in low_is_good else -1)
            for k, (v, e) in found[name].items()
        }
        return {k for k in z if z[k] > 3}

    assert all(np.isfinite(v) and e >= 0 for row in found.values() for v, e in row.values())
    assert seen("memorised") == {"copied", "closer"}
    assert {"recall", "two-sample"} <= seen("blurred") and "Parzen" not in seen(
        "blurred"
    )  # Parzen gets blur wrong
    assert {"two-sample", "density", "Parzen"} <= seen("noisy")
    for name in ("three classes", "twenty pictures", "mean digit"):
        assert {"Parzen", "Fréchet", "recall", "coverage", "entropy", "two-sample", "bins"} <= seen(
            name
        )
    for name in ("twenty pictures", "mean digit"):
        assert "duplicates" in seen(name)


def test_a_score_is_what_its_estimator_says_whatever_else_is_asked(data, network, flawed):
    x, asked = flawed["good"], dict(features=network, rng=Random(3))
    some = C.score_samples(x, data, ("recognisable", "Parzen", "Fréchet"), **asked)
    assert list(some) == ["recognisable", "Parzen", "Fréchet"]
    assert some["Parzen"] == mean_and_stderr(parzen_log_likelihood(data.test, x, 0.2))
    assert some["Fréchet"] == jackknife(
        F.frechet_distance, network(x), network(data.test), rng=Random(3).stream("frechet")
    )
    assert some["recognisable"][0] == recognisability(x, data.train, data.train_labels)
    whole = C.score_samples(x, data, **asked)
    assert tuple(whole) == C.STANDARD and set(C.MEASURES) - set(whole) == {
        "variety",
        "recognisable",
    }
    assert {k: whole[k] for k in ("Parzen", "Fréchet")} == {
        k: some[k] for k in ("Parzen", "Fréchet")
    }
    assert C.score_samples(2 * x, data, ("Parzen",))["Parzen"][0] < some["Parzen"][0]


def test_the_error_of_variety_is_its_spread(data):
    """Normal numbers in eight dimensions, new samples and a new reference each time: 200 repeats
    know the spread to 5 %.
    """
    from dataclasses import replace

    rng, found = np.random.default_rng(0), []
    for _ in range(200):
        there = replace(data, train=np.zeros((2, 8)), test=rng.normal(size=(150, 8)))
        samples = 1.2 * rng.normal(size=(100, 8))
        found.append(C.score_samples(samples, there, ("variety",))["variety"])
        assert found[-1][0] == variety(samples, there.test)
    values, errors = np.transpose(found)
    assert abs(values.mean() - 1.44) < 0.02 and abs(errors.mean() / values.std(ddof=1) - 1) < 0.15


@pytest.mark.parametrize(
    "asked, match",
    [
        (dict(measures=("Parzen", "charm")), "no measure is called 'charm': choose from Parzen, "),
        (dict(measures=("Fréchet",), rng=Random(0)), "features are needed"),
        (dict(measures=("two-sample",)), "rng is needed: two-sample draws"),
        (dict(measures=("recognisable",)), "64 columns"),
    ],
)
def test_what_cannot_be_scored_is_told(data, flawed, asked, match):
    x = flawed["good"][:, :5] if match == "64 columns" else flawed["good"]
    with pytest.raises(ValueError, match=match):
        C.score_samples(x, data, **asked)


@pytest.mark.parametrize(
    "call, match",
    [
        (lambda x: C.different_bins(x, x, rng=Random(0), n_bins=31), "n_bins must be"),
        (lambda x: C.different_bins(x, x[:, :5], rng=Random(0), n_bins=3), "64 columns"),
        (lambda x: C.copying(x[:1], x, x, x), "two samples"),
        (lambda x: C.birthday_support(x[:1], 1.0), "no pairs"),
        (lambda x: C.birthday_support(x, -1.0), "threshold must be"),
        (lambda x: C.near_duplicate(x[:10]), "10 closest pairs"),
        (
            lambda x: C.completion_variety(x[None], x, np.arange(64) < 5, rng=Random(0)),
            "at least two",
        ),
        (lambda x: C.score_samples(2 * x + 1, Dataset("x", (8, 8), x, x, x)), "above 1"),
    ],
)
def test_bad_input_is_told(parts, call, match):
    with pytest.raises(ValueError, match=match):
        call(parts[0][3][:30])
