// The index of videos: sorted by a click on a heading, filtered by name and state.

const find = (id) => document.getElementById(id);
const rows = [...find("videos").tBodies[0].rows];
const heads = [...find("videos").tHead.rows[0].cells];

/** What a cell is sorted by: a number where it has one. */
function key(row, column) {
  const cell = row.cells[column];
  return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent.toLowerCase();
}

/** Numbers first descending, names first ascending; what has no number comes last. */
function sort(column) {
  const head = heads[column];
  const first = head.classList.contains("number") ? "descending" : "ascending";
  const other = first === "ascending" ? "descending" : "ascending";
  const direction = head.getAttribute("aria-sort") === first ? other : first;
  const sign = direction === "ascending" ? 1 : -1;
  heads.forEach((one) => one.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", direction);
  const keyed = rows.map((row) => [key(row, column), row]);
  keyed.sort(([a], [b]) => (typeof a === typeof b ? sign * (typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true })) : typeof a === "number" ? -1 : 1));
  find("videos").tBodies[0].append(...keyed.map(([, row]) => row));
}

function filter() {
  const words = find("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const state = find("state").value;
  let shown = 0;
  for (const row of rows) {
    const name = row.cells[0].textContent.toLowerCase();
    row.hidden = (state && row.dataset.state !== state) || !words.every((word) => name.includes(word));
    shown += row.hidden ? 0 : 1;
  }
  find("count").textContent = shown === rows.length ? "" : `${shown} of ${rows.length}`;
}

function showTheme() {
  const dark = document.documentElement.dataset.theme === "dark";
  find("theme").setAttribute("aria-pressed", String(dark));
}

heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => sort(column)));
find("filters").addEventListener("input", filter);
find("filters").addEventListener("submit", (event) => event.preventDefault());
find("filters").hidden = rows.length < 2;
find("theme").addEventListener("click", () => {
  const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("apexstream.theme", theme);
  } catch {
    // storage is disabled: the choice lasts as long as the page
  }
  showTheme();
});
filter();
showTheme();
