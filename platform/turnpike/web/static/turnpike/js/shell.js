// Theme, menus, dialogs, copying, the drawer: bound by data-*, one listener for each kind of event.
const root = document.documentElement;

function setTheme(theme) {
  if (theme === "auto") {
    delete root.dataset.theme;
  } else {
    root.dataset.theme = theme;
  }
  document.cookie = `turnpike_theme=${theme};path=/;max-age=31536000;samesite=lax`;
  for (const button of document.querySelectorAll("[data-set-theme]")) {
    button.setAttribute("aria-pressed", String(button.dataset.setTheme === theme));
  }
}

async function copy(button) {
  const source = button.dataset.copyFrom && document.getElementById(button.dataset.copyFrom);
  const text = source ? source.textContent.trim() : button.dataset.copy;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    (button.closest("dialog") || document.body).append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  button.dataset.copied = "";
  button.setAttribute("aria-label", button.dataset.copiedLabel);
  setTimeout(() => {
    delete button.dataset.copied;
    button.removeAttribute("aria-label");
  }, 2000);
}

function openNavigation(isOpen) {
  if (isOpen) {
    root.dataset.nav = "open";
    document.querySelector(".side a, .side summary")?.focus();
  } else {
    delete root.dataset.nav;
  }
  const toggle = document.querySelector("[data-nav-toggle]");
  toggle?.setAttribute("aria-expanded", String(isOpen));
}

function closeMenus(except) {
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (menu !== except) menu.open = false;
  }
}

document.addEventListener("click", (event) => {
  const target = event.target.closest("[data-set-theme],[data-copy],[data-copy-from],[data-open-dialog],[data-close-dialog],[data-nav-toggle],[data-nav-close],[data-tab]");
  closeMenus(event.target.closest("details.menu"));
  if (!target) return;
  const { dataset } = target;
  if ("setTheme" in dataset) setTheme(dataset.setTheme);
  else if ("copy" in dataset || "copyFrom" in dataset) copy(target);
  else if ("openDialog" in dataset) {
    closeMenus();
    document.getElementById(dataset.openDialog)?.showModal();
  } else if ("closeDialog" in dataset) target.closest("dialog")?.close();
  else if ("navToggle" in dataset) openNavigation(!("nav" in root.dataset));
  else if ("navClose" in dataset) openNavigation(false);
  else if ("tab" in dataset) showTab(target);
});

function showTab(tab) {
  const group = tab.closest("[data-tabs]");
  for (const other of group.querySelectorAll("[data-tab]")) {
    const isChosen = other === tab;
    other.setAttribute("aria-selected", String(isChosen));
    other.tabIndex = isChosen ? 0 : -1;
    document.getElementById(other.getAttribute("aria-controls")).hidden = !isChosen;
  }
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    closeMenus();
    openNavigation(false);
  }
  const tab = event.target.closest?.("[data-tab]");
  if (tab && (event.key === "ArrowRight" || event.key === "ArrowLeft")) {
    const tabs = [...tab.closest("[data-tabs]").querySelectorAll("[data-tab]")];
    const step = event.key === "ArrowRight" ? 1 : -1;
    const next = tabs[(tabs.indexOf(tab) + step + tabs.length) % tabs.length];
    showTab(next);
    next.focus();
  }
});

// What must be typed before a button works: `data-confirm` holds it.
document.addEventListener("input", (event) => {
  const { confirm } = event.target.dataset;
  if (confirm === undefined) return;
  event.target.form.querySelector("[type=submit]").disabled = event.target.value.trim() !== confirm;
});

document.addEventListener("change", (event) => {
  if (event.target.closest("[data-submit-on-change]")) event.target.form.requestSubmit();
});

// A field that says which others are shown: `data-shows` names a group, `data-shown-for` its values.
document.addEventListener("change", (event) => {
  const group = event.target.dataset.shows;
  if (group === undefined) return;
  for (const part of document.querySelectorAll(`[data-group="${group}"]`)) {
    part.hidden = part.dataset.shownFor !== event.target.value;
  }
});

for (const dialog of document.querySelectorAll("dialog[data-open-at-start]")) dialog.showModal();
document.addEventListener("click", (event) => {
  if (event.target.matches?.("dialog.dialog:not([data-stays])")) {
    const box = event.target.getBoundingClientRect();
    const isInside = event.clientX >= box.left && event.clientX <= box.right && event.clientY >= box.top && event.clientY <= box.bottom;
    if (!isInside) event.target.close();
  }
});
