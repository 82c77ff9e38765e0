"""Readers of few labels, each given the same digits: the memory of experiments/memory.py, the delta
rule on every layer before and after inference, and scikit-learn's peers. `experiments.supervised
--part few` measures them.

The rule of the verdict, fixed before a test digit was looked at: with n labels a target holds if
the mean test error of five seeds, each with its own balanced draw of labels, is at most
TARGETS[n] per cent. Settings were chosen on the validation digits with the network of seed 0.
"""

import functools
import warnings
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Ridge
from sklearn.neural_network import MLPClassifier
from sklearn.semi_supervised import LabelSpreading

from biolearn.core.inference import Inference
from biolearn.core.learning import TrainConfig
from biolearn.core.model import Model, encode
from biolearn.core.rng import Random
from biolearn.core.shipped import load_trained
from biolearn.extensions.supervised import one_hot
from biolearn.reproduction.measures import error_rate, put_labels_on_top
from experiments import mnist
from experiments.memory import MEMORY, answer, cues, nearest, recall
from experiments.trained import network

SETS = ("train", "valid", "test")
LABELS = (100, 600, 1000)
TARGETS = {"100": 6.0, "600": 3.0}
# noise: on codes of standard deviation 1; ridge, spread: of scikit-learn's Ridge, LabelSpreading
PEERS = {"noise": 0.3, "steps": 2000, "ridge": 100.0, "spread": 0.99}
ROWS = {
    "memory": {"reader": "memory", "own": False},
    **{name: {"reader": name} for name in ("ridge", "label spreading", "back-propagation")},
    **{
        f"delta rule, h{k}{', after inference' * after}": {"reader": "delta", "codes": [k, after]}
        for after in (True, False)
        for k in (1, 2)
    },
    "memory, each seed its network": {"reader": "memory", "own": True},
}


def digits_of() -> dict[str, np.ndarray]:
    "MNIST by sets of digits."
    return {name: getattr(mnist(), name) for name in SETS}


def balanced(labels, n, rng):
    "The places of `n` labels, as many of each class."
    places = []
    for c in range(10):
        of_class = np.flatnonzero(labels == c)
        order = np.asarray(rng.stream("choose", c).permutation(len(of_class)))
        places.append(of_class[order[: n // 10]])
    return np.concatenate(places)


@functools.cache
def memory_places(seed: int | None, runs: Path | None = None) -> dict[str, np.ndarray]:
    """The units that all digits wake in the memory, by sets: of the network in the package (`seed`
    None), or of the paper's network of a seed.
    """
    model = load_trained() if seed is None else network(seed, runs).model
    felt = cues(model, Inference(), digits_of())
    return {name: nearest(x, felt["train"], MEMORY["neighbours"]) for name, x in felt.items()}


@functools.cache
def pixel_places() -> dict[str, np.ndarray]:
    "The nearest training digits of all digits by their pixels, of length one, by sets."
    unit = {k: x / np.linalg.norm(x, axis=1, keepdims=True) for k, x in digits_of().items()}
    return {name: nearest(x, unit["train"], MEMORY["neighbours"]) for name, x in unit.items()}


@functools.cache
def layer_codes(layer: int, inferred: bool) -> dict[str, np.ndarray]:
    "A layer of the network in the package, of mean 0 and sd 1 on training digits, by sets."
    model, explain = load_trained(), Inference() if inferred else encode
    blocks = lambda x: [explain(model, x[i : i + 1000])[layer] for i in range(0, len(x), 1000)]
    codes = {name: np.concatenate(blocks(x)) for name, x in digits_of().items()}
    mean, sd = codes["train"].mean(axis=0), codes["train"].std(axis=0) + 1e-3
    return {name: (h - mean) / sd for name, h in codes.items()}


def by_memory(how, mine, y, rng, runs):
    "{set: answers} of the memory: labels `y` are clamped at the units `mine`."
    places = memory_places(rng.seed if how["own"] else None, runs)
    few = np.zeros_like(y)
    few[mine] = y[mine]
    beliefs = recall(places["train"], few)
    return {name: answer(beliefs, places[name]) for name in SETS[1:]}


def by_delta_rule(how, mine, y, rng, runs):
    "{set: answers} of label units that learn by the delta rule from noisy codes of one layer."
    layer, inferred = how["codes"]
    codes, few, n = layer_codes(layer, inferred), np.zeros_like(y), len(mine)
    few[mine] = y[mine]
    config = TrainConfig(
        epochs=PEERS["steps"] * min(100, n) // n,
        batch_size=min(100, n),
        noise=(PEERS["noise"], 0.0),
        rate_f=(5e-3,),
        rate_g=(5e-3,),
    )
    below = Model(load_trained().pairs[:layer])
    read = put_labels_on_top(below, codes["train"], few, config, rng=rng).pairs[-1].f
    return {name: read(codes[name]).argmax(axis=1) for name in SETS[1:]}


def by_backprop(how, mine, y, rng, runs):
    "{set: answers} of scikit-learn's network with a thousand hidden units, from these digits alone."
    digits, batch = digits_of(), min(100, len(mine))
    peer = MLPClassifier((1000,), batch_size=batch, max_iter=100, random_state=rng.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        peer.fit(digits["train"][mine], y[mine].argmax(axis=1))
    return {name: peer.predict(digits[name]) for name in SETS[1:]}


def by_ridge(how, mine, y, rng, runs):
    "{set: answers} of scikit-learn's ridge regression of labels on pixels, from these digits alone."
    digits = digits_of()
    peer = Ridge(PEERS["ridge"]).fit(digits["train"][mine], y[mine])
    return {name: peer.predict(digits[name]).argmax(axis=1) for name in SETS[1:]}


def by_label_spreading(how, mine, y, rng, runs):
    "{set: answers} of scikit-learn's label spreading between nearest neighbours on pixels."
    places, n = pixel_places(), len(y)
    everything = np.concatenate([places[name] for name in SETS])

    def kernel(units, rows):
        asked = rows[:, 0].astype(int)
        ends = (
            everything[asked].ravel(),
            np.repeat(np.arange(len(asked)), places["train"].shape[1]),
        )
        near = csr_matrix((np.ones(len(ends[0])), ends), (n, len(asked)))
        return near + near.T if rows is units else near

    given = np.full(n, -1)
    given[mine] = y[mine].argmax(axis=1)
    peer = LabelSpreading(kernel, alpha=PEERS["spread"], max_iter=MEMORY["sweeps"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        peer.fit(np.arange(n)[:, None], given)
    start = {"valid": n, "test": n + len(places["valid"])}
    rows = lambda name: start[name] + np.arange(len(places[name]))[:, None]
    return {name: peer.predict(rows(name)) for name in SETS[1:]}


READERS = {
    "memory": by_memory,
    "delta": by_delta_rule,
    "back-propagation": by_backprop,
    "ridge": by_ridge,
    "label spreading": by_label_spreading,
}


def with_few(trial, runs=None, sets=SETS[1:]):
    "Errors in per cent of one reader, {number of labels: {set: error}}."
    data, found = mnist(), {}
    y = np.asarray(one_hot(data.train_labels, 10))
    for n in LABELS:
        rng = Random(trial.seed).stream("few", n)
        mine = balanced(data.train_labels, n, rng)
        said = READERS[trial.settings["reader"]](trial.settings, mine, y, rng, runs)
        found[str(n)] = {k: error_rate(said[k], getattr(data, f"{k}_labels")) for k in sets}
    return found


def verdicts(rows):
    "{labels: what the target says of the mean test error of the memory}, as far as it is measured."
    seeds = list(rows.get("memory", {}).values())
    mean = {n: float(np.mean([seed[n]["test"] for seed in seeds])) for n in TARGETS if seeds}
    return {n: {"mean": e, "target": TARGETS[n], "holds": e <= TARGETS[n]} for n, e in mean.items()}
