// The data of the report: what stands in the page besides its scripts.

/** What is shown besides events: the video, the faces, what could be seen. Times are seconds of a player's clock. */
export const report = JSON.parse(document.getElementById("summary").textContent);

/** The events as `events.jsonl` has them, in order of their onsets, each with its number in the page, its motion curve and how many pictures it has. */
export const events = readEvents(document.getElementById("events"));

function readEvents(element) {
  const lines = element.textContent.split("\n").filter(Boolean);
  element.remove();
  return lines
    .map((line, number) => ({ ...JSON.parse(line), number }))
    .sort((a, b) => a.played.onset - b.played.onset || a.face - b.face);
}

/** Duration of an event in seconds. */
export function lengthOf({ played }) {
  return (played.offset ?? played.apex) - played.onset;
}

/** The film strip and the flow of an event as addresses of pictures; null while the page is still being read. */
export function picturesOf({ number }) {
  const held = document.getElementById(`pictures-${number}`);
  if (!held) return null;
  const [strip, flow] = held.textContent.split("\n").map((base64) => `data:image/webp;base64,${base64}`);
  return { strip, flow };
}

/** Address of a part of the video, seconds; browsers and many players begin there. null where the video cannot be linked. */
export function linkTo(from, to) {
  if (!report.link) return null;
  return `${report.link}#t=${Math.max(0, from).toFixed(2)},${Math.max(0, to).toFixed(2)}`;
}

/** A time of the video: 12:03.40, or 1:12:03.40 from an hour on; with so many decimals. */
export function clock(seconds, decimals = 2) {
  const unit = 10 ** decimals;
  const total = Math.round(Math.abs(seconds) * unit);
  const [whole, part] = [Math.floor(total / unit), total % unit];
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  const pad = (number, digits = 2) => String(number).padStart(digits, "0");
  const head = hours ? `${hours}:${pad(minutes)}` : String(minutes);
  return `${seconds < 0 && total ? "−" : ""}${head}:${pad(whole % 60)}${decimals ? `.${pad(part, decimals)}` : ""}`;
}

/** How long something lasts, in words: 42 s, 9.2 min, 1.3 h. */
export function lasting(seconds) {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 99.5) return `${Math.round(seconds)} s`;
  return seconds < 5970 ? `${(seconds / 60).toFixed(1)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

/** "1 event", "2 events". */
export function counted(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}
