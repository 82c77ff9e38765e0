#!/usr/bin/env bash
# ngc-learn 3.2.1, BCMSynapse: the default threshold starts at -1, and the rule divides by it as it passes zero.
#
# Best guess before running: input 1, activity 2 held for 500 ms, tau_theta = 100 ms, tau_w = 1000 ms, all else
#   default. The threshold relaxes from its start to 2^2 = 4, and the weight moves smoothly, upwards while the
#   activity is above the threshold: theta = 2 is crossed after some 90 ms, no step is larger than a few times
#   dt / tau_w.
# Seen (2026-11-30): theta0 is -1 by default, and the documented update x y (y - theta) / theta then has the wrong
#   sign: the weight falls although y > theta. While theta passes through zero (after about 22 ms) the quotient
#   is as large as the last value of 1/theta happens to be: a single step takes the weight from 0.13 to -0.36,
#   about as far as 500 steps at theta = 4 would. The file is the same in 3.2.3.
# Why it matters: a BCM threshold is a mean of squares and never negative; a start of -1 hides a division by zero
#   behind the first moments of every simulation, and a slightly different step gives a different weight.
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
from ngclearn.components import BCMSynapse
from ngclearn.utils.distribution_generator import DistributionGenerator

PRE, POST, TAU_W, TAU_THETA = 1.0, 2.0, 1000.0, 100.0
with Context("net"):
    synapse = BCMSynapse(
        "W", (1, 1), tau_w=TAU_W, tau_theta=TAU_THETA, weight_init=DistributionGenerator.constant(0.5)
    )
theta = [float(synapse.theta.get()[0, 0])]
weight = [float(synapse.weights.get()[0, 0])]
for step in range(500):
    synapse.pre.set(jnp.full((1, 1), PRE))
    synapse.post.set(jnp.full((1, 1), POST))
    synapse.evolve(t=float(step), dt=1.0)
    theta.append(float(synapse.theta.get()[0, 0]))
    weight.append(float(synapse.weights.get()[0, 0]))
theta, weight = np.array(theta), np.array(weight)
# The threshold is a leaky mean, in Euler steps: known in closed form.
assert np.allclose(theta, 4 - 5 * (1 - 1 / TAU_THETA) ** np.arange(501), atol=1e-4)
changes = np.diff(weight)
worst = int(np.argmax(np.abs(changes)))
settled = PRE * POST * (POST - 4) / 4 / TAU_W  # one step at the final threshold
print(f"theta before the first step: {theta[0]}")
print(f"first change: {changes[0]:+.5f}   (guess: upwards, for the activity is above the threshold)")
print(f"largest change: {changes[worst]:+.4f} in step {worst}, theta {theta[worst]:+.5f}")
print(f"a step at the final threshold: {settled:+.5f}   (guess: no step is much larger)")
print(f"weight at the end: {weight[-1]:.4f}")
as_seen = (
    theta[0] == -1.0
    and abs(changes[0] + 0.006) < 1e-5
    and worst == 22
    and abs(changes[worst] + 0.4926) < 2e-3
)
if not as_seen:
    raise SystemExit("the behaviour has changed: see the numbers above")
print("as observed: one step near theta = 0 moves the weight about 500 times as far as a settled one")
PYTHON
