"""The judge sits an exam: what do measures of sample sets say where the answer is known?
figures/paper/exam.json.

    python -m experiments.exam            ten repeats; resumes, and prints the table
    python -m experiments.exam --table    prints it only

The 15 sanity checks of Räisä, van Breugel and van der Schaar (ICML 2025, arXiv:2505.22450), with
their distributions, their 1,000 points (sizes are written as multiples of that) and their criteria;
grids are thinner (about 11 points for 51; sizes to 5,000 for 10,000). As there, both sets are
shifted and scaled so that each dimension of the real set has mean 0 and variance 1, the criteria
judge the mean over repeats, and a measure passes where it does in all dimensions. Precision and
recall have k = 5 here, as in biolearn, and 3 there. The bins of 'bins' hold 50 real points each.
Real points are drawn once for a curve, as there, and anew at each of its points where they depend
on it. (At a first sitting these were the same numbers all along the curve: eight of the 346 verdicts
changed.)

THE RULE, fixed before anything was measured. Measures of fidelity and of diversity are asked what
the authors ask of them, in two groups: the *shape* of the curve, and *values* at some of its
points, within 0.05. (The authors' names: shape is property, or invariance or data where the check
is about them; values are bounds, or property where an overlap of 0.2 must be seen.) Of a measure of
both, which must fall where either falls:

- it is a score, 1 for equal distributions: 2 (1 - accuracy) of 'two-sample', 1 - the fraction of
  'bins', and 1 - d / d_max of a distance, with d_max the largest mean in the same case of the
  check;
- a distance has no upper bound, so that it is not asked for a score of 0 or of 0.2, only of 1;
- its shape is that of a measure of diversity where modes are dropped, and a bell where the standard
  deviation changes and, at the five real modes, where modes are dropped or invented;
- it falls when two modes part that the samples do not follow; it is constant where the authors' two
  are;
- its value is 1 where both sets are distributed alike, and 0 at both ends where the mean or the
  standard deviation or the radius changes, where sphere meets torus, in the checks with one
  disjoint dimension, and where either set alone is discrete. At dropped and invented modes no other
  is asked.

A check of our own is asked of 'authenticity' and 'copied': some of the samples are copies of
training points, the others are drawn as those were. With more copies authenticity must fall and
'copied' rise, at each step; without copies each must be within 0.05 of its value for another fresh
set.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from biolearn.core.rng import Random
from biolearn.evaluation.coverage import copying, different_bins
from biolearn.evaluation.features import (
    density_coverage,
    frechet_distance,
    precision_recall,
    two_sample_accuracy,
)
from biolearn.evaluation.statistics import jackknife, sklearn_seed
from experiments import PAPER, command_line, extend_table, judges, origin, read_table

SIZE = 1000
KINDS = {
    "precision": "fidelity",
    "density": "fidelity",
    "clipped density": "fidelity",
    "recall": "diversity",
    "coverage": "diversity",
    "clipped coverage": "diversity",
    "Vendi": "diversity",
    "two-sample": "both",
    "bins": "both",
    "Fréchet": "distance",
    "KID": "distance",
    "sliced Wasserstein": "distance",
    "authenticity": "authenticity",
    "copied": "copied",
}

# ---- criteria: what a curve must be; x and y are the points and the means, (n,) each -------------


def place(x, at):
    "The index of the point `at` of the curve: 'first', 'last', or the nearest to a number."
    ends = {"first": 0, "last": -1}
    return ends[at] if at in ends else int(np.argmin(np.abs(x - at)))


@dataclass(frozen=True)
class Near:
    "The value at the point `at` is `target`, within 0.05."

    at: object
    target: float

    def __call__(self, x, y):
        return bool(abs(y[place(x, self.at)] - self.target) <= 0.05)

    def __str__(self):
        return f"{self.at}: {self.target:g}"


@dataclass(frozen=True)
class Wide:
    "At the point `at` the samples are wider than the data: a low kind of diversity is 0, a high 1."

    at: object

    def __call__(self, x, y):
        return either(Near(self.at, 0), Near(self.at, 1))(x, y)

    def __str__(self):
        return f"{self.at}: 0 or 1"


def either(low, high):
    "'low' or 'high', by the criterion that holds; False if none does."
    return lambda x, y: (low(x, y) and "low") or (high(x, y) and "high")


def bell(middle):
    "High at `middle`, lower by 0.2 at both ends, and no lower between them (within 0.1)."

    def holds(x, y):
        top, ends = y[place(x, middle)], y[[0, -1]]
        return bool(
            top - ends.max() >= 0.2 and y.max() - top <= 0.1 and ends.min() - y.min() <= 0.1
        )

    return holds


def falls(x, y):
    "From the highest value to the lowest (within 0.1), by 0.2."
    return bool(y[0] - y[-1] >= 0.2 and y.max() - y[0] <= 0.1 and y[-1] - y.min() <= 0.1)


def rises(x, y):
    "From the lowest value to the highest (within 0.1), by 0.2."
    return falls(x, y[::-1])


def falls_by(middle):
    "Falls, and by 0.1 already at `middle`."
    return lambda x, y: falls(x, y) and bool(y[0] - y[place(x, middle)] >= 0.1)


def level(x, y):
    "The same everywhere, within 0.05."
    return bool(y.max() - y.min() <= 0.05)


def settles(x, y):
    "The same from the median of the points on, within 0.05."
    return level(x, y[x >= np.median(x)])


def climbs(x, y):
    "Higher at each step; the first point is another fresh set."
    return bool((np.diff(y[1:]) > 0).all())


def like_fresh(x, y):
    "The value without copies is that of another fresh set, within 0.05."
    return bool(abs(y[1] - y[0]) <= 0.05)


# ---- what is drawn: n real points and about as many fake ones, each from its own generator -------


def shifted(real, fake, n, x, d):
    "Gaussians whose means differ by x in each of d dimensions."
    return real.normal(size=(n, d)), fake.normal(x, 1, (n, d))


def with_outlier(real, fake, n, x, d, far, where):
    "One more point, the first, of the set `where`: at the last of the means."
    sets = dict(zip(("real", "fake"), shifted(real, fake, n, x, d)))
    sets[where] = np.concatenate([np.full((1, d), far), sets[where]])
    return sets["real"], sets["fake"]


def widened(real, fake, n, x, d):
    "Gaussians around one mean; the fake standard deviation is x."
    return real.normal(size=(n, d)), fake.normal(0, x, (n, d))


def mixture(generator, n, means, scale, weights):
    "n points of Gaussians around the rows of `means`, as wide as `scale`."
    chosen = generator.choice(len(means), size=n, p=np.asarray(weights) / np.sum(weights))
    return generator.normal(means[chosen], scale)


def dropped(real, fake, n, x, d, together):
    """Ten modes on the diagonal, of which all but the first become rarer `together` by the fraction
    x, or the last x are missing.
    """
    means = np.tile(np.linspace(0, 10, 10)[:, None], d)
    scale = {1: 1 / 6, 8: 1 / 3, 64: 1.0}[d]
    left = [1, *[1 - x] * 9] if together else np.arange(10) < 10 - x
    draw = partial(mixture, n=n, means=means, scale=scale)
    return draw(real, weights=np.ones(10)), draw(fake, weights=left)


MODES = np.array(
    [
        (5.46794328, -4.08481523),
        (4.87211875, -13.64864684),
        (-16.39432073, 9.09802249),
        (-2.15447941, 12.46200019),
        (11.55784483, -4.96049923),
        (-24.60558474, 14.18020818),
        (16.84215967, -3.18710751),
        (-5.47807206, -6.77247129),
        (9.46726546, 1.05922347),
        (-5.40346201, -17.29490131),
    ]
)


def invented(real, fake, n, x):
    "Five real modes, x fake ones: the first of them or, beyond five, others too."
    draw = partial(mixture, n=n, means=MODES, scale=0.25)
    modes = np.arange(len(MODES))
    return draw(real, weights=modes < 5), draw(fake, weights=modes < x)


def parted(real, fake, n, x, d):
    "Two real modes at a distance of x in each dimension, one wide fake one."
    means = np.tile([[-x / 2], [x / 2]], d)
    return mixture(real, n, means, 1, [1, 1]), fake.normal(0, np.sqrt(1 + x**2), (n, d))


def direction(generator, n, d):
    "n points on the surface of the unit sphere."
    points = generator.normal(size=(n, d))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def surface(real, fake, n, x, d):
    "Points on spheres around one centre; the fake radius is x."
    return direction(real, n, d), x * direction(fake, n, d)


def cubes(real, fake, n, x, d, real_too):
    "Unit cubes that overlap in 0.2 of their volume; x n fake points, and as many real ones or n."
    n_fake = round(x * n)
    start = 1 - 0.2 ** (1 / d)
    points = real.random((n_fake if real_too else n, d))
    return points, start + fake.random((n_fake, d))


def ball(generator, n, d, radius):
    "n points inside a ball of d dimensions."
    return radius * generator.random((n, 1)) ** (1 / d) * direction(generator, n, d)


def torus(generator, n):
    "A ring of radius 1 around the third axis, as thick as a disc of radius 0.1."
    disc = ball(generator, n, 2, 0.1)
    angle = generator.uniform(0, 2 * np.pi, n)
    out = 1 + disc[:, 0]
    return np.stack([out * np.cos(angle), out * np.sin(angle), disc[:, 1]], axis=1)


def ball_and_torus(real, fake, n, x, real_ball):
    "A ball inside a ring; x n fake points."
    m = round(x * n)
    if real_ball:
        return ball(real, n, 3, 0.8), torus(fake, m)
    return torus(real, n), ball(fake, m, 3, 0.8)


def stretched(real, fake, n, x):
    "Disjoint in the first dimension, alike in the second, which is x times as wide."
    a, b = shifted(real, fake, n, [6, 0], 2)
    return a * [1, x], b * [1, x]


def heavy_tail(real, fake, n, x):
    "A shifted dimension beside one of Pareto's distribution, which has no variance."
    pareto = lambda generator: 1 + generator.pareto(1.01, n)
    sets = (real.normal(size=n), pareto(real)), (fake.normal(x, 1, n), pareto(fake))
    return tuple(np.stack(columns, axis=1) for columns in sets)


def one_disjoint(real, fake, n, x):
    "Disjoint in one dimension, alike in x others."
    return shifted(real, fake, n, np.append(6, np.zeros(int(x))), int(x) + 1)


def rounded(real, fake, n, x, which):
    "Numbers of standard deviation x; those of the set `which` are whole."
    sets = {"real": x * real.normal(size=(n, 1)), "fake": x * fake.normal(size=(n, 1))}
    sets[which] = np.round(sets[which])
    return sets["real"], sets["fake"]


def some_copied(real, fake, n, x, d):
    "Training points, two more sets like them, and fakes of which the fraction x are copies."
    sets = [real.normal(size=(n, d)) for _ in range(3)]
    copies = round(x * n)
    mine = sets[0][fake.permutation(n)[:copies]]
    return sets, np.concatenate([mine, fake.normal(size=(n - copies, d))])


# ---- what is measured ----------------------------------------------------------------------------


def scores(real, fake, rng):
    "All measures but those of copies, scores or distances, of one pair of sets: {measure: number}."
    centre, scale = real.mean(axis=0), real.std(axis=0)
    real, fake = (real - centre) / scale, (fake - centre) / scale
    near = precision_recall(real, fake) | density_coverage(real, fake)
    bins = different_bins(real, fake, rng=rng.stream("bins"), n_bins=max(2, len(real) // 50))
    return {name: value for name, (value, _) in near.items()} | {
        "clipped density": judges.clipped_density(real, fake),
        "clipped coverage": judges.clipped_coverage(real, fake),
        "Vendi": judges.relative_vendi(real, fake),
        "two-sample": 2 * (1 - two_sample_accuracy(real, fake, rng=rng.stream("two-sample"))[0]),
        "bins": 1 - bins.fraction[0],
        "Fréchet": jackknife(frechet_distance, real, fake, rng=rng.stream("Fréchet"))[0],
        "KID": judges.kid(real, fake)[0],
        "sliced Wasserstein": judges.sliced_wasserstein(real, fake, rng.stream("directions")),
    }


def copy_scores(real, fake, rng):
    "The measures of copies, of fakes against training, validation and test points."
    return {
        "authenticity": judges.authenticity(real[0], fake)[0],
        "copied": copying(fake, *real)["copied"][0],
    }


# ---- the checks ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Check:
    """One check.

    Parameters
    ----------
    draw : draw(real, fake, n, x, *how) -> the two sets, from two generators.
    cases : {name: (points x, how)}, such as dimensions.
    shape : {kind of measure: a criterion of the curve}.
    values : {kind, or 'kind, case': criteria of points}; a kind that is not there is not asked.
    measure : measure(real, fake, rng) -> {measure: number}.
    anew : are the real points drawn anew at each x, since they depend on it?
    """

    draw: Callable
    cases: Mapping[str, tuple]
    shape: Mapping[str, Callable]
    values: Mapping[str, tuple] = field(default_factory=dict)
    measure: Callable = scores
    anew: bool = False


def alike(rule):
    "The same of all kinds."
    return dict.fromkeys(("fidelity", "diversity", "both"), rule)


def in_words(d):
    "The name of a case with `d` dimensions."
    return f"{d} dimension" + "s" * (d > 1)


def dimensions(points, how=(), dims=(1, 8, 64)):
    "Cases: for each number of dimensions its own points, an entry of `points`."
    return {in_words(d): (x, (d, *how)) for d, x in zip(dims, points)}


START, END = Near("first", 1), Near("last", 1)
LOW_START, LOW_END = Near("first", 0), Near("last", 0)
SHIFTS = [np.linspace(-a, a, 11) for a in (6, 3, 1)]
RATIOS = np.geomspace(0.1, 5, 6)  # of sizes to SIZE
WHOLE = {"the whole": ()}


def bell_check(draw, cases, middle):
    "1 at the point `middle`, 0 at both ends, for all kinds."
    values = alike((Near(middle, 1), LOW_START, LOW_END))
    return Check(draw, cases, alike(bell(middle)), values)


def outlier_cases():
    "The cases of `with_outlier`."
    return {
        f"{in_words(d)}, outlier in {where}": (x, (d, x[-1], where))
        for where in ("real", "fake")
        for d, x in zip((1, 8, 64), SHIFTS)
    }


def dropping(points, together, middle):
    "Diversity falls, by 0.1 already at `middle`, and fidelity stays."
    falling = falls_by(middle)
    return Check(
        dropped,
        dimensions([points] * 3, how=(together,)),
        {"fidelity": level, "diversity": falling, "both": falling},
        {"fidelity": (START, END), "diversity": (START,), "both": (START,)},
    )


def sizes(real_too):
    "The value depends on the overlap of 0.2 alone, not on the numbers of points."
    cases = dimensions([RATIOS] * 3, how=(real_too,))
    value = alike((Near("last", 0.2),))
    return Check(cubes, cases, alike(settles), value, anew=real_too)


CHECKS = {
    "mean": bell_check(shifted, dimensions(SHIFTS), 0.0),
    "mean, outlier": bell_check(with_outlier, outlier_cases(), 0.0),
    "standard deviation": Check(
        widened,
        dimensions([np.logspace(-a, a, 11) for a in (3, 1, 0.5)]),
        {"fidelity": falls, "diversity": either(bell(1.0), rises), "both": bell(1.0)},
        {
            "fidelity": (Near(1.0, 1), START, LOW_END),
            "diversity": (Near(1.0, 1), LOW_START, Wide("last")),
            "both": (Near(1.0, 1), LOW_START, LOW_END),
        },
    ),
    # at 47/49 the authors' grid has its quantile of 95 %
    "modes rarer": dropping(np.append(np.arange(10) / 10, (47 / 49, 1)), True, 47 / 49),
    "modes dropped": dropping(np.arange(10), False, 4),
    "modes invented": Check(
        invented,
        {"2 dimensions": (np.arange(1, 11), ())},
        {"fidelity": falls, "diversity": rises, "both": bell(5)},
        {"fidelity": (Near(5, 1), START), "diversity": (Near(5, 1), END), "both": (Near(5, 1),)},
    ),
    "sphere": bell_check(
        surface, dimensions([np.linspace(0.1, 1.9, 11)] * 3, dims=(2, 16, 128)), 1.0
    ),
    "cubes, both sizes": sizes(True),
    "cubes, fake size": sizes(False),
    "ball and torus": Check(
        ball_and_torus,
        {"real ball": (RATIOS, (True,)), "real torus": (RATIOS, (False,))},
        alike(settles),
        alike((LOW_END,)),
    ),
    "one for two modes": Check(
        parted,
        dimensions([np.linspace(0, 5, 11)] * 3),
        {"fidelity": falls, "diversity": either(falls, level), "both": falls},
        alike((START,)),
        anew=True,
    ),
    "one scaled": Check(
        stretched,
        {"2 dimensions": (np.logspace(-3, 3, 11), ())},
        alike(level),
        alike((LOW_START, LOW_END)),
        anew=True,
    ),
    "mean, heavy tail": bell_check(heavy_tail, {"2 dimensions": (SHIFTS[0], ())}, 0.0),
    "one disjoint": Check(
        one_disjoint,
        {"1 more dimension to 1,000": (np.round(np.geomspace(1, 1000, 7)), ())},
        alike(level),
        alike((LOW_START, LOW_END)),
        anew=True,
    ),
    "whole numbers": Check(
        rounded,
        {f"{which} whole": (np.geomspace(1, 1000, 11), (which,)) for which in ("real", "fake")},
        alike(level),
        {
            "fidelity, real whole": (LOW_START, LOW_END),
            "fidelity, fake whole": (START, END),
            "diversity, real whole": (Wide("first"), Wide("last")),
            "diversity, fake whole": (LOW_START, LOW_END),
            "both": (LOW_START, LOW_END),
        },
        anew=True,
    ),
    "copies": Check(
        some_copied,
        dimensions([np.array([0, 0, 0.25, 0.5, 0.75, 1])] * 3),
        {"authenticity": lambda x, y: climbs(x, -y), "copied": climbs},
        dict.fromkeys(("authenticity", "copied"), (like_fresh,)),
        copy_scores,
    ),
}


def tried(trial):
    "The curves of one check, once: {case: {measure: values at its points, as one text}}."
    check, rng = CHECKS[trial.name], Random(trial.seed).stream(trial.name)
    generator = lambda *parts: np.random.default_rng(sklearn_seed(rng.stream(*parts)))
    curves = {}
    for case, (points, how) in check.cases.items():
        found = []
        for i, x in enumerate(points):
            mine = [i] if check.anew else []
            drawn = generator(case, "real", *mine), generator(case, "fake", i)
            sets = check.draw(*drawn, trial.settings["size"], x, *how)
            found.append(check.measure(*sets, rng.stream(case, "measures", i)))
        curves[case] = {name: " ".join(f"{at[name]:.5g}" for at in found) for name in found[0]}
    return {"curves": curves}


# ---- verdicts ------------------------------------------------------------------------------------


def score(kind, means):
    "What is judged: of a distance 1 - d / d_max, of other measures their means."
    return 1 - means / means.max() if kind == "distance" else means


def combined(verdicts):
    """One verdict of several: False if one is, or if 'low' and 'high' are among them; else the one
    of these that is, else True. None, not asked, does not count.
    """
    asked = [verdict for verdict in verdicts if verdict is not None]
    kinds = {"low", "high"}.intersection(asked)
    if False in asked or len(kinds) > 1:
        return False
    return (kinds.pop() if kinds else True) if asked else None


def judged(check, case, kind, y):
    "The verdicts of one curve of scores: 'shape', and 'values' by criterion; None: not asked."
    x, name = check.cases[case][0], "both" if kind == "distance" else kind
    criteria = check.values.get(f"{name}, {case}", check.values.get(name, ()))
    asked = lambda criterion: kind != "distance" or criterion.target == 1
    title = lambda criterion: getattr(criterion, "__name__", str(criterion))
    values = {title(c): c(x, y) if asked(c) else None for c in criteria}
    return {"shape": check.shape[name](x, y), "values": values}


def results_of(name, repeats):
    "The means over repeats, as text, and the verdicts of one check, by case."
    check, found = CHECKS[name], {}
    for case, (points, _) in check.cases.items():
        curves = [repeat["curves"][case] for repeat in repeats.values()]
        values = lambda m: [np.array(curve[m].split(), float) for curve in curves]
        means = {m: np.mean(values(m), axis=0) for m in curves[0]}
        verdicts = {m: judged(check, case, KINDS[m], score(KINDS[m], y)) for m, y in means.items()}
        text = lambda y: " ".join(f"{value:.5g}" for value in y)
        curves = {m: text(y) for m, y in means.items()}
        found[case] = {"points": text(points), "means": curves, "verdicts": verdicts}
    return found


def overall(cases):
    "{measure: {'shape', 'values'}}: the verdicts of all cases of a check together."
    first, *_ = cases.values()
    return {
        m: {
            "shape": combined(case["verdicts"][m]["shape"] for case in cases.values()),
            "values": combined(
                v for case in cases.values() for v in case["verdicts"][m]["values"].values()
            ),
        }
        for m in first["verdicts"]
    }


def finish(table):
    "What is written beside the repeats."
    checks = {name: results_of(name, table["repeats"][name]) for name in table["repeats"]}
    verdicts = {name: overall(cases) for name, cases in checks.items()}
    return {"kinds": KINDS, "checks": checks, "verdicts": verdicts, **origin()}


SIGNS = {True: "T", False: "F", "low": "L", "high": "H", None: "-"}


def as_text(verdicts):
    """The table: a line for each measure, a column for each check with the signs of shape and
    values: T passes, L and H pass as low and high diversity, F fails, - is not asked.
    """
    names = [name for name in CHECKS if name in verdicts]
    lines = [f"{i:2} {name}" for i, name in enumerate(names, 1)]
    lines.append(" " * 29 + " ".join(f"{i:2}" for i in range(1, len(names) + 1)) + "  passed")
    for measure, kind in KINDS.items():
        found = [verdicts[name].get(measure, {}) for name in names]
        pairs = [(v.get("shape"), v.get("values")) for v in found]
        asked = [verdict for pair in pairs for verdict in pair if verdict is not None]
        signs = " ".join("".join(SIGNS[v] for v in pair) for pair in pairs)
        passed = sum(v is not False for v in asked)
        lines.append(f"{measure:18} {kind[:9]:9} {signs}  {passed}/{len(asked)}")
    return "\n".join(lines)


def main(argv=None):
    parser = command_line("exam", __doc__, PAPER / "exam.json", seeds="0-9")
    option = parser.add_argument
    option("--checks", nargs="+", choices=CHECKS, default=list(CHECKS), metavar="NAME")
    option("--size", type=int, default=SIZE, metavar="N", help="points (default: %(default)s)")
    option("--table", action="store_true", help="print the verdicts only")
    asked, failed = parser.parse_args(argv), 0
    if not asked.table:
        settings = {name: {"size": asked.size} for name in asked.checks}
        where = lambda trial: ("repeats", trial.name, trial.seed)
        failed = extend_table(asked, settings, asked.seeds, tried, where, finish)
    print(as_text(read_table(asked.out)["verdicts"]))
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
