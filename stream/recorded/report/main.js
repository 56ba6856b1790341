// The report: its parts put together, the theme, printing, and links to single events.

import { LABELS, activityOf, capitalize, element, resetColours, shapeIcon } from "../../dashboard/display.js";
import { clock, events, report } from "./data.js";
import { EventList } from "./list.js";
import { showHead } from "./seen.js";
import { Timeline } from "./timeline.js";

const root = document.documentElement;
const WITHOUT_PICTURES = "No picture of a face is stored unless it is asked for: analyse with --pictures to see each event’s onset, apex and change here.";
const SHOWN_ACTIVITIES = ["speech", "blink", "gaze", "head_turn", "covered", "motion"];

function showLegend() {
  const swatch = (name, text) => {
    const square = element("span", "swatch");
    square.style.background = `var(${name})`;
    return element("li", "", [square, text]);
  };
  const classes = LABELS.map((label) => element("li", "", [shapeIcon(label), capitalize(label)]));
  const conditions = [swatch("--good", "in view"), swatch("--warn", "turned away, small or not followed")];
  if (report.slow.length) conditions.push(swatch("--bad", "too few pictures"));
  const activities = SHOWN_ACTIVITIES.map((kind) => activityOf(kind)).map(({ name, property }) => swatch(property, name));
  document.getElementById("legend").replaceChildren(...classes, ...conditions, ...activities);
}

function setTheme(theme) {
  root.dataset.theme = theme;
  document.getElementById("theme").setAttribute("aria-pressed", String(theme === "dark"));
  resetColours();
  timeline.draw();
}

function chooseTheme() {
  setTheme(root.dataset.theme === "dark" ? "light" : "dark");
  root.dataset.chosen = "";
  try {
    localStorage.setItem("apexstream.theme", root.dataset.theme);
  } catch {
    // storage is disabled: the choice lasts until the page is closed
  }
}

const timeline = new Timeline({
  open: (event) => {
    timeline.selected = event;
    timeline.draw();
    list.open(event);
  },
  moved: (from, to) => {
    showWindow(from, to);
    list.setWindow(from, to);
  },
});

function showWindow(from, to) {
  document.getElementById("window").textContent = `${clock(from, 1)} to ${clock(to, 1)}`;
}

const list = new EventList({
  locate: (event) => {
    timeline.select(event);
    document.getElementById("lanes").scrollIntoView({ block: "nearest" });
    document.getElementById("timeline-box").focus({ preventScroll: true });
  },
});

/** Open the event whose id the page's address ends with. */
function openNamed() {
  const named = events.find(({ id }) => id === decodeURIComponent(location.hash.slice(1)));
  if (!named) return;
  timeline.select(named);
  list.open(named);
}

showHead();
showLegend();
setTheme(root.dataset.theme);
showWindow(timeline.from, timeline.to);
const hint = document.getElementById("pictures-hint");
hint.hidden = report.pictures || !events.length;
hint.textContent = WITHOUT_PICTURES;
document.getElementById("theme").addEventListener("click", chooseTheme);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", ({ matches }) => {
  if (!("chosen" in root.dataset)) setTheme(matches ? "dark" : "light");
});
addEventListener("resize", () => timeline.draw());
addEventListener("hashchange", openNamed);
let shownTheme = root.dataset.theme;
addEventListener("beforeprint", () => {
  shownTheme = root.dataset.theme;
  setTheme("light");
  list.showAll(true);
});
addEventListener("afterprint", () => {
  setTheme(shownTheme);
  list.showAll(false);
});
openNamed();
