// What the stream has told so far.
const TRAFFIC = ["service", "open", "received", "sent", "requests", "errors", "p50", "p95"];
const FLOW = ["service", "source", "open", "rate", "refusing", "refused"];
export const STALE_AFTER_S = 5;

const named = (names, values) => Object.fromEntries(names.map((name, i) => [name, values[i]]));
const NOTHING = named(TRAFFIC, ["", 0, 0, 0, 0, 0, 0, 0]);

export const state = {
  head: null, services: new Map(), traffic: new Map(), flows: [], flowsLeftOut: 0, refusals: [], refusalsLeftOut: 0,
  heardAt: 0, clockOffset: 0, problem: "",
};

export const trafficOf = (service) => state.traffic.get(service) ?? NOTHING;

export function take(kind, tick) {
  if (kind === "snapshot") {
    state.services.clear();
    state.traffic.clear();
  }
  state.head = tick.head;
  state.heardAt = performance.now();
  state.clockOffset = tick.head.now_s - Date.now() / 1000;
  state.problem = "";
  for (const service of tick.services ?? []) state.services.set(service.name, service);
  for (const name of tick.gone ?? []) {
    state.services.delete(name);
    state.traffic.delete(name);
  }
  for (const row of tick.traffic ?? []) state.traffic.set(row[0], named(TRAFFIC, row));
  if (tick.flows) {
    state.flows = tick.flows.map((row) => named(FLOW, row));
    state.flowsLeftOut = tick.flows_left_out ?? 0;
  }
  if (tick.refusals) {
    state.refusals = tick.refusals;
    state.refusalsLeftOut = tick.refusals_left_out ?? 0;
  }
}

// The gateway's clock: times left are right even where the browser's is not.
export const now = () => Date.now() / 1000 + state.clockOffset;

export const silence = () => (state.heardAt ? (performance.now() - state.heardAt) / 1000 : 0);

export const isStale = () => Boolean(state.problem) || silence() > STALE_AFTER_S;
