import { byId, el, keyed, setText } from "./dom.js";
import { clock, each, number, rate, span } from "./format.js";
import { isStale, now, silence, state } from "./store.js";

const AGED_S = 120;

export function showHeader() {
  const { head } = state;
  if (!head) return;
  setText(byId("gateway"), head.service);
  setText(byId("where"), `${head.address} · ${head.datacenter || "datacenter not known"} · default ${head.default_action || "not known"}`);
  document.title = `${head.service}: ${isStale() ? "stale" : head.phase}`;
  lamps(head);
  tiles(head);
  setText(byId("foot"), `consul-tgw ${head.version} · Consul ${head.consul_version || "version not known"} · state ${number(head.generation)} · up ${span(now() - head.started_at_s)}`);
}

export function showStale() {
  const stale = state.head !== null && isStale();
  document.body.classList.toggle("stale", stale);
  const said = [];
  if (stale) {
    // A moment, not a span: what counts up would be read aloud every second.
    said.push(`These data are stale: nothing heard from the gateway since ${clock(now() - silence())}.${state.problem ? ` ${state.problem}` : ""}`);
  } else if (state.head) {
    const { head } = state;
    if (head.too_old) said.push("The state is too old: new connections are denied.");
    if (head.consul_away) said.push(`Consul is away, the last known state is in force: ${head.consul_away}`);
    else if (head.restored_from_s) said.push("A saved state is in force that Consul has not confirmed yet.");
    if (!head.ready) said.push(...head.not_ready);
  } else if (state.problem) said.push(state.problem);
  const banner = byId("banner");
  banner.hidden = said.length === 0;
  setText(banner, said.join(" "));
  if (state.head) lamps(state.head);
}

function lamps(head) {
  const age = head.state_age_s === null ? null : head.state_age_s + silence();
  const shown = [
    { key: "stream", kind: isStale() ? "bad" : "good", text: isStale() ? `✕ stale for ${span(silence())}` : "● live" },
    { key: "phase", kind: head.phase === "serving" ? "good" : "warn", text: `phase: ${head.phase}` },
    { key: "ready", kind: head.ready ? "good" : "bad", text: head.ready ? "✓ ready" : "✕ not ready" },
    consul(head, age),
    workers(head),
  ];
  keyed(byId("lamps"), shown, (one) => one.key, (one) => el("li", { id: `lamp-${one.key}` }), (item, one) => {
    const wanted = `lamp ${one.kind}`;
    if (item.className !== wanted) item.className = wanted;
    setText(item, one.text);
  });
}

function consul(head, age) {
  if (head.consul_away) return { key: "consul", kind: "bad", text: `✕ Consul away, state ${age === null ? "not known" : `${span(age)} old`}` };
  if (age === null) return { key: "consul", kind: "warn", text: "Consul: nothing known yet" };
  return { key: "consul", kind: age > AGED_S ? "warn" : "good", text: `Consul: confirmed ${span(age)} ago` };
}

function workers(head) {
  const serving = head.workers.filter((one) => !one.draining);
  const well = serving.filter((one) => one.connected && one.generation === head.generation).length;
  const draining = head.workers.length - serving.length;
  const text = `workers: ${well} of ${serving.length} up to date${draining ? `, ${draining} draining` : ""}`;
  return { key: "workers", kind: well === serving.length && well ? "good" : "warn", text };
}

function tiles(head) {
  let received = 0, sent = 0, requests = 0;
  for (const one of state.traffic.values()) {
    received += one.received;
    sent += one.sent;
    requests += one.requests;
  }
  const served = [...state.services.values()].filter((one) => one.served).length;
  const shown = [
    ["Services served", `${number(served)} of ${number(state.services.size)}`],
    ["Open connections", number(head.open_connections)],
    ["To services", rate(received)],
    ["From services", rate(sent)],
    ["Requests", each(requests)],
    ["Refused", each(head.refused_per_s)],
  ];
  keyed(byId("tiles"), shown, ([title]) => title, ([title]) => el("div", {}, el("dt", {}, title), el("dd")), (tile, [, text]) => setText(tile.lastChild, text));
}
