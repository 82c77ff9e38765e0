"""What noise in inference costs and gives at the scale of the paper (nbs/31_langevin.ipynb): one
file, figures/paper/biology/noise.json.

    python -m experiments.noise --runs figures/paper/runs --seeds 7-9
        take the trained networks in that folder (paper-seed<seed>-*); without --runs each is
        trained first
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

import sys
import time
from dataclasses import replace
from functools import partial

from biolearn.core.generation import generate
from biolearn.core.learning import fit
from biolearn.core.model import init_model
from biolearn.core.rng import Random
from biolearn.evaluation.likelihood import Decoder, ais, fit_sigmas
from biolearn.evaluation.statistics import mean_and_stderr
from biolearn.extensions.langevin import LangevinInference, noise_units
from biolearn.reproduction.measures import (
    NoiseLevels,
    measure_noisy_inference,
    measure_noisy_samples,
    sample_quality,
)
from biolearn.reproduction.profiles import PROFILES
from experiments import PAPER, command_line, extend_table, mnist, origin, some
from experiments.trained import features_of, network

LEVELS = NoiseLevels((0.0, 1.0, 10.0, 100.0))
N_SAMPLES, N_DIGITS, ROWS, EPOCHS, TRAINED = 500, 10, 3000, 3, (1.0, 10.0)
PROFILE = PROFILES["paper"]


def measured(trial, runs):
    "Every level of noise on the trained network of one seed."
    run, data, rng = network(trial.seed, runs), mnist(), Random(trial.seed).stream("noise")
    return {
        "key": run.key,
        "sds": noise_units(run.model, data.valid[:1000]),
        "painted": measure_noisy_samples(
            run.model, data, LEVELS, N_SAMPLES, features=features_of(data), rng=rng
        ),
        "explained": measure_noisy_inference(
            run.model, data, LEVELS.temperatures, N_DIGITS, rng=rng
        ),
    }


def learnt(trial):
    """Short training with noise of every temperature in its E-step, and without. The unit is that
    of the network trained without.
    """
    root, found, sigmas = Random(trial.seed), {}, None
    start = init_model(PROFILE.sizes(784), PROFILE.units, rng=root.stream("init"))
    for T in trial.settings["temperatures"]:
        began = time.process_time()
        model, history = fit(
            start,
            mnist().train[:ROWS],
            replace(PROFILE.recipe, epochs=EPOCHS),
            rng=root.stream("train"),
            inference=LangevinInference(temperature=T, sigmas=sigmas) if T else None,
            progress=False,
        )
        about = {"log p(x, h)": history[-1]["log_p_end"], "seconds": time.process_time() - began}
        sigmas = sigmas or noise_units(model, mnist().valid[:1000])
        found[str(T)] = _scores(model, root.stream("noise", "learning")) | about
    return {"sds": sigmas, "rows": ROWS, "epochs": EPOCHS, "temperatures": found}


def _scores(model, rng):
    "Samples and log p(x) of one network."
    data, features = mnist(), features_of(mnist())
    decoder = Decoder.from_model(model, fit_sigmas(model, data.valid[:1000]))
    annealed = ais(
        decoder, data.test[:N_DIGITS], rng=rng.stream("ais"), n_temperatures=200, progress=False
    )
    found = {"log p(x)": mean_and_stderr(annealed.log_p), "sds": decoder.sigmas}
    for key, rounds in (("directed", 0), ("GENERATE", 3)):
        x = generate(model, N_SAMPLES, rounds=rounds, rng=rng.stream("samples"))
        found[key] = sample_quality(x, data, features, rng=rng.stream("quality"))
    return found


def finish(table):
    "The settings, beside the results."
    levels = {"temperatures": LEVELS.temperatures, "noise on h_1": LEVELS.painting}
    return {"settings": levels | {"n_samples": N_SAMPLES, "n_digits": N_DIGITS}, **origin()}


def main(argv=None):
    out = PAPER / "biology" / "noise.json"
    parser = command_line("noise", __doc__, out, seeds="7-9", runs=True)
    text = "seeds whose short training with noise is measured (default: %(default)s)"
    parser.add_argument("--learn", type=some, default="8", metavar="8", help=text)
    asked = parser.parse_args(argv)
    extend = partial(extend_table, asked, place=lambda t: (t.name, t.seed), finish=finish)
    levels = {"levels": LEVELS, "n_samples": N_SAMPLES, "n_digits": N_DIGITS}
    failed = extend({"seeds": levels}, asked.seeds, partial(measured, runs=asked.runs))
    learn = {"temperatures": (0.0, *TRAINED), "rows": ROWS, "epochs": EPOCHS}
    failed += extend({"learning": learn}, asked.learn, learnt)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
