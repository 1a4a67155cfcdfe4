/** A picture through a network, tile by tile, into a PNG. */

import { adjust, changes } from "./adjust.js";
import { enlargeChannel } from "./bicubic.js";
import { PngWriter } from "./png.js";
import { mirrored, spans } from "./tiling.js";

/** The largest picture that is shown; of a larger result a reduced one is made, for browsers fail on more. */
const PREVIEW_PIXELS = 16e6;

/**
 * @param {ImageBitmap} bitmap
 * @param {Network} network
 * @param {object} adjustment as `adjust` takes it; for networks that do not enlarge
 * @param {(done: number, total: number) => void} onTile
 * @returns {Promise<{png: Blob, preview: ?Blob, width: number, height: number}>} `preview` only of a large result
 */
export async function enlarge(bitmap, network, adjustment, onTile) {
  const [width, height] = [bitmap.width * network.scale, bitmap.height * network.scale];
  const reader = new RowReader(bitmap, Math.min(network.tile, bitmap.height));
  const channels = reader.isTransparent() ? 4 : 3;
  const png = new PngWriter(width, height, channels);
  const reduced = width * height > PREVIEW_PIXELS ? new Reducer(width, height, channels) : null;
  for await (const strip of strips(reader, network, adjustment, channels, onTile)) {
    png.write(strip);
    reduced?.write(strip);
  }
  return { png: png.finish(), preview: reduced?.finish() ?? null, width, height };
}

/**
 * A frame of a film through a network.
 * @returns {Promise<ImageData>}
 */
export async function enlargeFrame(bitmap, network, adjustment) {
  const reader = new RowReader(bitmap, Math.min(network.tile, bitmap.height));
  const frame = new ImageData(bitmap.width * network.scale, bitmap.height * network.scale);
  let at = 0;
  for await (const strip of strips(reader, network, adjustment, 4)) {
    frame.data.set(strip, at);
    at += strip.length;
  }
  return frame;
}

/** The result's rows from the top, as many at once as a row of tiles has: bytes, RGB or RGBA by `channels`. */
async function* strips(reader, network, adjustment, channels, onTile = () => {}) {
  const { bitmap } = reader;
  const { scale, tile } = network;
  const width = bitmap.width * scale;
  const rows = spans(bitmap.height, network);
  const columns = spans(bitmap.width, network);
  const rowSources = mirrored(bitmap.height, network);
  const columnSources = mirrored(bitmap.width, network);
  const isAdjusted = scale === 1 && changes(adjustment);
  let done = 0;
  for (const row of rows) {
    const sources = rowSources.subarray(row.start, row.start + tile);
    const top = sources.reduce((one, other) => Math.min(one, other));
    const pixels = reader.read(top, sources.reduce((one, other) => Math.max(one, other)) + 1 - top);
    const strip = new Uint8ClampedArray((row.end - row.first) * scale * width * channels);
    for (const column of columns) {
      const places = columnSources.subarray(column.start, column.start + tile);
      const { colours, opacity } = cutTile(
        pixels,
        bitmap.width,
        sources.map((y) => y - top),
        places,
        network,
      );
      const given = await network.run(colours);
      const enlarged = isAdjusted ? adjust(given, colours, network, adjustment) : given;
      keep(enlarged, opacity && enlargeChannel(opacity, tile, scale), strip, { row, column, network, width, channels });
      onTile(++done, rows.length * columns.length);
    }
    yield strip;
  }
}

/** Reads rows of a bitmap through a canvas of a few rows, for some phones have no canvas as large as a photo. */
class RowReader {
  constructor(bitmap, rows) {
    this.bitmap = bitmap;
    this.context = new OffscreenCanvas(bitmap.width, rows).getContext("2d", { willReadFrequently: true });
    this.context.globalCompositeOperation = "copy";
  }

  /** RGBA bytes, not premultiplied. */
  read(top, rows) {
    const { width } = this.bitmap;
    this.context.drawImage(this.bitmap, 0, top, width, rows, 0, 0, width, rows);
    return this.context.getImageData(0, 0, width, rows).data;
  }

  isTransparent() {
    const { height } = this.context.canvas;
    for (let top = 0; top < this.bitmap.height; top += height) {
      const pixels = this.read(top, Math.min(height, this.bitmap.height - top));
      for (let at = 3; at < pixels.length; at += 4) if (pixels[at] < 255) return true;
    }
    return false;
  }
}

/**
 * One tile for the network. Colours are multiplied by their opacity, so that what is transparent does not bleed into
 * what is not; `keep` divides them again.
 */
function cutTile(pixels, width, sources, places, { isQuantized, tile }) {
  const colours = new (isQuantized ? Uint8ClampedArray : Float32Array)(tile * tile * 3); // the former rounds
  const opacity = new Uint8Array(tile * tile);
  let isOpaque = true;
  for (let y = 0, at = 0; y < tile; y++) {
    for (let x = 0; x < tile; x++, at++) {
      const from = (sources[y] * width + places[x]) * 4;
      const alpha = pixels[from + 3];
      opacity[at] = alpha;
      isOpaque &&= alpha === 255;
      for (let channel = 0; channel < 3; channel++) {
        colours[at * 3 + channel] = alpha === 255 ? pixels[from + channel] : (pixels[from + channel] * alpha) / 255;
      }
    }
  }
  return {
    colours: isQuantized ? new Uint8Array(colours.buffer) : colours,
    opacity: isOpaque ? null : opacity,
  };
}

/**
 * Copies an enlarged tile, which is without its halo, to its place; the clamped array clips, and rounds half to even.
 * The opacity is that of the whole tile.
 */
function keep(enlarged, opacity, strip, { row, column, network, width, channels }) {
  const { scale, tile, halo } = network;
  const side = (tile - 2 * halo) * scale;
  const top = (row.first - row.start) * scale;
  const left = (column.first - column.start) * scale;
  const columns = (column.end - column.first) * scale;
  for (let y = 0; y < (row.end - row.first) * scale; y++) {
    let from = (top + y) * side + left;
    let to = (y * width + column.first * scale) * channels;
    if (channels === 3) {
      strip.set(enlarged.subarray(from * 3, (from + columns) * 3), to);
      continue;
    }
    let over = (halo * scale + top + y) * tile * scale + halo * scale + left;
    for (let x = 0; x < columns; x++, from++, over++, to += channels) {
      const alpha = opacity ? opacity[over] : 255;
      const factor = alpha === 255 ? 1 : 255 / Math.max(1, alpha);
      for (let channel = 0; channel < 3; channel++) strip[to + channel] = enlarged[from * 3 + channel] * factor;
      strip[to + 3] = alpha;
    }
  }
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
