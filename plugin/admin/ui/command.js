import { el, setText } from "./dom.js";

// The entry that a command writes: what stands between these lines.
const WRITES = /^consul config write - <<'EOF'\n([^]*)\nEOF\s*$/;

export const command = () => el("div", { class: "command" }, el("code", { tabindex: "0" }),
  el("div", { class: "buttons" }, el("button", { type: "button", onclick: copy }, "Copy"),
    el("button", { type: "button", onclick: attempt }, "Simulate")));

export function setCommand(element, text) {
  element.hidden = !text;
  setText(element.firstChild, text);
  element.lastChild.lastChild.hidden = !WRITES.test(text);
}

const codeOf = (button) => button.closest(".command").firstChild;

function attempt(event) {
  const [, entry] = WRITES.exec(codeOf(event.currentTarget).textContent);
  dispatchEvent(new CustomEvent("try-entry", { detail: entry }));
}

async function copy(event) {
  const button = event.currentTarget;
  const code = codeOf(button);
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
  } catch {
    // Pages of plain HTTP on another host may not write there: then it is selected, for Ctrl-C.
    getSelection().selectAllChildren(code);
    button.textContent = "Selected";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
}
