// A double click on a button that acts sends its form once.
{
  let sent = new WeakSet();
  document.addEventListener("submit", (event) => {
    if (event.defaultPrevented || !event.target.matches("form[data-once], #changelist-form")) return;
    if (sent.has(event.target)) event.preventDefault();
    sent.add(event.target);
  });
  // A form that is shown again, as by the Back button, may be sent again.
  window.addEventListener("pageshow", () => { sent = new WeakSet(); });
}
