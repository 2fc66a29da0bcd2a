// Task correlation p: how alike the labels are, how the models' losses fall, and how MMoE's gates part.

start("slide-p", (data) => {
  const models = data.models.map((model) => ({ ...model, colour: `var(--${model.colour})` }));

  const key = (x, y, { name, colour, dash }) => [
    drawing("line", { x1: x, x2: x + 26, y1: y - 4, y2: y - 4, stroke: colour, "stroke-width": 2, "stroke-dasharray": dash }),
    drawing("text", { x: x + 32, y }, name),
  ];
  // A curve over p with a mark at the p that is chosen.
  const overP = (title, places, series, y, heights) => (width, { p }) => {
    const { at, edge, nodes } = axes(width, 200, { title, x: [data.p[0], data.p.at(-1)], y, xLabel: "task correlation p" });
    const here = at.x(data.p[p]);
    return [
      ...nodes,
      ...lineWithBand(at, places, series),
      drawing("line", { x1: here, x2: here, y1: edge.top, y2: edge.bottom, class: "mark" }),
      drawing("circle", { cx: here, cy: at.y(heights[p]), r: 5, fill: series.colour }),
    ];
  };
  const same = (values) => ({ mean: values, low: values, high: values, colour: "var(--text)" });

  const losses = (width, { p }) => {
    const title = `Mean loss, p = ${data.p[p]}`;
    const x = [0, data.steps.at(-1) / 1000];
    const { at, edge, nodes } = axes(width, 250, { title, x, y: [0, data.top], xLabel: "thousand steps" });
    const places = data.steps.map((step) => step / 1000);
    models.forEach(({ name, colour, dash, curves }, index) => {
      nodes.push(inside(edge, lineWithBand(at, places, { ...curves[p], colour, dash })));
      nodes.push(...key(edge.right - 130, edge.top + 16 + 17 * index, { name, colour, dash }));
    });
    return nodes;
  };

  const tasks = [
    { name: "task 1", colour: "var(--first)", dash: "none" },
    { name: "task 2", colour: "var(--second)", dash: "6 3" },
  ];
  const gates = (width, { p }) => {
    const title = `MMoE's mean gate weights, p = ${data.p[p]}`;
    const count = data.gates[p][0].length;
    const { at, edge, nodes } = axes(width, 250, { title, x: [1, count], y: [0, data.gateTop], xLabel: "expert, ranked" });
    tasks.forEach(({ name, colour, dash }, task) => {
      const points = data.gates[p][task].map((weight, index) => [at.x(index + 1), at.y(weight)]);
      nodes.push(drawing("path", { d: path(points), fill: "none", stroke: colour, "stroke-width": 2, "stroke-dasharray": dash }));
      for (const [x, y] of points) {
        nodes.push(
          task === 0
            ? drawing("circle", { cx: x, cy: y, r: 4, fill: colour })
            : drawing("rect", { x: x - 4, y: y - 4, width: 8, height: 8, fill: colour }),
        );
      }
      nodes.push(...key((edge.left + edge.right) / 2 - 45, edge.top + 16 + 17 * task, { name, colour, dash }));
    });
    return nodes;
  };

  const distance = { ...data.distance, colour: "var(--mmoe)" };
  const text = ({ p }) => [
    `p = ${data.p[p]}: the labels have a correlation of ${data.correlation[p].toFixed(2)}.`,
    ...models.map(({ name, final, runs }) => `${name}: final loss ${interval(final[p], 3)} (${runs[p]} runs).`),
    `Distance of MMoE's gates: ${interval([distance.mean[p], distance.low[p], distance.high[p]], 2)}.`,
  ];
  return {
    panels: [
      { height: 250, label: "Mean loss of the three models over the steps, at the chosen p", draw: losses },
      { height: 250, label: "MMoE's mean gate weights of both tasks over the ranked experts, at the chosen p", draw: gates },
      { height: 200, label: "Correlation of the two labels against p", draw: overP("Correlation of the labels", data.closed.p, same(data.closed.correlation), [0, 1], data.correlation) },
      { height: 200, label: "Distance between the two tasks' gates against p", draw: overP("Distance of the two gates", data.p, distance, [0, data.distanceTop], distance.mean) },
    ],
    text,
    longest: data.p.map((_, p) => text({ p })),
  };
});
