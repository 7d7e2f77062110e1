// What the pages do without the server: keys, chosen rows, filters in the address, times that stay true.
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
one("#dialog").addEventListener("close", (event) => event.target.replaceChildren());
document.addEventListener("htmx:afterSettle", () => { freshen(); chosen(); });
document.addEventListener("htmx:sendError", (event) => failed(event, "nexus web does not answer. Is it still running?"));
document.addEventListener("htmx:responseError", (event) => failed(event, event.detail.xhr.responseText.slice(0, 300)));

function failed(event, text) {
  const notice = Object.assign(document.createElement("p"), { className: "notice error", textContent: text });
  one("#notices").replaceChildren(notice);
  one(".skeleton", event.detail.elt)?.remove();
}

document.addEventListener("click", (event) => {
  const target = event.target;
  if (target.closest("[data-close]")) one("#dialog").close();
  if (target.closest("[data-dismiss]")) target.closest(".notice").remove();
  if (target.closest("[data-help]")) one("#help").showModal();
  const chip = target.closest("[data-chip]");
  if (chip) filter(chip.dataset.chip);
  const sort = target.closest("[data-sort]");
  if (sort) order(sort);
});

// --- searching: the address says what is shown ---

function filter(word) {
  const field = one("#q");
  if (!field) { location.href = `/runs?q=${encodeURIComponent(quoted(word))}`; return; }
  const name = word.match(/^[^:=]*[:=]/)[0];
  const words = (field.value.match(/[^\s"]*"[^"]*"|\S+/g) || []).filter((other) => !other.startsWith(name));
  field.value = [...words, quoted(word)].join(" ");
  search();
}

const quoted = (word) => (/\s/.test(word) ? word.replace(/([:=])(.*)/, '$1"$2"') : word);

function search() { htmx.trigger(one("[data-search]"), "nexus:search"); }

function told() {
  const form = one("[data-search]");
  if (!form) return;
  const asked = new URLSearchParams(new FormData(form));
  const usual = all("[name=col]", form).every((box) => box.checked === box.defaultChecked);
  if (usual) asked.delete("col");
  if (!asked.get("q")) asked.delete("q");
  history.replaceState(null, "", asked.size ? `?${asked}` : location.pathname);
  for (const link of all("[data-export]")) link.search = asked.get("q") ? `?q=${encodeURIComponent(asked.get("q"))}` : "";
}
document.addEventListener("htmx:afterRequest", (event) => { if (event.detail.elt.matches("[data-search]")) told(); });
document.addEventListener("change", (event) => {
  if (event.target.matches("[name=col]")) search();
  if (event.target.matches("[data-tick-all]")) for (const box of all("[name=id]")) box.checked = event.target.checked;
  chosen();
});

function order(button) {
  const body = one("tbody", button.closest("table"));
  const down = button.dataset.down !== "true";
  const value = (row) => row.children[button.dataset.sort - 1].dataset.value ?? row.children[button.dataset.sort - 1].innerText;
  const rows = [...body.children].sort((a, b) => value(a).localeCompare(value(b), "en", { numeric: true }));
  body.replaceChildren(...(down ? rows.reverse() : rows));
  button.dataset.down = down;
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
    const shown = { weekday: "short", hour: "2-digit", minute: "2-digit", timeZoneName: "short" };
    time.textContent = new Date(time.dateTime).toLocaleString([], shown);
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

// --- what changes by itself ---

let stream = null;
function follow() {
  const wanted = !document.hidden && (one('[hx-trigger*="nexus:live"]') || one("[data-live]")?.checked);
  if (wanted && !stream) {
    stream = new EventSource("/changes");
    stream.addEventListener("changed", () => {
      htmx.trigger(document.body, "nexus:live");
      if (one("[data-live]")?.checked && !all("[name=id]:checked").length) search();
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

const row = () => one("tr.here");
function step(by) {
  const rows = all("[data-rows] tbody tr");
  if (!rows.length) return;
  const at = Math.min(rows.length - 1, Math.max(0, rows.indexOf(row()) + by));
  row()?.classList.remove("here");
  rows[at].classList.add("here");
  rows[at].scrollIntoView({ block: "nearest" });
}

document.addEventListener("DOMContentLoaded", () => {
  const columns = new URLSearchParams(location.search).getAll("col");
  if (columns.length) for (const box of all("[name=col]")) box.checked = columns.includes(box.value);
  told(); freshen(); follow();
});
