// How classes, times and numbers are displayed: colours, shapes, letters and words.

const CLASSES = {
  negative: { letter: "N", shape: "down" },
  positive: { letter: "P", shape: "up" },
  surprise: { letter: "S", shape: "diamond" },
  uncertain: { letter: "U", shape: "circle" },
};

export const LABELS = Object.keys(CLASSES);

/** Activities of a face besides expressions: name, and the custom property of its colour. */
const ACTIVITIES = {
  speech: { name: "speaking", property: "--act-speech" },
  blink: { name: "eyes closed", property: "--act-eyes" },
  eyes_closed: { name: "eyes closed", property: "--act-eyes" },
  gaze: { name: "looking elsewhere", property: "--act-gaze" },
  head_turn: { name: "turning", property: "--act-turn" },
  covered: { name: "covered", property: "--act-covered" },
  motion: { name: "other motion", property: "--act-motion" },
};

export const ACTIVITY_KINDS = Object.keys(ACTIVITIES);

/** Name and colour property of an activity; an unknown kind gets its own name. */
export function activityOf(kind) {
  return ACTIVITIES[kind] ?? { name: kind.replaceAll("_", " "), property: "--class-other" };
}

/** Outlines within -1..1 by shape; a circle has none. */
const OUTLINES = {
  down: [[-1, -0.8], [1, -0.8], [0, 1]],
  up: [[-1, 0.8], [0, -1], [1, 0.8]],
  diamond: [[0, -1.1], [1.1, 0], [0, 1.1], [-1.1, 0]],
  square: [[-0.85, -0.85], [0.85, -0.85], [0.85, 0.85], [-0.85, 0.85]],
};

/** Letter and shape of a class; an unknown class gets its first letter and a square. */
export function classOf(label) {
  return CLASSES[label] ?? { letter: (label[0] ?? "?").toUpperCase(), shape: "square" };
}

/** The custom property that holds a class's colour. */
function property(label) {
  return label in CLASSES ? `--class-${label}` : "--class-other";
}

let cache = new Map();

/** A colour of the style sheet by its custom property, as canvases need it. */
export function colour(name) {
  if (!cache.has(name)) cache.set(name, getComputedStyle(document.documentElement).getPropertyValue(name).trim());
  return cache.get(name);
}

export function classColour(label) {
  return colour(property(label));
}

/** To be called when the theme changes. */
export function resetColours() {
  cache = new Map();
}

/** Draw the shape of a class around (x, y): filled, or an outline while it is provisional. */
export function drawShape(context, label, x, y, radius, { hollow = false } = {}) {
  const outline = OUTLINES[classOf(label).shape];
  context.beginPath();
  if (outline) {
    outline.forEach(([dx, dy], i) => context[i ? "lineTo" : "moveTo"](x + dx * radius, y + dy * radius));
    context.closePath();
  } else {
    context.arc(x, y, radius, 0, 2 * Math.PI);
  }
  context.fillStyle = hollow ? colour("--surface") : classColour(label);
  context.strokeStyle = hollow ? classColour(label) : colour("--surface");
  context.lineWidth = 1.5;
  context.fill();
  context.stroke();
}

const SVG = "http://www.w3.org/2000/svg";

/** The shape of a class as an SVG element, hidden from screen readers: the name is beside it. */
export function shapeIcon(label) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "-1.3 -1.3 2.6 2.6");
  svg.setAttribute("aria-hidden", "true");
  svg.classList.add("shape");
  svg.style.color = `var(${property(label)})`;
  const outline = OUTLINES[classOf(label).shape];
  const mark = document.createElementNS(SVG, outline ? "polygon" : "circle");
  if (outline) mark.setAttribute("points", outline.map((point) => point.join(",")).join(" "));
  else mark.setAttribute("r", "1");
  mark.setAttribute("fill", "currentColor");
  svg.append(mark);
  return svg;
}

/** An element with a class, text or children, and properties. */
export function element(tag, className = "", content = [], properties = {}) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...[content].flat());
  return Object.assign(made, properties);
}

export function capitalize(label) {
  return label ? label[0].toUpperCase() + label.slice(1) : "";
}

export function percent(share) {
  return `${Math.round(100 * share)}\u00a0%`;
}

/** An event's class and how sure it is; of an uncertain one the reason, as its confidence is that of no class. */
export function answer({ label, confidence, why }) {
  if (label === "uncertain") return why ? `Uncertain, ${why}` : "Uncertain";
  return `${capitalize(label)} ${percent(confidence)}`;
}

export function seconds(span) {
  return `${span.toFixed(2)} s`;
}

export function pixels(distance) {
  return distance === null ? "–" : `${distance.toFixed(2)} px`;
}

/** A model's name with its hash shortened. */
export function shortModel(model) {
  return model.replace(/(sha256:.{8}).*/, "$1");
}

const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const DAY = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });

/** Time of day, with the day before it where it is not today. */
export function timeOfDay(ms) {
  const at = new Date(ms);
  return at.toDateString() === new Date().toDateString() ? CLOCK.format(at) : `${DAY.format(at)}, ${CLOCK.format(at)}`;
}

/** How long ago in words; "just now" below two seconds. */
export function ago(ms) {
  const past = Math.max(0, Math.round(ms / 1000));
  if (past < 2) return "just now";
  if (past < 90) return `${past} s ago`;
  if (past < 5400) return `${Math.round(past / 60)} min ago`;
  return `${Math.round(past / 3600)} h ago`;
}

/** Size a canvas to its box in device pixels; returns its context scaled to CSS pixels, and the box. */
export function resizeCanvas(canvas) {
  const ratio = devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

/** Of marks the one that is the least away from the pointer, if that is within reach; away(mark) in pixels. */
export function nearestMark(marks, away, reach) {
  const nearest = marks.reduce((best, mark) => (best && away(best) <= away(mark) ? best : mark), null);
  return nearest && away(nearest) <= reach ? nearest : null;
}

/** Show the tip of a mark of a canvas, so many pixels above it and within the canvas's width; null hides it. */
export function showTip(tip, canvas, mark, text, above) {
  canvas.classList.toggle("pointing", Boolean(mark));
  tip.hidden = !mark;
  if (!mark) return;
  tip.textContent = text;
  const half = tip.offsetWidth / 2;
  tip.style.left = `${Math.max(half, Math.min(canvas.clientWidth - half, mark.x))}px`;
  tip.style.top = `${mark.y - above}px`;
}
