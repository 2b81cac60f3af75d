import { ask } from "./api.js";
import { command, setCommand } from "./command.js";
import { byId, el, keyed, setText } from "./dom.js";
import { explain } from "./explain.js";
import { number, span } from "./format.js";
import { now, state } from "./store.js";
import { Pager } from "./table.js";

const OF_POLICY = new Set(["denied", "revoked"]);
let pager;

export function setUpRefused() {
  pager = new Pager(byId("refused-pager"), 8, showRefused);
  byId("refused-search").addEventListener("input", () => {
    pager.page = 0;
    showRefused();
  });
}

export function showRefused() {
  if (!state.head) return;
  const text = byId("refused-search").value.trim().toLowerCase();
  const found = state.refusals.filter((one) => !text || `${one.source} ${one.service} ${one.reason}`.toLowerCase().includes(text));
  const list = byId("refused-list");
  keyed(list, pager.slice(found), (one) => `${one.what} ${one.service} ${one.source} ${one.reason}`, card, fill);
  if (!found.length) list.replaceChildren(el("li", { class: "quiet none" }, text ? "None is like that." : "Nothing was refused."));
}

function card() {
  return el("li", {}, el("div", { class: "head" }, el("b"), el("span", { class: "pill bad" }), el("span", { class: "quiet" })),
    el("p", { class: "why" }), command(), el("p", { class: "more" }));
}

function fill(item, one) {
  const [title, reason, count] = item.firstChild.children;
  setText(title, `${one.source || "unknown caller"} → ${one.service || "no known service"}`);
  setText(reason, one.reason);
  const when = one.seen_at_s ? `, last ${span(now() - one.seen_at_s)} ago` : "";
  setText(count, `${number(one.count)} ${one.what}${one.count === 1 ? "" : "s"}${when}`);
  const known = item.dataset.now !== undefined && OF_POLICY.has(one.reason);
  setText(item.children[1], known ? (one.reason === "revoked" ? `${one.why} ${item.dataset.now}` : item.dataset.now) : `${one.why} ${one.remedy}`.trim());
  setCommand(item.children[2], known ? item.dataset.how : one.command);
  setText(item.children[3], known ? item.dataset.care : "");
  if (OF_POLICY.has(one.reason) && one.source && one.service) askHow(item, one);
}

// What to write depends on the intentions that there are, so the gateway is asked, once for each state of it.
async function askHow(item, one) {
  const asked = `${state.head.generation} ${one.count}`;
  if (item.dataset.asked === asked) return;
  item.dataset.asked = asked;
  try {
    const [method, path] = one.what === "request" ? await lastRequest(one) : [];
    const { remedies, remarks, request, sentence, verdict } = await explain(one.source, one.service, method, path);
    if (item.dataset.asked !== asked) return;
    item.dataset.how = verdict === "allowed" ? "" : (remedies[0] ?? "");
    item.dataset.care = item.dataset.how ? remarks.join(" ") : "";
    item.dataset.now = (verdict === "allowed" ? `It would be let in now: ${sentence}` : sentence) + (request ? ` It asked for ${request}.` : "");
    fill(item, one);
  } catch {
    // Then what the stream says stays: it names the command that explains.
    delete item.dataset.now;
  }
}

function named({ peer, source }) {
  const name = source.split("/svc/").at(-1);
  return peer ? `${peer}:${name}` : name;
}

async function lastRequest(one) {
  const query = new URLSearchParams({ service: one.service, allowed: "no", limit: "200" });
  const { records } = await (await ask(`/api/recent?${query}`)).json();
  const last = records.find((each) => each.method && each.reason === one.reason && named(each) === one.source);
  if (!last) throw new Error("it is forgotten what was asked for");
  return [last.method, last.path];
}
