// What both pages share: the key, calls to this server's own API, streams, the theme.

export const at = (id) => document.getElementById(id);

// A link that `slipway serve` prints carries the key behind #, where no server sees it; it is kept for this browser.
export function takeKey() {
  if (!location.hash.startsWith("#key=")) return;
  localStorage.setItem("key", decodeURIComponent(location.hash.slice("#key=".length)));
  history.replaceState(null, "", location.pathname + location.search);
}

addEventListener("hashchange", () => {
  takeKey();
  location.reload();
});

export async function call(path, { body, signal } = {}) {
  for (;;) {
    const key = localStorage.getItem("key");
    const headers = key ? { Authorization: `Bearer ${key}` } : {};
    const sent = body ? { method: "POST", body: JSON.stringify(body) } : {};
    if (body) headers["Content-Type"] = "application/json";
    const response = await fetch(path, { ...sent, headers, signal });
    if (response.ok) return response;
    if (response.status !== 401) throw new Error((await response.json()).error.message);
    await askForKey(Boolean(key));
  }
}

function askForKey(wrong) {
  const door = at("door");
  at("door-wrong").hidden = !wrong;
  at("key").value = "";
  if (!door.open) door.showModal();
  return new Promise((resolve) => {
    at("door-form").onsubmit = (event) => {
      event.preventDefault();
      localStorage.setItem("key", at("key").value.trim());
      door.close();
      resolve();
    };
    door.oncancel = (event) => event.preventDefault();
  });
}

// `take` gets the model that answers from now on. Where several share their weights, Settings let a person choose.
export async function startModels(take) {
  const models = (await (await call("/v1/models")).json()).data;
  const choice = at("model");
  choice.replaceChildren(...models.map((model) => new Option(model.id, model.id)));
  for (const part of document.querySelectorAll(".several")) part.hidden = models.length < 2;
  choice.addEventListener("change", () => take(models[choice.selectedIndex]));
  take(models[0]);
}

// Yields the events of a streamed chat completion.
export async function* stream(body, signal) {
  const response = await call("/v1/chat/completions", { body: { ...body, stream: true }, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.slice("data: ".length);
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw new Error(event.error.message);
      yield event;
    }
  }
}

export function describe(model) {
  document.title = document.title.replace(/^.* - /, `${model.id} - `);
  at("name").textContent = model.id;
  at("format").textContent = model.format;
  at("format").hidden = false;
  for (const link of document.querySelectorAll(".keeps")) link.hidden = !model.keeps_feedback;
  const facts = [
    ["Version", model.version],
    ["Format", model.format],
    ["Context", `${model.context} tokens`],
    ["Made from", model.provenance.slice(0, 12)],
  ];
  at("facts").replaceChildren(...facts.flatMap(([name, value]) => [cell("dt", name), cell("dd", value)]));
  at("scores").hidden = model.scores.length === 0;
  at("scores").tBodies[0].replaceChildren();
  for (const score of model.scores) {
    const row = document.createElement("tr");
    row.append(cell("td", score.model), cell("td", score.measure), cell("td", score.value), cell("td", score.interval));
    at("scores").tBodies[0].append(row);
  }
}

function cell(name, text) {
  const element = document.createElement(name);
  element.textContent = text;
  return element;
}

export function startTheme() {
  at("theme").value = localStorage.getItem("theme") ?? "";
  setTheme();
  at("theme").addEventListener("change", setTheme);
}

function setTheme() {
  const theme = at("theme").value;
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  localStorage.setItem("theme", theme);
}

// Sheets under the buttons of the header: one open at a time, closed by Escape and by a click elsewhere.
export function startSheets() {
  const sheets = [...document.querySelectorAll("header details")];
  document.addEventListener("click", (event) => {
    for (const sheet of sheets) if (!sheet.contains(event.target)) sheet.open = false;
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    const open = sheets.find((sheet) => sheet.open);
    if (!open) return;
    open.open = false;
    open.querySelector("summary").focus();
    event.stopImmediatePropagation();
  });
}

export function startSettings(model) {
  at("longest").max = at("longest").value = model.max_tokens;
  for (const id of ["temperature", "longest"]) at(id).addEventListener("input", showSettings);
  showSettings();
}

function showSettings() {
  at("temperature-shown").textContent = Number(at("temperature").value).toFixed(1);
  at("longest-shown").textContent = `${at("longest").value} tokens`;
}

// The box to write in: Enter asks what is written; the button, and Escape, abort what is under way.
export function startComposer({ underWay, ready, ask, change }) {
  const prompt = at("prompt");
  at("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    if (underWay()) return underWay().abort();
    const text = prompt.value.trim();
    if (!text || !ready()) return undefined;
    prompt.value = "";
    return ask(text);
  });
  prompt.addEventListener("input", change);
  prompt.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    if (!underWay()) at("composer").requestSubmit();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") underWay()?.abort();
  });
}

export function showSend(underWay) {
  at("send").classList.toggle("stop", underWay);
  at("send").setAttribute("aria-label", underWay ? "Stop" : "Send");
  at("send").title = underWay ? "Stop (Esc)" : "Send (Enter)";
}

// An id of its own for everything that is sent to be kept: sent twice, it is kept once. (randomUUID wants https.)
export function newId() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function growing(field) {
  const grow = () => {
    field.style.height = "auto";
    field.style.height = `${field.scrollHeight}px`;
  };
  field.addEventListener("input", grow);
  return grow;
}
