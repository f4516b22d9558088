"use strict";
(() => {
  const keyOf = (row, column) => row.cells[column].dataset.key;

  function compare(a, b) {
    const [x, y] = [Number(a), Number(b)];
    if (a !== "" && b !== "" && !Number.isNaN(x) && !Number.isNaN(y)) return x - y;
    return a.localeCompare(b, undefined, { numeric: true });
  }

  // A first click sorts ascending, a second descending; what is not defined stays last.
  function sort(heading) {
    const table = heading.closest("table");
    const body = table.tBodies[0];
    const down = heading.getAttribute("aria-sort") === "ascending";
    for (const other of heading.parentNode.cells) other.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const column = heading.cellIndex;
    const rows = [...body.rows].sort((one, two) => {
      const [a, b] = [keyOf(one, column), keyOf(two, column)];
      if (a === "" || b === "") return (a === "") - (b === "");
      return down ? compare(b, a) : compare(a, b);
    });
    body.append(...rows);
  }

  for (const button of document.querySelectorAll("th button")) {
    button.addEventListener("click", () => sort(button.closest("th")));
  }

  // Rows that hold every word stay.
  function filter(field) {
    const table = document.getElementById(field.dataset.filters);
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = [...table.tBodies[0].rows];
    for (const row of rows) {
      const text = [...row.cells].map((each) => each.textContent).join(" ").toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
    const shown = rows.filter((row) => !row.hidden).length;
    const count = document.querySelector(`[data-counts="${field.dataset.filters}"]`);
    const lines = rows.length === 1 ? "line" : "lines";
    count.textContent = shown < rows.length ? `${shown} of ${rows.length} lines` : `${shown} ${lines}`;
  }

  for (const field of document.querySelectorAll("[data-filters]")) {
    field.addEventListener("input", () => filter(field));
  }

  // The dialog closes by Escape of itself, and gives the focus back.
  const dialog = document.getElementById("large");
  const inside = dialog.querySelector("button");
  inside.addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", () => dialog.close());
  for (const button of document.querySelectorAll(".zoom")) {
    button.addEventListener("click", () => {
      const figure = button.firstElementChild.cloneNode(true);
      const [, , width, height] = figure.getAttribute("viewBox").split(" ").map(Number);
      const side = Math.min(innerWidth * 0.92, (innerHeight * 0.88 * width) / height);
      figure.style.width = `${side}px`;
      const title = document.createElement("p");
      title.textContent = button.getAttribute("aria-label").replace("Enlarge: ", "");
      inside.replaceChildren(title, figure);
      dialog.showModal();
    });
  }

  // Paper has nothing to click: everything is printed open.
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const each of closed) each.open = true;
  });
  addEventListener("afterprint", () => {
    for (const each of closed) each.open = false;
  });
})();
