// The synthetic experiment of section 3.2 in plain JavaScript: labels, the four models, their gradients, Adam, and many
// runs side by side. One function without anything from outside, so that its text can be started in a worker and its
// code in Node, where a test compares it with mmoe_lib. Numbers are kept in single precision and computed in double.
//
// Every array of a minibatch of B rows lies unit by unit: entry [u, b] at u B + b. So the innermost loops run over rows
// that lie side by side, four at a time, which keeps four sums going at once; B is a multiple of four.

function makeEngine() {
  "use strict";
  const TASKS = 2;
  const MODELS = ["Single-Task", "Shared-Bottom", "OMoE", "MMoE"];

  // Random numbers: sfc32, started from any number of words, so that each purpose of each run has a stream of its own.

  class Random {
    constructor(...words) {
      const state = [0x9E3779B9, 0x243F6A88, 0xB7E15162, 1];
      for (const word of words) {
        for (let k = 0; k < 3; k += 1) {
          let mixed = Math.imul(state[k] ^ (word + k), 0x85EBCA6B);
          mixed = Math.imul(mixed ^ (mixed >>> 13), 0xC2B2AE35);
          state[k] = (mixed ^ (mixed >>> 16)) + state[(k + 1) % 3];
        }
      }
      [this.a, this.b, this.c, this.count] = state.map((word) => word | 0);
      for (let k = 0; k < 16; k += 1) this.uniform();
    }

    // Of [0, 1).
    uniform() {
      const sum = (((this.a + this.b) | 0) + this.count) | 0;
      this.count = (this.count + 1) | 0;
      this.a = this.b ^ (this.b >>> 9);
      this.b = (this.c + (this.c << 3)) | 0;
      this.c = (((this.c << 21) | (this.c >>> 11)) + sum) | 0;
      return (sum >>> 0) / 4294967296;
    }

    // Box and Muller: two standard normal numbers from two uniform ones.
    fillNormal(numbers) {
      for (let k = 0; k < numbers.length; k += 2) {
        const radius = Math.sqrt(-2 * Math.log(1 - this.uniform()));
        const angle = 2 * Math.PI * this.uniform();
        numbers[k] = radius * Math.cos(angle);
        if (k + 1 < numbers.length) numbers[k + 1] = radius * Math.sin(angle);
      }
      return numbers;
    }
  }

  // The task: `universe` is { c, alpha, beta, inputs }.

  // w1 = c u1,  w2 = c (p u1 + sqrt(1 - p^2) u2),  u1 and u2 orthogonal and of length 1; one after the other.
  function taskWeights(p, universe, random) {
    const d = universe.inputs;
    const drawn = random.fillNormal(new Float64Array(2 * d));
    const [u1, u2] = [drawn.subarray(0, d), drawn.subarray(d)];
    const dot = (one, other) => one.reduce((sum, value, i) => sum + value * other[i], 0);
    const unit = (vector) => vector.set(vector.map((value) => value / Math.sqrt(dot(vector, vector))));
    unit(u1);
    const along = dot(u1, u2);
    u2.set(u2.map((value, i) => value - along * u1[i]));
    unit(u2);
    const rest = Math.sqrt(1 - p * p);
    return Float64Array.from({ length: 2 * d }, (_, i) =>
      universe.c * (i < d ? u1[i] : p * u1[i - d] + rest * u2[i - d]),
    );
  }

  // w'x + sum_i sin(alpha_i w'x + beta_i)
  function signal(projection, { alpha, beta }) {
    let label = projection;
    for (let i = 0; i < alpha.length; i += 1) label += Math.sin(alpha[i] * projection + beta[i]);
    return label;
  }

  // y_k = signal(w_k'x) + sigma eps_k, of all B rows: x is (d, B), y and the normal numbers eps are (K, B).
  function labels(x, weights, universe, sigma, eps, y) {
    const d = universe.inputs;
    const rows = x.length / d;
    for (let k = 0; k < TASKS; k += 1) {
      for (let b = 0; b < rows; b += 1) {
        let projection = 0;
        for (let i = 0; i < d; i += 1) projection += weights[k * d + i] * x[i * rows + b];
        y[k * rows + b] = signal(projection, universe) + sigma * eps[k * rows + b];
      }
    }
    return y;
  }

  // The models are one network with other sizes: a layer of units, gates or none, and a tower a task that reads what
  // the gates mix or, without gates, the units themselves. Weights of a run lie in one array: the layer's (H, d) and
  // biases, the gates' (G n, d), then each tower's hidden layer (T, h), its biases, its output (T) and its bias.

  function makePlan(name, sizes) {
    const { inputs, experts, expertUnits, bottomUnits, singleUnits, towerUnits } = sizes;
    const gates = { OMoE: 1, MMoE: 2 }[name] ?? 0;
    const units = gates ? experts * expertUnits : name === "Single-Task" ? TASKS * singleUnits : bottomUnits;
    const width = gates ? expertUnits : name === "Single-Task" ? singleUnits : bottomUnits; // what a tower reads
    // Where each task's tower reads: Single-Task and MMoE have something for each task, the others one for both.
    const reads = name === "Single-Task" || name === "MMoE" ? [0, width] : [0, 0];
    const plan = { name, inputs, experts, gates, units, width, reads, towerUnits };
    let count = 0;
    const place = (size) => (count += size) - size;
    plan.layer = place(units * inputs);
    plan.layerBias = place(units);
    plan.gate = place(gates * experts * inputs);
    plan.towers = [0, 1].map(() => ({
      hidden: place(towerUnits * width),
      hiddenBias: place(towerUnits),
      output: place(towerUnits),
      outputBias: place(1),
    }));
    plan.count = count;
    return plan;
  }

  // PyTorch's rule, which mmoe_lib keeps: U(-1 / sqrt(n), 1 / sqrt(n)) for weights and biases of a layer of n inputs.
  function initialWeights(plan, random, weights) {
    const fill = (from, size, inputs) => {
      const bound = 1 / Math.sqrt(inputs);
      for (let i = from; i < from + size; i += 1) weights[i] = bound * (2 * random.uniform() - 1);
    };
    fill(plan.layer, plan.units * plan.inputs + plan.units + plan.gates * plan.experts * plan.inputs, plan.inputs);
    for (const tower of plan.towers) {
      fill(tower.hidden, plan.towerUnits * plan.width + plan.towerUnits, plan.width);
      fill(tower.output, plan.towerUnits + 1, plan.towerUnits);
    }
    return weights;
  }

  // out_u = bias_u + sum_i W_ui in_i, and its positive part where `relu`; without biases where `bias` is negative.
  function dense(out, outFrom, weights, from, bias, input, inFrom, outputs, inputs, rows, relu) {
    for (let u = 0; u < outputs; u += 1) {
      const start = bias < 0 ? 0 : weights[bias + u];
      const row = from + u * inputs;
      const to = outFrom + u * rows;
      for (let b = 0; b < rows; b += 4) {
        let s0 = start, s1 = start, s2 = start, s3 = start;
        for (let i = 0, at = inFrom + b; i < inputs; i += 1, at += rows) {
          const w = weights[row + i];
          s0 += w * input[at];
          s1 += w * input[at + 1];
          s2 += w * input[at + 2];
          s3 += w * input[at + 3];
        }
        if (relu) {
          s0 = s0 > 0 ? s0 : 0;
          s1 = s1 > 0 ? s1 : 0;
          s2 = s2 > 0 ? s2 : 0;
          s3 = s3 > 0 ? s3 : 0;
        }
        out[to + b] = s0;
        out[to + b + 1] = s1;
        out[to + b + 2] = s2;
        out[to + b + 3] = s3;
      }
    }
  }

  // dL/dW_ui = sum_b delta_ub in_ib and dL/dbias_u = sum_b delta_ub, for four inputs at once.
  function denseGradient(gradient, from, bias, delta, deltaFrom, input, inFrom, outputs, inputs, rows) {
    for (let u = 0; u < outputs; u += 1) {
      const d0 = deltaFrom + u * rows;
      const row = from + u * inputs;
      if (bias >= 0) {
        let sum = 0;
        for (let b = 0; b < rows; b += 1) sum += delta[d0 + b];
        gradient[bias + u] = sum;
      }
      let i = 0;
      for (; i + 3 < inputs; i += 4) {
        let s0 = 0, s1 = 0, s2 = 0, s3 = 0;
        const i0 = inFrom + i * rows, i1 = i0 + rows, i2 = i1 + rows, i3 = i2 + rows;
        for (let b = 0; b < rows; b += 1) {
          const e = delta[d0 + b];
          s0 += e * input[i0 + b];
          s1 += e * input[i1 + b];
          s2 += e * input[i2 + b];
          s3 += e * input[i3 + b];
        }
        gradient[row + i] = s0;
        gradient[row + i + 1] = s1;
        gradient[row + i + 2] = s2;
        gradient[row + i + 3] = s3;
      }
      for (; i < inputs; i += 1) {
        let sum = 0;
        for (let b = 0, at = inFrom + i * rows; b < rows; b += 1) sum += delta[d0 + b] * input[at + b];
        gradient[row + i] = sum;
      }
    }
  }

  // dL/din_i += sum_u W_ui delta_u
  function denseBack(back, backFrom, weights, from, delta, deltaFrom, outputs, inputs, rows) {
    for (let i = 0; i < inputs; i += 1) {
      const to = backFrom + i * rows;
      for (let b = 0; b < rows; b += 4) {
        let s0 = back[to + b], s1 = back[to + b + 1], s2 = back[to + b + 2], s3 = back[to + b + 3];
        for (let u = 0, at = deltaFrom + b; u < outputs; u += 1, at += rows) {
          const w = weights[from + u * inputs + i];
          s0 += w * delta[at];
          s1 += w * delta[at + 1];
          s2 += w * delta[at + 2];
          s3 += w * delta[at + 3];
        }
        back[to + b] = s0;
        back[to + b + 1] = s1;
        back[to + b + 2] = s2;
        back[to + b + 3] = s3;
      }
    }
  }

  // delta_u = 0 where the positive part has cut the unit off
  function cut(delta, units) {
    for (let i = 0; i < delta.length; i += 1) if (!(units[i] > 0)) delta[i] = 0;
  }

  // Forward and backward of one model on minibatches of `rows` rows, with room for what lies between.
  class Network {
    constructor(plan, rows) {
      const room = (units) => new Float32Array(units * rows);
      Object.assign(this, { plan, rows });
      this.units = room(plan.units);
      this.unitsDelta = room(plan.units);
      this.gates = room(plan.gates * plan.experts);
      this.gatesDelta = room(plan.gates * plan.experts);
      this.mixed = plan.gates ? room(plan.gates * plan.width) : this.units;
      this.mixedDelta = plan.gates ? room(plan.gates * plan.width) : this.unitsDelta;
      this.hidden = room(TASKS * plan.towerUnits);
      this.hiddenDelta = room(TASKS * plan.towerUnits);
      this.outputs = room(TASKS);
      this.outputsDelta = room(TASKS);
    }

    // x (d, B) to outputs (K, B)
    forward(weights, x) {
      const { plan, rows } = this;
      dense(this.units, 0, weights, plan.layer, plan.layerBias, x, 0, plan.units, plan.inputs, rows, true);
      if (plan.gates) {
        dense(this.gates, 0, weights, plan.gate, -1, x, 0, plan.gates * plan.experts, plan.inputs, rows, false);
        for (let k = 0; k < plan.gates; k += 1) {
          this.softmax(k);
          this.mix(k);
        }
      }
      plan.towers.forEach((tower, k) => {
        const [read, own] = [plan.reads[k] * rows, k * plan.towerUnits * rows];
        dense(this.hidden, own, weights, tower.hidden, tower.hiddenBias, this.mixed, read, plan.towerUnits, plan.width, rows, true);
        dense(this.outputs, k * rows, weights, tower.output, tower.outputBias, this.hidden, own, 1, plan.towerUnits, rows, false);
      });
      return this.outputs;
    }

    // (8)  g^k(x) = softmax(W_gk x)
    softmax(k) {
      const { gates, rows } = this;
      const from = k * this.plan.experts * rows;
      const to = from + this.plan.experts * rows;
      for (let b = 0; b < rows; b += 1) {
        let most = -Infinity, sum = 0;
        for (let at = from + b; at < to; at += rows) if (gates[at] > most) most = gates[at];
        for (let at = from + b; at < to; at += rows) sum += gates[at] = Math.exp(gates[at] - most);
        const share = 1 / sum;
        for (let at = from + b; at < to; at += rows) gates[at] *= share;
      }
    }

    // (7)  f^k(x) = sum_i g^k(x)_i f_i(x)
    mix(k) {
      const { gates, units, mixed, rows } = this;
      const { experts, width } = this.plan;
      for (let u = 0; u < width; u += 1) {
        const to = (k * width + u) * rows;
        for (let b = 0; b < rows; b += 1) {
          let sum = 0;
          for (let i = 0; i < experts; i += 1) {
            sum += gates[(k * experts + i) * rows + b] * units[(i * width + u) * rows + b];
          }
          mixed[to + b] = sum;
        }
      }
    }

    // After `forward` on the same weights and x: L_k = mean_b (y^_kb - y_kb)^2 and the gradient of L_1 + L_2.
    backward(weights, x, y, gradient, losses) {
      const { plan, rows } = this;
      for (let k = 0; k < TASKS; k += 1) {
        let sum = 0;
        for (let b = k * rows; b < (k + 1) * rows; b += 1) {
          const error = this.outputs[b] - y[b];
          sum += error * error;
          this.outputsDelta[b] = (2 / rows) * error;
        }
        losses[k] = sum / rows;
      }
      this.hiddenDelta.fill(0);
      this.mixedDelta.fill(0);
      plan.towers.forEach((tower, k) => {
        const own = k * plan.towerUnits * rows;
        denseGradient(gradient, tower.output, tower.outputBias, this.outputsDelta, k * rows, this.hidden, own, 1, plan.towerUnits, rows);
        denseBack(this.hiddenDelta, own, weights, tower.output, this.outputsDelta, k * rows, 1, plan.towerUnits, rows);
      });
      cut(this.hiddenDelta, this.hidden);
      plan.towers.forEach((tower, k) => {
        const [read, own] = [plan.reads[k] * rows, k * plan.towerUnits * rows];
        denseGradient(gradient, tower.hidden, tower.hiddenBias, this.hiddenDelta, own, this.mixed, read, plan.towerUnits, plan.width, rows);
        denseBack(this.mixedDelta, read, weights, tower.hidden, this.hiddenDelta, own, plan.towerUnits, plan.width, rows);
      });
      if (plan.gates) {
        this.unitsDelta.fill(0);
        for (let k = 0; k < plan.gates; k += 1) this.unmix(k);
        denseGradient(gradient, plan.gate, -1, this.gatesDelta, 0, x, 0, plan.gates * plan.experts, plan.inputs, rows);
      }
      cut(this.unitsDelta, this.units);
      denseGradient(gradient, plan.layer, plan.layerBias, this.unitsDelta, 0, x, 0, plan.units, plan.inputs, rows);
      return losses;
    }

    // With e = dL/df^k:  dL/df_i += g_i e,  dL/dg_i = e'f_i,  dL/ds_i = g_i (dL/dg_i - sum_j g_j dL/dg_j), s = W_gk x.
    unmix(k) {
      const { gates, gatesDelta, units, unitsDelta, mixedDelta, rows } = this;
      const { experts, width } = this.plan;
      const first = k * experts * rows;
      for (let i = 0; i < experts; i += 1) {
        const own = first + i * rows;
        for (let b = 0; b < rows; b += 1) {
          const share = gates[own + b];
          let sum = 0;
          for (let u = 0; u < width; u += 1) {
            const at = (i * width + u) * rows + b;
            const e = mixedDelta[(k * width + u) * rows + b];
            unitsDelta[at] += share * e;
            sum += e * units[at];
          }
          gatesDelta[own + b] = sum;
        }
      }
      const end = first + experts * rows;
      for (let b = 0; b < rows; b += 1) {
        let mean = 0;
        for (let at = first + b; at < end; at += rows) mean += gates[at] * gatesDelta[at];
        for (let at = first + b; at < end; at += rows) gatesDelta[at] = gates[at] * (gatesDelta[at] - mean);
      }
    }
  }

  // Step t = 1, 2, ... of Adam (Kingma and Ba, 2015, algorithm 1) with PyTorch's defaults, in place.
  function adam(weights, gradient, mean, square, rate, t) {
    const step = rate / (1 - 0.9 ** t);
    const correction = 1 / Math.sqrt(1 - 0.999 ** t);
    for (let i = 0; i < weights.length; i += 1) {
      // m <- beta1 m + (1 - beta1) g;   v <- beta2 v + (1 - beta2) g^2
      const g = gradient[i];
      const m = (mean[i] += 0.1 * (g - mean[i]));
      const v = (square[i] = 0.999 * square[i] + 0.001 * g * g);
      // theta <- theta - rate (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)
      weights[i] -= (step * m) / (Math.sqrt(v) * correction + 1e-8);
    }
  }

  // Many runs. A seed is a task, a stream of minibatches and a start of each model: its models see the same rows.
  // `settings`: universe, sizes, models, p, sigma (of the noise), rate, rows of a minibatch, testRows.
  class Lab {
    constructor(settings, seeds) {
      const { universe, sizes, models, p, rows, testRows } = settings;
      this.settings = settings;
      this.step = 0;
      this.plans = models.map((name) => makePlan(name, sizes));
      this.networks = this.plans.map((plan) => new Network(plan, rows));
      this.testers = this.plans.map((plan) => new Network(plan, testRows));
      this.gradients = this.plans.map((plan) => new Float32Array(plan.count));
      this.x = new Float32Array(universe.inputs * rows);
      this.y = new Float32Array(TASKS * rows);
      this.eps = new Float32Array(TASKS * rows);
      this.weights = new Float32Array(seeds.length * this.plans.reduce((sum, { count }) => sum + count, 0));
      this.losses = new Float32Array(seeds.length * models.length * TASKS); // on test rows, by seed, model and task
      let from = 0;
      this.seeds = seeds.map((seed) => {
        const task = taskWeights(p, universe, new Random(seed, 1));
        const test = new Random(seed, 4);
        const testX = test.fillNormal(new Float32Array(universe.inputs * testRows));
        const eps = test.fillNormal(new Float32Array(TASKS * testRows));
        const testY = labels(testX, task, universe, settings.sigma, eps, new Float32Array(TASKS * testRows));
        const runs = this.plans.map((plan) => {
          const start = new Random(seed, 3, MODELS.indexOf(plan.name)); // alike whatever models are trained beside it
          const weights = initialWeights(plan, start, this.weights.subarray(from, (from += plan.count)));
          return { weights, mean: new Float32Array(plan.count), square: new Float32Array(plan.count) };
        });
        return { task, stream: new Random(seed, 2), testX, testY, runs };
      });
    }

    // Moves every run by so many steps.
    advance(steps) {
      const { universe, sigma, rate } = this.settings;
      const trainingLosses = [0, 0];
      for (let done = 0; done < steps; done += 1) {
        this.step += 1;
        for (const { task, stream, runs } of this.seeds) {
          stream.fillNormal(this.x);
          stream.fillNormal(this.eps);
          labels(this.x, task, universe, sigma, this.eps, this.y);
          for (let j = 0; j < runs.length; j += 1) {
            const { weights, mean, square } = runs[j];
            this.networks[j].forward(weights, this.x);
            this.networks[j].backward(weights, this.x, this.y, this.gradients[j], trainingLosses);
            adam(weights, this.gradients[j], mean, square, rate, this.step);
          }
        }
      }
    }

    // Where all runs stand: losses on the test rows, and a copy of all weights, for the way back through the steps.
    look() {
      this.seeds.forEach(({ testX, testY, runs }, s) => {
        runs.forEach(({ weights }, j) => {
          const outputs = this.testers[j].forward(weights, testX);
          const rows = this.settings.testRows;
          for (let k = 0; k < TASKS; k += 1) {
            let sum = 0;
            for (let b = k * rows; b < (k + 1) * rows; b += 1) sum += (outputs[b] - testY[b]) ** 2;
            this.losses[(s * runs.length + j) * TASKS + k] = sum / rows;
          }
        });
      });
      return { step: this.step, losses: this.losses.slice(), weights: this.weights.slice() };
    }
  }

  // What a run has learned, from its weights: at `places` along u_k = w_k / c, in standard deviations of w_k'x / c, the
  // mean output of task k over random rows there; and the mean gate weights (G, n) over rows anywhere.
  class Probe {
    constructor(settings, seed, places, rowsEach = 8) {
      const { universe, p } = settings;
      Object.assign(this, { settings, places, rowsEach });
      const [d, rows] = [universe.inputs, places.length * rowsEach];
      this.task = taskWeights(p, universe, new Random(seed, 1));
      const random = new Random(seed, 5);
      this.anywhere = random.fillNormal(new Float32Array(d * rows));
      this.along = [0, 1].map((k) => {
        const x = random.fillNormal(new Float32Array(d * rows));
        const u = this.task.subarray(k * d, (k + 1) * d).map((value) => value / universe.c);
        for (let b = 0; b < rows; b += 1) {
          // x <- x + (z - u'x) u
          let projection = 0;
          for (let i = 0; i < d; i += 1) projection += u[i] * x[i * rows + b];
          const missing = places[b % places.length] - projection;
          for (let i = 0; i < d; i += 1) x[i * rows + b] += missing * u[i];
        }
        return x;
      });
      this.truth = places.map((place) => signal(universe.c * place, universe));
      this.networks = new Map();
    }

    look(name, weights) {
      const count = this.places.length;
      if (!this.networks.has(name)) {
        this.networks.set(name, new Network(makePlan(name, this.settings.sizes), count * this.rowsEach));
      }
      const network = this.networks.get(name);
      const { plan } = network;
      const learned = this.along.map((x, k) => {
        const outputs = network.forward(weights, x).subarray(k * network.rows, (k + 1) * network.rows);
        const means = new Float64Array(count);
        outputs.forEach((output, b) => (means[b % count] += output / this.rowsEach));
        return Array.from(means);
      });
      network.forward(weights, this.anywhere);
      const gates = Array.from({ length: plan.gates }, (_, k) =>
        Array.from({ length: plan.experts }, (_, i) => {
          const from = (k * plan.experts + i) * network.rows;
          return network.gates.subarray(from, from + network.rows).reduce((sum, g) => sum + g, 0) / network.rows;
        }),
      );
      return { learned, gates };
    }
  }

  return { TASKS, MODELS, Random, taskWeights, signal, labels, makePlan, initialWeights, Network, adam, Lab, Probe };
}
