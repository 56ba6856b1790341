// The expressions that the page holds: filtering and export.

const MAX_KEPT = 2000;
const STALE_MS = 30_000; // a provisional expression without its final event is dropped after this

/** When an expression peaked, in milliseconds of the service's wall clock. */
function apexTime(event) {
  const emitted = Date.parse(event.emitted_at);
  const since = (event.offset ?? event.apex).t - event.apex.t;
  return emitted - (event.latency_ms ?? 0) - 1000 * since;
}

export function duration(event) {
  return event.offset ? event.offset.t - event.onset.t : null;
}

/** The newest final expressions by seq, and the provisional ones by id. */
export class Expressions {
  constructor() {
    this.final = new Map();
    this.provisional = new Map();
    this.partial = false; // whether older ones exist than those held
  }

  add(event) {
    if (event.seq === undefined) {
      this.provisional.set(event.id, { event, at: Date.now() });
      return;
    }
    this.provisional.delete(event.id);
    this.final.set(event.seq, { ...event, at: apexTime(event) });
    if (this.final.size <= MAX_KEPT) return;
    this.final.delete(this.final.keys().next().value);
    this.partial = true;
  }

  /** Discard all; those after seq follow. */
  clear(seq) {
    this.partial = seq > 0;
    this.final.clear();
    this.provisional.clear();
  }

  /** The provisional ones. */
  open() {
    for (const [id, { at }] of this.provisional) if (Date.now() - at > STALE_MS) this.provisional.delete(id);
    return [...this.provisional.values()].map(({ event }) => event);
  }

  /** Those that match a filter, the newest first. */
  shown(filter) {
    return [...this.final.values()].filter((event) => matches(event, filter)).reverse();
  }
}

/** A filter that matches all: stream and kind "" for any, hidden labels, least confidence. */
export const NO_FILTER = Object.freeze({ stream: "", kind: "", hidden: new Set(), minConfidence: 0 });

function matches(event, { stream, kind, hidden, minConfidence }) {
  return (!stream || event.stream === stream) && (!kind || event.kind === kind) && !hidden.has(event.label) && event.confidence >= minConfidence;
}

const time = (mark) => mark?.t.toFixed(6);

/** The columns of the service's own /api/events?format=csv. */
const COLUMNS = {
  seq: (e) => e.seq,
  emitted_at: (e) => e.emitted_at,
  latency_ms: (e) => e.latency_ms,
  id: (e) => e.id,
  stream: (e) => e.stream,
  face: (e) => e.face,
  kind: (e) => e.kind,
  label: (e) => e.label,
  confidence: (e) => e.confidence,
  intensity: (e) => e.intensity,
  onset_frame: (e) => e.onset.frame,
  onset_t: (e) => time(e.onset),
  apex_frame: (e) => e.apex.frame,
  apex_t: (e) => time(e.apex),
  offset_frame: (e) => e.offset?.frame,
  offset_t: (e) => time(e.offset),
  duration_s: (e) => duration(e)?.toFixed(6),
  truncated: (e) => String(e.truncated ?? false),
  speaking: (e) => String(e.speaking ?? false),
  p_negative: (e) => e.probabilities.negative,
  p_positive: (e) => e.probabilities.positive,
  p_surprise: (e) => e.probabilities.surprise,
  model: (e) => e.model,
  why: (e) => e.why,
  expression_probability: (e) => e.expression_probability,
  onset_at: (e) => e.onset_at,
};

/** A value as a cell; text that a spreadsheet would run as a formula is quoted. */
function cell(value) {
  const text = typeof value === "string" && /^\s*[=+\-@\uff1d\uff0b\uff0d\uff20]/.test(value) && Number.isNaN(Number(value)) ? `'${value}` : String(value ?? "");
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** One row an expression, the oldest first. */
export function asCsv(events) {
  const rows = [Object.keys(COLUMNS), ...[...events].reverse().map((event) => Object.values(COLUMNS).map((read) => read(event)))];
  return rows.map((row) => `${row.map(cell).join(",")}\n`).join("");
}

/** The expressions as they are stored, the oldest first. */
export function asJson(events) {
  const plain = [...events].reverse().map(({ at, evidence, ...event }) => event);
  return `${JSON.stringify(plain, null, 2)}\n`;
}

/** Offer a file for download. */
export function download(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
