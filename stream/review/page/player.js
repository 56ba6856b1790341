// The video around an event: pictures of frames from the server, shown one by one or played in a loop at a chosen speed.

import { request } from "./api.js";

const KEPT_CHUNKS = 60;
const KEPT_PICTURES = 96;
const SETTLE_MS = 60;

export class Player {
  /** show(frame, t): called when another frame is shown; cover(text): what is shown instead of a picture, "" for nothing. */
  constructor(canvas, { show, cover }) {
    this.canvas = canvas;
    this.show = show;
    this.cover = cover;
    this.video = null;
    this.region = "";
    this.frame = 0;
    this.speed = 0.25;
    this.playing = false;
    this.loop = [0, 0];
    this.window = [0, 0];
    this.chunks = new Map(); // "number region" -> { first, frames: [{ t, jpeg }] }, or a promise of it
    this.pictures = new Map(); // "frame region" -> ImageBitmap, the last used last
    new ResizeObserver(() => this.#draw()).observe(canvas);
  }

  /** Frames per second, on average. */
  get rate() {
    const { frames, start, end } = this.video;
    return frames > 1 && end > start ? (frames - 1) / (end - start) : 25;
  }

  clamp(frame) {
    return Math.max(0, Math.min((this.video?.frames ?? 1) - 1, frame));
  }

  /** Have these frames at hand, and be at one of them; loop is what is played. */
  open(window, loop, frame, region) {
    this.window = window.map((one) => this.clamp(one));
    this.loop = loop.map((one) => this.clamp(one));
    this.region = region;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#load(), SETTLE_MS); // not for events that are passed by
    this.clock = null;
    this.seek(frame);
  }

  seek(frame) {
    this.frame = this.clamp(frame);
    this.show(this.frame, this.timeOf(this.frame));
    this.#draw();
  }

  step(frames) {
    this.pause();
    const [first, last] = this.window;
    this.seek(Math.max(first, Math.min(last, this.frame + frames)));
  }

  play() {
    this.playing = true;
    this.clock = null;
    this.request ??= requestAnimationFrame((now) => this.#advance(now));
  }

  pause() {
    this.playing = false;
  }

  /** The time of a frame, seconds of the source; null while its chunk is not here. */
  timeOf(frame) {
    const chunk = this.#chunkOf(frame);
    return chunk?.frames?.[frame - chunk.first]?.t ?? null;
  }

  #chunkOf(frame) {
    return this.video?.chunk ? this.chunks.get(`${Math.floor(frame / this.video.chunk)} ${this.region}`) : undefined;
  }

  #advance(now) {
    this.request = null;
    if (!this.playing) return;
    this.request = requestAnimationFrame((next) => this.#advance(next));
    const [first, last] = this.loop;
    if (this.frame < first || this.frame >= last) this.#restart(now);
    const t = this.timeOf(this.frame);
    if (t === null || !this.pictures.has(`${this.frame} ${this.region}`)) {
      this.clock = null; // waits for the picture
      this.#draw();
      return;
    }
    this.clock ??= { at: now, t };
    const time = this.clock.t + ((now - this.clock.at) / 1000) * this.speed;
    let frame = this.frame;
    while (frame < last && (this.timeOf(frame + 1) ?? Infinity) <= time) frame += 1;
    if (frame !== this.frame) this.seek(frame);
    for (let ahead = 1; ahead <= 3; ahead += 1) this.#picture(frame + ahead > last ? first + ahead : frame + ahead);
  }

  #restart(now) {
    this.clock = null;
    this.seek(this.loop[0]);
    const t = this.timeOf(this.frame);
    if (t !== null) this.clock = { at: now, t };
  }

  /** Fetch the window's chunks, those around the frame shown first. */
  async #load() {
    if (!this.video?.chunk) return;
    this.aborted?.abort();
    const aborted = new AbortController();
    this.aborted = aborted;
    const { chunk } = this.video;
    const [from, to] = this.window.map((frame) => Math.floor(frame / chunk));
    const start = Math.floor(this.loop[0] / chunk);
    const order = [];
    for (let number = start; number <= to; number += 1) order.push(number);
    for (let number = from; number < start; number += 1) order.push(number);
    for (const number of order) {
      try {
        await this.#fetch(number, this.region, aborted.signal);
      } catch (error) {
        if (aborted.signal.aborted) return;
        this.cover(error.message || "The server is away.");
        this.timer = setTimeout(() => this.#load(), 1000);
        return;
      }
      if (aborted.signal.aborted) return;
      this.show(this.frame, this.timeOf(this.frame));
      this.#draw();
    }
    this.loaded?.();
  }

  /** Fetch what another event will need, once nothing else is being fetched. */
  async prefetch(frames, region) {
    const { aborted } = this;
    for (const frame of frames) {
      if (!this.video?.chunk || aborted?.signal.aborted) return;
      try {
        await this.#fetch(Math.floor(this.clamp(frame) / this.video.chunk), region, aborted?.signal);
      } catch {
        return; // it is fetched when it is shown
      }
    }
  }

  async #fetch(number, region, signal) {
    const key = `${number} ${region}`;
    if (this.chunks.has(key)) {
      const kept = this.chunks.get(key);
      this.chunks.delete(key);
      this.chunks.set(key, kept);
      return;
    }
    const response = await request(`/frames/${number}${region ? `?region=${region}` : ""}`, signal);
    this.chunks.set(key, readChunk(await response.arrayBuffer()));
    while (this.chunks.size > KEPT_CHUNKS) this.chunks.delete(this.chunks.keys().next().value);
  }

  /** The picture of a frame; undefined while it is not decoded, which this starts. */
  #picture(frame) {
    const key = `${frame} ${this.region}`;
    const kept = this.pictures.get(key);
    if (kept) {
      this.pictures.delete(key);
      this.pictures.set(key, kept);
      return kept;
    }
    const chunk = this.#chunkOf(frame);
    const entry = chunk?.frames[frame - chunk.first];
    if (entry && !entry.decoding) {
      entry.decoding = createImageBitmap(entry.jpeg).then((picture) => {
        entry.decoding = null;
        this.pictures.set(key, picture);
        while (this.pictures.size > KEPT_PICTURES) {
          const oldest = this.pictures.keys().next().value;
          this.pictures.get(oldest).close();
          this.pictures.delete(oldest);
        }
        if (frame === this.frame) this.#draw();
      });
    }
    return undefined;
  }

  #draw() {
    const picture = this.#picture(this.frame);
    const ratio = devicePixelRatio || 1;
    const [width, height] = [Math.round(this.canvas.clientWidth * ratio), Math.round(this.canvas.clientHeight * ratio)];
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    if (!picture) return;
    const context = this.canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.clearRect(0, 0, width, height);
    const scale = Math.min(width / picture.width, height / picture.height);
    const [w, h] = [picture.width * scale, picture.height * scale];
    context.drawImage(picture, (width - w) / 2, (height - h) / 2, w, h);
    this.canvas.dataset.frame = String(this.frame);
    this.cover("");
  }
}

function readChunk(buffer) {
  const length = new DataView(buffer).getUint32(0);
  const { first, frames } = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  let at = 4 + length;
  return {
    first,
    frames: frames.map(({ t, size }) => {
      const jpeg = new Blob([new Uint8Array(buffer, at, size)], { type: "image/jpeg" });
      at += size;
      return { t, jpeg, decoding: null };
    }),
  };
}
