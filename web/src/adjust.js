/** What `keras-psr stylize --strength --preserve-colors` does to a painted tile or strip, as keras_psr does it. */

/** BT.601 luma of RGB: keras_psr.constants.LUMA_WEIGHTS, divided by their sum. */
const LUMA = [65.481, 128.553, 24.966].map((weight) => weight / 219);

/** @typedef {Uint8Array|Uint8ClampedArray|Float32Array} Pixels */

/**
 * @param {Pixels} painted RGB without the halo; clipping brings it into [0, 255]
 * @param {Pixels} photo RGB with the halo
 * @param {{width: number, height: number, halo: number}} size of the photo, with the halo on each side
 * @param {{strength: number, preserveColors: boolean}} adjustment the share of the painting (the rest is the
 *   photo), and whether only brightness is painted
 * @returns {Pixels} RGB without the halo: `painted` itself if nothing is adjusted
 */
export function adjust(painted, photo, { width, height, halo }, { strength, preserveColors }) {
  if (strength === 1 && !preserveColors) return painted;
  const adjusted = new Uint8ClampedArray(painted.length);
  const mixed = new Uint8ClampedArray(3); // which clips, and rounds half to even
  for (let y = halo, at = 0; y < height - halo; y++) {
    for (let x = halo; x < width - halo; x++, at += 3) {
      const from = (y * width + x) * 3;
      for (let channel = 0; channel < 3; channel++) {
        const paint = Math.min(255, Math.max(0, painted[at + channel]));
        mixed[channel] = strength * paint + (1 - strength) * photo[from + channel];
      }
      if (!preserveColors) {
        adjusted.set(mixed, at);
        continue;
      }
      const change = LUMA.reduce((sum, weight, channel) => sum + weight * (mixed[channel] - photo[from + channel]), 0);
      for (let channel = 0; channel < 3; channel++) adjusted[at + channel] = photo[from + channel] + change;
    }
  }
  return adjusted;
}
