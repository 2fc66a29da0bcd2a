// The lab: settings, training in workers, and pictures of where all runs stand, with a way back through the steps.

// Trains the runs of some seeds, a slice of time after the other, so that messages come through in between. It works in
// a worker or, where a page may have none, on the page itself; `post` gets every look of all runs.
function makeDriver(makeEngine, post, milliseconds) {
  const { Lab } = makeEngine();
  let lab = null;
  let task = null;
  let timer = 0;
  let next = 0; // the step of the next look
  let spent = 0; // milliseconds of training since the last one
  const look = () => {
    const seen = lab.look();
    post({ ...seen, spent }, [seen.losses.buffer, seen.weights.buffer]);
    next += task.every;
    spent = 0;
  };
  const slice = () => {
    const end = performance.now() + milliseconds;
    if (lab.step === next) look(); // before the first step
    let now = performance.now();
    while (lab.step < task.steps && now < end) {
      lab.advance(1);
      const before = now;
      now = performance.now();
      spent += now - before;
      if (lab.step === next) look();
    }
    timer = lab.step < task.steps ? setTimeout(slice, 0) : 0;
  };
  return (message) => {
    clearTimeout(timer);
    if (message.kind === "start") {
      task = message;
      lab = new Lab(task.settings, task.seeds);
    }
    if (message.kind !== "pause") timer = setTimeout(slice, 0);
  };
}

// All runs, split over as many workers as there are cores. Their text goes into a Blob, so that nothing is asked for.
class Training {
  constructor(settings, seeds, steps, every, onLook) {
    Object.assign(this, { settings, seeds, steps, every, onLook, parts: [] });
    this.cores = Math.min(navigator.hardwareConcurrency || 2, 8, seeds.length);
    this.inWorkers = true;
    try {
      const code = `(() => { const drive = (${makeDriver})(${makeEngine}, (message, given) => postMessage(message, given), 60);
        onmessage = ({ data }) => drive(data); })()`;
      const address = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
      for (let k = 0; k < this.cores; k += 1) this.addPart(k, new Worker(address));
      URL.revokeObjectURL(address);
    } catch {
      this.onThePage();
    }
    this.send("start");
  }

  addPart(k, worker) {
    const [from, to] = [k, k + 1].map((part) => Math.round((part * this.seeds.length) / this.cores));
    const part = { from, to, worker, looks: [], spent: 0 };
    const take = ({ data }) => {
      part.looks.push(data);
      part.spent += data.spent;
      this.onLook();
    };
    worker.onmessage = take;
    // A page may be forbidden to have workers, which some browsers only tell here.
    worker.onerror = () => {
      if (!this.inWorkers || this.count) return;
      this.stop();
      this.onThePage();
      this.send("start");
    };
    this.parts.push(part);
  }

  onThePage() {
    this.inWorkers = false;
    this.parts = [];
    this.cores = 1;
    const drive = makeDriver(makeEngine, (data) => page.onmessage({ data }), 12);
    const page = { postMessage: drive, terminate: () => drive({ kind: "pause" }) };
    this.addPart(0, page);
  }

  send(kind) {
    for (const { from, to, worker } of this.parts) {
      const task = { settings: this.settings, seeds: this.seeds.slice(from, to), steps: this.steps, every: this.every };
      worker.postMessage(kind === "start" ? { kind, ...task } : { kind });
    }
  }

  stop() {
    for (const { worker } of this.parts) worker.terminate();
  }

  // How many looks all parts have reached.
  get count() {
    return Math.min(...this.parts.map(({ looks }) => looks.length));
  }

  // Steps of a network a second, over all workers.
  get speed() {
    return this.parts.reduce((sum, { from, to, looks, spent }) => {
      const steps = (looks.length - 1) * this.every * (to - from) * this.settings.models.length;
      return sum + (spent ? (1000 * steps) / spent : 0);
    }, 0);
  }

  // Mean of both tasks' losses of run s of model j at a look.
  loss(at, s, j) {
    const { from, looks } = this.parts.find(({ to }) => s < to);
    const place = 2 * ((s - from) * this.settings.models.length + j);
    return (looks[at].losses[place] + looks[at].losses[place + 1]) / 2;
  }

  weights(at, s, j, counts) {
    const { from, looks } = this.parts.find(({ to }) => s < to);
    const all = counts.reduce((sum, count) => sum + count, 0);
    const start = (s - from) * all + counts.slice(0, j).reduce((sum, count) => sum + count, 0);
    return looks[at].weights.subarray(start, start + counts[j]);
  }
}

function startLab(triesLeft = 100) {
  const root = document.querySelector('figure.mmoe-interactive[data-figure="lab"]:not([data-ready])');
  if (!root) {
    if (triesLeft) setTimeout(startLab, 50, triesLeft - 1);
    return;
  }
  root.dataset.ready = document.querySelectorAll('figure.mmoe-interactive[data-figure="lab"]').length;
  const data = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
  const engine = makeEngine();
  const prefix = `mmoe-lab-${root.dataset.ready}`;
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const number = (value) => value.toLocaleString("en");

  // Settings: the reader's, and those in the address, as "#lab&p=0.5&models=MMoE,OMoE".
  const controls = makeControls(data.controls, prefix);
  let seed = data.seed;
  const chosen = () => {
    const values = controls.values();
    const single = Object.fromEntries(Object.keys(data.values).map((name) => [name, data.values[name][values[name]]]));
    const picked = data.models.filter((_, index) => values.models[index]);
    return { ...single, models: picked.length ? picked : data.models }; // none checked are all
  };
  const inWords = () => {
    const { models, ...single } = chosen();
    const names = models.map(({ name }) => name).join(",");
    const pairs = Object.entries({ ...single, models: names, seed }).map(([name, value]) => `${name}=${value}`);
    return `#lab&${pairs.join("&")}`;
  };
  const fromAddress = () => {
    if (!location.hash.startsWith("#lab&")) return false;
    const given = new URLSearchParams(location.hash.slice(5));
    for (const control of data.controls) {
      if (!given.has(control.name)) continue;
      if (control.name === "models") {
        const names = given.get("models").split(",");
        if (!data.models.some(({ name }) => names.includes(name))) continue;
        data.models.forEach(({ name }, k) => (root.querySelector(`#${prefix}-models-${k}`).checked = names.includes(name)));
      } else {
        const index = data.values[control.name].indexOf(Number(given.get(control.name)));
        if (index >= 0) root.querySelector(`#${prefix}-${control.name}`).value = index;
      }
    }
    const number = Number(given.get("seed"));
    if (Number.isInteger(number) && number >= 0) seed = number;
    return true;
  };
  const toAddress = () => {
    try {
      history.replaceState(history.state, "", inWords());
    } catch {
      // A frame without an address of its own.
    }
  };

  // The way back: step, and which run and task the lower pictures show.
  const slider = (name, label) => {
    const id = `${prefix}-${name}`;
    const input = element("input", { type: "range", id, min: 0, max: 0, step: 1, value: 0 });
    const shown = element("span", { class: "value", "aria-hidden": "true" });
    const node = element("div", { class: "control range" }, element("label", { for: id }, label), shown, input);
    const say = (text) => {
      shown.textContent = text;
      input.setAttribute("aria-valuetext", text);
    };
    return { input, node, say };
  };
  const back = slider("step", "step, back and forth");
  const whichRun = slider("run", "run shown below");
  const whichTask = KINDS.choice({ label: "task shown below", texts: ["task 1", "task 2"] }, `${prefix}-task`);

  const button = (text) => element("button", { type: "button" }, text);
  const [go, reset, other, link] = [button("Start"), button("Reset"), button("Another seed"), button("Copy the link")];
  const progress = element("progress", { max: 1, value: 0, "aria-label": "share of the steps" });
  const pace = element("span", { class: "pace" });
  const words = element("output", { "aria-live": "polite" });

  let training = null;
  let phase = "ready"; // running, paused, done
  let following = true; // the newest step is shown
  let notice = "";
  let probe = null;

  const settings = () => {
    const { p, noise, rate, models } = chosen();
    const { universe, sizes, rows, testRows } = data;
    return { universe, sizes, rows, testRows, p, sigma: noise, rate, models: models.map(({ name }) => name) };
  };
  // Run r of seed s has a task, rows and starts of its own.
  const seeds = (runs) => Array.from({ length: runs }, (_, run) => 1000 * seed + run);

  // E[y^2] of a network that has learned nothing, by the trapezoid rule over the projection.
  const nothing = (sigma) => {
    let sum = 0;
    for (let z = -6; z <= 6; z += 0.02) {
      sum += 0.02 * engine.signal(data.universe.c * z, data.universe) ** 2 * Math.exp((-z * z) / 2);
    }
    return sum / Math.sqrt(2 * Math.PI) + sigma * sigma;
  };
  // A run has learned if its loss without the noise is below a share of that.
  const threshold = (sigma) => sigma * sigma + data.learned * nothing(0);

  // Where the axes of losses end: all humps lie well below, and the first steps and runs that learn nothing above.
  const highest = (sigma) => Math.ceil(10 * (sigma * sigma + 10 * data.learned * nothing(0))) / 10;

  const clear = () => {
    training?.stop();
    training = null;
    probe = null;
    following = true;
    phase = "ready";
  };
  const begin = () => {
    const { runs, steps } = chosen();
    clear();
    phase = "running";
    training = new Training(settings(), seeds(runs), steps, steps / data.looks, () => {
      if (training.count > data.looks) phase = "done";
      changed(phase === "done");
    });
  };

  // Pictures

  const places = Array.from({ length: 41 }, (_, k) => -3 + 0.15 * k);
  const shades = Object.fromEntries(data.models.map((model) => [model.name, { ...model, colour: `var(--${model.colour})` }]));

  const now = () => {
    const { models, runs, steps, noise } = chosen();
    const count = training ? training.count : 0;
    const at = following ? count - 1 : Math.min(Number(back.input.value), count - 1);
    const run = Math.min(Number(whichRun.input.value), runs - 1);
    const ends = count
      ? models.map((_, j) => Array.from({ length: runs }, (_, s) => training.loss(at, s, j)))
      : models.map(() => []);
    return { models: models.map(({ name }) => shades[name]), runs, steps, noise, count, at, run, ends, task: whichTask.read() };
  };

  const line = (points, { colour, dash }, width, opacity = 1) =>
    drawing("path", { d: path(points), fill: "none", stroke: colour, "stroke-width": width, "stroke-dasharray": dash, opacity });

  // Loss of every run over the steps; the shown run is thicker, and a mark stands at the shown step.
  const curves = (width, { models, runs, steps, noise, count, at: shown, run }) => {
    const top = highest(noise);
    const { at, edge, nodes } = axes(width, 230, {
      title: "Loss of every run, mean of both tasks", x: [0, steps / 1000], y: [0, top], xLabel: "thousand steps",
    });
    const every = steps / data.looks / 1000;
    const lines = models.flatMap((model, j) =>
      Array.from({ length: count ? runs : 0 }, (_, s) => {
        const points = Array.from({ length: count }, (_, t) => [at.x(t * every), at.y(training.loss(t, s, j))]);
        return line(points, model, s === run ? 2.5 : 1, s === run ? 1 : 0.6);
      }),
    );
    nodes.push(inside(edge, lines));
    const level = at.y(threshold(noise));
    nodes.push(drawing("line", { x1: edge.left, x2: edge.right, y1: level, y2: level, class: "mark" }));
    if (count) {
      const here = at.x(shown * every);
      nodes.push(drawing("line", { x1: here, x2: here, y1: edge.top, y2: edge.bottom, class: "mark" }));
    }
    return nodes;
  };

  // A dot a run, stacked where they would overlap; a row a model.
  const humps = (width, { models, runs, noise, ends, run }) => {
    const level = threshold(noise);
    const learned = ends.map((values) => values.filter((value) => value < level).length);
    // The two that the paper sets against each other, if both are there.
    const told = models.map(({ name }, j) => ({ name, count: learned[j] }));
    const pair = told.filter(({ name }) => name === "Shared-Bottom" || name === "MMoE");
    const title = ends[0].length
      ? `Learned: ${(pair.length ? pair : told.slice(0, 2)).map(({ name, count }) => `${name} ${count}`).join(", ")} of ${runs}`
      : "Where the runs stand: a dot a run";
    const top = highest(noise);
    const { at, edge, nodes } = axes(width, 230, {
      title, x: [0, top], y: [0, models.length], xLabel: "loss (at the edge: or more)", yTicks: [], left: 102,
    });
    const tall = (edge.bottom - edge.top) / models.length;
    const bins = Math.floor((edge.right - edge.left) / 8);
    const mark = at.x(level);
    nodes.push(drawing("line", { x1: mark, x2: mark, y1: edge.top, y2: edge.bottom, class: "mark" }));
    models.forEach(({ name, colour }, j) => {
      const ground = edge.top + (j + 1) * tall;
      nodes.push(drawing("text", { x: edge.left - 6, y: ground - tall / 2 + 4, "text-anchor": "end" }, name));
      nodes.push(drawing("line", { x1: edge.left, x2: edge.right, y1: ground, y2: ground, class: "grid" }));
      const filled = new Map();
      const dots = ends[j].map((value, s) => {
        const bin = Math.max(0, Math.min(Math.floor((value / top) * bins), bins - 1));
        filled.set(bin, (filled.get(bin) ?? 0) + 1);
        return { s, bin, height: filled.get(bin) };
      });
      const step = Math.min(7, (tall - 4) / Math.max(1, ...filled.values()));
      for (const { s, bin, height } of dots) {
        const cx = edge.left + ((bin + 0.5) / bins) * (edge.right - edge.left);
        const ring = s === run ? { stroke: "var(--text)", "stroke-width": 2 } : {};
        nodes.push(drawing("circle", { cx, cy: ground - 1 - step * (height - 0.5), r: 3.4, fill: colour, ...ring }));
      }
    });
    return nodes;
  };

  // What the shown run's networks answer along w_k'x, against the label without noise.
  const labelCurve = (width, { models, looked, run, task }) => {
    const truth = places.map((z) => engine.signal(data.universe.c * z, data.universe));
    const [low, high] = [Math.min(...truth) - 0.6, Math.max(...truth) + 0.6];
    const title = `Run ${run + 1}, task ${task + 1}: learned (thin), true (thick)`;
    const { at, edge, nodes } = axes(width, 230, {
      title, x: [-3, 3], y: [low, high], xLabel: "projection, in standard deviations",
    });
    const points = (values) => places.map((z, k) => [at.x(z), at.y(values[k])]);
    const lines = [line(points(truth), { colour: "var(--text)", dash: "none" }, 3.5, 0.55)];
    looked.forEach(({ learned }, j) => lines.push(line(points(learned[task]), models[j], 2)));
    nodes.push(inside(edge, lines));
    return nodes;
  };

  // Mean gate weights of the shown run: OMoE's one gate, and MMoE's two.
  const gates = (width, { models, looked, run }) => {
    const { experts } = data.sizes;
    const { at, edge, nodes } = axes(width, 230, {
      title: `Run ${run + 1}: mean gate weights`, x: [0.5, experts + 0.5], y: [0, 1], xLabel: "expert",
    });
    const kinds = [
      { of: "OMoE", gate: 0, words: "OMoE, both tasks", colour: "var(--omoe)" },
      { of: "MMoE", gate: 0, words: "MMoE, task 1", colour: "var(--first)" },
      { of: "MMoE", gate: 1, words: "MMoE, task 2", colour: "var(--second)" },
    ].filter(({ of }) => models.some(({ name }) => name === of));
    const unit = (at.x(1) - at.x(0)) * 0.8;
    kinds.forEach(({ of, gate, words, colour }, k) => {
      const y = edge.top + 12 + 16 * k;
      nodes.push(drawing("rect", { x: edge.right - 130, y: y - 9, width: 10, height: 10, fill: colour }));
      nodes.push(drawing("text", { x: edge.right - 114, y }, words));
      const j = models.findIndex(({ name }) => name === of);
      looked[j]?.gates[gate].forEach((weight, i) => {
        const wide = unit / kinds.length;
        const x = at.x(i + 1) - unit / 2 + k * wide;
        nodes.push(drawing("rect", { x, y: at.y(weight), width: wide - 1, height: edge.bottom - at.y(weight), fill: colour }));
      });
    });
    if (!kinds.length) nodes.push(drawing("text", { x: edge.left + 8, y: edge.top + 14 }, "these models have no gates"));
    return nodes;
  };

  const panels = [
    [curves, "Loss of every run over the steps, a line a run"],
    [humps, "Histogram of the runs' losses at the shown step, a row a model and a dot a run"],
    [labelCurve, "The label that the shown run has learned, and the true one, along the projection"],
    [gates, "Mean gate weights of the shown run over the experts"],
  ].map(([draw, label]) => {
    const svg = drawing("svg", { role: "img", "aria-label": label, height: 230 });
    svg.style.height = "230px";
    return { svg, draw };
  });

  const text = ({ models, runs, steps, noise, at, run, ends, task }) => {
    const { p, rate } = chosen();
    const lines = [`p = ${p}, noise ${noise}, learning rate ${rate}, ${runs} runs a model, ${number(steps)} steps, seed ${seed}.`];
    const step = at < 0 ? "not started" : `step ${number((at * steps) / data.looks)}`;
    lines.push(`${{ ready: "Ready", running: "Training", paused: "Paused", done: "Done" }[phase]}, ${step}. Below: run ${run + 1}, task ${task + 1}. ${notice}`);
    const level = threshold(noise);
    models.forEach(({ name }, j) => {
      const values = ends[j];
      const [low, high] = [Math.min(...values), Math.max(...values)].map((value) => value.toFixed(2));
      const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
      const learned = values.filter((value) => value < level).length;
      lines.push(
        values.length
          ? `${name}: ${learned} of ${runs} runs below ${level.toFixed(2)}; mean loss ${mean.toFixed(2)}, ${low} to ${high}.`
          : `${name}: no losses yet.`,
      );
    });
    return lines;
  };
  const say = (lines) => words.replaceChildren(...lines.map((one) => element("div", {}, one)));

  const draw = () => {
    const state = now();
    const { count, at, steps, runs, run } = state;
    controls.say();
    back.input.disabled = count === 0;
    back.input.max = Math.max(count - 1, 0);
    if (following) back.input.value = Math.max(at, 0);
    back.say(count ? `step ${number((at * steps) / data.looks)}` : "step 0");
    whichRun.input.max = runs - 1;
    whichRun.input.value = run;
    whichRun.say(`run ${run + 1} of ${runs}`);
    go.textContent = { ready: "Start", running: "Pause", paused: "Continue", done: "Start again" }[phase];
    reset.disabled = phase === "ready";
    progress.value = Math.max(count - 1, 0) / data.looks;
    pace.textContent = training && training.speed ? `${number(Math.round(training.speed / 100) * 100)} steps of a network a second` : "";
    if (count && probe?.run !== run) probe = { run, ...newProbe(run) };
    const looked = count
      ? state.models.map(({ name }, j) => probe.it.look(name, training.weights(at, run, j, probe.counts)))
      : [];
    for (const { svg, draw } of panels) {
      const width = Math.max(svg.clientWidth, 280);
      svg.setAttribute("viewBox", `0 0 ${width} 230`);
      svg.replaceChildren(...draw(width, { ...state, looked }));
    }
    // What changes ten times a second is not read out; what the reader did and how it ended is.
    words.setAttribute("aria-live", phase === "running" ? "off" : "polite");
    say(text(state));
  };
  const newProbe = (run) => ({
    it: new engine.Probe(training.settings, training.seeds[run], places),
    counts: training.settings.models.map((name) => engine.makePlan(name, data.sizes).count),
  });

  // Drawn at once where the reader acted, else a few times a second; where motion is not wanted, every third second.
  let waiting = 0;
  let drawn = 0;
  const changed = (atOnce) => {
    const pause = calm.matches ? 3000 : 150;
    clearTimeout(waiting);
    const left = atOnce ? 0 : drawn + pause - performance.now();
    waiting = setTimeout(() => {
      draw();
      drawn = performance.now();
    }, Math.max(0, left));
  };

  // What the reader does

  go.addEventListener("click", () => {
    notice = "";
    if (phase === "running") {
      phase = "paused";
      training.send("pause");
    } else if (phase === "paused") {
      phase = "running";
      following = true;
      training.send("go");
    } else begin();
    draw();
  });
  reset.addEventListener("click", () => {
    notice = "";
    clear();
    draw();
    go.focus();
  });
  other.addEventListener("click", () => {
    const running = phase === "running";
    notice = "";
    clear();
    seed += 1;
    toAddress();
    if (running) begin();
    draw();
  });
  link.addEventListener("click", async () => {
    toAddress();
    try {
      await navigator.clipboard.writeText(location.href);
      notice = "The link is copied.";
    } catch {
      notice = "The page's address now holds these settings.";
    }
    draw();
  });
  controls.box.addEventListener("input", () => {
    notice = "";
    clear();
    toAddress();
    draw();
  });
  back.input.addEventListener("input", () => {
    following = Number(back.input.value) >= training.count - 1;
    draw();
  });
  addEventListener("hashchange", () => {
    if (!fromAddress()) return;
    clear();
    draw();
  });

  const caption = root.querySelector("figcaption");
  caption.textContent = data.caption;
  const buttons = element("div", { class: "buttons" }, go, reset, other, link, progress, pace);
  const view = element("div", { class: "controls" }, back.node, whichRun.node, element("div", { class: "control choice" }, ...whichTask.nodes));
  whichRun.input.addEventListener("input", draw);
  whichTask.nodes[1].addEventListener("input", draw);
  const seen = element("div", { class: "panels" }, ...panels.map(({ svg }) => svg));
  caption.before(controls.box, buttons, seen, view, words);
  takePlaceOf(root.dataset.picture, root);
  if (fromAddress()) root.scrollIntoView();

  // As high as the longest text, so that nothing below it ever moves.
  const longest = () => {
    const wide = "9".repeat(4);
    const model = `Shared-Bottom: 32 of 32 runs below 0.${wide}; mean loss 0.${wide}, 0.${wide} to 0.${wide}.`;
    return [
      `p = 0.99, noise 0.99, learning rate 0.9999, 99 runs a model, 99,999 steps, seed 9999.`,
      `Training, step 99,999. Below: run 99, task 2. The page's address now holds these settings.`,
      ...data.models.map(() => model),
    ];
  };
  let width = 0;
  new ResizeObserver(() => {
    if (root.clientWidth === width) return;
    width = root.clientWidth;
    words.style.minHeight = "0";
    say(longest());
    words.style.minHeight = `${words.offsetHeight}px`;
    draw();
  }).observe(root);
}

startLab();
