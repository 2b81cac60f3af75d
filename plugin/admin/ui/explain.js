import { ask } from "./api.js";
import { command, setCommand } from "./command.js";
import { byId, el, keyed, setText } from "./dom.js";
import { state } from "./store.js";

const MOST = 200;

export async function explain(source, destination, method = "", path = "") {
  const query = new URLSearchParams({ source, destination });
  if (method) query.set("method", method);
  if (path) query.set("path", path);
  return (await ask(`/api/explain?${query}`)).json();
}

export function setUpExplain() {
  byId("explain-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const [method, path] = byId("explain-path").value.trim().split(/\s+/);
    try {
      show(await explain(byId("explain-source").value.trim(), byId("explain-service").value.trim(), method, path));
    } catch (error) {
      byId("explain-answer").replaceChildren(el("p", { class: "said" }, error.message));
    }
  });
}

function show(answer) {
  const good = answer.verdict === "allowed";
  const steps = answer.steps.map((step) => el("li", {},
    el("span", { class: step.state === "bad" ? "pill bad" : step.state === "note" ? "pill warn" : "pill good" },
      `${{ bad: "✕", note: "△" }[step.state] ?? "✓"} ${step.about}`), ` ${step.lines.join(" ")}`));
  const commands = answer.remedies.map((text) => {
    const made = command();
    setCommand(made, text);
    return made;
  });
  byId("explain-answer").replaceChildren(
    el("p", { class: "verdict" }, el("span", { class: `pill ${good ? "good" : "bad"}` }, `${good ? "✓" : "✕"} ${answer.verdict.replace("_", " ")}`), ` ${answer.sentence}`),
    el("ol", { class: "feed" }, ...steps), ...commands, el("p", { class: "more" }, answer.remarks.join(" ")));
}

// What may be typed there.
export function showExplain() {
  const sources = [...new Set(state.flows.map((one) => one.source))].sort();
  options("sources", sources);
  options("destinations", [...state.services.keys()].sort());
}

const options = (id, names) => keyed(byId(id), names.slice(0, MOST), (name) => name, (name) => el("option", { value: name }), () => {});
