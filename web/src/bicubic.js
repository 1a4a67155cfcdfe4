/**
 * Enlarges one channel of a square tile by a whole number, as keras_psr.images.pixels.resize_bicubic does: Keys' kernel
 * with a = -0.5, columns first, 8 bits between the passes. The two outermost pixels are not mirrored; tiling cuts them off.
 * @param {Uint8Array} channel side * side
 * @param {number} side
 * @param {number} scale
 * @returns {Uint8ClampedArray}
 */
export function enlargeChannel(channel, side, scale) {
  const columns = enlargeRows(channel, side, side, scale, true);
  return enlargeRows(columns, side, side * scale, scale, false);
}

/**
 * Enlarges `lines` lines of `side` pixels each: down the columns, or along the rows.
 * @type {(channel: ArrayLike<number>, side: number, lines: number, scale: number, isVertical: boolean) => Uint8ClampedArray}
 */
function enlargeRows(channel, side, lines, scale, isVertical) {
  const length = side * scale;
  const enlarged = new Uint8ClampedArray(length * lines);
  // The distances from one pixel of a line to the next, and from one line to the next.
  const [step, next, stepOut, nextOut] = isVertical ? [lines, 1, lines, 1] : [1, side, 1, length];
  for (let at = 0; at < length; at++) {
    const place = (at + 0.5) / scale - 0.5;
    const first = Math.floor(place) - 1;
    for (let line = 0; line < lines; line++) {
      let sum = 0;
      for (let tap = first; tap < first + 4; tap++) {
        const source = Math.min(side - 1, Math.max(0, tap));
        sum += keys(Math.abs(place - tap)) * channel[source * step + line * next];
      }
      enlarged[at * stepOut + line * nextOut] = round(sum);
    }
  }
  return enlarged;
}

/** @type {(x: number) => number} */
export const keys = (x) => (x < 1 ? (1.5 * x - 2.5) * x * x + 1 : ((-0.5 * x + 2.5) * x - 4) * x + 2);

/** @type {(sum: number) => number} */
export const round = (sum) => Math.floor(sum + 0.5); // as Pillow does; arrays of bytes clip
