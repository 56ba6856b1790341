// The websocket to the server, and the actions that it has not yet stored.
//
// An action stays in the browser's storage until the server says that it is on disk, and is sent again after every interruption,
// of the server or of the page, in the order in which actions were made. The server stores it once, by its id.

import { openSocket } from "./api.js";

const FIRST_WAIT_MS = 200;
const MAX_WAIT_MS = 2000;

export class Connection {
  /** handlers: { hello(message), answer(message, action), video(message), problem(sentence), state(name, waiting) } */
  constructor(handlers) {
    this.handlers = handlers;
    this.pending = new Map(); // id -> action, in order
    this.made = 0;
    this.prefix = null;
    this.wait = FIRST_WAIT_MS;
    this.#connect();
  }

  /** Have an action stored. */
  act(action) {
    const id = crypto.randomUUID();
    const whole = { ...action, id };
    this.pending.set(id, whole);
    this.made += 1;
    this.#keep(whole);
    this.#send(whole);
    this.#report();
    return id;
  }

  #connect() {
    const socket = openSocket();
    this.socket = socket;
    this.live = false;
    socket.onmessage = ({ data }) => this.#receive(JSON.parse(data));
    socket.onclose = () => {
      if (this.socket !== socket) return;
      this.live = false;
      this.#report();
      setTimeout(() => this.#connect(), this.wait);
      this.wait = Math.min(MAX_WAIT_MS, 1.6 * this.wait);
    };
  }

  #receive(message) {
    if (message.type === "hello") {
      this.wait = FIRST_WAIT_MS;
      this.#adopt(`apexstream.review.${message.identity}.${message.coder}.`);
      this.live = true;
      this.handlers.hello(message, [...this.pending.values()]);
      for (const action of this.pending.values()) this.#send(action);
    } else if (message.type === "stored" || message.type === "refused") {
      const action = this.pending.get(message.id);
      this.pending.delete(message.id);
      this.#forget(action);
      this.handlers.answer(message, action);
    } else if (message.type === "problem") {
      this.handlers.problem(message.sentence);
      this.live = false;
      setTimeout(() => this.socket.close(), MAX_WAIT_MS); // all that waits is sent again then
    } else {
      this.handlers.video(message);
    }
    this.#report();
  }

  #send(action) {
    if (this.live && this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(action));
  }

  #report() {
    this.handlers.state(this.live ? (this.pending.size ? "saving" : "saved") : "away", this.pending.size);
  }

  // Storage: one entry an action, so that two tabs do not overwrite each other's.

  /** Take over what an earlier page of this coder could not have stored. */
  #adopt(prefix) {
    if (this.prefix === prefix) return;
    this.prefix = prefix;
    try {
      const keys = Object.keys(localStorage).filter((key) => key.startsWith(prefix)).sort();
      const left = keys.map((key) => withKey(JSON.parse(localStorage.getItem(key)), key));
      this.pending = new Map([...left.map((action) => [action.id, action]), ...this.pending]);
    } catch {
      // storage is disabled: what is not stored is lost with the page
    }
    for (const action of this.pending.values()) if (!action.key) this.#keep(action);
  }

  #keep(action) {
    if (this.prefix === null) return;
    const key = `${this.prefix}${String(Date.now()).padStart(15, "0")}.${String(this.made).padStart(6, "0")}`;
    try {
      localStorage.setItem(key, JSON.stringify(action));
      withKey(action, key);
    } catch {
      // as above
    }
  }

  #forget(action) {
    if (!action?.key) return;
    try {
      localStorage.removeItem(action.key);
    } catch {
      // as above
    }
  }
}

/** The action with the key of its entry, which is neither stored nor sent. */
function withKey(action, key) {
  return Object.defineProperty(action, "key", { value: key, enumerable: false });
}
