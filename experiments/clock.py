"""What INFERENCE loses without a clock at the scale of the paper (nbs/32_asynchronous.ipynb): one
file, figures/paper/biology/clock.json.

    python -m experiments.clock --runs figures/paper/runs --seeds 0-4
        take the trained networks in that folder (paper-seed<seed>-*); without --runs each is
        trained first

What is there is not measured again.

THE RULE OF THE VERDICT, fixed before any network was measured. "Nothing breaks" if at equal
expected moves, for every p, of layers and of neurons, as means over seeds: GENERATE's Parzen score
lies within 5 nats of that in lock step (three times the spread of seeds, 1.5 nats, in
figures/results.json), the squared error of the painting g_1(h_1) of test digits within 5 %, and log
p(x, h) rises in INFERENCE by at least nine tenths of what it rises in lock step. Old news, and as
many ticks as steps, are reported and not part of the rule. Training is `experiments.training`.
"""

import sys
from functools import partial

from biolearn.core.rng import Random
from biolearn.extensions.asynchronous import AsynchronousInference
from biolearn.reproduction.measures import Size, measure_ways
from experiments import PAPER, command_line, extend_table, mnist, origin
from experiments.trained import network

SIZE = Size(samples=300, digits=100)
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


def measured(trial, runs):
    "Every way on the trained network of one seed."
    run = network(trial.seed, runs)
    ways = {name: AsynchronousInference(**way) for name, way in trial.settings["ways"].items()}
    rng = Random(trial.seed).stream("clock")
    return {"key": run.key, "ways": measure_ways(run.model, mnist(), ways, SIZE, rng=rng)}


def finish(table):
    "The settings, beside the results."
    names = {"ways": list(WAYS), "other": list(OTHER)}
    return {"settings": names | {"n_samples": SIZE.samples, "n_digits": SIZE.digits}, **origin()}


def main(argv=None):
    out = PAPER / "biology" / "clock.json"
    parser = command_line("clock", __doc__, out, seeds="0-4", runs=True)
    asked = parser.parse_args(argv)
    ways, measure = {"ways": WAYS | OTHER, "size": SIZE}, partial(measured, runs=asked.runs)
    place = lambda trial: (trial.name, trial.seed)
    return int(extend_table(asked, {"seeds": ways}, asked.seeds, measure, place, finish) > 0)


if __name__ == "__main__":
    sys.exit(main())
