"""NEST learns the weights of `pairwise_stdp` (nbs/68_carry_over.ipynb).

    python -m experiments.nest_synapse                   makes an environment with NEST, and runs
    python -m experiments.nest_synapse --nest PYTHON     uses the Python that has it

NEST is not among the packages of this project's tests: the environment lies in a temporary folder
and is removed afterwards. Random trains pass through the synapse of `nest_synapse`, with either
pairing and with delays; the weight at every presynaptic spike is compared with the sum of
`pairwise_stdp`. Exit code 1 if any of them differs by more than 1e-9.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from biolearn.core.rng import Random
from biolearn.theory.carry_over import nest_synapse
from biolearn.theory.pairs import Window, pairwise_stdp
from biolearn.theory.stdp import poisson_spikes
from experiments.stdp_simulators import environment

WINDOW, DT, TOLERANCE = Window(0.8, 16.8, 0.5, 33.7), 0.5, 1e-9
# The trains are silent at first: NEST's nearest pairs begin with a presynaptic spike at time 0 that
# was none, and after 600 ms exp(-600 / 16.8) of it is left.
SILENT, STEPS, RATE, START, W_MAX = 1200, 8000, 40.0, 500.0, 1000.0

# Runs in the other environment, which lacks this package: jobs in JSON in, weights out.
INSIDE = """
import json, sys
import nest

nest.verbosity = nest.VerbosityLevel.ERROR
results = []
for job in json.load(sys.stdin):
    nest.ResetKernel()
    nest.resolution = job["dt"]
    link = {"delay": job["dt"]}
    made = job["made"]
    sources = [
        nest.Create("spike_generator", params={"spike_times": times}) for times in job["times"]
    ]
    pre = nest.Create("parrot_neuron")
    post = nest.Create("parrot_neuron", params=made["neuron"])
    for source, neuron in zip(sources, (pre, post)):
        nest.Connect(source, neuron, syn_spec=link)
    if "relay" in made:
        relay = nest.Create("parrot_neuron")
        nest.Connect(pre, relay, syn_spec=made["relay"])
        pre = relay
    recorder = nest.Create("weight_recorder")
    model = made["synapse"].pop("synapse_model")
    nest.CopyModel(model, "recorded", {"weight_recorder": recorder})
    # port 1 of a parrot takes a spike and repeats nothing
    spec = {"synapse_model": "recorded", "weight": job["start"], "receptor_type": 1}
    nest.Connect(pre, post, syn_spec=spec | made["synapse"])
    nest.Simulate(job["duration"])
    events = recorder.events
    results.append([list(map(float, events["times"])), list(map(float, events["weights"]))])
json.dump(results, open(sys.argv[1], "w"))
"""


def arrived(spikes, delay):
    "The train (n_t,) as it arrives `delay` ms later."
    steps = round(delay / DT)
    return np.concatenate([np.zeros(steps), spikes[: len(spikes) - steps]])


def job(pre, post, **settings):
    "What NEST is asked: the synapse, and the times at which the generators emit, in ms."
    made = nest_synapse(WINDOW, w_max=W_MAX, **settings)
    times = [(np.flatnonzero(spikes) * DT).tolist() for spikes in (pre, post)]
    return {
        "made": made,
        "times": times,
        "dt": DT,
        "start": START,
        "duration": (len(pre) + 100) * DT,
    }


def expected(pre, post, pairing, axonal, dendritic):
    "The weight when each presynaptic spike has arrived, by `pairwise_stdp`."
    trains = [arrived(s, d)[None] for s, d in ((pre, axonal), (post, dendritic))]
    change = pairwise_stdp(*trains, WINDOW, dt=DT, pairing=pairing)
    return START + np.cumsum(change)[trains[0][0] > 0]


def run_nest(python, jobs):
    "The times and the weights that NEST records for each of `jobs`."
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "weights.json"
        asked = json.dumps(jobs)
        command = [str(python), "-c", INSIDE, str(out)]
        subprocess.run(command, input=asked, text=True, check=True, stdout=subprocess.DEVNULL)
        return json.loads(out.read_text(encoding="utf-8"))


def compare(python):
    "Print how far NEST's weights are from ours; the largest difference."
    rng, cases = Random(68), []
    silent = (np.arange(STEPS) < SILENT) | (np.arange(STEPS) >= STEPS - 20)  # all spikes arrive
    for pairing in ("all", "nearest"):
        for axonal, dendritic in ((0.0, 0.5), (0.0, 5.0), (4.0, 2.0), (5.0, 0.5)):
            pre, post = (
                poisson_spikes(
                    np.full(STEPS, RATE),
                    DT,
                    rng=rng.stream(pairing, int(axonal), int(dendritic), k),
                )
                for k in range(2)
            )
            cases.append(
                (np.where(silent, 0, pre), np.where(silent, 0, post), pairing, axonal, dendritic)
            )
    jobs = [job(a, b, pairing=p, axonal=x, dendritic=d) for a, b, p, x, d in cases]
    differences = []
    for case, (_, weights) in zip(cases, run_nest(python, jobs)):
        ours = expected(*case)
        if len(ours) != len(weights):
            raise SystemExit(f"NEST saw {len(weights)} spikes, and not {len(ours)}.")
        differences.append(np.max(np.abs(ours - weights)))
        pre, post, pairing, axonal, dendritic = case
        together = int(np.sum(arrived(pre, axonal) * arrived(post, dendritic)))
        print(
            f"{pairing:7s} axonal {axonal:g} ms, dendritic {dendritic:g} ms: {len(ours)} spikes, "
            f"{together} pairs at lag zero; weights differ by at most {differences[-1]:.1e}"
        )
    return max(differences)


def one_pair(python):
    "Print what NEST makes of post 97 ms, pre 100 ms and a delay of 5 ms, a second later."
    pre, post = np.zeros((2, 2500))
    pre[[200, 2200]] = post[194] = 1  # NEST shows a change when the next presynaptic spike comes
    made = job(pre, post, pairing="all", dendritic=5.0)
    ((_, weights),) = run_nest(python, [made])
    print(f"post 97, pre 100, NEST's delay 5 ms: {(weights[-1] - START) / WINDOW.a_plus:+.4f} A₊")


def main():
    parser = argparse.ArgumentParser(
        prog="python -m experiments.nest_synapse",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--nest", type=Path, metavar="PYTHON", help="a Python that has NEST")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        python = asked.nest or environment(Path(folder), "nest")
        worst = compare(python)
        one_pair(python)
    print(f"largest difference: {worst:.1e} (at most {TOLERANCE:g})")
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
