"""Measure what spikes cost the paper's network (nbs/28_spiking.ipynb) and write
figures/paper/biology/spikes.json.

    python -m experiments.spikes --seeds 7-9                              train the network of each seed (7 minutes), measure it
    python -m experiments.spikes --seeds 7-9 --runs figures/paper/runs    take the networks trained in folders there, like paper-seed7-...
    python -m experiments.spikes --training 0-1                           for these seeds train small networks on 8×8 digits, without spikes and with each window of TRAINED

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

import argparse
import json
import math
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from biolearn.cli.reproduction import seed_list
from biolearn.core.data import load_dataset
from biolearn.core.generation import inference_chain
from biolearn.core.inference import Inference, infer
from biolearn.core.learning import fit
from biolearn.core.model import decode, encode, init_model, log_p_joint
from biolearn.core.priors import sample_prior
from biolearn.core.rng import Random
from biolearn.evaluation.parzen import parzen_log_likelihood
from biolearn.extensions.spiking import infer_spikes, send, spike_chain, spike_e_step
from biolearn.evaluation.statistics import mean_and_sd
from biolearn.reproduction.profiles import PROFILES
from biolearn.reproduction.report import git_revision
from biolearn.reproduction.runs import versions
from experiments.comparison import network, save

PATH = Path(__file__).resolve().parent.parent / "figures" / "paper" / "biology" / "spikes.json"
WINDOWS, TRAINED = (1, 3, 10, 30, 100, math.inf), (3, 30)
SAMPLES, DIGITS, SIGMA, NATS = (
    2000,
    1000,
    0.2,
    10.0,
)  # of GENERATE; test digits for INFERENCE; Parzen's width; what the rule allows
TRAINING = dict(
    profile="quick", epochs=60, samples=300
)  # of the networks trained with spikes and of their control
QUIET = "not clipped"  # the name of the row of ordinary real numbers


def windows_text(n):
    "How a window is named in the file."
    return "inf" if n == math.inf else str(n)


def inferred(model, x, h, start):
    """What INFERENCE made of the digits `x`, read with real numbers: the mean rise of log p(x,h)
    above the feedforward guess without spikes (nats), the share that rises, the squared error per
    pixel of the picture that h_1 paints.
    """
    rise = log_p_joint(model, [x, *h[1:]]) - start
    return {
        "rise": float(rise.mean()),
        "rising": float((rise > 0).mean()),
        "error": float(
            ((model.g(1, send(h[1], math.inf, model.units[1], rng=None)) - x) ** 2).mean()
        ),
    }


def measured(model, data, n, rng, samples=SAMPLES):
    "Scores of one network at the window `n`."
    score = lambda x: float(parzen_log_likelihood(data.test, x, SIGMA).mean())
    x, first, last, quiet = data.test[:DIGITS], [], [], []
    for i in range(-(-samples // 1000)):
        for r, h in enumerate(
            spike_chain(
                model, min(1000, samples - 1000 * i), n, rng=rng.stream("samples", "block", i)
            )
        ):
            if r == 0:
                first.append(h[0])
        last.append(h[0])
        quiet.append(model.g(1, send(h[1], math.inf, model.units[1], rng=rng)))
    h = infer_spikes(model, x, n, rng=rng.stream("inference"), n_steps=20)
    return {
        "GENERATE": score(np.concatenate(last)),
        "GENERATE, last painting without noise": score(np.concatenate(quiet)),
        "directed": score(np.concatenate(first)),
        **inferred(model, x, h, log_p_joint(model, encode(model, x))),
    }


def without(model, data, rng, samples=SAMPLES):
    "The same of ordinary real numbers, not clipped, from the same draws of the prior."
    score = lambda x: float(parzen_log_likelihood(data.test, x, SIGMA).mean())
    x, chains = data.test[:DIGITS], []
    for i in range(-(-samples // 1000)):
        start = decode(
            model,
            sample_prior(
                model.prior, min(1000, samples - 1000 * i), rng=rng.stream("samples", "block", i)
            ),
        )[0]
        chains.append(list(inference_chain(model, start, rounds=3)))
    return {
        "GENERATE": score(np.concatenate([c[-1] for c in chains])),
        "directed": score(np.concatenate([c[0] for c in chains])),
        **inferred(model, x, infer(model, x, Inference(n_steps=20)), log_p_joint(model, encode(model, x))),
    }


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
        gap, gain = (
            float(np.mean(v))
            for v in (
                [of(s, "without spikes", "inf") - of(s, "without spikes", w) for s in seeds],
                [of(s, w, w) - of(s, "without spikes", w) for s in seeds],
            )
        )
        done[w] = {"gap": gap, "closed": gain, "helps": gain >= gap / 2, "seeds": len(seeds)}
    return done


def read(path):
    "What was measured before."
    return (
        json.loads(path.read_text(encoding="utf-8"))
        if path.is_file()
        else {"seeds": {}, "training": {}}
    )


def write(path, found):
    "Write everything, with the verdict of the rule on what there is."
    if found["seeds"]:
        table = {
            windows_text(n): {
                int(s): rows[windows_text(n)]["GENERATE"]
                for s, rows in found["seeds"].items()
                if windows_text(n) in rows
            }
            for n in WINDOWS
        }
        table = {n: v for n, v in table.items() if v}
        if "inf" in table:
            found["verdict"] = enough(table, mean_and_sd(table["inf"])["mean"])
    found["trained"] = closed(found["training"])
    found |= {
        "settings": {
            "samples": SAMPLES,
            "digits": DIGITS,
            "sigma": SIGMA,
            "nats": NATS,
            "windows": [windows_text(n) for n in WINDOWS],
            "training": TRAINING,
        },
        "revision": git_revision(),
        "versions": versions(),
    }
    save(found, path)


def measure_seeds(seeds, runs, path):
    "Every window for every seed; the file is rewritten after each."
    for seed in seeds:
        run, rng = network(seed, runs), Random(seed).stream("spikes")
        for n in (
            QUIET,
            math.inf,
            3,
            30,
            10,
            1,
            100,
        ):  # the end of the curve and the paper's point first
            found = read(path)
            rows, name, start = (
                found["seeds"].setdefault(str(seed), {}),
                n if n == QUIET else windows_text(n),
                time.process_time(),
            )
            if name in rows:
                continue
            rows[name] = (
                without(run.model, run.dataset, rng)
                if n == QUIET
                else measured(run.model, run.dataset, n, rng)
            )
            found.setdefault("keys", {})[str(seed)] = run.key
            write(path, found)
            print(
                seed,
                name,
                f"{time.process_time() - start:.0f} s",
                {k: round(v, 3) for k, v in rows[name].items()},
                flush=True,
            )


def train(n, seed):
    """A small network, INFERENCE in windows of `n` (None: without spikes): the digits, the network,
    its history.
    """
    profile, rng = PROFILES[TRAINING["profile"]], Random(seed)
    data, recipe = load_dataset(profile.dataset), replace(profile.recipe, epochs=TRAINING["epochs"])
    model = init_model(profile.sizes(data.train.shape[1]), profile.units, rng=rng.stream("init"))
    return data, *fit(
        model,
        data.train,
        recipe,
        rng=rng.stream("train"),
        progress=False,
        e_step=spike_e_step(n, recipe) if n else None,
    )


def measure_training(seeds, path):
    """Networks trained with spikes, each at its own window and with real numbers, and their control
    at all of these windows.
    """
    for seed in seeds:
        for n in (None, *TRAINED):
            found, name, start = (
                read(path),
                "without spikes" if n is None else windows_text(n),
                time.process_time(),
            )
            if name in found["training"].setdefault(str(seed), {}):
                continue
            data, model, history = train(n, seed)
            rng, samples = Random(seed).stream("spikes"), TRAINING["samples"]
            scores = {
                windows_text(w): measured(model, data, w, rng, samples)
                for w in ((*TRAINED, math.inf) if n is None else (n, math.inf))
            } | {QUIET: without(model, data, rng, samples)}
            found["training"][str(seed)][name] = {"scores": scores, "history": history[-1]}
            write(path, found)
            print(
                "trained",
                name,
                f"{time.process_time() - start:.0f} s",
                {w: round(r["GENERATE"], 1) for w, r in scores.items()},
                flush=True,
            )


def main(argv=None):
    p = argparse.ArgumentParser(
        prog="python -m experiments.spikes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "--seeds",
        type=seed_list,
        default=[],
        metavar="7-9",
        help="seeds and ranges of seeds of the paper's network",
    )
    p.add_argument(
        "--runs",
        type=Path,
        metavar="FOLDER",
        help="the folder of trained networks, one folder each, like paper-seed7-...",
    )
    p.add_argument(
        "--training",
        type=seed_list,
        default=[],
        metavar="0-1",
        help="seeds of small networks that are trained with spikes",
    )
    p.add_argument(
        "--out",
        type=Path,
        default=PATH,
        metavar="FILE",
        help="where the numbers go (default: figures/paper/biology/spikes.json)",
    )
    asked = p.parse_args(argv)
    measure_seeds(asked.seeds, asked.runs, asked.out)
    measure_training(asked.training, asked.out)


if __name__ == "__main__":
    sys.exit(main())
