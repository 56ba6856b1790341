// The dialog that shows one expression: its pictures, probabilities and times.

import { answer, capitalize, element, percent, pixels, seconds, shapeIcon, shortModel, timeOfDay } from "./display.js";
import { duration } from "./expressions.js";
import { request } from "./auth.js";

const PICTURES = [
  ["onset", "Onset", "the face as the movement begins"],
  ["apex", "Apex", "the face where the movement is largest"],
  ["flow", "Movement", "what moved where from onset to apex, in colours"],
];
const NOT_KEPT = "The pictures are no longer in memory: the service keeps those of the last events only.";

export class Details {
  /**
   * step(event, by): the event above (-1) or below (1) this one in the table, or undefined; closed(event): called on closing;
   * link(node, text): a link to the page of a fleet's node.
   */
  constructor({ step, closed, link }) {
    this.step = step;
    this.link = link;
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
    const title = [shapeIcon(event.label), event.label === "uncertain" ? answer(event) : `${answer(event)} sure`];
    document.getElementById("details-title").replaceChildren(...title);
    document.getElementById("details-bars").replaceChildren(...bars(event));
    document.getElementById("details-list").replaceChildren(...rows(event));
    document.getElementById("details-newer").disabled = !this.step(event, -1);
    document.getElementById("details-older").disabled = !this.step(event, 1);
    this.#showPictures(event);
    if (!this.dialog.open) this.dialog.showModal();
  }

  #move(by) {
    const next = this.step(this.event, by);
    if (next) this.show(next);
  }

  async #showPictures(event) {
    const container = document.getElementById("details-pictures");
    const hint = document.getElementById("details-hint");
    hint.textContent = "";
    container.hidden = Boolean(event.node);
    if (event.node) {
      hint.replaceChildren("The pictures of this expression are at the node ", this.link(event.node, event.node));
      return;
    }
    container.replaceChildren(...PICTURES.map(([name, title, meaning]) => figure(name, title, meaning)));
    const loaded = await Promise.all(PICTURES.map(([name]) => loadPicture(event, name)));
    if (this.event !== event) return;
    loaded.forEach((bitmap, i) => drawBitmap(container.children[i], bitmap));
    const missing = loaded.every((bitmap) => !bitmap);
    container.hidden = missing;
    hint.textContent = missing ? NOT_KEPT : "Movement from onset to apex: red moved to the right, green down, cyan to the left, violet up; the stronger the colour, the farther.";
  }
}

async function loadPicture(event, name) {
  try {
    const response = await request(`/evidence/${encodeURIComponent(event.id)}/${name}.png`);
    return response.ok ? await createImageBitmap(await response.blob()) : null;
  } catch {
    return null; // the service cannot be reached
  }
}

function figure(name, title, meaning) {
  const canvas = element("canvas", "", [], { width: 128, height: 128 });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `${title}: ${meaning}`);
  canvas.dataset.picture = name;
  return element("figure", "", [canvas, element("figcaption", "", title)]);
}

function drawBitmap(figure, bitmap) {
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
    return element("p", "chance", [element("span", "chance-name", [shapeIcon(label), capitalize(label)]), track, element("span", "number", percent(share))]);
  });
}

function rows(event) {
  const mark = ({ t, frame: number }) => `${t.toFixed(3)} s (frame ${number})`;
  const entries = [
    ["Time", timeOfDay(event.at)],
    ["Stream", event.face ? `${event.stream}, face ${event.face}` : event.stream],
    ["Uncertain because", event.why],
    ["Kind", `${event.kind}${event.truncated ? ", cut short" : ""}`],
    ["Duration", seconds(duration(event))],
    ["Expression probability", event.expression_probability == null ? "" : percent(event.expression_probability)],
    ["Speech", event.speaking ? "The face was speaking: movements of the lips are mostly speech" : ""],
    ["Onset", mark(event.onset)],
    ["Apex", mark(event.apex)],
    ["Offset", mark(event.offset)],
    ["Intensity", `${pixels(event.intensity)} of the 128 px crop`],
    ["Latency", event.latency_ms === undefined ? "" : `${event.latency_ms.toFixed(0)} ms`],
    ["Sequence number", String(event.seq)],
    ["Number at the node", event.node_seq === undefined ? "" : String(event.node_seq)],
    ["Network", shortModel(event.model)],
  ];
  return entries.filter(([, value]) => value).map(([name, value]) => element("div", "", [element("dt", "", name), element("dd", "", value)]));
}
