// An imaginary person: what a small MMoE says of both tasks, and which experts each task's gate reads.

start("census-person", (data) => {
  const { changes, model, sizes } = data;
  const colours = ["var(--first)", "var(--second)"];
  const chosen = (values) => changes.map(({ column }) => values[column]);
  const typical = mmoe(model, sizes, inputs(changes, changes.map((change) => change.start)));
  const now = (values) => mmoe(model, sizes, inputs(changes, chosen(values)));

  const bars = (width, values) => {
    const { probabilities } = now(values);
    const long = width - 2;
    return data.tasks.flatMap((task, k) => {
      const top = 24 + 62 * k;
      const mark = 1 + long * typical.probabilities[k];
      return [
        drawing("text", { x: 0, y: top - 8 }, `${task}: ${percent(probabilities[k])}`),
        drawing("rect", { x: 1, y: top, width: long, height: 18, fill: "var(--grid)" }),
        drawing("rect", { x: 1, y: top, width: long * probabilities[k], height: 18, fill: colours[k] }),
        drawing("line", { x1: mark, x2: mark, y1: top - 4, y2: top + 22, class: "mark" }),
      ];
    });
  };

  const gates = (width, values) => {
    const found = now(values).gates;
    const yTicks = [0, 0.5, 1].map((share) => [share, `${100 * share} %`]);
    const edge = { left: 48, right: width - 4, top: 64, bottom: 206 };
    const level = (share) => edge.bottom - (edge.bottom - edge.top) * share;
    const room = (edge.right - edge.left) / sizes.experts;
    const thick = Math.min(30, room / 2 - 6);
    const nodes = [drawing("text", { x: 0, y: 14, class: "title" }, "How much each task reads of each expert")];
    data.tasks.forEach((task, k) => {
      nodes.push(drawing("rect", { x: 0, y: 22 + 16 * k, width: 10, height: 10, fill: colours[k] }));
      nodes.push(drawing("text", { x: 16, y: 31 + 16 * k }, task));
    });
    for (const [share, text] of yTicks) {
      nodes.push(drawing("line", { x1: edge.left, x2: edge.right, y1: level(share), y2: level(share), class: "grid" }));
      nodes.push(drawing("text", { x: edge.left - 6, y: level(share) + 4, "text-anchor": "end" }, text));
    }
    for (let expert = 0; expert < sizes.experts; expert += 1) {
      const middle = edge.left + room * (expert + 0.5);
      nodes.push(drawing("text", { x: middle, y: 224, "text-anchor": "middle" }, `expert ${expert + 1}`));
      found.forEach((gate, k) => {
        const x = middle + (k === 0 ? -thick - 1 : 1);
        const y = level(gate[expert]);
        const before = level(typical.gates[k][expert]);
        nodes.push(drawing("rect", { x, y, width: thick, height: edge.bottom - y, fill: colours[k] }));
        nodes.push(drawing("line", { x1: x - 1, x2: x + thick + 1, y1: before, y2: before, class: "mark" }));
      });
    }
    return nodes;
  };

  const most = (gate) => {
    const expert = gate.indexOf(Math.max(...gate));
    return `mostly expert ${expert + 1} (${percent(gate[expert])})`;
  };
  const said = ({ probabilities, gates }, changed) => [
    ...data.tasks.map(
      (task, k) =>
        `${task}: ${percent(probabilities[k])} (typical person ${percent(typical.probabilities[k])}); its gate reads ${most(gates[k])}.`,
    ),
    changed.length ? `Changed: ${changed.map(({ label }) => label).join(", ")}.` : "Nothing changed: the typical person.",
  ];
  return {
    panels: [
      { height: 130, label: "Two bars: the predicted probability of each task; dashes mark the typical person", draw: bars },
      { height: 232, label: "Bars: the gate weights of both tasks over the experts; dashes mark the typical person", draw: gates },
    ],
    text: (values) => said(now(values), changes.filter(({ column, start }) => values[column] !== start)),
    longest: [said({ probabilities: [1, 1], gates: [[1], [1]] }, changes)],
  };
});
