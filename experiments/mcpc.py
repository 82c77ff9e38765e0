"""Networks that the authors of Monte Carlo predictive coding trained: figures/paper/mcpc.json.

    git clone https://github.com/gaspardol/MonteCarloPredictiveCoding theirs
    git -C theirs checkout fa98a62
    python -m experiments.mcpc --theirs theirs/models      all nine networks; resumes

Oliviers, Bogacz and Meulemans (2024) keep three networks for each question of their table. The
weights are read as plain numbers, so PyTorch is not needed and nothing in the files is executed.

- ml: -log p of digits in nats, by a digit's mean probability under 5,000 ancestral draws; here the
  mean of five such estimates.
- mse: the squared error of upper halves. Adam descends the energy given the lower half, and the
  pixels that the states then predict are rounded.
- fid: 10,000 mean pictures are asked the questions of nbs/25_comparison.ipynb on test digits.

Their settings stand in table_1.py (draws, steps and rate of the descent) and in utils: model.py
(where states start, which half is given), training_evaluation.py (logits clipped at ±20, rounding,
mean pictures) and data.py (a pixel above a half is on; the last 4,000 test digits are reported).
The published numbers are those of Table 2 of Sennesh et al. (2024), in the PDF of
github.com/esennesh/dcpc_paper at 5e6346d.

THE RULE: a published number is met if `statistics.outcome` says "same" (the means lie within three
standard errors of their difference), its error being the standard deviation over three networks.

What this cannot say. The authors chose settings by test digits 0 to 5,999, which the row "fid" sees
too, and trained on all 60,000 digits, also on our validation digits; so "copied" takes test digits
in their place. Their own FID looks through a network trained on ImageNet and cannot be compared
with our Fréchet distance. The row "mcpc" of Table 3 is our own writing with another architecture:
two hidden layers of 1,000 and 100 units, Gaussian pixels, six Langevin steps a visit, and no
descent before them.
"""

import math
import sys
import zipfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from biolearn.core.arrays import logsumexp
from biolearn.core.layers import relu, sigmoid, softplus
from biolearn.core.optimizers import update_weights
from biolearn.core.rng import Random
from biolearn.evaluation.coverage import score_samples
from biolearn.evaluation.statistics import mean_and_sd, mean_and_stderr, outcome, row_blocks
from experiments import PAPER, command_line, extend_table, mnist, origin
from experiments.trained import features_of

PUBLISHED = {
    "-log p": {"n": 3, "mean": 144.6, "sd": 0.7},
    "upper halves": {"n": 3, "mean": 8.29e-2, "sd": 0.05e-2},
}
DRAWS, ESTIMATES, PICTURES = 5000, 5, 10_000
STEPS, RATE, REACH = 250, 0.7, 10.0  # of the descent, and how far from zero it may start


@dataclass(frozen=True)
class Network:
    """Layers of states with unit variance above pixels that are on or off: `top`, the means of the
    highest layer, and from above `maps`, (W, b), by which relu(h) @ W + b is the mean of the layer
    below h, or the logits of the pixels.
    """

    top: np.ndarray
    maps: list[tuple[np.ndarray, np.ndarray]]

    def predictions(self, h):
        "What each layer of `h`, from above, predicts of the next; at last the logits of pixels."
        return [relu(a) @ W + b for a, (W, b) in zip(h, self.maps)]

    def slopes(self, h, x):
        "The gradient of the energy, -log p(x, h), in each layer of `h`."
        *means, logits = [self.top, *self.predictions(h)]
        errors = [*(a - mean for a, mean in zip(h, means)), x - sigmoid(logits)]
        passed_up = [(e @ W.T) * (a > 0) for e, a, (W, _) in zip(errors[1:], h, self.maps)]
        return [e - up for e, up in zip(errors, passed_up)]

    def descend(self, x, rng):
        "The layers, from above, to which Adam comes down the energy of pixels `x`."
        sizes = enumerate(len(W) for W, _ in self.maps)
        h = [REACH * (2 * rng.stream(k).uniform((len(x), n)) - 1) for k, n in sizes]
        memories = [(np.zeros_like(a), np.zeros_like(a)) for a in h]
        for t in range(1, STEPS + 1):
            for a, slope, memory in zip(h, self.slopes(h, x), memories):
                update_weights("adam", a, slope, memory, RATE, t)
        return h

    def logits(self, n, rng):
        "The logits of the pixels below `n` ancestral draws."
        means = np.tile(self.top, (n, 1))
        for k, (W, b) in enumerate(self.maps):
            h = means + rng.stream(k).normal(means.shape)
            means = relu(h) @ W + b
        return means


def read(path):
    "A network that the authors stored: the arrays of its archive, without the pickle beside them."
    with zipfile.ZipFile(path) as archive:
        folder = archive.namelist()[0].partition("/")[0]
        array = lambda k: np.frombuffer(archive.read(f"{folder}/data/{k}"), "<f4")
        top, *biases = (array(k) for k in (1, 4, 7, 10))
        weights = [array(k).reshape(len(b), -1).T for k, b in zip((3, 6, 9), biases)]
    return Network(top, list(zip(weights, biases)))


def surprise(logits, x):
    "-log p(x) in nats for each row of `x`: its mean probability given each row of `logits`."
    logits = np.clip(logits, -20, 20)
    rest = softplus(logits).sum(axis=1) + math.log(len(logits))
    return -np.concatenate([logsumexp(x[b] @ logits.T - rest) for b in row_blocks(len(x), 500)])


def likelihood(net, x, rng):
    "-log p of a digit, a mean over `x`: the mean of the estimates and its standard error."
    logits = (net.logits(DRAWS, rng.stream("states", k)) for k in range(ESTIMATES))
    return {"-log p": mean_and_stderr(np.array([surprise(each, x).mean() for each in logits]))}


def halves(net, x, rng):
    "The squared error of the upper halves of `x` given the lower ones, a mean over digits."
    half, (*above, (W, b)), wrong = x.shape[1] // 2, net.maps, []
    lower = replace(net, maps=[*above, (W[:, half:], b[half:])])
    for k, rows in enumerate(row_blocks(len(x), 1000)):
        h = lower.descend(x[rows, half:], rng.stream("start", k))
        wrong.append((net.predictions(h)[-1][:, :half] > 0) != x[rows, :half])
    return {"upper halves": mean_and_stderr(np.concatenate(wrong).mean(axis=1))}


def judged(net, _, rng):
    "All that is asked of samples; test digits in the place of our validation digits (see above)."
    data = mnist()
    samples = sigmoid(net.logits(PICTURES, rng.stream("states")))
    asked = dict(features=features_of(data), rng=rng.stream("judge"))
    return score_samples(samples, replace(data, valid=data.test), **asked)


QUESTIONS = {"ml": likelihood, "mse": halves, "fid": judged}


def measured(trial, folder):
    "One network: what its row is asked, {name: (value, standard error)}."
    net = read(folder / f"mcpc_{trial.name}_{trial.seed}")
    reported = (mnist().test[6000:] > 0.5).astype(np.float32)
    return {"found": QUESTIONS[trial.name](net, reported, Random(trial.seed))}


def finish(table):
    "The mean and the spread of each number over the networks, and what the rule says."
    summary = {
        question: mean_and_sd({int(k): run["found"][question][0] for k, run in runs.items()})
        for runs in table.get("networks", {}).values()
        for question in next(iter(runs.values()))["found"]
    }
    verdicts = {
        question: outcome(summary[question], published, better=-1)
        for question, published in PUBLISHED.items()
        if question in summary
    }
    return {"summary": summary, "published": PUBLISHED, "verdicts": verdicts} | origin()


def main(argv=None):
    parser = command_line("mcpc", __doc__, PAPER / "mcpc.json", seeds="1-3")
    text = "the folder `models` of the authors' repository"
    parser.add_argument("--theirs", type=Path, required=True, metavar="FOLDER", help=text)
    asked = parser.parse_args(argv)
    rows, measure = dict.fromkeys(QUESTIONS, {}), partial(measured, folder=asked.theirs)
    place = lambda trial: ("networks", trial.name, trial.seed)
    return int(extend_table(asked, rows, asked.seeds, measure, place, finish) > 0)


if __name__ == "__main__":
    sys.exit(main())
