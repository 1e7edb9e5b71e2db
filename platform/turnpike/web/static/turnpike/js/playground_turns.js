// What a turn of the conversation looks like. Text goes in as text, never as HTML.
import { renderMarkdown } from "./markdown.js";

export class TurnsView {
  constructor({ root, empty, icons, texts, on }) {
    Object.assign(this, { root, empty, icons, texts, on });
  }

  // Draws all turns anew; cheap, since a conversation is short.
  show(turns, { isRunning = false } = {}) {
    this.empty.hidden = turns.length > 0;
    const drawn = turns.map((turn, place) => this.turn(turn, place, { isLast: place === turns.length - 1, isRunning }));
    this.root.replaceChildren(this.empty, ...drawn);
    this.toEnd(true);
  }

  // Draws the last turn anew while it is being written.
  refresh(turn) {
    const last = this.root.lastElementChild;
    this.fill(last.querySelector(".turn__body"), turn, { isLast: true, isRunning: true });
    this.toEnd(false);
  }

  showFacts(turn, element = this.root.lastElementChild) {
    element?.querySelector(".runfacts")?.replaceWith(this.facts(turn));
    this.toEnd(false);
  }

  toEnd(isForced) {
    const { scrollHeight, scrollTop, clientHeight } = this.root;
    if (isForced || scrollHeight - scrollTop - clientHeight < 120) this.root.scrollTop = scrollHeight;
  }

  turn(turn, place, state) {
    const isUser = turn.role === "user";
    const made = node("article", `turn turn--${turn.role}`);
    const head = node("div", "turn__head");
    head.append(node("span", "", isUser ? this.texts.you : turn.model), this.actions(turn, place, state));
    const body = node("div", "turn__body");
    this.fill(body, turn, state);
    made.append(head, body);
    if (!isUser) made.append(this.facts(turn));
    if (!isUser && state.isLast && state.isRunning) made.setAttribute("aria-busy", "true");
    return made;
  }

  actions(turn, place, { isLast, isRunning }) {
    const made = node("span", "turn__actions");
    if (isRunning) return made;
    made.append(this.button("copy", this.texts.copy, (event) => this.on.copy(place, event.currentTarget)));
    if (turn.role === "user" && typeof turn.content === "string") {
      made.append(this.button("arrow-left", this.texts.edit, () => this.on.edit(place)));
    } else if (isLast && turn.role === "assistant") {
      made.append(this.button("rotate-cw", this.texts.retry, () => this.on.retry(place)));
    }
    return made;
  }

  button(icon, label, act) {
    const made = node("button", "button button--quiet button--icon");
    made.type = "button";
    made.title = label;
    made.setAttribute("aria-label", label);
    made.append(this.icon(icon));
    made.addEventListener("click", act);
    return made;
  }

  icon(name) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    made.setAttribute("class", "icon");
    made.setAttribute("aria-hidden", "true");
    const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
    use.setAttribute("href", `${this.icons}#${name}`);
    made.append(use);
    return made;
  }

  fill(body, turn, { isLast, isRunning }) {
    if (typeof turn.content === "string") {
      body.textContent = turn.content;
      return;
    }
    const wasOpen = body.querySelector(".thought")?.open;
    const parts = turn.content.map((block) => this.block(block, { isOpen: wasOpen ?? isRunning })).filter(Boolean);
    if (!parts.length && isLast && isRunning) parts.push(waiting());
    const calls = turn.content.filter((block) => block.type === "tool_use");
    if (calls.length && isLast && !isRunning) parts.push(this.answerForm(calls));
    body.replaceChildren(...parts);
  }

  block(block, { isOpen }) {
    if (block.type === "text") {
      const made = node("div", "prose");
      renderMarkdown(block.text, made);
      return made;
    }
    if (block.type === "thinking") {
      if (!block.thinking) return null;
      const made = node("details", "thought");
      made.open = isOpen;
      made.append(node("summary", "", this.texts.thought), node("p", "", block.thinking));
      return made;
    }
    if (block.type === "tool_use") return this.card(this.texts.tool_wants, block.name, block.json ?? JSON.stringify(block.input, null, 2));
    if (block.type === "tool_result") return this.card(this.texts.tool_result, "", block.content);
    return null;
  }

  card(title, name, text) {
    const made = node("div", "toolcall");
    const head = node("div", "toolcall__head");
    head.append(this.icon("settings"), node("span", "", title));
    if (name) head.append(node("code", "chip", name));
    const pre = node("pre", "");
    pre.tabIndex = 0;
    pre.append(node("code", "", text));
    made.append(head, pre);
    return made;
  }

  answerForm(calls) {
    const made = node("div", "toolcall toolcall__answer");
    const fields = calls.map((call) => {
      const label = node("label", "field");
      const area = node("textarea", "input input--mono");
      area.rows = 3;
      label.append(node("span", "field__label", `${this.texts.tool_result}: ${call.name}`), area);
      made.append(label);
      return { call, area };
    });
    const send = node("button", "button", this.texts.send_result);
    send.type = "button";
    send.addEventListener("click", () => this.on.answer(fields.map(({ call, area }) => ({ type: "tool_result", tool_use_id: call.id, content: area.value }))));
    const row = node("div", "row");
    row.append(send);
    made.append(row);
    return made;
  }

  facts(turn) {
    const made = node("p", "runfacts");
    const { facts, texts } = { facts: turn.facts || {}, texts: this.texts };
    const figure = (value, label) => {
      if (!value) return;
      const part = node("span", "");
      part.append(node("b", "", value), ` ${label}`);
      made.append(part);
    };
    if (turn.note) made.append(node("span", "badge badge--warn", turn.note));
    figure(facts.input, texts.input);
    figure(facts.cached, texts.cached);
    figure(facts.output, texts.output);
    figure(facts.ttft, texts.first);
    figure(facts.duration, texts.total);
    if (facts.cost) figure(facts.cost, texts.cost);
    else if (turn.requestId && facts.duration) made.append(node("span", "faint", texts.counting));
    if (facts.log) {
      const link = node("a", "chip", turn.requestId);
      link.href = facts.log;
      link.title = texts.log;
      made.append(link);
    } else if (turn.requestId) {
      made.append(node("span", "chip", turn.requestId));
    }
    return made;
  }
}

export function node(name, kind, text) {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  if (text !== undefined) made.textContent = text;
  return made;
}

function waiting() {
  const made = node("div", "turn__wait");
  made.append(node("i"), node("i"), node("i"));
  return made;
}
