import { el, setText } from "./dom.js";

export const command = () => el("div", { class: "command" }, el("code", { tabindex: "0" }),
  el("button", { type: "button", onclick: copy }, "Copy"));

export function setCommand(element, text) {
  element.hidden = !text;
  setText(element.firstChild, text);
}

async function copy(event) {
  const button = event.currentTarget;
  const code = button.previousSibling;
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
