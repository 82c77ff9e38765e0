#!/usr/bin/env bash
# Elephant 1.2.1, cross_correlation_function: the lag has the other sign than its formula, and another origin.
#
# Best guess before running: the second signal repeats the first one 5 ms later, so the function, defined in its
#   documentation by <x(t) y(t + tau)>, peaks at tau = +5 ms, as the spike trains' cross_correlation_histogram does.
# Seen (2026-11-30): the peak lies at -5 ms of the same package's own axis when n_lags is left out; with n_lags=20
#   the times still begin at minus half the length of the signal (-500 ms of 1 s) instead of at -20 ms, so that
#   the peak is reported at -485 ms. The histogram of spike trains reports +5 bins. (The origin is the subject of
#   Elephant's pull request 707, open in August 2026; the sign is not.)
# Why it matters: a sign of the lag is all that tells "pre before post" from "post before pre" when a learning
#   window is compared with the correlations that drive it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install -q elephant==1.2.1 neo==0.14.6 quantities==0.16.4 numpy==2.4.6 scipy==1.17.1
env/bin/python -W ignore - <<'PYTHON'
import neo
import numpy as np
import quantities as pq
from elephant.conversion import BinnedSpikeTrain
from elephant.signal_processing import cross_correlation_function
from elephant.spike_train_correlation import cross_correlation_histogram

later = 5  # ms by which the second signal, or train, follows the first
first = np.random.default_rng(0).normal(size=1000)
signals = neo.AnalogSignal(
    np.column_stack([first, np.roll(first, later)]), units="mV", sampling_rate=1000 * pq.Hz
)


def peak(**options):
    result = cross_correlation_function(signals, [0, 1], **options)
    times = result.times.rescale("ms").magnitude
    return round(float(times[np.argmax(result.magnitude)]), 6), round(float(times[0]), 6)


def spikes(start):
    train = neo.SpikeTrain([100.0 + start, 300.0 + start, 500.0 + start], units="ms", t_stop=1000)
    return BinnedSpikeTrain(train, bin_size=1 * pq.ms)


histogram, lags = cross_correlation_histogram(spikes(0), spikes(later), window=[-20, 20])
of_trains = int(lags[np.argmax(histogram.magnitude)])
whole, _ = peak()
cropped, begin = peak(n_lags=20)
print(f"spike trains:           peak at {of_trains:+d} ms   (guess {later:+d})")
print(f"signals, all lags:      peak at {whole:+g} ms   (guess {later:+d})")
print(f"signals, n_lags=20:     peak at {cropped:+g} ms   (guess {later:+d})")
print(f"first time of n_lags=20: {begin:+g} ms   (guess -20)")
seen = (of_trains, whole, cropped, begin)
if seen != (5, -5.0, -485.0, -500.0):
    raise SystemExit(f"the behaviour has changed: {seen}, not (5, -5, -485, -500)")
print("as observed: the axis of the signals' function has the other sign and, with n_lags, another origin")
PYTHON
