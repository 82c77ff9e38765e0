"""Measure what Dale's law costs (nbs/29_dale.ipynb) and write figures/paper/biology/dale.json.

    python -m experiments.dale --seeds 0-2                        every condition for every seed

What is there is kept: seeds are added to the file. Delete it to begin anew.

A network of the paper's kind, smaller and trained shorter so that all conditions can be had (see
SETTINGS), on MNIST: free, and with shares 0.5, 0.8 and 1.0 of excitatory neurons in the hidden
layers; 0.8 with the pixels bound as well, 0.8 or all of them excitatory; and one that only starts
as 0.8 does and is free then.

THE RULE, written before any measuring seed was looked at: the law of a share COSTS NOTHING if the
mean over seeds of GENERATE's Parzen score lies within TEN nats of the free network's, trained on
the same digits as long; it is said to COST if it lies more than ten nats below, and to HELP if more
than ten above. Nothing is chosen: the recipe is the paper's profile, shortened. The other numbers
(directed, halves, rising) are reported beside it and decide nothing.
"""

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from biolearn.cli.reproduction import seed_list
from biolearn.core.data import load_dataset
from biolearn.core.generation import generate, half_masks, inpaint, sample_directed
from biolearn.core.inference import Inference, infer
from biolearn.core.learning import DivergenceError, fit
from biolearn.core.model import encode, init_model, log_p_joint
from biolearn.core.rng import Random
from biolearn.evaluation.completion import inpainting_error
from biolearn.evaluation.parzen import parzen_log_likelihood
from biolearn.extensions.dale import dale_rule, dale_signs, dale_start, wrong_signs
from biolearn.evaluation.statistics import mean_and_sd
from biolearn.reproduction.profiles import PROFILES
from biolearn.reproduction.report import git_revision
from biolearn.reproduction.runs import versions
from experiments.comparison import save

PATH = Path(__file__).resolve().parent.parent / "figures" / "paper" / "biology" / "dale.json"
# (share, share of the pixels); the last is not under the law: it tells the start's part from the
# law's
CONDITIONS = {
    "free": None,
    "0.8": (0.8, None),
    "1.0": (1.0, None),
    "0.5": (0.5, None),
    "0.8, pixels 0.8": (0.8, 0.8),
    "0.8, pixels 1.0": (0.8, 1.0),
    "start of 0.8, then free": (0.8, None),
}
SETTINGS = dict(
    hidden=(300, 50),
    rows=10_000,
    epochs=6,
    samples=500,
    digits=200,
    filled=40,
    sigma=0.2,
    nats=10.0,
)


def trained(condition, seed, data):
    "A network trained under a condition: (model, history, signs)."
    profile, rng = replace(PROFILES["paper"], hidden=SETTINGS["hidden"]), Random(seed)
    x, recipe = data.train[: SETTINGS["rows"]], replace(profile.recipe, epochs=SETTINGS["epochs"])
    model, signs = (
        init_model(profile.sizes(x.shape[1]), profile.units, rng=rng.stream("init")),
        [None] * (1 + len(profile.hidden)),
    )
    fraction, free = CONDITIONS[condition], [None] * len(model.sizes)
    if fraction is not None:
        signs = dale_signs(model.sizes, fraction[0], rng=rng.stream("signs"), pixels=fraction[1])
        model = dale_start(model, signs, x[:1000])
    return *fit(
        model,
        x,
        recipe,
        rng=rng.stream("train"),
        progress=False,
        projection=dale_rule(free if condition.endswith("then free") else signs),
    ), signs


def measured(model, signs, unseen, image_shape, rng):
    "What a network scores on the digits `unseen`, and what the law has made of its weights."
    score = lambda s: float(parzen_log_likelihood(unseen, s, SETTINGS["sigma"]).mean())
    x, n = unseen[: SETTINGS["digits"]], SETTINGS["filled"]
    before, after = (
        log_p_joint(model, encode(model, x)),
        log_p_joint(model, infer(model, x, Inference(n_steps=20))),
    )
    masks = np.stack(list(half_masks(image_shape, rng.backend).values()))[np.arange(n) % 4]
    filled = inpaint(model, x[:n], masks, rng=rng.stream("in-painting"))
    maps = {
        f"{name}_{k}": getattr(pair, name) for k, pair in enumerate(model.pairs, 1) for name in "fg"
    }
    return {
        "GENERATE": score(generate(model, SETTINGS["samples"], rng=rng.stream("samples"))),
        "directed": score(sample_directed(model, SETTINGS["samples"], rng=rng.stream("samples"))),
        "halves": float(inpainting_error(x[:n], filled, masks).mean()),
        "rising": float((after > before).mean()),
        "log p before": float(before.mean()),
        "log p after": float(after.mean()),
        "wrong signs": wrong_signs(model, signs),
        "silent": {name: float((dense.W == 0).mean()) for name, dense in maps.items()},
    }


def verdicts(found):
    "The sentence of the rule for each condition."
    means = {
        c: mean_and_sd({s: r["GENERATE"] for s, r in seeds.items() if "GENERATE" in r})
        for c, seeds in found["conditions"].items()
    }
    said = lambda d: (
        "costs nothing" if abs(d) <= SETTINGS["nats"] else "costs" if d < 0 else "helps"
    )
    return {
        c: {
            "difference": m["mean"] - means["free"]["mean"],
            "verdict": said(m["mean"] - means["free"]["mean"]),
            "seeds": m["n"],
        }
        for c, m in means.items()
        if m["n"] and c != "free" and means.get("free", {}).get("n")
    }


def main(argv=None):
    p = argparse.ArgumentParser(
        prog="python -m experiments.dale",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "--seeds",
        type=seed_list,
        default="0-2",
        metavar="0-2",
        help="seeds and ranges of seeds (default: %(default)s)",
    )
    p.add_argument(
        "--conditions",
        nargs="+",
        choices=tuple(CONDITIONS),
        default=tuple(CONDITIONS),
        metavar="NAME",
        help="which of them (default: all)",
    )
    p.add_argument(
        "--out",
        type=Path,
        default=PATH,
        metavar="FILE",
        help="where the numbers go (default: figures/paper/biology/dale.json)",
    )
    asked = p.parse_args(argv)
    data = load_dataset("mnist")
    for seed in asked.seeds:
        for name in asked.conditions:
            found = (
                json.loads(asked.out.read_text(encoding="utf-8"))
                if asked.out.is_file()
                else {"conditions": {}}
            )
            seeds, start = found["conditions"].setdefault(name, {}), time.process_time()
            if str(seed) in seeds:
                continue
            try:
                model, history, signs = trained(name, seed, data)
            except DivergenceError as e:
                seeds[str(seed)] = {"diverged": str(e)}
            else:
                seeds[str(seed)] = measured(
                    model, signs, data.test, data.image_shape, Random(seed).stream("dale")
                ) | {"rms": history[-1]["rms"], "seconds": round(time.process_time() - start)}
            found |= {
                "verdicts": verdicts(found),
                "settings": SETTINGS,
                "revision": git_revision(),
                "versions": versions(),
            }
            save(found, asked.out)
            print(seed, name, seeds[str(seed)], flush=True)


if __name__ == "__main__":
    sys.exit(main())
