/** What `keras-psr stylize --strength --preserve-colors` does to a painted tile, as keras_psr does it. */

/** BT.601 luma of RGB: keras_psr.constants.LUMA_WEIGHTS, divided by their sum. */
const LUMA = [65.481, 128.553, 24.966].map((weight) => weight / 219);

/**
 * @param {Uint8Array|Float32Array} painted RGB of a tile without its halo, in [0, 255] but for what clipping takes off
 * @param {Uint8Array|Float32Array} photo RGB of the tile with its halo
 * @param {{tile: number, halo: number}} network one that does not enlarge
 * @param {{strength: number, preserveColors: boolean}} adjustment the share of the painting, the rest is the photo; and
 *   whether only brightness is painted
 * @returns {Uint8ClampedArray} RGB without the halo
 */
export function adjust(painted, photo, { tile, halo }, { strength, preserveColors }) {
  const side = tile - 2 * halo;
  const adjusted = new Uint8ClampedArray(painted.length);
  const mixed = new Uint8ClampedArray(3); // which clips, and rounds half to even
  for (let y = 0, at = 0; y < side; y++) {
    for (let x = 0; x < side; x++, at += 3) {
      const from = ((y + halo) * tile + x + halo) * 3;
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

/** @param {{strength: number, preserveColors: boolean}} adjustment */
export const changes = ({ strength, preserveColors }) => strength < 1 || preserveColors;
