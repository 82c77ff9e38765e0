"""What it costs to train without a clock, with noise in inference, or with spikes
(nbs/32_asynchronous.ipynb), and with other numbers of hidden layers (nbs/66_target_in_depth.ipynb):
figures/paper/biology/training.json.

    python -m experiments.training --seeds 0-4

What is there is not measured again.

The networks and the digits are those of `experiments.dale`: 784-300-50, the paper's recipe, 10,000
digits for 6 epochs, 600 minibatches. Only the inference that finds the targets differs, or the
hidden layers, or the states of the layer below that f learns from; what is measured is always
measured by INFERENCE and GENERATE as the paper has them. The angles are means over the first 1,000
validation digits, after inference, between the target step of Eq. 12 for each pair and the exact
gradient.

THE RULE, that of `experiments.dale`, before any of these was measured: a way COSTS NOTHING in
training if the mean over seeds of GENERATE's Parzen score lies within ten nats of that
of the networks trained by Algorithm 2; it costs if it lies lower, and helps if higher.
"""

import sys

from biolearn.core.inference import infer
from biolearn.core.layers import angle, exact_gradient, target_step
from biolearn.core.learning import DivergenceError, TrainConfig, fit
from biolearn.core.model import init_model
from biolearn.core.rng import Random
from biolearn.extensions.asynchronous import AsynchronousInference
from biolearn.extensions.langevin import LangevinInference, noise_units
from biolearn.extensions.spiking import SpikingInference
from biolearn.reproduction.measures import Size, measure_dale
from biolearn.reproduction.profiles import PROFILES
from experiments import PAPER, command_line, extend_table, mnist, origin
from experiments.dale import SETTINGS, verdicts

FREE = "free"  # of clock, noise and spikes: Algorithm 2
WAYS = {
    FREE: {},
    "layers move with p = 0.1": {"p": 0.1},
    "neurons move with p = 0.5": {"p": 0.5, "of": "neurons"},
    "messages up to 5 steps old": {"p": 1, "delay": 5},
    "noise, T = 1": {"temperature": 1.0},
    "noise, T = 10": {"temperature": 10.0},
    "3 spikes in a window": {"window": 3},
    "1 hidden layer": {"hidden": (300,)},
    "3 hidden layers": {"hidden": (300, 100, 50)},
    "4 hidden layers": {"hidden": (300, 200, 100, 50)},
    "4 hidden layers, slow f": {"hidden": (300, 200, 100, 50), "rate_f": (3e-4,) * 4},
    "f learns from states before inference": {"presynaptic": "feedforward"},
}


def inference_of(way, learn):
    """The inference of an entry of WAYS; None for Algorithm 2's. The unit of noise is that of the
    network that `learn(None)` gives.
    """
    if "temperature" in way:
        units = noise_units(learn(None), mnist().valid[:1000])
        return LangevinInference(sigmas=units, **way)
    if "window" in way:
        return SpikingInference(**way)
    return AsynchronousInference(**way) if "p" in way else None


def angles(model, x):
    "The mean angle in degrees of each pair's target step to the exact gradient, from h_1 up."
    h = infer(model, x)
    return [
        float(angle(target_step(pair, *ends), exact_gradient(pair, *ends)).mean())
        for pair, ends in zip(model.pairs, zip(h, h[1:]))
    ]


def trained(trial):
    "One network trained in one way, and what it scores on the test digits."
    data, rng, way = mnist(), Random(trial.seed), WAYS[trial.name]
    (bottom, hidden, top), layers = PROFILES["paper"].units, way.get("hidden", SETTINGS["hidden"])
    own = {name: way[name] for name in ("presynaptic", "rate_f") if name in way}
    recipe = TrainConfig(SETTINGS["epochs"], **own)
    x, how = data.train[: SETTINGS["rows"]], dict(rng=rng.stream("train"), progress=False)
    sizes, units = (x.shape[1], *layers), (bottom, *[hidden] * (len(layers) - 1), top)
    start = init_model(sizes, units, rng=rng.stream("init"))
    learn = lambda inference: fit(start, x, recipe, inference=inference, **how)[0]
    try:
        model = learn(inference_of(way, learn))
    except DivergenceError as e:
        return {"diverged": str(e)}
    size = Size(*(SETTINGS[name] for name in ("samples", "digits", "sigma")))
    unbound = [None] * len(model.sizes)
    scores = dict(n_completed=SETTINGS["filled"], rng=rng.stream("dale"))
    found = measure_dale(model, unbound, data, size, **scores)
    found["angles"] = angles(model, data.valid[:1000])
    return {key: found[key] for key in ("GENERATE", "directed", "halves", "rising", "angles")}


def finish(table):
    "The verdicts and the settings, beside the results."
    return {"verdicts": verdicts(table), "settings": SETTINGS, **origin()}


def main(argv=None):
    parser = command_line("training", __doc__, PAPER / "biology" / "training.json", seeds="0-4")
    asked = parser.parse_args(argv)
    settings = {name: SETTINGS | way for name, way in WAYS.items()}
    place = lambda trial: ("conditions", trial.name, trial.seed)
    return int(extend_table(asked, settings, asked.seeds, trained, place, finish) > 0)


if __name__ == "__main__":
    sys.exit(main())
