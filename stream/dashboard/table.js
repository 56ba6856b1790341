// The table of expressions, newest first; one row in the tab order, arrow keys move between rows, Enter opens.

import { capitalize, element, percent, pixels, seconds, shapeIcon, timeOfDay } from "./display.js";
import { duration } from "./expressions.js";

export const MAX_ROWS = 400;

export class Table {
  /** open(event): called when a row is clicked, or Enter pressed on it. */
  constructor(body, open) {
    this.body = body;
    this.open = open;
    this.chosen = undefined; // seq of the row last focused or clicked; until then the newest row is in the tab order
    body.addEventListener("click", (event) => {
      const row = event.target.closest("tr");
      if (row) this.#openRow(row);
    });
    body.addEventListener("animationend", (event) => event.target.closest("tr")?.classList.remove("fresh"));
    body.addEventListener("keydown", (event) => this.#moveFocus(event));
    body.addEventListener("focusin", (event) => this.#setCurrent(event.target.closest("tr"), true));
  }

  /** Show these events, the newest first; rows that stay are left as they are. */
  show(events) {
    const wanted = events.slice(0, MAX_ROWS);
    const existing = new Map([...this.body.rows].map((row) => [row.event.seq, row]));
    let place = this.body.firstElementChild;
    for (const event of wanted) {
      const row = existing.get(event.seq);
      if (row && row === place) place = place.nextElementSibling;
      else this.body.insertBefore(row ?? makeRow(event), place);
      existing.delete(event.seq);
    }
    for (const row of existing.values()) row.remove();
    this.#setCurrent([...this.body.rows].find((row) => row.event.seq === this.chosen) ?? this.body.rows[0]);
  }

  /** Highlight the rows of new events. */
  highlight(seqs) {
    for (const row of this.body.rows) if (seqs.has(row.event.seq)) row.classList.add("fresh");
  }

  /** Put the focus on an event's row. */
  focus(seq) {
    [...this.body.rows].find((row) => row.event.seq === seq)?.querySelector("button").focus();
  }

  #setCurrent(row, chosen = false) {
    if (!row) return;
    if (chosen) this.chosen = row.event.seq;
    const now = this.body.querySelector('button[tabindex="0"]');
    if (now) now.tabIndex = -1;
    row.querySelector("button").tabIndex = 0;
  }

  #openRow(row) {
    this.#setCurrent(row, true);
    this.open(row.event);
  }

  #moveFocus(event) {
    const row = event.target.closest("tr");
    const rows = this.body.rows;
    const steps = { ArrowDown: row?.nextElementSibling, ArrowUp: row?.previousElementSibling, Home: rows[0], End: rows[rows.length - 1] };
    if (!(event.key in steps)) return;
    event.preventDefault();
    steps[event.key]?.querySelector("button").focus();
  }
}

function makeRow(event) {
  const row = element("tr");
  row.event = event;
  row.dataset.seq = event.seq;
  const opener = element("button", "row-open", timeOfDay(event.at), { type: "button", tabIndex: -1 });
  opener.setAttribute("aria-label", `${timeOfDay(event.at)}, ${event.stream}, ${event.label}: open pictures and figures`);
  const where = element("span", "where", event.stream);
  where.setAttribute("aria-hidden", "true");
  const bar = element("span", "bar-fill");
  bar.style.width = `${100 * event.confidence}%`;
  const track = element("span", "bar-track", [bar]);
  track.setAttribute("aria-hidden", "true");
  const cells = [
    element("td", "when", [opener, where]),
    element("td", "stream middle", event.stream),
    element("td", "label", [shapeIcon(event.label), capitalize(event.label)]),
    element("td", "sure", [element("span", "sure-box", [track, element("span", "sure-text", percent(event.confidence))])]),
    element("td", "wide", capitalize(event.kind)),
    element("td", "wide number", seconds(duration(event)) + (event.truncated ? " (cut)" : "")),
    element("td", "wide number", pixels(event.intensity)),
  ];
  row.append(...cells);
  return row;
}
