import { byId, setText, svg } from "./dom.js";
import { each, rate } from "./format.js";
import { state, trafficOf } from "./store.js";

// The greatest few of each side; the table has them all.
const MOST = 14;
const WIDTH = 1100, ROW = 34, TOP = 34, BOX = 250;

export function showFlow() {
  const shown = chosen();
  const rows = Math.max(shown.sources.length, shown.services.length, 1);
  const height = TOP + rows * ROW + 8;
  const narrow = byId("flow-picture").clientWidth < 600;
  const width = narrow ? 400 : WIDTH, box = narrow ? 130 : BOX;
  const gate = { left: width / 2 - (narrow ? 22 : 38), right: width / 2 + (narrow ? 22 : 38) };
  const place = (list) => new Map(list.map((name, i) => [name, TOP + (i + 0.5) * ((height - TOP - 8) / list.length)]));
  const left = place(shown.sources), right = place(shown.services);
  const lines = [], most = Math.max(1, ...shown.flows.map((one) => one.rate));
  const middle = (y) => (height + TOP - 8) / 2 + (y - (height + TOP - 8) / 2) * 0.8;
  for (const one of shown.flows) {
    const a = left.get(one.source), b = right.get(one.service);
    const kind = one.refusing > 0 || (!one.open && !one.rate) ? "denied" : one.rate > 0 ? "allowed" : "idle";
    const thick = one.rate > 0 ? 2 + 13 * Math.sqrt(one.rate / most) : 2;
    const said = `${one.source} to ${one.service}: ${kind === "denied" ? `refused ${one.refused} times, ${each(one.refusing)}` : kind === "idle" ? "at rest" : rate(one.rate)}, ${one.open} open`;
    lines.push(curve(box, a, gate.left, middle(a), kind, thick, said));
    if (kind !== "denied") lines.push(curve(gate.right, middle(b), width - box, b, kind, thick, said), across(gate, middle(a), middle(b), kind, thick));
  }
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": summary(shown) },
    svg("text", { x: 0, y: 16, class: "column" }, "IN THE MESH"), svg("text", { x: width / 2, y: 16, class: "column", "text-anchor": "middle" }, "GATEWAY"),
    svg("text", { x: width, y: 16, class: "column", "text-anchor": "end" }, "OUTSIDE"),
    svg("rect", { class: "gate", x: gate.left, y: TOP - 8, width: gate.right - gate.left, height: height - TOP + 8, rx: 8 }), ...lines);
  for (const [name, y] of left) picture.append(...node(0, y, box, name, sourceText(name, shown.flows), narrow));
  for (const [name, y] of right) picture.append(...node(width - box, y, box, name, serviceText(name), narrow));
  byId("flow-picture").replaceChildren(picture);
  setText(byId("flow-note"), shown.note);
}

function chosen() {
  const sources = [], services = [], flows = [];
  for (const one of state.flows) {
    const fits = (sources.includes(one.source) || sources.length < MOST) && (services.includes(one.service) || services.length < MOST);
    if (!fits) continue;
    if (!sources.includes(one.source)) sources.push(one.source);
    if (!services.includes(one.service)) services.push(one.service);
    flows.push(one);
  }
  const left = state.flows.length + state.flowsLeftOut - flows.length;
  const note = flows.length ? (left ? `The ${flows.length} greatest; ${left.toLocaleString("en")} more.` : "") : "No caller has come yet.";
  return { sources: sources.sort(), services: services.sort(), flows, note };
}

const summary = (shown) => (shown.flows.length
  ? `From ${shown.sources.length} sources through the gateway to ${shown.services.length} services: ${shown.flows.slice(0, 5).map((one) => `${one.source} to ${one.service} ${one.rate > 0 ? rate(one.rate) : one.open ? "at rest" : "refused"}`).join(", ")}`
  : "No traffic");

function curve(x1, y1, x2, y2, kind, thick, said) {
  const bend = (x1 + x2) / 2;
  return svg("path", { class: kind, "stroke-width": thick.toFixed(1), d: `M${x1} ${y1}C${bend} ${y1} ${bend} ${y2} ${x2} ${y2}` }, svg("title", {}, said));
}

const across = (gate, y1, y2, kind, thick) => curve(gate.left, y1, gate.right, y2, kind, thick, "");

function node(x, y, width, name, text, narrow) {
  const most = narrow ? 17 : 30;
  return [
    svg("rect", { class: "box", x: x + 1, y: y - 14, width: width - 2, height: 28, rx: 6 }),
    svg("text", { x: x + 10, y: y + (narrow ? -1 : 4) }, name.length > most ? `${name.slice(0, most - 1)}…` : name),
    svg("text", { x: narrow ? x + 10 : x + width - 10, y: y + (narrow ? 11 : 4), class: "small", "text-anchor": narrow ? "start" : "end" }, text),
  ];
}

function sourceText(name, flows) {
  const of = flows.filter((one) => one.source === name);
  const sum = of.reduce((all, one) => all + one.rate, 0);
  if (sum > 0) return rate(sum);
  return of.some((one) => one.open) ? "at rest" : "✕ refused";
}

function serviceText(name) {
  const one = trafficOf(name);
  return one.received + one.sent > 0 ? rate(one.received + one.sent) : one.open ? "at rest" : "–";
}
