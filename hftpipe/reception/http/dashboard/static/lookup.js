// An account's balance, or what became of a transaction.

import { ask } from "./api.js";
import { byId, element, facts, moment } from "./text.js";

const list = (pairs) => element("dl", { class: "facts" }, ...facts(pairs));

function account(found) {
  return [list([
    ["Account", found.account], ["Available", found.available], ["Held", found.held], ["Total", found.total],
    ["Locked", found.locked ? "yes" : "no"], ["As of entry", found.entry],
  ])];
}

function history(movements) {
  const names = ["Kind", "Account", "Outcome", "Entry", "Source", "Row"];
  const head = element("tr", {}, ...names.map((name) => element("th", { scope: "col" }, name)));
  const rows = movements.map((each) => {
    const cells = [each.kind, each.account, each.outcome, each.entry, each.source, each.row];
    return element("tr", {}, ...cells.map((value) => element("td", {}, value)));
  });
  const table = element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows));
  return element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "What named it since" }, table);
}

function transaction(found) {
  const shown = found.kind == null
    ? [element("p", {}, `No deposit or withdrawal has taken the id ${found.tx}; what named it:`)]
    : [list([
        ["Transaction", found.tx], ["Kind", found.kind], ["Account", found.account], ["Amount", found.amount],
        ["Outcome", found.outcome], ["Entry", found.entry], ["Source", found.source], ["Row", found.row],
        ["Appended", moment(found.time_ms)],
      ])];
  if (found.history.length) shown.push(history(found.history));
  if (found.has_more) shown.push(element("p", { class: "soft" }, "There are more: hftpipe show tx shows all."));
  return shown;
}

let asked = 0;

export async function lookUp(what, id) {
  const holder = byId("found");
  asked += 1;
  const turn = asked;
  let shown;
  try {
    const found = await ask(`/v1/${what}/${encodeURIComponent(id)}`);
    shown = what === "accounts" ? account(found) : transaction(found);
  } catch (failure) {
    shown = [element("p", {}, `${what === "accounts" ? "Account" : "Transaction"} ${id}: ${failure.message}.`)];
  }
  if (turn === asked) holder.replaceChildren(...shown); // else somebody has asked for another meanwhile
}
