// Looks at the pipeline once a second while somebody looks at the page, and shows it.

import { ask, token } from "./api.js";
import { Chart } from "./charts.js";
import { setCaller, showDeadLetters } from "./dead.js";
import { isRunning, showFlow } from "./flow.js";
import { lookUp } from "./lookup.js";
import { Recent, sampleOf, samplesOf, SPAN_MS } from "./recent.js";
import {
  byId, bytes, clock, counted, element, facts, fillMeters, fillRows, grouped, lasting, put, UNKNOWN,
} from "./text.js";

const LOOK_MS = 1000;
const LOOK_MAX_MS = 15_000;
const PAUSE_MS = 10_000;
const LETTERS_MS = 10_000;
const REASONS_MAX = 10;

const recent = new Recent();
const charts = {
  rate: new Chart(byId("chart-rate"), "Transactions per second", SPAN_MS),
  backlog: new Chart(byId("chart-backlog"), "Backlog in entries", SPAN_MS),
  latency: new Chart(byId("chart-latency"), "Milliseconds from append to commit", SPAN_MS),
};

let caller = null;
let pipeline = null;
let waitMs = LOOK_MS;
let timer = 0;
let turn = 0; // of looking: what was asked in an earlier one is shown no more
let dead = -1;
let lettersAt = 0;

function setHealth(text, mood = "") {
  put("health", text);
  byId("health").className = `health ${mood}`;
  document.title = `${text} · hftpipe`;
}

// What stands between `…` is to be typed.
const prose = (text) => text.split("`").map((part, at) => (at % 2 ? element("code", {}, part) : part));

const note = (title, text) => element("li", { class: "note" }, element("strong", {}, title), " ", ...prose(text));

let noted = "";

function showNotes(notes) {
  const now = JSON.stringify(notes);
  if (now === noted) return;
  noted = now;
  byId("notes").replaceChildren(...notes.map(([title, text]) => note(title, text)));
}

function notesOf(overview) {
  const notes = overview.problem ? [["The log cannot be asked.", overview.problem]] : [];
  const idle = overview.shards.filter((shard) => shard.state === "stopped: no worker runs");
  if (idle.length) {
    const which = idle.length === overview.shards.length ? "" : ` for shards ${idle.map(({ shard }) => shard).join(", ")}`;
    notes.push([`No worker runs${which}.`, "What comes in is kept, and applied when one does: `hftpipe worker`"]);
  }
  for (const shard of overview.shards.filter((each) => !isRunning(each) && !idle.includes(each))) {
    const [word, ...why] = shard.state.split(": ");
    notes.push([`Shard ${shard.shard}: ${word}.`, why.join(": ")]);
  }
  return notes;
}

function showHealth(overview) {
  const { shards } = overview;
  const stopped = shards.filter((shard) => !isRunning(shard)).length;
  if (!shards.length && !overview.problem) setHealth("No pipeline yet");
  else if (stopped) setHealth(`${shards.length - stopped} of ${counted(shards.length, "shard runs", "shards run")}`, "bad");
  else if (overview.problem) setHealth("The log is not seen", "bad");
  else setHealth("All shards run", "good");
  put("pipeline", overview.pipeline ? `pipeline ${overview.pipeline}` : "");
  showNotes(notesOf(overview));
}

function showHint(overview, sample) {
  const isEmpty = sample.taken === 0 && !sample.decided && !Object.keys(overview.invalid_by_reason).length;
  byId("hint").hidden = !isEmpty;
  if (!isEmpty) return;
  const bearer = caller?.guarded ? " -H 'Authorization: Bearer hft_…'" : "";
  put("hint-commands", [
    "hftpipe ingest transactions.csv",
    "",
    `curl ${location.origin}/v1/transactions${bearer} \\`,
    "  -H 'Content-Type: application/json' \\",
    '  -d \'{"type":"deposit","account":1,"tx":1,"amount":"10.00"}\'',
  ].join("\n"));
}

function showShards(shards) {
  const ms = (value) => [value == null ? UNKNOWN : `${grouped(value)} ms`, "number"];
  const count = (value) => [grouped(value), "number"];
  fillRows(byId("shards"), shards.map((shard) => [
    [shard.shard],
    [shard.state.split(": ")[0], isRunning(shard) ? "state good" : "state bad"],
    count(shard.backlog), ms(shard.commit_p50_ms), ms(shard.commit_p99_ms),
    [shard.backlog_seconds ? lasting(shard.backlog_seconds) : UNKNOWN, "number"],
    count(shard.transactions), count(shard.refused), count(shard.dead),
    [shard.owner || "nobody", "owner"],
  ]));
}

function reasonsOf(overview) {
  const invalid = { ...overview.invalid_by_reason };
  for (const transport of Object.values(overview.transports)) {
    for (const [reason, count] of Object.entries(transport.invalid)) invalid[reason] = (invalid[reason] ?? 0) + count;
  }
  const told = (counts, kind) =>
    Object.entries(counts).map(([reason, count]) => ({ name: `${reason.replaceAll("_", " ")}, ${kind}`, count }));
  return [...told(overview.refused_by_reason, "refused"), ...told(invalid, "invalid")]
    .filter(({ count }) => count)
    .sort((one, other) => other.count - one.count)
    .slice(0, REASONS_MAX);
}

function showSides(overview) {
  const reasons = reasonsOf(overview);
  fillMeters(byId("reasons"), reasons);
  byId("reasons-none").hidden = reasons.length > 0;
  const hottest = overview.hottest.map(([account, count]) => ({ name: `account ${account}`, value: account, count }));
  fillMeters(byId("hottest"), hottest, (account) => lookUpHere("accounts", account));
  byId("hottest-none").hidden = hottest.length > 0;
  const { server } = overview;
  byId("server-none").hidden = server != null;
  byId("server").replaceChildren(...(server ? facts([
    ["Version", server.version], ["Memory", bytes(server.memory_bytes)], ["Append-only file", bytes(server.aof_bytes)],
    ["Clients", grouped(server.clients)], ["Up for", lasting(server.uptime_s)],
  ]) : []));
}

function showCharts() {
  const newest = recent.last.time;
  charts.rate.show([{ name: "decided", lines: recent.rates("decided") }, { name: "in", lines: recent.rates("taken") }], newest);
  charts.backlog.show([{ name: "entries", lines: recent.lines("backlog") }], newest);
  charts.latency.show([{ name: "p50", lines: recent.lines("p50") }, { name: "p99", lines: recent.lines("p99") }], newest);
}

function showOverview(overview) {
  byId("content").hidden = false;
  byId("main").classList.remove("stale");
  showHealth(overview);
  showHint(overview, recent.last);
  showFlow(overview, recent.beforeLast, recent.last);
  showCharts();
  showShards(overview.shards);
  showSides(overview);
  put("updated", `as of ${clock(overview.time_ms)}`);
  const letters = overview.shards.reduce((total, shard) => total + shard.dead, 0);
  if (letters !== dead || Date.now() - lettersAt > LETTERS_MS) {
    dead = letters;
    lettersAt = Date.now();
    showDeadLetters();
  }
}

function showStale(failure) {
  setHealth("No answer", "bad");
  byId("main").classList.add("stale");
  byId("flow").classList.remove("moving");
  const seen = recent.last ? ` What is shown is as of ${clock(recent.last.time)}.` : "";
  const soon = `It is asked again in ${lasting(waitMs / 1000)}.`;
  byId("content").hidden = false;
  showNotes([[`${failure.message}.`, `${seen} ${soon}`.trim()]]);
}

function askForToken(why) {
  clearTimeout(timer);
  turn += 1;
  caller = null;
  byId("content").hidden = true;
  byId("caller").hidden = true;
  byId("token-form").hidden = false;
  put("token-why", why);
  setHealth("A token is needed");
  byId("token").focus();
}

// After a pause the service knows what was missed here.
async function catchUp() {
  const told = await ask("/v1/recent");
  if (told.pipeline === pipeline || pipeline === null) recent.add(...samplesOf(told));
}

async function look() {
  clearTimeout(timer);
  if (document.hidden || !byId("token-form").hidden) return;
  turn += 1;
  const mine = turn;
  try {
    caller ??= await askWhoIAm();
    const overview = await ask("/v1/overview");
    if (mine !== turn) return;
    if (overview.pipeline !== pipeline) recent.clear();
    const isBehind = !recent.last || overview.time_ms - recent.last.time > PAUSE_MS;
    pipeline = overview.pipeline;
    recent.add(sampleOf(overview));
    if (isBehind) await catchUp();
    if (mine !== turn) return;
    waitMs = LOOK_MS;
    showOverview(overview);
  } catch (failure) {
    if (mine !== turn) return;
    if (failure.status === 401 || failure.status === 403) {
      askForToken(token.get() ? `${failure.message}.` : "This service lets in only who has a token.");
      return;
    }
    waitMs = Math.min(waitMs * 2, LOOK_MAX_MS);
    showStale(failure);
  }
  timer = setTimeout(look, waitMs);
}

async function askWhoIAm() {
  const me = await ask("/v1/me");
  byId("caller").hidden = !me.guarded;
  put("caller-name", `${me.name}, ${me.scopes.includes("admin") ? "admin" : "read only"}`);
  setCaller(me);
  dead = -1;
  return me;
}

function lookUpHere(what, id) {
  byId("lookup-what").value = what;
  byId("lookup-id").value = id;
  byId("lookup").requestSubmit();
  byId("lookup-id").focus();
}

byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token.set(byId("token").value.trim());
  byId("token").value = "";
  byId("token-form").hidden = true;
  waitMs = LOOK_MS;
  setHealth("Loading…");
  look();
});
byId("token-button").addEventListener("click", () => {
  token.forget();
  askForToken("The one from before is forgotten.");
});
byId("lookup").addEventListener("submit", (event) => {
  event.preventDefault();
  lookUp(byId("lookup-what").value, byId("lookup-id").value.trim());
});
document.addEventListener("visibilitychange", look);
look();
