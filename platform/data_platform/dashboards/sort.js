for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach(one => one.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = row => row.cells[place].dataset.v ?? row.cells[place].textContent;
      const numbers = head.classList.contains("number");
      const order = (a, b) => numbers ? a - b : a.localeCompare(b, undefined, {numeric: true});
      const empty = row => key(row) === "";
      const rows = [...body.rows].sort((a, b) =>
        empty(a) - empty(b) || (empty(a) ? 0 : order(key(a), key(b)) * (down ? -1 : 1)));
      body.append(...rows);
    });
  });
}
