"use strict";

// Two neurons and the synapse between them: what biolearn.theory.stdp computes, for one pair of
// spikes at a time. A presynaptic spike comes at time 0; the voltage of the other neuron is a
// straight line through `gap` below threshold, plus noise that forgets itself in `noiseTau`.
function synapseTools() {
  // The parameters of biolearn.theory.stdp.TrialParams, in mV and ms.
  const TRIAL = {
    threshold: -50,
    gap: 5,
    slope: 0.5,
    noise: 0.5,
    noiseTau: 10,
    window: 2,
    halfWidth: 50,
    dt: 0.25,
  };

  function timesOf(trial) {
    const half = Math.round(trial.halfWidth / trial.dt);
    return Float32Array.from({ length: 2 * half + 1 }, (_, k) => (k - half) * trial.dt);
  }

  // Ornstein-Uhlenbeck noise: its first value has the full spread, each further one keeps a part
  // of the one before.
  function noiseOf(n, trial, normal) {
    const kept = Math.exp(-trial.dt / trial.noiseTau);
    const kick = trial.noise * Math.sqrt(1 - kept * kept);
    const noise = new Float32Array(n);
    noise[0] = trial.noise * normal();
    for (let k = 1; k < n; k += 1) {
      noise[k] = kept * noise[k - 1] + kick * normal();
    }
    return noise;
  }

  function voltageOf(gap, slope, trial, normal) {
    const times = timesOf(trial);
    const noise = noiseOf(times.length, trial, normal);
    return times.map((t, k) => trial.threshold - gap + slope * t + noise[k]);
  }

  // The time in ms from the middle of V to where it first reaches the threshold, going in
  // `direction`; infinite if it never does or starts above.
  function firstCrossing(V, direction, trial) {
    const middle = (V.length - 1) / 2;
    for (let k = 0; k <= middle; k += 1) {
      const high = V[middle + direction * k];
      if (high >= trial.threshold) {
        if (k === 0) {
          return Infinity;
        }
        const low = V[middle + direction * (k - 1)];
        return (k - 1 + (trial.threshold - low) / (high - low)) * trial.dt;
      }
    }
    return Infinity;
  }

  // t_post - t_pre of the crossing nearest to 0 in ms; NaN where there is none.
  function nearestSpike(V, trial) {
    const after = firstCrossing(V, 1, trial);
    const before = firstCrossing(V, -1, trial);
    const nearest = after < before ? after : -before;
    return Number.isFinite(nearest) ? nearest : NaN;
  }

  // Eq. 1 at the presynaptic spike: the mean slope of V over the window around 0, in mV/ms.
  function weightChange(V, trial) {
    const k = Math.max(1, Math.round(trial.window / (2 * trial.dt)));
    const middle = (V.length - 1) / 2;
    return (V[middle + k] - V[middle - k]) / (2 * k * trial.dt);
  }

  function onePair(slope, trial, random) {
    const gap = trial.gap * Math.abs(random.normal());
    const V = voltageOf(gap, slope, trial, random.normal);
    return { gap, slope, V, deltaT: nearestSpike(V, trial), deltaW: weightChange(V, trial) };
  }

  // A slope as biolearn draws it: half of them rise, half fall.
  function randomSlope(trial, random) {
    const size = trial.slope * Math.abs(random.normal());
    return random.uniform() < 0.5 ? size : -size;
  }

  // The exact mean of Eq. 1 given deltaT, for slopes drawn by `randomSlope` and no noise.
  function expectedChange(deltaT, trial) {
    const height = Math.sign(deltaT) * Math.sqrt(Math.PI / 2) * trial.slope;
    return height / Math.sqrt(1 + ((deltaT * trial.slope) / trial.gap) ** 2);
  }

  return {
    TRIAL,
    timesOf,
    voltageOf,
    nearestSpike,
    weightChange,
    onePair,
    randomSlope,
    expectedChange,
  };
}
