// This device's camera as a source: consent, then its pictures over a socket of their own, as JPEGs with their media time.

import { socket } from "./access.js";

const QUALITY = 0.92;
const BACKED_UP_BYTES = 400_000; // a line that holds this much is slower than the camera: pictures are left out
const LARGEST = 640; // as the consent text says, whatever the camera gives
const MOST_PER_S = 30;
const VIDEO = { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: MOST_PER_S, max: MOST_PER_S }, facingMode: "user" };
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

function release(media) {
  for (const track of media.getTracks()) track.stop();
}

export class Camera {
  /** changed(state, detail): "off", "starting" or "on"; detail is one sentence where it went off by itself. */
  constructor(changed) {
    this.changed = changed;
    this.state = "off";
    this.sent = 0;
    this.dropped = 0;
  }

  /**
   * Ask for the camera and send its pictures. True once the service takes them, false where it runs already or was stopped
   * meanwhile. Throws an Error in one sentence.
   */
  async start(name) {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Error("Browsers give a page the camera only over https, or on localhost. Open this page that way.");
    }
    if (this.state !== "off") return false;
    const run = (this.run = { ended: "" }); // taken away by stop(): what belongs to another run is let go
    this.#to("starting");
    try {
      await this.#open(run);
      if (this.run === run) await this.#connect(name);
    } catch (error) {
      if (this.run === run) {
        this.stop();
        throw error;
      }
    }
    if (run.ended) throw new Error(run.ended);
    if (this.run !== run) return false;
    this.#to("on");
    this.#next();
    return true;
  }

  async #open(run) {
    try {
      const media = await navigator.mediaDevices.getUserMedia({ video: VIDEO, audio: false });
      if (this.run !== run) {
        release(media);
        return;
      }
      this.media = media;
      media.getVideoTracks()[0].onended = () => this.run === run && this.stop("The camera was taken away.");
      this.video = Object.assign(document.createElement("video"), { muted: true, playsInline: true, srcObject: media });
      this.canvas = document.createElement("canvas");
      this.due = this.sentTime = -Infinity;
      await this.video.play();
    } catch (error) {
      throw new Error(refusal(error), { cause: error });
    }
  }

  /** Stop sending, or starting, and switch the camera off; detail is one sentence where nobody asked for it. */
  stop(detail = "") {
    const { run, line, media, video, state } = this;
    this.run = this.line = this.media = this.video = null;
    this.encoding = false;
    line?.close(1000);
    if (media) release(media);
    if (video) video.srcObject = null;
    if (state === "starting") run.ended = detail;
    if (state !== "off") this.#to("off", state === "on" ? detail : "");
  }

  #to(state, detail = "") {
    this.state = state;
    this.changed(state, detail);
  }

  /** Open the line; the service's first status says that it is ready for pictures. */
  #connect(name) {
    const line = socket("/camera");
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
        if (this.line === line && this.state === "on") this.stop(sentence);
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

  /** Send a picture, unless it comes too soon, is the last one again, that one is still being packed, or the line is behind. */
  #frame(mediaTime) {
    this.#next();
    const { line, video, canvas } = this;
    if (line?.readyState !== WebSocket.OPEN || mediaTime === this.sentTime || mediaTime < this.due) return;
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
    this.due = Math.max(this.due, mediaTime - 0.5 / MOST_PER_S) + 1 / MOST_PER_S; // half a picture early is still on time
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

/** Show the consent text, and start the camera once it is agreed to; leaving the dialog meanwhile stops it. */
export function offer(camera) {
  const find = (id) => document.getElementById(`consent-${id}`);
  const dialog = document.getElementById("consent");
  const problem = find("problem");
  const starting = (yes) => {
    find("start").disabled = yes;
    find("start").textContent = yes ? "Starting" : "Start the camera";
    if (yes) find("cancel").focus();
  };
  find("host").textContent = location.host;
  find("agree").checked = false;
  problem.hidden = true;
  starting(false);
  find("cancel").onclick = () => dialog.close();
  dialog.onclose = () => camera.state === "starting" && camera.stop();
  find("form").onsubmit = async (event) => {
    event.preventDefault();
    if (camera.state !== "off") return;
    problem.hidden = true;
    starting(true);
    try {
      const runs = await camera.start(find("name").value.trim());
      if (runs && !dialog.open) camera.stop(); // it was left at this very moment
      if (runs) dialog.close();
    } catch (error) {
      problem.textContent = error.message;
      problem.hidden = false;
    }
    starting(camera.state === "starting");
  };
  dialog.showModal();
}
