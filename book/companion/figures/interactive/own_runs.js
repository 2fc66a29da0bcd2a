// "Is my difference real?": the reader's own runs, their differences with intervals, and what a rerun would show.

// A control more: a field for text.
KINDS.area = (control, id) => {
  const field = element("textarea", { id, rows: control.rows, spellcheck: "false" });
  return {
    nodes: [element("label", { for: id }, control.label), field],
    read: () => field.value,
    set: (value) => (field.value = value),
  };
};

// And one for a number, which may be left empty.
KINDS.number = (control, id) => {
  const field = element("input", { type: "number", id, min: control.min, step: control.step });
  return {
    nodes: [element("label", { for: id }, control.label), field],
    read: () => (field.value === "" ? null : Number(field.value)),
    set: (value) => (field.value = value ?? ""),
  };
};

// "name: numbers" a line, or columns with their names above, as they are copied from a table.
function readRuns(pasted) {
  const lines = pasted.split(/\r?\n/).filter((line) => line.trim());
  if (!lines.length) return [];
  const number = (text) => (text.trim() === "" ? NaN : Number(text));
  if (lines.every((line) => line.includes(":"))) {
    return lines.map((line) => {
      const end = line.lastIndexOf(":");
      return [line.slice(0, end).trim(), line.slice(end + 1).trim().split(/[,;\s]+/).map(number)];
    });
  }
  const divider = lines[0].includes("\t") ? /\t/ : /[,;]/.test(lines[0]) ? /[,;]/ : /\s+/;
  const [names, ...rows] = lines.map((line) => (divider.source === "\\t" ? line : line.trim()).split(divider));
  return names.map((name, column) => {
    const cells = rows.map((row) => row[column]);
    // A shorter column ends earlier; an empty place above its end is a run that died.
    const end = cells.findLastIndex((cell) => (cell ?? "").trim() !== "") + 1;
    return [name.trim(), cells.slice(0, end).map((cell) => number(cell ?? ""))];
  });
}

start("own-runs", (data) => {
  const HEIGHT = 240;
  const digits = (smallest) => Math.max(2, Math.ceil(-Math.log10(smallest || 0.01)) + 1);
  const say = (value, places) => value.toFixed(places).replace("-", "\u2212");

  const found = ({ runs, smallest, paired, dead }) => {
    try {
      const results = readRuns(runs);
      return { results, ...compareRuns(results, smallest ?? NaN, { paired, dead }) };
    } catch (error) {
      return { error: error.message };
    }
  };

  const draw = (width, values) => {
    const { results, methods, error } = found(values);
    if (error) return [drawing("text", { x: 0, y: 14, class: "title" }, "Nothing to draw yet")];
    const learned = results.map(([, numbers]) => numbers.filter(Number.isFinite));
    const all = learned.flat();
    const [low, high] = [Math.min(...all), Math.max(...all)];
    const room = (high - low || Math.abs(high) || 1) * 0.05;
    const yTicks = methods.map(({ method }, row) => [row, method.length > 16 ? `${method.slice(0, 15)}\u2026` : method]);
    const { at, nodes } = axes(width, HEIGHT, {
      title: "Every run, and the mean of those that did not die",
      x: [low - room, high + room],
      y: [methods.length - 0.5, -0.5],
      xLabel: "result of a run",
      yTicks,
      left: 118,
    });
    methods.forEach(({ mean: middle, outliers }, row) => {
      results[row][1].forEach((value, run) => {
        if (!Number.isFinite(value)) return;
        // In the order of the runs from top to bottom, so that equal ones do not hide each other.
        const cy = at.y(row) + ((run + 0.5) / results[row][1].length - 0.5) * 0.5 * Math.abs(at.y(1) - at.y(0));
        const dead = values.dead !== null && Math.abs(value - values.dead) <= values.smallest;
        const odd = outliers.includes(run) || dead;
        const look = odd ? { fill: "none", stroke: "var(--text)", "stroke-width": 1.5 } : { fill: "var(--focus)", "fill-opacity": 0.7 };
        nodes.push(drawing("circle", { cx: at.x(value), cy, r: 3.5, ...look }));
      });
      if (!Number.isFinite(middle)) return;
      const x = at.x(middle);
      nodes.push(drawing("line", { x1: x, x2: x, y1: at.y(row - 0.4), y2: at.y(row + 0.4), stroke: "var(--text)", "stroke-width": 2 }));
    });
    return nodes;
  };

  const words = ({ word }, smallest) =>
    ({
      [LARGER]: `larger, by ${smallest} or more`,
      [SMALLER]: `smaller, by ${smallest} or more`,
      [SAME]: `no difference of ${smallest} or more`,
      [OPEN]: `open (against ${smallest})`,
    })[word];

  const needed = (pair, runs) => {
    if (pair.word !== OPEN) return `${pair.runs_needed} runs of each were enough for that.`;
    if (!Number.isFinite(pair.runs_needed)) return "No number of runs decides: the difference is the one that matters.";
    return `About ${pair.runs_needed} runs of each decide, ${Math.max(pair.runs_needed - runs, 1)} more, if means and spreads stay.`;
  };

  const text = (values) => {
    const { results, methods, pairs, level, error } = found(values);
    if (error) return [error];
    const places = digits(values.smallest);
    const count = Object.fromEntries(methods.map(({ method, runs, died }) => [method, runs - died]));
    const lines = pairs.map((pair) => {
      const range = `${say(pair.difference, places)} [${say(pair.low, places)}, ${say(pair.high, places)}]`;
      const alone = pair.one_run_decides ? " One run decides that: leave it out and the word is another." : "";
      const runs = Math.min(count[pair.first], count[pair.second]);
      return (
        `${pair.second} minus ${pair.first}: ${range}: ${words(pair, values.smallest)}.${alone} ` +
        `As many new runs show the other order with a chance of ${percent(pair.opposite_order)}. ${needed(pair, runs)}`
      );
    });
    for (const { method, runs, died, died_low: low, died_high: high, outliers } of methods) {
      if (died) lines.push(`${method}: ${died} of ${runs} runs died (${percent(low)} to ${percent(high)}) and are not in its mean.`);
      if (outliers.length) {
        const odd = outliers.map((run) => results.find(([name]) => name === method)[1][run]).join(", ");
        lines.push(`${method}: far from its other runs: ${odd}. It stays in the mean: look at that run.`);
      }
    }
    const several = pairs.length > 1 ? ` so that all ${pairs.length} together hold with 95 %` : "";
    const lost = values.dead === null ? "" : ` Runs within ${values.smallest} of ${values.dead} count as died.`;
    lines.push(`Intervals of ${percent(level)} each${several}; ${values.paired ? "runs paired by seed" : "runs not paired"}.${lost}`);
    return lines;
  };

  const panel = { height: HEIGHT, label: "Runs of each method as dots, their mean as a line", wide: true, draw };
  return { panels: [panel], text, longest: [data.longest], above: false };
});
