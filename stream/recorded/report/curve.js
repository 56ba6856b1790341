// The motion of an event as a picture: its curve with onset, apex and offset, and arrows on a drawn face.

import { classOf, pixels } from "../../dashboard/display.js";
import { lengthOf } from "./data.js";

const HIGH = 110;
const [TOP, FLOOR] = [18, 92];
const NAMES = ["onset", "apex", "offset"];
const ARROW_PX = 16; // length of the longest arrow
const SHOWN = 0.3; // arrows shorter than this share of the longest are left out

/** Where each region lies on a drawn face, in the pixels of the face crop, in the order of `engine.registration.align.REGIONS`; left
 * and right are the picture's. */
const PLACES = {
  outer_brow_left: [19, 18],
  inner_brow_left: [44, 16],
  glabella: [64, 22],
  inner_brow_right: [84, 16],
  outer_brow_right: [109, 18],
  forehead: [64, 3],
  nose_left: [46, 68],
  nose_right: [82, 68],
  cheek_left: [27, 67],
  cheek_right: [101, 67],
  upper_lip: [64, 85],
  lip_corner_left: [34, 92],
  lip_corner_right: [94, 92],
  lower_lip: [64, 110],
  chin: [64, 123],
};
const FACE = [
  "M64 -12C24 -12 3 16 4 56C5 96 28 141 64 141C100 141 123 96 124 56C125 16 104 -12 64 -12Z", // outline
  "M23 38Q36 30 48 39Q36 45 23 38ZM79 39Q92 30 104 38Q92 45 79 39Z", // eyes
  "M14 22Q28 12 50 20M78 20Q100 12 114 22", // brows
  "M60 40L56 66Q64 74 72 66", // nose
  "M37 93Q52 85 64 88Q76 85 91 93Q64 113 37 93ZM37 93Q64 97 91 93", // mouth
];
const SVG_NAMESPACE = "http://www.w3.org/2000/svg";

function svg(tag, attributes, content = []) {
  const made = document.createElementNS(SVG_NAMESPACE, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...[content].flat());
  return made;
}

/** The motion curve of an event with its three marks, so many units wide; null where none is known. */
export function curveOf(event, wide) {
  const { curve, played } = event;
  if (!curve) return null;
  const [first, last] = [curve.t[0], curve.t.at(-1)];
  const highest = Math.max(0.5, ...curve.px);
  const lowest = Math.min(0, ...curve.px);
  const x = (t) => 4 + ((t - first) / Math.max(last - first, 1e-3)) * (wide - 8);
  const y = (px) => FLOOR - ((px - lowest) / (highest - lowest)) * (FLOOR - TOP);
  const path = curve.t.map((t, i) => `${i ? "L" : "M"}${x(t).toFixed(1)} ${y(curve.px[i]).toFixed(1)}`).join("");
  const [from, to] = [x(played.onset), x(Math.min(last, played.offset ?? played.apex))];
  const zero = y(0).toFixed(1);
  const drawn = [
    svg("rect", { class: "curve-span", x: from, y: TOP, width: Math.max(1, to - from), height: FLOOR - TOP }),
    svg("line", { class: "curve-zero", x1: 0, x2: wide, y1: zero, y2: zero }),
    svg("path", { class: "curve-line", d: path }),
    ...NAMES.filter((name) => played[name] !== null && played[name] <= last + 0.05).flatMap((name) => mark(name, x(Math.min(last, played[name])), wide)),
    scale(`highest ${pixels(highest)}`, x(played.apex) < wide / 2, wide),
  ];
  const text = `Motion from onset to apex over time: ${pixels(highest)} at most, ${lengthOf(event).toFixed(2)} s long`;
  return svg("svg", { class: `curve class-${classOf(event.label).shape}`, viewBox: `0 0 ${wide} ${HIGH}`, role: "img", "aria-label": text }, drawn);
}

/** A text above the curve, on the right or on the left. */
function scale(text, right, wide) {
  return svg("text", { class: "curve-scale", x: right ? wide : 0, y: TOP - 7, "text-anchor": right ? "end" : "start" }, text);
}

/** A line and a name; the names of onset and offset stand outside of the span, below, that of the apex above. */
function mark(name, at, wide) {
  const apex = name === "apex";
  const anchor = apex ? "middle" : name === "onset" ? "end" : "start";
  const bounded = apex ? Math.min(wide - 14, Math.max(14, at)) : name === "onset" ? Math.max(30, at + 2) : Math.min(wide - 32, at - 2);
  return [
    svg("line", { class: `curve-mark mark-${name}`, x1: at, x2: at, y1: apex ? TOP - 4 : TOP, y2: FLOOR }),
    svg("text", { class: "curve-name", x: bounded, y: apex ? TOP - 7 : HIGH - 5, "text-anchor": anchor }, name),
  ];
}

/** How far regions moved, by name, the farthest first; only those that moved a good part of that. */
export function movedRegions({ moved }) {
  const all = Object.keys(PLACES).map((name, i) => ({ name, u: moved?.[i][0] ?? 0, v: moved?.[i][1] ?? 0 }));
  const far = all.map((one) => ({ ...one, px: Math.hypot(one.u, one.v) })).sort((a, b) => b.px - a.px);
  return far.filter(({ px }) => px > 0 && px >= SHOWN * far[0].px);
}

/** A drawn face with an arrow for each region that moved. */
export function movedFace(event) {
  const regions = movedRegions(event);
  const longest = regions[0]?.px ?? 1;
  const arrows = regions.map(({ name, u, v, px }) => {
    const [x, y] = PLACES[name];
    const [dx, dy] = [(u / longest) * ARROW_PX, (v / longest) * ARROW_PX];
    const head = Math.max(3, (px / longest) * 6);
    const turn = (Math.atan2(dy, dx) * 180) / Math.PI;
    return svg("g", { class: "arrow" }, [
      svg("circle", { cx: x, cy: y, r: 1.8 }),
      svg("path", { d: `M${x} ${y}l${dx.toFixed(1)} ${dy.toFixed(1)}` }),
      svg("path", { class: "arrow-head", d: `M0 0L${-head} ${-head / 2}V${head / 2}Z`, transform: `translate(${(x + dx).toFixed(1)} ${(y + dy).toFixed(1)}) rotate(${turn.toFixed(0)})` }),
    ]);
  });
  const face = FACE.map((d) => svg("path", { class: "face-line", d }));
  return svg("svg", { class: "moved", viewBox: "-6 -20 140 168", role: "img", "aria-label": `What moved from onset to apex: ${movedText(event)}` }, [...face, ...arrows]);
}

/** The same in words: "right lip corner ↗ 2.30 px, ...", the three that moved most; left and right are the picture's. */
export function movedText(event) {
  const regions = movedRegions(event).slice(0, 3);
  return regions.map(({ name, u, v, px }) => `${regionName(name)} ${arrow(u, v)} ${pixels(px)}`).join(", ") || "not known";
}

/** "left outer brow" for outer_brow_left. */
function regionName(name) {
  const side = /_(left|right)$/.exec(name);
  return (side ? `${side[1]} ${name.slice(0, side.index)}` : name).replaceAll("_", " ");
}

function arrow(u, v) {
  return "→↘↓↙←↖↑↗"[(Math.round(Math.atan2(v, u) / (Math.PI / 4)) + 8) % 8];
}
