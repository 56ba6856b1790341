// A source's card: preview, motion trace, state, and the last expression.

import { ACTIVITY_KINDS, activityOf, ago, answer, capitalize, element, seconds, shapeIcon } from "./display.js";
import { duration } from "./expressions.js";
import { MotionTrace } from "./motion-trace.js";
import { Preview } from "./preview.js";

const STATES = {
  starting: "Starting",
  live: "Live",
  stalled: "Stalled",
  reconnecting: "Reconnecting",
  ended: "Ended",
};
const PREVIEW_FPS = 12;

export class SourceCard {
  /**
   * send(message): sends a preview request to the service; false where it cannot be sent. link(node, text): a link to the page of
   * a fleet's node.
   */
  constructor(stream, send, link) {
    this.stream = stream;
    this.send = send;
    this.link = link;
    this.node = undefined; // that analyses this source, where the service is a fleet's hub: the pictures are there
    this.visible = false;
    this.pictureOn = true;
    this.requested = "";
    this.latest = null;
    this.statusDetail = ""; // the source's status in one sentence
    this.#build();
    this.picture = new Preview(this.canvas);
    this.trace = new MotionTrace(this.traceCanvas);
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
    this.activityLine = element("p", "doing");
    this.#showActivities([]);
    this.controls = element("div", "toggles");
    this.controls.setAttribute("role", "group");
    this.controls.setAttribute("aria-label", `What the picture of ${this.stream} shows`);
    this.last = element("p", "last", "No expression yet");
    this.elsewhere = element("p", "elsewhere", [], { hidden: true });
    const key = element("p", "key", [legendEntry("▸", "onset"), legendEntry("◆", "apex"), legendEntry("◂", "offset")]);
    const acts = element("p", "key acts", activityLegend());
    const name = element("h3", "", this.stream);
    this.root = element("article", "card", [
      element("div", "card-head", [name, this.badge, this.figures]),
      element("div", "card-body", [
        element("div", "view", [element("div", "stage", [this.canvas, this.faceless, this.flash, this.cover]), this.controls]),
        element("div", "motion", [element("div", "motion-head", [element("h4", "", "Motion"), key]), this.traceCanvas, acts, this.activityLine, this.last, this.detail, this.elsewhere]),
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
      this.pictureOn = on;
      if (!on) this.picture.clear();
      this.requestPreview(true);
      this.#updateCover();
    };
    this.controls.append(toggle("Picture", true, shown), toggle("Landmarks", true, drawn("landmarks")), toggle("Regions", true, drawn("regions")));
  }

  /** Request previews from the service, or none while they are not visible. */
  requestPreview(running, again = false) {
    if (this.node) return;
    const on = running && this.visible && this.pictureOn && !document.hidden;
    const pixels = (this.canvas.clientWidth || 320) * Math.min(devicePixelRatio || 1, 2);
    const width = pixels > 480 ? 640 : pixels > 320 ? 480 : 320;
    const requested = `${on} ${width}`;
    if (requested === this.requested && !again) return;
    this.requested = this.send({ type: "preview", stream: this.stream, on, fps: PREVIEW_FPS, width }) ? requested : "";
  }

  status({ state, fps, drops, reconnects, detail, width, height, node }) {
    this.state = state;
    if (node && node !== this.node) {
      this.node = this.root.dataset.node = node;
      this.updateNode();
    }
    this.root.dataset.state = state;
    this.badge.textContent = STATES[state] ?? state;
    const figures = [];
    if (width) figures.push(`${width} × ${height}`);
    if (state === "live") figures.push(`${(fps ?? 0).toFixed(0)} fps`);
    if (drops !== undefined) figures.push(`${drops} dropped`);
    if (reconnects) figures.push(`${reconnects} ${reconnects === 1 ? "reconnect" : "reconnects"}`);
    this.figures.textContent = figures.join(" · ");
    this.statusDetail = detail ?? "";
    if (state !== "live") this.#clearActivities();
    this.#updateCover();
  }

  #updateCover() {
    const waiting = { ended: "The source has ended", reconnecting: "Reconnecting", stalled: "No picture arrives", starting: "Starting" };
    const text = this.pictureOn ? waiting[this.state] ?? (this.picture.bitmap ? "" : "Waiting for a picture") : "Picture is off";
    this.cover.replaceChildren(...[text, this.statusDetail].filter(Boolean).map((line) => element("span", "", line)));
    this.cover.hidden = !text;
    this.detail.textContent = this.statusDetail;
    this.detail.hidden = (Boolean(text) && !this.node) || !this.statusDetail;
  }

  /** Say where the pictures are. */
  updateNode() {
    if (!this.node) return;
    this.elsewhere.replaceChildren("Pictures are shown at the node ", this.link(this.node, this.node));
    this.elsewhere.hidden = false;
  }

  show(header, jpeg) {
    if (!this.pictureOn) return;
    this.picture.decode(header, jpeg).then(() => this.#updateCover());
    this.faceless.hidden = header.faces.length > 0;
  }

  signal(message) {
    this.trace.add(message);
    this.#showActivities(this.trace.doing);
  }

  /** An activity is over. */
  activity(message) {
    this.trace.addActivity(message);
  }

  /** No frames come: there are no current activities. */
  #clearActivities() {
    this.trace.doing = [];
    this.trace.changed = true;
    this.#showActivities([]);
  }

  /** Show the current activities of the faces. */
  #showActivities(doing) {
    const several = doing.some(({ face }) => face !== doing[0].face);
    const words = doing.map(({ face, kind }) => (several ? `face ${face} ` : "") + activityOf(kind).name);
    const text = words.length ? capitalize(words.join(" · ")) : "";
    if (this.activityText === text) return;
    this.activityText = text;
    this.activityLine.textContent = text;
    const now = text ? `. Now: ${text}` : "";
    this.traceCanvas.setAttribute("aria-label", `Motion on the face over the last twelve seconds of ${this.stream}${now}`);
  }

  /** Draw what has changed, and the trace while it scrolls. */
  draw(flowing) {
    if (!this.visible) return;
    if (this.picture.changed) this.picture.draw();
    const flows = flowing && this.state === "live";
    if (flows || this.trace.changed) this.trace.draw(flows);
  }

  /** Draw again after a change of colours or sizes. */
  repaint() {
    this.picture.changed = this.trace.changed = true;
  }

  /** An expression of this source, provisional or final; old ones only update the last one. */
  expression(event, isNew) {
    if (isNew) this.trace.addExpression(event);
    if (this.latest?.seq !== undefined && event.seq === undefined && !isNew) return;
    this.latest = event;
    if (isNew) this.flashed = performance.now();
    this.updateLast(Date.now());
  }

  /** Update the line about the last expression. */
  updateLast(now) {
    const event = this.latest;
    if (!event) return;
    const open = event.seq === undefined;
    const parts = [answer(event)];
    if (event.speaking) parts.push("while speaking");
    if (!open) parts.push(event.kind, seconds(duration(event)), ago(now - event.at));
    this.last.replaceChildren(shapeIcon(event.label), element("span", "", parts.join(" · ") + (open ? " · under way" : "")));
    const fresh = this.flashed !== undefined && performance.now() - this.flashed < 3500;
    this.flash.hidden = !fresh;
    if (fresh) this.flash.replaceChildren(shapeIcon(event.label), answer(event));
  }
}

/** The legend of the activity colours of the trace. */
function activityLegend() {
  const kinds = ACTIVITY_KINDS.filter((kind) => kind !== "blink"); // its colour is that of closed eyes
  return kinds.map((kind) => {
    const swatch = element("span", "swatch");
    swatch.style.background = `var(${activityOf(kind).property})`;
    swatch.setAttribute("aria-hidden", "true");
    return element("span", "", [swatch, ` ${activityOf(kind).name}`]);
  });
}

function legendEntry(sign, text) {
  const mark = element("span", "sign", sign);
  mark.setAttribute("aria-hidden", "true");
  return element("span", "", [mark, ` ${text}`]);
}
