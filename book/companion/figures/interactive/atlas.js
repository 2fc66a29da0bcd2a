// The atlas of task pairs: every pair's effect over what is known of it, and one pair that the reader picks.

start("atlas", (data) => {
  const HEIGHT = 320;
  const points = ([mean, low, high]) => interval([mean, low, high], 2).replaceAll("-", "\u2212");
  const ordered = data.effects.map(({ values }) =>
    values.map((_, pair) => pair).sort((one, other) => values[one][0] - values[other][0]),
  );

  const draw = (width, { effect, x, place }) => {
    const { values, name } = data.effects[effect];
    const feature = data.features[x];
    const [low, high] = [Math.min(...feature.values), Math.max(...feature.values)];
    const room = (high - low || 1) * 0.05;
    // The axis is cut where a few long intervals would press all others together.
    const reach = Math.min(data.reach, Math.max(...values.flatMap(([mean]) => Math.abs(mean))) * 1.15);
    const { at, edge, nodes } = axes(width, HEIGHT, {
      title: `${name}, AUC points`,
      x: [low - room, high + room],
      y: [-reach, reach],
      xLabel: feature.name,
      left: 48,
    });
    nodes.push(
      drawing("rect", {
        x: edge.left,
        width: edge.right - edge.left,
        y: at.y(data.matters),
        height: at.y(-data.matters) - at.y(data.matters),
        fill: "var(--grid)",
      }),
    );
    const chosen = ordered[effect][place];
    const marks = values.flatMap(([mean, from, to], pair) => {
      const cx = at.x(feature.values[pair]);
      const picked = pair === chosen;
      const colour = picked ? "var(--shared-bottom)" : "var(--omoe)";
      return [
        drawing("line", { x1: cx, x2: cx, y1: at.y(from), y2: at.y(to), stroke: colour, "stroke-opacity": picked ? 1 : 0.35 }),
        drawing("circle", { cx, cy: at.y(mean), r: picked ? 6 : 3.5, fill: colour, "fill-opacity": picked ? 1 : 0.8 }),
      ];
    });
    // The picked pair is drawn last, above the others.
    const last = marks.splice(2 * chosen, 2);
    nodes.push(inside(edge, [...marks, ...last]));
    return nodes;
  };

  const text = ({ effect, place }) => {
    const pair = ordered[effect][place];
    const { targets, shares, correlation } = data.pairs[pair];
    return [
      `Pair ${place + 1} of ${data.pairs.length} by this effect: \u201c${targets[0]}\u201d (${percent(shares[0])} yes) and ` +
        `\u201c${targets[1]}\u201d (${percent(shares[1])} yes), label correlation ${correlation.toFixed(2).replace("-", "\u2212")}.`,
      data.effects.map(({ name, values }) => `${name}: ${points(values[pair])}`).join("; ") + ".",
    ];
  };

  const longest = data.pairs.map((_, place) => text({ effect: 0, place }));
  const panel = { height: HEIGHT, label: "A dot and an interval a pair of tasks, over what is known of it", wide: true, draw };
  return { panels: [panel], text, longest };
});
