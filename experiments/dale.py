"""Measure what Dale's law costs (nbs/29_dale.ipynb) and write figures/paper/biology/dale.json.

    python -m experiments.dale --seeds 0-9                        every condition for every seed
    python -m experiments.dale --seeds '' --labels 0-4            the network that learns labels

What is there is kept: seeds are added to the file. Delete it to begin anew.

A network of the paper's kind, smaller and trained shorter so that all conditions can be had (see
SETTINGS), on MNIST: free, and with shares 0.5, 0.8 and 1.0 of excitatory neurons in the hidden
layers; 0.8 with the pixels bound as well, 0.8 or all of them excitatory; one that only starts as
0.8 does and is free then; and three in which every neuron and pixel excites, and interneurons
subtract 1, 0.3 or 0.1 times the summed input of a layer.

THE RULE, written before any measuring seed was looked at: the law of a share COSTS NOTHING if the
mean over seeds of GENERATE's Parzen score lies within TEN nats of the free network's, trained on
the same digits as long; it is said to COST if it lies more than ten nats below, and to HELP if more
than ten above. Nothing is chosen: the recipe is the paper's profile, shortened. The other numbers
(directed, halves, rising) are reported beside it and decide nothing. Of the network that learns
labels the aim, named before, is a mean test error of at most 1.6 %; its feedback is not bound.
"""

import sys
from dataclasses import replace
from functools import partial

import numpy as np

from biolearn.core.learning import DivergenceError
from biolearn.core.rng import Random
from biolearn.evaluation.statistics import mean_and_sd
from biolearn.extensions.dale import dale_rule, wrong_signs
from biolearn.extensions.supervised import predict
from biolearn.reproduction.measures import (
    Size,
    label_errors,
    learn_labels,
    measure_dale,
    train_under_dale,
)
from biolearn.reproduction.profiles import PROFILES
from experiments import PAPER, command_line, extend_table, mnist, origin, some
from experiments.supervised import BABBLING, COMPETING, config_of

# `fractions` of excitatory neurons and pixels, whether the law is `kept` in training, and the
# `inhibition` by interneurons. "then free" tells the start's part from the law's.
CONDITIONS = {
    "free": {"fractions": None},
    "0.8": {"fractions": (0.8, None)},
    "1.0": {"fractions": (1.0, None)},
    "0.5": {"fractions": (0.5, None)},
    "0.8, pixels 0.8": {"fractions": (0.8, 0.8)},
    "0.8, pixels 1.0": {"fractions": (0.8, 1.0)},
    "start of 0.8, then free": {"fractions": (0.8, None), "kept": False},
    **{f"interneurons, {c:g}": {"fractions": (1.0, 1.0), "inhibition": c} for c in (1.0, 0.3, 0.1)},
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


def measured(trial):
    "One network trained under a condition, and what it scores on the test digits."
    data, rng, paper = mnist(), Random(trial.seed), PROFILES["paper"]
    recipe = replace(paper.recipe, epochs=SETTINGS["epochs"])
    profile = replace(paper, hidden=SETTINGS["hidden"], recipe=recipe)
    how, x = CONDITIONS[trial.name], data.train[: SETTINGS["rows"]]
    try:
        model, history, signs = train_under_dale(profile, x, rng=rng, **how)
    except DivergenceError as e:
        return {"diverged": str(e)}
    size = Size(*(SETTINGS[name] for name in ("samples", "digits", "sigma")))
    found = measure_dale(
        model,
        signs,
        data,
        size,
        n_completed=SETTINGS["filled"],
        inhibition=how.get("inhibition", 0.0),
        rng=rng.stream("dale"),
    )
    lowest = {
        f"{name}_{k}": float(getattr(pair, name).W.min())
        for k, pair in enumerate(model.pairs, 1)
        for name in "fg"
    }
    return found | {"rms": history[-1]["rms"], "lowest": lowest}


def taught(trial):
    """The network that learns labels, of `experiments.supervised`, with every neuron and pixel
    excitatory: errors in per cent, and how many synapses the law ever stopped at zero.
    """
    how, rng, stopped = trial.settings, Random(trial.seed), []
    sizes = (mnist().train.shape[1], *how["layers"], 10)
    signs = [np.ones(n, np.float32) for n in sizes]
    law = dale_rule(signs, how["inhibition"])

    def kept(model, h):
        stopped.append(wrong_signs(model, signs, how["inhibition"]))
        law(model, h)

    model, _, _ = learn_labels(
        mnist(),
        how["rule"],
        how["layers"],
        config_of(len(how["layers"]), how["epochs"], how["rate_top"]),
        babbling=BABBLING,
        law=kept,
        rng=rng,
        **how["labels"],
    )
    return label_errors(partial(predict, model), mnist()) | {"stopped": sum(stopped)}


def verdicts(found):
    "The sentence of the rule for each condition."
    means = {
        c: mean_and_sd({s: r["GENERATE"] for s, r in seeds.items() if "GENERATE" in r})
        for c, seeds in found.get("conditions", {}).items()
    }
    if not means.get("free", {}).get("n"):
        return {}
    return {c: _verdict(m, means["free"]) for c, m in means.items() if m["n"] and c != "free"}


def _verdict(ours, free):
    "The rule on one condition, beside the free network."
    difference = ours["mean"] - free["mean"]
    costs = "costs" if difference < 0 else "helps"
    said = "costs nothing" if abs(difference) <= SETTINGS["nats"] else costs
    return {"difference": difference, "verdict": said, "seeds": ours["n"]}


def finish(table):
    "The verdicts and the settings, beside the results."
    return {"verdicts": verdicts(table), "settings": SETTINGS, **origin()}


def main(argv=None):
    out = PAPER / "biology" / "dale.json"
    parser = command_line("dale", __doc__, out, seeds="0-9")
    names, text = tuple(CONDITIONS), "which of them (default: all)"
    parser.add_argument(
        "--conditions", nargs="+", choices=names, default=names, metavar="NAME", help=text
    )
    text = "seeds of the network that learns labels, such as 0-4"
    parser.add_argument("--labels", type=some, default="", metavar="SEEDS", help=text)
    asked = parser.parse_args(argv)
    labels = COMPETING | dict(layers=[1000], rule="babbled", inhibition=4.0)
    failed = extend_table(
        asked,
        {"interneurons, 4": labels},
        asked.labels,
        taught,
        place=lambda trial: ("labels", trial.name, trial.seed),
        finish=finish,
    )
    failed += extend_table(
        asked,
        {name: SETTINGS | CONDITIONS[name] for name in asked.conditions},
        asked.seeds,
        measured,
        place=lambda trial: ("conditions", trial.name, trial.seed),
        finish=finish,
    )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
