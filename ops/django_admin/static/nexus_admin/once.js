// A double click on a confirmation sends it once.
for (const form of document.querySelectorAll("form[data-once]")) {
  let sent = false;
  form.addEventListener("submit", (event) => {
    if (sent) event.preventDefault();
    sent = true;
  });
  // Back at the question, it may be confirmed again.
  window.addEventListener("pageshow", () => { sent = false; });
}
