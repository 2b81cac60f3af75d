import { byId, el, keyed, setText, svg } from "./dom.js";
import { each, number, rate, seconds, span } from "./format.js";
import { now, state, trafficOf } from "./store.js";
import { Pager, Table } from "./table.js";

const PAGE = 25;
const SHORT_S = 6 * 3600;
// Consul's leaves live for 72 hours unless the CA says otherwise.
const WHOLE_S = 72 * 3600;
const ROUND = 2 * Math.PI * 7;

let table, pager;

export function setUpServices() {
  pager = new Pager(byId("services-pager"), PAGE, showServices);
  table = new Table(byId("services-table"), "Linked services", [
    { title: "Service", fill: name },
    { title: "State", fill: stateOf },
    { title: "Endpoints", kind: "wider", fill: endpoints },
    { title: "Leaf", fill: leaf },
    { title: "Open", number: true, text: (one) => (open(one) ? number(open(one)) : "–") },
    { title: "To service", number: true, text: (one) => rate(trafficOf(one.name).received) },
    { title: "From service", number: true, text: (one) => rate(trafficOf(one.name).sent) },
    { title: "Requests", number: true, text: requests },
    { title: "p50 / p95 at most", number: true, text: latency },
  ]);
  for (const id of ["services-search", "services-filter", "services-order"]) {
    byId(id).addEventListener("input", () => {
      pager.page = 0;
      showServices();
    });
  }
}

const open = (one) => trafficOf(one.name).open;
const volume = (one) => trafficOf(one.name).received + trafficOf(one.name).sent;
const troubled = (one) => !one.served || one.reasons.length > 0 || one.warnings.length > 0 || one.endpoints.some((each) => !each.healthy);

const ORDERS = {
  name: (a, b) => (a.name < b.name ? -1 : 1),
  rate: (a, b) => volume(b) - volume(a) || ORDERS.name(a, b),
  open: (a, b) => open(b) - open(a) || ORDERS.name(a, b),
  leaf: (a, b) => (a.leaf_expires_at_s || Infinity) - (b.leaf_expires_at_s || Infinity) || ORDERS.name(a, b),
};

export function showServices() {
  if (!state.head) return;
  const text = byId("services-search").value.trim().toLowerCase();
  const filter = byId("services-filter").value;
  const found = [...state.services.values()].filter((one) =>
    (!text || one.name.toLowerCase().includes(text) || one.endpoints.some((each) => each.address.includes(text) || each.hostname.includes(text)))
    && (filter !== "problems" || troubled(one))
    && (filter !== "busy" || open(one) > 0 || volume(one) > 0));
  found.sort(ORDERS[byId("services-order").value]);
  table.show(pager.slice(found), (one) => one.name, state.services.size ? "No service is like that." : "No service is linked yet: consul-tgw link SERVICE ADDRESS:PORT brings one in.");
}

function name(cell, one) {
  if (!cell.firstChild) cell.append(el("span", { class: "name" }), el("span", { class: "tag" }), el("div"));
  setText(cell.children[0], one.name);
  setText(cell.children[1], `${one.protocol || "tcp"}${one.upstream_tls ? " over TLS" : ""}${one.from_wildcard ? " · *" : ""}`);
  const said = [...one.reasons.map((text) => ({ text, soft: false })), ...one.warnings.map((text) => ({ text, soft: true }))];
  keyed(cell.children[2], said, ({ text }) => text, () => el("span"), (item, { text, soft }) => {
    item.className = soft ? "said soft" : "said";
    setText(item, `${soft ? "△" : "✕"} ${text}`);
  });
}

function stateOf(cell, one) {
  if (!cell.firstChild) cell.append(el("span"));
  let kind = "good", text = "✓ served";
  if (!one.served) [kind, text] = ["bad", "✕ not served"];
  else if (one.reasons.length) [kind, text] = ["warn", "△ earlier state"];
  else if (one.intentions === null) [kind, text] = ["warn", "△ policy not known"];
  cell.firstChild.className = `pill ${kind}`;
  setText(cell.firstChild, text);
}

function endpoints(cell, one) {
  const healthy = one.endpoints.filter((each) => each.healthy).length;
  if (!cell.firstChild) cell.append(el("span"), el("div", { class: "more" }));
  setText(cell.firstChild, one.endpoints.length ? `${healthy} of ${one.endpoints.length} healthy` : "none");
  cell.firstChild.className = one.endpoints.length && healthy === one.endpoints.length ? "" : "pill warn";
  const shown = one.endpoints.slice(0, 3).map((each) => `${each.hostname || each.address}${each.healthy ? "" : " (critical)"}`);
  if (one.endpoints.length > 3) shown.push(`and ${one.endpoints.length - 3} more`);
  if (one.dials.failures) shown.push(`${number(one.dials.failures)} failed dials`);
  setText(cell.lastChild, shown.join(", "));
}

function leaf(cell, one) {
  const left = one.leaf_expires_at_s - now();
  if (!cell.firstChild) {
    const ring = svg("svg", { class: "ring", viewBox: "0 0 20 20", "aria-hidden": "true" },
      svg("circle", { cx: 10, cy: 10, r: 7 }), svg("circle", { cx: 10, cy: 10, r: 7, transform: "rotate(-90 10 10)" }));
    cell.append(el("span", { class: "leaf" }, ring, el("span")));
  }
  const [ring, text] = cell.firstChild.children;
  const share = one.leaf_expires_at_s ? Math.max(0, Math.min(1, left / WHOLE_S)) : 0;
  ring.lastChild.setAttribute("stroke-dasharray", `${(share * ROUND).toFixed(1)} ${ROUND.toFixed(1)}`);
  ring.setAttribute("class", `ring ${left < SHORT_S / 6 ? "bad" : left < SHORT_S ? "warn" : ""}`);
  setText(text, one.leaf_expires_at_s ? (left > 0 ? span(left) : "expired") : "none yet");
}

function requests(one) {
  const { requests: all, errors } = trafficOf(one.name);
  return errors > 0 ? `${each(all)}, ${each(errors)} failed` : each(all);
}

function latency(one) {
  const { p50, p95 } = trafficOf(one.name);
  return p95 > 0 ? `${seconds(p50)} / ${seconds(p95)}` : "–";
}
