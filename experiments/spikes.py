"""Measure what spikes cost the paper's network (nbs/28_spiking.ipynb) and write
figures/paper/biology/spikes.json.

    python -m experiments.spikes --seeds 0-4
        train the network of each seed (7 minutes), measure it
    python -m experiments.spikes --seeds 0-4 --runs figures/paper/runs
        take the networks trained in folders there, like paper-seed0-...

What is there is kept: seeds are added to the file. Delete it to begin anew.

THE RULE, written before anything was measured: spikes of a window n are enough if the mean over
seeds of GENERATE's Parzen score lies within TEN nats of the mean with real numbers, clipped to what
can be sent (n = infinity), from the same number of samples. The smallest such n of WINDOWS is the
answer. Nothing is chosen: the settings of INFERENCE and GENERATE are the paper's, the window is the
axis. Training with spikes is `experiments.training`.
"""

import math
import sys
from functools import partial

from biolearn.core.rng import Random
from biolearn.evaluation.statistics import mean_and_sd
from biolearn.reproduction.measures import Size, measure_spikes
from experiments import PAPER, command_line, extend_table, origin
from experiments.trained import network

WINDOWS = (1, 3, 10, 30, 100, math.inf)
SIZE, NATS = Size(samples=2000, digits=1000), 10.0  # what the rule allows
QUIET = "not clipped"  # the name of the row of ordinary real numbers


def windows_text(n):
    "How a window is named in the file."
    return "inf" if n == math.inf else str(n)


# the end of the curve and the paper's point first
ORDER = {QUIET: None, **{windows_text(n): n for n in (math.inf, 3, 30, 10, 1, 100)}}


def measured(trial, runs):
    "One window of the trained network of one seed."
    run, rng = network(trial.seed, runs), Random(trial.seed).stream("spikes")
    found = measure_spikes(run.model, run.dataset, ORDER[trial.name], SIZE, rng=rng)
    return found | {"key": run.key}


def enough(table, reference):
    """The smallest window whose mean score of GENERATE is within NATS of `reference`, and the
    means: `table` is {window: {seed: score}}.
    """
    means = {n: mean_and_sd(scores)["mean"] for n, scores in table.items()}
    fine = [
        n
        for n in WINDOWS
        if n != math.inf and windows_text(n) in means and means[windows_text(n)] >= reference - NATS
    ]
    return {"window": min(fine) if fine else None, "means": means, "reference": reference}


def finish(table):
    "The verdict of the rule on what there is, and the settings."
    seeds, scores = table["seeds"], {}
    for name in map(windows_text, WINDOWS):
        found = {int(s): rows[name]["GENERATE"] for s, rows in seeds.items() if name in rows}
        if found:
            scores[name] = found
    settings = {"samples": SIZE.samples, "digits": SIZE.digits, "sigma": SIZE.sigma, "nats": NATS}
    settings |= {"windows": [windows_text(n) for n in WINDOWS]}
    about = {"settings": settings, **origin()}
    if "inf" in scores:
        about["verdict"] = enough(scores, mean_and_sd(scores["inf"])["mean"])
    return about


def main(argv=None):
    out = PAPER / "biology" / "spikes.json"
    parser = command_line("spikes", __doc__, out, seeds="0-4", runs=True)
    asked = parser.parse_args(argv)
    rows = {name: {"window": name, "size": SIZE} for name in ORDER}
    measure = partial(measured, runs=asked.runs)
    place = lambda trial: ("seeds", trial.seed, trial.name)
    return int(extend_table(asked, rows, asked.seeds, measure, place, finish) > 0)


if __name__ == "__main__":
    sys.exit(main())
