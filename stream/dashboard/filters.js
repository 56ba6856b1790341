// The filter form above the table.

import { capitalize, element, LABELS, percent, shapeIcon } from "./display.js";

const find = (id) => document.getElementById(id);

export class Filters {
  /** changed(): called when the filter changed. */
  constructor(changed) {
    this.changed = changed;
    this.filter = { stream: "", kind: "", hidden: new Set(), minConfidence: 0 };
    const form = find("filters");
    find("filter-classes").replaceChildren(...LABELS.map((label) => this.#chip(label)));
    form.addEventListener("input", () => this.#read());
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => {
      this.filter.hidden.clear();
      for (const chip of find("filter-classes").children) chip.setAttribute("aria-pressed", "true");
      setTimeout(() => this.#read()); // the fields are reset after the event
    });
  }

  /** Set the streams to choose from. */
  setStreams(names) {
    const select = find("filter-stream");
    const offered = [...select.options].slice(1).map((option) => option.value);
    if (names.join("\n") === offered.join("\n")) return;
    const { stream } = this.filter;
    select.replaceChildren(select.options[0], ...names.map((name) => new Option(name, name)));
    this.filter.stream = select.value = names.includes(stream) ? stream : "";
  }

  #chip(label) {
    const chip = element("button", "chip", [shapeIcon(label), capitalize(label)], { type: "button" });
    chip.setAttribute("aria-pressed", "true");
    chip.dataset.label = label;
    chip.addEventListener("click", () => {
      const { hidden } = this.filter;
      const on = hidden.has(label);
      hidden[on ? "delete" : "add"](label);
      chip.setAttribute("aria-pressed", String(on));
      this.#read();
    });
    return chip;
  }

  #read() {
    const { hidden } = this.filter;
    const [stream, kind] = [find("filter-stream").value, find("filter-kind").value];
    const minConfidence = Number(find("filter-sure").value) / 100;
    this.filter = { stream, kind, hidden, minConfidence };
    find("filter-sure-text").textContent = percent(minConfidence);
    find("filter-reset").hidden = !(stream || kind || hidden.size || minConfidence);
    this.changed();
  }
}
