// Every stored run on Census-Income as a dot, each method's mean with its 95 % interval.

start("census-runs", (data) => {
  const ROW = 46;
  const height = 8 + ROW * data.methods.length + 40;
  const shownOf = (values) => {
    const table = data.groups[values.group].metrics[values.metric];
    const which = values.learned ? "learned" : "all";
    return data.methods.map((method, index) => {
      const { values: dots, stuck } = table[index];
      const kept = values.learned ? dots.filter((_, run) => !stuck.includes(run)) : dots;
      return { ...method, dots: kept, summary: table[index][which], left: dots.length - kept.length };
    });
  };

  // The axis depends on the group, the metric and the runs, not on the methods that are shown. A run far below the
  // others would press them together: it lies on the left edge.
  const span = (rows) => {
    const all = rows.flatMap(({ dots }) => dots).map((dot) => dot / data.scale).sort((one, other) => one - other);
    const quarter = (share) => all[Math.floor(share * (all.length - 1))];
    const fence = quarter(0.25) - 3 * (quarter(0.75) - quarter(0.25));
    const ends = rows.flatMap(({ summary }) => summary ?? []);
    return { low: Math.min(...ends, ...all.filter((value) => value >= fence)), high: all.at(-1) };
  };
  const far = (rows) => {
    const { low } = span(rows);
    return (dots) => dots.filter((dot) => dot / data.scale < low).length;
  };

  const draw = (width, values) => {
    const rows = shownOf(values);
    const { low, high } = span(rows);
    const pad = 0.03 * (high - low);
    const bottom = height - 40;
    const x = (value) => 8 + ((value - low + pad) / (high - low + 2 * pad)) * (width - 20);
    const nodes = [];
    for (const [place, text] of ticks(low, high, width < 480 ? 4 : 7)) {
      nodes.push(drawing("line", { x1: x(place), x2: x(place), y1: 4, y2: bottom, class: "grid" }));
      nodes.push(drawing("text", { x: x(place), y: bottom + 16, "text-anchor": "middle" }, text));
    }
    nodes.push(drawing("text", { x: width / 2, y: height - 5, "text-anchor": "middle" }, data.metrics[values.metric]));
    rows.forEach(({ name, colour, dots, summary }, index) => {
      if (!values.methods[index]) return;
      const top = 8 + ROW * index;
      const said = summary ? `${name}: ${interval(summary, 4)}, ${dots.length} runs` : `${name}: ${dots.length} runs`;
      nodes.push(drawing("text", { x: 0, y: top + 10 }, said));
      // Each dot a little up or down, always the same way, so that they can be told apart.
      const place = (dot) => x(Math.max(low - pad, dot / data.scale)).toFixed(1);
      const places = dots.map((dot, run) => `M${place(dot)} ${(top + 24 + 6 * (((run * 0.618) % 1) - 0.5)).toFixed(1)}h0`);
      const line = { fill: "none", stroke: `var(--${colour})`, "stroke-linecap": "round" };
      nodes.push(drawing("path", { d: places.join(""), ...line, "stroke-width": 5, "stroke-opacity": 0.6 }));
      if (!summary) return;
      const [mean, from, to] = summary.map(x);
      nodes.push(drawing("path", { d: `M${from} ${top + 35}H${to}`, stroke: "var(--text)", "stroke-width": 2 }));
      nodes.push(drawing("circle", { cx: mean, cy: top + 35, r: 4, fill: `var(--${colour})`, stroke: "var(--text)" }));
    });
    return nodes;
  };

  const said = (values, rows, beyond) => {
    const which = values.learned ? "runs that learned the main task" : "all runs";
    const lines = [`${data.groups[values.group].name}, ${data.metrics[values.metric]}, ${which}.`];
    if (!rows.length) return [...lines, "No method is chosen."];
    const sorted = [...rows].sort((one, other) => other.summary[0] - one.summary[0]);
    const [best, worst] = [sorted[0], sorted.at(-1)];
    const total = (what) => rows.reduce((sum, row) => sum + what(row), 0);
    return [
      ...lines,
      `Highest mean: ${best.name}, ${interval(best.summary, 4)}.`,
      `Lowest mean: ${worst.name}, ${interval(worst.summary, 4)}.`,
      `${total(({ dots }) => dots.length)} runs shown, ${total(({ dots }) => beyond(dots))} of them beyond the left edge; ` +
        `${total(({ left }) => left)} that learned nothing left out.`,
    ];
  };
  const everything = data.groups.flatMap((_, group) => data.metrics.map((_, metric) => ({ group, metric, learned: true })));
  const byName = [...data.methods].sort((one, other) => other.name.length - one.name.length);
  const longestName = { name: byName[0].name, summary: [0, 0, 0], dots: { length: 10_000 }, left: 1_000 };
  return {
    panels: [{ height, label: "Dots: every run's AUC, a row a method; below them its mean with the 95 % interval", draw }],
    text: (values) => {
      const rows = shownOf(values);
      return said(values, rows.filter((row, index) => values.methods[index] && row.summary), far(rows));
    },
    longest: everything.map((values) => said(values, [longestName], () => 100)),
  };
});
