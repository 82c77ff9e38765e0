#!/usr/bin/env bash
# spyx 1.0.0 and NIR 1.0.8: a leaky neuron is written with another input gain, and read without any.
#
# Best guess before running: a spyx LIF, V <- beta V + x with beta = 0.9, is exported to the Neuromorphic
#   Intermediate Representation, whose LIF obeys tau dV/dt = v_leak - V + r I, so that another reader finds the same
#   neuron: tau = dt/(1 - beta) = 10 and r = 1/(1 - beta) = 10. Its potential tends to x/(1 - beta) = 3 for x = 0.3.
# Seen (2026-11-30): tau = 10 is written, and r = beta = 0.9. By NIR's equation the potential tends to
#   0.9 * 0.3 = 0.27 and never reaches the threshold 1: the neuron that fires 22 times in 100 steps is silent.
#   spyx's own import ignores r and v_leak (r = 5 and v_leak = 0.5 give the same 22 spikes), so that a round trip
#   through spyx alone shows nothing amiss.
# Why it matters: an exchange format is tested by reading back with the package that wrote it; only the equation in
#   the format's definition, or a second package, finds a gain of 1/11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install -q spyx==1.0.0 nir==1.0.8 flax==0.12.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
JAX_PLATFORMS=cpu env/bin/python -W ignore - <<'PYTHON'
import jax.numpy as jnp
import nir
import numpy as np
from flax import nnx
from spyx.nir import from_nir, to_nir
from spyx.nn import LIF, Sequential, run

BETA, INPUT, STEPS = 0.9, 0.3, 100
drive = jnp.full((STEPS, 1, 1), INPUT, dtype=jnp.float32)
network = Sequential(LIF((1,), beta=BETA, threshold=1.0, rngs=nnx.Rngs(0)))
spikes = int(run(network, drive)[0].sum())
one = np.array([1])
graph = to_nir(network, {"input": one}, {"output": one}, dt=1)
node = graph.nodes["layer_0"]
tau, r = float(node.tau[0]), float(node.r[0])

voltage, by_equation = 0.0, 0  # NIR's equation in Euler steps of 1, reset by subtraction
for _ in range(STEPS):
    voltage += (float(node.v_leak[0]) - voltage + r * INPUT) / tau
    if voltage > float(node.v_threshold[0]):
        by_equation += 1
        voltage -= 1.0

lif = nir.LIF(tau=np.array([10.0]), r=np.array([5.0]), v_leak=np.array([0.5]), v_threshold=np.array([1.0]))
other = nir.NIRGraph(
    nodes={"input": nir.Input({"input": one}), "lif": lif, "output": nir.Output({"output": one})},
    edges=[("input", "lif"), ("lif", "output")],
)
other_spikes = int(from_nir(other, drive)[1].sum())
print(f"written: tau {tau:.4f} (guess 10), r {r:.4f} (guess {1 / (1 - BETA):.4f})")
print(f"spikes in spyx: {spikes}; by NIR's equation: {by_equation} (guess {spikes})")
print(f"potential in the long run: spyx {INPUT / (1 - BETA):.2f}, NIR {r * INPUT:.2f}, threshold 1")
print(f"r = 5, v_leak = 0.5 read by spyx: {other_spikes} spikes (guess: more than {spikes} of r = 0.9)")
seen = (round(tau, 3), round(r, 3), spikes, by_equation, other_spikes)
if seen != (10.0, 0.9, 22, 0, 22):
    raise SystemExit(f"the behaviour has changed: {seen}, not (10, 0.9, 22, 0, 22)")
print("as observed: r is written as beta and not read at all")
PYTHON
