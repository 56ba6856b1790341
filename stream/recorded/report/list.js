// The list of events: filtered, ordered, and made in blocks as they come into view, so that thousands of events stay quick.

import { LABELS, capitalize, element, percent, shapeIcon } from "../../dashboard/display.js";
import { cardOf, playLoops } from "./card.js";
import { counted, events, lengthOf, report } from "./data.js";

const ROWS_OF_BLOCK = 2;
const NEAR = "1500px"; // blocks so near to the view hold their cards
const CARD_PX = 420; // assumed height of a card before one was measured

const ORDERS = {
  time: ["Time", (a, b) => a.played.onset - b.played.onset],
  "time-down": ["Time, last first", (a, b) => b.played.onset - a.played.onset],
  sure: ["Confidence, highest first", (a, b) => b.confidence - a.confidence],
  "sure-up": ["Confidence, lowest first", (a, b) => a.confidence - b.confidence],
  intensity: ["Intensity, highest first", (a, b) => b.intensity - a.intensity],
  length: ["Length, shortest first", (a, b) => lengthOf(a) - lengthOf(b)],
  "length-down": ["Length, longest first", (a, b) => lengthOf(b) - lengthOf(a)],
};

const find = (id) => document.getElementById(id);

export class EventList {
  /** locate(event): its place on the timeline is wanted. */
  constructor({ locate }) {
    this.locate = locate;
    this.hidden = new Set(); // classes that are not shown
    this.window = [-Infinity, Infinity];
    this.shown = [];
    this.blocks = [];
    this.rowHeight = CARD_PX;
    this.playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.observer = new IntersectionObserver((seen) => seen.forEach(({ target, isIntersecting, boundingClientRect }) => (isIntersecting ? this.#fill(target) : this.#empty(target, boundingClientRect.height))), { rootMargin: `${NEAR} 0px` });
    this.#listen();
    this.refresh();
  }

  /** Filter, order and show again. */
  refresh() {
    const [kind, face, speech] = ["kind", "face", "speech"].map((name) => find(`filter-${name}`).value);
    const sure = Number(find("filter-sure").value) / 100;
    const [from, to] = find("filter-window").checked ? this.window : [-Infinity, Infinity];
    const wanted = ({ label, confidence, played, ...event }) =>
      !this.hidden.has(label) && confidence >= sure && (!kind || event.kind === kind) && (!face || String(event.face) === face) &&
      (!speech || event.speaking === (speech === "speaking")) && played.onset <= to && (played.offset ?? played.apex) >= from;
    this.shown = events.filter(wanted).sort(ORDERS[find("order").value][1]);
    find("filter-sure-text").textContent = percent(sure);
    find("count").textContent = this.shown.length === events.length ? counted(events.length, "expression") : `${this.shown.length.toLocaleString("en")} of ${counted(events.length, "expression")}`;
    find("filter-reset").hidden = this.shown.length === events.length && !this.hidden.size;
    find("no-events").hidden = this.shown.length > 0;
    find("no-events").textContent = events.length ? "No expression passes these filters." : "No expression was found in this video.";
    this.#layOut();
  }

  /** The timeline shows from .. to. */
  setWindow(from, to) {
    this.window = [from, to];
    if (find("filter-window").checked) this.refresh();
  }

  /** Scroll to an event's card and give it the focus, whatever the filters. */
  open(event) {
    if (!this.shown.includes(event)) find("filters").reset(); // shows all
    const index = this.shown.indexOf(event);
    const block = this.blocks[Math.floor(index / this.size)];
    this.#fill(block);
    const card = block.children[index % this.size].firstElementChild;
    card.scrollIntoView({ block: "center" });
    card.focus({ preventScroll: true });
  }

  /** Make all cards at once, for printing; later only those in view again. */
  showAll(all) {
    if (all) this.blocks.forEach((block) => this.#fill(block));
    else this.refresh();
  }

  #layOut() {
    this.observer.disconnect();
    const first = this.#block(0);
    find("list").replaceChildren(first);
    this.columns = columnsOf(first);
    this.size = ROWS_OF_BLOCK * this.columns;
    this.blocks = this.shown.length ? [first] : [];
    for (let start = this.size; start < this.shown.length; start += this.size) this.blocks.push(this.#block(start));
    find("list").replaceChildren(...this.blocks);
    if (this.blocks.length) this.#fill(first);
    this.#reserve();
    this.blocks.forEach((block) => this.observer.observe(block));
  }

  #block(start) {
    const block = element("div", "block");
    block.dataset.start = start;
    block.setAttribute("role", "presentation");
    return block;
  }

  /** Give the blocks without cards the height that they will have, by that of the first, where it has cards. */
  #reserve() {
    const [first, ...others] = this.blocks;
    if (first?.childElementCount) this.rowHeight = first.offsetHeight / Math.ceil(first.childElementCount / this.columns);
    for (const block of others) {
      const count = Math.min(this.size, this.shown.length - Number(block.dataset.start));
      if (!block.childElementCount) block.style.minHeight = `${Math.ceil(count / this.columns) * this.rowHeight}px`;
    }
  }

  #resized() {
    if (this.blocks.length && columnsOf(this.blocks[0]) !== this.columns) this.#layOut();
    else this.#reserve();
  }

  #fill(block) {
    if (block.childElementCount) return;
    const start = Number(block.dataset.start);
    const cards = this.shown.slice(start, start + this.size).map((event, i) => {
      const item = element("div", "item", cardOf(event, { locate: this.locate }));
      item.setAttribute("role", "listitem");
      item.setAttribute("aria-setsize", this.shown.length);
      item.setAttribute("aria-posinset", start + i + 1);
      return item;
    });
    block.append(...cards);
    block.style.minHeight = "";
    playLoops(block, this.playing);
  }

  #empty(block, height) {
    if (!block.childElementCount || block.contains(document.activeElement)) return;
    block.style.minHeight = `${height}px`;
    block.replaceChildren();
  }

  #listen() {
    const labels = [...new Set([...LABELS, ...events.map(({ label }) => label)])];
    find("filter-classes").append(...labels.map((label) => this.#chip(label)));
    find("filter-face").append(...report.faces.map(({ id }) => element("option", "", `Face ${id}`, { value: id })));
    find("filter-face").closest("label").hidden = report.faces.length < 2;
    find("order").append(...Object.entries(ORDERS).map(([value, [name]]) => element("option", "", name, { value })));
    find("filters").addEventListener("input", () => this.refresh());
    find("filters").addEventListener("submit", (event) => event.preventDefault());
    find("filters").addEventListener("reset", () => {
      const order = find("order").value;
      this.hidden.clear();
      for (const chip of find("filter-classes").children) chip.setAttribute("aria-pressed", "true");
      for (const field of find("filters").elements) if (field.type === "checkbox") field.checked = false;
      for (const select of find("filters").querySelectorAll("select")) select.value = select.id === "order" ? order : "";
      find("filter-sure").value = 0;
      this.refresh();
    });
    find("play").hidden = !report.pictures || !events.length;
    find("play").setAttribute("aria-pressed", String(this.playing));
    find("play").addEventListener("click", () => {
      this.playing = !this.playing;
      find("play").setAttribute("aria-pressed", String(this.playing));
      playLoops(find("list"), this.playing);
    });
    addEventListener("resize", () => this.#resized());
  }

  #chip(label) {
    const chip = element("button", "chip", [shapeIcon(label), ` ${capitalize(label)}`], { type: "button" });
    chip.setAttribute("aria-pressed", "true");
    chip.addEventListener("click", () => {
      const shown = this.hidden.delete(label);
      if (!shown) this.hidden.add(label);
      chip.setAttribute("aria-pressed", String(shown));
      this.refresh();
    });
    return chip;
  }
}

/** How many cards are beside one another. */
function columnsOf(block) {
  return getComputedStyle(block).gridTemplateColumns.split(" ").length;
}
