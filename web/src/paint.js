/** Paints a large picture at one size and enlarges the painting, as keras_psr.Painter does. */

import { adjust } from "./adjust.js";
import { Resizer } from "./resizer.js";
import { strips } from "./strips.js";
import { spans } from "./tiling.js";

/** Rows that are resized at once. */
const STRIP = 64;

/**
 * The result's rows from the top, as `strips` gives them. Only the small picture and the enlarged painting are held
 * whole.
 * @param {Picture} picture with a shorter side that is longer than `paintSize`
 * @param {TileNetwork} network of a style
 * @param {(scale: number) => Promise<TileNetwork>} loadEnlarger gives a network that enlarges a painting 2 or 4 times
 * @param {object} options those of `strips`; `paintSize`, the shorter side of the picture that is painted; and
 *   `onStrip`, which is awaited after each strip and ends the work if it throws
 */
export async function* paintSmall(picture, network, loadEnlarger, options) {
  const { paintSize, channels, onTile, onStrip, ...adjustment } = options;
  const { width, height } = picture;
  const shorter = Math.min(width, height);
  const reduction = paintSize / shorter;
  const small = { width: roundEven(width * reduction), height: roundEven(height * reduction) };
  const enlarger = await loadEnlarger(shorter <= 2 * paintSize ? 2 : 4);
  const total = countTiles(small, network) + countTiles(small, enlarger);
  let done = 0;
  const count = () => onTile(++done, total);
  let painting = pictureOf(reduce(picture, small), small);
  for (const one of [network, enlarger]) {
    const size = { width: painting.width * one.scale, height: painting.height * one.scale };
    const pixels = new Uint8ClampedArray(size.width * size.height * 4);
    let at = 0;
    for await (const strip of strips(painting, one, { channels: 4, onTile: count })) {
      pixels.set(strip, at);
      at += strip.length;
    }
    painting = pictureOf(pixels, size);
  }
  const resizer = new Resizer(painting, picture, 3);
  for (let top = 0, finished = 0; top < painting.height; top += STRIP) {
    const painted = resizer.write(colours(painting.read(top, Math.min(STRIP, painting.height - top))));
    const rows = painted.length / (width * 3);
    if (!rows) continue;
    const photo = picture.read(finished, rows);
    finished += rows;
    const size = { width, height: rows, halo: 0 };
    await onStrip();
    yield divide(adjust(painted, colours(photo), size, adjustment), photo, channels);
  }
}

/** An RGBA picture in memory. */
export const pictureOf = (pixels, { width, height }) => ({
  width,
  height,
  read: (top, rows) => pixels.subarray(top * width * 4, (top + rows) * width * 4),
});

/** A picture reduced to a size: opaque RGBA, its colours multiplied by the opacity that it had. */
function reduce(picture, size) {
  const resizer = new Resizer(picture, size, 3);
  const pixels = new Uint8ClampedArray(size.width * size.height * 4).fill(255);
  let to = 0;
  for (let top = 0; top < picture.height; top += STRIP) {
    const rows = resizer.write(colours(picture.read(top, Math.min(STRIP, picture.height - top))));
    for (let from = 0; from < rows.length; from += 3, to += 4) pixels.set(rows.subarray(from, from + 3), to);
  }
  return pixels;
}

/** RGB from RGBA, multiplied by opacity. */
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
