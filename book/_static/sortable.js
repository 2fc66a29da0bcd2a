/* Long tables sort by a column: click its name, or press Enter or Space on it. The first press sorts upwards,
   the second downwards, the third gives the author's order back. Tables with cells that span rows or columns
   stay as they are: their rows belong together. */
(() => {
  "use strict";

  const FEWEST_ROWS = 9;
  const NUMBER = /^[<>≤≥≈~±]?\s*([+-]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:e[+-]?\d+)?)/i;
  const words = new Intl.Collator("en", { numeric: true });
  const NEXT = { none: "ascending", ascending: "descending", descending: "none" };

  const textOf = (cell) => cell.textContent.trim();

  /* The number that a cell begins with, as in "0.945 (0.944 to 0.946)", "−0.1" or "1,234"; else NaN. */
  function numberOf(text) {
    const found = NUMBER.exec(text.replace(/[−–](?=[\d.])/g, "-"))[1];
    return /\d/.test(found) ? Number(found.replaceAll(",", "")) : NaN;
  }

  /* The one cell with text above every column (pandas writes the index's name a row lower), or null. */
  function namesOf(table) {
    const body = table.tBodies[0];
    if (table.tBodies.length !== 1 || !table.tHead || body.rows.length < FEWEST_ROWS) return null;
    const rows = [...table.tHead.rows, ...body.rows];
    const width = rows[0].cells.length;
    const plain = (row) =>
      row.cells.length === width && [...row.cells].every((cell) => cell.colSpan === 1 && cell.rowSpan === 1);
    if (!rows.every(plain)) return null;
    const names = [];
    for (let column = 0; column < width; column += 1) {
      const filled = [...table.tHead.rows].map((row) => row.cells[column]).filter(textOf);
      if (filled.length > 1) return null;
      names.push(filled[0]);
    }
    return names;
  }

  /* Row numbers in the order of a column; rows without a value stay last either way. */
  function order(rows, column, direction) {
    const texts = rows.map((row) => textOf(row.cells[column]));
    const numbers = texts.map(numberOf);
    const filled = texts.filter((text) => !/^(|[-–—]|nan|none)$/i.test(text)).length;
    const numeric = 2 * numbers.filter((number) => !Number.isNaN(number)).length > filled;
    const isMissing = (row) => (numeric ? Number.isNaN(numbers[row]) : texts[row] === "");
    const compare = numeric
      ? (one, other) => numbers[one] - numbers[other]
      : (one, other) => words.compare(texts[one], texts[other]);
    const sign = direction === "ascending" ? 1 : -1;
    return [...rows.keys()].sort(
      (one, other) => isMissing(one) - isMissing(other) || (isMissing(one) ? 0 : sign * compare(one, other)),
    );
  }

  function makeSortable(table) {
    const names = namesOf(table);
    if (names === null) return;
    const body = table.tBodies[0];
    const rows = [...body.rows];
    names.forEach((name, column) => {
      if (!name || name.querySelector("a, button, input")) return;
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort-column";
      button.title = "Sort the rows by this column";
      const words = name.querySelector(":scope > p") ?? name; // tables in Markdown have paragraphs
      button.append(...words.childNodes);
      words.append(button);
      button.addEventListener("click", () => {
        const direction = NEXT[name.getAttribute("aria-sort") ?? "none"];
        names.forEach((other) => other?.removeAttribute("aria-sort"));
        if (direction === "none") {
          body.append(...rows);
        } else {
          name.setAttribute("aria-sort", direction);
          body.append(...order(rows, column, direction).map((row) => rows[row]));
        }
      });
    });
  }

  const start = () => document.querySelectorAll("table").forEach(makeSortable);
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
