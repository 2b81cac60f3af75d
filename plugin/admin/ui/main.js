import { NeedsToken, listen, setToken } from "./api.js";
import { setUpCertificates } from "./certificates.js";
import { setUpChanges } from "./changes.js";
import { setUpConnections } from "./connections.js";
import { byId, setText } from "./dom.js";
import { setUpExplain, showExplain } from "./explain.js";
import { showFlow } from "./flow.js";
import { showHeader, showStale } from "./header.js";
import { setUpRefused, showRefused } from "./refused.js";
import { setUpServices, showServices } from "./services.js";
import { setUpSimulate } from "./simulate.js";
import { STALE_AFTER_S, silence, state, take } from "./store.js";
import { setUpTheme } from "./theme.js";
import { setUpWorkers, showWorkers } from "./workers.js";

const LONGEST_PAUSE_MS = 10000;
let drawing = false;

// Once for each frame of the screen at most, and not at all while the page is hidden.
function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    for (const show of [showHeader, showStale, showFlow, showServices, showRefused, showExplain, showWorkers]) show();
  });
}

function onEvent(kind, tick) {
  take(kind, tick);
  if (kind === "snapshot") dispatchEvent(new Event("first-event"));
  draw();
}

function token() {
  const form = byId("ask");
  form.hidden = false;
  byId("token").focus();
  return new Promise((given) => {
    form.onsubmit = (event) => {
      event.preventDefault();
      setToken(byId("token").value);
      byId("token").value = "";
      form.hidden = true;
      given();
    };
  });
}

async function follow() {
  let pause = 500, refused = false;
  for (;;) {
    const stop = new AbortController();
    // A connection that is silent for long may be dead without anybody having said so.
    const began = performance.now();
    const quiet = () => Math.min(silence() || Infinity, (performance.now() - began) / 1000);
    const watch = setInterval(() => { if (quiet() > 2 * STALE_AFTER_S) stop.abort(); }, 1000);
    try {
      await listen("/api/stream", stop.signal, (kind, tick) => {
        pause = 500;
        refused = true;
        onEvent(kind, tick);
      });
      state.problem = "The gateway has ended the stream.";
    } catch (error) {
      if (error instanceof NeedsToken) {
        if (refused) setText(byId("ask-why"), error.message);
        refused = true;
        await token();
        pause = 500;
        continue;
      }
      state.problem = error.name === "AbortError" ? "" : `The gateway cannot be reached: ${error.message}`;
    } finally {
      clearInterval(watch);
    }
    showStale();
    await new Promise((done) => { setTimeout(done, pause); });
    pause = Math.min(LONGEST_PAUSE_MS, pause * 2);
  }
}

setUpTheme();
setUpServices();
setUpRefused();
setUpConnections();
setUpCertificates();
setUpChanges();
setUpExplain();
setUpSimulate();
setUpWorkers();
setInterval(showStale, 1000);
addEventListener("resize", draw);
follow();
