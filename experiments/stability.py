"""Where TRAIN stays bounded: one short training run per point of a grid, kept in
experiments/stability.csv. nbs/12_stability.ipynb draws it.

    python -m experiments.stability linear            ten linear units, plain descent
    python -m experiments.stability digits            64 - 100 softplus - 30 sigmoid, Adam
    python -m experiments.stability mnist --data DIR  784 - 1000 softplus - 100 sigmoid, Adam

The linear units see the digits' ten largest principal components. With the digits, one pair of
layers is trained with other units, too. On MNIST a point takes two epochs.
Rows already in the table are skipped, so that a run can be interrupted; each row is written as soon
as it is measured. Rates stay (no decay). A row:

setting
    What was trained and how. sigma_x, sigma_h: corruption of x and of every Gaussian hidden layer;
    rate_f, rate_g: of pair 1 (the upper pair's stay).
outcome
    finite, or diverged (`fit` raised DivergenceError); epochs_done: whole epochs before that.
rms_start, rms_half, rms_end
    rms activity of h_1 after inference, on one fixed batch: after the first epoch, half of the
    epochs, and the last whole epoch.
gain, stretch
    After the last whole epoch, along the first principal direction v of x: the fraction of v'x that
    g_1(h_1) reconstructs, and r |h_1| / |f_1(x)|: how much inference stretches what h_1 says about
    v'x, times how much learning from noisy x shrinks it, r = s^2 / (s^2 + sigma_x^2).
"""

import argparse
import csv
from pathlib import Path

import numpy as np

from biolearn.core.arrays import to_numpy, use_device
from biolearn.core.data import load_dataset, load_digits
from biolearn.core.inference import infer
from biolearn.core.learning import DivergenceError, TrainConfig, copy_model, fit
from biolearn.core.model import init_model
from biolearn.core.rng import Random

TABLE = Path(__file__).with_name("stability.csv")
KNOBS = ("sigma_x", "sigma_h", "rate_f", "rate_g", "delta", "alpha")
KEY = ("network", *KNOBS, "seed")
RESULTS = ("outcome", "epochs_done", "rms_start", "rms_half", "rms_end", "gain", "stretch")

# name of a network: (sizes, units, the knobs where every cut passes through, what the training
# keeps)
SLOW = dict(optimizer="sgd", decay=False, batch_size=50)
FAST = dict(decay=False, batch_size=50, epochs=20)
NETWORKS = {
    "linear": (
        (10, 10),
        ("linear",) * 2,
        dict(sigma_x=0.2, sigma_h=0.1, rate_f=0.03, rate_g=0.03, delta=0.1, alpha=0.0),
        SLOW | dict(epochs=120),
    ),
    "digits": (
        (64, 100, 30),
        ("sigmoid", "softplus", "sigmoid"),
        dict(sigma_x=0.2, sigma_h=0.1, rate_f=3e-3, rate_g=3e-3, delta=0.1, alpha=0.001),
        FAST,
    ),
    "mnist": (
        (784, 1000, 100),
        ("sigmoid", "softplus", "sigmoid"),
        dict(sigma_x=0.5, sigma_h=0.1, rate_f=3e-4, rate_g=1e-3, delta=0.1, alpha=0.001),
        dict(decay=False, epochs=2),
    ),
}
PAIRS = [(g, f) for g in ("linear", "sigmoid") for f in ("linear", "softplus")]
NETWORKS |= {
    f"pair {g} {f}": (
        (64, 100),
        (g, f),
        dict(sigma_x=0.1, sigma_h=0.1, rate_f=3e-3, rate_g=3e-3, delta=0.1, alpha=0.0),
        FAST,
    )
    for g, f in PAIRS
}
UPPER = {"digits": 3e-3, "mnist": 1e-3}  # rates of the second pair


def points(dataset):
    """The grid of `dataset`, as (network, knobs, seed): first every point once, then two more seeds
    near the edge.
    """

    def around(network, edge=False, **knobs):
        return network, NETWORKS[network][2] | knobs, edge

    grid = []
    if dataset == "linear":
        for x in (0.05, 0.1, 0.2, 0.4, 0.6, 0.9, 1.1):
            grid += [around("linear", x >= 0.9, sigma_x=x, sigma_h=h) for h in (0.1, 0.3, 1.0)]
            grid += [around("linear", sigma_x=x, sigma_h=0.3, rate_f=f) for f in (0.003, 0.3)]
        grid += [around("linear", True, sigma_h=0.3, delta=d) for d in (0.01, 0.03, 0.05, 0.2, 0.3)]
    elif dataset == "digits":
        for x in (0.2, 0.3, 0.4, 0.1, 0.6, 0.0):
            near = 0.1 < x < 0.5
            grid += [around("digits", near, sigma_x=x, rate_f=f) for f in (3e-3, 1e-3, 1e-2, 3e-4)]
            grid += [around("digits", near, sigma_x=x, sigma_h=h) for h in (1.0, 0.3, 0.0)]
        grid += [around(f"pair {g} {f}", True) for g, f in PAIRS]
        grid += [around("digits", True, rate_f=1e-3, rate_g=g) for g in (3e-4, 1e-3, 1e-2)]
        grid += [around("digits", True, delta=d) for d in (0.02, 0.05, 0.2, 0.4)]
        grid += [around("digits", True, alpha=a) for a in (0.0, 0.01, 0.03, 0.1, 0.3)]
    else:
        for x in (0.5, 0.3, 0.7, 0.4, 0.2):
            grid += [around("mnist", x < 0.6, sigma_x=x, rate_f=f) for f in (3e-4, 1e-3, 1e-4)] + [
                around("mnist", x < 0.6, sigma_x=x, sigma_h=h) for h in (0.02, 0.3)
            ]
    return [
        (network, knobs, seed)
        for seeds in ((0,), (1, 2))
        for network, knobs, edge in grid
        for seed in seeds
        if edge or seed == 0
    ]


def inputs(network, path=None):
    "What the network is trained on, (n, n_0) float32, on the host."
    if network == "mnist":
        return load_dataset("mnist", path).train
    x = load_digits().train
    if NETWORKS[network][1][0] == "sigmoid":
        return x
    x = x - x.mean(0)  # linear units: about the mean
    if NETWORKS[network][0][0] == 64:
        return x
    axes = np.linalg.svd(x, full_matrices=False)[2]
    return (x @ axes[:10].T).astype("float32")


def directions(x, sigma_x):
    """The first principal direction of `x` (n, n_0), and the fraction r that learning from
    noisy x leaves of it.
    """
    variance, axes = np.linalg.eigh(np.cov(x.T))
    return axes[:, -1], variance[-1] / (variance[-1] + sigma_x**2)


def settings(network, knobs):
    "The `TrainConfig` of one point of the grid."
    _, units, _, kept = NETWORKS[network]
    hidden = ("spikes" if unit == "sigmoid" else knobs["sigma_h"] for unit in units[1:])
    rates = {name: (knobs[name], UPPER.get(network)) for name in ("rate_f", "rate_g")}
    return TrainConfig(
        noise=(knobs["sigma_x"], *hidden),
        delta=knobs["delta"],
        alpha=knobs["alpha"],
        **{name: rate[: len(units) - 1] for name, rate in rates.items()},
        **kept,
    )


def train(network, x, config, seed, backend):
    """Train once on `x` (on the device): the outcome, the model after the last whole epoch (None:
    there was none), and the rms of h_1 after each.
    """
    sizes, units, _, _ = NETWORKS[network]
    model = init_model(sizes, units, rng=Random(seed, backend).stream("init"))
    rng = Random(seed, backend).stream("train")
    last, rms = None, []

    def keep(model, history):
        nonlocal last
        last = copy_model(model)
        rms.append(history[-1]["rms"][1])

    try:
        fit(model, x, config, rng=rng, progress=False, on_epoch=keep)
    except DivergenceError:
        return "diverged", last, rms
    return "finite", last, rms


def measure(network, x, knobs, seed, backend=None):
    "Train once on `x` (on the host); the row's RESULTS."
    config = settings(network, knobs)
    there = Random(0, backend).backend.asarray(x)
    outcome, model, rms = train(network, there, config, seed, backend)
    row = dict.fromkeys(RESULTS, "") | dict(outcome=outcome, epochs_done=len(rms))
    if model is None:
        return row
    half = rms[min(len(rms), config.epochs // 2) - 1]
    row |= dict(rms_start=rms[0], rms_half=half, rms_end=rms[-1])
    few = x[:2000]
    v, r = directions(few, knobs["sigma_x"])
    h = infer(model, there[:2000, :], config.inference)[1]
    seen = (few - few.mean(0)) @ v
    along = lambda a: seen @ to_numpy(a) / (seen @ seen)  # each unit's regression on v'x
    stretch = np.linalg.norm(along(h)) / np.linalg.norm(along(model.f(1, there[:2000, :])))
    return row | dict(gain=along(model.g(1, h)) @ v, stretch=r * stretch)


def key(row):
    "What identifies a row, as text, whether it comes from the table or not."
    return tuple(str(row[name]) if name == "network" else f"{float(row[name]):g}" for name in KEY)


def append(row):
    "Write `row` at the end of the table, with a header if it is new."
    new = not TABLE.exists()
    with TABLE.open("a", newline="") as file:
        writer = csv.DictWriter(file, KEY + RESULTS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


def run(dataset, data=None, device="cpu"):
    "Measure the points of `dataset` that are not in the table yet."
    backend = use_device(device)
    held = {}
    done = {key(row) for row in csv.DictReader(TABLE.open())} if TABLE.exists() else set()
    for network, knobs, seed in points(dataset):
        point = dict(network=network, **knobs, seed=seed)
        if key(point) in done:
            continue
        if network not in held:
            held[network] = inputs(network, data)
        found = measure(network, held[network], knobs, seed, backend)
        row = point | {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in found.items()}
        append(row)
        done.add(key(point))
        print(", ".join(f"{k} {v}" for k, v in row.items()), flush=True)


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m experiments.stability",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", choices=("linear", "digits", "mnist"))
    parser.add_argument("--data", help="folder with the MNIST files")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args(argv)
    run(args.dataset, args.data, args.device)


if __name__ == "__main__":
    main()
