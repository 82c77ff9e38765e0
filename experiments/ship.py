"""Train the networks that come with the package, measure them, and write them to
biolearn/assets/networks (nbs/60_shipped.ipynb).

    python -m experiments.ship                    all three (MNIST is needed; 25 minutes on two cores)
    python -m experiments.ship --only supervised
    python -m experiments.ship --seeds 1-4 --out FOLDER/networks.json
        more seeds, which do not travel with the package; prints their checksums

Each network is trained by its settings and seed, or taken from an earlier run of the same key, and
saved with weights of 16 bits. Both precisions are measured on the test digits of MNIST with the same
random numbers. networks.json holds what is known of each.
"""

import json
import sys
import time
from dataclasses import asdict, replace
from functools import partial

from threadpoolctl import threadpool_info

from biolearn.core.checkpoints import ALGORITHM, load_model, save_model
from biolearn.core.files import as_plain
from biolearn.core.rng import Random
from biolearn.core.shipped import SHIPPED_FOLDER, half_precision
from biolearn.reproduction.claims import sha256_of
from biolearn.reproduction.measures import learn_labels
from biolearn.reproduction.profiles import get_profile
from biolearn.reproduction.runs import trained_run, versions
from biolearn.reproduction.verify import network_scores
from experiments import command_line, extend_table, mnist, read_table
from experiments.supervised import BABBLING, COMPETING, config_of

LABELS = {"rule": "babbled", "layers": [1000], "babbling": BABBLING, "labels": COMPETING["labels"]}


def by_profile(name, seed):
    "A network of a profile: (model, what is known of how it was made)."
    run = trained_run(name, seed=seed, device="cpu")
    about = json.loads((run.folder / "run.json").read_text(encoding="utf-8"))
    known = {
        "command": f"biolearn train --profile {name}" + (f" --seed {seed}" if seed else ""),
        "profile": name,
        "key": run.key,
        "seconds": about["seconds"],
        "trained_with": as_plain(run.profile),
        "history": run.history,
    }
    return run.model, known


def by_labels(seed):
    "The network that reads labels: (model, what is known of how it was made)."
    start, config = time.perf_counter(), config_of(1, COMPETING["epochs"], COMPETING["rate_top"])
    how = {name: value for name, value in LABELS.items() if name != "labels"}
    model, history, _ = learn_labels(
        mnist(), config=config, rng=Random(seed), **how, **LABELS["labels"]
    )
    known = {
        "command": f"python -m experiments.ship --only supervised --seeds {seed}",
        "profile": None,
        "seconds": round(time.perf_counter() - start, 2),
        "trained_with": LABELS | {"config": asdict(config)},
        "history": history,
    }
    return replace(model, prior=None), known  # labels are read, not drawn


def kernels():
    "Which kernels and how many threads multiply matrices here."
    blas = next(lib for lib in threadpool_info() if lib["user_api"] == "blas")
    return f"{blas['internal_api']} {blas['architecture']}, {blas['num_threads']} threads"


def notes(name, known, seed):
    "What the file of a network says about itself, for the commands."
    if known["profile"] is None:
        return {"data": "mnist-small", "image_shape": (28, 28), "labels": True, "seed": seed}
    recipe = as_plain(get_profile(name).recipe)
    shape = {"data": "mnist-small", "image_shape": (28, 28)}
    return shape | {"recipe": recipe, "profile": name, "seed": seed}


def ship(trial, folder):
    "Train one network, write its file to `folder`, and return what networks.json says of it."
    name, seed = trial.name, trial.seed
    model, known = by_labels(seed) if name == "supervised" else by_profile(name, seed)
    path = folder / f"{_entry(trial)[0]}.safetensors"
    save_model(path, half_precision(model), **notes(name, known, seed))
    profile = known["profile"] and get_profile(known["profile"])
    copies = {"float32": model, "float16": load_model(path)}
    return {
        "file": path.name,
        "sha256": sha256_of(path),
        "licence": "Apache-2.0",
        "trained_seed": seed,
        **known,
        "made_with": kernels(),
        "algorithm": ALGORITHM,
        "versions": versions(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "scores": {bits: network_scores(m, mnist(), profile) for bits, m in copies.items()},
    }


def _entry(trial):
    "The name of a network in networks.json: that of seed 0 has none behind it."
    return (trial.name if trial.seed == 0 else f"{trial.name}-seed{trial.seed}",)


def main(argv=None):
    index, names = SHIPPED_FOLDER / "networks.json", ("paper", "mixture", "supervised")
    parser = command_line("ship", __doc__, index, seeds="0")
    parser.add_argument("--only", choices=names, nargs="+", default=names, help="these networks")
    asked = parser.parse_args(argv)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    measure = partial(ship, folder=asked.out.parent)
    settings = {name: {} for name in asked.only}
    failed = extend_table(asked, settings, asked.seeds, measure, _entry, lambda table: {})
    for name, known in read_table(asked.out).items():
        print(f"{known['file']}: SHA-256 {known['sha256']}, scores {known['scores']}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
