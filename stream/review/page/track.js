// The frames around the event as a line: the three marks, to be dragged to other frames, and the frame that is shown.

import { colour, resizeCanvas } from "./display.js";

const TICK_PX = 5; // the least distance of two frames that get a tick each
const WORD_PX = 62; // the width of a flag with the name of its mark
const FLAG_PX = 16; // how far a flag without reaches over its mark

export class Track {
  /** seek(frame): a frame was clicked; move(mark, frame, done): a mark was moved; done: it was let go. */
  constructor(root, { seek, move }) {
    this.root = root;
    this.canvas = root.querySelector("canvas");
    this.handles = new Map([...root.querySelectorAll(".mark")].map((handle) => [handle.dataset.mark, handle]));
    this.playhead = root.querySelector(".playhead");
    this.window = [0, 1];
    this.rate = 25;
    root.addEventListener("pointerdown", (event) => this.#press(event, seek, move));
    for (const [mark, handle] of this.handles) {
      handle.addEventListener("keydown", (event) => {
        const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowDown: -1, ArrowUp: 1, PageDown: -10, PageUp: 10 }[event.key];
        if (steps === undefined) return;
        event.preventDefault();
        event.stopPropagation();
        move(mark, Number(handle.getAttribute("aria-valuenow")) + steps, true);
      });
    }
    new ResizeObserver(() => {
      this.#nameFlags();
      this.#ticks();
    }).observe(root);
  }

  /** Show a window of frames and the marks in it, null where there are none. */
  draw(window, marks, rate) {
    this.window = window;
    this.rate = rate;
    for (const [mark, handle] of this.handles) {
      handle.hidden = !marks;
      if (!marks) continue;
      handle.style.left = this.#left(marks[mark]);
      handle.setAttribute("aria-valuemin", String(window[0]));
      handle.setAttribute("aria-valuemax", String(window[1]));
      handle.setAttribute("aria-valuenow", String(marks[mark]));
      handle.setAttribute("aria-valuetext", `frame ${marks[mark]}`);
    }
    this.marks = marks && { onset: marks.onset, apex: marks.apex, offset: marks.offset };
    this.#nameFlags();
    this.#ticks();
  }

  /** Write the names of the marks on their flags where they cover neither another flag nor the page's edge. */
  #nameFlags() {
    if (!this.marks) return;
    const [first, last] = this.window;
    const width = this.root.clientWidth;
    const x = Object.fromEntries(Object.entries(this.marks).map(([mark, frame]) => [mark, ((frame - first) * width) / Math.max(1, last - first)]));
    const room = {
      onset: x.onset > WORD_PX,
      apex: Math.min(x.apex - x.onset, x.offset - x.apex) > WORD_PX / 2 + FLAG_PX,
      offset: width - x.offset > WORD_PX,
    };
    for (const [mark, handle] of this.handles) handle.classList.toggle("named", room[mark]);
  }

  show(frame) {
    this.playhead.style.left = this.#left(frame);
  }

  #left(frame) {
    const [first, last] = this.window;
    return `${Math.max(-1, Math.min(101, (100 * (frame - first)) / Math.max(1, last - first)))}%`;
  }

  /** The frame nearest to a pointer. */
  #frameAt(event) {
    const box = this.root.getBoundingClientRect();
    const [first, last] = this.window;
    const share = Math.max(0, Math.min(1, (event.clientX - box.left) / box.width));
    return Math.round(first + share * (last - first));
  }

  #press(event, seek, move) {
    if (event.button) return;
    const mark = event.target.closest(".mark")?.dataset.mark;
    const act = (frame, done) => (mark ? move(mark, frame, done) : seek(frame));
    event.preventDefault();
    if (mark) this.handles.get(mark).focus();
    this.root.setPointerCapture(event.pointerId);
    let moved = false;
    const onMove = (next) => {
      moved = true;
      act(this.#frameAt(next), false);
    };
    const onEnd = (last) => {
      this.root.removeEventListener("pointermove", onMove);
      this.root.removeEventListener("pointerup", onEnd);
      this.root.removeEventListener("pointercancel", onEnd);
      if (moved || !mark) act(this.#frameAt(last), true);
      else seek(this.marks[mark]);
    };
    this.root.addEventListener("pointermove", onMove);
    this.root.addEventListener("pointerup", onEnd);
    this.root.addEventListener("pointercancel", onEnd);
    if (!mark) seek(this.#frameAt(event));
  }

  #ticks() {
    const { context, width, height } = resizeCanvas(this.canvas);
    if (!width) return;
    const [first, last] = this.window;
    const step = width / Math.max(1, last - first);
    const x = (frame) => (frame - first) * step;
    if (this.marks) {
      context.fillStyle = colour("--accent-soft");
      context.fillRect(x(this.marks.onset), 24, x(this.marks.offset) - x(this.marks.onset), height - 24);
    }
    const every = Math.max(1, Math.ceil(TICK_PX / step));
    const second = Math.max(1, Math.round(this.rate));
    context.fillStyle = colour("--edge");
    for (let frame = Math.ceil(first / every) * every; frame <= last; frame += every) {
      const long = every > 1 || Math.floor(frame / second) !== Math.floor((frame - every) / second);
      context.fillRect(x(frame) - 0.5, height - (long ? 18 : 9), 1, long ? 18 : 9);
    }
  }
}
