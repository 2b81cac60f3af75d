import { NeedsToken, ask, setToken } from "./api.js";
import { byId, el, setText } from "./dom.js";
import { number } from "./format.js";

const FEW = 10;
const EFFECT = { gains: "+ gains", loses: "✕ loses", changes: "△ changes" };
const KIND = { gains: "good", loses: "bad", changes: "warn" };
const WORDS = { by_request: "request by request", none: "not served" };

export function setUpSimulate() {
  byId("simulate-form").addEventListener("submit", (event) => {
    event.preventDefault();
    simulate();
  });
  byId("simulate-text").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      byId("simulate-form").requestSubmit();
    }
  });
  // Commands that are shown elsewhere can be tried before they are run.
  addEventListener("try-entry", (event) => {
    byId("simulate-text").value = event.detail;
    byId("simulate").scrollIntoView();
    byId("simulate-text").focus({ preventScroll: true });
  });
}

async function simulate() {
  const field = byId("simulate-token"), button = byId("simulate-button"), answer = byId("simulate-answer");
  if (field.value) setToken(field.value);
  button.disabled = true;
  setText(button, "Simulating …");
  try {
    const body = JSON.stringify({ text: byId("simulate-text").value });
    const found = await (await ask("/api/simulate", { method: "POST", body })).json();
    field.value = "";
    field.hidden = true;
    answer.replaceChildren(...shown(found));
  } catch (error) {
    if (error instanceof NeedsToken) {
      const again = field.value ? "That is not the admin token. " : "";
      answer.replaceChildren(el("p", { class: "said" }, `${again}A simulation needs the admin token: that of --admin-token-file, else what is in the`
        + " file admin-token of the gateway's runtime directory. It is kept in this tab only."));
      field.hidden = false;
      field.value = "";
      field.focus();
    } else answer.replaceChildren(el("p", { class: "said" }, error.message));
  } finally {
    button.disabled = false;
    setText(button, "Simulate");
  }
}

function shown(found) {
  const parts = [el("p", { class: "verdict" }, ...verdict(found))];
  for (const problem of found.problems) parts.push(el("p", { class: "said" }, `✕ ${problem}`));
  for (const one of found.services) parts.push(...service(one));
  parts.push(...list("Access", found.access, (one) => [
    effect(one.effect), ` ${one.source === "*" ? "anybody else" : one.source} → ${one.service}: `, access(one.before), " ⇒ ", access(one.after)]));
  parts.push(...list(`Would be cut: ${number(found.connections_cut)}`, found.connections, (one) => [
    el("b", {}, one.id), ` ${one.source} → ${one.service} from ${one.client}${one.request ? `, ${one.request}` : ""}: ${one.why}`], found.connections_cut));
  parts.push(...list("Requests that came lately", found.requests, (one) => [
    effect(one.effect), ` ${one.source} → ${one.service} ${one.request} (${number(one.requests)}): ${one.before} ⇒ ${one.after}`]));
  parts.push(el("p", { class: "more" }, `Compared with state ${number(found.generation)}. ${found.remarks.join(" ")}`.trim()));
  return parts;
}

function verdict(found) {
  const changes = found.services.length || found.access.length || found.requests.length;
  const said = found.connections_cut
    ? `${number(found.connections_cut)} live connection${found.connections_cut === 1 ? "" : "s"}, or requests on them, would be cut.`
    : "No live connection would be cut.";
  const head = found.harms ? "✕ somebody loses, or something is wrong" : changes ? "✓ nobody loses anything" : "✓ nothing changes for anybody that is known";
  return [el("span", { class: `pill ${found.harms ? "bad" : "good"}` }, head), ` ${found.entries.join(", ")}: ${said}`];
}

function service(one) {
  const state = one.before === one.after ? one.after : `${one.before} ⇒ ${one.after}`;
  return [el("p", {}, el("b", {}, one.name), `: ${state}`),
    ...one.differences.map((text) => el("p", { class: "more" }, text)),
    ...one.problems.map((text) => el("p", { class: "said" }, `✕ ${text}`))];
}

const effect = (kind) => el("span", { class: `pill ${KIND[kind]}` }, EFFECT[kind]);

const access = (one) => (one.by ? `${WORDS[one.kind] ?? one.kind}, ${one.by}` : WORDS[one.kind] ?? one.kind);

function list(title, items, fill, all = items.length) {
  if (!items.length) return [];
  const rows = items.slice(0, FEW).map((one) => el("li", {}, ...fill(one)));
  if (all > rows.length) rows.push(el("li", { class: "quiet" }, `and ${number(all - rows.length)} more; consul-tgw simulate --verbose FILE lists them`));
  return [el("h3", {}, title), el("ul", { class: "feed" }, ...rows)];
}
