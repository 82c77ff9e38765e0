"""What noise in inference costs and gives at the scale of the paper (nbs/31_langevin.ipynb): one
file, figures/paper/biology/noise.json.

    python -m experiments.noise --runs figures/paper/runs --seeds 0-4
        take the trained networks in that folder (paper-seed<seed>-*); without --runs each is
        trained first

What is there is not measured again. The unit of temperature is that of `noise.noise_units`: 1
shakes h_k as widely as the network's own guess f_k misses it.

THE RULE OF THE VERDICT, fixed before any network was measured. No level is chosen: temperature 1 is
the one that the theory asks for, the others are there to see where a remark that noise helps would
hold. Painting: at a temperature, noise in GENERATE's inference "helps" if Parzen is higher AND the
Fréchet distance smaller than without noise, each on every seed and by more than three standard
errors of the mean difference over seeds; it "trades" if one of them is so much better and the other
so much worse; else it "does not help". The same words are used for each level of noise on h_1 in
the painting alone. Explaining: the importance bound on log p(x) around noisy inference is better,
worse or the same by the same three standard errors. One seed decides nothing. Training is
`experiments.training`.
"""

import sys
from functools import partial

from biolearn.core.rng import Random
from biolearn.extensions.langevin import noise_units
from biolearn.reproduction.measures import (
    NoiseLevels,
    measure_noisy_inference,
    measure_noisy_samples,
)
from experiments import PAPER, command_line, extend_table, mnist, origin
from experiments.trained import features_of, network

LEVELS = NoiseLevels((0.0, 1.0, 10.0, 100.0))
N_SAMPLES, N_DIGITS = 500, 10


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


def finish(table):
    "The settings, beside the results."
    levels = {"temperatures": LEVELS.temperatures, "noise on h_1": LEVELS.painting}
    return {"settings": levels | {"n_samples": N_SAMPLES, "n_digits": N_DIGITS}, **origin()}


def main(argv=None):
    out = PAPER / "biology" / "noise.json"
    parser = command_line("noise", __doc__, out, seeds="0-4", runs=True)
    asked = parser.parse_args(argv)
    levels = {"levels": LEVELS, "n_samples": N_SAMPLES, "n_digits": N_DIGITS}
    measure, place = partial(measured, runs=asked.runs), lambda trial: (trial.name, trial.seed)
    return int(extend_table(asked, {"seeds": levels}, asked.seeds, measure, place, finish) > 0)


if __name__ == "__main__":
    sys.exit(main())
