"""What ten simulators make of the same spikes under pair-based STDP, run again and compared with
experiments/stdp_simulators.json. nbs/67_ten_simulators.ipynb reads that table.

    python -m experiments.stdp_simulators --envs FOLDER
        runs every simulator and says what has changed
    python -m experiments.stdp_simulators --envs FOLDER --only brian2 nest --write
        runs two, and writes what they give into the table

Each simulator lives in a virtual environment of its own, FOLDER/<name>, with the versions of PINS;
what is not there is made and filled from the package index (PyTorch is large). biolearn is in none
of them: there this file runs as a plain program that needs only the simulator. ANNarchy compiles
its networks with the machine's C++ compiler.

One additive synapse, far from any bound: A+ = 1, A- = 0.5, tau+ = 16.8 ms, tau- = 33.7 ms, steps of
1 ms (Arbor: 0.025 ms). Times are those at which the synapse sees the spikes; only in "delay 5" does
the synapse have a delay of its own, and there they are those at which the neurons emit them. A
number is the change of the weight in units of A+, rounded to four decimals; null: the simulator has
no delay.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

TABLE = Path(__file__).with_suffix(".json")
TAU_PLUS, TAU_MINUS, A_MINUS = 16.8, 33.7, 0.5  # ms, ms, units of A+
STIMULI = {  # name: presynaptic spikes, postsynaptic spikes, delay, all in ms
    "pre 100, post 110": ([100], [110], 0),
    "post 100, pre 110": ([110], [100], 0),
    "both 100": ([100], [100], 0),
    "pre 100, 105, post 110": ([100, 105], [110], 0),
    "post 100, 105, pre 110": ([110], [100, 105], 0),
    "both 100, 110, 120": ([100, 110, 120], [100, 110, 120], 0),
    "delay 5": ([100], [97], 5),
}
STEPS = 200
TORCH = "torch==2.13.0"
PINS = {
    "nest": ["nest-simulator==3.10.0"],
    "brian2": ["brian2==2.9.0", "numpy==2.3.5"],  # it cannot be imported beside NumPy 2.4
    "arbor": ["arbor==0.12.2"],
    "annarchy": ["ANNarchy==5.0.4.1"],
    "bindsnet": ["bindsnet==0.3.4", "torch==2.14.1"],
    "ngclearn": ["ngclearn==3.2.1", "ngcsimlib==3.1.1", "jax==0.10.2"],
    "spikingjelly": ["spikingjelly==2.0.0", TORCH],
    "snntorch": ["snntorch==1.0.0", TORCH],
    "norse": ["norse==1.1.0", TORCH],
}


def rows(run, *, delays=True):
    "run(pre, post, delay) for each stimulus, by its name; None for a delay where there are none."
    return {
        name: round(float(run(pre, post, delay)), 4) + 0.0 if delays or not delay else None
        for name, (pre, post, delay) in STIMULI.items()
    }


def train(torch, spikes):
    "A spike train of single steps, (STEPS, 1, 1)."
    steps = torch.zeros(STEPS, 1, 1)
    steps[spikes] = 1.0
    return steps


# ---- one function for each simulator: {rule: {stimulus: weight change}} ---------------------------


def nest():
    import nest

    def one(model, pre, post, delay, before=0):
        """`before`: ms by which a relay in front of the synapse delays the presynaptic spikes."""
        nest.ResetKernel()
        nest.verbosity = nest.VerbosityLevel.ERROR
        nest.resolution = 1.0
        # A synapse has a delay of at least one step, which the *postsynaptic* spikes need.
        own = delay or 1.0
        emitted = [t - (0 if delay else own) for t in post]
        # The weight changes only when the next presynaptic spike arrives: one comes far later.
        arriving = [t + before for t in [*pre, 3000]]
        neurons = nest.Create("parrot_neuron", 2)
        neurons[1].tau_minus = TAU_MINUS
        for spikes, neuron in zip((arriving, emitted), neurons):
            times = {"spike_times": [t - 1.0 for t in spikes]}
            generator = nest.Create("spike_generator", params=times)
            nest.Connect(generator, neuron, syn_spec={"delay": 1.0})
        rule = dict(tau_plus=TAU_PLUS, alpha=A_MINUS, mu_plus=0.0, mu_minus=0.0, Wmax=1000.0)
        rule |= {"lambda": 1e-3, "weight": 500.0, "delay": own}
        synapse = rule | {"synapse_model": model, "receptor_type": 1}
        nest.Connect(neurons[0], neurons[1], syn_spec=synapse)
        nest.Simulate(3010.0)
        return nest.GetConnections(neurons[0], neurons[1]).weight - 500

    def relayed(pre, post, delay):
        return one("stdp_synapse", pre, post, 0, before=delay)

    models = ("stdp_synapse", "stdp_nn_symm_synapse", "stdp_nn_restr_synapse")
    given = {
        f"NEST 3.10.0 {model}": rows(lambda *spikes, model=model: one(model, *spikes))
        for model in (*models, "stdp_nn_pre_centered_synapse")
    }
    return given | {"NEST 3.10.0 stdp_synapse behind a relay": rows(relayed)}


def brian2():
    import brian2 as b2

    b2.prefs.codegen.target = "numpy"

    def one(jump, pre, post, delay):
        b2.start_scope()
        b2.defaultclock.dt = 1 * b2.ms
        neurons = [b2.SpikeGeneratorGroup(1, [0] * len(s), s * b2.ms) for s in (pre, post)]
        traces = """w : 1
            dapre/dt = -apre / taupre : 1 (event-driven)
            dapost/dt = -apost / taupost : 1 (event-driven)"""
        synapse = b2.Synapses(
            *neurons,
            traces,
            on_pre=f"apre {jump} Apre; w += apost",
            on_post=f"apost {jump} Apost; w += apre",
            namespace=dict(
                taupre=TAU_PLUS * b2.ms, taupost=TAU_MINUS * b2.ms, Apre=1.0, Apost=-A_MINUS
            ),
        )
        synapse.connect()
        synapse.pre.delay = delay * b2.ms
        b2.Network(*neurons, synapse).run(STEPS * b2.ms)
        return synapse.w[0]

    return {
        "Brian2 2.9.0 two traces": rows(lambda *spikes: one("+=", *spikes)),
        "Brian2 2.9.0 traces reset": rows(lambda *spikes: one("=", *spikes)),
    }


def arbor_cell(post):
    "A cell with the synapse and a detector, driven across its threshold at the times `post`."
    import arbor as A
    from arbor import units as U

    tree = A.segment_tree()
    tree.append(A.mnpos, A.mpoint(-3, 0, 0, 3), A.mpoint(3, 0, 0, 3), tag=1)
    cell = A.decor().set_property(Vm=-65 * U.mV).paint('"all"', A.density("pas", dict(g=0.1)))
    for t in post:  # 0.05 ms early: the crossing then falls into the step that ends at t
        clamp = A.i_clamp((t - 0.05) * U.ms, 0.5 * U.ms, current=50 * U.nA)
        cell.place('"middle"', clamp)
    cell.place('"middle"', A.threshold_detector(-20 * U.mV), "detector")
    rule = dict(taupre=TAU_PLUS, taupost=TAU_MINUS, Apre=1.0, Apost=-A_MINUS)
    synapse = A.synapse("expsyn_stdp", rule | dict(max_weight=1000.0))
    cell.place('"middle"', synapse, "synapse")
    places = A.label_dict({"all": "(all)", "middle": "(location 0 0.5)"})
    return A.cable_cell(tree, cell, places)


def arbor():
    import arbor as A
    from arbor import units as U

    class Pair(A.recipe):
        "A cell with the synapse, which spikes by a strong current, and the source of its input."

        def __init__(self, pre, post, delay):
            A.recipe.__init__(self)
            self.pre, self.post, self.delay = pre, post, delay
            self.properties = A.neuron_cable_properties()

        def num_cells(self):
            return 2

        def cell_kind(self, gid):
            return A.cell_kind.spike_source if gid else A.cell_kind.cable

        def cell_description(self, gid):
            if gid:
                return A.spike_source_cell("out", A.explicit_schedule([t * U.ms for t in self.pre]))
            return arbor_cell(self.post)

        def connections_on(self, gid):
            return [] if gid else [A.connection((1, "out"), "synapse", 0.0, self.delay * U.ms)]

        def probes(self, gid):
            where = ("synapse", "expsyn_stdp", "weight_plastic", "weight")
            return [] if gid else [A.cable_probe_point_state(*where)]

        def global_properties(self, kind):
            return self.properties

    def one(pre, post, delay):
        # A connection has a delay; 0.01 ms early, so that rounding cannot move a spike by a step.
        early = 0.01 if delay else 0.11
        simulation = A.simulation(Pair([t - early for t in pre], post, delay or 0.1))
        handle = simulation.sample((0, "weight"), A.regular_schedule(1 * U.ms))
        simulation.run(STEPS * U.ms, 0.025 * U.ms)
        return simulation.samples(handle)[0][0][-1, 1]

    return {"Arbor 0.12.2 expsyn_stdp": rows(one)}


def annarchy():
    import ANNarchy as ann

    # One network for all stimuli: it is compiled, which takes minutes.
    net, made = ann.Network(dt=1.0), {}
    for pre, post, delay in STIMULI.values():
        source = net.create(ann.SpikeSourceArray(spike_times=pre))
        drive = net.create(ann.SpikeSourceArray(spike_times=[t - 1 for t in post]))
        relay = ann.Neuron(equations="v = g_drive", spike="v > 0.5", reset="v = 0")
        neuron = net.create(1, relay)
        net.connect(drive, neuron, "drive").all_to_all(1.0)
        rule = ann.STDP(TAU_PLUS, TAU_MINUS, 1e-3, 1e-3 * A_MINUS, w_min=0.0, w_max=1000.0)
        synapse = net.connect(source, neuron, "exc", synapse=rule)
        synapse.all_to_all(500.0, **({"delays": delay} if delay else {}))
        monitors = [net.monitor(population, "spike") for population in (source, neuron)]
        made[str((pre, post, delay))] = synapse, monitors
    net.compile(directory=str(Path.cwd() / "annarchy"), silent=True)
    net.simulate(float(STEPS))

    def one(pre, post, delay):
        synapse, monitors = made[str((pre, post, delay))]
        assert [monitor.get("spike")[0] for monitor in monitors] == [pre, post]
        return synapse.dendrite(0).w[0] - 500

    return {"ANNarchy 5.0.4.1 STDP": rows(one)}


def bindsnet():
    import torch
    from bindsnet.learning import PostPre
    from bindsnet.network import Network
    from bindsnet.network.nodes import Input
    from bindsnet.network.topology import Connection

    def one(additive, pre, post, delay):
        net = Network(dt=1.0)
        layers = {
            name: Input(n=1, traces=True, traces_additive=additive, tc_trace=tau, trace_scale=1.0)
            for name, tau in (("pre", TAU_PLUS), ("post", TAU_MINUS))
        }
        synapse = Connection(
            *layers.values(), w=torch.zeros(1, 1), update_rule=PostPre, nu=(A_MINUS, 1.0)
        )
        for name, layer in layers.items():
            net.add_layer(layer, name)
        net.add_connection(synapse, "pre", "post")
        # In Network.run the changed weight would add to the spikes of the layer `post`.
        for a, b in zip(train(torch, pre), train(torch, post)):
            layers["pre"].forward(a)
            layers["post"].forward(b)
            synapse.update(learning=True)
        return synapse.w.item()

    return {
        "BindsNET 0.3.4 PostPre, additive traces": rows(lambda *s: one(True, *s), delays=False),
        "BindsNET 0.3.4 PostPre": rows(lambda *s: one(False, *s), delays=False),
    }


def ngclearn():
    import jax.numpy as jnp
    from ngclearn import Context
    from ngclearn.components.other.varTrace import VarTrace
    from ngclearn.components.synapses.hebbian.traceSTDPSynapse import TraceSTDPSynapse

    def one(kind, pre, post, delay):
        with Context(f"{kind} {pre} {post}"):
            x, y = VarTrace("x", 1, TAU_PLUS, **kind), VarTrace("y", 1, TAU_MINUS, **kind)
            synapse = TraceSTDPSynapse("synapse", (1, 1), 1.0, A_MINUS, w_bound=1000.0)
        change = 0.0
        for t in range(min(pre + post), max(pre + post) + 1):
            a, b = (jnp.full((1, 1), float(t in spikes)) for spikes in (pre, post))
            for trace, spike in ((x, a), (y, b)):  # the traces first, then the synapse
                trace.inputs.set(spike)
                trace.advance_state(1.0)
            synapse.preSpike.set(a)
            synapse.postSpike.set(b)
            synapse.preTrace.set(x.trace.get())
            synapse.postTrace.set(y.trace.get())
            synapse.evolve()
            change += synapse.dWeights.get().item()
        return change

    kinds = {
        "TraceSTDP": dict(a_delta=1.0),
        "TraceSTDP, a_delta=0": dict(a_delta=0.0),
        "VarTrace, n_nearest_spikes=1": dict(a_delta=1.0, n_nearest_spikes=1),
    }
    return {
        f"ngc-learn 3.2.1 {name}": rows(lambda *s, kind=kind: one(kind, *s), delays=False)
        for name, kind in kinds.items()
    }


def learner(make):
    "A run with one of the two learners that watch modules; `make(synapse, neuron, **settings)`."
    import torch

    def one(pre, post, delay):
        synapse, neuron = torch.nn.Linear(1, 1, bias=False), torch.nn.Identity()
        rule = dict(tau_pre=TAU_PLUS, tau_post=TAU_MINUS)
        constant = dict(f_pre=lambda w: A_MINUS, f_post=lambda w: 1.0)
        made, change = make(synapse=synapse, sn=neuron, **rule, **constant), 0.0
        with torch.no_grad():
            for a, b in zip(train(torch, pre), train(torch, post)):
                synapse(a)
                neuron(b)
                change += float(made.step(on_grad=False).sum())
        return change

    return rows(one, delays=False)


def spikingjelly():
    from spikingjelly.activation_based.learning import STDPLearner

    return {
        "SpikingJelly 2.0.0 STDPLearner": learner(lambda **s: STDPLearner(step_mode="s", **s)),
    }


def snntorch():
    from snntorch.functional.stdp_learner import STDPLearner

    return {"snnTorch 1.0.0 STDPLearner": learner(STDPLearner)}


def norse():
    import torch
    from norse.torch.functional.stdp import STDPParameters, STDPState, stdp_step_linear

    def one(pre, post, delay):
        rule = STDPParameters(
            tau_pre_inv=torch.tensor(1000 / TAU_PLUS),  # per second
            tau_post_inv=torch.tensor(1000 / TAU_MINUS),
            eta_plus=1.0,
            eta_minus=A_MINUS,
            hardbound=False,
        )
        weight, state = torch.zeros(1, 1), STDPState(torch.zeros(1, 1), torch.zeros(1, 1))
        for a, b in zip(train(torch, pre), train(torch, post)):
            weight, state = stdp_step_linear(a, b, weight, state, rule, 0.001)
        return weight.item()

    return {"Norse 1.1.0 stdp_step_linear": rows(one, delays=False)}


# ---- environments, and the comparison ------------------------------------------------------------


def environment(folder, name):
    "The Python of the environment for the simulator `name` under `folder`; made if it is not there."
    place = folder / name
    python = place / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *PINS[name]], check=True)
    return python


def measure(folder, name):
    "What the simulator `name` gives, {rule: {...}}, run in its own environment."
    python = environment(folder, name)
    plain = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    # As if activated: ANNarchy calls the environment's Cython, and CMake looks for its Python.
    plain["PATH"] = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    plain["VIRTUAL_ENV"] = str(python.parent.parent)
    with tempfile.TemporaryDirectory() as scratch:
        command = [str(python), str(Path(__file__).resolve()), "--inside", name]
        done = subprocess.run(
            command, cwd=scratch, env=plain, stdout=subprocess.PIPE, text=True, check=True
        )
    return json.loads(done.stdout.splitlines()[-1])


def inside(name):
    "Print what the simulator `name` gives, in the environment that holds it."
    versions = {pin.split("==")[0]: metadata.version(pin.split("==")[0]) for pin in PINS[name]}
    versions["python"] = sys.version.split()[0]
    when = time.strftime("run again on %Y-%m-%d")
    given = globals()[name]()
    print(
        json.dumps(
            {
                rule: {"changes": changes, "environment": name, "versions": versions, "when": when}
                for rule, changes in given.items()
            }
        )
    )


def compare(rule, before, now):
    "Print how a row of the table differs from what the simulator gives `now`; True if it does not."
    old = before.get("changes", {})
    moved = [
        f"{stimulus}: {old.get(stimulus)} before, {value} now"
        for stimulus, value in now["changes"].items()
        if old.get(stimulus) != value
    ]
    print(f"{rule}: {'; '.join(moved) or 'as in the table'}")
    return not moved


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m experiments.stdp_simulators",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = parser.add_argument
    option("--envs", type=Path, metavar="FOLDER", help="where the environments are, or will be")
    option("--only", nargs="+", choices=PINS, default=list(PINS), help="(default: all)")
    option("--write", action="store_true", help="write what they give into the table")
    option("--inside", choices=PINS, help=argparse.SUPPRESS)
    asked = parser.parse_args(argv)
    if asked.inside:
        inside(asked.inside)
        return 0
    if asked.envs is None:
        parser.error("--envs FOLDER is needed: where the simulators' environments are, or will be.")
    table = json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.exists() else {}
    same = True
    for name in asked.only:
        for rule, row in measure(asked.envs.resolve(), name).items():
            same &= compare(rule, table.get(rule, {}), row)
            table[rule] = row
        if asked.write:  # after each one: the next may fail
            TABLE.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    return 0 if same or asked.write else 1


if __name__ == "__main__":
    sys.exit(main())
