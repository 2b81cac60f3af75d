import { ask } from "./api.js";
import { byId, el, keyed, setText, svg } from "./dom.js";
import { span } from "./format.js";
import { now } from "./store.js";
import { whileVisible } from "./watch.js";

const MOST = 16;
const NEAR_S = 6 * 3600;
const AGAIN_MS = 30000;
const KINDS = {
  leaf: "Leaf", intermediate: "Intermediate", root: "Root", peer_root: "Root of a peer", upstream_ca: "CA towards",
  upstream_client: "Client certificate towards", consul_ca: "CA of Consul's API", consul_client: "Client certificate for Consul",
};

export const setUpCertificates = () => whileVisible("certificates", AGAIN_MS, load);

async function load() {
  try {
    const { certificates } = await (await ask("/api/certificates")).json();
    // The first to end of each kind, too: a root must not be hidden by a thousand leaves.
    const kinds = new Set();
    show(certificates.filter((one, i) => i < MOST || !kinds.has(one.kind) && kinds.add(one.kind)).slice(0, MOST + 8));
  } catch (error) {
    byId("certificates-list").replaceChildren(el("li", { class: "quiet" }, `They could not be read: ${error.message}`));
  }
}

function show(certificates) {
  // Leaves live for days and roots for years: a scale of logarithms shows both.
  const scale = (left) => Math.log10(1 + Math.max(0, left) / 3600);
  const longest = Math.max(1, ...certificates.map((one) => scale(one.not_after_s - now())));
  keyed(byId("certificates-list"), certificates, (one) => `${one.kind} ${one.serial} ${one.path}`, make, (item, one) => {
    const left = one.not_after_s - now();
    const of = one.services.length ? one.services.slice(0, 3).join(", ") : one.subject;
    setText(item.firstChild, `${KINDS[one.kind] ?? one.kind} ${one.services.length && one.kind === "leaf" ? "of " : ""}${of}`);
    item.classList.toggle("near", left < NEAR_S);
    item.children[1].lastChild.setAttribute("width", `${(100 * scale(left) / longest).toFixed(1)}%`);
    setText(item.children[2], left > 0 ? span(left) : "expired");
    item.children[2].title = new Date(one.not_after_s * 1000).toISOString();
    setText(item.lastChild, one.renewed_by);
  });
}

const make = () => el("li", {}, el("span", { class: "name" }),
  svg("svg", { "aria-hidden": "true" }, svg("rect", { width: "100%", height: 10, rx: 5 }), svg("rect", { width: 0, height: 10, rx: 5 })),
  el("span", { class: "left" }), el("span", { class: "more" }));
