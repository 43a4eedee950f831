// Prometheus' text format, and what two readings of it say of the time between them.

const SAMPLE = /^([A-Za-z_:][\w:]*)(?:\{(.*)\})? (\S+)/;
const LABEL = /([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"/g;

/** The samples of each name: a map of lists of `{labels, value}`. */
export function parse(text) {
  const samples = new Map();
  for (const line of text.split("\n")) {
    if (line.startsWith("#")) continue;
    const found = SAMPLE.exec(line);
    if (!found) continue;
    const [, name, list, number] = found;
    const labels = Object.fromEntries(Array.from((list ?? "").matchAll(LABEL), ([, key, value]) => [key, value]));
    const value = number === "+Inf" ? Infinity : Number(number);
    if (!samples.has(name)) samples.set(name, []);
    samples.get(name).push({ labels, value });
  }
  return samples;
}

/** The sum of a name's samples with labels that fit. */
export function sum(samples, name, fits = () => true) {
  return (samples.get(name) ?? []).filter(({ labels }) => fits(labels)).reduce((total, { value }) => total + value, 0);
}

/** Increase between two readings; a counter that has become smaller began anew. */
export function increase(before, now, name, fits) {
  const [a, b] = [sum(before, name, fits), sum(now, name, fits)];
  return b >= a ? b - a : b;
}

/** A quantile of a histogram's observations between two readings, linear within a bucket; null without any. */
export function quantile(before, now, name, q) {
  const bounds = (now.get(`${name}_bucket`) ?? []).map(({ labels, value }) => {
    const bound = labels.le === "+Inf" ? Infinity : Number(labels.le);
    const earlier = sum(before, `${name}_bucket`, (other) => other.le === labels.le);
    return { bound, count: value >= earlier ? value - earlier : value };
  });
  bounds.sort((a, b) => a.bound - b.bound);
  const total = bounds.at(-1)?.count ?? 0;
  if (total === 0) return null;
  const rank = q * total;
  let [low, below] = [0, 0];
  for (const { bound, count } of bounds) {
    if (count >= rank) {
      if (bound === Infinity) return low;
      return count === below ? bound : low + ((bound - low) * (rank - below)) / (count - below);
    }
    [low, below] = [bound, count];
  }
  return low;
}
