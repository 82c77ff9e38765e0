#!/usr/bin/env bash
# BrainPy 2.8.2, STDP_Song2000: inside for_loop (and DSRunner) each weight change is undone at the next step.
#
# Best guess before running: a network built as in the class's documentation (but for an all-to-all connection; the
#   sparse one does the same), a spike at 100 ms before one at 110 ms, A1 = 1, tau_s = 16.8 ms. The weight rises by
#   exp(-10/16.8) = 0.5514 at 110 ms and keeps it.
# Seen (2026-11-30): in brainpy.math.for_loop, which the documentation's example uses, the weight is 0.5514 higher
#   for one step and back at its old value in the next. A plain Python loop over the same steps keeps the change;
#   so does for_loop when the connection is made with mode=TrainingMode(), as the package's own test does.
# Why it matters: the plotted weight shows blips, the synapses never learn, and nothing warns. The plain array is
#   turned into a state variable only inside the traced step, where the loop does not carry it along.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install -q brainpy==2.8.2 brainpy_state==0.1.0 brainstate==0.5.4 brainevent==0.2.1 braintools==0.3.0 \
  brainunit==0.5.2 jax==0.10.2 jaxlib==0.10.2 numba==0.68.1 numpy==2.4.6 scipy==1.17.1
JAX_PLATFORMS=cpu env/bin/python -W ignore - <<'PYTHON'
import brainpy as bp
import brainpy.math as bm
import numpy as np

bm.set_platform("cpu")
bm.enable_x64()
bm.set_dt(1.0)
START, STEPS = 10.0, 150


class Net(bp.DynamicalSystem):
    def __init__(self, mode):
        super().__init__()
        self.pre = bp.dyn.SpikeTimeGroup(1, times=[100.0], indices=[0])
        self.post = bp.dyn.SpikeTimeGroup(1, times=[110.0], indices=[0])
        self.post.add_inp_fun = lambda *args, **kwargs: None  # given spikes: no input is taken
        self.syn = bp.dyn.STDP_Song2000(
            pre=self.pre, delay=None, post=self.post, tau_s=16.8, tau_t=33.7, A1=1.0, A2=0.5,
            comm=bp.dnn.AllToAll(1, 1, weight=lambda shape: bm.ones(shape) * START, mode=mode),
            syn=bp.dyn.Expon.desc(1, tau=5.0), out=bp.dyn.CUBA.desc(),
        )

    def update(self):
        self.syn()
        self.pre()
        self.post()
        return self.syn.comm.weight.value


def looped(mode):
    net = Net(mode)
    weights = bm.for_loop(lambda i: net.step_run(i), np.arange(STEPS), progress_bar=False)
    return np.asarray(weights).ravel() - START


def stepped(mode):
    net = Net(mode)
    return np.array([float(np.asarray(net.step_run(i)).ravel()[0]) for i in range(STEPS)]) - START


guess = np.exp(-10 / 16.8)
usual, plain, training = looped(None), stepped(None), looped(bm.TrainingMode())
print(f"guess for the change at the end:   {guess:.4f}")
print(f"for_loop: at its largest {usual.max():.4f}, steps above zero {int((usual > 1e-9).sum())}, at the end {usual[-1]:.4f}")
print(f"Python loop, at the end:           {plain[-1]:.4f}")
print(f"for_loop, training mode, at the end: {training[-1]:.4f}")
as_seen = (
    abs(usual.max() - guess) < 1e-6
    and int((usual > 1e-9).sum()) == 1
    and usual[-1] == 0.0
    and abs(plain[-1] - guess) < 1e-6
    and abs(training[-1] - guess) < 1e-6
)
if not as_seen:
    raise SystemExit("the behaviour has changed: see the numbers above")
print("as observed: the change lasts one step unless the connection is in training mode")
PYTHON
