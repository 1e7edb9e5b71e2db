// The playground: holds a conversation, runs it, shows what came and what it cost.
import { programs } from "./playground_code.js";
import { node, TurnsView } from "./playground_turns.js";
import { EventReader } from "./sse.js";

const RECEIPT_TRIES = 30;
const RECEIPT_PAUSE_MS = 500;
const FIELDS = ["model", "system", "max_tokens", "temperature", "thinking", "budget", "tools"];
const EXAMPLE_TOOLS = [{ name: "get_weather", description: "The weather of a place now.", input_schema: { type: "object", properties: { place: { type: "string" } }, required: ["place"] } }];

const form = document.querySelector("[data-playground]");
const facts = JSON.parse(document.getElementById("playground-facts").textContent);
const { texts } = facts;
const find = (name) => form.querySelector(`[data-${name}]`);
const prompt = form.querySelector("#prompt");
const kept = `turnpike-playground-${facts.tenant}`;
const status = find("status");
let turns = [];
let running = null;

const view = new TurnsView({
  root: find("turns"), empty: find("empty"), icons: form.dataset.icons, texts,
  on: { copy, edit, retry, answer },
});

function compose() {
  const { model, system, max_tokens: limit, temperature, thinking, budget, tools } = form.elements;
  const request = { model: model.value, max_tokens: Number(limit.value) || 1024 };
  if (system.value.trim()) request.system = system.value.trim();
  if (temperature.value !== "") request.temperature = Number(temperature.value);
  const kind = facts.models[model.value]?.thinking;
  if (thinking.checked && kind === "adaptive") request.thinking = { type: "adaptive", display: "summarized" };
  if (thinking.checked && kind === "enabled") request.thinking = { type: "enabled", budget_tokens: Number(budget.value) || 1024 };
  const listed = readTools(tools.value);
  if (listed.length) request.tools = listed;
  request.messages = turns.map(({ role, content }) => ({ role, content }));
  return request;
}

function readTools(text) {
  const error = find("tools-error");
  error.hidden = true;
  if (!text.trim()) return [];
  try {
    const found = JSON.parse(text);
    if (Array.isArray(found)) return found;
  } catch { /* said below */ }
  error.textContent = texts.bad_tools;
  error.hidden = false;
  find("tools-box").open = true;
  throw new Error(texts.bad_tools);
}

async function run() {
  if (running) return;
  let request;
  try {
    request = compose();
  } catch {
    return;
  }
  const turn = { role: "assistant", model: request.model, content: [], facts: {} };
  turns.push(turn);
  say("");
  running = new AbortController();
  setRunning(true);
  view.show(turns, { isRunning: true });
  const begun = performance.now();
  let problem = null;
  try {
    problem = await receive(request, turn, begun);
    if (!problem) status.textContent = texts.done;
  } catch (error) {
    if (error.name === "AbortError") turn.note = texts.stopped;
    else problem = { message: texts.lost, isCharged: Boolean(turn.requestId) };
  }
  if (turn.requestId && !turn.facts.duration) turn.facts.duration = seconds(performance.now() - begun);
  running = null;
  setRunning(false);
  finish(turn);
  if (problem) complain(problem);
  keep();
  if (turn.requestId && !problem?.isFree) await readReceipt(turn);
}

async function receive(request, turn, begun) {
  const answer = await fetch(form.dataset.stream, {
    method: "POST",
    headers: { "content-type": "application/json", "x-csrftoken": form.elements.csrfmiddlewaretoken.value },
    body: JSON.stringify({ workspace: form.elements.workspace?.value, request }),
    signal: running.signal,
  });
  const type = answer.headers.get("content-type") || "";
  if (!type.startsWith("text/event-stream")) {
    if (!type.startsWith("application/json")) return { message: texts.signed_out, isFree: true };
    return { ...problemOf((await answer.json()).error), isFree: true };
  }
  const events = new EventReader();
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let problem = null;
  let isRefused = false;
  let isDrawn = true;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    for (const [name, data] of events.feed(value)) {
      if (name === "turnpike.answer") {
        isRefused = data.status >= 400;
        turn.requestId = data["request-id"] || turn.requestId;
        turn.retryAfter = data["retry-after"];
      } else if (data.type === "error") problem = { ...problemOf(data.error), isCharged: true };
      else apply(turn, data, begun);
    }
    if (isDrawn) {
      isDrawn = false;
      requestAnimationFrame(() => {
        isDrawn = true;
        if (running) view.refresh(turn);
      });
    }
  }
  if (isRefused) return refusalOf(events.rest, turn);
  return problem;
}

function refusalOf(text, turn) {
  const isFree = !turn.content.length;
  try {
    return { ...problemOf(JSON.parse(text).error), isFree, retryAfter: turn.retryAfter };
  } catch {
    return { message: texts.lost, isCharged: true };
  }
}

function problemOf(error) {
  return { message: texts.errors[error?.type] || error?.message || texts.lost, detail: texts.errors[error?.type] ? error.message : "" };
}

// One event of the stream onto the turn.
function apply(turn, data, begun) {
  const block = turn.content[turn.content.length - 1];
  if (data.type === "content_block_start") {
    // Fields without a value would come back to the model as such, which it refuses.
    const made = Object.fromEntries(Object.entries(data.content_block).filter(([, value]) => value !== null));
    if (made.type === "tool_use") made.json = "";
    turn.content.push(made);
  } else if (data.type === "content_block_delta") {
    turn.facts.ttft ||= seconds(performance.now() - begun);
    const { delta } = data;
    if (delta.type === "text_delta") block.text += delta.text;
    else if (delta.type === "thinking_delta") block.thinking += delta.thinking;
    else if (delta.type === "signature_delta") block.signature = (block.signature || "") + delta.signature;
    else if (delta.type === "input_json_delta") block.json += delta.partial_json;
  } else if (data.type === "content_block_stop" && block?.type === "tool_use") {
    block.input = block.json ? JSON.parse(block.json) : {};
    delete block.json;
  } else if (data.type === "message_delta") {
    turn.isComplete = true;
    const reason = data.delta?.stop_reason;
    if (reason === "max_tokens") turn.note = texts.cut;
    if (reason === "refusal") turn.note = texts.refused_by_model;
    turn.facts.output = data.usage?.output_tokens === undefined ? "" : String(data.usage.output_tokens);
  }
}

// What was cut off in the middle cannot be sent back to the model.
function finish(turn) {
  turn.content = turn.content.filter((block) => {
    if (block.type === "text") return block.text.trim();
    if (block.type === "thinking") return block.signature || turn.isComplete;
    return block.json === undefined;
  });
  if (!turn.content.length && !turn.note) turns = turns.filter((other) => other !== turn);
  view.show(turns);
}

async function readReceipt(turn) {
  for (let tries = 0; tries < RECEIPT_TRIES; tries += 1) {
    await new Promise((resolve) => { setTimeout(resolve, RECEIPT_PAUSE_MS); });
    if (!turns.includes(turn)) return;
    try {
      const answer = await fetch(form.dataset.receipts + turn.requestId);
      const receipt = answer.ok && !answer.redirected ? await answer.json() : {};
      if (receipt.is_posted) {
        turn.facts = receipt;
        const drawn = view.root.querySelectorAll(".turn")[turns.indexOf(turn)];
        view.showFacts(turn, drawn);
        keep();
        return;
      }
    } catch { /* tried again */ }
  }
}

function complain({ message, detail, isFree, retryAfter }) {
  const box = node("div", "notice notice--danger");
  const text = node("div", "");
  text.append(node("strong", "", message));
  if (detail) text.append(node("p", "muted small", detail));
  if (isFree) text.append(node("p", "small", texts.errors.nothing_charged + (retryAfter ? ` ${retryAfter} s` : "")));
  const again = node("button", "button", texts.retry);
  again.type = "button";
  again.addEventListener("click", () => { if (turns[turns.length - 1]?.role === "user") run(); });
  box.append(view.icon("triangle-alert"), text, again);
  find("problem").replaceChildren(box);
}

function say(text) {
  status.textContent = text;
  find("problem").replaceChildren();
}

function setRunning(isRunning) {
  find("run").hidden = isRunning;
  find("stop").hidden = !isRunning;
  if (isRunning) status.textContent = texts.running;
  else prompt.focus({ preventScroll: true });
}

function send(text) {
  if (!text.trim() || running) return;
  if (turns[turns.length - 1]?.role === "user") turns.pop();
  turns.push({ role: "user", content: text.trim() });
  prompt.value = "";
  run();
}

async function copy(place, button) {
  const { content } = turns[place];
  const text = typeof content === "string" ? content : content.map((block) => block.text || block.content || "").filter(Boolean).join("\n\n");
  await navigator.clipboard?.writeText(text).catch(() => {});
  button.replaceChildren(view.icon("check"));
  status.textContent = texts.copied;
}

function edit(place) {
  prompt.value = turns[place].content;
  turns = turns.slice(0, place);
  view.show(turns);
  say("");
  prompt.focus();
}

function retry(place) {
  turns = turns.slice(0, place);
  run();
}

function answer(results) {
  turns.push({ role: "user", content: results });
  run();
}

function seconds(ms) {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

function keep() {
  const fields = Object.fromEntries(FIELDS.map((name) => [name, name === "thinking" ? form.elements[name].checked : form.elements[name].value]));
  try {
    sessionStorage.setItem(kept, JSON.stringify({ turns, fields }));
  } catch { /* a conversation too long to keep is not kept */ }
}

function restore() {
  try {
    const found = JSON.parse(sessionStorage.getItem(kept) || "{}");
    turns = found.turns || [];
    for (const [name, value] of Object.entries(found.fields || {})) {
      if (name === "thinking") form.elements[name].checked = value;
      else if (name !== "model" || facts.models[value]) form.elements[name].value = value;
    }
  } catch {
    turns = [];
  }
}

function followModel() {
  const model = facts.models[form.elements.model.value] || {};
  find("model-id").textContent = form.elements.model.value;
  form.elements.max_tokens.max = model.max_tokens || "";
  find("thinking-choice").hidden = !model.thinking;
  find("budget").hidden = model.thinking !== "enabled" || !form.elements.thinking.checked;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  send(prompt.value);
});
form.addEventListener("change", () => {
  followModel();
  keep();
});
prompt.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send(prompt.value);
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && running) running.abort();
});
form.addEventListener("click", (event) => {
  const idea = event.target.closest("[data-idea]");
  if (idea) send(idea.textContent);
  if (event.target.closest("[data-stop]")) running?.abort();
  if (event.target.closest("[data-tools-example]")) form.elements.tools.value = JSON.stringify(EXAMPLE_TOOLS, null, 2);
});
document.querySelector("[data-clear]").addEventListener("click", () => {
  running?.abort();
  turns = [];
  view.show(turns);
  say("");
  keep();
  prompt.focus();
});
document.querySelector("[data-get-code]").addEventListener("click", () => {
  let request;
  try {
    request = compose();
  } catch {
    return;
  }
  if (!request.messages.length) request.messages = [{ role: "user", content: prompt.value.trim() || "Hello" }];
  const last = request.messages[request.messages.length - 1];
  if (last.role === "assistant" && request.messages.length > 1) request.messages.pop();
  for (const [name, text] of Object.entries(programs(request, facts.base_url))) document.getElementById(name).textContent = text;
  document.getElementById("code").showModal();
});

restore();
followModel();
view.show(turns);
