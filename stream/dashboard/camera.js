// This device's camera as a source: consent, then its pictures over a socket of their own, as JPEGs with their media time.

import { socket } from "./access.js";

const QUALITY = 0.92;
const BACKED_UP_BYTES = 400_000; // a line that holds this much is slower than the camera: pictures are left out
const VIDEO = { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30, max: 60 }, facingMode: "user" };
const LARGEST = 1280;
const REFUSALS = {
  NotAllowedError: "The camera was refused. Allow it for this page in the browser’s address bar, then start again.",
  NotFoundError: "No camera was found on this device.",
  NotReadableError: "The camera cannot be opened; another program may be using it.",
  OverconstrainedError: "The camera has no picture size that can be used.",
  SecurityError: "The browser’s settings keep this page from the camera.",
};

/** One sentence why there is no camera. */
function refusal(error) {
  return REFUSALS[error.name] ?? `The camera cannot be used: ${error.message}`;
}

export class Camera {
  /** changed(state, detail): "off", "starting" or "on"; detail is one sentence where it went off by itself. */
  constructor(changed) {
    this.changed = changed;
    this.state = "off";
    this.sent = 0;
    this.dropped = 0;
  }

  /** Ask for the camera and send its pictures; returns once the service takes them. Throws an Error in one sentence. */
  async start(name) {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Error("Browsers give a page the camera only over https, or on localhost. Open this page that way.");
    }
    this.#to("starting");
    try {
      await this.#open();
    } catch (error) {
      this.stop();
      throw new Error(refusal(error), { cause: error });
    }
    await this.#connect(name);
    this.#to("on");
    this.#next();
  }

  async #open() {
    this.media = await navigator.mediaDevices.getUserMedia({ video: VIDEO, audio: false });
    this.media.getVideoTracks()[0].onended = () => this.stop("The camera was taken away.");
    this.video = Object.assign(document.createElement("video"), { muted: true, playsInline: true, srcObject: this.media });
    this.canvas = document.createElement("canvas");
    await this.video.play();
  }

  /** Stop sending and switch the camera off. */
  stop(detail = "") {
    const { line, media, video } = this;
    this.line = this.media = this.video = null;
    this.encoding = false;
    line?.close(1000);
    for (const track of media?.getTracks() ?? []) track.stop();
    if (video) video.srcObject = null;
    if (this.state !== "off") this.#to("off", detail);
  }

  #to(state, detail = "") {
    this.state = state;
    this.changed(state, detail);
  }

  /** Open the line; the service's first status says that it is ready for pictures. */
  #connect(name) {
    const line = socket(`/camera?name=${encodeURIComponent(name)}`);
    this.line = line;
    let problem = "";
    return new Promise((ready, refused) => {
      line.onopen = () => line.send(JSON.stringify({ type: "camera", v: 1, name, consent: true }));
      line.onmessage = ({ data }) => {
        const message = JSON.parse(data);
        if (message.type === "error") problem = message.message;
        if (message.type === "status") ready();
      };
      line.onclose = () => {
        const sentence = problem || "The service closed the camera’s line.";
        const running = this.state === "on";
        if (this.line === line) this.stop(running ? sentence : "");
        refused(new Error(sentence));
      };
    });
  }

  #next() {
    const { video } = this;
    if (!video) return;
    if (video.requestVideoFrameCallback) video.requestVideoFrameCallback((_, { mediaTime }) => this.#frame(mediaTime));
    else requestAnimationFrame(() => this.#frame(video.currentTime));
  }

  /** Send a picture, unless the last one is still being packed, the line is behind, or it is the same one. */
  #frame(mediaTime) {
    this.#next();
    const { line, video, canvas } = this;
    if (line?.readyState !== WebSocket.OPEN || mediaTime === this.sentTime) return;
    if (this.encoding || line.bufferedAmount > BACKED_UP_BYTES) {
      this.dropped += 1;
      return;
    }
    const scale = Math.min(1, LARGEST / Math.max(video.videoWidth, video.videoHeight));
    const [width, height] = [video.videoWidth, video.videoHeight].map((side) => Math.round(scale * side));
    if (!width || !height) return;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    canvas.getContext("2d", { alpha: false }).drawImage(video, 0, 0, width, height);
    this.encoding = true;
    this.sentTime = mediaTime;
    canvas.toBlob((blob) => this.#send(line, mediaTime, blob), "image/jpeg", QUALITY);
  }

  async #send(line, mediaTime, blob) {
    const jpeg = blob && new Uint8Array(await blob.arrayBuffer());
    if (this.line !== line) return;
    this.encoding = false;
    if (!jpeg || line.readyState !== WebSocket.OPEN) return;
    const packet = new Uint8Array(8 + jpeg.length);
    new DataView(packet.buffer).setFloat64(0, mediaTime);
    packet.set(jpeg, 8);
    line.send(packet);
    this.sent += 1;
  }
}

/** Show the consent text; resolves once the camera runs, or the dialog is left. */
export function offer(camera) {
  const find = (id) => document.getElementById(`consent-${id}`);
  const dialog = document.getElementById("consent");
  const problem = find("problem");
  find("host").textContent = location.host;
  find("agree").checked = false;
  problem.hidden = true;
  find("cancel").onclick = () => dialog.close();
  find("form").onsubmit = async (event) => {
    event.preventDefault();
    problem.hidden = true;
    try {
      await camera.start(find("name").value.trim());
      dialog.close();
    } catch (error) {
      problem.textContent = error.message;
      problem.hidden = false;
    }
  };
  dialog.showModal();
}
