// The command palette, `g` and a letter, and keys of a page: everything is reached without a mouse.
const WAIT_MS = 120;
const SEQUENCE_MS = 1500;
const palette = document.getElementById("palette");
const input = palette.querySelector("input");
const list = palette.querySelector("ul");
const none = palette.querySelector(".palette__none");
let items = [];
let chosen = 0;
let asked = 0;
let timer = 0;
// No `g` was pressed yet: a page that has just opened is not in the middle of a sequence.
let begunAt = -Infinity;

function pages() {
  return [...document.querySelectorAll(".nav a, .top__right .menu__list a")].map((link) => ({
    title: link.textContent.trim(),
    note: palette.dataset.page,
    icon: link.querySelector("use")?.getAttribute("href").split("#")[1] || "chevron-right",
    href: link.href,
  }));
}

function matches(title, words) {
  const folded = title.toLowerCase();
  return words.toLowerCase().split(/\s+/).every((word) => folded.includes(word));
}

function open() {
  if (palette.open) return;
  palette.showModal();
  input.value = "";
  search();
}

function search() {
  const words = input.value.trim();
  show(pages().filter((page) => matches(page.title, words)));
  clearTimeout(timer);
  asked += 1;
  if (words && palette.dataset.find) timer = setTimeout(() => ask(words, asked), WAIT_MS);
}

async function ask(words, turn) {
  try {
    const answer = await fetch(`${palette.dataset.find}?q=${encodeURIComponent(words)}`);
    if (!answer.ok || answer.redirected) return;
    const found = await answer.json();
    if (turn === asked) show([...items.filter((item) => item.note === palette.dataset.page), ...found.items]);
  } catch { /* the pages are there without it */ }
}

function show(found) {
  items = found;
  chosen = 0;
  list.replaceChildren(...found.map(option));
  none.hidden = found.length > 0;
  mark();
}

function option(item, place) {
  const made = document.createElement("li");
  made.id = `palette-${place}`;
  made.setAttribute("role", "option");
  made.className = "palette__item";
  const icon = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  icon.setAttribute("class", "icon");
  icon.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `${palette.dataset.icons}#${item.icon}`);
  icon.append(use);
  const title = document.createElement("span");
  title.textContent = item.title;
  const note = document.createElement("span");
  note.className = "palette__note";
  note.textContent = item.note;
  made.append(icon, title, note);
  made.addEventListener("click", () => go(item));
  made.addEventListener("pointermove", () => {
    if (chosen !== place) {
      chosen = place;
      mark();
    }
  });
  return made;
}

function mark() {
  for (const [place, made] of [...list.children].entries()) made.setAttribute("aria-selected", String(place === chosen));
  const now = list.children[chosen];
  if (now) input.setAttribute("aria-activedescendant", now.id);
  else input.removeAttribute("aria-activedescendant");
  now?.scrollIntoView({ block: "nearest" });
}

function go(item) {
  palette.close();
  location.assign(item.href);
}

input.addEventListener("input", search);
input.addEventListener("keydown", (event) => {
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    const step = event.key === "ArrowDown" ? 1 : -1;
    chosen = items.length ? (chosen + step + items.length) % items.length : 0;
    mark();
  } else if (event.key === "Enter" && !event.isComposing && items[chosen]) {
    event.preventDefault();
    go(items[chosen]);
  }
});

document.addEventListener("click", (event) => {
  if (event.target.closest("[data-palette]")) open();
});

document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
    event.preventDefault();
    open();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || isBusy(event.target)) return;
  if (event.key === "?") document.getElementById("shortcuts").showModal();
  else if (performance.now() - begunAt < SEQUENCE_MS) jump(event);
  else if (event.key === "g") begunAt = performance.now();
  else press(event);
});

// Letters that are typed into something, and keys of an open dialog or menu, are not ours.
function isBusy(target) {
  return target.closest?.("input, textarea, select, [contenteditable], [role=tablist]") || document.querySelector("dialog[open], details.menu[open]");
}

function jump(event) {
  begunAt = -Infinity;
  const link = document.querySelector(`.nav a[data-letter="${CSS.escape(event.key)}"]`);
  if (link) location.assign(link.href);
}

function press(event) {
  const link = document.querySelector(`a[data-key="${CSS.escape(event.key)}"]`);
  if (!link || (event.key.startsWith("Arrow") && event.target.closest?.("pre, [tabindex]:not(main)"))) return;
  event.preventDefault();
  location.assign(link.href);
}
