/* Formulas are set after the page has loaded, a few at a time, those in sight first: a page full of them can be read
   and scrolled at once. MathJax.startup.promise is kept when all are set. */
(() => {
  const FEW = 60;
  const pause = () => new Promise((go) => setTimeout(go));
  const loaded = () => new Promise((go) => (document.readyState === "complete" ? go() : addEventListener("load", go)));
  const distance = (element) => {
    const { top, bottom } = element.getBoundingClientRect();
    return bottom < 0 ? innerHeight - bottom : Math.max(0, top - innerHeight);
  };

  // A table that scrolls can be reached by keyboard; one that fits is no stop on the way.
  const reachable = () => {
    for (const table of document.querySelectorAll(".bd-article table")) {
      if (table.scrollWidth > table.clientWidth) table.tabIndex = 0;
      else table.removeAttribute("tabindex");
    }
  };
  addEventListener("load", reachable);
  addEventListener("resize", reachable);

  async function setAll() {
    await loaded();
    await pause();
    let moved = false;
    for (const kind of ["wheel", "touchmove", "keydown", "pointerdown"]) addEventListener(kind, () => (moved = true), { once: true, passive: true });
    const places = [...document.querySelectorAll(".math, .output_area")].filter((e) => !e.parentElement.closest(".output_area"));
    const far = new Map(places.map((e) => [e, distance(e)]));
    places.sort((a, b) => far.get(a) - far.get(b));
    while (places.length) {
      await MathJax.typesetPromise(places.splice(0, FEW));
      await pause();
    }
    reachable();
    // What was set above has moved the place that the address names.
    if (location.hash && !moved) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
  }

  window.MathJax = { ...window.MathJax, startup: { typeset: false, pageReady: setAll } };
})();
