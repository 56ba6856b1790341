// The socket to the service: connects for ever, resumes where it was, notices a dead line.
//
//   waiting --(back-off)--> connecting --hello--> live --close, or no heartbeat--> waiting
//   connecting --no answer in time--> waiting;  connecting --a token is wanted--> locked --token--> live
//
// /api/streams tells how far the store goes: the first connection asks for the last events and goes on live, every later one
// resumes after the last event that was seen, so that none is missed and none comes twice.

import { enter, socket } from "./access.js";

const FIRST_WAIT_MS = 300;
const LONGEST_WAIT_MS = 5000;
const SILENCE_MS = 11_000; // two heartbeats, 5 s apart, and some patience
const BACKLOG = 200;

export class Connection {
  /** told: { state(name, detail), hello(message), message(message), picture(header, jpeg), forget(seq): the page begins anew after seq } */
  constructor(told) {
    this.told = told;
    this.seen = 0; // seq of the last event seen
    this.store = null; // the store that seq belongs to
    this.socket = null;
    this.wait = FIRST_WAIT_MS;
    this.heard = 0;
    setInterval(() => this.#watch(), 1000);
    addEventListener("online", () => this.#hurry());
    document.addEventListener("visibilitychange", () => document.hidden || this.#hurry());
  }

  /** Connect, and keep connected. */
  async open() {
    clearTimeout(this.timer);
    this.timer = null;
    this.told.state("connecting", this.wait === FIRST_WAIT_MS ? "Connecting" : "Reconnecting");
    try {
      this.#begin(await enter(() => this.told.state("locked", "A token is needed")));
    } catch {
      this.#later();
    }
  }

  /** Send a message; false where there is no line to send it on. */
  send(message) {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify({ v: 1, ...message }));
    return true;
  }

  /** Go on where this page was, or near the end of a store that it does not know. */
  #begin({ seq, store }) {
    if (store !== this.store || seq < this.seen) {
      this.store = store;
      this.seen = Math.max(0, seq - BACKLOG);
      this.told.forget(this.seen);
    }
    this.#connect();
  }

  #connect() {
    const line = socket(`/?since=${this.seen}`);
    line.binaryType = "arraybuffer";
    this.socket = line;
    this.heard = performance.now(); // so that a handshake without an answer is noticed, too
    line.onmessage = ({ data }) => this.socket === line && this.#take(data);
    line.onclose = () => this.socket === line && this.#lost();
  }

  #take(data) {
    this.heard = performance.now();
    if (typeof data !== "string") {
      const length = new DataView(data).getUint32(0);
      const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
      this.told.picture(header, new Uint8Array(data, 4 + length));
      return;
    }
    const message = JSON.parse(data);
    if (message.type === "hello") this.#hello(message);
    else if (this.#isNew(message)) this.told.message(message);
  }

  #hello(hello) {
    if (hello.store !== this.store || hello.seq < this.seen) {
      this.#lost(); // another service took the place of the one that was asked
      return;
    }
    this.wait = FIRST_WAIT_MS;
    this.told.hello(hello);
    this.told.state("live", "Live");
  }

  /** An event that was seen already is not new; it never should come. */
  #isNew(message) {
    if (message.type !== "expression" || message.seq === undefined) return true;
    if (message.seq <= this.seen) return false;
    this.seen = message.seq;
    return true;
  }

  #drop() {
    const line = this.socket;
    this.socket = null;
    line?.close();
  }

  #lost() {
    this.#drop();
    this.#later();
  }

  #later() {
    const wait = this.wait * (0.75 + 0.5 * Math.random());
    this.wait = Math.min(LONGEST_WAIT_MS, 2 * this.wait);
    this.told.state("waiting", "Reconnecting");
    this.timer = setTimeout(() => this.open(), wait);
  }

  #watch() {
    if (this.socket && performance.now() - this.heard > SILENCE_MS) this.#lost();
  }

  #hurry() {
    if (this.timer) this.open();
  }
}
