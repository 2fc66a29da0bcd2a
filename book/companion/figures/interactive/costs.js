// What a layer of experts costs: parameters and multiply-adds of four models for the reader's own sizes.

// K tasks, d inputs, n experts of h units, towers with one hidden layer of t; "below" lies under all of them.
function layerCosts({ tasks: K, inputs: d, experts: n, units: h, tower: t }) {
  const towers = [K * (h * t + t), K * (t + 1)]; // weights, biases
  const cost = (weights, biases, mixing = 0) => ({
    adds: weights + towers[0] + mixing,
    parameters: weights + towers[0] + biases + towers[1],
  });
  return {
    "Single-Task": cost(K * d * h, K * h),
    "Shared-Bottom": cost(d * h, h),
    OMoE: cost(n * d * h + n * d, n * h, n * h),
    MMoE: cost(n * d * h + K * n * d, n * h, K * n * h),
  };
}

start("costs", (data) => {
  const HEIGHT = 200;
  const sizes = (values) => Object.fromEntries(Object.entries(data.levels).map(([name, levels]) => [name, levels[values[name]]]));
  const whole = (number) => String(number).replace(/\B(?=(\d{3})+$)/g, ",");
  const times = (ratio) => `${ratio.toFixed(ratio < 9.95 ? 2 : 0)} times`;

  // Lower layers are shared, and a network a task has its own.
  const found = (values) => {
    const { below, ...own } = sizes(values);
    const costs = layerCosts(own);
    return Object.entries(costs).map(([model, { adds, parameters }]) => {
      const under = model === "Single-Task" ? own.tasks * below : below;
      return { model, adds, parameters, whole: adds + under, ratio: (adds + under) / (costs["Shared-Bottom"].adds + below) };
    });
  };

  const draw = (width, values) => {
    const rows = found(values);
    const most = Math.max(...rows.map(({ ratio }) => ratio));
    const { at, edge, nodes } = axes(width, HEIGHT, {
      title: "Multiply-adds of one row, times Shared-Bottom's",
      x: [0, Math.max(2, most * 1.05)],
      y: [rows.length - 0.5, -0.5],
      xLabel: "light: what lies below; solid: this layer and the towers",
      yTicks: rows.map(({ model }, row) => [row, model]),
      left: 104,
    });
    const one = rows[1].whole;
    rows.forEach(({ model, adds, whole: all }, row) => {
      const colour = `var(--${model.toLowerCase()})`;
      const [top, height] = [at.y(row - 0.32), at.y(row + 0.32) - at.y(row - 0.32)];
      const middle = at.x((all - adds) / one);
      nodes.push(drawing("rect", { x: edge.left, y: top, width: middle - edge.left, height, fill: colour, "fill-opacity": 0.35 }));
      nodes.push(drawing("rect", { x: middle, y: top, width: at.x(all / one) - middle, height, fill: colour }));
    });
    nodes.push(drawing("line", { x1: at.x(1), x2: at.x(1), y1: edge.top, y2: edge.bottom, class: "mark" }));
    return nodes;
  };

  const text = (values) => [
    ...found(values).map(
      ({ model, adds, parameters, ratio }) =>
        `${model}: ${whole(adds)} multiply-adds in this layer and the towers, ${whole(parameters)} parameters; with what lies below ${times(ratio)} Shared-Bottom's.`,
    ),
    data.measured,
  ];
  // As wide as any: what is shown has fewer digits.
  const longest = ["Single-Task", "Shared-Bottom", "OMoE", "MMoE"].map(
    (model) =>
      `${model}: 8,888,888,888 multiply-adds in this layer and the towers, 8,888,888,888 parameters; with what lies below 88.88 times Shared-Bottom's.`,
  );
  const panel = { height: HEIGHT, label: "Multiply-adds of four models as bars, times Shared-Bottom's", wide: true, draw };
  return { panels: [panel], text, longest: [[...longest, data.measured]], above: false };
});
