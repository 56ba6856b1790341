// The page: passes the messages of the connection to the sources' cards, the timeline and the table.

import { askConsent, Camera } from "./camera.js";
import { Connection } from "./connection.js";
import { Details } from "./details.js";
import { asCsv, asJson, download, Expressions, NO_FILTER } from "./expressions.js";
import { Filters } from "./filters.js";
import { Nodes } from "./nodes.js";
import { answer, capitalize, element, LABELS, resetColours, shapeIcon, shortModel } from "./display.js";
import { SourceCard } from "./source-card.js";
import { MAX_ROWS, Table } from "./table.js";
import { summary, Timeline } from "./timeline.js";

const FRAME_MS = 45; // time between two drawings; longer where reduced motion is preferred
const REDUCED_FRAME_MS = 500;
const ANNOUNCE_MS = 2500;
const NOTICE_MS = 15_000;

const find = (id) => document.getElementById(id);
const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");
const expressions = new Expressions();
const cards = new Map();
const page = { paused: false, pausedAt: 0, missed: 0, live: false, clockAhead: 0, changed: true, fresh: new Set(), unannounced: [], problem: null };
let shown = [];

const table = new Table(find("rows"), (event) => open(event, true));
const timeline = new Timeline(find("timeline"), find("tip"), (event) => open(event, false));
const nodes = new Nodes(find("nodes"), find("node-list"));
const details = new Details({
  link: (node, text) => nodes.link(node, text),
  step: (event, by) => shown[shown.findIndex(({ seq }) => seq === event.seq) + by],
  closed: (event) => page.opener && [page.opener, document.body].includes(document.activeElement) && table.focus(event.seq),
});
const filters = new Filters(() => refresh());
const camera = new Camera(cameraChanged);

/** Show the details of an expression. If opened from the table, closing focuses the row of the expression shown last, unless the
 * focus has moved since. */
function open(event, fromTable) {
  page.opener = fromTable ? document.activeElement : null;
  details.show(event);
}

/** The service's current wall-clock time, in milliseconds; constant while the page is paused. */
function now() {
  return page.paused ? page.pausedAt : Date.now() + page.clockAhead;
}

const connection = new Connection({
  state(name, text) {
    page.live = name === "live";
    find("link").dataset.state = name;
    find("link-text").textContent = text;
  },
  hello(hello) {
    page.clockAhead = toMs(hello.now) - Date.now();
    page.upTo = hello.seq;
    nodes.reset(hello.nodes);
    for (const id of ["camera-button", "how-to-begin"]) find(id).hidden = Boolean(hello.nodes);
    find("how-to-join").hidden = !hello.nodes;
    for (const name of cards.keys()) if (!hello.streams.some((stream) => stream.name === name)) removeCard(name);
    for (const stream of hello.streams) card(stream.name).status(stream);
    find("facts").textContent = [`apexstream ${hello.version}`, shortModel(hello.model)].filter(Boolean).join(" · network ");
    showProblem(hello.problem);
    for (const one of cards.values()) one.requestPreview(!page.paused, true);
    sourcesChanged();
  },
  message(message) {
    handlers[message.type]?.(message);
  },
  picture(header, jpeg) {
    if (!page.paused) cards.get(header.stream)?.show(header, jpeg);
  },
  reset(seq) {
    expressions.clear(seq);
    page.changed = true;
  },
});

const handlers = {
  expression(event) {
    expressions.add(event);
    page.changed = true;
    const isNew = event.seq === undefined || event.seq > page.upTo;
    const known = event.seq === undefined ? event : expressions.final.get(event.seq);
    cards.get(event.stream)?.expression(known, isNew && !page.paused);
    if (event.seq === undefined || !isNew) return;
    page.fresh.add(event.seq);
    page.unannounced.push(event);
    if (page.paused) page.missed += 1;
    pauseChanged();
  },
  status(status) {
    const isNew = !cards.has(status.stream);
    card(status.stream).status(status);
    if (isNew) sourcesChanged();
  },
  signal(signal) {
    if (!page.paused) cards.get(signal.stream)?.signal(signal);
  },
  activity(activity) {
    if (!page.paused) cards.get(activity.stream)?.activity(activity);
  },
  node(node) {
    nodes.show(node);
    for (const one of cards.values()) one.updateNode();
  },
  removed({ stream }) {
    removeCard(stream);
    sourcesChanged();
  },
  heartbeat({ problem }) {
    showProblem(problem);
  },
  error({ code, message }) {
    if (code !== "since") notice(message);
  },
};

function toMs(time) {
  return typeof time === "number" ? 1000 * time : Date.parse(time);
}

// Sources

const watched = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const one = cards.get(target.dataset.stream);
    if (!one) continue;
    one.visible = isIntersecting;
    one.requestPreview(!page.paused);
  }
});

function card(name) {
  const known = cards.get(name);
  if (known) return known;
  const made = new SourceCard(name, (message) => connection.send(message), (node, text) => nodes.link(node, text));
  cards.set(name, made);
  find("sources").append(made.root);
  watched.observe(made.root);
  return made;
}

function removeCard(name) {
  const removed = cards.get(name);
  if (!removed) return;
  watched.unobserve(removed.root);
  removed.root.remove();
  cards.delete(name);
}

function sourcesChanged() {
  find("no-sources").hidden = cards.size > 0;
  find("sources").dataset.count = String(cards.size);
  page.changed = true;
}

// Filters, table, timeline

function streams() {
  const names = new Set(cards.keys());
  for (const { stream } of expressions.final.values()) names.add(stream);
  return [...names];
}

/** Update table, count and timeline after a change of filters or events. */
function refresh() {
  page.changed = false;
  filters.setStreams(streams());
  const frozen = page.paused ? page.pausedSeq : Infinity;
  const all = expressions.shown(NO_FILTER).filter(({ seq }) => seq <= frozen);
  shown = expressions.shown(filters.filter).filter(({ seq }) => seq <= frozen);
  table.show(shown);
  if (!page.paused) {
    table.highlight(page.fresh);
    page.fresh.clear();
  }
  const listed = shown.length > MAX_ROWS ? `, the newest ${MAX_ROWS} listed` : "";
  find("count").textContent = (shown.length === all.length ? `${all.length}` : `${shown.length} of ${all.length}`) + listed;
  find("no-rows").hidden = shown.length > 0;
  find("no-rows").textContent = all.length ? "No expression matches the filters." : "No expression yet. They appear here as they end.";
  for (const kind of ["csv", "json"]) {
    find(`export-${kind}`).disabled = !shown.length;
    find(`export-${kind}`).textContent = `Export ${shown.length ? `${shown.length} as ` : ""}${kind.toUpperCase()}`;
  }
  find("older").hidden = !expressions.partial;
  find("older").textContent = `This page holds the newest ${all.length}. “apexstream events”, where the service runs, exports the older ones too.`;
  refreshLegend();
}

function refreshLegend() {
  const since = now() - 1000 * timeline.span;
  const visible = shown.filter(({ at }) => at >= since);
  const labels = [...new Set([...LABELS, ...visible.map(({ label }) => label)])];
  const entry = (label) => {
    const count = visible.filter((event) => event.label === label).length;
    return element("li", "", [shapeIcon(label), ` ${capitalize(label)} `, element("strong", "", String(count))]);
  };
  find("legend").replaceChildren(...labels.map(entry));
  find("timeline").setAttribute("aria-label", summary(visible, timeline.span));
}

function drawTimeline() {
  const { stream, hidden } = filters.filter;
  const open = page.paused ? [] : expressions.open().filter(({ label }) => !hidden.has(label));
  timeline.draw(stream ? [stream] : streams(), [...shown].reverse(), open, now());
}

// Pause, export, theme, camera

function pause() {
  if (!page.paused) page.pausedAt = Date.now() + page.clockAhead;
  page.paused = !page.paused;
  page.pausedSeq = connection.seen;
  page.missed = 0;
  for (const one of cards.values()) one.requestPreview(!page.paused);
  pauseChanged();
  refresh();
}

function pauseChanged() {
  find("pause").classList.toggle("on", page.paused);
  find("pause-text").textContent = page.paused ? `Resume${page.missed ? ` (${page.missed} new)` : ""}` : "Pause";
}

function exported(kind) {
  const stamp = new Date(now()).toISOString().slice(0, 19).replace(/[:T]/g, "-");
  const [type, text] = kind === "csv" ? ["text/csv", asCsv(shown)] : ["application/json", asJson(shown)];
  download(`expressions-${stamp}.${kind}`, type, text);
}

function setTheme(dark, keep) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  find("theme").setAttribute("aria-pressed", String(dark));
  resetColours();
  for (const one of cards.values()) one.repaint();
  if (!keep) return;
  document.documentElement.dataset.chosen = "";
  try {
    localStorage.setItem("apexstream.theme", dark ? "dark" : "light");
  } catch {
    // storage is disabled: the choice lasts until the page is closed
  }
}

function cameraChanged(state, detail) {
  find("camera-button-text").textContent = { off: "Use this device’s camera", starting: "Starting the camera", on: "Stop the camera" }[state];
  find("camera-button").classList.toggle("on", state === "on");
  if (state === "on") notice("");
  if (detail) notice(detail);
}

/** Show a notice; it disappears after NOTICE_MS unless it stays. */
function notice(text, { stays = false } = {}) {
  find("notice").textContent = text;
  find("notice").hidden = !text;
  clearTimeout(page.noticed);
  if (text && !stays) page.noticed = setTimeout(() => notice(page.problem ?? "", { stays: true }), NOTICE_MS);
}

/** Show the problem that the service reports, if any. */
function showProblem(problem) {
  if (problem === page.problem) return;
  page.problem = problem;
  notice(problem ?? "", { stays: true });
}

/** Announce new expressions to screen readers, several at once. */
function announce() {
  const news = page.unannounced.splice(0);
  if (!news.length) return;
  const last = news[news.length - 1];
  const more = news.length > 1 ? `${news.length} new expressions, the last: ` : "";
  find("announcer").textContent = `${more}${last.stream}, ${answer(last)}, ${last.kind}`;
}

/** Draw what moves, repeatedly, but not while the page is in the background. */
function frame() {
  setTimeout(() => requestAnimationFrame(frame), reducedMotion.matches ? REDUCED_FRAME_MS : FRAME_MS);
  if (page.paused) return;
  for (const one of cards.values()) one.draw(!reducedMotion.matches);
  if (page.changed) refresh();
}

function everySecond() {
  if (!page.paused) {
    refreshLegend();
    for (const one of cards.values()) {
      one.updateLast(now());
      one.requestPreview(true);
    }
  }
  if (page.changed) refresh(); // no frame is drawn while the page is in the background
}

function start() {
  setTheme(document.documentElement.dataset.theme === "dark", false);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", ({ matches }) => {
    if (!("chosen" in document.documentElement.dataset)) setTheme(matches, false);
  });
  find("theme").addEventListener("click", () => setTheme(document.documentElement.dataset.theme !== "dark", true));
  find("pause").addEventListener("click", pause);
  find("spans").addEventListener("change", (event) => {
    timeline.span = Number(event.target.value);
    refreshLegend();
    drawTimeline();
  });
  find("export-csv").addEventListener("click", () => exported("csv"));
  find("export-json").addEventListener("click", () => exported("json"));
  find("camera-button").addEventListener("click", () => (camera.state === "on" ? camera.stop() : askConsent(camera)));
  document.addEventListener("visibilitychange", () => {
    for (const one of cards.values()) one.requestPreview(!page.paused);
  });
  addEventListener("resize", () => [...cards.values()].forEach((one) => one.repaint()));
  refresh();
  requestAnimationFrame(frame);
  setInterval(everySecond, 1000);
  setInterval(drawTimeline, 250);
  setInterval(announce, ANNOUNCE_MS);
  connection.open();
}

start();
