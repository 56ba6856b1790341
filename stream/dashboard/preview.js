// The preview of a source with its landmarks as lines and the five regions as boxes.

import { colour, resizeCanvas } from "./display.js";

export class Preview {
  constructor(canvas) {
    this.canvas = canvas;
    this.landmarks = true;
    this.regions = true;
    this.bitmap = null;
    this.header = null;
    this.decoding = false;
    this.changed = false; // since the last drawing
  }

  /** Decode a JPEG with its header; those that come while one is being decoded are dropped. */
  async decode(header, jpeg) {
    if (this.decoding) return;
    this.decoding = true;
    try {
      const bitmap = await createImageBitmap(new Blob([jpeg], { type: "image/jpeg" }));
      this.bitmap?.close();
      [this.bitmap, this.header] = [bitmap, header];
      this.changed = true;
    } catch {
      return; // a damaged picture: the next one follows soon
    } finally {
      this.decoding = false;
    }
  }

  clear() {
    this.bitmap?.close();
    this.bitmap = this.header = null;
    this.changed = true;
  }

  draw() {
    this.changed = false;
    if (this.header) this.canvas.parentElement.style.setProperty("--aspect", `${this.header.width} / ${this.header.height}`);
    const { context, width, height } = resizeCanvas(this.canvas);
    if (!this.bitmap || !width) return;
    const scale = Math.min(width / this.header.width, height / this.header.height);
    const pixel = 1 / scale;
    context.translate((width - scale * this.header.width) / 2, (height - scale * this.header.height) / 2);
    context.scale(scale, scale);
    context.drawImage(this.bitmap, 0, 0, this.header.width, this.header.height);
    for (const face of this.header.faces) {
      if (this.regions) drawRegions(context, face.regions, pixel);
      if (this.landmarks) drawLandmarks(context, face.landmarks, this.header.contours, pixel);
    }
  }
}

/** The contours of a face as closed lines; lengths: the number of points of each. */
function drawLandmarks(context, points, lengths, pixel) {
  context.beginPath();
  let first = 0;
  for (const length of lengths) {
    points.slice(first, first + length).forEach(([x, y], i) => context[i ? "lineTo" : "moveTo"](x, y));
    context.closePath();
    first += length;
  }
  context.strokeStyle = colour("--landmark");
  context.lineWidth = 1.1 * pixel;
  context.globalAlpha = 0.85;
  context.stroke();
  context.globalAlpha = 1;
}

function drawRegions(context, regions, pixel) {
  for (const [style, width] of [["rgb(0 0 0 / 55%)", 3.2], [colour("--region"), 1.5]]) {
    context.strokeStyle = style;
    context.lineWidth = width * pixel;
    for (const [x, y, w, h] of regions) {
      context.beginPath();
      context.roundRect(x, y, w, h, 3 * pixel);
      context.stroke();
    }
  }
}
