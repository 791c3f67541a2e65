// Which exercises this reader has solved: kept in this browser's localStorage, sent nowhere.
(() => {
  const KEY = "solved-exercises";
  const read = () => {
    try { return new Set(JSON.parse(localStorage.getItem(KEY)) ?? []); } catch { return new Set(); }
  };
  const write = (solved) => {
    try { localStorage.setItem(KEY, JSON.stringify([...solved])); } catch { /* storage is switched off */ }
  };
  const boxes = [];
  const note = document.createElement("p");

  function show() {
    const solved = read();
    for (const box of boxes) box.checked = solved.has(box.dataset.exercise);
    const done = boxes.filter((box) => box.checked).length;
    note.textContent = `${done} of ${boxes.length} solved, as marked in this browser.`;
  }

  function box(id, text, hidden) {
    const label = document.createElement("label"), input = document.createElement("input");
    input.type = "checkbox";
    input.dataset.exercise = id;
    input.addEventListener("change", () => {
      const solved = read();
      input.checked ? solved.add(id) : solved.delete(id);
      write(solved);
      show();
    });
    label.className = "solved";
    label.style.cssText = "display:inline-flex;gap:.4em;align-items:center;min-width:24px;min-height:24px";
    label.append(input, hidden ? "" : text);
    if (hidden) input.setAttribute("aria-label", text);
    boxes.push(input);
    return label;
  }

  function start() {
    for (const exercise of document.querySelectorAll("div.exercise[id^='ex-']"))
      exercise.append(box(exercise.id, "Solved"));
    const tables = document.querySelectorAll("table.exercise-list");
    for (const table of tables) {
      const head = document.createElement("th");
      head.textContent = "solved";
      head.scope = "col";
      table.tHead.rows[0].prepend(head);
      for (const row of table.tBodies[0].rows) {
        const link = row.querySelector("a[href*='#ex-']"), cell = document.createElement("td");
        cell.append(box(link.hash.slice(1), `${link.textContent} solved`, true));
        row.prepend(cell);
      }
    }
    if (tables.length) {
      const clear = document.createElement("button"), place = document.getElementById("progress");
      clear.type = "button";
      clear.textContent = "Forget my progress";
      clear.className = "btn btn-outline-primary";
      clear.addEventListener("click", () => { write(new Set()); show(); });
      note.setAttribute("role", "status");
      place.append(note, clear);
    }
    show();
    addEventListener("storage", show);
  }
  document.readyState === "loading" ? addEventListener("DOMContentLoaded", start) : start();
})();
