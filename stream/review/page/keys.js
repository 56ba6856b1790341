// The keys of the page: one table for what they do, for the list of them, and for what is pressed.

import { element } from "./display.js";

/** [keys as `event.key` with Shift+ and Ctrl+ before, how they are written, what they do, name of the action] */
export const KEYS = [
  [["a", "Enter"], ["A", "Enter"], "Accept, and go to the next", "accept"],
  [["r"], ["R"], "Reject, and go to the next", "reject"],
  [["1", "2", "3", "4", "5", "6", "7", "8", "9"], ["1", "…", "9"], "Give it this class", "label"],
  [["t"], ["T"], "Another face, for one that was added", "face"],
  [["Shift+1", "Shift+2", "Shift+3", "Shift+4"], ["Shift", "1 2 …"], "Take over what this coder decided (adjudication)", "take"],
  [["u"], ["U"], "Type action units", "units"],
  [["n"], ["N"], "Write a note", "note"],
  [["m"], ["M"], "Add one that was missed, at this frame", "add"],
  [["Delete", "Backspace"], ["Delete"], "Remove one that was added", "remove"],
  [["z", "Ctrl+z"], ["Z"], "Undo", "undo"],
  [["s"], ["S"], "Onset at this frame", "onset"],
  [["d"], ["D"], "Apex at this frame", "apex"],
  [["f"], ["F"], "Offset at this frame", "offset"],
  [["Shift+s", "Shift+d", "Shift+f"], ["Shift", "S D F"], "Go to onset, apex, offset", "jump"],
  [[" "], ["Space"], "Play in a loop, and stop", "play"],
  [["ArrowLeft", ","], ["←"], "One frame back", "back"],
  [["ArrowRight", "."], ["→"], "One frame on", "forward"],
  [["Shift+ArrowLeft"], ["Shift", "←"], "Ten frames back", "back10"],
  [["Shift+ArrowRight"], ["Shift", "→"], "Ten frames on", "forward10"],
  [["-", "["], ["−"], "Slower", "slower"],
  [["+", "=", "]"], ["+"], "Faster", "faster"],
  [["v"], ["V"], "The face, or the whole picture", "view"],
  [["j", "ArrowDown"], ["J", "↓"], "Next event", "next"],
  [["k", "ArrowUp"], ["K", "↑"], "Event before", "previous"],
  [["g"], ["G"], "Next one without a decision", "nextOpen"],
  [["PageUp"], ["PageUp"], "Look at what comes before", "browseBack"],
  [["PageDown"], ["PageDown"], "Look at what comes after", "browseForward"],
  [["?"], ["?"], "These keys", "help"],
];

const ACTIONS = new Map(KEYS.flatMap(([keys, , , action]) => keys.map((key) => [key, action])));

/** Call actions[name](key) for each key of the table that is pressed, unless something is being typed. */
export function listen(actions) {
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.metaKey || document.querySelector("dialog[open]")) return;
    const field = event.target.closest?.("input, textarea, select");
    if (field) {
      const leaves = event.key === "Escape" || (event.key === "Enter" && !event.shiftKey && !event.isComposing);
      if (leaves) {
        event.preventDefault();
        field.blur();
      }
      return;
    }
    if (event.target.closest?.("button") && (event.key === "Enter" || event.key === " ")) return;
    const digit = event.shiftKey && /^Digit(\d)$/.exec(event.code)?.[1]; // which sign it gives depends on the keyboard
    const key = digit || (event.key.length === 1 ? event.key.toLowerCase() : event.key);
    const shift = digit || (event.shiftKey && /^([a-z]|Arrow.*)$/.test(key)) ? "Shift+" : "";
    const action = ACTIONS.get(`${event.ctrlKey ? "Ctrl+" : ""}${shift}${key}`);
    if (!action) return;
    event.preventDefault();
    actions[action](key);
  });
}

export function listKeys(list) {
  list.replaceChildren(
    ...KEYS.map(([, shown, text]) =>
      element("div", "", [element("dt", "", shown.map((key) => element("kbd", "", key))), element("dd", "", text)]),
    ),
  );
}
