"use strict";

// The arithmetic of the network: what biolearn.core computes, for one picture at a time. Nothing
// here knows of the page: the worker and the tests call the same functions. It is one function, so
// that the page can hand its text to a worker even where it was opened as a file.
function networkTools({ simd = true } = {}) {
  const TINY = 2 ** -24; // the smallest number of 16 bits
  const fast = simd ? fourAtOnce() : null;

  // ---- from the packed data to arrays ---------------------------------------------------------

  function bytesOf(base64) {
    const text = atob(base64);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i += 1) {
      bytes[i] = text.charCodeAt(i);
    }
    return bytes;
  }

  function singleOfHalf(half) {
    const sign = half & 0x8000 ? -1 : 1;
    const exponent = (half >> 10) & 0x1f;
    const fraction = half & 0x3ff;
    if (exponent === 0) {
      return sign * fraction * TINY;
    }
    if (exponent === 31) {
      return fraction ? NaN : sign * Infinity;
    }
    return sign * 2 ** (exponent - 15) * (1 + fraction / 1024);
  }

  // A table of all 65,536 numbers of 16 bits is quicker than two million conversions, and a loop
  // than Float32Array.from.
  function singlesOfHalves(halves) {
    const table = new Float32Array(65536);
    for (let half = 0; half < 65536; half += 1) {
      table[half] = singleOfHalf(half);
    }
    const singles = new Float32Array(halves.length);
    for (let i = 0; i < halves.length; i += 1) {
      singles[i] = table[halves[i]];
    }
    return singles;
  }

  // {name: array} from the header and the bytes that docs/play.py has written; pixels of 8 bits
  // become numbers from 0 to 1. The header says where each array begins.
  function unpack(data) {
    const bytes = bytesOf(data.base64);
    const arrays = {};
    for (const [name, { dtype, shape, offset }] of Object.entries(data.header)) {
      const length = shape.reduce((product, n) => product * n, 1);
      if (dtype === "float32") {
        arrays[name] = new Float32Array(bytes.buffer, offset, length);
      } else if (dtype === "float16") {
        arrays[name] = singlesOfHalves(new Uint16Array(bytes.buffer, offset, length));
      } else {
        const pixels = new Uint8Array(bytes.buffer, offset, length);
        arrays[name] = Float32Array.from(pixels, (pixel) => pixel / 255);
      }
    }
    return arrays;
  }

  function modelOf(arrays) {
    function map(name, unit) {
      const W = fast ? fast.keep(arrays[`${name}.W`]) : arrays[`${name}.W`];
      const b = arrays[`${name}.b`];
      return { W, b, unit, rows: allRows(W.length / b.length) };
    }
    return {
      f1: map("f1", softplus),
      g1: map("g1", sigmoid),
      f2: map("f2", sigmoid),
      g2: map("g2", softplus),
      priors: {
        gaussian: { mean: arrays["prior.mean"], var: arrays["prior.var"] },
        mixture: {
          mean: arrays["mixture.mean"],
          var: arrays["mixture.var"],
          weight: arrays["mixture.weight"],
        },
      },
    };
  }

  // ---- one map --------------------------------------------------------------------------------

  function softplus(a) {
    return Math.max(a, 0) + Math.log1p(Math.exp(-Math.abs(a)));
  }

  function sigmoid(a) {
    return 0.5 + 0.5 * Math.tanh(0.5 * a);
  }

  // Adds to `out` the given rows of W, each times its entry of `input`. Row after row is the order
  // in which W lies in memory; eight rows at once, since each visit to `out` costs as much as a
  // multiplication. A unit that is silent, like a white pixel, costs nothing.
  function addRows(W, input, rows, out) {
    if (fast) {
      fast.addRows(W, input, rows, out);
      return;
    }
    const n = out.length;
    const active = rows.filter((i) => input[i] !== 0);
    const whole = active.length - (active.length % 8);
    for (let k = 0; k < whole; k += 8) {
      addEightRows(W, input, active, k, out);
    }
    for (let k = whole; k < active.length; k += 1) {
      const start = active[k] * n;
      const value = input[active[k]];
      for (let j = 0; j < n; j += 1) {
        out[j] += value * W[start + j];
      }
    }
  }

  function addEightRows(W, input, rows, k, out) {
    const n = out.length;
    const a0 = input[rows[k]];
    const a1 = input[rows[k + 1]];
    const a2 = input[rows[k + 2]];
    const a3 = input[rows[k + 3]];
    const a4 = input[rows[k + 4]];
    const a5 = input[rows[k + 5]];
    const a6 = input[rows[k + 6]];
    const a7 = input[rows[k + 7]];
    const r0 = rows[k] * n;
    const r1 = rows[k + 1] * n;
    const r2 = rows[k + 2] * n;
    const r3 = rows[k + 3] * n;
    const r4 = rows[k + 4] * n;
    const r5 = rows[k + 5] * n;
    const r6 = rows[k + 6] * n;
    const r7 = rows[k + 7] * n;
    for (let j = 0; j < n; j += 1) {
      out[j] +=
        a0 * W[r0 + j] +
        a1 * W[r1 + j] +
        a2 * W[r2 + j] +
        a3 * W[r3 + j] +
        a4 * W[r4 + j] +
        a5 * W[r5 + j] +
        a6 * W[r6 + j] +
        a7 * W[r7 + j];
    }
  }

  // The same loop in WebAssembly, with four numbers to an instruction: a completion takes a quarter
  // of the time. Null where the browser has no such instructions. The memory of the module holds
  // the sums, the addresses and the entries of the rows that are added, and then the weights.
  function fourAtOnce() {
    const ROOM = 4096; // bytes for the numbers of 1,024 units, more than any layer has
    const code = webAssemblyThatAddsRows(ROOM, 2 * ROOM);
    if (!globalThis.WebAssembly || !WebAssembly.validate(code)) {
      return null;
    }
    const PAGE = 65536;
    const memory = new WebAssembly.Memory({ initial: 1 });
    const module = new WebAssembly.Module(code);
    const { add } = new WebAssembly.Instance(module, { js: { memory } }).exports;
    const places = new Map(); // weights -> their address
    let end = 3 * ROOM;
    let sums = null;
    let addresses = null;
    let values = null;

    function keep(W) {
      const lacking = end + W.byteLength - memory.buffer.byteLength;
      if (lacking > 0) {
        memory.grow(Math.ceil(lacking / PAGE)); // from here on it is another buffer
      }
      new Float32Array(memory.buffer, end, W.length).set(W);
      places.set(W, end);
      end += W.byteLength;
      sums = new Float32Array(memory.buffer, 0, ROOM / 4);
      addresses = new Int32Array(memory.buffer, ROOM, ROOM / 4);
      values = new Float32Array(memory.buffer, 2 * ROOM, ROOM / 4);
      return W;
    }

    function addRows(W, input, rows, out) {
      const first = places.get(W);
      const bytes = out.byteLength;
      let count = 0;
      for (let k = 0; k < rows.length; k += 1) {
        const value = input[rows[k]];
        if (value !== 0) {
          addresses[count] = first + rows[k] * bytes;
          values[count] = value;
          count += 1;
        }
      }
      for (; count % 8 !== 0; count += 1) {
        addresses[count] = first;
        values[count] = 0;
      }
      if (count > 0) {
        sums.set(out);
        add(bytes, 4 * count);
        out.set(sums.subarray(0, out.length));
      }
    }

    return { keep, addRows };
  }

  // A module with one function, add(bytes, end): to the sums at address 0, which take so many
  // bytes, a multiple of 16, it adds eight rows, and eight more, until it has come to `end` in the
  // lists of the rows' addresses (at `addresses`) and entries (at `values`).
  function webAssemblyThatAddsRows(addresses, values) {
    const I32 = 0x7f;
    const V128 = 0x7b;
    const [BYTES, END, ROW, PLACE, START, SPREAD] = [0, 1, 2, 3, 4, 12]; // variables
    const eight = [0, 1, 2, 3, 4, 5, 6, 7];
    const size = (n) => (n < 128 ? [n] : [(n & 127) | 128, ...size(n >> 7)]);
    const section = (number, bytes) => [number, ...size(bytes.length), ...bytes];
    const name = (text) => [text.length, ...Array.from(text, (c) => c.charCodeAt(0))];
    const get = (variable) => [0x20, variable];
    const set = (variable) => [0x21, variable];
    const constant = (n) => [0x41, n];
    const add = [0x6a];
    const loop = [0x03, 0x40];
    const end = [0x0b];
    const againWhileBelow = [0x49, 0x0d, 0];
    const loadAddress = (place) => [0x28, 2, ...size(place)]; // i32.load
    const loadFour = [0xfd, 0x00, 2, 0]; // v128.load
    const loadSpread = (place) => [0xfd, 0x09, 2, ...size(place)]; // v128.load32_splat
    const storeFour = [0xfd, 0x0b, 2, 0]; // v128.store
    const timesFour = [0xfd, 0xe6, 0x01]; // f32x4.mul
    const addFour = [0xfd, 0xe4, 0x01]; // f32x4.add

    const fetchRow = (i) => [
      ...[...get(ROW), ...loadAddress(addresses + 4 * i), ...set(START + i)],
      ...[...get(ROW), ...loadSpread(values + 4 * i), ...set(SPREAD + i)],
    ];
    const addRow = (i) => [
      ...[...get(START + i), ...get(PLACE), ...add, ...loadFour],
      ...[...get(SPREAD + i), ...timesFour, ...addFour],
    ];
    const forward = (variable, step) => [
      ...[...get(variable), ...constant(step), ...add, ...set(variable)],
    ];
    const body = [
      ...[2, 10, I32, 8, V128], // the variables that are no parameters
      ...loop,
      ...eight.flatMap(fetchRow),
      ...[...constant(0), ...set(PLACE)],
      ...loop,
      ...[...get(PLACE), ...get(PLACE), ...loadFour],
      ...eight.flatMap(addRow),
      ...storeFour,
      ...[...forward(PLACE, 16), ...get(PLACE), ...get(BYTES), ...againWhileBelow],
      ...end,
      ...[...forward(ROW, 32), ...get(ROW), ...get(END), ...againWhileBelow],
      ...end,
      ...end,
    ];
    return new Uint8Array([
      ...[0, ...name("asm").slice(1), 1, 0, 0, 0],
      ...section(1, [1, 0x60, 2, I32, I32, 0]), // the type of add
      ...section(2, [1, ...name("js"), ...name("memory"), 2, 0, 1]),
      ...section(3, [1, 0]),
      ...section(7, [1, ...name("add"), 0, 0]),
      ...section(10, [1, ...size(body.length), ...body]),
    ]);
  }

  const allRows = (n) => Int32Array.from({ length: n }, (_, i) => i);

  // unit(input W + b), written to `out`.
  function apply(map, input, out) {
    out.set(map.b);
    addRows(map.W, input, map.rows, out);
    rate(map.unit, out);
  }

  function rate(unit, sums) {
    for (let j = 0; j < sums.length; j += 1) {
      sums[j] = unit(sums[j]);
    }
  }

  function applied(map, input) {
    const out = new Float32Array(map.b.length);
    apply(map, input, out);
    return out;
  }

  // ---- INFERENCE ------------------------------------------------------------------------------

  // INFERENCE of Algorithm 2 on one picture, a step at a time. `down1` is g1(h1) and `down2` is
  // g2(h2), as they stand after the last step. Where `visible` is given, pixels at which it is 0
  // are missing: in the target f1(x) they are replaced by g1(h1), as for Figure 5.
  class Settling {
    constructor(model, x, { delta = 0.1, alpha = 0.001, visible = null } = {}) {
      Object.assign(this, { model, delta, alpha, visible });
      this.x = Float32Array.from(x);
      this.up = applied(model.f1, this.x);
      this.h1 = this.up.slice();
      this.h2 = applied(model.f2, this.h1);
      this.down1 = applied(model.g1, this.h1);
      this.down2 = applied(model.g2, this.h2);
      this.reply1 = this.up.slice();
      this.reply2 = this.h2.slice();
      this.target2 = this.h2.slice();
      if (visible) {
        this.visibleRows = model.f1.rows.filter((i) => visible[i]);
        this.missingRows = model.f1.rows.filter((i) => !visible[i]);
        this.known = model.f1.b.slice(); // what the visible pixels send up does not change
        addRows(model.f1.W, this.x, this.visibleRows, this.known);
      }
    }

    step() {
      const { model, delta, alpha, h1, h2, down1, down2, up, reply1, reply2, target2 } = this;
      this.hear();
      apply(model.f2, h1, target2);
      apply(model.f2, down2, reply2);
      for (let j = 0; j < h2.length; j += 1) {
        h2[j] += delta * (target2[j] - reply2[j]);
      }
      apply(model.g2, h2, down2);
      for (let j = 0; j < h1.length; j += 1) {
        h1[j] += delta * (up[j] - reply1[j]) + alpha * (down2[j] - h1[j]);
      }
      apply(model.g1, h1, down1);
    }

    // f1(x) and f1(g1(h1)). Where pixels are missing, both get the same from them.
    hear() {
      const { model, down1, up, reply1 } = this;
      if (!this.visible) {
        apply(model.f1, down1, reply1);
        return;
      }
      const { W, b, unit } = model.f1;
      reply1.fill(0);
      addRows(W, down1, this.missingRows, reply1);
      for (let j = 0; j < up.length; j += 1) {
        up[j] = this.known[j] + reply1[j];
        reply1[j] += b[j];
      }
      addRows(W, down1, this.visibleRows, reply1);
      rate(unit, up);
      rate(unit, reply1);
    }

    // log p(x,h) in nats without constants, for the picture that this state completes: a missing
    // pixel is what g1(h1) says, and costs nothing.
    logP() {
      let squares = 0;
      for (let i = 0; i < this.x.length; i += 1) {
        if (!this.visible || this.visible[i]) {
          squares += (this.x[i] - this.down1[i]) ** 2;
        }
      }
      for (let j = 0; j < this.h1.length; j += 1) {
        squares += (this.h1[j] - this.down2[j]) ** 2;
      }
      return -0.5 * squares;
    }
  }

  function fillMissing(x, visible, values) {
    for (let i = 0; i < x.length; i += 1) {
      if (!visible[i]) {
        x[i] = values[i];
      }
    }
  }

  // The state after `nSteps` steps, and log p(x,h) after 0, 1, ... of them.
  function settle(model, x, { nSteps = 15, ...settings } = {}) {
    const state = new Settling(model, x, settings);
    const logs = [state.logP()];
    for (let step = 0; step < nSteps; step += 1) {
      state.step();
      logs.push(state.logP());
    }
    return { state, logs };
  }

  // ---- in-painting and GENERATE ---------------------------------------------------------------

  // In-painting (Figure 5): the picture before the first round, with `random` in its missing
  // pixels, and after each round of INFERENCE and decoding.
  function* inpaintRounds(model, x, visible, random, { rounds = 20, ...settings } = {}) {
    const picture = Float32Array.from(x);
    fillMissing(picture, visible, random);
    yield { picture: picture.slice(), logs: [] };
    for (let round = 0; round < rounds; round += 1) {
      const { state, logs } = settle(model, picture, { ...settings, visible });
      fillMissing(picture, visible, state.down1);
      yield { picture: picture.slice(), logs };
    }
  }

  // A draw of h2 from a prior, given standard normal numbers, and for a mixture a number in [0, 1)
  // that chooses the component in whose share it falls.
  function drawTop(prior, normals, uniform) {
    const n = normals.length;
    let start = 0;
    if (prior.weight) {
      let end = prior.weight[0];
      for (let k = 1; k < prior.weight.length && end < uniform; k += 1) {
        start += n;
        end = Math.fround(end + prior.weight[k]);
      }
    }
    return normals.map((z, j) => prior.mean[start + j] + Math.sqrt(prior.var[start + j]) * z);
  }

  // What the directed model makes of h2 (Eq. 7): the means g2 and g1, once.
  function decoded(model, h2) {
    return applied(model.g1, applied(model.g2, h2));
  }

  // GENERATE of Algorithm 2 from h2: the directed picture, then after each round all pictures
  // g1(h1) of its steps, of which the last is the picture of the round.
  function* generateRounds(model, h2, { rounds = 3, nSteps = 15, delta = 0.1, alpha = 0.3 } = {}) {
    let picture = decoded(model, h2);
    yield { pictures: [picture], logs: [] };
    for (let round = 0; round < rounds; round += 1) {
      const state = new Settling(model, picture, { delta, alpha });
      const pictures = [];
      const logs = [state.logP()];
      for (let step = 0; step < nSteps; step += 1) {
        state.step();
        pictures.push(state.down1.slice());
        logs.push(state.logP());
      }
      picture = pictures.at(-1) ?? state.down1;
      yield { pictures, logs };
    }
  }

  function generated(model, h2, settings) {
    const rounds = [...generateRounds(model, h2, settings)];
    return rounds.at(-1).pictures.at(-1);
  }

  // ---- random numbers -------------------------------------------------------------------------

  // A small generator with a seed (mulberry32), so that a start can be had again.
  function randomNumbers(seed) {
    let state = seed >>> 0;
    function uniform() {
      state = (state + 0x6d2b79f5) >>> 0;
      let mixed = Math.imul(state ^ (state >>> 15), state | 1);
      mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
      return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
    }
    function normal() {
      const radius = Math.sqrt(-2 * Math.log(1 - uniform()));
      return radius * Math.cos(2 * Math.PI * uniform());
    }
    return {
      uniform,
      normal,
      uniforms: (n) => Float32Array.from({ length: n }, uniform),
      normals: (n) => Float32Array.from({ length: n }, normal),
    };
  }

  return {
    unpack,
    modelOf,
    apply,
    applied,
    Settling,
    settle,
    inpaintRounds,
    drawTop,
    decoded,
    generateRounds,
    generated,
    randomNumbers,
  };
}
