// The review page: shows one event after the other and stores what the coder decides.

import { request } from "./api.js";
import { Connection } from "./connection.js";
import { capitalize, classColour, colour, element, percent, resetColours, resizeCanvas, shapeIcon } from "./display.js";
import { EXPRESSIONS, Items, decisionText, fromServer } from "./items.js";
import { listen, listKeys } from "./keys.js";
import { Player } from "./player.js";
import { Track } from "./track.js";

const SPEEDS = [0.125, 0.25, 0.5, 1];
const AROUND_S = 2; // of the video around an event
const LOOPED_S = 0.5;
const ADDED_S = 0.4; // how long an added expression is at first
const FACE_MARGIN = 0.45;
const REASONS = { covered: "something covered the face", "turned away": "the head was turned away" }; // others say it themselves
const PAUSE_MS = 1000; // of typing, after which a note is stored

const find = (id) => document.getElementById(id);
let labels = [];
let unitNames = new Map();
let origin = 0;
let faces = new Map(); // face -> [[frame, x, y, width, height], ...]
const stored = new Map(); // id -> code as the server has it
let current = null; // id of the event that is shown; null while looking elsewhere in the video
let whole = false; // the whole picture is shown, not the face alone

const player = new Player(find("picture"), { show: showFrame, cover: showCover });
const track = new Track(find("track"), {
  seek: (frame) => {
    player.pause();
    player.seek(frame);
    showPlaying();
  },
  move: moveMark,
});
const items = new Items(find("items"), select);
items.when = ({ onset }) => clockText(timeAbout(onset));
const connection = new Connection({ hello, answer, video: showVideo, state: showState, problem: showNotice });

// What the server says

function hello(message, pending) {
  labels = message.labels;
  unitNames = new Map(message.action_units);
  origin = message.origin;
  find("name").textContent = message.name;
  document.title = `${message.name} · review`;
  const blind = { labels: ", blind to the machine’s classes", machine: ", blind to the machine" }[message.blind] ?? "";
  find("coder").textContent = `Coder ${message.coder}${blind}${message.adjudicates ? ", decides about disagreements" : ""}`;
  items.reset(message.events, message.codes);
  stored.clear();
  for (const code of message.codes) stored.set(code.id, fromServer(code));
  for (const { type, code } of pending) if (type === "put") items.set(code.id, code); // the server will say the same soon
  find("unit-names").replaceChildren(...message.action_units.map(([number, name]) => element("option", "", name, { value: number })));
  find("unit-list").replaceChildren(...message.action_units.map(([number, name]) => element("li", "", `${number} ${name}`)));
  showClasses();
  if (current === null || !items.byId.has(current)) select(items.all.find((id) => items.byId.get(id).code.decision === "open") ?? items.all[0]);
  else show();
  loadFaces();
}

function answer({ type, code, state, sentence }, action) {
  if (type === "refused") {
    showNotice(sentence);
    const refused = action?.code?.id;
    if (refused) items.set(refused, stored.get(refused) ?? null);
    show();
    return;
  }
  if (code !== null && state) stored.set(code, fromServer(state));
  else stored.delete(code);
  if (action?.type === "undo") {
    if (code === null) showNotice("There is nothing to undo.");
    else announce("Undone");
  }
  if (code === null || [...connection.pending.values()].some((one) => (one.code?.id ?? one.code) === code)) return;
  items.set(code, state && fromServer(state));
  const typing = document.activeElement?.matches("#units, #note-text"); // about the one that is shown
  if (action?.type === "undo" && code !== current && !typing) select(items.byId.has(code) ? code : items.after(current, 0));
  else show();
}

function showVideo(message) {
  if (message.type === "reading") {
    showCover(`Reading the video, ${percent(message.share)}`);
    return;
  }
  if (message.problem) {
    showCover(message.problem);
    return;
  }
  const first = !player.video;
  player.video = message;
  items.fill();
  if (first && item()) open();
  else if (first) browse(Math.round(AROUND_S * player.rate));
  drawOverview();
}

async function loadFaces() {
  try {
    const found = await (await request("/faces")).json();
    faces = Map.groupBy(found, ([face]) => face);
    faces.forEach((places, face) => faces.set(face, places.map(([, ...place]) => place)));
  } catch {
    faces = new Map(); // the whole picture is shown
  }
  if (player.video && faces.size) open();
}

function showState(name, waiting) {
  if (name === "away" && !items.all.length) explainAway();
  find("link").dataset.state = name;
  const kept = `${waiting} decision${waiting === 1 ? "" : "s"}`;
  const away = waiting ? `Server away: ${kept} kept here until it is back` : "Server away";
  find("link-text").textContent = { saved: "All saved", saving: `Saving ${waiting}`, away }[name];
}

/** Why there was no connection yet: the token may be missing, as where the address was typed without it. */
async function explainAway() {
  try {
    await request("/faces");
  } catch (error) {
    if (error.message.includes("token")) showNotice("Open the whole address that apexstream review printed: it ends with a token.");
  }
}

function showNotice(sentence) {
  find("notice").textContent = sentence;
  find("notice").hidden = !sentence;
}

function announce(text) {
  find("announcer").textContent = text;
}

// The event that is shown

const item = () => items.byId.get(current);

function select(id) {
  if (id === undefined) {
    current = null;
    show();
    return;
  }
  current = id;
  showNotice("");
  items.mark(id);
  show();
  open();
}

/** Have the frames around the event, and start at its onset. */
function open() {
  if (!player.video || !item()) return;
  const { onset, offset } = item().code;
  const around = (length) => [onset, offset].map((frame, end) => frame + (end ? 1 : -1) * Math.round(length * player.rate));
  player.loaded = () => {
    const next = items.after(current, 1);
    const code = next !== current && items.byId.get(next)?.code;
    if (code) player.prefetch([code.onset, code.offset], regionOf(code));
  };
  player.open(around(AROUND_S), around(LOOPED_S), onset, regionOf(item().code));
  showTrack();
}

/** The part of the picture around a face, as the server takes it; "" for all of it. */
function regionOf({ face, apex }) {
  const places = faces.get(face);
  const { width, height } = player.video ?? {};
  if (whole || !places?.length || !width || !height) return "";
  const nearest = places.reduce((best, place) => (Math.abs(place[0] - apex) < Math.abs(best[0] - apex) ? place : best));
  const [, x, y, w, h] = nearest;
  const side = Math.max(w, h) * (1 + 2 * FACE_MARGIN);
  const clamp = (low, size, most) => [Math.max(0, Math.round(low)), Math.min(most, Math.round(low + size))];
  const [left, right] = clamp(x + w / 2 - (side * 4) / 6, (side * 4) / 3, width);
  const [top, bottom] = clamp(y + h / 2 - side / 2, side, height);
  return right - left < 16 || bottom - top < 16 ? "" : [left, top, right - left, bottom - top].join(",");
}

function show() {
  const shown = item();
  const code = shown?.code;
  const machine = shown?.event;
  find("stage-title").textContent = code ? (code.label ? capitalize(code.label) : "Class not given") : items.all.length ? "Elsewhere in the video" : "No event";
  find("verdict").textContent = code ? decisionText(code.decision) : "";
  find("verdict").dataset.decision = code?.decision ?? "open";
  const kind = machine?.kind ? `${machine.kind} · ` : "";
  const listed = items.all.indexOf(current);
  find("position").textContent = code ? `${machineText(machine)}${kind}face ${code.face} · ${listed + 1} of ${items.all.length}` : "";
  find("count").textContent = `${items.decided} of ${items.all.length} decided`;
  find("progress").value = items.all.length ? items.decided / items.all.length : 0;
  find("no-items").hidden = items.listed.length > 0;
  for (const id of ["accept", "reject", "units", "note-text"]) find(id).disabled = !code;
  find("reject").hidden = find("accept").hidden = Boolean(code && !machine);
  find("remove").hidden = !code || Boolean(machine);
  for (const chip of find("classes").children) {
    chip.setAttribute("aria-pressed", String(chip.dataset.label === code?.label));
    chip.disabled = !code;
  }
  if (document.activeElement !== find("units")) find("units").value = code?.action_units ?? "";
  if (document.activeElement !== find("note-text")) find("note-text").value = code?.note ?? "";
  showUnits(code?.action_units ?? "");
  showOthers(machine?.others ?? []);
  if (items.all.length) drawOverview();
  showTrack();
}

/** What the machine says, and why it is uncertain; "" where that is hidden, or it says nothing. */
function machineText(machine) {
  if (machine?.confidence === undefined) return "";
  const uncertain = `uncertain${machine.why ? `, ${REASONS[machine.why] ?? machine.why}` : ""}`;
  return `machine: ${machine.label === "uncertain" ? uncertain : `${machine.label} ${percent(machine.confidence)}`} · `;
}

/** What other coders decided, for a third person. */
function showOthers(others) {
  const rows = others.map(({ coder, code }, index) => {
    const what = code ? [shapeIcon(code.label), ` ${capitalize(code.label)}, ${code.onset.frame} to ${code.offset.frame} ${code.action_units.join(" ")}`] : ["No expression"];
    const take = element("button", "", ["Take over ", element("kbd", "", `Shift+${index + 1}`)], { type: "button" });
    take.setAttribute("aria-label", `Take over (Shift+${index + 1}) what ${coder} decided`);
    take.addEventListener("click", () => takeOver(index));
    return element("div", "other", [element("b", "", coder), element("span", "", what), take]);
  });
  find("others").replaceChildren(...rows);
}

function takeOver(index) {
  const other = item()?.event?.others?.[index];
  if (!other) return;
  if (!other.code) {
    decide("rejected");
    return;
  }
  const { onset, apex, offset, label, action_units: units } = other.code;
  put({ decision: "accepted", onset: onset.frame, apex: apex.frame, offset: offset.frame, label, action_units: units.join(" ") });
  next(1);
}

function nextFace() {
  if (!item() || item().event || faces.size < 2) return;
  const known = [...faces.keys()];
  put({ face: known[(known.indexOf(item().code.face) + 1) % known.length] });
  open();
}

function showTrack() {
  track.draw(player.window, item()?.code ?? null, player.video ? player.rate : 25);
  track.show(player.frame);
  showTimes();
}

function showFrame(frame, t) {
  track.show(frame);
  find("frame-text").textContent = player.video ? `frame ${frame}${t === null ? "" : ` · ${clockText(t)}`}` : "";
}

function showTimes() {
  const code = item()?.code;
  const [from, to] = code ? [code.onset, code.offset].map(timeAbout) : [null, null];
  find("times").textContent = code && player.video ? `onset ${code.onset} · apex ${code.apex} · offset ${code.offset} · ${(to - from).toFixed(2)} s` : "";
}

/** The time of a frame; from the average rate while its own is not here. */
function timeAbout(frame) {
  const { event } = item() ?? {};
  const known = [event?.onset, event?.apex, event?.offset].find((mark) => mark?.frame === frame);
  return known?.t ?? player.timeOf(frame) ?? (player.video ? player.video.start + frame / player.rate : origin + frame / 25);
}

/** A time of the source as a player shows it. */
function clockText(t) {
  const played = t - origin;
  const sign = played < -0.0005 ? "−" : "";
  const ms = Math.round(Math.abs(played) * 1000);
  const two = (number) => String(number).padStart(2, "0");
  const hours = Math.floor(ms / 3_600_000);
  const rest = `${two(Math.floor(ms / 60_000) % 60)}:${two(Math.floor(ms / 1000) % 60)}.${String(ms % 1000).padStart(3, "0")}`;
  return sign + (hours ? `${hours}:${rest}` : rest);
}

function showCover(text) {
  if (find("cover").textContent !== text) find("cover").textContent = text;
  find("cover").hidden = !text;
}

function showClasses() {
  const chips = labels.map((label, index) => {
    const chip = element("button", "chip", [shapeIcon(label), capitalize(label), element("kbd", "", String(index + 1))], { type: "button" });
    chip.dataset.label = label;
    chip.addEventListener("click", () => setLabel(label));
    return chip;
  });
  find("classes").replaceChildren(...chips);
}

function showUnits(text, problem = "") {
  const numbers = text.match(/\d+/g) ?? [];
  find("unit-text").classList.toggle("problem", Boolean(problem));
  find("unit-text").textContent = problem || numbers.map((number) => unitNames.get(Number(number)) ?? "").filter(Boolean).join(", ");
}

// What the coder does

/** Store the event's code with changes. */
function put(changes) {
  const { id, code } = item();
  const changed = { ...code, ...changes };
  items.set(id, changed);
  connection.act({ type: "put", code: changed });
  show();
}

function decide(decision) {
  if (!item()?.event) return;
  const { code } = item();
  if (decision === "accepted" && !code.label) {
    showNotice(`Choose a class first: ${labels.map((label, index) => `${index + 1} ${label}`).join(", ")}.`);
    return;
  }
  put({ decision });
  announce(decision === "rejected" ? "Rejected" : "Accepted");
  next(1);
}

function setLabel(label) {
  if (!item() || !label) return;
  const { event } = item();
  put({ label, decision: !event ? "added" : event.label === undefined || event.label === label ? "accepted" : "relabelled" });
}

function moveMark(mark, frame, done) {
  if (!item()) return;
  const { onset, apex, offset } = item().code;
  const [first, last] = player.window;
  const marks = { onset, apex, offset, [mark]: Math.max(first, Math.min(last, frame)) };
  if (mark === "onset") marks.apex = Math.max(marks.apex, marks.onset);
  if (mark === "offset") marks.apex = Math.min(marks.apex, marks.offset);
  if (mark === "apex") Object.assign(marks, { onset: Math.min(onset, marks.apex), offset: Math.max(offset, marks.apex) });
  if (marks.onset >= marks.offset) return;
  player.pause();
  showPlaying();
  if (done) put(marks);
  else track.draw(player.window, marks, player.rate);
  player.seek(marks[mark]);
}

function addMissed() {
  if (!player.video) return;
  const id = crypto.randomUUID();
  const half = Math.max(1, Math.round((ADDED_S / 2) * player.rate));
  const apex = player.frame;
  const marks = { onset: player.clamp(apex - half), apex, offset: player.clamp(apex + half) };
  const face = item()?.code.face ?? faces.keys().next().value ?? 0;
  const code = { id, event: null, face, decision: "added", ...marks, label: labels.includes("uncertain") ? "uncertain" : labels[0], action_units: "", note: "" };
  items.set(id, code);
  connection.act({ type: "put", code });
  select(id);
  player.seek(apex);
  announce("Added");
}

function undo() {
  if (find("link").dataset.state === "away") showNotice("It is undone as soon as the server is back.");
  connection.act({ type: "undo" });
}

function removeAdded() {
  if (!item() || item().event) return;
  const id = current;
  const after = items.after(id, 1) === id ? items.after(id, -1) : items.after(id, 1);
  items.set(id, null);
  connection.act({ type: "remove", code: id });
  select(after === id ? undefined : after);
  announce("Removed");
}

function next(steps) {
  const id = items.after(current, steps);
  if (id !== undefined && id !== current) select(id);
  if (!player.playing && player.video) togglePlay(true);
}

function browse(frame) {
  if (!player.video) return;
  const length = Math.round(AROUND_S * player.rate);
  current = null;
  items.mark(null);
  const window = [frame - length, frame + length];
  const places = faces.size === 1 ? { face: faces.keys().next().value, apex: frame } : { face: null, apex: frame };
  player.pause();
  player.open(window, window, frame, regionOf(places));
  show();
  showPlaying();
}

function togglePlay(on = !player.playing) {
  if (on) player.play();
  else player.pause();
  showPlaying();
}

function showPlaying() {
  find("play-text").textContent = player.playing ? "Stop" : "Play";
  find("play").classList.toggle("on", player.playing);
}

function setSpeed(speed) {
  player.speed = speed;
  player.clock = null;
  for (const input of find("speeds").querySelectorAll("input")) input.checked = Number(input.value) === speed;
}

function setView(all) {
  whole = all;
  find("view").setAttribute("aria-pressed", String(whole));
  find("view").textContent = whole ? "Face" : "Whole picture";
  if (player.video && item()) player.open(player.window, player.loop, player.frame, regionOf(item().code));
}

/** Store what is typed into a field when it is left, and after a pause; problem(text) says why it cannot be. */
function keepField(id, name, problem = () => "") {
  const keep = () => {
    const value = find(id).value.trim();
    if (item() && item().code[name] !== value && !problem(value)) put({ [name]: value });
  };
  let pause = null;
  find(id).addEventListener("input", () => {
    clearTimeout(pause);
    pause = setTimeout(keep, PAUSE_MS);
  });
  find(id).addEventListener("change", () => {
    clearTimeout(pause);
    keep();
  });
}

/** Why a text is no list of action units; "" where it is one. */
function unitsProblem(text) {
  const isUnit = (word) => unitNames.has(Number(/^[LR]?(?:AU)?(\d{1,2})[A-E]?$/i.exec(word)?.[1]));
  const wrong = text.split(/[\s,;+]+/).filter(Boolean).find((word) => !isUnit(word));
  return wrong === undefined ? "" : `${wrong} is no action unit`;
}

function drawOverview() {
  const canvas = find("overview");
  const { context, width, height } = resizeCanvas(canvas);
  const frames = player.video?.frames ?? 1;
  context.fillStyle = colour("--line");
  context.fillRect(0, height / 2 - 0.5, width, 1);
  for (const id of items.all) {
    const { code } = items.byId.get(id);
    const x = (code.apex / Math.max(1, frames - 1)) * (width - 4) + 2;
    context.globalAlpha = code.decision === "rejected" ? 0.25 : 1;
    context.fillStyle = classColour(code.label || "uncertain");
    const tall = EXPRESSIONS.includes(code.decision) ? 26 : 14;
    context.fillRect(x - 1, (height - tall) / 2, 2, tall);
  }
  context.globalAlpha = 1;
  const at = ((item()?.code.apex ?? player.frame) / Math.max(1, frames - 1)) * (width - 4) + 2;
  context.strokeStyle = colour("--accent");
  context.lineWidth = 2;
  context.strokeRect(at - 4, 3, 8, height - 6);
}

// Keys and buttons

const at = (mark) => () => moveMark(mark, player.frame, true);
const MARKS = { s: "onset", d: "apex", f: "offset" };
const faster = (steps) => setSpeed(SPEEDS[Math.max(0, Math.min(SPEEDS.length - 1, SPEEDS.indexOf(player.speed) + steps))]);
const step = (frames) => {
  player.step(frames);
  showPlaying();
};
const actions = {
  accept: () => decide("accepted"),
  reject: () => decide("rejected"),
  label: (key) => setLabel(labels[Number(key) - 1]),
  face: nextFace,
  take: (key) => takeOver(Number(key) - 1),
  units: () => find("units").focus(),
  note: () => find("note-text").focus(),
  add: addMissed,
  remove: removeAdded,
  undo,
  onset: at("onset"),
  apex: at("apex"),
  offset: at("offset"),
  jump: (key) => item() && (player.pause(), player.seek(item().code[MARKS[key]]), showPlaying()),
  play: () => togglePlay(),
  back: () => step(-1),
  forward: () => step(1),
  back10: () => step(-10),
  forward10: () => step(10),
  slower: () => faster(-1),
  faster: () => faster(1),
  view: () => setView(!whole),
  next: () => next(1),
  previous: () => next(-1),
  nextOpen: () => select(items.after(current, 1, true)),
  browseBack: () => browse(player.frame - Math.round(2 * AROUND_S * player.rate)),
  browseForward: () => browse(player.frame + Math.round(2 * AROUND_S * player.rate)),
  help: () => find("keys").showModal(),
};

function setTheme(dark, keep) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  find("theme").setAttribute("aria-pressed", String(dark));
  resetColours();
  show();
  if (!keep) return;
  try {
    localStorage.setItem("apexstream.theme", dark ? "dark" : "light");
  } catch {
    // storage is disabled: the choice is kept until the page is closed
  }
}

listen(actions);
listKeys(find("key-list"));
find("speeds").append(
  ...SPEEDS.map((speed) => {
    const input = element("input", "", "", { type: "radio", name: "speed", value: speed, checked: speed === player.speed });
    input.addEventListener("change", () => {
      setSpeed(speed);
      input.blur();
    });
    return element("label", "", [input, element("span", "", speed < 1 ? `1/${1 / speed}` : "1×")]);
  }),
);
for (const id of ["accept", "reject", "add", "remove", "undo", "play", "back", "forward", "view", "help"]) {
  find(id).addEventListener("click", () => {
    find(id).blur(); // so that the space key plays
    actions[id]();
  });
}
find("keys-close").addEventListener("click", () => find("keys").close());
find("theme").addEventListener("click", () => setTheme(document.documentElement.dataset.theme !== "dark", true));
find("filter").addEventListener("change", ({ target }) => {
  items.filter = target.value;
  items.fill();
  target.blur();
  show();
});
find("units").addEventListener("input", ({ target }) => showUnits(target.value));
find("units").addEventListener("change", ({ target }) => showUnits(target.value, unitsProblem(target.value)));
keepField("units", "action_units", unitsProblem);
keepField("note-text", "note");
addEventListener("pagehide", () => document.activeElement?.blur()); // what is being typed is stored before the page closes
find("overview").addEventListener("click", ({ offsetX, target }) => {
  if (player.video) browse(Math.round(((offsetX - 2) / (target.clientWidth - 4)) * (player.video.frames - 1)));
});
new ResizeObserver(() => items.all.length && drawOverview()).observe(find("overview"));
setTheme(document.documentElement.dataset.theme === "dark", false);
