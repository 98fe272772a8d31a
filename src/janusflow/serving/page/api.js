// The server's interface: JSON, and streams of server-sent events. Asks for the key where the server wants one.

const error = document.querySelector("#error");

export function show(problem) {
  error.hidden = problem === null;
  error.textContent = problem === null ? "" : problem.message;
}

function headers() {
  const key = sessionStorage.getItem("key");
  return key ? { Authorization: `Bearer ${key}` } : {};
}

async function askForKey() {
  const dialog = document.querySelector("#key");
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  sessionStorage.setItem("key", dialog.querySelector("input").value.trim());
}

export async function call(path, options = {}) {
  for (;;) {
    const answer = await fetch(path, { ...options, headers: { ...options.headers, ...headers() } });
    if (answer.ok) return answer;
    if (answer.status === 401) {
      await askForKey();
      continue;
    }
    const body = await answer.json().catch(() => null);
    throw new Error(body?.error?.message ?? `The server answered with status ${answer.status}.`);
  }
}

function request(body, signal) {
  if (body instanceof FormData) return { method: "POST", body, signal };
  return { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" }, signal };
}

export async function* events(path, body, signal) {
  const answer = await call(path, request(body, signal));
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const parts = text.split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const data = part.split("\n").find((line) => line.startsWith("data: "))?.slice(6);
      if (data === undefined || data === "[DONE]") continue;
      const found = JSON.parse(data);
      if (found.error) throw new Error(found.error.message);
      yield found;
    }
  }
}

export const model = () => document.querySelector("#model").value;

export const address = (data) => `data:image/png;base64,${data}`;

export const anySeed = () => Math.floor(Math.random() * 2 ** 32);

// Runs work with the form's buttons set; its Stop button aborts.
export async function busy(form, work) {
  const [start, stop] = [form.querySelector("[type=submit]"), form.elements.stop];
  const control = new AbortController();
  stop.onclick = () => control.abort();
  start.disabled = true;
  stop.disabled = false;
  show(null);
  try {
    await work(control.signal);
  } catch (problem) {
    if (problem.name !== "AbortError") show(problem);
  } finally {
    start.disabled = false;
    stop.disabled = true;
  }
}
