#!/usr/bin/env bash
# BrainPy 2.8.2, STDP_Song2000: a delay shifts the two sides of the learning window by different amounts.
#
# Best guess before running: `delay` (documented as the delay of the presynaptic spikes) moves the whole window by
#   that delay: with 5 ms, a presynaptic spike at 100 ms acts as one at 105 ms, for potentiation and depression.
# Seen (2026-11-30): in the order of the class's example (synapse, pre, post), steps of dt = 1 ms: depression sees
#   a delay of 3 ms, potentiation one of 4 ms; with dt = 0.5 ms, 4 ms and 4.5 ms. Depression is read off the
#   delayed spike, which comes 2 dt early, potentiation off the delayed trace, which comes dt early. Without a
#   delay both sides are exact, and a pair at lag zero gives A+ - A-.
# Why it matters: the window is not shifted but torn: with 5 ms and dt = 1 ms a postsynaptic spike at 103 ms gives
#   the whole -A-, one at 104 ms the whole A+, and none gives A+ - A-. The result depends on dt.
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
START, TAU_PLUS, TAU_MINUS, A_MINUS = 10.0, 16.8, 33.7, 0.5


class Net(bp.DynamicalSystem):
    def __init__(self, post, delay):
        super().__init__()
        self.pre = bp.dyn.SpikeTimeGroup(1, times=[100.0], indices=[0])
        self.post = bp.dyn.SpikeTimeGroup(1, times=[post], indices=[0])
        self.post.add_inp_fun = lambda *args, **kwargs: None  # given spikes: no input is taken
        weight = dict(weight=lambda shape: bm.ones(shape) * START, mode=bm.TrainingMode())
        self.syn = bp.dyn.STDP_Song2000(
            pre=self.pre, delay=delay, post=self.post, tau_s=TAU_PLUS, tau_t=TAU_MINUS, A1=1.0, A2=A_MINUS,
            comm=bp.dnn.AllToAll(1, 1, **weight), syn=bp.dyn.Expon.desc(1, tau=5.0), out=bp.dyn.CUBA.desc(),
        )

    def update(self):
        self.syn()
        self.pre()
        self.post()
        return self.syn.comm.weight.value


def change(post, delay, dt):
    bm.set_dt(dt)
    net = Net(post, delay)
    weights = bm.for_loop(lambda i: net.step_run(i), np.arange(int(150 / dt)), progress_bar=False)
    return float(np.asarray(weights).ravel()[-1]) - START


def effective(delay, dt):
    """The delays (ms) that explain the depression of post 90 and the potentiation of post 120, pre 100."""
    down, up = change(90.0, delay, dt), change(120.0, delay, dt)
    return TAU_MINUS * np.log(A_MINUS / -down) - 10.0, 20.0 + TAU_PLUS * np.log(up)


right = np.allclose([change(post, 5.0, 1.0) for post in (103.0, 104.0)], [-A_MINUS, 1.0], atol=1e-6)
print("post 103 ms gives -A-, post 104 ms gives A+:", right)
for dt, delay, seen in [(1.0, None, (0, 0)), (1.0, 5.0, (3, 4)), (0.5, 5.0, (4, 4.5))]:
    found = effective(delay, dt)
    guess = delay or 0.0
    print(f"dt {dt} ms, delay {delay}: depression {found[0]:.3f} ms, potentiation {found[1]:.3f} ms (guess {guess}, {guess})")
    right = right and np.allclose(found, seen, atol=1e-3)
if not right:
    raise SystemExit("the behaviour has changed: see the numbers above")
print("as observed: depression is 2 dt early, potentiation dt early")
PYTHON
