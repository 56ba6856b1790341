// The head of the report: counts of what was found, and what of the video could be seen.

import { LABELS, capitalize, element, percent, shapeIcon } from "../../dashboard/display.js";
import { clock, counted, events, lasting, report } from "./data.js";

const { aside_deg: ASIDE, eyes_px: EYES, fps: FPS } = report.limits;

/** Conditions under which expressions are missed: name in the data, heading, explanation. */
const CONDITIONS = [
  ["speaking", "Speaking", "While lips move in speech, more than half of the expressions are missed."],
  ["covered", "Covered", "A hand or something else lies over a large part of the face."],
  ["aside", "Turned away", `The head is turned aside by more than ${ASIDE}°.`],
  ["small", "Too small", `The eyes are less than ${EYES} pixels apart.`],
  ["lost", "Not followed", "The face was found, but not its texture: blurred, or partly out of the picture."],
  ["slow", "Too few pictures", `Below ${FPS} pictures a second micro-expressions cannot be seen.`],
];

export function showHead() {
  const { video, seen } = report;
  const length = report.to - report.from;
  const facts = [`${video.width} × ${video.height}`, video.measured_fps && `${video.measured_fps.toFixed(1)} pictures/s`, clock(length, 0)];
  document.getElementById("video-facts").textContent = facts.filter(Boolean).join(" · ");
  const problem = document.getElementById("problem");
  problem.hidden = report.complete;
  problem.textContent = report.problem ? `Not all of the video was analysed. ${report.problem}` : "Not all of the video was analysed.";
  const notes = document.getElementById("notes");
  notes.hidden = !report.notes.length;
  notes.replaceChildren(...report.notes.map((note) => element("li", "", note)));
  document.getElementById("totals").replaceChildren(...totals(seen, length));
  document.getElementById("seen").replaceChildren(...conditions(seen, length));
  document.getElementById("facts").textContent = `Made by ${["apexstream", report.version].filter(Boolean).join(" ")} with the network ${report.model}.`;
}

function totals(seen, length) {
  const counts = new Map(LABELS.map((label) => [label, 0]));
  for (const { label } of events) counts.set(label, (counts.get(label) ?? 0) + 1);
  const micro = events.filter(({ kind }) => kind === "micro").length;
  const all = total(counted(events.length, "expression"), `${micro.toLocaleString("en")} micro, ${(events.length - micro).toLocaleString("en")} macro`);
  const classes = [...counts].map(([label, count]) => total([shapeIcon(label), ` ${count.toLocaleString("en")}`], capitalize(label)));
  const watched = total(lasting(seen.watched), `seen well, of ${lasting(length)}${length > 0 ? ` (${percent(seen.watched / length)})` : ""}`);
  return [all, ...classes, watched];
}

function total(figure, meaning) {
  return element("li", "", [element("strong", "", figure), element("span", "", meaning)]);
}

/** What could be seen of any face, as bars with their meanings; where there are several, a table of each besides. */
function conditions(seen, length) {
  if (!report.faces.length) {
    return [element("p", "empty", "No face was seen in this video: it shows none, or faces too small, too dark or turned away.")];
  }
  const several = report.faces.length > 1 || report.others > 0;
  const rows = [
    ["present", "Face in view", several ? "At least one face was found." : "The face was found."],
    ["watched", "Seen well", "In view, and nothing of the below but speech."],
    ...CONDITIONS,
  ];
  const bars = table("How long faces could be seen, and what stood in the way", rows.map(([key, name, meaning]) => [
    heading(name),
    duration(seen[key]),
    element("td", "meaning", [share(seen[key], length, key), element("span", "", meaning)]),
  ]));
  if (!several) return [scrolling(bars, "What could be seen")];
  const faces = table(
    "How long each face could be seen, and what stood in the way",
    report.faces.map(({ id, seen: of }) => [heading(`Face\u00a0${id}`), ...rows.map(([key]) => duration(of[key]))]),
    rows.map(([, name]) => name),
  );
  const rest = report.others ? [element("p", "hint", `Not listed: ${counted(report.others, "face")} in view for less than a second, or with the fewest expressions.`)] : [];
  return [scrolling(bars, "What could be seen"), element("h3", "each-face", "Each face"), scrolling(faces, "What could be seen of each face"), ...rest];
}

function table(caption, rows, columns = []) {
  const made = element("table", "seen-table", element("caption", "visually-hidden", caption));
  if (columns.length) made.append(element("thead", "", element("tr", "", [element("td"), ...columns.map((name) => element("th", "number", name, { scope: "col" }))])));
  made.append(element("tbody", "", rows.map((cells) => element("tr", "", cells))));
  return made;
}

function heading(name) {
  return element("th", "", name, { scope: "row" });
}

function duration(seconds) {
  return element("td", seconds ? "number" : "number none", seconds ? lasting(seconds) : "–");
}

/** A frame that scrolls where its content is too large. */
function scrolling(content, name) {
  const frame = element("div", "seen-frame", content, { tabIndex: 0 });
  frame.setAttribute("role", "region");
  frame.setAttribute("aria-label", name);
  return frame;
}

/** A bar with a share of the video. */
function share(seconds, length, key) {
  const fill = element("span", `bar-fill fill-${key}`);
  fill.style.width = `${length > 0 ? Math.min(100, (100 * seconds) / length) : 0}%`;
  return element("span", "bar-track", fill, { title: length > 0 ? `${percent(seconds / length)} of the video` : "" });
}
