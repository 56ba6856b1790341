// What there is to review: the machine's events and what the coder added, each with the coder's code, and the list of them.

import { capitalize, element, shapeIcon } from "./display.js";

const STATES = { accepted: "✓", relabelled: "✓", added: "+", rejected: "✕", open: "" };
export const EXPRESSIONS = ["accepted", "relabelled", "added"];
const WORDS = { accepted: "Accepted", relabelled: "Accepted, other class", added: "Added", rejected: "Rejected", open: "" };

export function decisionText(decision) {
  return WORDS[decision];
}

const FILTERS = {
  all: () => true,
  open: ({ decision }) => decision === "open",
  decided: ({ decision }) => decision !== "open",
  expression: ({ decision }) => EXPRESSIONS.includes(decision),
  rejected: ({ decision }) => decision === "rejected",
};

export class Items {
  constructor(list, select) {
    this.list = list;
    this.select = select;
    this.filter = "all";
    this.all = []; // in order of their onset in the machine's events, or as they were added
    this.byId = new Map();
    this.rows = new Map();
    list.addEventListener("click", ({ target }) => {
      const row = target.closest(".item");
      if (row) this.select(row.dataset.id);
    });
  }

  /** Take over what the server knows. */
  reset(events, codes) {
    this.byId = new Map(events.map((event) => [event.id, { id: event.id, event, code: fromEvent(event) }]));
    for (const code of codes) this.#put(code.id, fromServer(code));
    this.#sort();
    this.fill();
  }

  /** The new state of a code, null: it is gone. */
  set(id, code) {
    const known = this.byId.has(id);
    this.#put(id, code);
    if (known && this.byId.has(id)) {
      this.#fillRow(this.byId.get(id));
    } else {
      this.#sort();
      this.fill();
    }
  }

  #put(id, code) {
    const item = this.byId.get(id);
    if (code) this.byId.set(id, { id, event: item?.event ?? null, code });
    else if (item?.event) this.byId.set(id, { ...item, code: fromEvent(item.event) });
    else this.byId.delete(id);
  }

  #sort() {
    const at = ({ event, code }) => event?.onset.frame ?? code.onset;
    this.all = [...this.byId.values()].map(({ id }) => id);
    this.all.sort((a, b) => at(this.byId.get(a)) - at(this.byId.get(b)) || (a < b ? -1 : 1));
  }

  /** The ids that are listed. */
  get listed() {
    return this.all.filter((id) => FILTERS[this.filter](this.byId.get(id).code));
  }

  get decided() {
    return this.all.filter((id) => this.byId.get(id).code.decision !== "open").length;
  }

  /** The id so many places after another one in the list; of those left open alone where open is set. */
  after(id, steps, open = false) {
    const order = open ? this.all.filter((one) => one === id || FILTERS.open(this.byId.get(one).code)) : this.#listedWith(id);
    const at = order.indexOf(id);
    if (at < 0) return order[steps > 0 ? 0 : order.length - 1];
    if (open && order.length > 1) return order[(at + 1) % order.length];
    return order[Math.max(0, Math.min(order.length - 1, at + steps))];
  }

  #listedWith(id) {
    return this.all.filter((one) => one === id || FILTERS[this.filter](this.byId.get(one).code));
  }

  fill() {
    this.rows = new Map();
    const rows = this.listed.map((id) => {
      const row = element("button", "item", "", { type: "button" });
      row.dataset.id = id;
      row.tabIndex = -1;
      this.rows.set(id, row);
      this.#fillRow(this.byId.get(id));
      return element("li", "", row);
    });
    this.list.replaceChildren(...rows);
    this.mark(this.current);
  }

  #fillRow({ id, event, code }) {
    const row = this.rows.get(id);
    if (!row) return;
    row.dataset.decision = code.decision;
    const label = code.label ? [shapeIcon(code.label), capitalize(code.label)] : ["Class not given"];
    const what = element("span", "what", label);
    if (event && code.decision === "relabelled" && event.label) what.append(` (was ${event.label})`);
    row.replaceChildren(
      element("span", "state", STATES[code.decision]),
      what,
      element("span", "when", this.when?.(code) ?? ""),
    );
  }

  /** Show which one is current. */
  mark(id) {
    this.rows.get(this.current)?.removeAttribute("aria-current");
    this.current = id;
    const row = this.rows.get(id);
    row?.setAttribute("aria-current", "true");
    if (!row) return;
    const [box, frame] = [row.getBoundingClientRect(), this.list.getBoundingClientRect()]; // scrollIntoView would move the page too
    if (box.top < frame.top) this.list.scrollTop -= frame.top - box.top;
    if (box.bottom > frame.bottom) this.list.scrollTop += box.bottom - frame.bottom;
  }
}

/** A code with frame numbers as marks, as the page keeps and sends them. */
function fromServer(code) {
  const { coder: _, ...rest } = code;
  return {
    ...rest,
    onset: code.onset.frame,
    apex: code.apex.frame,
    offset: code.offset.frame,
    action_units: code.action_units.join(" "),
  };
}

function fromEvent(event) {
  const { id, face, onset, apex, offset } = event;
  const end = offset ?? apex;
  const marks = { onset: onset.frame, apex: apex.frame, offset: Math.max(end.frame, onset.frame + 1) };
  return { id, event: event.proposed ? null : id, face, decision: "open", ...marks, label: event.label ?? "", action_units: "", note: "" };
}

export { fromServer };
