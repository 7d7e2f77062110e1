// A double click on a button that acts sends its form once.
{
  let sent = new WeakSet();
  document.addEventListener("submit", (event) => {
    if (event.defaultPrevented || !event.target.matches("form[data-once], #changelist-form")) return;
    if (sent.has(event.target)) event.preventDefault();
    sent.add(event.target);
  });
  // Whoever comes back to the form may send it again.
  window.addEventListener("pageshow", () => { sent = new WeakSet(); });
}
