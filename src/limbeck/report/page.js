// Sorts a table by the column whose title is pressed; cells without a number stay last either way.
for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const body = head.closest("table").tBodies[0];
    const column = head.cellIndex;
    const first = head.dataset.kind === "number" ? "descending" : "ascending";
    const other = first === "ascending" ? "descending" : "ascending";
    const order = head.getAttribute("aria-sort") === first ? other : first;
    for (const th of head.parentNode.cells) th.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const compare = (left, right) => {
      const a = left.cells[column].dataset.value ?? "";
      const b = right.cells[column].dataset.value ?? "";
      if (head.dataset.kind !== "number") return sign * a.localeCompare(b);
      if (a === "" || b === "") return (a === "") - (b === "");
      return sign * (Number(a) - Number(b));
    };
    body.append(...[...body.rows].sort(compare));
  });
}

// Paper cannot be unfolded: each run's command is printed (its settings are not, by the style).
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
