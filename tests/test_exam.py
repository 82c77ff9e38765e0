"""The exam: its measures against their definitions, closed forms and simulations, its criteria on
curves drawn by hand, its samplers by moments and supports, and a small exam from end to end.
"""

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from biolearn.core.files import as_plain
from biolearn.core.rng import Random
from biolearn.reproduction.study import Trial
from experiments import exam, judges, read_table
from experiments.exam import CHECKS, KINDS, Near, Wide

GENERATOR = np.random.default_rng


def gaussian(n=60, d=3, seed=0, mean=0.0):
    return GENERATOR(seed).normal(mean, 1, (n, d))


# ---- kernel distance -----------------------------------------------------------------------------


def test_kid_is_the_u_statistic_of_its_definition():
    real, fake = gaussian(7), gaussian(5, seed=1, mean=0.5)
    kernel = lambda x, y: (x @ y / 3 + 1) ** 3
    inner = lambda a: np.mean(
        [kernel(x, y) for i, x in enumerate(a) for j, y in enumerate(a) if i != j]
    )
    across = np.mean([kernel(x, y) for x in real for y in fake])
    assert judges.kid(real, fake)[0] == pytest.approx(inner(real) + inner(fake) - 2 * across)


def test_kid_of_more_than_one_block_of_rows():
    real, fake = gaussian(1500, seed=1), gaussian(1100, seed=2, mean=0.2)
    kernel = lambda a, b: (a @ b.T / 3 + 1) ** 3
    inner = lambda k: (k.sum() - np.trace(k)) / (len(k) * (len(k) - 1))
    expected = inner(kernel(real, real)) + inner(kernel(fake, fake)) - 2 * kernel(real, fake).mean()
    assert judges.kid(real, fake)[0] == pytest.approx(expected)


@pytest.mark.parametrize("mean, most", [(0.0, 1.5), (0.7, 1.15)])
def test_kid_is_0_on_average_for_equal_sets_and_its_standard_error_is_the_spread(mean, most):
    "Of 300 pairs of sets; where they are alike the standard error is larger, by up to √2."
    pairs = [
        judges.kid(gaussian(80, 2, 2 * s), gaussian(50, 2, 2 * s + 1, mean)) for s in range(300)
    ]
    values, errors = np.array(pairs).T
    spread = values.std(ddof=1)
    if mean == 0:
        assert abs(values.mean()) < 4 * spread / np.sqrt(300)
    ratio = np.sqrt((errors**2).mean()) / spread
    assert 0.87 < ratio < most


# ---- clipped density and coverage ----------------------------------------------------------------


def clipped_by_definition(real, fake, k):
    "Clipped density, point by point."
    distance = lambda a, b: float(np.linalg.norm(a - b))
    others = [
        sorted((distance(a, b), j) for j, b in enumerate(real) if j != i)
        for i, a in enumerate(real)
    ]
    radii = [near[k - 1][0] for near in others]
    radii = [min(r, float(np.median(radii))) for r in radii]
    own = [sum(distance(x, c) <= r for c, r in zip(real, radii)) - 1 for x in real]
    new = [sum(distance(x, c) <= r for c, r in zip(real, radii)) for x in fake]
    mean = lambda counts: np.mean([min(c / k, 1) for c in counts])
    return min(mean(new) / mean(own), 1)


@pytest.mark.parametrize("mean", [0.5, 1.5])
def test_clipped_density_is_that_of_its_definition(mean):
    real, fake = gaussian(), gaussian(40, seed=1, mean=mean)
    expected = clipped_by_definition(real, fake, 4)
    assert 0 < expected < 1
    assert judges.clipped_density(real, fake, 4) == pytest.approx(expected)


def test_a_real_outlier_does_not_vouch_for_fakes_but_in_plain_density_it_does():
    real = np.concatenate([gaussian(200, 2), [[100.0, 0.0]]])
    fake = gaussian(200, 2, seed=1) + [60.0, 0.0]
    assert judges.clipped_density(real, fake) == 0
    assert exam.density_coverage(real, fake)["density"][0] > 0.1


def test_equal_sets_have_clipped_scores_of_one():
    real, fake = gaussian(1000), gaussian(1000, seed=1)
    assert judges.clipped_density(real, fake) > 0.95
    assert judges.clipped_coverage(real, fake) > 0.95


def test_expected_coverage_with_one_neighbour_has_a_closed_form():
    "The nearest of m fakes and n - 1 real points is a fake with probability m / (m + n - 1)."
    m = np.arange(41)
    assert np.allclose(judges.expected_coverage(30, 40, 1), m / (m + 29))


@pytest.mark.parametrize("kept", [0, 2, 9, 25])
def test_expected_coverage_is_the_mean_of_a_simulation(kept):
    far = np.full((25 - kept, 2), 1e6)
    covered = []
    for seed in range(400):
        points = gaussian(30 + kept, 2, seed)
        covered.append(judges.raw_coverage(points[:30], np.concatenate([points[30:], far]), 3))
    error = np.std(covered, ddof=1) / 20
    assert abs(np.mean(covered) - judges.expected_coverage(30, 25, 3)[kept]) <= 4 * error


def test_clipped_coverage_is_the_fraction_of_good_fakes():
    fake = gaussian(600, 2, seed=1)
    fake[240:] += 1000.0
    assert judges.clipped_coverage(gaussian(600, 2), fake) == pytest.approx(0.4, abs=0.05)


# ---- Vendi, authenticity, sliced Wasserstein -----------------------------------------------------


def test_vendi_counts_far_points_by_the_entropy_of_their_shares():
    places = np.array([[0.0], [100.0], [200.0]])
    assert judges.vendi(np.repeat(places, 4, axis=0), 1.0) == pytest.approx(3)
    p = np.array([0.5, 0.25, 0.25])
    uneven = np.repeat(places, [4, 2, 2], axis=0)
    assert judges.vendi(uneven, 1.0) == pytest.approx(np.exp(-(p * np.log(p)).sum()))


def test_vendi_of_two_points_has_a_closed_form():
    "Eigenvalues (1 ± s) / 2 with s = exp(-d² / 2 w²)."
    s = np.exp(-(3.0**2) / (2 * 2.0**2))
    values = np.array([1 + s, 1 - s]) / 2
    expected = np.exp(-(values * np.log(values)).sum())
    assert judges.vendi(np.array([[0.0], [3.0]]), 2.0) == pytest.approx(expected)


def test_vendi_is_compared_at_the_width_of_the_real_points_and_at_equal_sizes():
    assert judges.kernel_width(np.array([[0.0], [1.0], [5.0]])) == 4
    real = gaussian(90, 2)
    assert judges.relative_vendi(real, real) == pytest.approx(1)
    fake = np.concatenate([real[:50], np.zeros((40, 2))])
    assert judges.relative_vendi(real, fake, most=50) == pytest.approx(1)
    assert judges.relative_vendi(real, fake) < 0.95
    assert judges.relative_vendi(real, 3 * real) > 1.1


def test_authenticity_is_that_of_its_definition():
    train, fake = gaussian(40, 2), gaussian(70, 2, seed=1)
    authentic = []
    for x in fake:
        nearest = min(range(40), key=lambda i: np.linalg.norm(train[i] - x))
        others = [np.linalg.norm(train[nearest] - train[j]) for j in range(40) if j != nearest]
        authentic.append(np.linalg.norm(train[nearest] - x) > min(others))
    value, error = judges.authenticity(train, fake)
    assert value == pytest.approx(np.mean(authentic)) and 0.2 < value < 0.8
    assert error == pytest.approx(np.sqrt(value * (1 - value) / 70), rel=0.05)
    assert judges.authenticity(train, train[:9])[0] == 0


@pytest.mark.parametrize("n", [30, 20, 45])
def test_sliced_wasserstein_in_one_dimension_is_scipys(n):
    real, fake = gaussian(30, 1), gaussian(n, 1, seed=1, mean=0.4)
    expected = wasserstein_distance(real[:, 0], fake[:, 0])
    assert judges.sliced_wasserstein(real, fake, Random(0)) == pytest.approx(expected)


def test_sliced_wasserstein_of_a_shift_is_its_mean_projection():
    "|v| times 2/π in two dimensions; of 4,000 directions, whose projections have a spread of 0.31."
    real = gaussian(25, 2)
    found = judges.sliced_wasserstein(real, real + [3.0, 4.0], Random(0), 4000)
    assert found == pytest.approx(5 * 2 / np.pi, abs=4 * 5 * 0.31 / np.sqrt(4000))


# ---- criteria ------------------------------------------------------------------------------------

X = np.arange(5.0)


@pytest.mark.parametrize(
    "criterion, good, bad",
    [
        (exam.bell(2.0), [0, 0.5, 1, 0.5, 0.1], [[0, 0.5, 1, 0.5, 0.9], [0, 1, 0.8, 1, 0]]),
        (exam.bell(2.0), [0.15, 0.1, 1, 0, 0], [[0.5, 0.3, 1, 0.3, 0.5], [0, 0, 0.15, 0, 0]]),
        (exam.falls, [1, 0.9, 1.05, 0.3, 0.35], [[1, 0.9, 0.9, 0.9, 0.85], [0.5, 1, 0.8, 0.3, 0]]),
        (exam.falls, [1, 1, 1, 0, 0.1], [[1, 1, 0, 0, 0.2], [0, 0.5, 0.6, 0.7, 1]]),
        (exam.rises, [0, 0.5, 0.6, 0.7, 1], [[1, 0.9, 0.5, 0.2, 0], [0, 0.5, 1, 1, 0.8]]),
        (exam.falls_by(1.0), [1, 0.85, 0.5, 0.2, 0], [[1, 0.95, 0.5, 0.2, 0], [1, 0, 1, 1, 1]]),
        (exam.level, [0.3, 0.32, 0.33, 0.31, 0.3], [[0.3, 0.3, 0.36, 0.3, 0.3]]),
        (exam.settles, [1, 0.5, 0.2, 0.2, 0.23], [[1, 0.5, 0.3, 0.2, 0.2], [0, 0, 0, 0, 1]]),
        (exam.climbs, [9, 0, 0.1, 0.2, 0.3], [[9, 0, 0.2, 0.2, 0.3], [0, 3, 2, 1, 0]]),
        (exam.like_fresh, [0.5, 0.54, 1, 1, 1], [[0.5, 0.56, 1, 1, 1]]),
        (Near("first", 1), [0.96, 0, 0, 0, 0], [[0.94, 1, 1, 1, 1], [1.06, 1, 1, 1, 1]]),
        (Near("last", 0), [1, 1, 1, 1, -0.04], [[0, 0, 0, 0, 0.06]]),
        (Near(3.0, 0.2), [1, 1, 1, 0.24, 1], [[0.2, 0.2, 0.2, 0.1, 0.2]]),
    ],
)
def test_a_criterion_accepts_and_refuses(criterion, good, bad):
    assert criterion(X, np.array(good)) is True
    for curve in bad:
        assert criterion(X, np.array(curve)) is False


def test_a_kind_of_diversity_is_low_or_high_or_none():
    of = lambda *y: Wide("last")(X, np.array(y))
    assert of(1, 1, 1, 1, 0.02) == "low" and of(0, 0, 0, 0, 0.98) == "high"
    assert of(1, 1, 1, 1, 0.5) is False
    shape = CHECKS["standard deviation"].shape["diversity"]
    x = np.linspace(0, 2, 5)
    assert shape(x, np.array([0, 0.5, 1, 0.5, 0])) == "low"
    assert shape(x, np.array([0, 0.5, 1, 1, 1])) == "high"
    assert shape(x, np.array([0, 0.5, 1, 0.6, 0.85])) is False


def test_verdicts_are_combined_as_published():
    assert exam.combined([True, None, True]) is True
    assert exam.combined([True, False, "low"]) is False
    assert exam.combined(["low", True, "low"]) == "low"
    assert exam.combined(["high", None]) == "high"
    assert exam.combined(["low", True, "high"]) is False
    assert exam.combined([None, None]) is None and exam.combined([]) is None


def test_a_distance_is_judged_as_a_score_and_not_asked_for_a_lower_bound():
    y = exam.score("distance", np.array([4.0, 2, 1, 0, 0, 0, 0, 0, 1, 2, 4]))
    assert y[0] == 0 and y[5] == 1
    verdict = exam.judged(CHECKS["mean"], "8 dimensions", "distance", y)
    assert verdict == {"shape": True, "values": {"0.0: 1": True, "first: 0": None, "last: 0": None}}
    verdict = exam.judged(CHECKS["mean"], "8 dimensions", "both", y + 0.06)
    assert verdict["values"] == {"0.0: 1": False, "first: 0": False, "last: 0": False}
    assert np.array_equal(exam.score("both", y), y)


def test_fidelity_and_diversity_are_asked_opposite_things_where_one_set_is_discrete():
    check, ones = CHECKS["whole numbers"], np.ones(11)
    good = lambda case, kind, y: exam.combined(exam.judged(check, case, kind, y)["values"].values())
    assert good("fake whole", "fidelity", ones) is True
    assert good("fake whole", "diversity", ones) is False
    assert good("real whole", "fidelity", ones) is False
    assert good("real whole", "diversity", ones) == "high"


@pytest.mark.parametrize("name", [name for name in CHECKS if name != "copies"])
def test_every_kind_of_measure_is_asked_for_a_shape_and_a_value(name):
    for case, (points, _) in CHECKS[name].cases.items():
        assert np.all(np.diff(points) > 0)
        for kind in ("fidelity", "diversity", "both", "distance"):
            verdict = exam.judged(CHECKS[name], case, kind, np.linspace(0, 1, len(points)))
            assert verdict["shape"] in (True, False, "low", "high") and verdict["values"]


# ---- what is drawn -------------------------------------------------------------------------------


def drawn(name, case, x, n=4000):
    check = CHECKS[name]
    return check.draw(GENERATOR(1), GENERATOR(2), n, x, *check.cases[case][1])


@pytest.mark.parametrize(
    "name, case, x, mean, sd",
    [
        ("mean", "8 dimensions", -3.0, -3, 1),
        ("standard deviation", "8 dimensions", 0.1, 0, 0.1),
        ("one for two modes", "8 dimensions", 3.0, 0, np.sqrt(10)),
        ("one scaled", "2 dimensions", 100.0, [6, 0], [1, 100]),
        ("one disjoint", "1 more dimension to 1,000", 3.0, [6, 0, 0, 0], 1),
    ],
)
def test_fake_gaussians_have_their_means_and_widths(name, case, x, mean, sd):
    _, fake = drawn(name, case, x)
    assert np.all(np.abs(fake.mean(axis=0) - mean) < 5 * np.array(sd) / np.sqrt(4000))
    assert np.allclose(fake.std(axis=0), sd, rtol=0.06)


def test_real_modes_part_and_keep_their_width():
    real, _ = drawn("one for two modes", "1 dimension", 5.0)
    assert real.var() == pytest.approx(1 + 5**2 / 4, rel=0.05)


def shares(points, means):
    "The share of points that are nearest to each of the means."
    nearest = np.abs(points[:, :1] - means[:, 0]).argmin(axis=1)
    return np.bincount(nearest, minlength=len(means)) / len(points)


def test_modes_become_rarer_or_are_dropped_or_invented():
    means = np.linspace(0, 10, 10)[:, None]
    real, fake = drawn("modes rarer", "1 dimension", 0.5)
    assert np.allclose(shares(real, means), 0.1, atol=0.025)
    assert np.allclose(shares(fake, means), [1 / 5.5, *[0.5 / 5.5] * 9], atol=0.025)
    _, fake = drawn("modes dropped", "1 dimension", 4)
    assert np.allclose(shares(fake, means), [*[1 / 6] * 6, *[0] * 4], atol=0.025)
    real, fake = drawn("modes invented", "2 dimensions", 7)
    place = lambda points: np.unique(
        np.linalg.norm(points[:, None] - exam.MODES, axis=2).argmin(axis=1)
    )
    assert place(real).tolist() == list(range(5)) and place(fake).tolist() == list(range(7))


def test_an_outlier_is_one_point_more_in_one_set():
    for where, i in (("real", 0), ("fake", 1)):
        sets = drawn("mean, outlier", f"8 dimensions, outlier in {where}", 1.0, 50)
        assert [len(s) for s in sets] == [50 + (i == 0), 50 + (i == 1)]
        assert np.all(sets[i][0] == 3) and len(sets[i]) == 51


def test_points_lie_on_spheres_in_balls_and_in_rings():
    real, fake = drawn("sphere", "16 dimensions", 0.3, 50)
    assert np.allclose(np.linalg.norm(real, axis=1), 1)
    assert np.allclose(np.linalg.norm(fake, axis=1), 0.3)
    inside, ring = drawn("ball and torus", "real ball", 2.0)
    assert len(inside) == 4000 and len(ring) == 8000
    radius = np.linalg.norm(inside, axis=1)
    assert radius.max() <= 0.8 and radius.mean() == pytest.approx(0.8 * 3 / 4, rel=0.02)
    tube = np.hypot(np.hypot(ring[:, 0], ring[:, 1]) - 1, ring[:, 2])
    assert tube.max() <= 0.1 and tube.mean() == pytest.approx(0.1 * 2 / 3, rel=0.02)
    assert np.abs(ring.mean(axis=0)).max() < 0.05


@pytest.mark.parametrize(
    "case, d", [("1 dimension", 1), ("8 dimensions", 8), ("64 dimensions", 64)]
)
def test_cubes_overlap_in_a_fifth_of_their_volume(case, d):
    real, fake = drawn("cubes, fake size", case, 2.0, 3000)
    assert len(real) == 3000 and len(fake) == 6000 and real.shape[1] == d
    within = lambda points, low: ((points >= low) & (points <= low + 1)).all(axis=1).mean()
    assert within(fake, 0) == pytest.approx(0.2, abs=0.03)
    assert within(real, 1 - 0.2 ** (1 / d)) == pytest.approx(0.2, abs=0.03)
    assert [len(s) for s in drawn("cubes, both sizes", case, 0.5, 100)] == [50, 50]


def test_heavy_tails_follow_pareto_and_whole_numbers_are_whole():
    for points in drawn("mean, heavy tail", "2 dimensions", 6.0):
        assert points[:, 1].min() >= 1
        assert np.median(points[:, 1]) == pytest.approx(2 ** (1 / 1.01), rel=0.06)
    real, fake = drawn("whole numbers", "fake whole", 3.0)
    assert np.all(fake == np.round(fake)) and not np.any(real == np.round(real))
    assert real.std() == pytest.approx(3, rel=0.05) and fake.std() == pytest.approx(3, rel=0.05)


def test_a_fraction_of_fakes_are_copies_of_different_training_points():
    (train, valid, test), fake = drawn("copies", "8 dimensions", 0.25, 200)
    copies = (fake[:, None] == train).all(axis=2)
    assert copies.sum() == 50 and copies.sum(axis=0).max() == 1
    assert (
        len(valid) == len(test) == 200 and not np.intersect1d(train, np.stack([valid, test])).size
    )


# ---- the whole -----------------------------------------------------------------------------------


def test_scores_do_not_change_when_dimensions_are_scaled():
    "The exam sees real sets of mean 0 and variance 1, whatever they were."
    real, fake = gaussian(60, 2), gaussian(60, 2, seed=1, mean=0.5)
    stretch = lambda points: points * [1, 1000.0] + [5, -3]
    one, other = (exam.scores(f(real), f(fake), Random(0)) for f in (lambda a: a, stretch))
    assert one == pytest.approx(other, rel=1e-4) and set(one) < set(KINDS)


@pytest.mark.parametrize("anew", [False, True])
def test_a_check_is_drawn_anew_with_each_seed_and_where_its_real_points_depend_on_x(
    anew, monkeypatch
):
    seen = []
    measure = lambda real, fake, rng: seen.append((real, fake)) or {"m": 0.0}
    cases = exam.dimensions([[0.0, 1.0]], dims=(1,))
    check = exam.Check(exam.shifted, cases, {}, {}, measure, anew)
    monkeypatch.setitem(CHECKS, "mean", check)
    for seed in (0, 1):
        exam.tried(Trial("mean", {"size": 20}, seed))
    (real, fake), (same, other), (new, _), _ = seen
    assert np.array_equal(real, same) is not anew
    assert not np.any(real == new) and not np.any(fake == other - 1)


def test_real_points_are_drawn_anew_in_five_checks():
    "Where their distribution or their number depends on x."
    anew = ["cubes, both sizes", "one for two modes", "one scaled", "one disjoint", "whole numbers"]
    assert [name for name, check in CHECKS.items() if check.anew] == anew


def test_a_small_exam_is_sat_resumed_and_printed(tmp_path, monkeypatch, capsys):
    out = tmp_path / "exam.json"
    monkeypatch.setattr(exam, "PAPER", tmp_path)
    arguments = ["--checks", "one scaled", "copies", "--size", "50", "--workers", "1"]
    assert exam.main([*arguments, "--seeds", "0-1", "--out", str(out)]) == 0
    table = read_table(out)
    case = table["checks"]["one scaled"]["2 dimensions"]
    curves = [table["repeats"]["one scaled"][s]["curves"]["2 dimensions"] for s in "01"]
    read = lambda text: np.array(text.split(), float)
    for name, mean in case["means"].items():  # written with five digits
        assert read(mean) == pytest.approx(np.mean([read(c[name]) for c in curves], axis=0), 5e-5)
    points = read(case["points"])
    assert points[0] == pytest.approx(1e-3) and len(points) == 11
    assert read(case["means"]["density"]).max() < 0.3  # disjoint by six standard deviations
    assert table["verdicts"]["copies"]["copied"]["shape"] is True
    before = out.read_text()
    printed = capsys.readouterr().out
    monkeypatch.setattr(exam, "tried", None)  # nothing is measured again
    assert exam.main(["--table", "--out", str(out)]) == 0
    assert capsys.readouterr().out == printed[printed.index(" 1 one scaled") :]
    assert exam.main([*arguments, "--seeds", "0-1", "--out", str(out)]) == 0
    assert out.read_text() == before
    line = next(x for x in printed.splitlines() if x.startswith("copied"))
    assert "--" in line and "T" in line


def test_the_stored_verdicts_are_those_of_the_stored_repeats():
    table = read_table(exam.PAPER / "exam.json")
    found = as_plain(exam.finish(table))
    assert list(table["repeats"]) == list(CHECKS)
    assert found["verdicts"] == table["verdicts"] and found["kinds"] == table["kinds"]
