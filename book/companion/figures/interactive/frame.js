// What the interactive figures share: native controls with labels, a little SVG, axes, and the start.

const SVG = "http://www.w3.org/2000/svg";

// element("label", { for: "p" }, "task correlation") is <label for="p">task correlation</label>.
function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

function drawing(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// Numbers

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

function interval([mean, low, high], digits) {
  return `${mean.toFixed(digits)} [${low.toFixed(digits)}, ${high.toFixed(digits)}]`;
}

// About `count` round numbers between two others.
function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const places = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k += 1) places.push(k * step);
  return places.map((place) => [place, place.toFixed(digits)]);
}

// Pictures

// Axes of a plot: `at.x` and `at.y` turn numbers into places, `nodes` are the grid and its words.
function axes(width, height, { title, x, y, xLabel, yTicks, left = 40 }) {
  const edge = { left, right: width - 12, top: 28, bottom: height - 36 };
  const at = {
    x: (value) => edge.left + ((value - x[0]) / (x[1] - x[0])) * (edge.right - edge.left),
    y: (value) => edge.bottom - ((value - y[0]) / (y[1] - y[0])) * (edge.bottom - edge.top),
  };
  const nodes = [drawing("text", { x: 0, y: 14, class: "title" }, title)];
  for (const [place, text] of yTicks ?? ticks(y[0], y[1], 4)) {
    const level = at.y(place);
    nodes.push(drawing("line", { x1: edge.left, x2: edge.right, y1: level, y2: level, class: "grid" }));
    nodes.push(drawing("text", { x: edge.left - 6, y: level + 4, "text-anchor": "end" }, text));
  }
  for (const [place, text] of ticks(x[0], x[1], 5)) {
    nodes.push(drawing("line", { x1: at.x(place), x2: at.x(place), y1: edge.top, y2: edge.bottom, class: "grid" }));
    nodes.push(drawing("text", { x: at.x(place), y: edge.bottom + 15, "text-anchor": "middle" }, text));
  }
  nodes.push(drawing("text", { x: (edge.left + edge.right) / 2, y: height - 5, "text-anchor": "middle" }, xLabel));
  return { at, edge, nodes };
}

function path(points, closed = false) {
  return `M${points.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L")}${closed ? "Z" : ""}`;
}

// What lies outside of the axes is cut off.
function inside({ left, right, top, bottom }, nodes) {
  const [x, y, width, height] = [left, top, right - left, bottom - top];
  return drawing("svg", { x, y, width, height, viewBox: [x, y, width, height].join(" ") }, ...nodes);
}

// A line over its interval. `series` is { mean, low, high, colour, dash }, lists as long as `places`.
function lineWithBand(at, places, { mean, low, high, colour, dash }) {
  const points = (values) => places.map((place, index) => [at.x(place), at.y(values[index])]);
  const band = path([...points(high), ...points(low).reverse()], true);
  return [
    drawing("path", { d: band, fill: colour, "fill-opacity": 0.2 }),
    drawing("path", { d: path(points(mean)), fill: "none", stroke: colour, "stroke-width": 2, "stroke-dasharray": dash }),
  ];
}

// Controls: what `data.controls` lists, each with a label; `values()` reads them all.

const KINDS = {
  range(control, id) {
    const input = element("input", { type: "range", id, min: 0, max: control.texts.length - 1, step: 1 });
    const shown = element("span", { class: "value", "aria-hidden": "true" });
    const say = () => {
      shown.textContent = control.texts[input.value];
      input.setAttribute("aria-valuetext", control.texts[input.value]);
    };
    return {
      nodes: [element("label", { for: id }, control.label), shown, input],
      read: () => Number(input.value),
      set: (value) => (input.value = value),
      say,
    };
  },
  choice(control, id) {
    const options = control.texts.map((text, index) => element("option", { value: index }, text));
    const select = element("select", { id }, ...options);
    return {
      nodes: [element("label", { for: id }, control.label), select],
      read: () => Number(select.value),
      set: (value) => (select.value = value),
    };
  },
  check(control, id) {
    const input = element("input", { type: "checkbox", id });
    return {
      nodes: [element("label", { for: id }, input, control.label)],
      read: () => input.checked,
      set: (value) => (input.checked = value),
    };
  },
  checks(control, id) {
    const inputs = control.texts.map((_, index) => element("input", { type: "checkbox", id: `${id}-${index}` }));
    const labels = control.texts.map((text, index) => element("label", { for: `${id}-${index}` }, inputs[index], text));
    return {
      nodes: [element("fieldset", {}, element("legend", {}, control.label), ...labels)],
      read: () => inputs.map((input) => input.checked),
      set: (values) => values.forEach((value, index) => (inputs[index].checked = value)),
    };
  },
};

function makeControls(specifications, prefix) {
  const parts = specifications.map((control) => KINDS[control.kind](control, `${prefix}-${control.name}`));
  const set = (starts) => specifications.forEach(({ name }, index) => parts[index].set(starts[name]));
  const starts = Object.fromEntries(specifications.map(({ name, start }) => [name, start]));
  set(starts);
  const box = element("div", { class: "controls" });
  specifications.forEach(({ kind }, index) => {
    const inside = parts[index].nodes;
    box.append(...(kind === "checks" ? inside : [element("div", { class: `control ${kind}` }, ...inside)]));
  });
  return {
    box,
    values: () => Object.fromEntries(specifications.map(({ name }, index) => [name, parts[index].read()])),
    say: () => parts.forEach((part) => part.say?.()),
    reset: () => set(starts),
  };
}

// The start. `build(data)` returns { panels, text, longest, above }: panels are { height, label, wide, draw(width, values) },
// text(values) says in words, a line each, what they show, above the panels or below, and the longest texts decide how
// much room it is given. A wide panel has a row for itself.
// The figure may be put into the page after its script has run, so it is looked for again for a while.
function start(name, build, triesLeft = 100) {
  const root = document.querySelector(`figure.mmoe-interactive[data-figure="${name}"]:not([data-ready])`);
  if (!root) {
    if (triesLeft) setTimeout(start, 50, name, build, triesLeft - 1);
    return;
  }
  root.dataset.ready = document.querySelectorAll(`figure.mmoe-interactive[data-figure="${name}"]`).length;
  const data = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
  const { panels, text, longest, above } = build(data);
  const controls = makeControls(data.controls, `mmoe-${name}-${root.dataset.ready}`);

  const pictures = panels.map(({ height, label, wide }) => {
    const svg = drawing("svg", { role: "img", "aria-label": label, height, ...(wide && { class: "wide" }) });
    svg.style.height = `${height}px`;
    return svg;
  });
  const words = element("output", { "aria-live": "polite" });
  const draw = () => {
    const values = controls.values();
    controls.say();
    panels.forEach(({ height, draw }, index) => {
      const width = Math.max(pictures[index].clientWidth, 280);
      pictures[index].setAttribute("viewBox", `0 0 ${width} ${height}`);
      pictures[index].replaceChildren(...draw(width, values));
    });
    say(text(values));
  };
  const say = (lines) => words.replaceChildren(...lines.map((line) => element("div", {}, line)));
  // As high as the longest text, so that nothing below it ever moves.
  const fit = () => {
    words.style.minHeight = "0";
    const heights = longest.map((lines) => {
      say(lines);
      return words.offsetHeight;
    });
    words.style.minHeight = `${Math.max(...heights)}px`;
    draw();
  };
  if (data.reset) {
    const button = element("button", { type: "button" }, data.reset);
    button.addEventListener("click", () => {
      controls.reset();
      draw();
    });
    controls.box.append(button);
  }
  const caption = root.querySelector("figcaption");
  caption.textContent = data.caption;
  const seen = element("div", { class: "panels" }, ...pictures);
  // Many controls stand below what they change, so that a phone shows both.
  const below = above ? [words, seen] : [seen, words];
  caption.before(...(data.controls.length > 6 ? [seen, controls.box, words] : [controls.box, ...below]));
  takePlaceOf(root.dataset.picture, root);
  controls.box.addEventListener("input", draw);
  let width = 0;
  new ResizeObserver(() => {
    if (root.clientWidth !== width) fit();
    width = root.clientWidth;
  }).observe(root);
  fit();
}

// In the book the picture with this name gives its place, number and caption to the figure.
function takePlaceOf(name, root) {
  const numbered = name && document.getElementById(name);
  if (!numbered) return;
  numbered.querySelector("img").style.display = "none";
  numbered.prepend(root);
}
