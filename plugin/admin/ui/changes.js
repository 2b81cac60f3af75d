import { ask } from "./api.js";
import { byId, el, keyed, setText } from "./dom.js";
import { clock } from "./format.js";
import { whileVisible } from "./watch.js";

const MOST = 200, SHOWN = 12;
const AGAIN_MS = 1500;
let seen = [], after = 0, loading = false;

export const setUpChanges = () => whileVisible("changes", AGAIN_MS, load);

async function load() {
  if (loading) return;
  loading = true;
  try {
    const page = await (await ask(`/api/events?after=${after}`)).json();
    // Of an earlier process, or too many to be told: what is seen here ends there.
    if (page.missed) seen = [];
    after = page.newest;
    seen = [...page.events.reverse(), ...seen].slice(0, MOST);
    show();
  } catch (error) {
    byId("changes-list").replaceChildren(el("li", { class: "quiet" }, `They could not be read: ${error.message}`));
  } finally {
    loading = false;
  }
}

function show() {
  const make = () => el("li", {}, el("time"), el("span"), el("div", { class: "more" }));
  const list = byId("changes-list");
  keyed(list, seen.slice(0, SHOWN), (one) => String(one.number), make, (item, one) => {
    setText(item.children[0], clock(one.time_s));
    setText(item.children[1], `${{ warning: "△ ", error: "✕ " }[one.level] ?? ""}${one.message}`);
    const changes = one.changes.slice(0, 5).map((each) => `${each.what}${each.index ? ` (index ${each.index})` : ""}`);
    if (one.changes.length > 5) changes.push(`and ${one.changes.length - 5} more`);
    setText(item.children[2], changes.join("; "));
  });
  if (!seen.length) list.replaceChildren(el("li", { class: "quiet" }, "Nothing has changed since the start."));
}
