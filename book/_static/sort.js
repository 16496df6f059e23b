// A table of class "sortable" sorts by the column whose head is pressed, and back again.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const order = new Intl.Collator("en", { numeric: true });
  const textOf = (row, column) => row.cells[column].textContent.trim();

  const sort = (table, column, down) => {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const known = rows.filter((row) => textOf(row, column)); // what is not known stays last
    known.sort((a, b) => order.compare(textOf(a, column), textOf(b, column)));
    if (down) known.reverse();
    body.append(...known, ...rows.filter((row) => !textOf(row, column)));
  };

  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        sort(table, column, down);
      });
    });
  }
});
