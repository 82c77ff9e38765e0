"""More measures of a sample set beside those of biolearn.evaluation, each on NumPy arrays of
features or points: `real` (n, d) and `fake` (m, d). experiments/exam.py asks all of them what they
see.

Left out: the feature likelihood divergence (Jiralerspong et al. 2023). Its widths, one for each
sample, need a fit of their own, which costs more than all other measures together, and it has no
value for a perfect set: it needs a second fit to unseen digits to be read.
"""

import numpy as np
from scipy.spatial.distance import pdist
from scipy.stats import betabinom
from sklearn.metrics import euclidean_distances
from sklearn.neighbors import NearestNeighbors

from biolearn.evaluation.features import balls_holding
from biolearn.evaluation.neighbours import nearest_distance
from biolearn.evaluation.statistics import fraction_and_stderr, row_blocks


def _neighbours(points, k):
    "Distances and rows of the k nearest other points of each point, nearest first: (n, k) each."
    return NearestNeighbors(n_neighbors=k, algorithm="brute").fit(points).kneighbors()


def _radii(points, k):
    "The distance of each point to its k-th nearest other point: (n,)."
    return _neighbours(points, k)[0][:, -1]


def _similarity(points, others, same=False):
    """The mean of (x·y/d + 1)³ over the `others` (m, d) for each of the `points` (n, d): (n,),
    1,000 rows at a time; with `same` the sets are one, and no point is compared with itself.
    """
    d, rest = points.shape[1], len(others) - same
    sums = []
    for block in row_blocks(len(points), 1000):
        kernel = (points[block] @ others.T / d + 1) ** 3
        sums.append(kernel.sum(axis=1))
    own = ((points**2).sum(axis=1) / d + 1) ** 3
    return (np.concatenate(sums) - same * own) / rest


def kid(real, fake):
    """Kernel distance of Bińkowski et al. (2018), arXiv:1801.01401: the squared maximum mean
    discrepancy with the kernel (x·y/d + 1)³, without bias, so that it is below 0 as often as above
    for equal distributions; with its standard error. At least two rows each.

    The kernel sees differences in the first three moments, relative to features of variance 1. The
    standard error is that of a U-statistic's first order, from each row's mean similarities; for
    equal distributions it is too large by up to √2, since the noise of these means counts twice.
    """
    inner = _similarity(real, real, same=True), _similarity(fake, fake, same=True)
    across = _similarity(real, fake), _similarity(fake, real)
    value = inner[0].mean() + inner[1].mean() - 2 * across[0].mean()
    spread = [(a - b).var(ddof=1) / len(a) for a, b in zip(inner, across)]
    return float(value), float(2 * np.sqrt(sum(spread)))


def clipped_density(real, fake, k=5):
    """Fidelity of Salvy, Talbot and Thirion (arXiv:2507.01761), 0 to 1: density where neither a
    real outlier's ball nor a fake in many balls counts for more than others.

    The balls reach to the k-th nearest other real point, but no farther than their median does; a
    point in j balls counts min(j/k, 1), and the mean over fakes is divided by that over real points
    (in the balls of others). More than k real rows.
    """
    distances, rows = _neighbours(real, k)
    radii = np.minimum(distances[:, -1], np.median(distances[:, -1]))
    own = np.bincount(rows[distances <= radii[:, None]], minlength=len(real))
    ideal = np.minimum(own / k, 1).mean()
    return float(min(np.minimum(balls_holding(fake, real, radii) / k, 1).mean() / ideal, 1))


def raw_coverage(real, fake, k=5):
    """How full the real points' balls (to their k-th nearest other real point) are: the mean of
    min(j/k, 1) for j fakes in the ball.
    """
    radii = _radii(real, k)
    held = [
        (euclidean_distances(real[block], fake) <= radii[block, None]).sum(axis=1)
        for block in row_blocks(len(real), 1000)
    ]
    return float(np.minimum(np.concatenate(held) / k, 1).mean())


def expected_coverage(n, m, k=5):
    """What `raw_coverage` is expected to be with n real points if 0, 1, ... m fakes are drawn as
    the real ones are, and the others lie in no ball: (m + 1,), rising from 0.

    Of i such fakes, j fall into a ball with the probability of a beta-binomial distribution with
    parameters k and n - k, since all orders of the distances to its centre are equally likely.
    """
    good = np.arange(m + 1)[:, None]
    short = np.arange(k)  # balls with fewer than k
    return 1 - (betabinom.pmf(short, good, k, n - k) * (k - short) / k).sum(axis=1)


def clipped_coverage(real, fake, k=5):
    """Diversity of Salvy, Talbot and Thirion (arXiv:2507.01761), 0 to 1: the fraction of fakes
    that, drawn as the real ones are, would fill the balls as much as all fakes do. More than k real
    rows.

    `raw_coverage`, read backwards through `expected_coverage`, between whole numbers of fakes too.
    """
    expected = expected_coverage(len(real), len(fake), k)
    good = np.interp(raw_coverage(real, fake, k), expected, np.arange(len(expected)))
    return float(good / len(fake))


def kernel_width(real):
    "The width for `vendi`: the median distance between two rows of `real` (n, d), at least two."
    return float(np.median(pdist(real)))


def vendi(points, width):
    """How many different points there are, 1 to n (Friedman and Dieng 2023, arXiv:2210.02410): exp
    of the entropy of the eigenvalues of K/n, K = exp(-|x - y|² / (2 width²)), `points` (n, d).

    It depends on n and on `width`: compare sets of equal size, with the `kernel_width` of real
    points.
    """
    kernel = np.exp(-euclidean_distances(points, squared=True) / (2 * width**2))
    values = np.linalg.eigvalsh(kernel / len(points))
    values = values[values > 0]
    return float(np.exp(-np.sum(values * np.log(values))))


def relative_vendi(real, fake, most=500):
    """vendi(fake) / vendi(real), of the first rows of both: as many as the smaller has, at most
    `most`, since the eigenvalues cost the cube of that.
    """
    n = min(len(real), len(fake), most)
    width = kernel_width(real[:n])
    return vendi(fake[:n], width) / vendi(real[:n], width)


def authenticity(train, fake):
    """The fraction of fakes that are farther from their nearest training point than that point is
    from its nearest other training point (Alaa et al. 2022, arXiv:2102.08921), with its binomial
    standard error; 0 for copies. `train` (n, d), n at least 2, and `fake` (m, d).
    """
    search = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(train)
    nearest = search.kneighbors(fake, return_distance=False)[:, 0]
    return fraction_and_stderr(nearest_distance(fake, train) > _radii(train, 1)[nearest])


def sliced_wasserstein(real, fake, rng, directions=128):
    """The Wasserstein-1 distance of the projections, in units of the data, mean over random
    directions (the mean distance of sorted points where n = m; after Rabin et al. 2011).

    Exact for each direction, also where n and m differ: between the steps of both the distribution
    functions' inverses are constant. `rng` is a `Random`.
    """
    axes = np.asarray(rng.normal((real.shape[1], directions), "float64"))
    axes /= np.linalg.norm(axes, axis=0)
    steps = np.union1d(
        np.arange(1, len(real) + 1) / len(real), np.arange(1, len(fake) + 1) / len(fake)
    )
    lengths = np.diff(steps, prepend=0)
    middles = steps - lengths / 2
    a, b = (
        np.sort(points @ axes, axis=0)[(middles * len(points)).astype(int)]
        for points in (real, fake)
    )
    return float(lengths @ np.abs(a - b).mean(axis=1))
