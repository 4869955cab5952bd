// What was seen in the last minutes: totals as they were told, and rates made of them.

export const SPAN_MS = 5 * 60 * 1000;

const PAUSE_MS = 12_000; // between two samples so far apart nobody looked

const sum = (shards, name) => shards.reduce((total, shard) => total + (shard[name] ?? 0), 0);

const known = (shards, name) => shards.map((shard) => shard[name]).filter((value) => value != null);

export function largest(shards, name) {
  const values = known(shards, name);
  return values.length ? Math.max(...values) : null;
}

// One sample: the time, and what was so far.
export function sampleOf(overview) {
  const { shards } = overview;
  const transports = Object.entries(overview.transports);
  return {
    time: overview.time_ms,
    taken: overview.transactions_in,
    decided: shards.every((shard) => shard.transactions != null) ? sum(shards, "transactions") + sum(shards, "refused") : null,
    backlog: known(shards, "backlog").length ? sum(shards, "backlog") : null,
    p50: largest(shards, "commit_p50_ms"),
    p99: largest(shards, "commit_p99_ms"),
    durable: Object.fromEntries(transports.map(([name, { answered }]) => [name, answered.durable ?? 0])),
  };
}

export function samplesOf(recent) {
  return recent.time_ms.map((time, at) => ({
    time,
    taken: recent.transactions_in[at],
    decided: recent.decided[at],
    backlog: recent.backlog[at],
    p50: recent.commit_p50_ms[at],
    p99: recent.commit_p99_ms[at],
  }));
}

// Per second; null where that cannot be said, and never negative, whatever began anew meanwhile.
export function rate(before, after, seconds) {
  return before == null || after == null || seconds <= 0 ? null : Math.max(after - before, 0) / seconds;
}

export class Recent {
  #samples = [];

  get last() {
    return this.#samples.at(-1);
  }

  get beforeLast() {
    return this.#samples.at(-2);
  }

  clear() {
    this.#samples = [];
  }

  // Samples in any order; of one moment, one is kept.
  add(...samples) {
    const byTime = new Map(this.#samples.map((sample) => [sample.time, sample]));
    for (const sample of samples) byTime.set(sample.time, { ...sample, ...byTime.get(sample.time) });
    const sorted = [...byTime.values()].sort((one, other) => one.time - other.time);
    const newest = sorted.at(-1)?.time ?? 0;
    this.#samples = sorted.filter(({ time }) => time >= newest - SPAN_MS);
  }

  // Lines, as lists of points [time, value]: one for each stretch without a pause.
  lines(name) {
    return this.#stretches((_, { time, [name]: value }) => (value == null ? null : [time, value]));
  }

  rates(name) {
    return this.#stretches((before, after) => {
      const value = before && rate(before[name], after[name], (after.time - before.time) / 1000);
      return value == null ? null : [after.time, value];
    });
  }

  #stretches(pointOf) {
    const lines = [[]];
    let before = null;
    for (const sample of this.#samples) {
      if (before && sample.time - before.time > PAUSE_MS) {
        lines.push([]);
        before = null;
      }
      const point = pointOf(before, sample);
      if (point) lines.at(-1).push(point);
      else if (lines.at(-1).length) lines.push([]);
      before = sample;
    }
    return lines.filter((line) => line.length);
  }
}
