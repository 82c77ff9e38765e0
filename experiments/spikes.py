"""Measure what spikes cost the paper's network (nbs/28_spiking.ipynb) and write
figures/paper/biology/spikes.json.

    python -m experiments.spikes --seeds 7-9
        train the network of each seed (7 minutes), measure it
    python -m experiments.spikes --seeds 7-9 --runs figures/paper/runs
        take the networks trained in folders there, like paper-seed7-...
    python -m experiments.spikes --training 0-1
        for these seeds train small networks on 8×8 digits, without spikes and with each window of
        TRAINED

What is there is kept: seeds are added to the file. Delete it to begin anew.

THE RULE, written before anything was measured: spikes of a window n are enough if the mean over
seeds of GENERATE's Parzen score lies within TEN nats of the mean with real numbers, clipped to what
can be sent (n = infinity), from the same number of samples. The smallest such n of WINDOWS is the
answer. Training with spikes is tried on the 8×8 digits (the quick profile, shortened: see
TRAINING), where ten nats would be everything. There it HELPS at a window if, as a mean over seeds,
it closes at least half of the gap between the score of the control (trained as long without spikes)
at that window and with real, clipped numbers. Nothing is chosen: the settings of INFERENCE and
GENERATE are the paper's, the window is the axis.
"""

import math
import sys
from dataclasses import replace
from functools import partial

import numpy as np

from biolearn.core.data import load_dataset
from biolearn.core.learning import fit
from biolearn.core.model import init_model
from biolearn.core.rng import Random
from biolearn.evaluation.statistics import mean_and_sd
from biolearn.extensions.spiking import SpikingInference
from biolearn.reproduction.measures import Size, measure_spikes
from biolearn.reproduction.profiles import PROFILES
from experiments import PAPER, command_line, extend_table, origin, some
from experiments.trained import network

WINDOWS, TRAINED = (1, 3, 10, 30, 100, math.inf), (3, 30)
SIZE, NATS = Size(samples=2000, digits=1000), 10.0  # what the rule allows
# of the networks trained with spikes and of their control
TRAINING = dict(profile="quick", epochs=60, samples=300)
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


def trained(trial):
    """A small network trained with spikes and measured at its own window and with real numbers, or
    its control, measured at all of these windows.
    """
    own = None if trial.name == "without spikes" else int(trial.name)
    profile, rng = PROFILES[TRAINING["profile"]], Random(trial.seed)
    data = load_dataset(profile.dataset)
    start = init_model(profile.sizes(data.train.shape[1]), profile.units, rng=rng.stream("init"))
    model, history = fit(
        start,
        data.train,
        replace(profile.recipe, epochs=TRAINING["epochs"]),
        rng=rng.stream("train"),
        inference=SpikingInference(window=own) if own else None,
        progress=False,
    )
    windows = (*(TRAINED if own is None else (own,)), math.inf)
    size, scores = replace(SIZE, samples=TRAINING["samples"]), {}
    for name, window in {**{windows_text(n): n for n in windows}, QUIET: None}.items():
        scores[name] = measure_spikes(model, data, window, size, rng=rng.stream("spikes"))
    return {"scores": scores, "history": history[-1]}


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


def closed(training):
    """{window: what training with spikes closes of the gap between the control at that window and
    with real numbers, as a mean over seeds: gap, closed (nats), helps}.
    """
    done, of = {}, lambda seed, name, w: training[seed][name]["scores"][w]["GENERATE"]
    for w in map(windows_text, TRAINED):
        seeds = [s for s, runs in training.items() if {"without spikes", w} <= set(runs)]
        if not seeds:
            continue
        control = [of(s, "without spikes", w) for s in seeds]
        gap = float(np.mean([of(s, "without spikes", "inf") for s in seeds]) - np.mean(control))
        gain = float(np.mean([of(s, w, w) for s in seeds]) - np.mean(control))
        done[w] = {"gap": gap, "closed": gain, "helps": gain >= gap / 2, "seeds": len(seeds)}
    return done


def finish(table):
    "The verdict of the rule on what there is, and the settings."
    seeds, training = (table.setdefault(part, {}) for part in ("seeds", "training"))
    scores = {}
    for name in map(windows_text, WINDOWS):
        found = {int(s): rows[name]["GENERATE"] for s, rows in seeds.items() if name in rows}
        if found:
            scores[name] = found
    settings = {"samples": SIZE.samples, "digits": SIZE.digits, "sigma": SIZE.sigma, "nats": NATS}
    settings |= {"windows": [windows_text(n) for n in WINDOWS], "training": TRAINING}
    about = {"trained": closed(training), "settings": settings, **origin()}
    if "inf" in scores:
        about["verdict"] = enough(scores, mean_and_sd(scores["inf"])["mean"])
    return about


def main(argv=None):
    out = PAPER / "biology" / "spikes.json"
    parser = command_line("spikes", __doc__, out, seeds="", runs=True)
    text = "seeds of small networks that are trained with spikes"
    parser.add_argument("--training", type=some, default="", metavar="0-1", help=text)
    asked = parser.parse_args(argv)
    extend = partial(extend_table, asked, finish=finish)
    failed = extend(
        {name: {"window": name, "size": SIZE} for name in ORDER},
        asked.seeds,
        partial(measured, runs=asked.runs),
        place=lambda trial: ("seeds", trial.seed, trial.name),
    )
    failed += extend(
        {name: TRAINING for name in ("without spikes", *map(windows_text, TRAINED))},
        asked.training,
        trained,
        place=lambda trial: ("training", trial.seed, trial.name),
    )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
