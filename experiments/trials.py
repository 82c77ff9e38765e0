"""Try recipes on the validation digits and keep what came out in experiments/trials.csv, so that
nobody searches twice.

    python -m experiments.trials digits "noise=(0.22,0.1,'spikes'), rate_f=(2e-4,2e-3)" --seed 0
    python -m experiments.trials mnist  "noise=(0.5,0.02,'spikes')"

The text is what stands between the brackets of `TrainConfig(...)`. Nothing here looks at the test
digits. One row per trial: the recipe, the seed, a note, and
  generate, directed
      Parzen log-likelihood of the validation digits at sigma = 0.2 (nats; 1,000 samples for digits,
      10,000 for mnist)
  recognisable_*
      share of 1,000 samples clearly nearer to one class of training digits than to any other
  variety_*             total variance of the samples relative to the validation digits'
  log_p_0, log_p_20
      mean log p(x,h) before and after 20 steps of INFERENCE (nats, constants dropped);
      smallest_rise: of the mean in one step
  rising                share of validation digits that are explained better after 20 steps
  inpainting_*          squared error per missing pixel over four halves, with alpha = 0.001 and 0.3
  rms_h1, seconds
      largest rms activity of h_1 in training; time to train (on a shared machine: a rough guide)
"""

import argparse
import ast
import csv
import time
from pathlib import Path

import numpy as np

from biolearn.core.arrays import to_numpy, use_device
from biolearn.core.data import load_dataset
from biolearn.core.generation import generate, half_masks, inpaint, sample_directed
from biolearn.core.inference import Inference
from biolearn.core.learning import DivergenceError, TrainConfig, fit
from biolearn.core.model import init_model, log_p_joint
from biolearn.core.rng import Random
from biolearn.evaluation.completion import inpainting_error
from biolearn.evaluation.neighbours import recognisability, variety
from biolearn.evaluation.parzen import parzen_log_likelihood

TABLE = Path(__file__).with_name("trials.csv")
HIDDEN = {"digits": (200, 50), "mnist": (1000, 100)}


def recipe_of(text):
    "A `TrainConfig` from keyword arguments written as Python literals; nothing is executed."
    call = ast.parse(f"TrainConfig({text})", mode="eval").body
    given = {k.arg: ast.literal_eval(k.value) for k in call.keywords}
    return TrainConfig(**given).for_layers(len(HIDDEN["mnist"]))


def measure(model, history, data, backend, rng):
    "The row of numbers for one trained model, on the validation digits."
    n = 1000 if data.name == "digits" else 10_000
    valid, few = backend.asarray(data.valid), data.valid[:500]
    trace = np.concatenate(
        [
            np.stack(
                [
                    to_numpy(log_p_joint(model, h))
                    for h in Inference(n_steps=20).steps(model, valid[i : i + 1000])
                ]
            )
            for i in range(0, len(data.valid), 1000)
        ],
        axis=1,
    )
    row = {}
    for name, draw in (("generate", generate), ("directed", sample_directed)):
        x = to_numpy(draw(model, n, rng=rng.stream("s")))
        row |= {
            name: parzen_log_likelihood(data.valid, x, 0.2).mean(),
            f"recognisable_{name}": recognisability(x[:1000], data.train, data.train_labels),
            f"variety_{name}": variety(x, data.valid),
        }
    mean = trace.mean(1)
    row |= dict(
        log_p_0=mean[0],
        log_p_20=mean[-1],
        smallest_rise=np.diff(mean).min(),
        rising=(trace[-1] > trace[0]).mean(),
    )
    for alpha in (0.001, 0.3):
        fills = [
            (
                m,
                to_numpy(
                    inpaint(
                        model,
                        backend.asarray(few),
                        m,
                        rng=Random(0, backend),
                        inference=Inference(alpha=alpha),
                    )
                ),
            )
            for m in half_masks(data.image_shape, backend).values()
        ]
        row[f"inpainting_{alpha}"] = np.mean(
            [inpainting_error(few, x, to_numpy(m)).mean() for m, x in fills]
        )
    return row | {"rms_h1": max(e["rms"][1] for e in history)}


def trial(dataset, recipe, seed, device="auto"):
    "Train once and measure; a diverging run gives a row that says so."
    data, backend = load_dataset(dataset), use_device(device)
    rng, start = Random(seed, backend), time.perf_counter()
    model = init_model(
        (data.train.shape[1], *HIDDEN[dataset]),
        ("sigmoid", "softplus", "sigmoid"),
        rng=rng.stream("init"),
    )
    try:
        model, history = fit(model, backend.asarray(data.train), recipe, rng=rng.stream("train"))
    except DivergenceError as e:
        return {"diverged": str(e).split(":")[0]}
    seconds = round(time.perf_counter() - start)
    return {
        k: float(f"{float(v):.5g}") for k, v in measure(model, history, data, backend, rng).items()
    } | {"seconds": seconds}


COLUMNS = (
    "dataset",
    "seed",
    *TrainConfig.__dataclass_fields__,
    "notes",
    "diverged",
    "generate",
    "directed",
    "recognisable_generate",
    "recognisable_directed",
    "variety_generate",
    "variety_directed",
    "log_p_0",
    "log_p_20",
    "smallest_rise",
    "rising",
    "inpainting_0.001",
    "inpainting_0.3",
    "rms_h1",
    "seconds",
)


def main(argv=None):
    "Run one trial, print its row and append it to the table."
    parser = argparse.ArgumentParser(
        prog="python -m experiments.trials",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", choices=HIDDEN)
    parser.add_argument("recipe", nargs="?", default="", help="keyword arguments of TrainConfig")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--notes", default="f_2 born with gain 4", help="what else is different")
    parser.add_argument("--device", default="auto")
    asked = parser.parse_args(argv)
    recipe = recipe_of(asked.recipe)
    row = dict(
        dataset=asked.dataset,
        seed=asked.seed,
        notes=asked.notes,
        **{k: getattr(recipe, k) for k in TrainConfig.__dataclass_fields__},
    ) | trial(asked.dataset, recipe, asked.seed, asked.device)
    print(*(f"{k}={v}" for k, v in row.items()), sep="\n")
    new = not TABLE.exists()
    with TABLE.open("a", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if new:
            table.writeheader()
        table.writerow(row)


if __name__ == "__main__":
    main()
