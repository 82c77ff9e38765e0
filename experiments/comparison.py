"""Score the models of Table 3, the paper's network and the baselines beside it, by the rules of
nbs/25_comparison.ipynb.

    python -m experiments.comparison --model paper --seeds 0-4
        train the network of each seed (7 minutes), score it, one file per seed in
        figures/paper/yardstick
    python -m experiments.comparison --model vae --seeds 0-4
        score what `python -m experiments.baselines --model vae --seeds 0-4` has made
    python -m experiments.comparison --model mixture --seeds 7 --run figures/paper/runs/paper-seed7-...
        take the network trained in that folder

Models: paper (GENERATE), directed (the same network, decoded once), mixture (the same network, a
mixture as top prior, decoded once), and those of experiments.baselines. What is there is not scored
again; delete a file to have it made anew.
"""

import argparse
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from biolearn.cli.reproduction import seed_list
from biolearn.core.data import load_dataset
from biolearn.core.rng import Random
from biolearn.evaluation.baselines import PredictiveCoding, langevin_step, load_baseline_result
from biolearn.evaluation.comparison import (
    examine,
    score_baseline,
    score_inference,
    score_mean_chain,
    score_network_inference,
    with_noise,
)
from biolearn.evaluation.network import TrainedNetwork
from biolearn.reproduction.profiles import PROFILES
from biolearn.reproduction.report import git_revision
from biolearn.reproduction.runs import trained_run, versions, with_mixture
from biolearn.reproduction.study import Work, study
from experiments import baselines
from experiments.trained import features_of, read_run

OUT = baselines.ROOT / "figures" / "paper" / "yardstick"
OURS = ("paper", "directed", "mixture")
# of annealing: a quarter of its default temperatures; page 20 says what that costs
DENSITY = dict(n_digits=100, n_temperatures=1000)


def our_network(model, seed, folder):
    "The paper's network of one seed, as the `model` asked for, and what it was."
    run = read_run(folder, seed) if folder else trained_run("paper", seed=seed, device="cpu")
    profile = PROFILES["mixture" if model == "mixture" else "paper"]
    trained = run.model
    if model == "mixture":
        rng = run.rng.stream("mixture")
        trained = with_mixture(trained, run.dataset.train, profile, rng)
    rounds = 0 if model == "directed" else profile.rounds
    asked = TrainedNetwork(trained, profile.recipe.inference, rounds, name=model)
    asked = with_noise(asked, run.dataset.valid[:1000])
    return asked, {"key": run.key, "sds": asked.sigmas, "rounds": rounds}


def settled(net, x, rng, n_steps=500):
    "The mean of h, from the pixels up, over the second half of Langevin inference on `x`."
    h, total = net.dream(len(x), rng=rng.stream("start"))[:-1], 0
    for step in range(n_steps):
        h = langevin_step(net, [*h, x], net.deltas, rng=rng)
        if step >= n_steps // 2:
            total = [a + b for a, b in zip(total, h)] if total else h
    return [x, *(layer / (n_steps - n_steps // 2) for layer in reversed(total))]


def score_ours(model, seed, data, features, folder):
    "The numbers of a network of the paper and what they belong to."
    rng = Random(seed).stream("yardstick")
    asked, about = our_network(model, seed, folder)
    result = examine(asked, data, seed=seed)
    if model == "directed":  # the same network as "paper": only its samples differ
        result = replace(result, inpainted={}, decoder=None)
        return score_baseline(result, data, features, rng=rng), about
    found = score_baseline(result, data, features, rng=rng, **DENSITY)
    inner = rng.stream("network")
    found |= score_network_inference(asked, data, rng=inner, n_digits=DENSITY["n_digits"])
    if model == "paper":
        found |= score_mean_chain(asked, data, rng=inner, **DENSITY)
    return found, about


def score_other(model, seed, data, features):
    "The numbers of a baseline that `experiments.baselines` has made, and what they belong to."
    rng, n = Random(seed).stream("yardstick"), DENSITY["n_digits"]
    result = load_baseline_result(baselines.result_path(model, seed))
    found = score_baseline(result, data, features, rng=rng, **DENSITY)
    if model == "mcpc":
        d = result.decoder
        net = PredictiveCoding(d.maps, d.prior, d.sigmas, tuple(result.about["deltas"]))
        h = settled(net, data.test[:n], rng.stream("settle", "test"))
        valid = settled(net, data.valid[: 2 * n], rng.stream("settle", "valid"))
        bounds = score_inference(d, h[0], h, valid, rng=rng.stream("inference"))
        found["bound"] = bounds[-1]
    kept = ("settings", "version", "code", "versions")
    return found, {k: result.about[k] for k in kept if k in result.about}


def score(trial, *, folder=None):
    "Everything about one model and seed: the numbers and what they belong to."
    data = load_dataset("mnist")
    features, model, seed = features_of(data), trial.name, trial.seed
    if model in OURS:
        found, about = score_ours(model, seed, data, features, folder)
    else:
        found, about = score_other(model, seed, data, features)
    about |= {
        "density": DENSITY,
        "revision": git_revision(),
        "versions": versions() | about.get("versions", {}),
    }
    return {"model": model, "found": found, "about": about}


def is_there(record, trial):
    "Are the scores of that model and seed in the `record`, whatever version has made them?"
    return record.get("model") == trial.name and record.get("seed") == trial.seed


def scored_line(record):
    "The scores of a record, for a terminal."
    numbers = (f"{k} {value:.4g}" for k, (value, _) in record["found"].items())
    return f"{record['model']} {record['seed']} {' '.join(numbers)}"


def main(argv=None):
    p = argparse.ArgumentParser(
        prog="python -m experiments.comparison",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--model", required=True, choices=(*OURS, *baselines.CHOSEN))
    p.add_argument(
        "--seeds",
        type=seed_list,
        default="0",
        metavar="0-4",
        help="seeds and ranges of seeds (default: %(default)s)",
    )
    p.add_argument(
        "--run",
        type=Path,
        metavar="FOLDER",
        help="with a model of the paper and one seed: the folder of a trained network to take",
    )
    p.add_argument(
        "--out",
        type=Path,
        default=OUT,
        metavar="DIR",
        help="where scores go (default: figures/paper/yardstick)",
    )
    asked = p.parse_args(argv)
    if asked.run and (asked.model not in OURS or len(asked.seeds) > 1):
        p.error("--run is for one seed of paper, directed or mixture")
    study(
        {asked.model: {}},
        asked.seeds,
        partial(score, folder=asked.run),
        asked.out,
        fits=is_there,
        work=Work(threads=None, tell=scored_line, table=""),
    )


if __name__ == "__main__":
    sys.exit(main())
