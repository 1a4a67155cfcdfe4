/** Says where tiles lie, by the rule of keras_psr/images/tiling.py, whose docstrings explain it. */

/**
 * How a network's tiles lie, in pixels of the picture; a file's metadata has it.
 * @typedef {{tile: number, halo: number, grid: number}} Geometry
 */

/**
 * The tiles along one side of a picture; what they keep follows one another without a gap.
 * @param {number} size pixels of that side
 * @param {Geometry} geometry
 * @returns {{start: number, first: number, end: number}[]} `start` is the first pixel that a tile reads, counted in the
 *   picture extended by `halo` and a multiple of `grid`; the picture's pixels from `first` to before `end` are kept.
 */
export function spans(size, { tile, halo, grid }) {
  const step = tile - 2 * halo;
  if (step < 1 || tile % grid) {
    const multiple = grid > 1 ? `a multiple of ${grid} and ` : "";
    throw new RangeError(`The model's tile, ${tile}, must be ${multiple}larger than twice its halo, ${halo}.`);
  }
  const last = Math.max(0, ceil(size, grid) - step);
  const result = [];
  for (let first = 0; first < size; first = result[result.length - 1].end) {
    const start = Math.min(result.length * step, last);
    result.push({ start, first, end: Math.min(size, start + step) });
  }
  return result;
}

/**
 * The pixel of the picture that stands at each place of the one extended by mirroring, a tile long at least.
 * @param {number} size pixels of one side
 * @param {Geometry} geometry
 */
export function mirrored(size, { tile, halo, grid }) {
  const length = Math.max(ceil(size, grid) + 2 * halo, tile);
  return Int32Array.from({ length }, (_, place) => mirror(place - halo, size));
}

/**
 * The pixel that a place along a side shows, inside the picture or outside it, if the picture is mirrored at its
 * borders.
 * @type {(place: number, size: number) => number}
 */
export function mirror(place, size) {
  const phase = ((place % (2 * size)) + 2 * size) % (2 * size);
  return Math.min(phase, 2 * size - 1 - phase);
}

/** @type {(size: number, grid: number) => number} */
const ceil = (size, grid) => Math.ceil(size / grid) * grid;
