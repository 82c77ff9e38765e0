"""What INFERENCE loses without a clock at the scale of the paper (nbs/32_asynchronous.ipynb): one
file, figures/paper/biology/clock.json.

    python -m experiments.clock --runs figures/paper/runs --seeds 7-9       take the trained networks in that folder (paper-seed<seed>-*); without --runs each is trained first
    python -m experiments.clock --seeds '' --learn 8                        only the short trainings

What is there is not measured again.

THE RULE OF THE VERDICT, fixed before any network was measured. "Nothing breaks" if at equal
expected moves, for every p, of layers and of neurons, as means over seeds: GENERATE's Parzen score
lies within 5 nats of that in lock step (three times the spread of seeds, 1.5 nats, in
figures/results.json), the squared error of the painting g_1(h_1) of test digits within 5 %, and log
p(x, h) rises in INFERENCE by at least nine tenths of what it rises in lock step. Learning "breaks"
if a short training without a clock ends more than 5 nats of Parzen below its twin in lock step (one
seed: a sign, not a proof). Old news, and as many ticks as steps, are reported and not part of the
rule.
"""

import json
import sys
import time
from dataclasses import replace

import numpy as np

from biolearn.core.data import load_dataset
from biolearn.core.generation import generate
from biolearn.core.inference import Inference, infer
from biolearn.core.learning import fit
from biolearn.core.model import encode, init_model, log_p_joint
from biolearn.core.rng import Random
from biolearn.evaluation.neighbours import variety
from biolearn.evaluation.parzen import parzen_log_likelihood
from biolearn.evaluation.statistics import mean_and_stderr
from biolearn.extensions.asynchronous import clockless_e_step, clockless_infer
from biolearn.reproduction.profiles import PROFILES
from biolearn.reproduction.report import git_revision
from biolearn.reproduction.runs import versions
from experiments.noise import RECIPE, STEPS, asked_of, rounds_of
from experiments.comparison import network, save

N_SAMPLES, N_DIGITS, ROWS, EPOCHS = 300, 100, 3000, 3
WAYS = {
    "lock step": dict(p=1),
    **{f"layers, p = {p}": dict(p=p) for p in (0.5, 0.1, 0.02)},
    **{f"neurons, p = {p}": dict(p=p, of="neurons") for p in (0.5, 0.1)},
}  # at equal expected moves
OTHER = {
    "15 ticks, p = 0.5": dict(p=0.5, n_ticks=15),
    "15 ticks, p = 0.1": dict(p=0.1, n_ticks=15),
    "news up to 5 steps old": dict(p=1, delay=5),
    "news up to 15 steps old": dict(p=1, delay=15),
    "layers, p = 0.5, news up to 10 ticks old": dict(p=0.5, delay=10),
}
LEARN = {"layers, p = 0.1": dict(p=0.1), "neurons, p = 0.5": dict(p=0.5, of="neurons")}


def settled(model, x, settings, rng):
    """INFERENCE of the digits `x` in one way: what it reaches, how near it comes to the state after
    500 steps in lock step, and how well it paints them.
    """
    start, h = (
        log_p_joint(model, encode(model, x)),
        clockless_infer(model, x, alpha=RECIPE.alpha, rng=rng, **STEPS, **settings),
    )
    return h, {
        "log p(x, h)": mean_and_stderr(log_p_joint(model, h)),
        "rise": mean_and_stderr(log_p_joint(model, h) - start),
        "error": mean_and_stderr(((model.g(1, h[1]) - x) ** 2).mean(axis=1)),
    }


def measured(model, data, rng):
    "Every way of WAYS and OTHER, on the same digits and the same directed samples: {way: numbers}."
    x, found = data.test[:N_DIGITS], {}
    rest, locked = (
        infer(model, x, Inference(alpha=RECIPE.alpha, n_steps=500, delta=RECIPE.delta)),
        infer(model, x, RECIPE.inference),
    )
    far = lambda h, other: float(np.sqrt(np.mean((h[1] - other[1]) ** 2)))
    for name, settings in (WAYS | OTHER).items():
        began = time.process_time()
        h, numbers = settled(model, x, settings, rng.stream("infer", name))
        samples = rounds_of(
            model,
            N_SAMPLES,
            lambda x, r: clockless_infer(
                model, x, alpha=0.3, rng=rng.stream("paint", name, r), **STEPS, **settings
            ),
            rng.stream("samples"),
        )
        found[name] = numbers | {
            "from rest": far(h, rest),
            "from lock step": far(h, locked),
            "Parzen": mean_and_stderr(
                parzen_log_likelihood(data.test, np.clip(samples, 0, 1), 0.2)
            ),
            "variety": variety(samples, data.train),
            "seconds": time.process_time() - began,
        }
        print(
            f"{name:42}",
            *(f"{k} {v[0] if isinstance(v, tuple) else v:.4g}" for k, v in found[name].items()),
            flush=True,
        )
    return found | {
        "feedforward": {
            "from rest": far(encode(model, x), rest),
            "error": mean_and_stderr(((model.g(1, encode(model, x)[1]) - x) ** 2).mean(axis=1)),
        }
    }


def learnt(seed, data, rng):
    "Short trainings without a clock in the E-step, and one in lock step: {way: numbers}."
    recipe, x, found = replace(RECIPE, epochs=EPOCHS), data.train[:ROWS], {}
    start = init_model(
        PROFILES["paper"].sizes(784), PROFILES["paper"].units, rng=Random(seed).stream("init")
    )
    for name, settings in {"lock step": None, **LEARN}.items():
        began = time.process_time()
        model, history = fit(
            start,
            x,
            recipe,
            rng=Random(seed).stream("train"),
            progress=False,
            e_step=settings and clockless_e_step(recipe, **settings),
        )
        scores = {
            key: mean_and_stderr(
                parzen_log_likelihood(
                    data.test,
                    generate(model, N_SAMPLES, rounds=rounds, rng=rng.stream("samples"), **STEPS),
                    0.2,
                )
            )
            for key, rounds in (("directed", 0), ("GENERATE", 3))
        }
        found[name] = scores | {
            "loss_f": history[-1]["loss_f"],
            "loss_g": history[-1]["loss_g"],
            "seconds": time.process_time() - began,
        }
        print(
            "learning",
            name,
            {k: v[0] for k, v in scores.items()},
            history[-1]["loss_g"],
            flush=True,
        )
    return {"rows": ROWS, "epochs": EPOCHS, "ways": found}


def main(argv=None):
    asked, data = asked_of("clock", __doc__, "without a clock", argv), load_dataset("mnist")
    path = asked.out / "clock.json"
    told = (
        json.loads(path.read_text(encoding="utf-8"))
        if path.is_file()
        else {"seeds": {}, "learning": {}}
    )
    told |= {
        "settings": {
            "ways": list(WAYS),
            "other": list(OTHER),
            "n_samples": N_SAMPLES,
            "n_digits": N_DIGITS,
        },
        "revision": git_revision(),
        "versions": versions(),
    }
    for seed in asked.seeds:
        if str(seed) in told["seeds"]:
            print(seed, "was there")
            continue
        run = network(seed, asked.runs)
        told["seeds"][str(seed)] = {
            "key": run.key,
            "ways": measured(run.model, data, Random(seed).stream("clock")),
        }
        save(told, path)
    for seed in asked.learn:
        if str(seed) in told["learning"]:
            print("learning", seed, "was there")
            continue
        told["learning"][str(seed)] = learnt(seed, data, Random(seed).stream("clock", "learning"))
        save(told, path)


if __name__ == "__main__":
    sys.exit(main())
