// The flow as a picture: what comes in, what waits, who works, what is decided.

import { columns } from "./charts.js";
import { largest, rate } from "./recent.js";
import { byId, counted, grouped, lasting, put, short, UNKNOWN } from "./text.js";

export const isRunning = (shard) => shard.state === "running";

const total = (counts) => Object.values(counts).reduce((sum, count) => sum + count, 0);

const perSecond = (value) => (value == null ? UNKNOWN : `${short(value)} / s`);

function showSources(overview, rates) {
  for (const name of ["tcp", "http"]) {
    const transport = overview.transports[name];
    const told = transport && (rates[name] ? perSecond(rates[name]) : counted(transport.connections, "connection", "connections"));
    put(`from-${name}`, told ?? UNKNOWN);
  }
  put("from-inbox", overview.inbox_waiting == null ? UNKNOWN : `${grouped(overview.inbox_waiting)} wait`);
  const others = rates.taken == null ? null : Math.max(rates.taken - (rates.tcp ?? 0) - (rates.http ?? 0), 0);
  put("from-files", perSecond(others));
}

function showLog(overview, backlog) {
  put("flow-backlog", short(backlog));
  put("flow-backlog-unit", backlog === 1 ? "entry waits" : "entries wait");
  const oldest = largest(overview.shards, "backlog_seconds");
  put("flow-age", oldest ? `the oldest for ${lasting(oldest)}` : "");
  const bars = overview.shards.map((shard) => ({ count: shard.backlog, isStopped: !isRunning(shard) }));
  byId("flow-bars").replaceChildren(...(bars.length ? [columns(bars)] : []));
}

// before, now: samples; before is undefined at first.
export function showFlow(overview, before, now) {
  const seconds = before ? (now.time - before.time) / 1000 : 0;
  const rates = {
    taken: rate(before?.taken, now.taken, seconds),
    decided: rate(before?.decided, now.decided, seconds),
    tcp: rate(before?.durable?.tcp, now.durable.tcp, seconds),
    http: rate(before?.durable?.http, now.durable.http, seconds),
  };
  const { shards } = overview;
  const sum = (name) => shards.reduce((found, shard) => found + (shard[name] ?? 0), 0);
  showSources(overview, rates);
  put("flow-in", short(rates.taken));
  put("flow-in-total", now.taken == null ? "" : `${grouped(now.taken)} valid so far`);
  const invalid = total(overview.invalid_by_reason)
    + Object.values(overview.transports).reduce((found, transport) => found + total(transport.invalid), 0);
  put("flow-invalid", invalid ? `${grouped(invalid)} invalid` : "");
  showLog(overview, now.backlog);
  const running = shards.filter(isRunning).length;
  put("flow-running", `${running} / ${shards.length}`);
  put("flow-latency", now.p50 == null ? "" : `p50 ${short(now.p50)} ms, p99 ${short(now.p99)} ms`);
  put("flow-decided", short(rates.decided));
  put("flow-applied-total", `${grouped(sum("transactions"))} applied`);
  put("flow-refused-total", `${grouped(sum("refused"))} refused`);
  byId("flow").classList.toggle("moving", (rates.taken ?? 0) + (rates.decided ?? 0) > 0);
  byId("stage-workers").classList.toggle("bad", running < shards.length);
  byId("stage-log").classList.toggle("bad", now.backlog == null);
}
