// A source's card: picture, motion trace, state, and what was seen last.

import { ACTIVITY_KINDS, activityOf, element, percent, seconds, shapeIcon, ago, word } from "./look.js";
import { duration } from "./expressions.js";
import { Picture } from "./picture.js";
import { Trace } from "./trace.js";

const STATES = {
  starting: "Starting",
  live: "Live",
  stalled: "Stalled",
  reconnecting: "Reconnecting",
  ended: "Ended",
};
const PICTURES_PER_S = 12;

export class SourceCard {
  /** wish(stream, on, width): called when the card wants pictures, or no longer does. */
  constructor(stream, wish) {
    this.stream = stream;
    this.wish = wish;
    this.visible = false;
    this.wanted = true;
    this.asked = "";
    this.latest = null;
    this.told = ""; // what the service says of the source, one sentence
    this.#build();
    this.picture = new Picture(this.canvas);
    this.trace = new Trace(this.traceCanvas);
    this.#toggles();
  }

  #build() {
    this.badge = element("span", "badge");
    this.figures = element("p", "figures");
    this.detail = element("p", "detail", [], { hidden: true });
    this.canvas = element("canvas", "picture");
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", `Live picture of ${this.stream}`);
    this.cover = element("p", "cover", "Waiting for a picture");
    this.flash = element("p", "flash", [], { hidden: true });
    this.faceless = element("p", "faceless", "No face in view", { hidden: true });
    this.traceCanvas = element("canvas", "trace");
    this.traceCanvas.setAttribute("role", "img");
    this.doing = element("p", "doing");
    this.#does([]);
    this.controls = element("div", "toggles");
    this.controls.setAttribute("role", "group");
    this.controls.setAttribute("aria-label", `What the picture of ${this.stream} shows`);
    this.last = element("p", "last", "No expression yet");
    const key = element("p", "key", [keyed("▸", "onset"), keyed("◆", "apex"), keyed("◂", "offset")]);
    const acts = element("p", "key acts", activityKey());
    const name = element("h3", "", this.stream);
    this.root = element("article", "card", [
      element("div", "card-head", [name, this.badge, this.figures]),
      element("div", "card-body", [
        element("div", "view", [element("div", "stage", [this.canvas, this.faceless, this.flash, this.cover]), this.controls]),
        element("div", "motion", [element("div", "motion-head", [element("h4", "", "Motion"), key]), this.traceCanvas, acts, this.doing, this.last, this.detail]),
      ]),
    ]);
    this.root.dataset.stream = this.stream;
  }

  #toggles() {
    const toggle = (text, on, change) => {
      const button = element("button", "toggle", text, { type: "button" });
      button.setAttribute("aria-pressed", String(on));
      button.addEventListener("click", () => {
        const now = button.getAttribute("aria-pressed") !== "true";
        button.setAttribute("aria-pressed", String(now));
        change(now);
      });
      return button;
    };
    const drawn = (what) => (on) => {
      this.picture[what] = on;
      this.picture.changed = true;
    };
    const shown = (on) => {
      this.wanted = on;
      if (!on) this.picture.clear();
      this.ask(true);
      this.#covered();
    };
    this.controls.append(toggle("Picture", true, shown), toggle("Landmarks", true, drawn("landmarks")), toggle("Regions", true, drawn("regions")));
  }

  /** Ask the service for pictures, or for none while nobody can see them. */
  ask(running, again = false) {
    const on = running && this.visible && this.wanted && !document.hidden;
    const pixels = (this.canvas.clientWidth || 320) * Math.min(devicePixelRatio || 1, 2);
    const width = pixels > 480 ? 640 : pixels > 320 ? 480 : 320;
    const asked = `${on} ${width}`;
    if (asked === this.asked && !again) return;
    this.asked = this.wish({ type: "preview", stream: this.stream, on, fps: PICTURES_PER_S, width }) ? asked : "";
  }

  status({ state, fps, drops, reconnects, detail, width, height }) {
    this.state = state;
    this.root.dataset.state = state;
    this.badge.textContent = STATES[state] ?? state;
    const figures = [];
    if (width) figures.push(`${width} × ${height}`);
    if (state === "live") figures.push(`${(fps ?? 0).toFixed(0)} fps`);
    if (drops !== undefined) figures.push(`${drops} dropped`);
    if (reconnects) figures.push(`${reconnects} ${reconnects === 1 ? "reconnect" : "reconnects"}`);
    this.figures.textContent = figures.join(" · ");
    this.told = detail ?? "";
    if (state !== "live") this.#rest();
    this.#covered();
  }

  #covered() {
    const waiting = { ended: "The source has ended", reconnecting: "Reconnecting", stalled: "No picture arrives", starting: "Starting" };
    const text = this.wanted ? waiting[this.state] ?? (this.picture.bitmap ? "" : "Waiting for a picture") : "Picture is off";
    this.cover.replaceChildren(...[text, this.told].filter(Boolean).map((line) => element("span", "", line)));
    this.cover.hidden = !text;
    this.detail.textContent = this.told;
    this.detail.hidden = Boolean(text) || !this.told;
  }

  show(header, jpeg) {
    if (!this.wanted) return;
    this.picture.take(header, jpeg).then(() => this.#covered());
    this.faceless.hidden = header.faces.length > 0;
  }

  signal(message) {
    this.trace.add(message);
    this.#does(this.trace.doing);
  }

  /** An activity is over. */
  activity(message) {
    this.trace.act(message);
  }

  /** No frames come: nobody does anything now. */
  #rest() {
    this.trace.doing = [];
    this.trace.changed = true;
    this.#does([]);
  }

  /** Say what the faces do now besides expressions. */
  #does(doing) {
    const several = doing.some(({ face }) => face !== doing[0].face);
    const words = doing.map(({ face, kind }) => (several ? `face ${face} ` : "") + activityOf(kind).name);
    const text = words.length ? word(words.join(" · ")) : "";
    if (this.does === text) return;
    this.does = text;
    this.doing.textContent = text;
    const now = text ? `. Now: ${text}` : "";
    this.traceCanvas.setAttribute("aria-label", `Motion on the face over the last twelve seconds of ${this.stream}${now}`);
  }

  /** Draw what has changed, or flows by itself. */
  draw(flowing) {
    if (!this.visible) return;
    if (this.picture.changed) this.picture.draw();
    const flows = flowing && this.state === "live";
    if (flows || this.trace.changed) this.trace.draw(flows);
  }

  /** Draw again: colours or sizes are others. */
  repaint() {
    this.picture.changed = this.trace.changed = true;
  }

  /** An expression of this source, provisional or final; old ones are only noted. */
  expression(event, isNew) {
    if (isNew) this.trace.mark(event);
    if (this.latest?.seq !== undefined && event.seq === undefined && !isNew) return;
    this.latest = event;
    if (isNew) this.flashed = performance.now();
    this.tell(Date.now());
  }

  /** Bring the words about the last expression up to date. */
  tell(now) {
    const event = this.latest;
    if (!event) return;
    const open = event.seq === undefined;
    const parts = [word(event.label), percent(event.confidence)];
    if (event.speaking) parts.push("while speaking");
    if (!open) parts.push(event.kind, seconds(duration(event)), ago(now - event.at));
    this.last.replaceChildren(shapeIcon(event.label), element("span", "", parts.join(" · ") + (open ? " · under way" : "")));
    const fresh = this.flashed !== undefined && performance.now() - this.flashed < 3500;
    this.flash.hidden = !fresh;
    if (fresh) this.flash.replaceChildren(shapeIcon(event.label), `${word(event.label)} ${percent(event.confidence)}`);
  }
}

/** What the colours under and behind the trace mean. */
function activityKey() {
  const kinds = ACTIVITY_KINDS.filter((kind) => kind !== "blink"); // its colour is that of closed eyes
  return kinds.map((kind) => {
    const swatch = element("span", "swatch");
    swatch.style.background = `var(${activityOf(kind).property})`;
    swatch.setAttribute("aria-hidden", "true");
    return element("span", "", [swatch, ` ${activityOf(kind).name}`]);
  });
}

function keyed(sign, text) {
  const mark = element("span", "sign", sign);
  mark.setAttribute("aria-hidden", "true");
  return element("span", "", [mark, ` ${text}`]);
}
