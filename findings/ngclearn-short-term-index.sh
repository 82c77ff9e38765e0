#!/usr/bin/env bash
# ngc-learn 3.2.1, STPDenseSynapse: short-term plasticity sits on the receiving neuron and counts steps.
#
# Best guess before running: two neurons project to two others, all weights 1, U = 0.2. A spike of neuron 0 alone
#   is passed on to both receivers (0.2 each), raises u and lowers x of its own two synapses (row 0 of the
#   matrices, which have a row for each sending neuron), and u decays with tau_f, here by exp(-1 ms / 100 ms) in
#   one millisecond whatever the step.
# Seen (2026-11-30): only receiver 0 gets anything: the spikes, of shape (1, senders), are multiplied into the
#   (senders, receivers) matrix as if its columns were the senders. Column 0 of u and x moves, so sender 1's
#   synapse is depressed too. The step dt does not occur: with dt = 0.1 ms, u falls by the factor 0.99^10 in 1 ms.
#   A matrix that is not square is refused by JAX. The file is the same in 3.2.3.
# Why it matters: a square layer runs without a word, and short-term depression is then driven by the index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install -q ngclearn==3.2.1 ngcsimlib==3.1.1 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 scipy==1.17.1
JAX_PLATFORMS=cpu env/bin/python -W ignore - <<'PYTHON'
import jax.numpy as jnp
import numpy as np
from ngclearn import Context
from ngclearn.components import STPDenseSynapse
from ngclearn.utils.distribution_generator import DistributionGenerator

constant = DistributionGenerator.constant


def synapse(senders, receivers):
    with Context(f"net{senders}{receivers}"):
        return STPDenseSynapse(
            "W", (senders, receivers), weight_init=constant(1.0), resources_init=constant(0.2),
            tau_f=100.0, tau_d=100.0,
        )


def step(which, spikes, dt):
    which.inputs.set(jnp.array([spikes]))
    which.advance_state(t=1.0, dt=dt)


square = synapse(2, 2)
step(square, [1.0, 0.0], dt=1.0)
output = np.asarray(square.outputs.get())[0]
u = np.asarray(square.u.get())
print("spike of sender 0: output", output, "  (guess [0.2 0.2])")
print("u:", u.tolist(), "  (guess [[0.2, 0.2], [0, 0]])")
for _ in range(10):
    step(square, [0.0, 0.0], dt=0.1)
fall = float(square.u.get()[0, 0]) / 0.2
print(f"u after 1 ms in steps of 0.1 ms: factor {fall:.4f}   (guess exp(-0.01) = {np.exp(-0.01):.4f})")
try:
    step(synapse(2, 3), [1.0, 0.0], dt=1.0)
    refused = False
except TypeError as error:
    refused = True
    print("2 senders, 3 receivers:", str(error).splitlines()[0])
as_seen = (
    np.allclose(output, [0.2, 0.0], atol=1e-6)
    and np.allclose(u, [[0.2, 0.0], [0.2, 0.0]], atol=1e-6)
    and abs(fall - 0.99**10) < 1e-5
    and refused
)
if not as_seen:
    raise SystemExit("the behaviour has changed: see the numbers above")
print("as observed: columns move instead of rows, and time is counted in steps")
PYTHON
