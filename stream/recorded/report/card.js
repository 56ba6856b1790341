// The card of an event: class and confidence, pictures, the motion curve, figures, and where it is in the video.

import { capitalize, element, percent, pixels, seconds, shapeIcon } from "../../dashboard/display.js";
import { curveOf, movedFace, movedText } from "./curve.js";
import { clock, lengthOf, linkTo, picturesOf, report } from "./data.js";

const AROUND_S = 0.5; // of the video before and after an event, where its link leads
const LEAST_LEAD = 0.02; // of a class over the next, to be called the likeliest
const FRAME_MS = 140;
const HOLD_MS = 600; // of onset and apex
const WHYS = {
  covered: "something covered the face",
  "turned away": "the head turned so far that it may have caused the change",
  "changed too much": "the motion does not explain how the face changed",
  "not sure": "no class is likely enough",
  "unlike known expressions": "it resembles none of the expressions that the network knows",
};

/** The card of an event. locate(event): its place on the timeline is wanted. */
export function cardOf(event, { locate }) {
  const card = element("article", "event");
  card.dataset.id = event.id;
  card.tabIndex = -1;
  card.setAttribute("aria-labelledby", `name-${event.number}`);
  card.style.setProperty("--class", `var(--class-${["negative", "positive", "surprise", "uncertain"].includes(event.label) ? event.label : "other"})`);
  card.append(head(event, locate));
  if (event.label === "uncertain") card.append(element("p", "why", uncertainty(event)));
  const shown = element("div", "event-body");
  if (!event.pictures) shown.append(figure(movedFace(event), "what moved"));
  const curve = curveOf(event, event.pictures ? 320 : 220);
  if (curve) shown.append(figure(curve, "motion, px of the face crop", "wide-figure"));
  if (event.pictures) card.append(pictures(event));
  card.append(shown, figures(event));
  return card;
}

function head(event, locate) {
  const name = element("h3", "", [shapeIcon(event.label), ` ${capitalize(event.label)} `, element("span", "sure", event.label === "uncertain" ? "" : percent(event.confidence))], { id: `name-${event.number}` });
  const badges = [event.kind ?? "open", report.faces.length > 1 && `face ${event.face}`, event.speaking && "speaking", event.truncated && "cut short"].filter(Boolean);
  const [from, to] = [event.played.onset, event.played.onset + lengthOf(event)];
  const at = clock(event.played.apex);
  const address = linkTo(from - AROUND_S, to + AROUND_S);
  const link = address
    ? element("a", "moment", [element("span", "play-sign", "▶ ", { ariaHidden: "true" }), at], { href: address, target: "_blank", rel: "noopener", title: "Open the video at this moment" })
    : element("span", "moment", at);
  if (address) link.setAttribute("aria-label", `${at}: open the video here`);
  const button = element("button", "quiet small", "Timeline", { type: "button", title: "Show on the timeline" });
  button.addEventListener("click", () => locate(event));
  return element("div", "event-head", [name, ...badges.map((text) => element("span", "tag", text)), element("span", "event-links", [link, button])]);
}

function uncertainty({ why, probabilities }) {
  const [likeliest, next] = Object.entries(probabilities).sort((a, b) => b[1] - a[1]);
  const reason = `Uncertain: ${WHYS[why] ?? why ?? "no class is likely enough"}.`;
  const even = !likeliest || (next && likeliest[1] - next[1] < LEAST_LEAD);
  return even ? reason : `${reason} Likeliest: ${likeliest[0]}, ${percent(likeliest[1])}.`;
}

function figure(content, caption, className = "") {
  return element("figure", className, [content, element("figcaption", "", caption)]);
}

/** Onset, apex, the strip in a loop, and the flow; filled in once the card is in view. */
function pictures(event) {
  const { pictures: count } = event;
  const still = (name, index) => {
    const image = element("img", "frame-of-strip", [], { alt: `The face at the ${name}`, width: 128, height: 128 * count });
    image.style.transform = `translateY(${(-100 * index) / count}%)`;
    return figure(element("div", "tile", image), name);
  };
  const loop = element("img", "frame-of-strip loop", [], { alt: "The face from onset to apex and back", width: 128, height: 128 * count });
  loop.dataset.count = count;
  const flow = element("img", "flow", [], { alt: `What moved from onset to apex: ${movedText(event)}`, width: 128, height: 128 });
  const row = element("div", "tiles", [still("onset", 0), still("apex", count - 1), figure(element("div", "tile", loop), "change"), figure(element("div", "tile", flow), "motion")]);
  fill(row, event);
  return row;
}

function fill(row, event) {
  const sources = picturesOf(event);
  if (!sources) {
    document.addEventListener("DOMContentLoaded", () => fill(row, event), { once: true });
    return;
  }
  for (const image of row.querySelectorAll("img")) image.src = image.className === "flow" ? sources.flow : sources.strip;
}

/** Play the loops in an element, or let them stand at the apex. */
export function playLoops(within, playing) {
  for (const image of within.querySelectorAll("img.loop")) {
    const count = Number(image.dataset.count);
    for (const animation of image.getAnimations()) animation.cancel();
    image.style.transform = `translateY(${(-100 * (count - 1)) / count}%)`;
    if (playing && count > 1) image.animate(...loopOf(count));
  }
}

/** Keyframes of the strip's frames, there and back, each held for its time. */
function loopOf(count) {
  const order = [...Array(count).keys(), ...[...Array(count - 1).keys()].slice(1).reverse()];
  const times = order.map((index) => (index === 0 || index === count - 1 ? HOLD_MS : FRAME_MS));
  const duration = times.reduce((a, b) => a + b, 0);
  let passed = 0;
  const keyframes = order.map((index, k) => {
    const offset = passed / duration;
    passed += times[k];
    return { transform: `translateY(${(-100 * index) / count}%)`, offset, easing: "step-end" };
  });
  return [[...keyframes, { ...keyframes[0], offset: 1 }], { duration, iterations: Infinity }];
}

function figures(event) {
  const { played, probabilities } = event;
  const marks = ["onset", "apex", "offset"].map((name) => fact(capitalize(name), played[name] === null ? "–" : clock(played[name]), event[name] && `frame ${event[name].frame}`));
  const sizes = [fact("Length", seconds(lengthOf(event))), fact("Intensity", pixels(event.intensity))];
  if (event.expression_probability !== undefined) sizes.push(fact("An expression", percent(event.expression_probability)));
  const chances = Object.entries(probabilities).map(([name, chance]) => {
    const part = element("span", `chance-part class-${name}`);
    part.style.flexGrow = chance;
    return part;
  });
  const words = Object.entries(probabilities).map(([name, chance]) => `${name} ${percent(chance)}`).join(", ");
  const classes = fact("Classes", [element("span", "chances", chances), words]);
  return element("dl", "event-figures", [...marks, ...sizes, classes, fact("Moved most", movedText(event))]);
}

/** A name with its value, and a note below. */
function fact(name, value, note) {
  const rows = [element("dt", "", name), element("dd", "", value)];
  return element("div", "", note ? [...rows, element("dd", "note", note)] : rows);
}
