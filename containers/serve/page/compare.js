// The compare page: one question, answered twice at once; what a person prefers goes to /v1/preferences.

import {
  at, call, describe, growing, newId, showSend, startComposer, startModels, startSettings, startSheets, startTheme, stream,
  takeKey,
} from "./api.js";

const [prompt, send, said] = ["prompt", "send", "said"].map(at);
const buttons = [...document.querySelectorAll("#choices button")];
const grow = growing(prompt);
const DRAWS = 4; // how often an answer is drawn until there are two that differ

let model = null;
let drawing = null; // the AbortController of the round under way
let round = null; // what can be chosen between
let kept = 0;

function take(chosen) {
  model = chosen;
  describe(model);
}

async function begin() {
  takeKey();
  startTheme();
  startSheets();
  await startModels(take);
  startSettings(model);
  setSend();
}

async function compare(question) {
  const system = at("system").value.trim();
  const from = model;
  const asked = [...(system ? [{ role: "system", content: system }] : []), { role: "user", content: question }];
  at("welcome").hidden = true;
  at("round").hidden = false;
  at("question").textContent = question;
  said.textContent = "";
  setChoice(null);
  drawing = new AbortController();
  setSend();
  try {
    let [a, b] = await Promise.all([draw("a", asked, from), draw("b", asked, from)]);
    for (let n = 1; n < DRAWS && (same(a, b) || empty(a) || empty(b)); n += 1) {
      if (empty(a)) a = await draw("a", asked, from);
      else b = await draw("b", asked, from);
    }
    if (empty(a) || empty(b)) said.textContent = "One answer is empty: ask again.";
    else if (same(a, b)) said.textContent = "Both answers are the same: raise the temperature, or ask something else.";
    else setChoice({ asked, a, b, from });
  } catch (error) {
    said.textContent = error.name === "AbortError" ? "Stopped." : error.message;
  }
  drawing = null;
  setSend();
  if (round) buttons[0].focus();
}

const same = (a, b) => a.text.trim() === b.text.trim();
const empty = (answer) => !answer.text.trim();

async function draw(id, asked, from) {
  const box = at(id);
  box.textContent = "";
  box.classList.add("drawing");
  const answer = { text: "", id: "" };
  const body = {
    model: from.id,
    messages: asked,
    temperature: Number(at("temperature").value),
    max_tokens: Number(at("longest").value),
    seed: crypto.getRandomValues(new Uint32Array(1))[0],
  };
  try {
    for await (const event of stream(body, drawing.signal)) {
      answer.id = event.id;
      answer.text += event.choices[0]?.delta.content ?? "";
      box.textContent = answer.text;
    }
  } finally {
    box.classList.remove("drawing");
  }
  return answer;
}

async function choose(ranks) {
  const { asked, a, b, from } = round;
  setChoice(null);
  const body = {
    id: newId(),
    prompt: asked,
    candidates: [a.text, b.text],
    ranks,
    model: `${from.id}:${from.version}`,
    completion_ids: [a.id, b.id],
    origin: "compare",
  };
  try {
    await call("/v1/preferences", { body });
    kept += 1;
    said.textContent = `Kept; ${kept} compared. What next?`;
    prompt.focus();
  } catch (error) {
    said.textContent = error.message;
    setChoice({ asked, a, b, from });
  }
}

function setChoice(value) {
  round = value;
  for (const button of buttons) button.disabled = !value;
}

function setSend() {
  showSend(Boolean(drawing));
  send.disabled = !drawing && (!model || !prompt.value.trim());
  grow();
}

startComposer({ underWay: () => drawing, ready: () => model, ask: compare, change: setSend });

document.addEventListener("keydown", (event) => {
  if (!round || event.target.matches("textarea, input, select") || event.ctrlKey || event.metaKey || event.altKey) return;
  buttons[["1", "0", "2"].indexOf(event.key)]?.click();
});

for (const button of buttons) {
  button.addEventListener("click", () => choose(button.dataset.ranks.split(",").map(Number)));
}

begin().catch((error) => (said.textContent = `The model does not answer: ${error.message}`));
