"""What the same seeds give: a program that prints checksums and sizes as JSON (see test_golden.py).

OPENBLAS_NUM_THREADS=1 python tests/golden.py
"""

import hashlib
import json
import tempfile
from dataclasses import replace

import numpy as np
from numpy.lib.introspect import opt_func_info

from biolearn.core.arrays import Backend
from biolearn.core.data import load_digits
from biolearn.core.ensembles import fit_many
from biolearn.core.generation import generate, half_masks, inpaint, joint_step, sample_directed
from biolearn.core.inference import Inference, infer
from biolearn.core.learning import TrainConfig, fit, top_states
from biolearn.core.model import init_model, weights_of
from biolearn.core.priors import fit_mixture_prior
from biolearn.core.rng import Random
from biolearn.evaluation.parzen import parzen_log_likelihood
from biolearn.extensions.asynchronous import AsynchronousInference
from biolearn.extensions.langevin import LangevinInference
from biolearn.extensions.spiking import SpikingInference
from biolearn.extensions.supervised import ClampedLabels, PerturbationFeedback, one_hot

UNITS = ("sigmoid", "softplus", "sigmoid")
CONFIG = TrainConfig(
    epochs=3,
    noise=(0.22, 0.1, "spikes"),
    noise_end=(0.2, 0.05, "spikes"),
    rate_f=(3e-4, 1e-3),
    rate_g=(1e-3, 1e-3),
)
BRIEF = replace(CONFIG, epochs=1, noise_end=None)
DEEP = TrainConfig(
    epochs=2,
    noise=(0.2, 0.1, 0.1, "spikes"),
    rate_f=(3e-4, 1e-3, 1e-3),
    rate_g=(1e-3, 1e-3, 1e-3),
    optimizer="rmsprop",
)


def start(seed, sizes=(64, 40, 10), units=UNITS):
    return init_model(sizes, units, rng=Random(seed).stream("init"))


def arrays(model):
    return [*weights_of(model).values(), model.prior.mean, model.prior.var]


def train(seed, x, config=CONFIG, **more):
    rng = Random(seed).stream("train")
    return fit(more.pop("model", start(seed)), x, config, rng=rng, progress=False, **more)[0]


def resumed(x):
    "Stopped after the first epoch, and taken up again."

    class Stop(Exception):
        pass

    def stop(model, history):
        raise Stop

    with tempfile.TemporaryDirectory() as folder:
        try:
            train(5, x, checkpoint=folder, on_epoch=stop)
        except Stop:
            pass
        return train(5, x, checkpoint=folder)


def core(digits):
    "Training, inference, generation and in-painting: {name: arrays}."
    x, test = digits.train, digits.test
    model = train(5, x)
    rngs = [Random(seed).stream("train") for seed in (5, 7)]
    two = fit_many([start(5), start(7)], x, CONFIG, rngs=rngs, progress=False)
    deep = start(6, (64, 30, 20, 10), ("sigmoid", "softplus", "softplus", "sigmoid"))
    codes = np.concatenate(list(top_states(model, x, CONFIG.inference)))
    mixture = fit_mixture_prior(codes, 12, rng=Random(4))
    samples = generate(model, 1000, rng=Random(1).stream("samples"))
    return {
        "training": arrays(model),
        "three layers, rmsprop": arrays(train(6, x, DEEP, model=deep)),
        "resumed training": arrays(resumed(x)),
        "two networks at once": [a for model, _ in two for a in arrays(model)],
        "inference": infer(model, test[:50])[1:],
        "generate": [samples],
        "directed": [sample_directed(model, 1000, rng=Random(1).stream("samples"))],
        "in-painting": [inpaint(model, test[:20], half_masks((8, 8))["top"], rng=Random(2))],
        "joint step": joint_step(
            model, infer(model, test[:50]), (0.2, 0.1, "spikes"), rng=Random(3)
        ),
        "mixture prior": [mixture.mean, mixture.var, mixture.weight],
        "parzen": [parzen_log_likelihood(test, samples, 0.2)],
    }


def extensions(digits):
    "GENERATE and one epoch of training with other ways to infer, and learning from labels."
    x = digits.train
    model = train(5, x)
    spiking, langevin = {"window": 10}, {"temperature": 1.0, "sigmas": (0.1, 0.2)}
    by_neurons = {"p": 0.5, "of": "neurons", "delay": 2}
    # a whole block: products of fewer rows may have other last bits
    block = lambda inference, seed: generate(model, 1000, inference=inference, rng=Random(seed))
    made = lambda inference, seed: block(inference, seed)[:60]
    brief = lambda inference: arrays(train_brief(x[:400], inference))
    return {
        "spikes": [made(SpikingInference(alpha=0.3, **spiking), 8)],
        "langevin": [made(LangevinInference(alpha=0.3, **langevin), 9)],
        "asynchronous": [
            made(AsynchronousInference(alpha=0.3, **how), 10) for how in ({"p": 0.5}, by_neurons)
        ],
        "spiking training": brief(SpikingInference(**spiking)),
        "langevin training": brief(LangevinInference(**langevin)),
        "asynchronous training": brief(AsynchronousInference(p=0.5)),
        "supervised": arrays(train_with_labels(digits)),
    }


def train_brief(x, inference):
    return fit(start(11), x, BRIEF, rng=Random(11), inference=inference, progress=False)[0]


def train_with_labels(digits):
    "Both ends clamped, and feedback that learns from perturbations."
    net = init_model((64, 30, 10), ("sigmoid", "tanh", "sigmoid"), rng=Random(12))
    feedback = PerturbationFeedback(net, rng=Random(13))
    rows = np.hstack([digits.train, one_hot(digits.train_labels, 10, Backend())])
    config = replace(CONFIG, epochs=2, noise=(0.2, 0.05, 0.0), noise_end=None)
    labels = ClampedLabels(feedback, inference=Inference(n_steps=5))
    more = {"inference": labels, "projection": feedback.learn, "progress": False}
    return fit(net, rows, config, rng=Random(12), **more)[0]


def checksum(values):
    sha = hashlib.sha256()
    for a in values:
        sha.update(f"{a.shape}{a.dtype}".encode())
        sha.update(np.ascontiguousarray(a).tobytes())
    return sha.hexdigest()[:16]


def described(values):
    "A checksum for machines of a kind, and two numbers for all others."
    wide = [np.asarray(a, "float64") for a in values]
    return {
        "sha": checksum(values),
        "mean": float(np.mean([a.mean() for a in wide])),
        "size": float(np.sqrt(np.mean([np.mean(a**2) for a in wide]))),
    }


def machine():
    """The kind of machine, by the last bits of its products and functions, and by the log1p of
    NumPy: where a processor has AVX-512 it rounds otherwise, and softplus is made of it.
    """
    rng = np.random.default_rng(0)
    a, b = rng.random((100, 64), dtype="f4"), rng.random((64, 300), dtype="f4")
    (kinds,) = opt_func_info(func_name="^log1p$").values()
    plain = kinds["ff"]["current"].startswith("baseline")
    bits = checksum([a @ b, np.exp(a), np.tanh(b), (a @ b) @ b.T])
    return f"{bits} {'plain' if plain else 'vector'} log1p"


if __name__ == "__main__":
    digits = load_digits()
    found = core(digits) | extensions(digits)
    values = {name: described([np.asarray(a) for a in arrays]) for name, arrays in found.items()}
    print(json.dumps({"machine": machine(), "values": values}, indent=1))
