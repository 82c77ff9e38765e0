"""Few labels by association (nbs/26_supervised.ipynb): every digit leaves a unit in a memory, units
that a digit wakes together associate, and the labels of a few reach the others along these
synapses.

Every synapse sees its own two ends: those between pixels and between units of the memory are
Hebbian, and what a unit believes is the mean of what its synapses bring. Nothing is carried back
through a layer.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, diags

from biolearn.core.arrays import Array, check_number
from biolearn.core.inference import Inference
from biolearn.core.model import Model

# chosen on the validation digits, with the network of seed 0 and three draws of labels
MEMORY = {"above": 0.5, "code": 0.8, "neighbours": 7, "passed": 0.99, "sweeps": 100, "replays": 4}


def lateral(x: Array, above: float) -> Array:
    """Synapses (n_0, n_0) between pixels that fire together in the pictures `x` (n, n_0): their
    correlations beyond `above`, scaled so that what reaches a pixel is a mean.
    """
    check_number(above, "above", low=0, high=1)
    with np.errstate(divide="ignore", invalid="ignore"):  # a pixel that never changes hears itself
        together = np.nan_to_num(np.corrcoef(x.T))
    np.fill_diagonal(together, 1)
    together[together < above] = 0
    return (together / together.sum(axis=0)).astype(np.float32)


def senses(model: Model, inference: Inference, x: Array, synapses: Array) -> list[Array]:
    """What the memory gets of the pictures `x` (n, n_0): the pixels after they heard each other, of
    length one (n, n_0), and the top layer after inference (n, n_M).
    """
    heard = x @ synapses
    tops = [inference(model, x[i : i + 1000])[-1] for i in range(0, len(x), 1000)]
    return [heard / np.linalg.norm(heard, axis=1, keepdims=True), np.concatenate(tops)]


def cues(model: Model, inference: Inference, sets: Mapping[str, Array]) -> dict[str, Array]:
    """The `senses` of several sets of pictures side by side, each of the spread that it has in the
    set "train", the code times MEMORY["code"].
    """
    synapses = lateral(sets["train"], MEMORY["above"])
    felt = {name: senses(model, inference, x, synapses) for name, x in sets.items()}
    pixels, code = (np.sqrt(part.var(axis=0).sum()) for part in felt["train"])
    return {
        name: np.hstack([a / pixels, b * MEMORY["code"] / code]) for name, (a, b) in felt.items()
    }


def _closest(queries: Array, memory: Array, k: int) -> Iterator[Array]:
    "The places (rows, k) of the units nearest to blocks of `queries`."
    half = (memory * memory).sum(axis=1) / 2
    for i in range(0, len(queries), 500):
        far = half - queries[i : i + 500] @ memory.T
        if queries is memory:
            far[np.arange(len(far)), np.arange(i, i + len(far))] = np.inf
        # a copy: a view of the order of all units would keep it in memory
        yield np.argpartition(far, k - 1, axis=1)[:, :k].astype(np.int32)


def nearest(queries: Array, memory: Array, k: int) -> Array:
    """The places (n, k) of the `k` units of the `memory` (n_m, d) that each of the `queries` (n, d)
    wakes most, in no order; units of the memory itself do not count themselves.
    """
    check_number(k, "k", integer=True, low=1, high=len(memory) - 1)
    return np.concatenate(list(_closest(queries, memory, k)))


def _shares(beliefs):
    "Each row divided by its sum; rows of zeros stay."
    return beliefs / np.maximum(beliefs.sum(axis=1, keepdims=True), 1e-30)


def associations(places: Array, strength: Array) -> Any:
    """A sparse matrix (n, n): how strongly two units are associated, for the units `places` (n, k)
    that each wakes, with `strength` (n, k). Both ends hold the same, and units that wake each other
    associate twice.
    """
    n, k = places.shape
    rows = np.repeat(np.arange(n), k)
    woken = csr_matrix((strength.ravel(), (rows, places.ravel())), (n, n), dtype=np.float32)
    return woken + woken.T


def settle(W: Any, y: Array, passed: float, sweeps: int) -> Array:
    """What every unit believes after `sweeps` of `b = passed * D^-1 W b + y`, D the sums of the
    rows of `W`: labels clamped where `y` (n, classes) has a one, and free elsewhere. Rows sum to
    one, or are zero where no label arrives.
    """
    reach = np.asarray(W.sum(axis=1)).ravel()
    heard = (diags(passed / np.maximum(reach, 1e-30)) @ W).tocsr().astype(np.float32)
    beliefs = y
    for _ in range(sweeps):
        beliefs = heard @ beliefs + y
    return _shares(beliefs)


def recall(places: Array, y: Array, settings: Mapping[str, Any] = MEMORY) -> Array:
    """What every unit of the memory believes (n, classes), when the labels have settled and been
    replayed: after each time, an association holds how far its two units agree.
    """
    strength = np.ones(places.shape, np.float32)
    for _ in range(settings["replays"] + 1):
        W = associations(places, strength)
        beliefs = settle(W, y, settings["passed"], settings["sweeps"])
        sure = _shares(beliefs**2)
        strength = np.einsum("nc,nkc->nk", sure, sure[places])
    return beliefs


def answer(beliefs: Array, places: Array) -> Array:
    "The class (n,) that the units `places` (n, k), which each picture wakes, believe in most."
    return beliefs[places].mean(axis=1).argmax(axis=1)
