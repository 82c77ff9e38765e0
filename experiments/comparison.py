"""Judge the models of Table 3, the paper's network and its peers, by one yardstick
(nbs/25_comparison.ipynb).

    python -m experiments.yardstick --model paper --seeds 0-4       train the network of each seed (7 minutes), judge it, one file per seed in figures/paper/yardstick
    python -m experiments.yardstick --model vae --seeds 0-4         judge what `python -m experiments.peers --model vae --seeds 0-4` has made
    python -m experiments.yardstick --model mixture --seeds 7 --run figures/paper/runs/paper-seed7-...     take the network trained in that folder

Models: paper (GENERATE), directed (the same network, painted once), mixture (the same network, a
mixture as top prior, painted once), and those of experiments.peers. What is there is not judged
again; delete a file to have it judged anew.
"""

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from biolearn.cli.reproduction import seed_list
from biolearn.core.arrays import Backend
from biolearn.core.checkpoints import load_model
from biolearn.core.data import load_dataset
from biolearn.core.files import write_whole
from biolearn.core.inference import infer
from biolearn.core.rng import Random
from biolearn.evaluation.baselines import PredictiveCoding, langevin_step, load_baseline_result
from biolearn.evaluation.comparison import (
    examine,
    judge,
    judge_inference,
    judge_mean_chain,
    judge_network,
    network_of,
    save_judgement,
)
from biolearn.evaluation.features import load_features, train_features
from biolearn.evaluation.likelihood import Decoder
from biolearn.reproduction.profiles import PROFILES
from biolearn.reproduction.report import git_revision
from biolearn.reproduction.runs import Run, with_mixture, trained_run, versions
from experiments import peers as runner

OUT, OURS = runner.ROOT / "figures" / "paper" / "yardstick", ("paper", "directed", "mixture")
DENSITY = dict(
    n_digits=100, n_temperatures=1000
)  # of annealing: a quarter of its default temperatures; page 20 says what that costs


def features_of(data, folder=runner.OUT):
    "The classifier that judges, trained once."
    path = folder / "features.safetensors"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        train_features(
            data.train, data.train_labels, rng=Random(0).stream("yardstick", "features")
        ).save(path)
    return load_features(path)


def read_run(folder, seed):
    """The `Run` in a folder that an earlier version of the code trained with the paper's profile
    and this seed.
    """
    about, profile = (
        json.loads((folder / "run.json").read_text(encoding="utf-8")),
        PROFILES["paper"],
    )
    if about["seed"] != seed:
        raise SystemExit(f"{folder} was trained with seed {about['seed']}, not {seed}.")
    rng = Random(seed, Backend())
    return Run(
        load_model(folder / "model.safetensors", Backend()),
        load_dataset("mnist"),
        about["history"],
        profile,
        Backend(),
        rng,
        seed,
        about["key"],
        folder,
        folder.parent.parent,
    )


def network(seed, runs=None):
    """The paper's trained network of one seed: read from the folder `runs`, which holds
    paper-seed<seed>-*, or trained now.
    """
    if not runs:
        return trained_run("paper", seed=seed, device="cpu")
    found = sorted(
        f for f in Path(runs).glob(f"paper-seed{seed}-*") if (f / "model.safetensors").is_file()
    )
    if not found:
        raise SystemExit(
            f"{runs} holds no trained network of seed {seed} (paper-seed{seed}-*/model.safetensors)."
        )
    return read_run(found[0], seed)


def save(told, path):
    "Write what was measured as JSON, whole."
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as part:
        part.write_text(
            json.dumps(told, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
            encoding="utf-8",
            newline="\n",
        )


def our_network(model, seed, folder):
    "The paper's network of one seed, as the `model` asked for, and what it was."
    run = read_run(folder, seed) if folder else trained_run("paper", seed=seed, device="cpu")
    if model == "mixture":
        profile = PROFILES["mixture"]
        run = replace(
            run,
            model=with_mixture(run.model, run.dataset.train, profile, run.rng.stream("mixture")),
            profile=profile,
        )
    network = network_of(run, model, rounds=0 if model == "directed" else None)
    return network, {"key": run.key, "sds": network.sigmas, "rounds": network.rounds}


def settled(net, x, rng, n_steps=500):
    "The mean of h, from the pixels up, over the second half of Langevin inference on `x`."
    h, total = net.dream(len(x), rng=rng.stream("start"))[:-1], 0
    for step in range(n_steps):
        h = langevin_step(net, [*h, x], net.deltas, rng=rng)
        if step >= n_steps // 2:
            total = [a + b for a, b in zip(total, h)] if total else h
    return [x, *(layer / (n_steps - n_steps // 2) for layer in reversed(total))]


def judged(model, seed, data, features, folder=None):
    "Everything about one model and seed: the numbers and what they belong to."
    rng, n = Random(seed).stream("yardstick"), DENSITY["n_digits"]
    if model in OURS:
        network, about = our_network(model, seed, folder)
        result = examine(network, data, seed=seed)
        if model == "directed":  # the same network as "paper": only its samples differ
            return judge(
                replace(result, inpainted={}, decoder=None), data, features, rng=rng
            ), about
        found = judge(result, data, features, rng=rng, **DENSITY) | judge_network(
            network, data, rng=rng.stream("network"), n_digits=n
        )
        return found | (
            judge_mean_chain(network, data, rng=rng.stream("network"), **DENSITY)
            if model == "paper"
            else {}
        ), about
    result = load_baseline_result(runner.OUT / f"{model}-seed{seed}.npz")
    found = judge(result, data, features, rng=rng, **DENSITY)
    if model == "mcpc":
        net = PredictiveCoding(*result.decoder, tuple(result.about["deltas"]))
        h, valid = (
            settled(net, x, rng.stream("settle", name))
            for name, x in (("test", data.test[:n]), ("valid", data.valid[: 2 * n]))
        )
        found["bound"] = judge_inference(
            Decoder(*result.decoder), h[0], h, valid, rng=rng.stream("inference")
        )[-1]
    return found, {k: result.about[k] for k in ("settings", "code", "versions")}


def main(argv=None):
    p = argparse.ArgumentParser(
        prog="python -m experiments.yardstick",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--model", required=True, choices=(*OURS, *runner.CHOSEN))
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
        help="where judgements go (default: figures/paper/yardstick)",
    )
    asked = p.parse_args(argv)
    if asked.run and (asked.model not in OURS or len(asked.seeds) > 1):
        p.error("--run is for one seed of paper, directed or mixture")
    data = load_dataset("mnist")
    features = features_of(data)
    for seed in asked.seeds:
        if (asked.out / f"{asked.model}-seed{seed}.json").is_file():
            print(asked.model, seed, "was there")
            continue
        start = time.perf_counter()
        found, about = judged(asked.model, seed, data, features, asked.run)
        about |= {
            "seconds": round(time.perf_counter() - start, 1),
            "density": DENSITY,
            "revision": git_revision(),
            "versions": versions() | about.get("versions", {}),
        }
        save_judgement(asked.out, asked.model, seed, found, about)
        print(
            asked.model,
            seed,
            f"{about['seconds']:.0f} s",
            *(f"{k} {v:.4g}" for k, (v, _) in found.items()),
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
