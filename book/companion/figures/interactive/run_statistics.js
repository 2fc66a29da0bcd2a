// The statistics of `mmoe_lib.compare_runs`, for the page: same rules, same numbers. The comments there say why.

const LARGER = "larger";
const SMALLER = "smaller";
const SAME = "no difference that matters";
const OPEN = "open";
const MOST_RUNS = 1000000;
const FAR = 3.5;

// The logarithm of the gamma function: Stirling's series, after a shift to where it is exact.
function logGamma(x) {
  let shift = 0;
  for (; x < 15; x += 1) shift += Math.log(x);
  const square = 1 / (x * x);
  const series = (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square / 1680))) / x;
  return (x - 0.5) * Math.log(x) - x + 0.5 * Math.log(2 * Math.PI) + series - shift;
}

// The regularised incomplete beta function I_x(a, b), by its continued fraction (DLMF 8.17.22), evaluated after Lentz.
function betaShare(x, a, b) {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  // The fraction converges fast on this side only.
  if (x > (a + 1) / (a + b + 2)) return 1 - betaShare(1 - x, b, a);
  const front = Math.exp(a * Math.log(x) + b * Math.log1p(-x) + logGamma(a + b) - logGamma(a) - logGamma(b)) / a;
  const term = (m) => {
    const k = Math.floor(m / 2);
    return m % 2
      ? (-(a + k) * (a + b + k) * x) / ((a + 2 * k) * (a + 2 * k + 1))
      : (k * (b - k) * x) / ((a + 2 * k - 1) * (a + 2 * k));
  };
  let [value, numerator, denominator] = [1, 1, 0];
  for (let m = 1; m < 10000; m += 1) {
    denominator = 1 / (1 + term(m) * denominator || Number.MIN_VALUE);
    numerator = 1 + term(m) / numerator || Number.MIN_VALUE;
    value *= numerator * denominator;
    if (Math.abs(numerator * denominator - 1) < 1e-15) break;
  }
  return front / value;
}

// Where a rising function of [low, high] reaches a share.
function solved(rising, share, low, high) {
  for (let halving = 0; halving < 200; halving += 1) {
    const middle = (low + high) / 2;
    if (middle === low || middle === high) break;
    if (rising(middle) < share) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

// Student's distribution: the share below -t, for t from 0 on, and its upper quantile.
function tailOfStudent(t, freedom) {
  return betaShare(freedom / (freedom + t * t), freedom / 2, 0.5) / 2;
}

function studentQuantile(share, freedom) {
  let high = 1;
  while (1 - tailOfStudent(high, freedom) < share) high *= 2;
  return solved((t) => 1 - tailOfStudent(t, freedom), share, 0, high);
}

function mean(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function variance(values) {
  const middle = mean(values);
  return values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / (values.length - 1);
}

function median(values) {
  const ordered = [...values].sort((one, other) => one - other);
  return (ordered[(ordered.length - 1) >> 1] + ordered[ordered.length >> 1]) / 2;
}

function methodOf(name, values, died) {
  const learned = values.filter((_, run) => !died[run]);
  const [count, lost] = [values.length, died.filter(Boolean).length];
  const edge = (share, a, b) => solved((x) => betaShare(x, a, b), share, 0, 1);
  const middle = learned.length ? median(learned) : NaN;
  const width = median(learned.map((value) => Math.abs(value - middle)));
  const outliers = values.flatMap((value, run) =>
    !died[run] && width > 0 && 0.6745 * Math.abs(value - middle) > FAR * width ? [run] : [],
  );
  return {
    method: name,
    runs: count,
    died: lost,
    died_low: lost ? edge(0.025, lost, count - lost + 1) : 0,
    died_high: lost < count ? edge(0.975, lost + 1, count - lost) : 1,
    mean: learned.length ? mean(learned) : NaN,
    standard_deviation: learned.length > 1 ? Math.sqrt(variance(learned)) : NaN,
    outliers,
  };
}

function moments(samples) {
  const difference = mean(samples[0]) - (samples.length > 1 ? mean(samples[1]) : 0);
  return [difference, samples.map(variance), samples.map((sample) => sample.length)];
}

function errorOf(variances, counts) {
  const parts = variances.map((spread, place) => spread / counts[place]);
  const total = parts.reduce((sum, part) => sum + part, 0);
  if (total === 0) return [0, 1];
  const shares = parts.map((part, place) => (part / total) ** 2 / (counts[place] - 1));
  return [Math.sqrt(total), 1 / shares.reduce((sum, share) => sum + share, 0)];
}

function halfOf(variances, counts, level) {
  const [error, freedom] = errorOf(variances, counts);
  return error && error * studentQuantile((1 + level) / 2, freedom);
}

function wordOf(difference, half, smallest) {
  if (Math.abs(difference) >= smallest && Math.abs(difference) > half) return difference > 0 ? LARGER : SMALLER;
  return Math.abs(difference) + half < smallest ? SAME : OPEN;
}

function runsNeeded(difference, variances, smallest, level) {
  const decided = (count) =>
    wordOf(difference, halfOf(variances, variances.map(() => count), level), smallest) !== OPEN;
  let high = 2;
  while (!decided(high)) {
    high *= 2;
    if (high > MOST_RUNS) return Infinity;
  }
  let low = high / 2;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (decided(middle)) high = middle;
    else low = middle;
  }
  return high;
}

function pairOf(samples, smallest, level) {
  const [difference, variances, counts] = moments(samples);
  const [error, freedom] = errorOf(variances, counts);
  const half = halfOf(variances, counts, level);
  const word = wordOf(difference, half, smallest);
  const words = samples.flatMap((one, which) => {
    if (one.length < 3) return [];
    return [Math.min(...one), Math.max(...one)].map((value) => {
      const row = one.indexOf(value);
      const rest = samples.map((sample, place) => (place === which ? sample.filter((_, run) => run !== row) : sample));
      const [left, spreads, numbers] = moments(rest);
      return wordOf(left, halfOf(spreads, numbers, level), smallest);
    });
  });
  const opposite = error ? tailOfStudent(Math.abs(difference) / (Math.SQRT2 * error), freedom) : 0;
  return {
    difference,
    low: difference - half,
    high: difference + half,
    word,
    opposite_order: difference === 0 ? 0.5 : opposite,
    runs_needed: runsNeeded(difference, variances, smallest, level),
    one_run_decides: word !== OPEN && (!words.length || words.some((other) => other !== word)),
  };
}

// results: [name, numbers] of each method; a run that is no finite number died. Throws an Error with one line.
function compareRuns(results, smallest, { paired = false, dead = null, level = 0.95 } = {}) {
  if (!(Number.isFinite(smallest) && smallest >= 0)) throw new Error("The smallest difference that matters is a number from 0 on.");
  if (results.length < 2) throw new Error("Two methods or more are needed, with the runs of each.");
  if (paired && new Set(results.map(([, values]) => values.length)).size > 1) {
    throw new Error("Paired runs share their seeds: give as many of each method.");
  }
  const isDead = (value) => !Number.isFinite(value) || (dead !== null && Math.abs(value - dead) <= smallest);
  const died = results.map(([, values]) => values.map(isDead));
  const couples = results.flatMap((_, first) => results.slice(first + 1).map((_, after) => [first, first + 1 + after]));
  const oneLevel = 1 - (1 - level) / couples.length;
  const pairs = couples.map(([first, second]) => {
    const [[one, ours], [other, theirs]] = [results[first], results[second]];
    const learned = (which) => results[which][1].filter((_, run) => !died[which][run]);
    const both = theirs.map((value, run) => value - ours[run]).filter((_, run) => !died[first][run] && !died[second][run]);
    const samples = paired ? [both] : [learned(second), learned(first)];
    if (samples.some((sample) => sample.length < 2)) {
      throw new Error(`${one} and ${other} need two runs or more that did not die: one run has no spread.`);
    }
    return { first: one, second: other, ...pairOf(samples, smallest, oneLevel) };
  });
  return { methods: results.map(([name, values], which) => methodOf(name, values, died[which])), pairs, level: oneLevel };
}
