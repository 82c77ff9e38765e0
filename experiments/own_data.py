"""Does the recipe hold on other pictures, with the noise that `starting_noise` finds for them
(nbs/12_stability.ipynb)? figures/paper/own_data.json.

    python -m experiments.own_data                    everything that is not there yet; resumes
    python -m experiments.own_data --part noise       one part: noise, seeds or vae (needs PyTorch)
    python -m experiments.own_data --only photographs these sets

Every network has 300 softplus and 50 sigmoid units and learns for 1,000 minibatches of 100 from at
most 10,000 pictures; all else is the estimator's default. GENERATE's 10,000 samples are scored by a
Parzen window whose sigma is chosen on validation pictures.

noise   the noise of x at several multiples of s_2, the standard deviation along the second
        principal direction; it falls to 0.8 of that. Seeds 1 to 3, scores of validation pictures.
seeds   the default, seeds 0 to 19; scores of test pictures.
vae     a variational auto-encoder with the same layers, minibatches and pictures; the deviation of
        its pixels is the best of DEVIATIONS on validation pictures. Seeds 0 to 4.

The sets: the 8 x 8 digits, MNIST, patches of 12 x 12 pixels of the two photographs that scikit-learn
has, grey, as they are (training patches from the left 0.6 of each, validation from the next 0.2, test
from the rest); and Fashion-MNIST, Kuzushiji-MNIST and EMNIST letters where their files are found:
sets that are not here are named and left out.

THE RULE, fixed after a look at seed 0 of the first three sets (from which the multiple 0.26 was
taken), before any other seed: on a set the default HOLDS if training is finite with all twenty seeds,
and the noise with the best mean score of part noise lies within a factor of two of the default.
"""

import sys

import numpy as np
from sklearn.datasets import load_sample_images

from biolearn.core.arrays import check_choice, to_numpy
from biolearn.core.data import DataNotFoundError, from_arrays, load_dataset
from biolearn.core.learning import DivergenceError
from biolearn.core.rng import Random
from biolearn.estimator import DeepDAE
from biolearn.evaluation.neighbours import variety
from biolearn.evaluation.parzen import choose_sigma, parzen_log_likelihood
from biolearn.theory.stability import principal_spread, starting_noise
from experiments import PAPER, command_line, extend_table, origin

SETS = ("digits", "mnist", "photographs", "fashion-mnist", "kmnist", "emnist-letters")
HIDDEN, BATCH, MINIBATCHES, ROWS, SAMPLES = (300, 50), 100, 1_000, 10_000, 10_000
MULTIPLES = (0.065, 0.13, 0.18, 0.26, 0.37, 0.52, 1.04)  # of s_2
SIGMAS = [float(f"{s:.2g}") for s in np.geomspace(0.05, 0.4, 13)]
DEVIATIONS = (None, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)  # None: learnt
PATCH, PATCHES = 12, {"train": 10_000, "valid": 2_000, "test": 2_000}
ENDS = {"train": (0, 0.6), "valid": (0.6, 0.8), "test": (0.8, 1)}  # parts of a photograph's width
PART_SEEDS = {"noise": range(1, 4), "seeds": range(20), "vae": range(5)}


def photographs():
    "Grey patches of scikit-learn's two photographs, as many of each, a `Dataset`."
    grey = [image.mean(axis=2) / 255 for image in load_sample_images().images]
    rng, splits = np.random.default_rng(12), {}
    for split, n in PATCHES.items():
        splits[split] = np.empty((n, PATCH, PATCH))
        for i in range(n):
            image = grey[i % len(grey)]
            first, last = (int(end * image.shape[1]) for end in ENDS[split])
            row = rng.integers(image.shape[0] - PATCH + 1)
            column = rng.integers(first, last - PATCH + 1)
            splits[split][i] = image[row : row + PATCH, column : column + PATCH]
    return from_arrays(**splits, name="photographs")


def pictures(name):
    "A set, with at most ROWS pictures to learn from: (train, validation, test)."
    check_choice(name, "name", SETS)
    data = photographs() if name == "photographs" else load_dataset(name)
    return data.train[:ROWS], data.valid[:2_000], data.test[:2_000]


def found_here(names):
    "Those of the sets whose pictures are here; says which are not."
    here = []
    for name in names:
        try:
            pictures(name)
        except DataNotFoundError as error:
            print(f"{name} is not here and is left out: {str(error).splitlines()[0]}")
        else:
            here.append(name)
    return here


def n_epochs(n):
    "How many epochs of `n` pictures have at least MINIBATCHES minibatches."
    return -(-MINIBATCHES // -(-n // BATCH))


def scored(name, samples, valid, unseen):
    "What samples called `name` score: nats of `unseen`, with the sigma that suits `valid`."
    sigma = choose_sigma(valid, samples, SIGMAS)[0]
    score = float(parzen_log_likelihood(unseen, samples, sigma).mean())
    return {name: score, f"sigma of {name}": sigma, f"variety of {name}": variety(samples, unseen)}


def learnt(x, seed, noise):
    "The estimator, trained on `x`; `noise` is the corruption of x at first, None for its own."
    how = {}
    if noise is not None:
        how = {"noise": (noise, 0.1, "spikes"), "noise_end": (0.8 * noise, 0.1, "spikes")}
    network = DeepDAE(HIDDEN, epochs=n_epochs(len(x)), batch_size=BATCH, random_state=seed, **how)
    return network.fit(x)


def by_network(trial):
    "One network: its noise, its scores, and how its code grew; or that it diverged."
    x, valid, test = pictures(trial.settings["set"])
    multiple = trial.settings.get("multiple")
    try:
        network = learnt(x, trial.seed, multiple and multiple * principal_spread(x)[1])
    except DivergenceError as error:
        return {"diverged": str(error).split(":")[0]}
    sizes = [epoch["rms"][1] for epoch in network.history_]
    found = {"noise": network.noise_[0], "rms of h_1": [sizes[0], sizes[-1]]}
    for name, rounds in (("GENERATE", 3), ("directed", 0)):
        samples = network.sample(SAMPLES, rounds=rounds)
        found |= scored(name, samples, valid, valid if multiple else test)
    return found


def by_vae(trial):
    "One variational auto-encoder, scored on test pictures."
    from experiments.torch_models import Loop, Vae, train

    rng, (x, valid, test) = Random(trial.seed), pictures(trial.settings["set"])
    loop, tried = Loop(epochs=n_epochs(len(x)), batch_size=BATCH), {}
    for deviation in DEVIATIONS:
        vae = Vae(x.shape[1], *HIDDEN, rng=rng.stream("init"), sd=deviation)
        train(vae, vae.loss, x, loop, rng=rng.stream("train"))
        samples = to_numpy(vae.sample(SAMPLES, rng=rng.stream("samples")))
        tried[deviation] = (choose_sigma(valid, samples, SIGMAS)[1].max(), samples)
    best = max(tried, key=lambda deviation: tried[deviation][0])
    return {"deviation": best} | scored("VAE", tried[best][1], valid, test)


def verdict(name, multiples, seeds):
    "Whether the default holds on a set, by the rule of this program, and why."
    means = {
        float(multiple): float(np.mean([run.get("GENERATE", -np.inf) for run in runs.values()]))
        for multiple, runs in multiples.items()
    }
    x = pictures(name)[0]
    default, best = starting_noise(x) / principal_spread(x)[1], max(means, key=means.get)
    finite = sum("diverged" not in run for run in seeds.values())
    holds = finite == len(seeds) and 0.5 <= best / default <= 2
    return {"default": default, "best": best, "finite": finite, "of": len(seeds), "holds": holds}


def finish(table):
    "The verdicts on the sets that are whole, beside the results."
    noise, seeds = table.get("noise", {}), table.get("seeds", {})
    whole = [
        name
        for name in SETS
        if len(noise.get(name, {})) == len(MULTIPLES)
        and len(seeds.get(name, {})) == len(PART_SEEDS["seeds"])
    ]
    return {
        "verdicts": {name: verdict(name, noise[name], seeds[name]) for name in whole}
    } | origin()


def main(argv=None):
    parser = command_line("own_data", __doc__, PAPER / "own_data.json")
    text = "what to measure (default: everything)"
    parser.add_argument("--part", choices=tuple(PART_SEEDS), action="append", help=text)
    text = "only these sets (default: all that are here)"
    parser.add_argument("--only", nargs="+", choices=SETS, default=SETS, metavar="SET", help=text)
    asked, failed = parser.parse_args(argv), 0
    sets = found_here(asked.only)
    for part in asked.part or PART_SEEDS:
        if part == "noise":
            rows = {f"{s} {m}": {"set": s, "multiple": m} for s in sets for m in MULTIPLES}
        else:
            rows = {name: {"set": name} for name in sets}
        measure = by_vae if part == "vae" else by_network
        failed += extend_table(asked, rows, PART_SEEDS[part], measure, _place(part), finish)
    return int(failed > 0)


def _place(part):
    "Where the results of a part stand in the table."
    if part == "noise":
        return lambda trial: (part, *trial.name.split(), trial.seed)
    return lambda trial: (part, trial.name, trial.seed)


if __name__ == "__main__":
    sys.exit(main())
