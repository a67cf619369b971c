/* A click on a column's name sorts by it: largest first, then smallest first. */

for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  for (const head of table.tHead.rows[0].cells) {
    if (head.classList.contains("scale")) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "descending" ? 1 : -1;
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", sign < 0 ? "descending" : "ascending");
      body.append(...inOrder(Array.from(body.rows), head.cellIndex, sign));
    });
  }
}

function inOrder(rows, column, sign) {
  const collator = new Intl.Collator("en", { numeric: true });
  const values = new Map(rows.map((row) => [row, valueOf(row.cells[column])]));
  return rows.sort((a, b) => {
    const [x, y] = [values.get(a), values.get(b)];
    // What is not known comes last in either direction.
    if (x === null || y === null) return (x === null) - (y === null);
    return typeof x === "number" && typeof y === "number" ? sign * (x - y) : -sign * collator.compare(x, y);
  });
}

function valueOf(cell) {
  const text = cell.textContent.trim();
  if (cell.dataset.value !== undefined) return cell.dataset.value === "" ? null : Number(cell.dataset.value);
  if (cell.tagName === "TH") return text;
  if (text === "" || text === "–") return null;
  const found = text.match(/[-+−]?\d[\d\u202f]*(\.\d+)?/);
  return found ? Number(found[0].replace(/\u202f/g, "").replace("−", "-")) : text;
}
