#!/usr/bin/env bash
# ngc-learn 3.2.1, MSTDPETSynapse: reward-modulated STDP never changes a weight, and cannot be reset.
#
# Best guess before running: one synapse, learning rate 0.1, eligibility trace of 100 ms, a pairing and a reward
#   of 1 at each of five steps: the weight grows by 0.1 times the sum of the eligibilities.
# Seen (2026-11-30): the eligibility grows as it should, one step late, and the weight stays at 0.5 to the last
#   digit. Each change is multiplied by `outmask`, a compartment that the documentation does not name and that
#   begins as zeros; only reset() would set it to ones, and reset() raises AttributeError ('int' has no 'get').
#   With `outmask` set to one by hand the weight learns. The file is the same in 3.2.3.
# Why it matters: a three-factor rule that silently learns nothing looks like a task that is too hard.
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
from ngclearn.components import MSTDPETSynapse
from ngclearn.utils.distribution_generator import DistributionGenerator

ONE = jnp.ones((1, 1))
ETA, TAU = 0.1, 100.0


def paired(name, open_mask):
    with Context(name):
        synapse = MSTDPETSynapse(
            "W", (1, 1), A_plus=1.0, A_minus=1.0, eta=ETA, tau_elg=TAU,
            weight_init=DistributionGenerator.constant(0.5),
        )
    if open_mask:
        synapse.outmask.set(ONE)
    eligibilities = []
    for step in range(5):
        synapse.preTrace.set(ONE)
        synapse.postSpike.set(ONE)
        synapse.modulator.set(ONE)
        synapse.evolve(t=float(step), dt=1.0)
        eligibilities.append(float(synapse.eligibility.get()[0, 0]))
    return synapse, float(synapse.weights.get()[0, 0]), np.array(eligibilities)


synapse, weight, eligibility = paired("shut", open_mask=False)
guess = 0.5 + ETA * eligibility.sum()
_, weight_open, _ = paired("open", open_mask=True)
# One pairing adds 1/TAU at the step after it; before that the trace decays.
expected = [sum(np.exp(-k / TAU) for k in range(n)) / TAU for n in range(5)]
print("eligibility after each step:", eligibility.round(5), "  (one step late:", np.round(expected, 5), ")")
print(f"weight after five rewarded pairings: {weight}   (guess {guess:.5f})")
print(f"the same with outmask set to one:    {weight_open:.5f}")
try:
    synapse.reset()
    reset = "works"
except AttributeError as error:
    reset = str(error)
print("reset():", reset)
as_seen = (
    weight == 0.5
    and np.allclose(eligibility, expected, atol=1e-6)
    and abs(weight_open - guess) < 1e-6
    and "has no attribute 'get'" in reset
)
if not as_seen:
    raise SystemExit("the behaviour has changed: see the numbers above")
print("as observed: nothing is learned until outmask is set by hand")
PYTHON
