// One expression in full: its pictures, probabilities and times.

import { clock, element, percent, pixels, seconds, shapeIcon, shortModel, word } from "./look.js";
import { duration } from "./expressions.js";
import { request } from "./access.js";

const PICTURES = [
  ["onset", "Onset", "the face as the movement begins"],
  ["apex", "Apex", "the face where the movement is largest"],
  ["flow", "Movement", "what moved where from onset to apex, in colours"],
];
const GONE = "The pictures are no longer held in memory: the service keeps those of the last events only.";

export class Details {
  /** step(event, by): the event shown above (-1) or below (1) this one, or undefined; closed(event): where it was left. */
  constructor({ step, closed }) {
    this.step = step;
    this.dialog = document.getElementById("details");
    this.event = null;
    document.getElementById("details-close").addEventListener("click", () => this.dialog.close());
    document.getElementById("details-newer").addEventListener("click", () => this.#move(-1));
    document.getElementById("details-older").addEventListener("click", () => this.#move(1));
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
    this.dialog.addEventListener("close", () => closed(this.event));
    this.dialog.addEventListener("keydown", (event) => {
      const by = { ArrowUp: -1, ArrowDown: 1 }[event.key];
      if (by === undefined) return;
      event.preventDefault();
      this.#move(by);
    });
  }

  show(event) {
    this.event = event;
    const title = [shapeIcon(event.label), `${word(event.label)}, ${percent(event.confidence)} sure`];
    document.getElementById("details-title").replaceChildren(...title);
    document.getElementById("details-bars").replaceChildren(...bars(event));
    document.getElementById("details-list").replaceChildren(...figures(event));
    document.getElementById("details-newer").disabled = !this.step(event, -1);
    document.getElementById("details-older").disabled = !this.step(event, 1);
    this.#pictures(event);
    if (!this.dialog.open) this.dialog.showModal();
  }

  #move(by) {
    const next = this.step(this.event, by);
    if (next) this.show(next);
  }

  async #pictures(event) {
    const box = document.getElementById("details-pictures");
    const hint = document.getElementById("details-hint");
    hint.textContent = "";
    box.replaceChildren(...PICTURES.map(([name, title, meaning]) => frame(name, title, meaning)));
    const loaded = await Promise.all(PICTURES.map(([name]) => picture(event, name)));
    if (this.event !== event) return;
    loaded.forEach((bitmap, i) => place(box.children[i], bitmap));
    const missing = loaded.every((bitmap) => !bitmap);
    box.hidden = missing;
    hint.textContent = missing ? GONE : "Movement from onset to apex: red moved to the right, green down, cyan to the left, violet up; the stronger the colour, the farther.";
  }
}

async function picture(event, name) {
  try {
    const answer = await request(`/evidence/${encodeURIComponent(event.id)}/${name}.png`);
    return answer.ok ? await createImageBitmap(await answer.blob()) : null;
  } catch {
    return null; // the service is away: there is nothing to show
  }
}

function frame(name, title, meaning) {
  const canvas = element("canvas", "", [], { width: 128, height: 128 });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `${title}: ${meaning}`);
  canvas.dataset.picture = name;
  return element("figure", "", [canvas, element("figcaption", "", title)]);
}

function place(figure, bitmap) {
  const canvas = figure.firstElementChild;
  if (!bitmap) return;
  Object.assign(canvas, { width: bitmap.width, height: bitmap.height });
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  canvas.dataset.loaded = "true";
  bitmap.close();
}

function bars({ probabilities }) {
  return Object.entries(probabilities).map(([label, share]) => {
    const fill = element("span", "bar-fill");
    fill.style.width = `${100 * share}%`;
    const track = element("span", "bar-track", [fill]);
    track.setAttribute("aria-hidden", "true");
    return element("p", "chance", [element("span", "chance-name", [shapeIcon(label), word(label)]), track, element("span", "number", percent(share))]);
  });
}

function figures(event) {
  const mark = ({ t, frame: number }) => `${t.toFixed(3)} s (frame ${number})`;
  const rows = [
    ["When", clock(event.at)],
    ["Stream", event.face ? `${event.stream}, face ${event.face}` : event.stream],
    ["Not named", event.why],
    ["Kind", `${event.kind}${event.truncated ? ", cut short" : ""}`],
    ["Duration", seconds(duration(event))],
    ["An expression at all", event.expression_probability == null ? "" : percent(event.expression_probability)],
    ["Speech", event.speaking ? "The face spoke: what its lips did is mostly that" : ""],
    ["Onset", mark(event.onset)],
    ["Apex", mark(event.apex)],
    ["Offset", mark(event.offset)],
    ["Intensity", `${pixels(event.intensity)} of the 128 px crop`],
    ["Told after", event.latency_ms === undefined ? "" : `${event.latency_ms.toFixed(0)} ms`],
    ["Number", String(event.seq)],
    ["Network", shortModel(event.model)],
  ];
  return rows.filter(([, value]) => value).map(([name, value]) => element("div", "", [element("dt", "", name), element("dd", "", value)]));
}
