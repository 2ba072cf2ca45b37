// The chat page: a conversation in memory, answered by this server's own /v1/chat/completions, streamed.

import {
  at, call, describe, growing, newId, showSend, startComposer, startModels, startSettings, startSheets, startTheme, stream,
  takeKey,
} from "./api.js";

const [log, prompt, send, scroll, said] = ["log", "prompt", "send", "scroll", "said"].map(at);
const grow = growing(prompt);

let model = null;
let messages = [];
let answering = null; // the AbortController of the answer under way

function take(chosen) {
  model = chosen;
  describe(model);
}

async function begin() {
  takeKey();
  startTheme();
  startSheets();
  await startModels(take);
  at("description").textContent = model.description;
  at("temperature").value = model.temperature;
  startSettings(model);
  for (const question of model.examples) at("examples").append(example(question));
  setSend();
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

function turn(message) {
  const item = at("turn").content.firstElementChild.cloneNode(true);
  const of = (name) => item.querySelector(`.${name}`);
  item.className = message.role;
  of("text").textContent = message.content;
  of("copy").addEventListener("click", (event) => copy(item, event.target));
  of("again").addEventListener("click", () => tryAgain(item));
  of("edit").addEventListener("click", () => edit(item, message));
  for (const rating of ["up", "down"]) of(rating).addEventListener("click", () => rate(item, message, rating));
  if (message.role === "user") for (const name of ["again", "up", "down"]) of(name).remove();
  else if (!model.keeps_feedback) for (const name of ["edit", "up", "down"]) of(name).remove();
  else of("edit").textContent = "Improve";
  log.append(item);
  return item;
}

function ask(text) {
  at("welcome").hidden = true;
  at("fresh").hidden = false;
  const message = { role: "user", content: text };
  messages.push(message);
  turn(message);
  return answer();
}

async function answer() {
  const conversation = messages;
  const following = () => scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 80;
  const message = { role: "assistant", content: "", model: `${model.id}:${model.version}` };
  const item = turn(message);
  const words = item.querySelector(".text");
  item.classList.add("busy");
  answering = new AbortController();
  setBusy(true);
  scroll.scrollTop = scroll.scrollHeight;
  try {
    for await (const piece of generate(answering.signal, message, item.querySelector(".figures"))) {
      const follow = following();
      message.content += piece;
      words.textContent = message.content;
      if (follow) scroll.scrollTop = scroll.scrollHeight;
    }
    said.textContent = message.content;
  } catch (error) {
    if (error.name !== "AbortError") fail(item, message.content, error.message);
    else item.querySelector(".figures").textContent = said.textContent = "stopped";
  }
  if (message.content) conversation.push(message);
  else for (const button of item.querySelectorAll(".edit, .thumb, .copy")) button.remove();
  const follow = following();
  item.classList.remove("busy");
  answering = null;
  setBusy(false);
  if (follow) scroll.scrollTop = scroll.scrollHeight;
}

async function* generate(signal, message, figures) {
  const began = performance.now();
  const body = {
    model: model.id,
    messages: asked(messages),
    temperature: Number(at("temperature").value),
    max_tokens: Number(at("longest").value),
    stream_options: { include_usage: true },
  };
  let first = 0;
  let cut = false;
  for await (const event of stream(body, signal)) {
    message.id = event.id;
    const choice = event.choices[0];
    if (choice?.delta.content) {
      first ||= performance.now();
      yield choice.delta.content;
    }
    cut ||= choice?.finish_reason === "length";
    if (event.usage) show(figures, event.usage.completion_tokens, { began, first, cut });
  }
}

// A conversation as the API takes it, the instructions before it.
function asked(turns) {
  const system = at("system").value.trim();
  const plain = turns.map(({ role, content }) => ({ role, content }));
  return system ? [{ role: "system", content: system }, ...plain] : plain;
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
  said.textContent = reason;
}

function tryAgain(item) {
  if (answering) return;
  if (messages.at(-1)?.role === "assistant") messages.pop();
  item.remove();
  answer();
}

// What was asked is asked anew from there; an answer that a person mends is kept as better than the model's own.
function edit(item, message) {
  if (answering || item.querySelector(".editor")) return;
  const form = at("editor").content.firstElementChild.cloneNode(true);
  const field = form.querySelector("textarea");
  const close = () => {
    form.remove();
    item.classList.remove("editing");
    item.querySelector(".edit").focus();
  };
  field.value = message.content;
  field.setAttribute("aria-label", message.role === "user" ? "Your message" : "A better answer");
  form.querySelector(".main").textContent = message.role === "user" ? "Ask again" : "Save";
  form.querySelector(".cancel").addEventListener("click", close);
  form.addEventListener("keydown", (event) => {
    if (event.key === "Escape") close();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = field.value.trim();
    if (!text || text === message.content.trim()) return close();
    return message.role === "user" ? askInstead(item, message, text) : improve(item, message, text).then(close);
  });
  item.classList.add("editing");
  item.querySelector(".text").after(form);
  growing(field)();
  field.focus();
}

function askInstead(item, message, text) {
  messages = messages.slice(0, messages.indexOf(message));
  while (item.nextElementSibling) item.nextElementSibling.remove();
  item.remove();
  return ask(text);
}

async function improve(item, message, text) {
  const place = messages.indexOf(message);
  const body = { candidates: [text, message.content], ranking: [0, 1], origin: "edit", ...about(place) };
  const kept = await leave("/v1/preferences", body, "Kept: your answer is the better one.");
  if (!kept) return;
  message.content = text;
  item.querySelector(".text").textContent = text;
  item.querySelector(".figures").textContent = "improved by you";
}

async function rate(item, message, rating) {
  const body = { completion: message.content, rating, ...about(messages.indexOf(message)) };
  const kept = await leave("/v1/feedback", body, rating === "up" ? "Kept: a good answer." : "Kept: a bad answer.");
  if (!kept) return;
  for (const name of ["up", "down"]) item.querySelector(`.${name}`).setAttribute("aria-pressed", String(name === rating));
}

// What every opinion says: the conversation up to the answer, and which model gave it.
function about(place) {
  const { id, model } = messages[place];
  const prompt = asked(messages.slice(0, place));
  return { id: newId(), prompt, model, completion_ids: id ? [id] : [] };
}

async function leave(path, body, thanks) {
  try {
    await call(path, { body });
    said.textContent = thanks;
    return true;
  } catch (error) {
    said.textContent = error.message;
    return false;
  }
}

async function copy(item, button) {
  await navigator.clipboard.writeText(item.querySelector(".text").textContent);
  button.textContent = said.textContent = "Copied";
  setTimeout(() => (button.textContent = "Copy"), 1500);
}

function markLast() {
  for (const button of log.querySelectorAll(".again")) button.hidden = button.closest("li") !== log.lastElementChild;
}

function setBusy(busy) {
  showSend(busy);
  log.setAttribute("aria-busy", String(busy));
  markLast();
  setSend();
}

function setSend() {
  grow();
  send.disabled = !answering && (!model || !prompt.value.trim());
}

startComposer({ underWay: () => answering, ready: () => model, ask, change: setSend });

at("fresh").addEventListener("click", () => {
  answering?.abort();
  messages = [];
  log.replaceChildren();
  at("welcome").hidden = false;
  at("fresh").hidden = true;
  prompt.focus();
});

begin().catch((error) => (at("description").textContent = `The model does not answer: ${error.message}`));
