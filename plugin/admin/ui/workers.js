import { byId, el, keyed, setText } from "./dom.js";
import { number, span } from "./format.js";
import { now, state } from "./store.js";
import { Table } from "./table.js";

let table;

export function setUpWorkers() {
  table = new Table(byId("workers-table"), "Workers", [
    { title: "Worker", text: (one) => (one.index < 0 ? "of an earlier start" : String(one.index)) },
    { title: "Process", text: (one) => String(one.pid) },
    { title: "State", text: (one) => (one.draining ? "draining" : !one.connected ? "✕ not connected" : one.generation === state.head.generation ? "✓ up to date" : `△ has ${one.generation}, newest is ${state.head.generation}`) },
    { title: "Open connections", number: true, text: (one) => number(one.open_connections) },
    { title: "Since", number: true, text: (one) => span(now() - one.started_at_s) },
  ]);
}

export function showWorkers() {
  const { head } = state;
  if (!head) return;
  table.show(head.workers, (one) => String(one.pid), "No worker runs.");
  const said = [...head.warnings, ...head.watch_problems, ...head.workers.flatMap((one) => one.problems)];
  if (head.registration.problem) said.unshift(head.registration.problem);
  if (head.worker_restarts) said.push(`${number(head.worker_restarts)} workers ended unasked and were replaced.`);
  keyed(byId("warnings"), [...new Set(said)].slice(0, 30), (text) => text, () => el("li"), (item, text) => setText(item, `△ ${text}`));
}
