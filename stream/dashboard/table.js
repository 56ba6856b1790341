// The table of expressions: newest first, one row to tab to, arrows between rows, Enter opens.

import { clock, element, percent, pixels, seconds, shapeIcon, word } from "./look.js";
import { duration } from "./expressions.js";

export const MOST_ROWS = 400;

export class Table {
  /** open(event): called when a row is clicked, or Enter pressed on it. */
  constructor(body, open) {
    this.body = body;
    this.open = open;
    this.chosen = undefined; // seq of the row that was last moved to or clicked; until then the newest can be tabbed to
    body.addEventListener("click", (event) => {
      const row = event.target.closest("tr");
      if (row) this.#choose(row);
    });
    body.addEventListener("animationend", (event) => event.target.closest("tr")?.classList.remove("fresh"));
    body.addEventListener("keydown", (event) => this.#walk(event));
    body.addEventListener("focusin", (event) => this.#current(event.target.closest("tr"), true));
  }

  /** Show these events, the newest first; rows that stay are left as they are. */
  show(events) {
    const wanted = events.slice(0, MOST_ROWS);
    const standing = new Map([...this.body.rows].map((row) => [row.event.seq, row]));
    let place = this.body.firstElementChild;
    for (const event of wanted) {
      const row = standing.get(event.seq);
      if (row && row === place) place = place.nextElementSibling;
      else this.body.insertBefore(row ?? makeRow(event), place);
      standing.delete(event.seq);
    }
    for (const row of standing.values()) row.remove();
    this.#current([...this.body.rows].find((row) => row.event.seq === this.chosen) ?? this.body.rows[0]);
  }

  /** Mark the rows of events that came just now. */
  highlight(seqs) {
    for (const row of this.body.rows) if (seqs.has(row.event.seq)) row.classList.add("fresh");
  }

  /** Put the focus on an event's row. */
  focus(seq) {
    [...this.body.rows].find((row) => row.event.seq === seq)?.querySelector("button").focus();
  }

  #current(row, chosen = false) {
    if (!row) return;
    if (chosen) this.chosen = row.event.seq;
    const now = this.body.querySelector('button[tabindex="0"]');
    if (now) now.tabIndex = -1;
    row.querySelector("button").tabIndex = 0;
  }

  #choose(row) {
    this.#current(row, true);
    this.open(row.event);
  }

  #walk(event) {
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
  const opener = element("button", "row-open", clock(event.at), { type: "button", tabIndex: -1 });
  opener.setAttribute("aria-label", `${clock(event.at)}, ${event.stream}, ${event.label}: open pictures and figures`);
  const where = element("span", "where", event.stream);
  where.setAttribute("aria-hidden", "true");
  const bar = element("span", "bar-fill");
  bar.style.width = `${100 * event.confidence}%`;
  const track = element("span", "bar-track", [bar]);
  track.setAttribute("aria-hidden", "true");
  const cells = [
    element("td", "when", [opener, where]),
    element("td", "stream middle", event.stream),
    element("td", "label", [shapeIcon(event.label), word(event.label)]),
    element("td", "sure", [element("span", "sure-box", [track, element("span", "sure-text", percent(event.confidence))])]),
    element("td", "wide", word(event.kind)),
    element("td", "wide number", seconds(duration(event)) + (event.truncated ? " (cut)" : "")),
    element("td", "wide number", pixels(event.intensity)),
  ];
  row.append(...cells);
  return row;
}
