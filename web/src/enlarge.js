/** A picture through a network, tile by tile, into a PNG. */

import { adjust, changes } from "./adjust.js";
import { enlargeChannel, Resizer } from "./bicubic.js";
import { PngWriter } from "./png.js";
import { mirrored, spans } from "./tiling.js";

/** The largest picture that is shown; of a larger result a reduced one is made, for browsers fail on more. */
const PREVIEW_PIXELS = 16e6;

/** Rows of the enlarged painting that are resized at once. */
const STRIP = 64;

/**
 * @param {ImageBitmap} bitmap
 * @param {Network} network
 * @param {object} adjustment as `adjust` takes it, and `paintSize`; for networks that do not enlarge
 * @param {(scale: number) => Promise<Network>} loadEnlarger gives a network that enlarges a painting 2 or 4 times
 * @param {(done: number, total: number) => void} onTile
 * @returns {Promise<{png: Blob, preview: ?Blob, width: number, height: number}>} `preview` only of a large result
 */
export async function enlarge(bitmap, network, adjustment, loadEnlarger, onTile) {
  const [width, height] = [bitmap.width * network.scale, bitmap.height * network.scale];
  const reader = new BitmapReader(bitmap, Math.min(network.tile, bitmap.height));
  const channels = reader.isTransparent() ? 4 : 3;
  const png = new PngWriter(width, height, channels);
  const reduced = width * height > PREVIEW_PIXELS ? new Reducer(width, height, channels) : null;
  const { paintSize } = adjustment;
  const isPaintedSmall = network.scale === 1 && paintSize && Math.min(width, height) > paintSize;
  const result = isPaintedSmall
    ? paintSmall(reader, network, adjustment, channels, loadEnlarger, onTile)
    : strips(reader, network, adjustment, channels, onTile);
  for await (const strip of result) {
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
  const reader = new BitmapReader(bitmap, Math.min(network.tile, bitmap.height));
  const frame = new ImageData(bitmap.width * network.scale, bitmap.height * network.scale);
  let at = 0;
  for await (const strip of strips(reader, network, adjustment, 4)) {
    frame.data.set(strip, at);
    at += strip.length;
  }
  return frame;
}

/**
 * A picture painted with a shorter side of `paintSize`, and enlarged to its own size, as keras_psr.Painter does it. Only
 * the small picture and the enlarged painting are held whole.
 */
async function* paintSmall(reader, network, adjustment, channels, loadEnlarger, onTile) {
  const { width, height } = reader;
  const shorter = Math.min(width, height);
  const reduction = adjustment.paintSize / shorter;
  const small = { width: roundEven(width * reduction), height: roundEven(height * reduction) };
  const enlarger = await loadEnlarger(shorter <= 2 * adjustment.paintSize ? 2 : 4);
  const total = countTiles(small, network) + countTiles(small, enlarger);
  let done = 0;
  const count = () => onTile(++done, total);
  let picture = new PixelReader(reduce(reader, small), small);
  for (const one of [network, enlarger]) {
    const pixels = new Uint8ClampedArray(picture.width * picture.height * one.scale ** 2 * 4);
    let at = 0;
    for await (const strip of strips(picture, one, { strength: 1, keepsColours: false }, 4, count)) {
      pixels.set(strip, at);
      at += strip.length;
    }
    picture = new PixelReader(pixels, { width: picture.width * one.scale, height: picture.height * one.scale });
  }
  const resizer = new Resizer(picture, reader, 3);
  for (let top = 0, finished = 0; top < picture.height; top += STRIP) {
    const painted = resizer.write(colours(picture.read(top, Math.min(STRIP, picture.height - top))));
    const rows = painted.length / (width * 3);
    if (!rows) continue;
    const photo = reader.read(finished, rows);
    finished += rows;
    const given = colours(photo);
    yield divide(changes(adjustment) ? adjust(painted, given, { width, height: rows, halo: 0 }, adjustment) : painted, photo, channels);
  }
}

/** A picture of a smaller size: RGBA, opaque, its colours multiplied by the opacity that it had. */
function reduce(reader, size) {
  const resizer = new Resizer(reader, size, 3);
  const pixels = new Uint8ClampedArray(size.width * size.height * 4).fill(255);
  let to = 0;
  for (let top = 0; top < reader.height; top += STRIP) {
    const rows = resizer.write(colours(reader.read(top, Math.min(STRIP, reader.height - top))));
    for (let from = 0; from < rows.length; from += 3, to += 4) pixels.set(rows.subarray(from, from + 3), to);
  }
  return pixels;
}

/** RGB of RGBA, multiplied by opacity. */
function colours(pixels) {
  const result = new Uint8ClampedArray((pixels.length / 4) * 3);
  for (let from = 0, to = 0; from < pixels.length; from += 4) {
    const opacity = pixels[from + 3] / 255;
    for (let channel = 0; channel < 3; channel++) result[to++] = pixels[from + channel] * opacity;
  }
  return result;
}

/** RGB, or RGBA, from colours that were multiplied by a photo's opacity; what is transparent keeps the photo's colours. */
function divide(painted, photo, channels) {
  if (channels === 3) return painted;
  const result = Uint8ClampedArray.from(photo);
  for (let from = 0, to = 0; from < painted.length; from += 3, to += 4) {
    const factor = 255 / photo[to + 3];
    if (factor === Infinity) continue;
    for (let channel = 0; channel < 3; channel++) result[to + channel] = painted[from + channel] * factor;
  }
  return result;
}

const countTiles = ({ width, height }, network) => spans(width, network).length * spans(height, network).length;

/** As Python rounds. */
const roundEven = (value) => (value % 1 === 0.5 ? 2 * Math.round(value / 2) : Math.round(value));

/** The result's rows from the top, as many at once as a row of tiles has: bytes, RGB or RGBA by `channels`. */
async function* strips(reader, network, adjustment, channels, onTile = () => {}) {
  const { scale, tile, halo } = network;
  const width = reader.width * scale;
  const rows = spans(reader.height, network);
  const columns = spans(reader.width, network);
  const rowSources = mirrored(reader.height, network);
  const columnSources = mirrored(reader.width, network);
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
        reader.width,
        sources.map((y) => y - top),
        places,
        network,
      );
      const given = await network.run(colours);
      const enlarged = isAdjusted ? adjust(given, colours, { width: tile, height: tile, halo }, adjustment) : given;
      keep(enlarged, opacity && enlargeChannel(opacity, tile, scale), strip, { row, column, network, width, channels });
      onTile(++done, rows.length * columns.length);
    }
    yield strip;
  }
}

/** Reads rows of a bitmap through a canvas of a few rows, for some phones have no canvas as large as a photo. */
class BitmapReader {
  constructor(bitmap, rows) {
    this.bitmap = bitmap;
    this.width = bitmap.width;
    this.height = bitmap.height;
    this.context = new OffscreenCanvas(bitmap.width, rows).getContext("2d", { willReadFrequently: true });
    this.context.globalCompositeOperation = "copy";
  }

  /** RGBA bytes, not premultiplied. */
  read(top, rows) {
    const { width } = this;
    const { canvas } = this.context;
    if (rows > canvas.height) canvas.height = rows;
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

/** Reads rows of pixels that are held: RGBA, as `BitmapReader` gives them. */
class PixelReader {
  constructor(pixels, { width, height }) {
    Object.assign(this, { pixels, width, height });
  }

  read(top, rows) {
    return this.pixels.subarray(top * this.width * 4, (top + rows) * this.width * 4);
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
