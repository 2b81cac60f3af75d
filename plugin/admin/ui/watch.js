import { byId } from "./dom.js";
import { state } from "./store.js";

// Calls `load` when the section comes into view, and again every so often while somebody can see it.
export function whileVisible(id, everyMs, load) {
  let visible = false;
  const now = () => { if (visible && !document.hidden && state.head) load(); };
  new IntersectionObserver((entries) => {
    visible = entries.at(-1).isIntersecting;
    now();
  }, { rootMargin: "200px" }).observe(byId(id));
  setInterval(now, everyMs);
  addEventListener("first-event", now);
}
