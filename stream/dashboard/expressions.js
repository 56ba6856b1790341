// The expressions the page knows of, which of them are shown, and what is exported of them.

const KEPT = 2000;
const STALE_MS = 30_000; // a provisional expression whose end was never told

/** When an expression peaked, in milliseconds of the service's wall clock. */
export function apexTime(event) {
  const told = Date.parse(event.emitted_at);
  const since = (event.offset ?? event.apex).t - event.apex.t;
  return told - (event.latency_ms ?? 0) - 1000 * since;
}

export function duration(event) {
  return event.offset ? event.offset.t - event.onset.t : null;
}

/** Final expressions by seq, the oldest forgotten, and the provisional ones by id. */
export class Expressions {
  constructor() {
    this.final = new Map();
    this.provisional = new Map();
  }

  add(event) {
    if (event.seq === undefined) {
      this.provisional.set(event.id, { event, at: Date.now() });
      return;
    }
    this.provisional.delete(event.id);
    this.final.set(event.seq, { ...event, at: apexTime(event) });
    if (this.final.size > KEPT) this.final.delete(this.final.keys().next().value);
  }

  clear() {
    this.final.clear();
    this.provisional.clear();
  }

  /** Those that are still open. */
  open() {
    for (const [id, { at }] of this.provisional) if (Date.now() - at > STALE_MS) this.provisional.delete(id);
    return [...this.provisional.values()].map(({ event }) => event);
  }

  /** Those that pass a filter, the newest first. */
  shown(filter) {
    return [...this.final.values()].filter((event) => passes(event, filter)).reverse();
  }
}

/** filter: { stream, kind: "" for any, hidden: Set of labels, sure: least confidence } */
export function passes(event, { stream, kind, hidden, sure }) {
  return (!stream || event.stream === stream) && (!kind || event.kind === kind) && !hidden.has(event.label) && event.confidence >= sure;
}

const COLUMNS = {
  seq: (e) => e.seq,
  id: (e) => e.id,
  stream: (e) => e.stream,
  face: (e) => e.face,
  kind: (e) => e.kind,
  label: (e) => e.label,
  confidence: (e) => e.confidence,
  intensity: (e) => e.intensity,
  onset_frame: (e) => e.onset.frame,
  onset_t: (e) => e.onset.t,
  apex_frame: (e) => e.apex.frame,
  apex_t: (e) => e.apex.t,
  offset_frame: (e) => e.offset?.frame,
  offset_t: (e) => e.offset?.t,
  duration_s: (e) => duration(e)?.toFixed(3),
  truncated: (e) => (e.truncated ? "true" : "false"),
  p_negative: (e) => e.probabilities.negative,
  p_positive: (e) => e.probabilities.positive,
  p_surprise: (e) => e.probabilities.surprise,
  model: (e) => e.model,
  emitted_at: (e) => e.emitted_at,
  latency_ms: (e) => e.latency_ms,
};

/** One row an expression, the oldest first, with the columns of the recognizer's own events.csv and those of a live service. */
export function asCsv(events) {
  const cell = (value) => {
    const text = String(value ?? "");
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const rows = [Object.keys(COLUMNS), ...[...events].reverse().map((event) => Object.values(COLUMNS).map((read) => read(event)))];
  return rows.map((row) => `${row.map(cell).join(",")}\r\n`).join("");
}

/** The expressions as they came, the oldest first. */
export function asJson(events) {
  const plain = [...events].reverse().map(({ at, ...event }) => event);
  return `${JSON.stringify(plain, null, 2)}\n`;
}

/** Hand the user a file. */
export function download(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
