/** A browser's picture through a network: into a PNG, or into plain pixels. */

import { paintSmall, pictureOf } from "./paint.js";
import { PngWriter } from "./png.js";
import { strips } from "./strips.js";

/** The most pixels that are shown. A larger result gets a reduced preview, because browsers fail on more. */
const PREVIEW_PIXELS = 16e6;

/**
 * @param {ImageBitmap|ImageData} image
 * @param {Network} network
 * @param {object} options `strength`, `preserveColors` and `onTile` of `strips`; `paintSize`, `onStrip` and
 *   `loadEnlarger` of `paintSmall`, for styles
 * @returns {Promise<{png: Blob, preview: ?Blob, width: number, height: number}>} `preview` is null for small results
 */
export async function enlargeToPng(image, network, options) {
  const [width, height] = [image.width * network.scale, image.height * network.scale];
  const picture = readerOf(image, network);
  const channels = isTransparent(picture, network.tile) ? 4 : 3;
  const png = new PngWriter(width, height, channels);
  const reduced = width * height > PREVIEW_PIXELS ? new Reducer(width, height, channels) : null;
  for await (const strip of resultOf(picture, network, { ...options, channels })) {
    png.write(strip);
    reduced?.write(strip);
  }
  return { png: png.finish(), preview: reduced?.finish() ?? null, width, height };
}

/** The same into RGBA: `{ data: Uint8ClampedArray, width, height }`. */
export async function enlargeToPixels(image, network, options) {
  const [width, height] = [image.width * network.scale, image.height * network.scale];
  const data = new Uint8ClampedArray(width * height * 4);
  const picture = readerOf(image, network);
  let at = 0;
  for await (const strip of resultOf(picture, network, { ...options, channels: 4 })) {
    data.set(strip, at);
    at += strip.length;
  }
  return { data, width, height };
}

/** The result's rows from the top. */
function resultOf(picture, network, { paintSize, loadEnlarger, onStrip, ...options }) {
  const isPaintedSmall = paintSize && Math.min(picture.width, picture.height) > paintSize;
  if (!isPaintedSmall) return strips(picture, network, options);
  return paintSmall(picture, network, loadEnlarger, { paintSize, onStrip, ...options });
}

/** The picture that `strips` reads. A canvas would lose the colours of transparent pixels, so they are taken as is. */
function readerOf(image, network) {
  if (image instanceof ImageBitmap) return new BitmapReader(image, Math.min(network.tile, image.height));
  return pictureOf(image.data, image);
}

/** Reads rows of a bitmap through a canvas of a few rows, because some phones have no canvas as large as a photo. */
class BitmapReader {
  constructor(bitmap, rows) {
    this.bitmap = bitmap;
    this.width = bitmap.width;
    this.height = bitmap.height;
    this.context = new OffscreenCanvas(bitmap.width, rows).getContext("2d", { willReadFrequently: true });
  }

  /** RGBA bytes, not premultiplied. */
  read(top, rows) {
    const { canvas } = this.context;
    if (rows > canvas.height) canvas.height = rows;
    this.context.globalCompositeOperation = "copy"; // a new size resets it
    this.context.drawImage(this.bitmap, 0, top, this.width, rows, 0, 0, this.width, rows);
    return this.context.getImageData(0, 0, this.width, rows).data;
  }
}

function isTransparent(picture, rows) {
  for (let top = 0; top < picture.height; top += rows) {
    const pixels = picture.read(top, Math.min(rows, picture.height - top));
    for (let at = 3; at < pixels.length; at += 4) if (pixels[at] < 255) return true;
  }
  return false;
}

/** A picture reduced by a whole number while its rows come in: each pixel the mean of a square. */
class Reducer {
  constructor(width, height, channels) {
    this.factor = Math.ceil(Math.sqrt((width * height) / PREVIEW_PIXELS));
    this.stride = width * channels;
    this.channels = channels;
    this.width = Math.floor(width / this.factor);
    this.left = Math.floor(height / this.factor);
    this.png = new PngWriter(this.width, this.left, channels);
    this.sums = new Uint32Array(this.width * channels);
    this.rows = 0;
  }

  write(strip) {
    const { channels, factor, sums, width } = this;
    for (let start = 0; start < strip.length && this.left; start += this.stride) {
      for (let x = 0, from = start; x < width * factor; x++) {
        const to = Math.floor(x / factor) * channels;
        for (let channel = 0; channel < channels; channel++) sums[to + channel] += strip[from++];
      }
      if (++this.rows === factor) {
        this.png.write(Uint8ClampedArray.from(sums, (sum) => sum / factor ** 2));
        sums.fill(0);
        this.rows = 0;
        this.left--;
      }
    }
  }

  finish() {
    return this.png.finish();
  }
}
