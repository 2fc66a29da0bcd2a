// Every universe of the survey: its label, every model's final losses beside figure 5, and three differences.

// The label without its noise at a projection of z standard deviations: c z + sum of sin(speed z + phase).
function signal({ c, speeds, phases }, z) {
  return speeds.reduce((sum, speed, index) => sum + Math.sin(speed * z + phases[index]), c * z);
}

start("universes", (data) => {
  const POINTS = 361;
  const HEAD = 24;
  const ROW = 76;
  const LEFT = 40;
  const label = 136;
  const height = HEAD + ROW * data.models.length + 36;
  const [first, last] = [data.edges[0], data.edges.at(-1)];
  const total = (counts) => counts.reduce((sum, count) => sum + count, 0);
  const runsOf = (counts) => total(counts) / 2; // two tasks
  const isShown = (counts) => runsOf(counts) >= data.fewest;
  const shares = (counts) => data.edges.slice(1).map((_, bin) => (100 * (counts[bin] ?? 0)) / total(counts));
  const chosen = (choice) => (choice < data.p.length ? [choice] : data.p.map((_, end) => end));

  const projection = (width, values) => {
    const universe = data.universes[values.universe];
    const places = Array.from({ length: POINTS }, (_, k) => -3 + (6 * k) / (POINTS - 1));
    const levels = places.map((z) => signal(universe, z));
    const most = Math.ceil(Math.max(...levels.map(Math.abs)));
    const title = "Label without noise";
    const y = [-most, most];
    const yTicks = [-most, 0, most].map((level) => [level, String(level)]);
    const xLabel = "projection of the inputs, standard deviations";
    const { at, nodes } = axes(width, label, { title, x: [-3, 3], y, xLabel, yTicks, left: LEFT });
    const points = places.map((z, index) => [at.x(z), at.y(levels[index])]);
    return [...nodes, drawing("path", { d: path(points), fill: "none", stroke: "var(--text)", "stroke-width": 1.5 })];
  };

  // The outline of a histogram, from the axis and back to it.
  const stairs = (x, y, percents) => {
    const points = percents.flatMap((share, bin) => [
      [x(data.edges[bin]), y(share)],
      [x(data.edges[bin + 1]), y(share)],
    ]);
    return path([[x(first), y(0)], ...points, [x(last), y(0)]]);
  };

  const histograms = (width, values) => {
    const universe = data.universes[values.universe];
    const ends = chosen(values.p);
    const shown = (model, end) => (isShown(universe.counts[model][end]) ? shares(universe.counts[model][end]) : []);
    const all = data.models.flatMap(({ paper }, model) =>
      ends.flatMap((end) => [...shown(model, end), ...(paper[end] ?? [])]),
    );
    // Two scales only, so that universes can be compared: the paper's highest bar has 71 %.
    const top = Math.max(...all) > 80 ? 100 : 80;
    const gap = 14;
    const wide = (width - LEFT - 12 - gap * (ends.length - 1)) / ends.length;
    const bottom = HEAD + ROW * data.models.length;
    const nodes = [];
    ends.forEach((end, column) => {
      const left = LEFT + column * (wide + gap);
      const x = (loss) => left + ((loss - first) / (last - first)) * wide;
      nodes.push(drawing("text", { x: left, y: 14, class: "title" }, `p = ${data.p[end]}, % of losses`));
      for (const [place, text] of ticks(first, last, wide < 220 ? 2 : 5)) {
        nodes.push(drawing("line", { x1: x(place), x2: x(place), y1: HEAD, y2: bottom, class: "grid" }));
        const meetsNext = column < ends.length - 1 && place === last;
        if (!meetsNext) nodes.push(drawing("text", { x: x(place), y: bottom + 15, "text-anchor": "middle" }, text));
      }
      data.models.forEach(({ name, colour, paper }, model) => {
        const floor = HEAD + ROW * (model + 1);
        const y = (share) => floor - (share / top) * (ROW - 20);
        const counts = universe.counts[model][end];
        for (const level of [0, top]) {
          nodes.push(drawing("line", { x1: left, x2: left + wide, y1: y(level), y2: y(level), class: "grid" }));
          if (column) continue;
          nodes.push(drawing("text", { x: left - 6, y: y(level) + (level ? 8 : 0), "text-anchor": "end" }, String(level)));
        }
        const said = { x: left + wide, "text-anchor": "end" };
        if (isShown(counts)) {
          const bars = { fill: `var(--${colour})`, "fill-opacity": 0.7 };
          nodes.push(drawing("path", { d: stairs(x, y, shares(counts)), ...bars }));
        } else {
          nodes.push(drawing("text", { ...said, y: floor - ROW + 40 }, `fewer than ${data.fewest} runs`));
        }
        if (paper[end]) {
          const outline = { fill: "none", stroke: "var(--text)", "stroke-width": 1.5 };
          nodes.push(drawing("path", { d: stairs(x, y, paper[end]), ...outline }));
        }
        nodes.push(drawing("text", { ...said, y: floor - ROW + 15 }, name));
      });
    });
    const middle = (LEFT + width - 12) / 2;
    nodes.push(drawing("text", { x: middle, y: height - 5, "text-anchor": "middle" }, "final loss, both tasks"));
    return nodes;
  };

  const text = (values) => {
    const universe = data.universes[values.universe];
    const ends = chosen(values.p);
    const { number, kind, speeds, batch, rate, weights } = universe;
    const place = `${values.universe + 1} of ${data.universes.length}`;
    const said = (index) => {
      const found = ends.map((end) => {
        const difference = universe.differences[index][end];
        return `${difference ? interval(difference, 3) : "too few runs"} at p = ${data.p[end]}`;
      });
      return `${data.differences[index]}: ${found.join(", ")}.`;
    };
    const missing = ends.flatMap((end) =>
      data.models
        .filter((_, model) => !isShown(universe.counts[model][end]))
        .map(({ name }) => `${name} at p = ${data.p[end]}`),
    );
    const runs = ends.flatMap((end) => universe.counts.map((ofModel) => runsOf(ofModel[end])));
    const [fewest, most] = [Math.min(...runs), Math.max(...runs)];
    return [
      `Universe ${number} (${place}): ${kind}; ${speeds.length} sines, batch of ${batch}, learning rate ${rate}, ` +
        `${weights} initial weights; ${fewest === most ? most : `${fewest} to ${most}`} runs a model.`,
      ...data.differences.map((_, index) => said(index)),
      ...(missing.length ? [`Fewer than ${data.fewest} runs: ${missing.join(", ")}.`] : []),
    ];
  };
  const both = data.p.length;
  return {
    above: true,
    panels: [
      { height: label, wide: true, label: "The label of the chosen universe along its projection", draw: projection },
      {
        height,
        wide: true,
        label: "Histograms of final losses in the chosen universe, a row a model; outlines: figure 5 of the paper",
        draw: histograms,
      },
    ],
    text,
    longest: data.universes.map((_, universe) => text({ universe, p: both })),
  };
});
