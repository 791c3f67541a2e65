// Cards beside links: what a word of the glossary means, which work is cited. Shown on hover, focus and tap; Escape closes.
// The cards lie hidden in the page (theme/cards.py); a link names its own by aria-describedby.
(() => {
  const GAP = 8, REST = 150, GRACE = 250; // pixels; milliseconds before a card shows under a mouse, and before it goes
  const LINKS = "a[aria-describedby^='card-']";

  function start() {
    const box = document.querySelector(".book-cards");
    if (!box) return;
    document.body.append(box); // out of anything that clips or scrolls
    const cards = [...box.children];
    let link = null, timer = 0, byTouch = false;

    const later = (what, wait) => { clearTimeout(timer); timer = setTimeout(what, wait); };

    function place() {
      const lines = link.getClientRects(), at = lines[0] ?? link.getBoundingClientRect(), last = lines[lines.length - 1] ?? at;
      const { width, height } = box.getBoundingClientRect(), wide = document.documentElement.clientWidth;
      const below = last.bottom + GAP, above = at.top - GAP - height;
      const top = below + height <= innerHeight - GAP || above < GAP ? Math.min(below, innerHeight - GAP - height) : above;
      box.style.left = `${Math.max(GAP, Math.min(at.left, wide - GAP - width))}px`;
      box.style.top = `${Math.max(GAP, top)}px`;
    }

    function show(target, tapped = false) {
      clearTimeout(timer);
      link = target;
      for (const card of cards) card.hidden = card.id !== link.getAttribute("aria-describedby");
      box.classList.toggle("tapped", tapped);
      box.hidden = false;
      place();
    }

    function hide() {
      clearTimeout(timer);
      link = null;
      box.hidden = true;
    }

    for (const a of document.querySelectorAll(LINKS)) {
      a.addEventListener("pointerenter", (e) => { if (e.pointerType !== "touch") later(() => show(a), REST); });
      a.addEventListener("pointerleave", (e) => { if (e.pointerType !== "touch") later(hide, GRACE); });
      a.addEventListener("pointerdown", (e) => { byTouch = e.pointerType === "touch"; });
      a.addEventListener("focus", () => { if (a.matches(":focus-visible") && !byTouch) show(a); });
      a.addEventListener("blur", hide);
      a.addEventListener("click", (e) => {
        if (!byTouch) return;
        byTouch = false;
        if (link === a) return hide(); // the second tap: go there
        e.preventDefault();
        show(a, true);
      });
    }
    box.addEventListener("pointerenter", () => clearTimeout(timer)); // a card can be read and copied under the mouse
    box.addEventListener("pointerleave", (e) => { if (e.pointerType !== "touch") later(hide, GRACE); });
    addEventListener("keydown", (e) => { if (e.key === "Escape" && link) hide(); });
    addEventListener("pointerdown", (e) => { if (link && !box.contains(e.target) && !e.target.closest(LINKS)) hide(); });
    addEventListener("scroll", () => { if (link) place(); }, { passive: true, capture: true });
    addEventListener("resize", () => { if (link) place(); });
  }

  document.readyState === "loading" ? addEventListener("DOMContentLoaded", start) : start();
})();
