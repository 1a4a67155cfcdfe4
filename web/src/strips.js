/** Takes a picture through a network, tile by tile, without anything that only browsers have. */

import { adjust } from "./adjust.js";
import { enlargeChannel } from "./bicubic.js";
import { mirrored, spans } from "./tiling.js";

/**
 * Where pixels are read from, a few rows at a time.
 * @typedef {object} Picture
 * @property {number} width
 * @property {number} height
 * @property {(top: number, rows: number) => ArrayLike<number>} read gives rows as bytes, RGBA, not premultiplied
 */

/**
 * A `.tflite` of keras-psr as a function of tiles.
 * @typedef {object} TileNetwork
 * @property {number} scale
 * @property {number} tile
 * @property {number} halo
 * @property {number} grid
 * @property {boolean} isQuantized whether it takes and gives bytes; else floats in [0, 255]
 * @property {(colours: Uint8Array | Float32Array) => Promise<Uint8Array | Float32Array>} run takes RGB of a tile and
 *   gives RGB of its middle, enlarged
 */

/**
 * @typedef {object} Options
 * @property {3 | 4} channels of the result: RGB, or RGBA
 * @property {number} [strength] for networks that do not enlarge: the share of the painting; the rest is the picture
 * @property {boolean} [preserveColors] also for these: whether only brightness is painted
 * @property {(done: number, total: number) => unknown} [onTile] awaited after each tile; the work ends if it throws
 */

/**
 * The result's rows from the top, as many at once as a row of tiles has.
 * @param {Picture} picture
 * @param {TileNetwork} network
 * @param {Options} options
 * @returns {AsyncGenerator<Uint8ClampedArray<ArrayBuffer>>} bytes, RGB or RGBA by `channels`
 */
export async function* strips(picture, network, { channels, strength = 1, preserveColors = false, onTile = () => {} }) {
  const { scale, tile, halo } = network;
  const width = picture.width * scale;
  const rows = spans(picture.height, network);
  const columns = spans(picture.width, network);
  const rowSources = mirrored(picture.height, network);
  const columnSources = mirrored(picture.width, network);
  let done = 0;
  for (const row of rows) {
    const sources = rowSources.subarray(row.start, row.start + tile);
    const top = sources.reduce((one, other) => Math.min(one, other));
    const pixels = picture.read(top, sources.reduce((one, other) => Math.max(one, other)) + 1 - top);
    const strip = new Uint8ClampedArray((row.end - row.first) * scale * width * channels);
    for (const column of columns) {
      const places = columnSources.subarray(column.start, column.start + tile);
      const { colours, opacity } = cutTile(
        pixels,
        picture.width,
        sources.map((y) => y - top),
        places,
        network,
      );
      const given = await network.run(colours);
      const size = { width: tile, height: tile, halo };
      const enlarged = adjust(given, colours, size, { strength, preserveColors });
      keep(enlarged, opacity && enlargeChannel(opacity, tile, scale), strip, { row, column, network, width, channels });
      await onTile(++done, rows.length * columns.length);
    }
    yield strip;
  }
}

/**
 * Cuts out one tile for the network. Colours are multiplied by their opacity, so that transparent ones do not bleed
 * into others; `keep` divides them again.
 * @param {ArrayLike<number>} pixels
 * @param {number} width
 * @param {Int32Array} sources
 * @param {Int32Array} places
 * @param {TileNetwork} network
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
    colours: colours instanceof Float32Array ? colours : new Uint8Array(colours.buffer),
    opacity: isOpaque ? null : opacity,
  };
}

/**
 * Copies an enlarged tile, without its halo, to its place; the clamped array clips, and rounds half to even.
 * The opacity is that of the whole tile.
 * @param {ArrayLike<number> & {subarray: Function}} enlarged
 * @param {Uint8ClampedArray | null} opacity
 * @param {Uint8ClampedArray} strip
 * @param {object} place
 * @param {{start: number, first: number, end: number}} place.row
 * @param {{start: number, first: number, end: number}} place.column
 * @param {TileNetwork} place.network
 * @param {number} place.width
 * @param {3 | 4} place.channels
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
