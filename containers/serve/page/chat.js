// The chat page: a conversation in memory, answered by this server's own /v1/chat/completions, streamed.

const at = (id) => document.getElementById(id);
const [log, prompt, send, scroll] = ["log", "prompt", "send", "scroll"].map(at);

let model = null;
let messages = [];
let answering = null; // the AbortController of the answer under way

async function begin() {
  restoreTheme();
  const listed = await (await fetch("/v1/models")).json();
  model = listed.data[0];
  document.title = model.id;
  at("name").textContent = model.id;
  at("format").textContent = model.format;
  at("format").title = `version ${model.version}, ${model.context} tokens of context`;
  at("format").hidden = false;
  at("description").textContent = model.description;
  at("longest").max = model.max_tokens;
  at("longest").value = model.max_tokens;
  at("temperature").value = model.temperature;
  for (const question of model.examples) at("examples").append(example(question));
  showSettings();
  grow();
}

function example(question) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = question;
  button.addEventListener("click", () => ask(question));
  item.append(button);
  return item;
}

function turn(role, text = "") {
  const item = at("turn").content.firstElementChild.cloneNode(true);
  item.className = role;
  item.querySelector(".text").textContent = text;
  item.querySelector(".copy").addEventListener("click", (event) => copy(item, event.target));
  item.querySelector(".again").addEventListener("click", () => tryAgain(item));
  log.append(item);
  return item;
}

function ask(text) {
  at("welcome").hidden = true;
  at("fresh").hidden = false;
  messages.push({ role: "user", content: text });
  turn("user", text);
  return answer();
}

async function answer() {
  const conversation = messages;
  const item = turn("assistant busy");
  const words = item.querySelector(".text");
  answering = new AbortController();
  setBusy(true);
  scroll.scrollTop = scroll.scrollHeight;
  let text = "";
  try {
    const figures = item.querySelector(".figures");
    for await (const piece of generate(answering.signal, figures)) {
      const follow = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 80;
      text += piece;
      words.textContent = text;
      if (follow) scroll.scrollTop = scroll.scrollHeight;
    }
  } catch (error) {
    if (error.name !== "AbortError") fail(item, text, error.message);
    else item.querySelector(".figures").textContent = "stopped";
  }
  if (text) conversation.push({ role: "assistant", content: text });
  item.classList.remove("busy");
  answering = null;
  setBusy(false);
  markLast();
}

async function* generate(signal, figures) {
  const began = performance.now();
  const system = at("system").value.trim();
  const body = {
    model: model.id,
    messages: [...(system ? [{ role: "system", content: system }] : []), ...messages],
    temperature: Number(at("temperature").value),
    max_tokens: Number(at("longest").value),
    stream: true,
    stream_options: { include_usage: true },
  };
  const headers = { "Content-Type": "application/json" };
  const response = await fetch("/v1/chat/completions", { method: "POST", headers, body: JSON.stringify(body), signal });
  if (!response.ok) throw new Error((await response.json()).error.message);
  let first = 0;
  let cut = false;
  for await (const event of events(response)) {
    if (event.error) throw new Error(event.error.message);
    const choice = event.choices[0];
    if (choice?.delta.content) {
      first ||= performance.now();
      yield choice.delta.content;
    }
    cut ||= choice?.finish_reason === "length";
    if (event.usage) show(figures, event.usage.completion_tokens, { began, first, cut });
  }
}

async function* events(response) {
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
      yield JSON.parse(data);
    }
  }
}

function show(figures, tokens, { began, first, cut }) {
  const now = performance.now();
  const rate = tokens > 1 && now > first ? ` · ${Math.round((tokens - 1) / ((now - first) / 1000))} tokens/s` : "";
  figures.textContent = `${tokens} token${tokens === 1 ? "" : "s"}${rate}${cut ? " · cut short" : ""}`;
  if (first) figures.title = `first word after ${((first - began) / 1000).toFixed(2)} s`;
}

function fail(item, text, reason) {
  item.classList.add("failed");
  item.querySelector(".text").textContent = text ? `${text}\n\n${reason}` : reason;
}

function tryAgain(item) {
  if (answering) return;
  if (messages.at(-1)?.role === "assistant") messages.pop();
  item.remove();
  answer();
}

async function copy(item, button) {
  await navigator.clipboard.writeText(item.querySelector(".text").textContent);
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = "Copy"), 1500);
}

function markLast() {
  for (const button of log.querySelectorAll(".again")) button.hidden = button.closest("li") !== log.lastElementChild;
}

function setBusy(busy) {
  send.classList.toggle("stop", busy);
  send.setAttribute("aria-label", busy ? "Stop" : "Send");
  send.title = busy ? "Stop (Esc)" : "Send (Enter)";
  log.setAttribute("aria-busy", String(busy));
  markLast();
  grow();
}

function grow() {
  prompt.style.height = "auto";
  prompt.style.height = `${prompt.scrollHeight}px`;
  send.disabled = !answering && (!model || !prompt.value.trim());
}

function showSettings() {
  at("temperature-shown").textContent = Number(at("temperature").value).toFixed(1);
  at("longest-shown").textContent = `${at("longest").value} tokens`;
}

function restoreTheme() {
  at("theme").value = localStorage.getItem("theme") ?? "";
  setTheme();
}

function setTheme() {
  const theme = at("theme").value;
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  localStorage.setItem("theme", theme);
}

at("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  if (answering) return answering.abort();
  const text = prompt.value.trim();
  if (!text || !model) return undefined;
  prompt.value = "";
  return ask(text);
});

prompt.addEventListener("input", grow);
prompt.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (!answering) at("composer").requestSubmit();
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  if (at("settings").open) at("settings").open = false;
  else answering?.abort();
});

document.addEventListener("click", (event) => {
  if (!at("settings").contains(event.target)) at("settings").open = false;
});

at("fresh").addEventListener("click", () => {
  answering?.abort();
  messages = [];
  log.replaceChildren();
  at("welcome").hidden = false;
  at("fresh").hidden = true;
  prompt.focus();
});

for (const id of ["temperature", "longest"]) at(id).addEventListener("input", showSettings);
at("theme").addEventListener("change", setTheme);

begin().catch((error) => (at("description").textContent = `The model does not answer: ${error.message}`));
