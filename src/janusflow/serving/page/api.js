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

const models = document.querySelector("#model");
let settings = {}; // of each model: what it can be given, with the defaults

export const model = () => models.value;

// The fields that the chosen model can be given.
export function taken(fields) {
  const known = settings[model()] ?? {};
  return Object.fromEntries(Object.entries(fields).filter(([name]) => name in known));
}

// Shows the controls that the chosen model has, with its defaults where they are not those of the one before.
let before = {};
function adapt() {
  const now = settings[model()] ?? {};
  for (const label of document.querySelectorAll("[data-setting]")) {
    const name = label.dataset.setting;
    label.hidden = !(name in taken({ [name]: null }));
    const start = now[name];
    if (label.dataset.keep !== undefined || typeof start !== "number" || start === before[name]) continue;
    const control = label.querySelector("input");
    control.value = start;
    control.dispatchEvent(new Event("input"));
  }
  before = now;
}

export async function listModels() {
  const { data } = await (await call("../v1/models")).json();
  settings = Object.fromEntries(data.map((one) => [one.id, one.settings]));
  models.replaceChildren(...data.map(({ id }) => new Option(id)));
  models.addEventListener("change", adapt);
  adapt();
}

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
