// What the pages do without the server: keys, selected rows, filters in the address, times that keep counting.
"use strict";

const one = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

// --- the dialogue of an action ---

document.addEventListener("htmx:afterSwap", (event) => {
  const dialog = one("#dialog");
  if (event.detail.target === dialog && !dialog.open) dialog.showModal();
  if (event.detail.target.id === "notices") dialog.close();
  if (event.detail.target.id === "dialog") one("[autofocus], input:not([type=hidden])", dialog)?.focus();
});
one("#dialog").addEventListener("close", (event) => {
  event.target.replaceChildren();
  // A number that was not confirmed: a part with a form in use would no longer be refreshed.
  for (const field of all("input[type=number]")) field.value = field.defaultValue;
});
document.addEventListener("htmx:afterSettle", () => { order(); freshen(); chosen(); arrive(); mark(); });
document.addEventListener("htmx:beforeRequest", (event) => {
  const part = event.detail.elt;
  // Automatic refreshes skip parts whose content is final, parts with a form in use, and where the keyboard is.
  const live = ["nexus:live", "every"].includes(event.detail.requestConfig.triggeringEvent?.type ?? "every");
  if (live && part.matches(".part") && one("*", part) && (one("[data-final], :focus-visible", part) || written(part))) event.preventDefault();
});
const written = (part) => all("textarea, input:not([type=hidden])", part).some((field) => field === document.activeElement || (field.type === "checkbox" ? field.checked !== field.defaultChecked : field.value !== field.defaultValue));
document.addEventListener("htmx:sendError", (event) => failed(event, "nexus web does not respond. Is it still running?"));
document.addEventListener("htmx:responseError", (event) => failed(event, event.detail.xhr.responseText.slice(0, 300)));

function failed(event, text) {
  const notice = Object.assign(document.createElement("p"), { className: "notice error", textContent: text });
  one("#notices").replaceChildren(notice);
  if (event.detail) one(".skeleton", event.detail.elt)?.remove();
}

document.addEventListener("click", (event) => {
  const target = event.target;
  if (target.closest("[data-close]")) one("#dialog").close();
  if (target.closest("[data-dismiss]")) target.closest(".notice").remove();
  if (target.closest("[data-help]")) one("#help").showModal();
  const chip = target.closest("[data-chip]");
  if (chip) filter(chip.dataset.chip, chip.ariaPressed === "true");
  const sort = target.closest("[data-sort]");
  if (sort) {
    const field = one("[name=sort]"), name = sort.dataset.sort;
    field.value = field.value === `-${name}` ? name : `-${name}`;
    order(); shown();
  }
});

// The browser looks for the place that an address names before the parts are there.
let place = location.hash.slice(1);
function arrive() {
  const there = place && document.getElementById(place);
  if (!there) return;
  place = "";
  there.scrollIntoView();
  there.focus();
}

// --- searching: the address holds the filters ---

function filter(word, away) {
  const field = one("#q");
  if (!field) { location.href = `/runs?q=${encodeURIComponent(quoted(word))}`; return; }
  const name = word.match(/^[^:=]*[:=]/)[0];
  const words = typed(field).filter((other) => !other.startsWith(name));
  field.value = [...words, ...(away ? [] : [quoted(word)])].join(" ");
  search();
}

// Words and quotation marks as `history.parse` reads them, which is as a POSIX shell does.
const typed = (field) => field.value.match(/([^\s"'\\]|\\[^]|"([^"\\]|\\[^])*"|'[^']*')+/g) || [];
const quoted = (word) => (/[\s"'\\]/.test(word) ? word.replace(/^([\w.]+[:=])?([^]*)$/, (_, name = "", value) => `${name}"${value.replace(/["\\]/g, "\\$&")}"`) : word);

function search() { htmx.trigger(one("[data-search]"), "nexus:search"); }

let after = new URLSearchParams(location.search).get("after"); // the page that "Older" has led to
function shown() {
  const form = one("[data-search]");
  if (!form) return;
  const asked = new URLSearchParams(new FormData(form));
  const usual = all("[name=col]", form).every((box) => box.checked === "usual" in box.dataset);
  if (usual) asked.delete("col");
  for (const name of ["q", "sort"]) if (!asked.get(name)) asked.delete(name);
  if (after) asked.set("after", after);
  const words = typed(one("#q"));
  for (const chip of all(".chips [data-chip]")) chip.ariaPressed = words.includes(chip.dataset.chip);
  history.replaceState(null, "", asked.size ? `?${asked}` : location.pathname);
  for (const link of all("[data-export]")) link.search = asked.get("q") ? `?q=${encodeURIComponent(asked.get("q"))}` : "";
}
document.addEventListener("htmx:afterRequest", (event) => { if (event.detail.elt.matches("[data-search]")) { after = null; shown(); } });
document.addEventListener("change", (event) => {
  if (event.target.matches("[name=col]")) search();
  if (event.target.matches("[data-tick-all]")) for (const box of all("[name=id]")) box.checked = event.target.checked;
  chosen();
});

// Sorts only the rows that are shown: the history itself is ordered by when runs were sent.
function order() {
  const sort = one("[name=sort]")?.value;
  const button = sort && one(`[data-sort="${CSS.escape(sort.replace("-", ""))}"]`);
  if (!button) return;
  const body = one("tbody", button.closest("table"));
  const value = (row) => { const cell = row.children[button.dataset.at]; return cell.dataset.value ?? cell.innerText; };
  const rows = [...body.children].sort((a, b) => value(a).localeCompare(value(b), "en", { numeric: true }));
  body.replaceChildren(...(sort.startsWith("-") ? rows.reverse() : rows));
  for (const other of all("[data-sort]")) other.parentElement.ariaSort = other !== button ? "none" : sort.startsWith("-") ? "descending" : "ascending";
}

function chosen() {
  const count = all("[name=id]:checked").length;
  for (const text of all("[data-chosen]")) text.textContent = count ? `${count} chosen` : "None chosen";
  for (const button of all("[data-needs]")) button.disabled = !count;
}

// --- times ---

function freshen() {
  const now = Date.now() / 1000;
  for (const time of all("time[data-at]")) {
    const away = now - Number(time.dataset.at);
    time.textContent = away >= 0 ? `${span(away)} ago` : `in ${span(-away)}`;
  }
  for (const time of all("time[data-local]")) {
    const shown = { weekday: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23", timeZoneName: "short" };
    const at = new Date(time.dateTime);
    time.textContent = at.getTimezoneOffset() ? at.toLocaleString("en-GB", shown) : ""; // UTC is shown beside it
  }
}

function span(seconds) {
  let left = Math.round(seconds);
  const parts = [];
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["m", 60], ["s", 1]]) {
    if (left >= size || (unit === "s" && !parts.length)) { parts.push(`${Math.floor(left / size)}${unit}`); left %= size; }
    else if (parts.length) break;
    if (parts.length === 2) break;
  }
  return parts.join(" ");
}
setInterval(freshen, 1000);

// --- automatic refreshes ---

let stream = null, opened = false;
function changed() {
  htmx.trigger(document.body, "nexus:live");
  if (!one("[data-live]")?.checked || all("[name=id]:checked").length) return;
  const page = one("[data-page]"); // the page of runs that is shown, which may be an older one
  if (page) htmx.trigger(page, "nexus:again"); else search();
}
function follow() {
  const wanted = !document.hidden && (one('[hx-trigger*="nexus:live"]') || one("[data-live]")?.checked);
  if (wanted && !stream) {
    stream = new EventSource("/changes");
    stream.addEventListener("changed", changed);
    // No event says what changed while the tab was hidden, or the connection lost.
    stream.addEventListener("open", () => { if (opened) { one("#notices .error")?.remove(); changed(); } opened = true; });
    stream.addEventListener("error", (event) => {
      if (event.target.readyState === EventSource.CLOSED) failed(event, "This page is no longer updated. Reload it, or open the address that nexus web printed.");
    });
  } else if (!wanted && stream) { stream.close(); stream = null; }
}
document.addEventListener("visibilitychange", follow);
document.addEventListener("change", follow);

// --- keys ---

let going = false;
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input:not([type=checkbox]), textarea, select") || one("dialog[open]")) return;
  const page = going && one(`nav [data-key="${CSS.escape(event.key)}"]`);
  going = event.key === "g";
  if (page) { page.click(); return; }
  const act = { "/": () => (one("#q") ? one("#q").focus() : (location.href = "/runs")), "?": () => one("#help").showModal(), j: () => step(1), k: () => step(-1), Enter: () => { if (row()) one("a.id, td a", row())?.click(); }, x: () => { if (row()) one("[name=id]", row())?.click(); } }[event.key];
  if (!act || (event.key === "Enter" && event.target !== document.body)) return;
  event.preventDefault();
  act();
});

let selected = null; // the address of the selected row, which a refresh replaces
const row = () => one("tr.here");
function step(by) {
  const rows = all("[data-rows] tbody tr");
  if (!rows.length) return;
  const at = Math.min(rows.length - 1, Math.max(0, rows.indexOf(row()) + by));
  row()?.classList.remove("here");
  selected = one("a.id, td a", rows[at])?.getAttribute("href");
  rows[at].classList.add("here");
  rows[at].scrollIntoView({ block: "nearest" });
}
function mark() {
  if (selected && !row()) one(`[data-rows] tbody a[href="${CSS.escape(selected)}"]`)?.closest("tr").classList.add("here");
}

document.addEventListener("DOMContentLoaded", () => {
  shown(); freshen(); follow();
});
