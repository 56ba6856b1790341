// Which expressions are shown: the form above the table.

import { element, LABELS, percent, shapeIcon, word } from "./look.js";

const find = (id) => document.getElementById(id);

export class Filters {
  /** changed(): called when another choice was made. */
  constructor(changed) {
    this.changed = changed;
    this.chosen = { stream: "", kind: "", hidden: new Set(), sure: 0 };
    const form = find("filters");
    find("filter-classes").replaceChildren(...LABELS.map((label) => this.#chip(label)));
    form.addEventListener("input", () => this.#read());
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => {
      this.chosen.hidden.clear();
      for (const chip of find("filter-classes").children) chip.setAttribute("aria-pressed", "true");
      setTimeout(() => this.#read()); // the form's fields are reset after the event
    });
  }

  /** The streams there are to choose from. */
  offer(names) {
    const select = find("filter-stream");
    const offered = [...select.options].slice(1).map((option) => option.value);
    if (names.join("\n") === offered.join("\n")) return;
    const { stream } = this.chosen;
    select.replaceChildren(select.options[0], ...names.map((name) => new Option(name, name)));
    this.chosen.stream = select.value = names.includes(stream) ? stream : "";
  }

  #chip(label) {
    const chip = element("button", "chip", [shapeIcon(label), word(label)], { type: "button" });
    chip.setAttribute("aria-pressed", "true");
    chip.dataset.label = label;
    chip.addEventListener("click", () => {
      const { hidden } = this.chosen;
      const on = hidden.has(label);
      hidden[on ? "delete" : "add"](label);
      chip.setAttribute("aria-pressed", String(on));
      this.#read();
    });
    return chip;
  }

  #read() {
    const { hidden } = this.chosen;
    const [stream, kind] = [find("filter-stream").value, find("filter-kind").value];
    const sure = Number(find("filter-sure").value) / 100;
    this.chosen = { stream, kind, hidden, sure };
    find("filter-sure-text").textContent = percent(sure);
    find("filter-reset").hidden = !(stream || kind || hidden.size || sure);
    this.changed();
  }
}
