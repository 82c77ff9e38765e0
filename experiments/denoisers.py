"""A chain of denoisers on MNIST (nbs/73_denoisers.ipynb): figures/paper/denoisers.json.

    python -m experiments.denoisers --seeds 0-4            all ways of feedback; resumes
    python -m experiments.denoisers --only learnt exact    these alone

Twelve levels of noise, from 4 to 0.1, each a layer pair with 500 hidden units of its own; 3,000
minibatches of 100 training digits, each for all levels. The chain's 10,000 samples are asked the
questions of nbs/25_comparison.ipynb on test digits. What is there is not measured again.

THE RULE, fixed before a test digit was looked at: learning locally COSTS NOTHING here if for each
of JUDGED `statistics.outcome` says that chains whose feedback is learnt are the same as those with
the exact gradient (means over seeds within three standard errors of their difference), or better.
The aims were written before the chain: Fréchet distance at most 1.0, recall at least 0.7 at a
precision of at least 0.85, two-sample accuracy at most 0.7.

The levels, the hidden units and the number of minibatches are the first that were tried at this
size, with seed 0 on validation digits, in a transcription of the chain: 6.9 with the exact
gradient, 7.1 with learnt feedback. A wider chain and a longer training were not tried.
"""

import sys
from dataclasses import replace

import numpy as np

from biolearn.core.rng import Random
from biolearn.evaluation.coverage import score_samples
from biolearn.evaluation.statistics import mean_and_sd, outcome
from biolearn.extensions.denoisers import FEEDBACK, ChainConfig, fit_chain, walk
from experiments import PAPER, command_line, extend_table, mnist, origin
from experiments.trained import features_of

JUDGED = {"Parzen": 1, "Fréchet": -1, "precision": 1, "recall": 1, "two-sample": -1}  # 1: more
SAMPLES = 10_000


def repaired(chain, x, rng):
    "For each level the squared error of a repaired picture, a mean over pictures, summed over pixels."
    errors = []
    for k, sigma in enumerate(chain.sigmas):
        noisy = x + np.float32(sigma) * rng.stream(k).normal(x.shape)
        errors.append(float(((chain.repair(k, noisy) - x) ** 2).sum(axis=1).mean()))
    return errors


def measured(trial):
    "One chain: its errors level by level, and what its samples are worth on test digits."
    data, rng = mnist(), Random(trial.seed)
    how = ChainConfig(feedback=trial.settings["feedback"])
    chain, _ = fit_chain(data.train, how, rng=rng.stream("train"), progress=False)
    x, unseen = walk(chain, SAMPLES, rng=rng.stream("samples")), replace(data, valid=data.test)
    asked = dict(features=features_of(data), rng=rng.stream("judge"))
    found = {"found": score_samples(x, unseen, **asked)}
    found["errors"] = repaired(chain, data.test, rng.stream("repaired"))
    if trial.seed == 0:  # some pictures, a byte for each pixel: its ink in per cent
        found["samples"] = np.round(100 * x[:60]).astype(np.uint8).tobytes().hex()
    return found


def finish(table):
    "What the rule says about each question, and the settings."
    summary = {
        way: {
            question: mean_and_sd({int(s): run["found"][question][0] for s, run in runs.items()})
            for question in JUDGED
        }
        for way, runs in table.get("chains", {}).items()
    }
    verdicts = {
        question: outcome(summary["learnt"][question], summary["exact"][question], better)
        for question, better in JUDGED.items()
        if {"learnt", "exact"} <= set(summary)
    }
    return {"summary": summary, "verdicts": verdicts, "sigmas": ChainConfig().sigmas} | origin()


def main(argv=None):
    parser = command_line("denoisers", __doc__, PAPER / "denoisers.json", seeds="0-4")
    text = "only these ways of feedback (default: all)"
    parser.add_argument("--only", nargs="+", choices=FEEDBACK, default=FEEDBACK, help=text)
    asked = parser.parse_args(argv)
    rows = {way: {"feedback": way} for way in asked.only}
    place = lambda trial: ("chains", trial.name, trial.seed)
    return int(extend_table(asked, rows, asked.seeds, measured, place, finish) > 0)


if __name__ == "__main__":
    sys.exit(main())
