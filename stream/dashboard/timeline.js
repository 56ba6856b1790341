// The timeline: one lane per stream, one mark per expression, the current time at the right edge.

import { answer, colour, drawShape, nearestMark, resizeCanvas, showTip, timeOfDay } from "./display.js";

const LANE = 36;
const NARROW_LANE = 46; // its name is above it
const AXIS = 22;
const RADIUS = 7;
const OFFSETS = [0, -9, 9]; // marks that would overlap are moved above or below the lane's line
const HIT_RADIUS = 12; // pixels between pointer and mark
const STEPS_S = [10, 15, 30, 60, 120, 300, 600, 900];

export class Timeline {
  /** open(event): called when a mark is clicked. */
  constructor(canvas, tip, open) {
    this.canvas = canvas;
    this.tip = tip;
    this.span = 300;
    this.marks = [];
    canvas.addEventListener("pointermove", (event) => this.#hover(event));
    canvas.addEventListener("pointerleave", () => this.#hover(null));
    canvas.addEventListener("click", (event) => {
      const mark = this.#markNear(event);
      if (mark && mark.event.seq !== undefined) open(mark.event);
    });
  }

  /** Draw the streams' expressions up to now (milliseconds of the service's clock); open ones are hollow. */
  draw(streams, events, open, now) {
    const narrow = this.canvas.clientWidth < 560;
    const pitch = narrow ? NARROW_LANE : LANE;
    this.canvas.style.height = `${Math.max(1, streams.length) * pitch + AXIS}px`;
    const { context, width, height } = resizeCanvas(this.canvas);
    if (!width) return;
    const middle = (lane) => lane * pitch + (narrow ? 29 : pitch / 2);
    const names = narrow ? 0 : Math.min(150, 24 + Math.max(60, ...streams.map((name) => name.length * 7)));
    const x = (at) => width - 10 - ((now - at) / 1000 / this.span) * (width - 10 - names);
    drawAxis(context, { x, names, width, height, now, span: this.span });
    streams.forEach((name, lane) => drawLane(context, name, narrow ? [middle(lane) - 18, 120] : [middle(lane) + 4.5, names - 16], middle(lane), [names, width]));
    this.marks = [];
    const last = []; // by lane: the mark drawn last
    for (const event of [...events, ...open]) {
      const at = event.seq === undefined ? now : event.at;
      const lane = streams.indexOf(event.stream);
      if (lane < 0 || at < now - 1000 * this.span || at > now + 5000) continue;
      const left = Math.min(x(at), width - 8);
      const before = last[lane];
      const step = before && left - before.left < 1.6 * RADIUS ? (before.step + 1) % OFFSETS.length : 0;
      last[lane] = { left, step };
      const mark = { event, x: left, y: middle(lane) + OFFSETS[step] };
      drawShape(context, event.label, mark.x, mark.y, RADIUS, { hollow: event.seq === undefined });
      this.marks.push(mark);
    }
  }

  #markNear({ offsetX, offsetY }) {
    return nearestMark(this.marks, ({ x, y }) => Math.hypot(x - offsetX, y - offsetY), HIT_RADIUS);
  }

  #hover(pointer) {
    const mark = pointer && this.#markNear(pointer);
    showTip(this.tip, this.canvas, mark, mark && tipOf(mark.event), 14);
  }
}

function tipOf(event) {
  const when = event.seq === undefined ? "under way" : `${event.kind}, ${timeOfDay(event.at)}`;
  return `${answer(event)} · ${event.stream} · ${when}`;
}

/** A lane's line, and its name at a baseline within a width. */
function drawLane(context, name, [baseline, room], middle, [from, to]) {
  context.strokeStyle = colour("--line");
  context.lineWidth = 1;
  context.beginPath();
  context.moveTo(from, Math.round(middle) + 0.5);
  context.lineTo(to, Math.round(middle) + 0.5);
  context.stroke();
  context.fillStyle = colour("--text");
  context.textAlign = "left";
  context.font = `13px ${colour("--font")}`;
  const fitting = Math.floor(room / 7);
  context.fillText(name.length > fitting ? `${name.slice(0, fitting - 1)}…` : name, 0, baseline);
}

function drawAxis(context, { x, names, width, height, now, span }) {
  const room = width - names;
  const step = STEPS_S.find((candidate) => (candidate / span) * room > 64) ?? span;
  const first = Math.ceil((now / 1000 - span) / step) * step;
  context.font = `11px ${colour("--font")}`;
  context.textAlign = "center";
  context.lineWidth = 1;
  for (let at = first; at <= now / 1000; at += step) {
    const left = Math.round(x(1000 * at)) + 0.5;
    context.strokeStyle = colour("--line");
    context.beginPath();
    context.moveTo(left, 0);
    context.lineTo(left, height - AXIS + 4);
    context.stroke();
    context.fillStyle = colour("--faint");
    const text = step < 60 ? timeOfDay(1000 * at).slice(-8) : timeOfDay(1000 * at).slice(-8, -3);
    if (left > names + 18 && left < width - 24) context.fillText(text, left, height - 5);
  }
}

/** The text of the timeline for screen readers. */
export function summary(events, span) {
  if (!events.length) return "No expression on the timeline";
  const counts = new Map();
  for (const { label } of events) counts.set(label, (counts.get(label) ?? 0) + 1);
  const parts = [...counts].map(([label, count]) => `${count} ${label}`);
  const minutes = span / 60;
  return `Timeline of the last ${minutes === 1 ? "minute" : `${minutes} minutes`}: ${parts.join(", ")}. The table below lists them.`;
}

