// Turns the last header cell of each column of a sortable table into a button. Without scripts it is a plain table.
for (const table of document.querySelectorAll("table.sortable")) {
  const [first, second] = table.tHead.rows;
  const [name, mean, ...others] = first.cells;
  const heads = [name, mean, ...second.cells, ...others.filter((head) => head.colSpan === 1)];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => {
        const cell = row.cells[column];
        if (cell.dataset.value === undefined) return cell.textContent;
        const value = cell.dataset.value === "inf" ? Infinity : Number(cell.dataset.value);
        return Number.isNaN(value) ? null : value;
      };
      const order = (a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === null || y === null) return (x === null) - (y === null);
        const up = typeof x === "string" ? x.localeCompare(y, undefined, { numeric: true }) : x < y ? -1 : x > y ? 1 : 0;
        return down ? -up : up;
      };
      const body = table.tBodies[0];
      body.append(...[...body.rows].sort(order));
    });
  });
}
