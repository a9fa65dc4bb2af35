// Bring the list of campaigns up to date every few seconds, unless the reader paused it or looks elsewhere.
"use strict";
(() => {
  const box = document.querySelector("[data-campaigns]"), time = document.querySelector("[data-updated] time");
  const button = document.querySelector("[data-pause]");
  let paused = false;
  button.hidden = false;
  button.addEventListener("click", () => { paused = !paused; button.setAttribute("aria-pressed", String(paused)); });
  // The time is shown, not spoken: a screen reader would say it without end.
  document.querySelector("[data-updated]").setAttribute("aria-live", "off");
  setInterval(async () => {
    if (paused || document.hidden || box.contains(document.activeElement)) return;
    try {
      const answer = await fetch(`${box.dataset.campaigns}?part=list`);
      if (!answer.ok) return;
      // Markup of this node itself, escaped by its templates.
      box.replaceChildren(...new DOMParser().parseFromString(await answer.text(), "text/html").body.children);
      time.textContent = new Date().toISOString().slice(11, 19) + " UTC";
    } catch { /* the node is away for the moment: the next turn tries again */ }
  }, 5000);
})();
