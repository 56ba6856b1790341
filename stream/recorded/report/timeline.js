// The timeline: a lane per face with when it was in view, its activities and its expressions; zoomed and moved by pointer and keys.

import { activityOf, answer, classColour, colour, drawShape, nearestMark, resizeCanvas, showTip } from "../../dashboard/display.js";
import { clock, counted, events, lengthOf, report } from "./data.js";

const AXIS = 22;
const LANE = 92;
const NAME = 18; // its name,
const MARKS = 30; // its expressions,
const VIEW = 8; // when it was in view,
const ROW = 7; // and its activities, in rows
const ROWS = [["speech"], ["blink", "eyes_closed", "gaze"], ["head_turn", "covered", "motion"]];
const RADIUS = 7;
const HIT = 12; // pixels between pointer and mark
const BIN = 4; // pixels of a bin of the histogram, where marks would overlap
const LEAST_S = 1; // the longest zoom shows so much
const STEPS_S = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200];
const HINDRANCES = ["aside", "small", "lost"];

export class Timeline {
  /** open(event): a mark was clicked; moved(from, to): another part is shown. */
  constructor({ open, moved }) {
    this.canvas = document.getElementById("timeline");
    this.strip = document.getElementById("strip");
    this.tip = document.getElementById("tip");
    this.open = open;
    this.moved = moved;
    const least = Math.max(LEAST_S, report.to - report.from);
    [this.start, this.end] = [report.from, report.from + least];
    [this.from, this.to] = [this.start, this.end];
    this.selected = null;
    this.marks = [];
    this.lanes = report.faces.map((face) => ({ ...face, events: events.filter((event) => event.face === face.id) }));
    this.#listen();
  }

  /** Show from .. to, seconds, as far as the video reaches. */
  show(from, to) {
    const span = Math.min(Math.max(to - from, LEAST_S), this.end - this.start);
    this.from = Math.min(Math.max(from, this.start), this.end - span);
    this.to = this.from + span;
    this.draw();
    this.moved(this.from, this.to);
  }

  /** Show by so many times as much, this moment staying where it is. */
  zoom(factor, around = (this.from + this.to) / 2) {
    this.show(around - (around - this.from) * factor, around + (this.to - around) * factor);
  }

  /** Mark an event, and show it large enough to be read. */
  select(event) {
    this.selected = event;
    const length = lengthOf(event);
    const middle = event.played.onset + length / 2;
    const span = Math.min(this.to - this.from, Math.max(10, 4 * length));
    if (event.played.onset < this.from || event.played.onset + length > this.to || this.to - this.from > span) this.show(middle - span / 2, middle + span / 2);
    else this.draw();
  }

  get whole() {
    return this.to - this.from >= this.end - this.start - 1e-6;
  }

  draw() {
    this.canvas.style.height = `${Math.max(1, this.lanes.length) * LANE + AXIS}px`;
    const { context, width, height } = resizeCanvas(this.canvas);
    if (!width) return;
    const x = (t) => ((t - this.from) / (this.to - this.from)) * width;
    this.#drawAxis(context, x, width, height);
    this.marks = [];
    this.lanes.forEach((lane, i) => this.#drawLane(context, lane, AXIS + i * LANE, x, width));
    if (this.lanes.length === 0) label(context, "No face was seen", 4, AXIS + 20);
    this.#drawStrip();
    const [from, to] = [clock(this.from, 1), clock(this.to, 1)];
    const visible = events.filter(({ played }) => played.onset <= this.to && (played.offset ?? played.apex) >= this.from).length;
    this.canvas.setAttribute("aria-label", `Timeline from ${from} to ${to}: ${counted(visible, "expression")} of ${counted(this.lanes.length, "face")}. The list below has them all.`);
  }

  #drawAxis(context, x, width, height) {
    const span = this.to - this.from;
    const step = STEPS_S.find((candidate) => (candidate / span) * width > 76) ?? span;
    context.lineWidth = 1;
    context.textAlign = "center";
    context.font = `11px ${colour("--font")}`;
    for (let k = Math.ceil(this.from / step); k * step <= this.to; k++) {
      const left = Math.round(x(k * step)) + 0.5;
      context.strokeStyle = colour("--line");
      context.beginPath();
      context.moveTo(left, AXIS - 5);
      context.lineTo(left, height);
      context.stroke();
      context.fillStyle = colour("--faint");
      if (left > 20 && left < width - 20) context.fillText(clock(k * step, step < 1 ? 1 : 0), left, AXIS - 8);
    }
  }

  #drawLane(context, lane, top, x, width) {
    context.strokeStyle = colour("--line");
    context.strokeRect(-1, Math.round(top) + 0.5, width + 2, LANE);
    const view = top + NAME + MARKS;
    context.fillStyle = colour("--sunken");
    context.fillRect(0, view, width, VIEW);
    context.globalAlpha = 0.6;
    this.#drawSpans(context, lane.present, x, width, view, VIEW, colour("--good"), 0);
    context.globalAlpha = 1;
    for (const name of HINDRANCES) this.#drawSpans(context, lane[name], x, width, view, VIEW, colour("--warn"), 0);
    this.#drawSpans(context, report.slow, x, width, view + VIEW / 2, VIEW / 2, colour("--bad"), 0);
    ROWS.forEach((kinds, row) => {
      for (const kind of kinds) {
        this.#drawSpans(context, lane.activities[kind] ?? [], x, width, view + VIEW + 3 + row * (ROW + 3), ROW, colour(activityOf(kind).property), 1.5);
      }
    });
    this.#drawEvents(context, lane.events, top + NAME, x, width);
    context.fillStyle = colour("--text");
    context.font = `600 12px ${colour("--font")}`;
    label(context, `Face ${lane.id}`, 6, top + 14);
  }

  /** Rectangles of the spans (start, end, start, end ...) in view, each at least so wide; where they are too many for that, how much of each
   * pixel they fill. */
  #drawSpans(context, spans, x, width, top, height, fill, least) {
    context.fillStyle = fill;
    const [first, after] = [firstAfter(spans, this.from), firstAfter(spans, this.to)];
    if (after - first > width / 2) {
      this.#drawShares(context, spans.slice(first, after + 2), x, width, top, height);
      return;
    }
    for (let i = first; i < spans.length && spans[i] <= this.to; i += 2) {
      const left = Math.max(0, x(spans[i]));
      context.fillRect(left, top, Math.min(width, Math.max(x(spans[i + 1]), left + least)) - left, height);
    }
  }

  #drawShares(context, spans, x, width, top, height) {
    const shares = new Float32Array(Math.ceil(width));
    for (let i = 0; i < spans.length; i += 2) {
      const [left, right] = [Math.max(0, x(spans[i])), Math.min(width, x(spans[i + 1]))];
      for (let k = Math.floor(left); k < right; k++) shares[k] += Math.min(right, k + 1) - Math.max(left, k);
    }
    const before = context.globalAlpha;
    shares.forEach((share, k) => {
      if (!share) return;
      context.globalAlpha = before * Math.min(1, 0.12 + share);
      context.fillRect(k, top, 1, height);
    });
    context.globalAlpha = before;
  }

  #drawEvents(context, all, top, x, width) {
    const visible = all.filter(({ played }) => played.onset <= this.to && (played.offset ?? played.apex) >= this.from);
    if (visible.length * 1.2 * RADIUS > width) {
      this.#drawHistogram(context, visible, top, x);
      return;
    }
    const middle = top + MARKS / 2 + 1;
    for (const event of visible) {
      const [from, to, at] = [x(event.played.onset), x(event.played.offset ?? event.played.apex), x(event.played.apex)];
      context.fillStyle = classColour(event.label);
      context.globalAlpha = event === this.selected ? 0.5 : 0.25;
      context.fillRect(from, top + 4, Math.max(1.5, to - from), MARKS - 6);
      context.globalAlpha = 1;
      if (event === this.selected) {
        context.strokeStyle = colour("--text");
        context.lineWidth = 2;
        context.strokeRect(Math.min(from, at - RADIUS - 2), top + 2, Math.max(to - from, 2 * RADIUS + 4), MARKS - 2);
      }
      drawShape(context, event.label, at, middle, RADIUS);
      this.marks.push({ event, x: at, y: middle, from, to });
    }
  }

  /** How many expressions of each class there are from bin to bin, one above the other. */
  #drawHistogram(context, visible, top, x) {
    const bins = new Map();
    for (const event of visible) {
      const bin = Math.floor(x(event.played.apex) / BIN);
      const counts = bins.get(bin) ?? bins.set(bin, new Map()).get(bin);
      counts.set(event.label, (counts.get(event.label) ?? 0) + 1);
    }
    const sum = (counts) => [...counts.values()].reduce((a, b) => a + b, 0);
    const tallest = Math.max(...[...bins.values()].map(sum));
    for (const [bin, counts] of bins) {
      let floor = top + MARKS - 1;
      for (const [name, count] of [...counts].sort()) {
        const height = (count / tallest) * (MARKS - 4);
        context.fillStyle = classColour(name);
        context.fillRect(bin * BIN, floor - height, BIN - 0.5, height);
        floor -= height;
      }
    }
  }

  /** The whole video in a narrow strip, and the part of it that is shown. */
  #drawStrip() {
    this.strip.hidden = this.whole;
    if (this.whole) return;
    const { context, width, height } = resizeCanvas(this.strip);
    const x = (t) => ((t - this.start) / (this.end - this.start)) * width;
    context.fillStyle = colour("--sunken");
    context.fillRect(0, 0, width, height);
    for (const { label: name, played } of events) {
      context.fillStyle = classColour(name);
      context.fillRect(x(played.apex) - 0.75, 5, 1.5, height - 10);
    }
    context.fillStyle = colour("--accent");
    context.globalAlpha = 0.25;
    const [left, right] = [x(this.from), x(this.to)];
    context.fillRect(left, 0, Math.max(3, right - left), height);
    context.globalAlpha = 1;
    context.strokeStyle = colour("--accent");
    context.lineWidth = 2;
    context.strokeRect(left + 1, 1, Math.max(3, right - left) - 2, height - 2);
  }

  #listen() {
    const { canvas, strip } = this;
    const box = document.getElementById("timeline-box");
    const pointers = new Map();
    let travelled = 0;
    const time = (offsetX, from = this.from, to = this.to) => from + (offsetX / canvas.clientWidth) * (to - from);
    canvas.addEventListener("pointerdown", (event) => {
      pointers.set(event.pointerId, event.offsetX);
      travelled = 0;
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (before === undefined) {
        this.#hover(event);
        return;
      }
      travelled += Math.abs(event.offsetX - before);
      const other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
      pointers.set(event.pointerId, event.offsetX);
      if (other === undefined) this.#pan(((before - event.offsetX) / canvas.clientWidth) * (this.to - this.from));
      else this.zoom(Math.abs(before - other) / Math.max(10, Math.abs(event.offsetX - other)), time((event.offsetX + other) / 2));
    });
    for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, (event) => pointers.delete(event.pointerId));
    canvas.addEventListener("pointerleave", () => this.#hover(null));
    canvas.addEventListener("click", (event) => {
      const mark = travelled < 5 && this.#markNear(event);
      if (mark) this.open(mark.event);
      else if (travelled < 5 && event.detail === 2) this.zoom(0.4, time(event.offsetX));
    });
    canvas.addEventListener("wheel", (event) => {
      const sideways = Math.abs(event.deltaX) > Math.abs(event.deltaY) || event.shiftKey;
      if (!event.ctrlKey && !event.metaKey && !sideways) return; // the page scrolls
      event.preventDefault();
      if (sideways) this.#pan(((event.deltaX || event.deltaY) / canvas.clientWidth) * (this.to - this.from));
      else this.zoom(Math.exp(event.deltaY / 250), time(event.offsetX));
    }, { passive: false });
    const jump = (event) => {
      if (event.type !== "pointerdown" && !event.buttons) return;
      const [middle, half] = [this.start + (event.offsetX / strip.clientWidth) * (this.end - this.start), (this.to - this.from) / 2];
      this.show(middle - half, middle + half);
    };
    strip.addEventListener("pointerdown", jump);
    strip.addEventListener("pointermove", jump);
    box.addEventListener("keydown", (event) => this.#key(event));
    document.getElementById("zoom-in").addEventListener("click", () => this.zoom(0.5));
    document.getElementById("zoom-out").addEventListener("click", () => this.zoom(2));
    document.getElementById("zoom-all").addEventListener("click", () => this.show(this.start, this.end));
  }

  #pan(seconds) {
    this.show(this.from + seconds, this.to + seconds);
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const span = this.to - this.from;
    const actions = {
      ArrowLeft: () => this.#pan(-span / 8),
      ArrowRight: () => this.#pan(span / 8),
      Home: () => this.show(this.start, this.start + span),
      End: () => this.show(this.end - span, this.end),
      "+": () => this.zoom(0.5),
      "=": () => this.zoom(0.5),
      "-": () => this.zoom(2),
      0: () => this.show(this.start, this.end),
    };
    if (!(event.key in actions)) return;
    event.preventDefault();
    actions[event.key]();
  }

  #markNear({ offsetX, offsetY }) {
    const away = ({ x, y, from, to }) => (Math.abs(y - offsetY) > MARKS / 2 ? Infinity : Math.min(Math.abs(x - offsetX), Math.max(from - offsetX, offsetX - to, 2)));
    return nearestMark(this.marks, away, HIT);
  }

  #hover(pointer) {
    const mark = pointer && this.#markNear(pointer);
    showTip(this.tip, this.canvas, mark, mark && tipOf(mark.event), 16);
  }
}

function tipOf(event) {
  return `${answer(event)} · ${event.kind} · ${clock(event.played.apex)}`;
}

/** Index of the first span (start, end, start, end ...) that ends after t. */
function firstAfter(spans, t) {
  let [low, high] = [0, spans.length / 2];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (spans[2 * middle + 1] < t) low = middle + 1;
    else high = middle;
  }
  return 2 * low;
}

function label(context, text, x, y) {
  context.textAlign = "left";
  context.fillText(text, x, y);
}
