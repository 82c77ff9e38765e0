"""What INFERENCE loses without a clock at the scale of the paper (nbs/32_asynchronous.ipynb): one
file, figures/paper/biology/clock.json.

    python -m experiments.clock --runs figures/paper/runs --seeds 7-9
        take the trained networks in that folder (paper-seed<seed>-*); without --runs each is
        trained first
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

import sys
from dataclasses import replace
from functools import partial

from biolearn.core.generation import generate
from biolearn.core.inference import Inference
from biolearn.core.learning import fit
from biolearn.core.model import init_model
from biolearn.core.rng import Random
from biolearn.evaluation.parzen import parzen_log_likelihood
from biolearn.evaluation.statistics import mean_and_stderr
from biolearn.extensions.asynchronous import AsynchronousInference
from biolearn.reproduction.measures import Size, measure_ways
from biolearn.reproduction.profiles import PROFILES
from experiments import PAPER, command_line, extend_table, mnist, origin, some
from experiments.trained import network

SIZE, ROWS, EPOCHS = Size(samples=300, digits=100), 3000, 3
PROFILE = PROFILES["paper"]
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
LEARN = {"lock step": None, **{k: WAYS[k] for k in ("layers, p = 0.1", "neurons, p = 0.5")}}


def measured(trial, runs):
    "Every way on the trained network of one seed."
    run = network(trial.seed, runs)
    ways = {name: AsynchronousInference(**way) for name, way in trial.settings["ways"].items()}
    rng = Random(trial.seed).stream("clock")
    return {"key": run.key, "ways": measure_ways(run.model, mnist(), ways, SIZE, rng=rng)}


def learnt(trial):
    "A short training in each way of LEARN, from the same start."
    root, found = Random(trial.seed), {}
    start = init_model(PROFILE.sizes(784), PROFILE.units, rng=root.stream("init"))
    for name, way in trial.settings["ways"].items():
        inference = AsynchronousInference(**way) if way else Inference()
        found[name] = _learnt_in_one_way(start, inference, root)
    return {"rows": ROWS, "epochs": EPOCHS, "ways": found}


def _learnt_in_one_way(start, inference, root):
    "Scores and losses after one short training."
    data, rng = mnist(), root.stream("clock", "learning")
    model, history = fit(
        start,
        data.train[:ROWS],
        replace(PROFILE.recipe, epochs=EPOCHS),
        rng=root.stream("train"),
        inference=inference,
        progress=False,
    )
    scores = {}
    for key, rounds in (("directed", 0), ("GENERATE", 3)):
        x = generate(model, SIZE.samples, rounds=rounds, rng=rng.stream("samples"))
        scores[key] = mean_and_stderr(parzen_log_likelihood(data.test, x, SIZE.sigma))
    return scores | {key: history[-1][key] for key in ("loss_f", "loss_g")}


def finish(table):
    "The settings, beside the results."
    names = {"ways": list(WAYS), "other": list(OTHER)}
    return {"settings": names | {"n_samples": SIZE.samples, "n_digits": SIZE.digits}, **origin()}


def main(argv=None):
    out = PAPER / "biology" / "clock.json"
    parser = command_line("clock", __doc__, out, seeds="7-9", runs=True)
    text = "seeds whose short training without a clock is measured (default: %(default)s)"
    parser.add_argument("--learn", type=some, default="8", metavar="8", help=text)
    asked = parser.parse_args(argv)
    extend = partial(extend_table, asked, place=lambda t: (t.name, t.seed), finish=finish)
    ways = {"ways": WAYS | OTHER, "size": SIZE}
    failed = extend({"seeds": ways}, asked.seeds, partial(measured, runs=asked.runs))
    learn = {"ways": LEARN, "rows": ROWS, "epochs": EPOCHS}
    failed += extend({"learning": learn}, asked.learn, learnt)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
