// The WebSocket to the service: reconnects with back-off, resumes after the last event seen, detects a dead connection.
//
//   waiting --(back-off)--> connecting --hello--> live --close, or no heartbeat--> waiting
//   connecting --no answer in time--> waiting;  connecting --a token is needed--> locked --token--> live
//
// /api/streams returns the last seq of the store: the first connection asks for the last events, every later one resumes after
// the last event seen, so that none is missed and none comes twice.

import { authenticate, openSocket } from "./auth.js";

const FIRST_WAIT_MS = 300;
const MAX_WAIT_MS = 5000;
const HEARTBEAT_TIMEOUT_MS = 11_000; // two heartbeats, 5 s apart, and a margin
const BACKLOG = 200;

export class Connection {
  /** handlers: { state(name, detail), hello(message), message(message), picture(header, jpeg), reset(seq): discard all events, those after seq follow } */
  constructor(handlers) {
    this.handlers = handlers;
    this.seen = 0; // seq of the last event seen
    this.store = null; // the store that seq belongs to
    this.socket = null;
    this.wait = FIRST_WAIT_MS;
    this.lastReceived = 0;
    setInterval(() => this.#checkHeartbeat(), 1000);
    addEventListener("online", () => this.#retryNow());
    document.addEventListener("visibilitychange", () => document.hidden || this.#retryNow());
  }

  /** Connect, and keep connected. */
  async open() {
    clearTimeout(this.timer);
    this.timer = null;
    this.handlers.state("connecting", this.wait === FIRST_WAIT_MS ? "Connecting" : "Reconnecting");
    try {
      this.#resume(await authenticate(() => this.handlers.state("locked", "A token is needed")));
    } catch {
      this.#retryLater();
    }
  }

  /** Send a message; false where there is no connection. */
  send(message) {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify({ v: 1, ...message }));
    return true;
  }

  /** Resume after the last event seen, or BACKLOG events before the end of another store. */
  #resume({ seq, store }) {
    if (store !== this.store || seq < this.seen) {
      this.store = store;
      this.seen = Math.max(0, seq - BACKLOG);
      this.handlers.reset(this.seen);
    }
    this.#connect();
  }

  #connect() {
    const socket = openSocket(`/?since=${this.seen}`);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    this.lastReceived = performance.now(); // so that a handshake without an answer times out too
    socket.onmessage = ({ data }) => this.socket === socket && this.#receive(data);
    socket.onclose = () => this.socket === socket && this.#reconnect();
  }

  #receive(data) {
    this.lastReceived = performance.now();
    if (typeof data !== "string") {
      const length = new DataView(data).getUint32(0);
      const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
      this.handlers.picture(header, new Uint8Array(data, 4 + length));
      return;
    }
    const message = JSON.parse(data);
    if (message.type === "hello") this.#hello(message);
    else if (this.#isNew(message)) this.handlers.message(message);
  }

  #hello(hello) {
    if (hello.store !== this.store || hello.seq < this.seen) {
      this.#reconnect(); // another service answers than the one that /api/streams came from
      return;
    }
    this.wait = FIRST_WAIT_MS;
    this.handlers.hello(hello);
    this.handlers.state("live", "Live");
  }

  /** Whether an event was not seen before; one seen twice should never come. */
  #isNew(message) {
    if (message.type !== "expression" || message.seq === undefined) return true;
    if (message.seq <= this.seen) return false;
    this.seen = message.seq;
    return true;
  }

  #drop() {
    const socket = this.socket;
    this.socket = null;
    socket?.close();
  }

  #reconnect() {
    this.#drop();
    this.#retryLater();
  }

  #retryLater() {
    const wait = this.wait * (0.75 + 0.5 * Math.random());
    this.wait = Math.min(MAX_WAIT_MS, 2 * this.wait);
    this.handlers.state("waiting", "Reconnecting");
    this.timer = setTimeout(() => this.open(), wait);
  }

  #checkHeartbeat() {
    if (this.socket && performance.now() - this.lastReceived > HEARTBEAT_TIMEOUT_MS) this.#reconnect();
  }

  #retryNow() {
    if (this.timer) this.open();
  }
}
