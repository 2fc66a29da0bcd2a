// MMoE's forward pass for one row x. `weights` are those of mmoe_lib.models.MMoE, under the same names.

const sum = (values) => values.reduce((total, value) => total + value, 0);
const dot = (row, x) => sum(row.map((weight, index) => weight * x[index]));
const linear = (weight, bias, x) => weight.map((row, unit) => dot(row, x) + bias[unit]);
const relu = (values) => values.map((value) => Math.max(0, value));
const softmax = (logits) => {
  const largest = Math.max(...logits);
  const powers = logits.map((logit) => Math.exp(logit - largest));
  return powers.map((power) => power / sum(powers));
};
const parts = (values, size) =>
  Array.from({ length: values.length / size }, (_, part) => values.slice(part * size, (part + 1) * size));

function mmoe(weights, { experts, units }, x) {
  const hidden = relu(linear(weights["experts.first.weight"], weights["experts.first.bias"], x));
  const f = parts(hidden, units); // f_i(x), i = 1 .. n
  // (8)  g^k(x) = softmax(W_gk x)
  const gates = parts(weights["gates.weight"].map((row) => dot(row, x)), experts).map(softmax);
  const probabilities = gates.map((g, k) => {
    // (7)  f^k(x) = sum_i g^k(x)_i f_i(x)
    const mixed = f[0].map((_, unit) => sum(g.map((share, i) => share * f[i][unit])));
    // (6)  y_k = h_k(f^k(x))
    const tower = (part) => weights[`towers.towers.${k}.${part}`];
    const inside = relu(linear(tower("hidden.layers.0.weight"), tower("hidden.layers.0.bias"), mixed));
    const [logit] = linear(tower("output.weight"), tower("output.bias"), inside);
    return 1 / (1 + Math.exp(-logit));
  });
  return { probabilities, gates };
}

// The model's inputs for the chosen places in the lists of all changes.
function inputs(changes, chosen) {
  const x = changes.flatMap((change, index) => {
    const place = chosen[index];
    if (change.kind === "choice") return change.options.map((_, option) => (option === place ? 1 : 0));
    const value = change.log ? Math.log1p(change.values[place]) : change.values[place];
    return [Math.min(1, Math.max(0, (value - change.low) / (change.high - change.low)))];
  });
  return [...x, 1]; // the last one stands for all that stays as it is
}
