import { ask } from "./api.js";
import { byId, el, setText } from "./dom.js";
import { bytes, rate, span } from "./format.js";
import { now, state } from "./store.js";
import { Table } from "./table.js";
import { whileVisible } from "./watch.js";

const PAGE = 25;
const AGAIN_MS = 3000;

let table, before, after, text, asked = 0;
// Where each page begins: the last one is shown. The gateway pages and searches; this page holds one of them.
let cursors = [""];
let next = "";

export function setUpConnections() {
  table = new Table(byId("connections-table"), "Live connections", [
    { title: "Caller", fill: caller },
    { title: "Service", text: (one) => one.connection.service },
    { title: "Endpoint", text: (one) => one.connection.endpoint || "–" },
    { title: "Open for", number: true, text: (one) => span(now() - one.connection.opened_at_s) },
    { title: "Bytes", number: true, text: (one) => bytes(one.connection.bytes_received + one.connection.bytes_sent) },
    { title: "Rate", number: true, text: (one) => rate(one.connection.bytes_per_s ?? 0) },
  ]);
  before = el("button", { type: "button", "aria-label": "Previous page", onclick: () => turn(-1) }, "‹");
  after = el("button", { type: "button", "aria-label": "Next page", onclick: () => turn(1) }, "›");
  text = el("span");
  byId("connections-pager").append(text, before, after);
  let typed;
  byId("connections-search").addEventListener("input", () => {
    clearTimeout(typed);
    typed = setTimeout(() => { cursors = [""]; load(); }, 250);
  });
  whileVisible("connections", AGAIN_MS, load);
}

function turn(by) {
  if (by > 0 && next) cursors.push(next);
  else if (by < 0 && cursors.length > 1) cursors.pop();
  load();
}

async function load() {
  if (!state.head) return;
  const number = ++asked;
  const query = new URLSearchParams({ limit: PAGE, after: cursors.at(-1) });
  const search = byId("connections-search").value.trim();
  if (search) query.set("search", search);
  try {
    const page = await (await ask(`/api/connections?${query}`)).json();
    if (number !== asked) return;
    next = page.next;
    table.show(page.connections, (one) => `${one.pid} ${one.connection.number}`, search ? "None is like that." : "No connection is open.");
    setText(byId("connections-note"), page.problems.join(" "));
  } catch (error) {
    if (number === asked) setText(byId("connections-note"), `The connections could not be read: ${error.message}`);
  }
  setText(text, `page ${cursors.length}`);
  before.disabled = cursors.length === 1;
  after.disabled = !next;
}

function caller(cell, { connection }) {
  if (!cell.firstChild) cell.append(el("span", { class: "name" }), el("div", { class: "more" }));
  // A mesh gateway asks for callers of peers; while it asks for none, it is itself that is shown.
  const asking = [...new Set((connection.live_requests || []).map((one) => one.caller).filter(Boolean))];
  const own = connection.caller || connection.source.split("/svc/").at(-1);
  setText(cell.firstChild, asking.length ? `${asking.join(", ")} through ${own}` : own);
  setText(cell.lastChild, connection.client);
}
