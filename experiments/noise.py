"""What noise in inference costs and gives at the scale of the paper (nbs/31_langevin.ipynb): one
file, figures/paper/biology/noise.json.

    python -m experiments.noise --runs figures/paper/runs --seeds 7-9       take the trained networks in that folder (paper-seed<seed>-*); without --runs each is trained first
    python -m experiments.noise --seeds '' --learn 8                        only the short trainings

What is there is not measured again. The unit of temperature is that of `noise.noise_units`: 1
shakes h_k as widely as the network's own guess f_k misses it.

THE RULE OF THE VERDICT, fixed before any network was measured. No level is chosen: temperature 1 is
the one that the theory asks for, the others are there to see where a remark that noise helps would
hold. Painting: at a temperature, noise in GENERATE's inference "helps" if Parzen is higher AND the
Fréchet distance smaller than without noise, each on every seed and by more than three standard
errors of the mean difference over seeds; it "trades" if one of them is so much better and the other
so much worse; else it "does not help". The same words are used for each level of noise on h_1 in
the painting alone. Explaining: the importance bound on log p(x) around noisy inference is better,
worse or the same by the same three standard errors. One seed decides nothing. Learning: one seed,
so nothing is decided; a difference counts as worth a second seed from 5 nats of Parzen on (three
times the spread of seeds, 1.5 nats, in figures/results.json).
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
from biolearn.core.generation import generate, inference_chain, sample_directed
from biolearn.core.learning import fit
from biolearn.core.model import init_model, log_p_joint
from biolearn.core.rng import Random
from biolearn.evaluation.comparison import score_inference
from biolearn.evaluation.features import (
    density_coverage,
    frechet_distance,
    jackknife,
    precision_recall,
)
from biolearn.evaluation.likelihood import ais, decoder_of, fit_sigmas
from biolearn.evaluation.neighbours import variety
from biolearn.evaluation.parzen import parzen_log_likelihood
from biolearn.evaluation.statistics import mean_and_stderr
from biolearn.extensions.langevin import noise_units, noisy_e_step, noisy_infer
from biolearn.reproduction.profiles import PROFILES
from biolearn.reproduction.report import git_revision
from biolearn.reproduction.runs import versions
from experiments.comparison import features_of, network, save

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "figures" / "paper" / "biology"
TEMPERATURES, CHAIN, COLD = (0.0, 1.0, 10.0, 100.0), (0.1,), (10.0,)
N_SAMPLES, N_DIGITS, ROWS, EPOCHS, TRAINED = 500, 10, 3000, 3, (1.0, 10.0)
RECIPE = PROFILES["paper"].recipe
STEPS = dict(n_steps=RECIPE.n_steps, delta=RECIPE.delta)


def quality(samples, data, features, unseen, rng):
    "How good a set of samples is, beside `unseen` digits: {name: (value, standard error)}."
    samples = np.clip(samples, 0, 1)
    fake, real = features(samples), features(unseen[: len(samples)])
    return {
        "Parzen": mean_and_stderr(parzen_log_likelihood(unseen, samples, 0.2)),
        "Fréchet": jackknife(frechet_distance, fake, features(unseen), rng=rng.stream("frechet")),
        **precision_recall(real, fake),
        **density_coverage(real, fake),
        "variety": (variety(samples, data.train), 0.0),
    }


def rounds_of(model, n, settle, rng, rounds=3):
    """`n` samples as GENERATE makes them, with `settle(x, r)` -> h as the inference of round r: the
    same directed samples to begin with for every way to settle.
    """
    x = sample_directed(model, n, rng=rng.stream("directed"))
    for r in range(rounds):
        x = model.g(1, settle(x, r)[1])
    return x


def decoded(
    model, sigmas, data, features, unseen, rng, temperatures=TEMPERATURES, chain=CHAIN, n=N_SAMPLES
):
    """Samples at every temperature, all rounds noisy and the last one cold, and with noise on h_1
    in the painting: {kind: {level: qualities}}. All start from the same directed samples.
    """
    judge = lambda x: quality(x, data, features, unseen, rng.stream("quality"))
    shaken = lambda T, cold=0: rounds_of(
        model,
        n,
        lambda x, r: noisy_infer(
            model,
            x,
            temperature=0.0 if r >= 3 - cold else T,
            sigmas=sigmas,
            alpha=0.3,
            rng=rng.stream("walk", r),
            **STEPS,
        ),
        rng,
    )
    found = {"noisy": {}, "last round cold": {}, "noise on the painting": {}}
    for T in temperatures:
        print("painting at temperature", T, flush=True)
        found["noisy"][str(T)] = judge(shaken(T))
        if T in COLD:
            found["last round cold"][str(T)] = judge(shaken(T, cold=1))
    for sd in chain:
        *_, x = inference_chain(model, sample_directed(model, n, rng=rng.stream("directed")), rounds=3, noise=sd, rng=rng.stream("painting"), **STEPS)
        found["noise on the painting"][str(sd)] = judge(x)
    return found


def explained(model, sigmas, data, unseen, rng, temperatures=TEMPERATURES, n=N_DIGITS):
    """At every temperature: log p(x, h) with unit variances and with those that fit, and the
    importance bound on log p(x) around the noisy state of `n` digits.
    """
    fitted, found = fit_sigmas(model, data.valid[:1000], **RECIPE.inference), {}
    decoder, x, valid = decoder_of(model, fitted), unseen[:n], data.valid[-2 * n :]
    for T in temperatures:
        settle = lambda rows, name: noisy_infer(
            model,
            rows,
            temperature=T,
            sigmas=sigmas,
            alpha=RECIPE.alpha,
            rng=rng.stream("settle", name),
            **STEPS,
        )
        one, most = score_inference(
            decoder,
            x,
            settle(x, "test"),
            settle(valid, "valid"),
            rng=rng.stream("bound"),
            K=(1, 1000),
        )
        found[str(T)] = {
            "log p(x, h)": mean_and_stderr(log_p_joint(model, settle(unseen[:2000], "many"))),
            "bound, K = 1": one,
            "bound": most,
        }
    return found


def learnt(seed, data, features, rng, temperatures=TRAINED):
    """Short training with noise of every temperature in its E-step, and without: {temperature:
    numbers}. The unit is that of the network trained without.
    """
    recipe, x, found, sigmas = replace(RECIPE, epochs=EPOCHS), data.train[:ROWS], {}, None
    start = init_model(
        PROFILES["paper"].sizes(784), PROFILES["paper"].units, rng=Random(seed).stream("init")
    )
    for T in (0.0, *temperatures):
        began = time.process_time()
        model, history = fit(
            start,
            x,
            recipe,
            rng=Random(seed).stream("train"),
            progress=False,
            e_step=noisy_e_step(recipe, temperature=T, sigmas=sigmas) if T else None,
        )
        seconds = time.process_time() - began
        if not T:
            sigmas = noise_units(model, data.valid[:1000], **recipe.inference)
        decoder = decoder_of(model, fit_sigmas(model, data.valid[:1000], **recipe.inference))
        annealed = ais(
            decoder, data.test[:N_DIGITS], rng=rng.stream("ais"), n_temperatures=200, progress=False
        )
        samples = {
            r: quality(
                generate(model, N_SAMPLES, rounds=r, rng=rng.stream("samples"), **STEPS),
                data,
                features,
                data.test,
                rng.stream("quality"),
            )
            for r in (0, 3)
        }
        found[str(T)] = {
            "directed": samples[0],
            "GENERATE": samples[3],
            "log p(x)": mean_and_stderr(annealed.log_p),
            "sds": decoder.sigmas,
            "log p(x, h)": history[-1]["log_p_end"],
            "seconds": seconds,
        }
        print(
            "learning",
            seed,
            T,
            {k: round(v[0], 2) for k, v in samples[3].items()},
            found[str(T)]["log p(x)"],
            f"{seconds:.0f} s",
            flush=True,
        )
    return {"sds": sigmas, "rows": ROWS, "epochs": EPOCHS, "temperatures": found}


def some(text):
    "A list of seeds that may be empty."
    return seed_list(text) if text else []


def asked_of(name, doc, learn, argv):
    """What the command line of bench.<name> asks for: runs, seeds, the seeds of the short trainings
    `learn`, and the folder of <name>.json.
    """
    p = argparse.ArgumentParser(
        prog=f"python -m bench.{name}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "--runs",
        type=Path,
        metavar="FOLDER",
        help="where trained networks lie, as paper-seed<seed>-*",
    )
    p.add_argument(
        "--seeds",
        type=some,
        default="7-9",
        metavar="7-9",
        help="seeds and ranges of seeds (default: %(default)s; '' for none)",
    )
    p.add_argument(
        "--learn",
        type=some,
        default="8",
        metavar="8",
        help=f"seeds whose short training {learn} is measured (default: %(default)s)",
    )
    p.add_argument(
        "--out",
        type=Path,
        default=OUT,
        metavar="DIR",
        help=f"where {name}.json goes (default: figures/paper/biology)",
    )
    return p.parse_args(argv)


def main(argv=None):
    asked, data = asked_of("noise", __doc__, "with noise", argv), load_dataset("mnist")
    features, path = features_of(data), asked.out / "noise.json"
    told = (
        json.loads(path.read_text(encoding="utf-8"))
        if path.is_file()
        else {"seeds": {}, "learning": {}}
    )
    told |= {
        "settings": {
            "temperatures": TEMPERATURES,
            "noise on h_1": CHAIN,
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
        run, rng, began = (
            network(seed, asked.runs),
            Random(seed).stream("noise"),
            time.process_time(),
        )
        sigmas = noise_units(run.model, data.valid[:1000], **RECIPE.inference)
        told["seeds"][str(seed)] = {
            "key": run.key,
            "sds": sigmas,
            "painted": decoded(run.model, sigmas, data, features, data.test, rng),
            "explained": explained(run.model, sigmas, data, data.test, rng),
            "seconds": time.process_time() - began,
        }
        save(told, path)
        print(
            "painted and explained",
            seed,
            f"{told['seeds'][str(seed)]['seconds']:.0f} s",
            flush=True,
        )
    for seed in asked.learn:
        if str(seed) in told["learning"]:
            print("learning", seed, "was there")
            continue
        told["learning"][str(seed)] = learnt(
            seed, data, features, Random(seed).stream("noise", "learning")
        )
        save(told, path)


if __name__ == "__main__":
    sys.exit(main())
