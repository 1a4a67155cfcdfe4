/** Chooses the size of live pictures, so that they come fast enough. */

import { spans } from "keras-psr/tiling";

/** Seconds that a picture may take: 10 a second, with something to spare. */
const MOST_SECONDS = 1 / 11;
/** A larger size is taken if it would need less than this share of that time, so that the size does not swing. */
const SHARE_TO_GROW = 0.85;
/** Weight of the latest picture in the mean time of a tile. */
const WEIGHT = 0.2;
const MOST_TILES = 40;
/** Longer side of a result in pixels; a display does not show more. */
const LONGEST = 1920;

/**
 * The largest sizes that fit into 1, 2, 3 ... tiles, from the smallest.
 * @param {number} aspect width over height
 * @param {number} widest width of the camera's pictures in pixels
 * @returns {{width: number, height: number, tiles: number}[]} with even sides, as codecs require
 */
export function liveSizes(aspect, widest, network) {
  const step = network.tile - 2 * network.halo;
  const most = Math.min(widest, (LONGEST / network.scale) * Math.min(1, aspect));
  const largest = new Map(); // by the number of tiles
  for (let steps = 1; steps <= MOST_TILES; steps++) {
    for (const wanted of [steps * step, steps * step * aspect]) {
      const width = even(Math.min(wanted, most));
      const height = even(width / aspect);
      const tiles = spans(width, network).length * spans(height, network).length;
      if (tiles <= MOST_TILES && width > (largest.get(tiles)?.width ?? 0)) largest.set(tiles, { width, height, tiles });
    }
  }
  const sizes = [...largest.values()].sort((one, other) => one.tiles - other.tiles);
  return sizes.filter(({ width }, index) => sizes.slice(0, index).every((smaller) => smaller.width < width));
}

const even = (side) => Math.max(2, 2 * Math.floor(side / 2));

/** Chooses among these sizes by how long pictures took. */
export class Pace {
  constructor(sizes) {
    this.sizes = sizes;
    this.index = 0;
    this.perTile = 0;
    this.isFixed = false; // while a clip is recorded, whose size cannot change
  }

  get size() {
    return this.sizes[this.index];
  }

  /** Notes how long a picture of the current size took, and adapts the size. */
  notice(seconds) {
    const latest = seconds / this.size.tiles;
    this.perTile = this.perTile ? (1 - WEIGHT) * this.perTile + WEIGHT * latest : latest;
    if (this.isFixed) return;
    const takes = (index) => this.perTile * this.sizes[index].tiles;
    if (takes(this.index) > MOST_SECONDS) {
      while (this.index > 0 && takes(this.index) > MOST_SECONDS) this.index--;
    } else if (this.index + 1 < this.sizes.length && takes(this.index + 1) < MOST_SECONDS * SHARE_TO_GROW) {
      this.index++;
    }
  }
}
