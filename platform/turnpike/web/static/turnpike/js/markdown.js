// The Markdown that models write, as elements: nothing of it is ever parsed as HTML.
const INLINE = /(`[^`\n]+`)|(\*\*[^*\n]+\*\*)|(\*[^*\s][^*\n]*\*)|\[([^\]\n]+)\]\((https?:\/\/[^\s)]+)\)/g;

export function renderMarkdown(text, root) {
  const parts = [];
  const lines = text.split("\n");
  for (let at = 0; at < lines.length; ) at = block(lines, at, parts);
  root.replaceChildren(...parts);
}

function block(lines, at, parts) {
  const line = lines[at];
  if (line.startsWith("```")) return fence(lines, at, parts);
  const heading = /^#{1,6}\s+(.*)/.exec(line);
  if (heading) {
    parts.push(element("h3", heading[1]));
    return at + 1;
  }
  if (/^\s*([-*+]|\d+[.)])\s+/.test(line)) return list(lines, at, parts);
  if (line.startsWith(">")) return run(lines, at, parts, "blockquote", (text) => text.startsWith(">"), (text) => text.replace(/^>\s?/, ""));
  if (!line.trim()) return at + 1;
  const isText = (text) => text.trim() && !/^(```|#{1,6}\s|>|\s*([-*+]|\d+[.)])\s)/.test(text);
  return run(lines, at, parts, "p", (text, first) => first || isText(text), (text) => text);
}

function fence(lines, at, parts) {
  const rest = lines.findIndex((line, place) => place > at && line.startsWith("```"));
  const end = rest < 0 ? lines.length : rest;
  const pre = document.createElement("pre");
  const code = document.createElement("code");
  pre.tabIndex = 0;
  code.textContent = lines.slice(at + 1, end).join("\n");
  pre.append(code);
  parts.push(pre);
  return end + 1;
}

function list(lines, at, parts) {
  const isOrdered = /^\s*\d/.test(lines[at]);
  const made = document.createElement(isOrdered ? "ol" : "ul");
  if (isOrdered) made.start = Number(/\d+/.exec(lines[at])[0]);
  while (at < lines.length) {
    const item = /^\s*(?:[-*+]|\d+[.)])\s+(.*)/.exec(lines[at]);
    if (item) made.append(element("li", item[1]));
    else if (lines[at].startsWith("  ") && lines[at].trim()) made.lastElementChild.append(" ", ...inline(lines[at].trim()));
    else break;
    at += 1;
  }
  parts.push(made);
  return at;
}

function run(lines, at, parts, name, belongs, clean) {
  const made = document.createElement(name);
  const start = at;
  while (at < lines.length && belongs(lines[at], at === start)) {
    if (at > start) made.append(document.createElement("br"));
    made.append(...inline(clean(lines[at])));
    at += 1;
  }
  parts.push(made);
  return at;
}

function element(name, text) {
  const made = document.createElement(name);
  made.append(...inline(text));
  return made;
}

function inline(text) {
  const parts = [];
  let end = 0;
  for (const found of text.matchAll(INLINE)) {
    if (found.index > end) parts.push(text.slice(end, found.index));
    parts.push(styled(found));
    end = found.index + found[0].length;
  }
  if (end < text.length) parts.push(text.slice(end));
  return parts;
}

function styled([whole, code, strong, emphasis, label, address]) {
  const made = document.createElement(code ? "code" : strong ? "strong" : emphasis ? "em" : "a");
  made.textContent = code ? code.slice(1, -1) : strong ? strong.slice(2, -2) : emphasis ? emphasis.slice(1, -1) : label;
  if (address) {
    made.href = address;
    made.rel = "noopener noreferrer";
    made.target = "_blank";
  }
  return whole ? made : document.createTextNode("");
}
