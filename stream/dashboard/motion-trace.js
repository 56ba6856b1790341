// The motion trace of a source: loudness over the last seconds, the threshold at 1, and the expressions found. It is shaded while
// a face speaks; a band at the bottom shows the other activities.

import { activityOf, classColour, classOf, colour, drawShape, resizeCanvas } from "./display.js";

const SPAN_S = 12;
const TOP = 26; // room for the marks of the apexes
const BOTTOM = 16;
const BAND = 6; // its height
const MIN_BAND = 3; // width of a blink
const GAP_S = 0.5; // samples further apart are not joined
const MIN_CEILING = 2;

export class MotionTrace {
  constructor(canvas) {
    this.canvas = canvas;
    this.faces = new Map(); // face -> [[t, loudness], ...]
    this.marks = new Map(); // event id -> event
    this.ended = []; // activities that have ended: { kind, from, to }
    this.doing = []; // current activities: { face, kind, from }
    this.newest = -Infinity;
    this.lead = null; // source time less page time, smoothed
    this.ceiling = MIN_CEILING;
    this.changed = true; // since the last drawing
  }

  add({ t, faces, samples }) {
    if (t < this.newest) this.clear();
    this.newest = t;
    this.changed = true;
    const lead = t - performance.now() / 1000;
    const jumped = this.lead === null || Math.abs(lead - this.lead) > 1;
    this.lead = jumped ? lead : this.lead + 0.1 * (lead - this.lead);
    for (const { face, t: times, loudness } of samples ?? []) {
      const points = this.faces.get(face) ?? [];
      times.forEach((time, i) => points.push([time, loudness[i]]));
      this.faces.set(face, points);
    }
    this.doing = (faces ?? []).flatMap(({ face, doing }) => (doing ?? []).map(({ kind, since }) => ({ face, kind, from: since })));
    this.#prune(t - SPAN_S - 2);
  }

  /** Add an activity that has ended. */
  addActivity({ kind, start, end }) {
    this.ended.push({ kind, from: start.t, to: end.t });
    this.changed = true;
  }

  addExpression(event) {
    this.marks.set(event.id, event);
    this.changed = true;
  }

  clear() {
    this.faces.clear();
    this.marks.clear();
    this.ended = [];
    this.doing = [];
    this.newest = -Infinity;
    this.lead = null;
    this.changed = true;
  }

  #prune(before) {
    for (const [face, points] of this.faces) {
      const kept = points.findIndex(([t]) => t >= before);
      if (kept < 0) this.faces.delete(face);
      else if (kept > 60) points.splice(0, kept);
    }
    this.ended = this.ended.filter(({ to }) => to >= before);
    for (const [id, { offset, apex }] of this.marks) if ((offset ?? apex).t < before - SPAN_S) this.marks.delete(id);
  }

  /** The source's time at the right edge: it advances evenly, a little behind the newest sample. */
  #rightEdge(scrolling) {
    if (!scrolling || this.lead === null) return this.newest;
    return Math.min(this.newest + 0.3, performance.now() / 1000 + this.lead);
  }

  draw(scrolling) {
    this.changed = false;
    const { context, width, height } = resizeCanvas(this.canvas);
    if (!width) return;
    const edge = Number.isFinite(this.newest) ? this.#rightEdge(scrolling) : 0;
    const floor = height - BOTTOM;
    const x = (t) => width - 6 - ((edge - t) / SPAN_S) * (width - 6);
    this.#adjustScale(edge);
    const y = (loudness) => floor - (Math.min(loudness, this.ceiling) / this.ceiling) * (floor - TOP);
    for (const act of [...this.ended, ...this.doing]) this.#drawActivity(context, act, x, floor, edge);
    this.#drawScale(context, width, x, y, floor, edge);
    for (const event of this.marks.values()) this.#drawSpan(context, event, x, floor, edge);
    for (const points of this.faces.values()) this.#drawLine(context, points, x, y, edge);
    for (const event of this.marks.values()) this.#drawApex(context, event, x, edge);
  }

  /** The scale follows the loudest sample in view, quickly up and slowly down. */
  #adjustScale(edge) {
    let loudest = MIN_CEILING;
    for (const points of this.faces.values()) {
      for (const [t, loudness] of points) if (t > edge - SPAN_S && loudness * 1.15 > loudest) loudest = loudness * 1.15;
    }
    this.ceiling += (loudest > this.ceiling ? 0.3 : 0.04) * (loudest - this.ceiling);
  }

  #drawScale(context, width, x, y, floor, edge) {
    context.lineWidth = 1;
    context.font = `11px ${colour("--font")}`;
    context.strokeStyle = colour("--line");
    context.fillStyle = colour("--faint");
    context.textAlign = "center";
    for (let past = 2; past < SPAN_S; past += 2) {
      const at = Math.round(x(edge - past)) + 0.5;
      line(context, at, TOP, at, floor);
      context.fillText(`−${past} s`, at, floor + 13);
    }
    line(context, 0, floor + 0.5, width, floor + 0.5);
    context.strokeStyle = colour("--threshold");
    context.setLineDash([5, 4]);
    const threshold = Math.round(y(1)) + 0.5;
    line(context, 0, threshold, width, threshold);
    context.setLineDash([]);
    context.textAlign = "left";
    context.fillStyle = colour("--faint");
    context.fillText("threshold", 2, threshold - 4);
  }

  #drawActivity(context, { kind, from, to }, x, floor, edge) {
    const [left, right] = [x(from), x(to ?? edge)];
    if (right < 0) return;
    context.fillStyle = colour(activityOf(kind).property);
    if (kind !== "speech") {
      context.fillRect(left, floor - BAND, Math.max(MIN_BAND, right - left), BAND);
      return;
    }
    context.globalAlpha = 0.14;
    context.fillRect(left, TOP, right - left, floor - TOP);
    context.globalAlpha = 1;
    context.fillRect(left, TOP, right - left, 2);
  }

  #drawSpan(context, event, x, floor, edge) {
    const from = x(event.onset.t);
    const to = x(event.offset ? event.offset.t : edge);
    if (to < 0) return;
    context.fillStyle = context.strokeStyle = classColour(event.label);
    context.globalAlpha = event.offset ? 0.2 : 0.1;
    context.fillRect(from, TOP, to - from, floor - TOP);
    context.globalAlpha = 1;
    context.lineWidth = 1.5;
    context.setLineDash(event.offset ? [] : [3, 3]);
    line(context, from, TOP, from, floor);
    if (event.offset) line(context, to, TOP, to, floor);
    context.setLineDash([]);
    drawFlag(context, from, floor, 6);
    if (event.offset) drawFlag(context, to, floor, -6);
  }

  #drawApex(context, event, x, edge) {
    if (event.apex.t < edge - SPAN_S) return;
    const at = x(event.apex.t);
    context.strokeStyle = classColour(event.label);
    context.lineWidth = 1.5;
    line(context, at, TOP - 6, at, this.canvas.clientHeight - BOTTOM);
    drawShape(context, event.label, at, 10, 6.5, { hollow: !event.offset });
    context.fillStyle = colour("--text");
    context.font = `600 11px ${colour("--font")}`;
    const late = at > this.canvas.clientWidth - 24;
    context.textAlign = late ? "right" : "left";
    context.fillText(classOf(event.label).letter, at + (late ? -10 : 10), 14);
  }

  #drawLine(context, points, x, y, edge) {
    context.beginPath();
    let last = -Infinity;
    for (const [t, loudness] of points) {
      if (t > edge) break;
      if (t > edge - SPAN_S - GAP_S) context[t - last > GAP_S ? "moveTo" : "lineTo"](x(t), y(loudness));
      last = t;
    }
    context.strokeStyle = colour("--trace");
    context.lineWidth = 1.75;
    context.lineJoin = "round";
    context.stroke();
  }
}

function line(context, x0, y0, x1, y1) {
  context.beginPath();
  context.moveTo(x0, y0);
  context.lineTo(x1, y1);
  context.stroke();
}

/** A small triangle at the bottom, pointing into its span. */
function drawFlag(context, x, floor, width) {
  context.beginPath();
  context.moveTo(x, floor - 8);
  context.lineTo(x + width, floor - 4);
  context.lineTo(x, floor);
  context.fill();
}
