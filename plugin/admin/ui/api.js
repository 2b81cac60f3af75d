// Asks the gateway. The token lives in this variable and nowhere else.
let token = "";

export class NeedsToken extends Error {}

export const setToken = (given) => { token = given.trim(); };

export async function ask(path, options = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  if (options.body) headers["Content-Type"] = "application/json";
  const answer = await fetch(path, { ...options, headers, cache: "no-store", credentials: "omit" });
  if (answer.status === 401) throw new NeedsToken((await answer.text()).trim());
  if (!answer.ok) {
    const error = new Error((await answer.text()).trim() || `${path}: ${answer.status}`);
    error.status = answer.status;
    throw error;
  }
  return answer;
}

// Server-sent events by fetch, since an EventSource cannot send a token. Ends with an error, or when the server ends it.
export async function listen(path, signal, onEvent) {
  const answer = await ask(path, { signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let heard = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    heard += value;
    for (let end = heard.indexOf("\n\n"); end >= 0; end = heard.indexOf("\n\n")) {
      event(heard.slice(0, end), onEvent);
      heard = heard.slice(end + 2);
    }
  }
}

function event(text, onEvent) {
  let kind = "message", data = "";
  for (const line of text.split("\n")) {
    if (line.startsWith("event: ")) kind = line.slice(7);
    else if (line.startsWith("data: ")) data += line.slice(6);
  }
  if (data) onEvent(kind, JSON.parse(data));
}
