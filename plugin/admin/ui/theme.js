import { byId, setText } from "./dom.js";

const NEXT = { system: "light", light: "dark", dark: "system" };
let theme = "system";

export function setUpTheme() {
  byId("theme").addEventListener("click", () => {
    theme = NEXT[theme];
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    setText(byId("theme"), `Theme: ${theme}`);
  });
}
