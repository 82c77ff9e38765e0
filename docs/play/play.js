"use strict";

// The four parts of the page. Each asks the worker, and shows what it answers.
(() => {
  const ui = uiTools();
  const { SIDE, byId, number } = ui;
  const PIXELS = SIDE * SIDE;
  const ROUNDS = 20;
  const FRAME = 60; // ms between two pictures
  const LARGEST_LOG = 1e5; // beyond it inference has diverged
  const newSeed = () => crypto.getRandomValues(new Uint32Array(1))[0];
  const bounds = (values, least) => {
    const finite = values.filter(Number.isFinite);
    const [low, high] = [Math.min(...finite), Math.max(...finite)];
    const margin = Math.max(0.06 * (high - low), least);
    return [low - margin, high + margin];
  };

  // What one part shows can be explained in another.
  const shown = { completed: null, dreamt: null };

  // The digits of the page in their order: as many examples of each class.
  function digitsOf(pixels) {
    const ofAClass = pixels.length / PIXELS / 10;
    return Array.from({ length: 10 * ofAClass }, (_, i) => {
      const [digit, example] = [Math.floor(i / ofAClass), (i % ofAClass) + 1];
      const picture = pixels.slice(i * PIXELS, (i + 1) * PIXELS);
      return { digit, example, picture, label: `the digit ${digit}, example ${example}` };
    });
  }

  const placeOf = (digits, digit, example) =>
    digits.findIndex((one) => one.digit === digit && one.example === example);

  // ---- draw or erase ----------------------------------------------------------------------------

  const PEN = 1.3; // radius of the pen in pixels
  const RUBBER = 2.2;

  function hiddenBy(name, i) {
    const [row, column] = [Math.floor(i / SIDE), i % SIDE];
    const halves = {
      left: column < SIDE / 2,
      right: column >= SIDE / 2,
      top: row < SIDE / 2,
      bottom: row >= SIDE / 2,
      random: Math.random() < 0.5,
    };
    return halves[name] ?? false;
  }

  function drawPart(ask, digits) {
    const canvas = byId("draw-input");
    const status = byId("draw-status");
    const state = {
      start: digits[0].picture,
      ink: new Float32Array(PIXELS),
      visible: new Uint8Array(PIXELS),
      cursor: { row: 14, column: 14 },
      seed: 1,
      rounds: [],
    };
    const settings = {
      nSteps: ui.slider("draw-steps", { changed: complete }),
      delta: ui.slider("draw-delta", { show: (value) => number(value, 2), changed: complete }),
      alpha: ui.slider("draw-alpha", { show: (value) => number(value, 3), changed: complete }),
    };
    const round = ui.slider("draw-round", {
      changed: (value) => {
        frames.clear();
        showRound(Math.min(value, state.rounds.length - 1));
      },
    });
    const frames = ui.paced(showRound, FRAME);

    function showInput() {
      const marked = canvas.matches(":focus-visible"); // by the keyboard
      ui.drawInput(canvas, { ...state, marked });
    }

    function showRound(index) {
      round.value = index;
      byId("draw-round-shown").textContent = index;
      ui.drawInk(byId("draw-output"), state.rounds[index].picture);
      plotLogs(index);
    }

    function plotLogs(last) {
      const logs = state.rounds.slice(1, last + 1).map((one) => one.logs);
      const all = logs.flat().map((log) => Math.max(log, -LARGEST_LOG));
      const nSteps = settings.nSteps.value;
      const y = all.length ? bounds(all, 0.5) : [-50, 0];
      const plot = ui.newPlot(byId("draw-plot"), {
        x: [0, ROUNDS * (nSteps + 1)],
        y: [y[0], Math.min(y[1], 0)],
        xName: `steps (${nSteps} and a decoding in each round)`,
        yName: "log p(x,h), nats",
        label: all.length
          ? `log p(x,h) from ${number(all[0], 1)} to ${number(all.at(-1), 1)} nats in ${last} rounds`
          : "log p(x,h): no round has been made",
      });
      plot.line(
        all.map((log, step) => [step, log]),
        "line thin",
      );
      logs.forEach((_, k) => {
        const step = (k + 1) * (nSteps + 1) - 1;
        plot.dot([step, all[step]], "dots", 3);
      });
    }

    function complete() {
      frames.clear();
      state.rounds = [];
      const values = Object.entries(settings).map(([name, control]) => [name, control.value]);
      const question = {
        x: state.ink,
        visible: state.visible,
        seed: state.seed,
        settings: { ...Object.fromEntries(values), rounds: ROUNDS },
      };
      ask("complete", question, (answer) => {
        state.rounds.push(answer);
        frames.push(answer.round);
        if (document.documentElement.dataset.firstPicture === undefined) {
          tellFirstPicture();
        }
        if (answer.round === ROUNDS) {
          tellEnd(answer);
        }
      });
    }

    function tellEnd({ picture, logs, seconds }) {
      shown.completed = picture;
      byId("draw").dataset.seconds = seconds;
      const [first, last] = [state.rounds[1].logs[0], logs.at(-1)];
      const diverged = !(Math.abs(last) < LARGEST_LOG);
      const missing = state.visible.filter((one) => !one).length;
      status.textContent = diverged
        ? "Inference has diverged: a smaller step δ holds it."
        : `${ROUNDS} rounds for ${missing} missing pixels took ${number(seconds, 1)} s; ` +
          `log p(x,h) went from ${number(first, 1)} to ${number(last, 1)} nats.`;
    }

    function begin() {
      const hide = byId("draw-hide").value;
      state.ink = Float32Array.from(state.start);
      state.visible = state.visible.map((_, i) => (hiddenBy(hide, i) ? 0 : 1));
      showInput();
      complete();
    }

    // The pen at a point, in pixels from the upper left corner.
    function usePen(x, y) {
      const tool = document.querySelector("input[name=draw-tool]:checked").value;
      const radius = tool === "ink" ? PEN : RUBBER;
      for (let i = 0; i < PIXELS; i += 1) {
        const distance = Math.hypot((i % SIDE) + 0.5 - x, Math.floor(i / SIDE) + 0.5 - y);
        const touch = Math.min(Math.max(radius + 0.5 - distance, 0), 1);
        if (touch === 0) {
          continue;
        }
        if (tool === "ink") {
          state.ink[i] = state.visible[i] ? Math.max(state.ink[i], touch) : touch;
          state.visible[i] = 1;
        } else if (touch > 0.4) {
          state.ink[i] = 0;
          state.visible[i] = tool === "white" ? 1 : 0;
        }
      }
    }

    function followPointer() {
      let last = null;
      const place = (event) => {
        const box = canvas.getBoundingClientRect();
        return [
          ((event.clientX - box.left) / box.width) * SIDE,
          ((event.clientY - box.top) / box.height) * SIDE,
        ];
      };
      canvas.addEventListener("pointerdown", (event) => {
        canvas.setPointerCapture(event.pointerId);
        last = place(event);
        usePen(...last);
        showInput();
      });
      canvas.addEventListener("pointermove", (event) => {
        if (last === null) {
          return;
        }
        const here = place(event);
        const pieces = Math.ceil(2 * Math.hypot(here[0] - last[0], here[1] - last[1])) || 1;
        for (let k = 1; k <= pieces; k += 1) {
          usePen(...last.map((from, axis) => from + ((here[axis] - from) * k) / pieces));
        }
        last = here;
        showInput();
      });
      for (const end of ["pointerup", "pointercancel"]) {
        canvas.addEventListener(end, () => {
          if (last !== null) {
            last = null;
            complete();
          }
        });
      }
    }

    function followKeys() {
      const moves = {
        ArrowUp: [-1, 0],
        ArrowDown: [1, 0],
        ArrowLeft: [0, -1],
        ArrowRight: [0, 1],
      };
      const inside = (value) => Math.min(Math.max(value, 0), SIDE - 1);
      canvas.addEventListener("keydown", (event) => {
        const { cursor } = state;
        const move = moves[event.key];
        const uses = event.key === " " || event.key === "Enter" || (move && event.shiftKey);
        if (!move && !uses) {
          return;
        }
        event.preventDefault();
        if (move) {
          cursor.row = inside(cursor.row + move[0]);
          cursor.column = inside(cursor.column + move[1]);
        }
        if (uses) {
          usePen(cursor.column + 0.5, cursor.row + 0.5);
          complete();
        }
        showInput();
      });
      canvas.addEventListener("focus", showInput);
      canvas.addEventListener("blur", showInput);
    }

    const blank = { label: "a blank page", picture: new Float32Array(PIXELS) };
    const offered = [...digits, blank];
    const picked = (index) => {
      state.start = offered[index].picture;
      begin();
    };
    const checked = placeOf(digits, 2, 2);
    ui.choices(byId("draw-digits"), offered, {
      name: "draw-digit",
      draw: ui.drawInk,
      picked,
      checked,
    });
    byId("draw-hide").addEventListener("change", begin);
    byId("draw-reset").addEventListener("click", begin);
    byId("draw-again").addEventListener("click", () => {
      state.seed = newSeed();
      complete();
    });
    followPointer();
    followKeys();
    picked(checked);
  }

  // How long the first picture took since the last of the page's files was there.
  function tellFirstPicture() {
    requestAnimationFrame(() => {
      const files = performance.getEntriesByType("resource").map((entry) => entry.responseEnd);
      const seconds = (performance.now() - Math.max(0, ...files)) / 1000;
      document.documentElement.dataset.firstPicture = seconds;
    });
  }

  // ---- dream ------------------------------------------------------------------------------------

  function dreamPart(ask) {
    const dream = { pictures: [], logs: [] };
    let timer = null;
    const step = ui.slider("dream-step", {
      changed: (value) => {
        stop();
        show(value);
      },
    });
    const last = () => dream.pictures.length - 1;

    function show(index) {
      const place = Math.min(index, last());
      step.value = place;
      byId("dream-step-shown").textContent = place;
      ui.drawInk(byId("dream-chain"), dream.pictures[place]);
      shown.dreamt = dream.pictures[place];
      plotLogs(place);
    }

    function plotLogs(place) {
      const y = bounds([...dream.logs.flat(), -1], 0.5);
      const plot = ui.newPlot(byId("dream-plot"), {
        x: [0, 45],
        y: [y[0], Math.min(y[1], 0)],
        xName: "step of inference",
        yName: "log p(x,h), nats",
        label: dream.logs
          .map((logs, k) => {
            const [from, to] = [logs[0], logs.at(-1)].map((log) => number(log, 1));
            return `round ${k + 1}: log p(x,h) from ${from} to ${to} nats`;
          })
          .join("; "),
      });
      dream.logs.forEach((logs, k) => {
        const start = k * (logs.length - 1);
        plot.line(
          logs.map((log, j) => [start + j, log]),
          "line",
        );
        plot.dot([start + logs.length - 1, logs.at(-1)], "dots", 3);
      });
      plot.line(
        [
          [place, y[0]],
          [place, Math.min(y[1], 0)],
        ],
        "now",
      );
    }

    function stop() {
      clearTimeout(timer);
      timer = null;
      byId("dream-play").textContent = "Play";
    }

    function advance() {
      show(Number(step.value) + 1);
      if (step.value >= last()) {
        stop();
      } else {
        timer = setTimeout(advance, FRAME);
      }
    }

    function play() {
      byId("dream-play").textContent = "Pause";
      if (step.value >= last()) {
        show(0);
      }
      timer = setTimeout(advance, FRAME);
    }

    function begin() {
      stop();
      const prior = document.querySelector("input[name=dream-prior]:checked").value;
      Object.assign(dream, { pictures: [], logs: [] });
      ask("dream", { prior, seed: newSeed() }, (answer) => {
        dream.pictures.push(...answer.pictures);
        if (answer.round === 0) {
          ui.drawInk(byId("dream-top"), answer.h2);
          ui.drawInk(byId("dream-directed"), answer.pictures[0]);
          return;
        }
        dream.logs.push(answer.logs);
        if (answer.round === 3) {
          end(answer);
        }
      });
    }

    function end({ seconds, logs }) {
      byId("dream").dataset.seconds = seconds;
      byId("dream-status").textContent =
        `GENERATE took ${number(seconds, 2)} s; log p(x,h) of the directed picture ` +
        `${number(dream.logs[0][0], 1)} nats, after three rounds ${number(logs.at(-1), 1)} nats.`;
      if (ui.calm()) {
        show(last());
      } else {
        show(0);
        play();
      }
    }

    byId("dream-new").addEventListener("click", begin);
    byId("dream-next").addEventListener("click", () => {
      stop();
      show(step.value + 1);
    });
    byId("dream-play").addEventListener("click", () => (timer === null ? play() : stop()));
    for (const input of document.querySelectorAll("input[name=dream-prior]")) {
      input.addEventListener("change", begin);
    }
    begin();
  }

  function walkPart(ask, digits) {
    const COUNT = 9;
    const ends = { from: placeOf(digits, 3, 2), to: placeOf(digits, 6, 2) };
    const strips = byId("walk-strips");
    const rows = ["Directed model", "Chain"].map((words) => {
      const title = document.createElement("p");
      title.textContent = words;
      const row = Array.from({ length: COUNT }, () => document.createElement("canvas"));
      row.forEach((canvas) => Object.assign(canvas, { width: SIDE, height: SIDE }));
      strips.append(title, ...row);
      return row;
    });

    function begin() {
      const [from, to] = [ends.from, ends.to].map((index) => digits[index].picture);
      ask("walk", { from, to, count: COUNT }, ({ place, directed, chain }) => {
        ui.drawInk(rows[0][place], directed);
        ui.drawInk(rows[1][place], chain);
      });
    }

    for (const end of ["from", "to"]) {
      ui.choices(byId(`walk-${end}`), digits, {
        name: `walk-${end}`,
        draw: ui.drawInk,
        checked: ends[end],
        picked: (index) => {
          ends[end] = index;
          begin();
        },
      });
    }
    begin();
  }

  // ---- explain ----------------------------------------------------------------------------------

  function explainPart(ask, digits) {
    const SHOWN = 6;
    const settings = { nSteps: 15, delta: 0.1, alpha: 0.001 };
    const unit = byId("explain-unit");
    const first = placeOf(digits, 4, 1);
    let answer = null;
    const named = ui.choices(byId("explain-digits"), digits, {
      name: "explain-digit",
      draw: ui.drawInk,
      checked: first,
      picked: (index) => explain(digits[index].picture),
    });

    function explain(x) {
      ask("explain", { x, settings }, (found) => {
        answer = found;
        const h1 = found.h1.at(-1);
        const most = Math.max(...h1);
        ui.drawInk(byId("explain-picture"), x);
        ui.drawInk(byId("explain-again"), found.reconstruction);
        ui.drawInk(byId("explain-h1"), h1, most);
        ui.drawInk(byId("explain-h2"), found.h2);
        byId("explain-h1-most").textContent = number(most, 2);
        const order = Array.from(h1.keys()).sort((a, b) => h1[b] - h1[a]);
        showLargest(order.slice(0, SHOWN), h1);
      });
    }

    function showLargest(units, h1) {
      ask("fields", { units }, ({ fields }) => {
        const items = units.map((j, k) => ({ label: `unit ${j}`, picture: fields[k] }));
        ui.choices(byId("explain-units"), items, {
          name: "explain-unit",
          draw: ui.drawSigned,
          checked: 0,
          picked: (index) => follow(units[index]),
          below: (index) => `${units[index]}: ${number(h1[units[index]], 2)}`,
        });
        follow(units[0]);
      });
    }

    function follow(j) {
      unit.value = j;
      const h1 = answer.h1.map((layer) => layer[j]);
      const heard = answer.heard.map((layer) => layer[j]);
      const target = answer.target[j];
      const steps = settings.nSteps;
      const plot = ui.newPlot(byId("explain-plot"), {
        x: [0, steps],
        y: bounds([...h1, ...heard, target], 0.01),
        xName: "step of inference",
        yName: `activity of unit ${j}`,
        label: `Unit ${j} over ${steps} steps`,
      });
      plot.line(
        [
          [0, target],
          [steps, target],
        ],
        "line target",
      );
      heard.forEach((value, step) =>
        plot.line(
          [
            [step, value],
            [step, target],
          ],
          "pull",
        ),
      );
      plot.line(
        heard.map((value, step) => [step, value]),
        "line",
      );
      plot.line(
        h1.map((value, step) => [step, value]),
        "line unit",
      );
      const [first, last] = [target - heard[0], target - heard[steps]];
      byId("explain-status").textContent =
        `Unit ${j}: the pull goes from ${number(first, 3)} to ${number(last, 3)}, ` +
        `its activity from ${number(h1[0], 3)} to ${number(h1[steps], 3)}.`;
    }

    for (const [id, name] of [
      ["explain-drawn", "completed"],
      ["explain-dreamt", "dreamt"],
    ]) {
      byId(id).addEventListener("click", () => {
        if (shown[name]) {
          ui.uncheck(named);
          explain(shown[name]);
        }
      });
    }
    unit.addEventListener("change", () => {
      const j = Math.min(Math.max(Math.round(Number(unit.value)), 0), answer.target.length - 1);
      ui.uncheck([...document.querySelectorAll("input[type=radio][name=explain-unit]")]);
      follow(j);
    });
    explain(digits[first].picture);
  }

  // ---- a synapse --------------------------------------------------------------------------------

  function synapsePart() {
    const tools = synapseTools();
    const random = networkTools({ simd: false }).randomNumbers(newSeed());
    const REACH = 40; // ms on either side of the presynaptic spike
    const BIN = 4; // ms
    const FEWEST = 2; // pairs in a bin whose mean is shown
    const YOURS = 300; // pairs of the reader that stay on the plot
    const times = tools.timesOf(tools.TRIAL);
    const slope = ui.slider("synapse-slope", { show: (v) => number(v, 2), changed: onePair });
    const noise = ui.slider("synapse-noise", { show: (v) => number(v, 1), changed: clear });
    const status = byId("synapse-status");
    let yours = [];
    let bins = [];

    const trial = () => ({ ...tools.TRIAL, noise: noise.value });
    const near = ({ deltaT }) => Math.abs(deltaT) < REACH;

    function onePair() {
      const pair = tools.onePair(slope.value, trial(), random);
      yours = [...yours, pair].filter(near).slice(-YOURS);
      showVoltage(pair);
      showCurve();
      status.textContent = Number.isNaN(pair.deltaT)
        ? "The second neuron did not spike within 50 ms: this pair is not on the curve."
        : `The second neuron spiked ${number(Math.abs(pair.deltaT), 1)} ms ` +
          `${pair.deltaT > 0 ? "after" : "before"} the first; ` +
          `ΔW = ${number(pair.deltaW, 2)} mV/ms.`;
    }

    function manyPairs() {
      const now = trial();
      const pairs = Array.from({ length: 1000 }, () =>
        tools.onePair(tools.randomSlope(now, random), now, random),
      );
      for (const { deltaT, deltaW } of pairs.filter(near)) {
        const bin = bins[Math.floor((deltaT + REACH) / BIN)];
        bin.count += 1;
        bin.sum += deltaW;
        bin.squares += deltaW * deltaW;
      }
      showVoltage(pairs.at(-1));
      showCurve();
      const count = bins.reduce((sum, bin) => sum + bin.count, 0);
      status.textContent = `The curve holds ${count} random pairs of spikes within ${REACH} ms.`;
    }

    function clear() {
      yours = [];
      bins = Array.from({ length: (2 * REACH) / BIN }, (_, k) => ({
        centre: (k + 0.5) * BIN - REACH,
        count: 0,
        sum: 0,
        squares: 0,
      }));
      onePair();
    }

    function showVoltage({ V, deltaT }) {
      const { threshold, halfWidth } = tools.TRIAL;
      const [low, high] = bounds([...V, threshold], 1);
      const plot = ui.newPlot(byId("synapse-voltage"), {
        x: [-halfWidth, halfWidth],
        y: [low, high],
        xName: "time (ms)",
        yName: "voltage (mV)",
        label: `Voltage of the second neuron with slope ${number(slope.value, 2)} mV/ms`,
      });
      plot.line(
        [
          [-halfWidth, threshold],
          [halfWidth, threshold],
        ],
        "dashed",
      );
      plot.line(
        [
          [0, low],
          [0, high],
        ],
        "dotted",
      );
      plot.line(
        Array.from(V, (v, k) => [times[k], v]),
        "line thin",
      );
      if (!Number.isNaN(deltaT)) {
        plot.dot([deltaT, threshold], "spike", 5.5);
      }
    }

    function showCurve() {
      const most = 1.6;
      const plot = ui.newPlot(byId("synapse-curve"), {
        x: [-REACH, REACH],
        y: [-most, most],
        xName: "ΔT = t(second) − t(first), ms",
        yName: "ΔW, mV/ms",
        label:
          "Weight change against spike-time difference: positive and falling where the second " +
          "neuron spikes afterwards, negative where it spiked before",
      });
      plot.line(
        [
          [-REACH, 0],
          [REACH, 0],
        ],
        "dotted",
      );
      plot.line(
        [
          [0, -most],
          [0, most],
        ],
        "dotted",
      );
      for (const side of [-1, 1]) {
        const lags = Array.from({ length: 81 }, (_, k) => side * Math.max(k / 2, 0.01));
        const curve = lags.map((lag) => [lag, tools.expectedChange(lag, tools.TRIAL)]);
        plot.line(curve, "line target");
      }
      for (const { deltaT, deltaW } of yours.filter((pair) => Math.abs(pair.deltaW) < most)) {
        plot.dot([deltaT, deltaW], "yours", 3.5);
      }
      for (const { centre, count, sum, squares } of bins.filter((bin) => bin.count >= FEWEST)) {
        const mean = sum / count;
        const spread = Math.sqrt(Math.max(squares / count - mean * mean, 0) / (count - 1));
        plot.line(
          [
            [centre, mean - spread],
            [centre, mean + spread],
          ],
          "line",
        );
        plot.dot([centre, mean], "dots", 4.5);
      }
    }

    byId("synapse-one").addEventListener("click", onePair);
    byId("synapse-many").addEventListener("click", manyPairs);
    byId("synapse-clear").addEventListener("click", clear);
    clear();
  }

  // ---- the whole page ---------------------------------------------------------------------------

  function begin() {
    synapsePart();
    if (typeof PLAY_DATA === "undefined") {
      byId("loading").textContent =
        "The network is not there: data.js is written by `python docs/play.py FOLDER`.";
      return;
    }
    const ask = ui.startWorker((message) => {
      byId("loading").textContent = `The computation has failed: ${message}`;
    });
    ask("data", { packed: PLAY_DATA }, ({ digits: pixels }) => {
      byId("loading").textContent = "";
      const digits = digitsOf(pixels);
      drawPart(ask, digits);
      dreamPart(ask);
      walkPart(ask, digits);
      explainPart(ask, digits);
    });
  }

  addEventListener("DOMContentLoaded", begin); // after the scripts, data.js among them
})();
