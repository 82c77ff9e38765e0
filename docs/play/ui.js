"use strict";

// What the parts of the page are made of: pictures, plots, sliders, choices of digits, and a worker.
function uiTools() {
  const SIDE = 28;
  const STRIPE = 6; // distance of the stripes over missing pixels
  const byId = (id) => document.getElementById(id);
  const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
  const number = (value, digits) => value.toFixed(digits).replace("-", "−");

  // ---- pictures ---------------------------------------------------------------------------------

  function drawColours(canvas, values, colourOf) {
    const context = canvas.getContext("2d");
    const image = context.createImageData(canvas.width, canvas.height);
    values.forEach((value, i) => image.data.set([...colourOf(value), 255], 4 * i));
    context.putImageData(image, 0, 0);
  }

  // From white at 0 to black at `most`.
  function drawInk(canvas, values, most = 1) {
    drawColours(canvas, values, (value) => {
      const grey = 255 * (1 - Math.min(Math.max(value / most, 0), 1));
      return [grey, grey, grey];
    });
  }

  // From orange through white to blue; two colours that nearly everybody can tell apart.
  function drawSigned(canvas, values) {
    const most = values.reduce((largest, value) => Math.max(largest, Math.abs(value)), 1e-9);
    const [blue, orange] = [
      [0, 114, 178],
      [213, 94, 0],
    ];
    drawColours(canvas, values, (value) => {
      const share = Math.abs(value) / most;
      return (value > 0 ? blue : orange).map((part) => 255 + share * (part - 255));
    });
  }

  // A picture with its missing pixels striped, enlarged by `scale`, and the keyboard's place in it.
  function drawInput(canvas, { ink, visible, cursor, marked }) {
    const context = canvas.getContext("2d");
    const scale = canvas.width / SIDE;
    context.fillStyle = "#ffffff";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.beginPath();
    for (let i = 0; i < ink.length; i += 1) {
      const [left, top] = [(i % SIDE) * scale, Math.floor(i / SIDE) * scale];
      if (visible[i]) {
        const grey = Math.round(255 * (1 - ink[i]));
        context.fillStyle = `rgb(${grey} ${grey} ${grey})`;
        context.fillRect(left, top, scale, scale);
      } else {
        context.rect(left, top, scale, scale);
      }
    }
    drawStripes(context, canvas);
    if (marked) {
      context.strokeStyle = "#b84a00";
      context.lineWidth = 3;
      context.strokeRect(cursor.column * scale, cursor.row * scale, scale, scale);
    }
  }

  // Stripes over the rectangles of the current path.
  function drawStripes(context, { width, height }) {
    context.save();
    context.clip();
    context.fillStyle = "#dceefb";
    context.fillRect(0, 0, width, height);
    context.strokeStyle = "#56b4e9";
    context.lineWidth = 1.5;
    context.beginPath();
    for (let start = -height; start < width; start += STRIPE) {
      context.moveTo(start, height);
      context.lineTo(start + height, 0);
    }
    context.stroke();
    context.restore();
  }

  // ---- plots ------------------------------------------------------------------------------------

  const PLOT = { width: 400, height: 260, left: 64, right: 12, top: 12, bottom: 46 };

  function svg(name, attributes, text) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) {
      node.setAttribute(key, value);
    }
    if (text !== undefined) {
      node.textContent = text;
    }
    return node;
  }

  // About `count` round numbers from low to high.
  function ticks(low, high, count) {
    const rough = (high - low) / count;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((m) => m * power).find((size) => size >= rough * 0.999);
    const first = Math.ceil(low / step - 1e-9);
    const last = Math.floor(high / step + 1e-9);
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    return Array.from({ length: last - first + 1 }, (_, k) => {
      const value = (first + k) * step;
      return { value, text: number(value, digits) };
    });
  }

  // Axes with their names and numbers. Returns `put`, which draws a shape through the given points,
  // in the units of the axes, and `at`, which tells where on the plot a point is.
  function newPlot(node, { x, y, xName, yName, label }) {
    const { width, height, left, right, top, bottom } = PLOT;
    const across = (value) => left + ((value - x[0]) / (x[1] - x[0])) * (width - left - right);
    const up = (value) =>
      height - bottom - ((value - y[0]) / (y[1] - y[0])) * (height - top - bottom);
    node.setAttribute("viewBox", `0 0 ${width} ${height}`);
    node.setAttribute("aria-label", label);
    node.replaceChildren();
    for (const { value, text } of ticks(...x, 5)) {
      const place = { x: across(value), y: height - bottom + 18, "text-anchor": "middle" };
      node.append(svg("text", place, text));
      const line = `M${across(value)} ${height - bottom}v4`;
      node.append(svg("path", { d: line, class: "axis" }));
    }
    for (const { value, text } of ticks(...y, 5)) {
      const place = { x: left - 7, y: up(value) + 4, "text-anchor": "end" };
      node.append(svg("text", place, text));
      node.append(svg("path", { d: `M${left} ${up(value)}H${width - right}`, class: "grid" }));
    }
    const frame = `M${left} ${top}V${height - bottom}H${width - right}`;
    node.append(svg("path", { d: frame, class: "axis" }));
    const middle = (left + width - right) / 2;
    node.append(svg("text", { x: middle, y: height - 6, "text-anchor": "middle" }, xName));
    const aside = { transform: `translate(12 ${(top + height - bottom) / 2}) rotate(-90)` };
    node.append(svg("text", { ...aside, "text-anchor": "middle" }, yName));

    const at = ([a, b]) => [across(a), up(b)];
    const path = (points) => points.map((p, k) => `${k ? "L" : "M"}${at(p).join(" ")}`).join("");
    const line = (points, kind) => node.append(svg("path", { d: path(points), class: kind }));
    function dot(point, kind, r) {
      const [cx, cy] = at(point);
      node.append(svg("circle", { cx, cy, r, class: kind }));
    }
    return { line, dot };
  }

  // ---- controls ---------------------------------------------------------------------------------

  // A slider whose value is written beside it. `show` makes the words of a value.
  function slider(id, { show = String, changed = () => {} } = {}) {
    const input = byId(id);
    const output = document.querySelector(`output[for="${id}"]`);
    const write = () => {
      output.textContent = show(Number(input.value));
    };
    input.addEventListener("input", () => {
      write();
      changed(Number(input.value));
    });
    write();
    return {
      get value() {
        return Number(input.value);
      },
      set value(value) {
        input.value = value;
        write();
      },
      input,
    };
  }

  // Pictures to choose one from, in a fieldset: [{label, picture}]; a choice calls picked(index).
  function choices(fieldset, items, { name, draw, picked, checked = -1, below }) {
    fieldset.querySelector(".choices")?.remove();
    const list = document.createElement("div");
    list.className = "choices";
    items.forEach(({ label, picture }, index) => {
      const choice = document.createElement("label");
      choice.className = "choice";
      const input = document.createElement("input");
      Object.assign(input, { type: "radio", name, checked: index === checked });
      input.setAttribute("aria-label", label);
      input.addEventListener("change", () => picked(index));
      const canvas = document.createElement("canvas");
      Object.assign(canvas, { width: SIDE, height: SIDE });
      canvas.setAttribute("aria-hidden", "true");
      draw(canvas, picture);
      choice.append(input, canvas);
      if (below) {
        const words = document.createElement("span");
        words.textContent = below(index);
        choice.append(words);
      }
      list.append(choice);
    });
    fieldset.append(list);
    return [...list.querySelectorAll("input")];
  }

  const uncheck = (inputs) =>
    inputs.forEach((input) => {
      input.checked = false;
    });

  // Shows what is pushed one after the other, `milliseconds` apart; at once where the reader wants
  // no motion.
  function paced(show, milliseconds) {
    let waiting = [];
    let timer = null;
    function next() {
      timer = null;
      if (waiting.length === 0) {
        return;
      }
      show(waiting.shift());
      timer = setTimeout(next, milliseconds);
    }
    return {
      push(item) {
        if (calm()) {
          show(item);
          return;
        }
        waiting.push(item);
        if (timer === null) {
          next();
        }
      },
      clear() {
        waiting = [];
      },
    };
  }

  // ---- the worker -------------------------------------------------------------------------------

  // The worker is made of the functions' own text, since a page that was opened as a file may not
  // load one. ask(part, question, answer) replaces what that part has asked before.
  function startWorker(failed) {
    const source = `"use strict";\n${networkTools}\n${workerMain}\nworkerMain(networkTools());`;
    const worker = new Worker(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
    worker.onerror = (event) => failed(event.message);
    const asked = new Map();
    worker.onmessage = ({ data }) => {
      const last = asked.get(data.part);
      if (last && (data.id ?? last.id) === last.id) {
        last.answer(data);
      }
    };
    let id = 0;
    return function ask(part, question, answer) {
      id += 1;
      asked.set(part, { id, answer });
      worker.postMessage({ ...question, part, id });
    };
  }

  return {
    SIDE,
    byId,
    calm,
    number,
    drawInk,
    drawSigned,
    drawInput,
    newPlot,
    slider,
    choices,
    uncheck,
    paced,
    startWorker,
  };
}
