// Dead letters: shown to all who may read, decided on by administrators.

import { ask } from "./api.js";
import { byId, counted, element, grouped, put } from "./text.js";

const FIELDS_MAX = 160;

let isAdmin = false;
let shown = "";

export function setCaller(caller) {
  isAdmin = caller.guarded && caller.scopes.includes("admin");
  shown = "";
  put("dead-note", isAdmin
    ? "Entries that no producer of hftpipe can have made. A retry keeps the order of every account, or is refused."
    : caller.guarded
      ? "Read only: to retry or drop one, use a token with the scope admin."
      : "Read only: the service runs without tokens. Decide with hftpipe dead, or start it with --token-file.");
  put("dead-said", "");
  byId("dead-scroll").classList.toggle("decides", isAdmin);
}

async function decide(letter, action) {
  const address = `${letter.shard}/${letter.entry}`;
  for (const button of byId("dead").querySelectorAll("button")) button.disabled = true;
  try {
    const done = await ask(`/v1/dead/${letter.shard}/${encodeURIComponent(letter.entry)}/${action}`, "POST");
    put("dead-said", action === "retry" ? `${address} was appended again as ${done.entry}.` : `${address} was dropped.`);
  } catch (failure) {
    put("dead-said", failure.message.includes(address) ? failure.message : `${address}: ${failure.message}`);
  }
  shown = "";
  await showDeadLetters();
  (byId("dead").querySelector("button") ?? byId("dead-scroll")).focus();
}

// Asks first; the dialog keeps the focus, and gives it back.
function drop(letter) {
  const dialog = byId("drop");
  put("drop-title", `Drop dead letter ${letter.shard}/${letter.entry}?`);
  byId("drop-no").onclick = () => dialog.close();
  byId("drop-yes").onclick = () => {
    dialog.close();
    decide(letter, "drop");
  };
  dialog.showModal();
  byId("drop-no").focus();
}

function button(letter, name, act) {
  const label = `${name} ${letter.shard}/${letter.entry}`;
  const made = element("button", { type: "button", class: "small", "aria-label": label }, name);
  made.addEventListener("click", () => act(letter));
  return made;
}

function rowOf(letter) {
  const named = Object.entries(letter.fields).map(([name, value]) => `${name}=${value}`).join(" ");
  const fields = named || (letter.size_bytes ? `${grouped(letter.size_bytes)} bytes: hftpipe dead show` : "none");
  const cells = [
    element("th", { scope: "row" }, element("code", {}, `${letter.shard}/${letter.entry}`)),
    element("td", { class: "why" }, letter.reason),
    element("td", { class: "why" }, element("code", {}, fields.length > FIELDS_MAX ? `${fields.slice(0, FIELDS_MAX)}…` : fields)),
  ];
  if (isAdmin) {
    const retry = button(letter, "Retry", () => decide(letter, "retry"));
    cells.push(element("td", { class: "decide" }, retry, " ", button(letter, "Drop", drop)));
  }
  return element("tr", {}, ...cells);
}

export async function showDeadLetters() {
  let told;
  try {
    told = await ask("/v1/dead");
  } catch (failure) {
    // That nobody answers, or a token is needed, is said by the overview, which is asked more often.
    if (failure.status >= 500) put("dead-faults", `Dead letters cannot be listed: ${failure.message}`);
    shown = "";
    return;
  }
  const now = JSON.stringify(told);
  if (now === shown) return; // else the focus would be lost
  shown = now;
  byId("dead").replaceChildren(...told.dead.map(rowOf));
  byId("dead-scroll").hidden = !told.count;
  const part = told.count > told.dead.length ? `, the first ${grouped(told.dead.length)} are shown` : "";
  const all = told.has_more ? `more than ${grouped(told.count)} wait` : counted(told.count, "waits", "wait");
  const none = told.faults.length ? "none in the other shards" : "none";
  put("dead-count", told.count ? `${all} for a decision${part}` : none);
  put("dead-faults", told.faults.map(({ shard, why }) => `Shard ${shard} is left out: ${why}`).join(" "));
}
