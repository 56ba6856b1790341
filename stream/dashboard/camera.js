// This device's camera as a source: consent, then its pictures over a WebSocket of their own, as JPEGs with their media time.

import { openSocket } from "./auth.js";

const QUALITY = 0.92;
const MAX_BUFFERED_BYTES = 400_000; // with more waiting, the connection is slower than the camera: frames are dropped
const MAX_SIDE = 640; // pixels, as the consent text says
const MAX_FPS = 30;
const VIDEO = { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: MAX_FPS, max: MAX_FPS }, facingMode: "user" };
const ERRORS = {
  NotAllowedError: "Access to the camera was denied. Allow it for this page in the browser’s address bar, then start again.",
  NotFoundError: "No camera was found on this device.",
  NotReadableError: "The camera cannot be opened; another program may be using it.",
  OverconstrainedError: "The camera has no picture size that can be used.",
  SecurityError: "The browser’s settings keep this page from the camera.",
};

/** Why the camera cannot be used, in one sentence. */
function errorMessage(error) {
  return ERRORS[error.name] ?? `The camera cannot be used: ${error.message}`;
}

function stopTracks(media) {
  for (const track of media.getTracks()) track.stop();
}

export class Camera {
  /** onChange(state, detail): "off", "starting" or "on"; detail is one sentence where it stopped by itself. */
  constructor(onChange) {
    this.onChange = onChange;
    this.state = "off";
    this.sent = 0;
    this.dropped = 0;
  }

  /**
   * Open the camera and send its pictures. True once the service accepts them, false where it runs already or was stopped
   * meanwhile. Throws an Error in one sentence.
   */
  async start(name) {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Error("Browsers give a page the camera only over https, or on localhost. Open this page that way.");
    }
    if (this.state !== "off") return false;
    const run = (this.run = { ended: "" }); // cleared by stop(): what belongs to an earlier run is discarded
    this.#setState("starting");
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
    this.#setState("on");
    this.#scheduleFrame();
    return true;
  }

  async #open(run) {
    try {
      const media = await navigator.mediaDevices.getUserMedia({ video: VIDEO, audio: false });
      if (this.run !== run) {
        stopTracks(media);
        return;
      }
      this.media = media;
      media.getVideoTracks()[0].onended = () => this.run === run && this.stop("The camera was disconnected.");
      this.video = Object.assign(document.createElement("video"), { muted: true, playsInline: true, srcObject: media });
      this.canvas = document.createElement("canvas");
      this.due = this.sentTime = -Infinity;
      await this.video.play();
    } catch (error) {
      throw new Error(errorMessage(error), { cause: error });
    }
  }

  /** Stop sending, or starting, and switch the camera off; detail is one sentence where the user did not stop it. */
  stop(detail = "") {
    const { run, socket, media, video, state } = this;
    this.run = this.socket = this.media = this.video = null;
    this.encoding = false;
    socket?.close(1000);
    if (media) stopTracks(media);
    if (video) video.srcObject = null;
    if (state === "starting") run.ended = detail;
    if (state !== "off") this.#setState("off", state === "on" ? detail : "");
  }

  #setState(state, detail = "") {
    this.state = state;
    this.onChange(state, detail);
  }

  /** Open the WebSocket; the service's first status means that it accepts pictures. */
  #connect(name) {
    const socket = openSocket("/camera");
    this.socket = socket;
    let problem = "";
    return new Promise((resolve, reject) => {
      socket.onopen = () => socket.send(JSON.stringify({ type: "camera", v: 1, name, consent: true }));
      socket.onmessage = ({ data }) => {
        const message = JSON.parse(data);
        if (message.type === "error") problem = message.message;
        if (message.type === "status") resolve();
      };
      socket.onclose = () => {
        const sentence = problem || "The service closed the camera’s connection.";
        if (this.socket === socket && this.state === "on") this.stop(sentence);
        reject(new Error(sentence));
      };
    });
  }

  #scheduleFrame() {
    const { video } = this;
    if (!video) return;
    if (video.requestVideoFrameCallback) video.requestVideoFrameCallback((_, { mediaTime }) => this.#captureFrame(mediaTime));
    else requestAnimationFrame(() => this.#captureFrame(video.currentTime));
  }

  /** Send a frame, unless it is early or a repeat, the last one is still being encoded, or the connection is too slow. */
  #captureFrame(mediaTime) {
    this.#scheduleFrame();
    const { socket, video, canvas } = this;
    if (socket?.readyState !== WebSocket.OPEN || mediaTime === this.sentTime || mediaTime < this.due) return;
    if (this.encoding || socket.bufferedAmount > MAX_BUFFERED_BYTES) {
      this.dropped += 1;
      return;
    }
    const scale = Math.min(1, MAX_SIDE / Math.max(video.videoWidth, video.videoHeight));
    const [width, height] = [video.videoWidth, video.videoHeight].map((side) => Math.round(scale * side));
    if (!width || !height) return;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    canvas.getContext("2d", { alpha: false }).drawImage(video, 0, 0, width, height);
    this.encoding = true;
    this.sentTime = mediaTime;
    this.due = Math.max(this.due, mediaTime - 0.5 / MAX_FPS) + 1 / MAX_FPS; // up to half a frame early counts as on time
    canvas.toBlob((blob) => this.#send(socket, mediaTime, blob), "image/jpeg", QUALITY);
  }

  async #send(socket, mediaTime, blob) {
    const jpeg = blob && new Uint8Array(await blob.arrayBuffer());
    if (this.socket !== socket) return;
    this.encoding = false;
    if (!jpeg || socket.readyState !== WebSocket.OPEN) return;
    const packet = new Uint8Array(8 + jpeg.length);
    new DataView(packet.buffer).setFloat64(0, mediaTime);
    packet.set(jpeg, 8);
    socket.send(packet);
    this.sent += 1;
  }
}

/** Show the consent dialog, and start the camera once the user agrees; closing the dialog meanwhile stops it. */
export function askConsent(camera) {
  const part = (id) => document.getElementById(`consent-${id}`);
  const dialog = document.getElementById("consent");
  const problem = part("problem");
  const setStarting = (yes) => {
    part("start").disabled = yes;
    part("start").textContent = yes ? "Starting" : "Start the camera";
    if (yes) part("cancel").focus();
  };
  part("host").textContent = location.host;
  part("agree").checked = false;
  problem.hidden = true;
  setStarting(false);
  part("cancel").onclick = () => dialog.close();
  dialog.onclose = () => camera.state === "starting" && camera.stop();
  part("form").onsubmit = async (event) => {
    event.preventDefault();
    if (camera.state !== "off") return;
    problem.hidden = true;
    setStarting(true);
    try {
      const runs = await camera.start(part("name").value.trim());
      if (runs && !dialog.open) camera.stop(); // the dialog was closed at this very moment
      if (runs) dialog.close();
    } catch (error) {
      problem.textContent = error.message;
      problem.hidden = false;
    }
    setStarting(camera.state === "starting");
  };
  dialog.showModal();
}
