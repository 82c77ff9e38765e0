"""What several programs share that takes long to train: the paper's networks, seed by seed, and the
classifier whose features score pictures.
"""

import json
from pathlib import Path

from biolearn.core.arrays import Backend
from biolearn.core.checkpoints import load_model
from biolearn.core.data import Dataset, load_dataset
from biolearn.core.rng import Random
from biolearn.evaluation.features import Features, load_features, train_features
from biolearn.reproduction.profiles import PROFILES
from biolearn.reproduction.runs import Run, trained_run
from experiments import PAPER


def features_of(data: Dataset, folder: Path = PAPER / "runs" / "peers") -> Features:
    "The classifier that scores, trained once and kept in `folder`."
    path = folder / "features.safetensors"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        rng = Random(0).stream("yardstick", "features")
        train_features(data.train, data.train_labels, rng=rng).save(path)
    return load_features(path)


def read_run(folder: Path, seed: int) -> Run:
    """The `Run` in a folder that an earlier version of the code trained with the paper's profile
    and this seed.
    """
    about = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    if about["seed"] != seed:
        raise ValueError(f"{folder} was trained with seed {about['seed']}, not {seed}.")
    backend = Backend()
    return Run(
        model=load_model(folder / "model.safetensors", backend),
        dataset=load_dataset("mnist"),
        history=about["history"],
        profile=PROFILES["paper"],
        backend=backend,
        rng=Random(seed, backend),
        seed=seed,
        key=about["key"],
        folder=folder,
        out=folder.parent.parent,
    )


def network(seed: int, runs: Path | None = None) -> Run:
    """The paper's trained network of one seed: read from the folder `runs`, which holds
    paper-seed<seed>-*, or trained now.
    """
    if not runs:
        return trained_run("paper", seed=seed, device="cpu")
    folders = sorted(Path(runs).glob(f"paper-seed{seed}-*"))
    found = [folder for folder in folders if (folder / "model.safetensors").is_file()]
    if not found:
        raise ValueError(
            f"{runs} holds no trained network of seed {seed} "
            f"(paper-seed{seed}-*/model.safetensors)."
        )
    return read_run(found[0], seed)
