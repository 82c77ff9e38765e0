"use strict";

// What runs beside the page, so that the page never freezes. Each part of the page has at most one
// job here: a new one takes the place of the old. A job is a generator; between two of its results
// the worker looks for messages. The parts that a reader waits for come first.
function workerMain(tools) {
  let model = null;
  const jobs = new Map(); // part of the page -> {id, results}

  const starts = {
    *complete({ x, visible, seed, settings }) {
      const begun = performance.now();
      const random = tools.randomNumbers(seed).uniforms(x.length);
      let round = 0;
      for (const result of tools.inpaintRounds(model, x, visible, random, settings)) {
        yield { ...result, round, seconds: (performance.now() - begun) / 1000 };
        round += 1;
      }
    },

    *dream({ prior, seed }) {
      const begun = performance.now();
      const random = tools.randomNumbers(seed);
      const uniform = random.uniform();
      const h2 = tools.drawTop(model.priors[prior], random.normals(model.f2.b.length), uniform);
      let round = 0;
      for (const result of tools.generateRounds(model, h2)) {
        yield { ...result, h2, round, seconds: (performance.now() - begun) / 1000 };
        round += 1;
      }
    },

    *walk({ from, to, count }) {
      const [first, last] = [from, to].map((x) => tools.settle(model, x).state.h2);
      for (let place = 0; place < count; place += 1) {
        const share = place / (count - 1);
        const h2 = first.map((value, j) => (1 - share) * value + share * last[j]);
        const directed = tools.decoded(model, h2);
        yield { place, directed, chain: tools.generated(model, h2) };
      }
    },

    *explain({ x, settings }) {
      const { nSteps, ...rest } = settings;
      const state = new tools.Settling(model, x, rest);
      const heard = []; // f1(g1(h1)) after 0, 1, ... steps
      const h1 = [];
      for (let step = 0; step <= nSteps; step += 1) {
        if (step > 0) {
          state.step();
        }
        heard.push(tools.applied(model.f1, state.down1));
        h1.push(state.h1.slice());
      }
      const { h2, up, down1 } = state;
      yield { h1, heard, h2, target: up, reconstruction: down1 };
    },

    *fields({ units }) {
      const n = model.g1.b.length;
      yield { units, fields: units.map((j) => model.g1.W.slice(j * n, (j + 1) * n)) };
    },
  };

  const ORDER = ["complete", "fields", "explain", "dream", "walk"];

  function advance() {
    const part = ORDER.find((name) => jobs.has(name));
    const { id, results } = jobs.get(part);
    const { value, done } = results.next();
    if (done) {
      jobs.delete(part);
    } else {
      postMessage({ part, id, ...value });
    }
    if (jobs.size > 0) {
      setTimeout(advance);
    }
  }

  onmessage = ({ data }) => {
    if (data.part === "data") {
      const arrays = tools.unpack(data.packed);
      model = tools.modelOf(arrays);
      postMessage({ part: "data", digits: arrays.digits });
      return;
    }
    const idle = jobs.size === 0;
    jobs.set(data.part, { id: data.id, results: starts[data.part](data) });
    if (idle) {
      setTimeout(advance);
    }
  };
}
