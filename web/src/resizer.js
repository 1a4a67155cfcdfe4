/** Resizes pictures while their rows come in. */

import { keys, round } from "./bicubic.js";
import { mirror } from "./tiling.js";

/**
 * Resizes a picture while its rows come in, as keras_psr.images.pixels.resize_bicubic does: antialiased, mirrored at
 * the borders, columns first, 8 bits between the passes. It holds only a few rows.
 */
export class Resizer {
  /** @param {{width: number, height: number}} given, wanted sizes; `channels` are bytes per pixel */
  constructor(given, wanted, channels) {
    this.columns = findTaps(given.width, wanted.width);
    this.rows = findTaps(given.height, wanted.height);
    this.channels = channels;
    this.stride = given.width * channels;
    this.given = 0; // rows so far
    this.finished = 0;
    this.sums = []; // sums of the unfinished rows, from the top
  }

  /**
   * @param {Uint8Array|Uint8ClampedArray} strip the next whole rows
   * @returns {Uint8ClampedArray} the rows that are finished with them
   */
  write(strip) {
    const finished = [];
    for (let start = 0; start < strip.length; start += this.stride, this.given++) {
      this.#add(strip, start);
      while (this.sums.length && this.rows[this.finished].end === this.given + 1) {
        finished.push(this.#finish(this.sums.shift()));
        this.finished++;
      }
    }
    const length = this.columns.length * this.channels;
    const result = new Uint8ClampedArray(finished.length * length);
    finished.forEach((row, at) => result.set(row, at * length));
    return result;
  }

  /** Adds one row to all rows of the result that depend on it. */
  #add(strip, start) {
    for (let row = this.finished; row < this.rows.length && this.rows[row].first <= this.given; row++) {
      const sums = (this.sums[row - this.finished] ??= new Float64Array(this.stride));
      const weight = this.rows[row].weights[this.given - this.rows[row].first] ?? 0;
      if (weight) for (let at = 0; at < this.stride; at++) sums[at] += weight * strip[start + at];
    }
  }

  #finish(sums) {
    const { channels, columns } = this;
    const row = Uint8ClampedArray.from(sums, round);
    const finished = new Uint8ClampedArray(columns.length * channels);
    for (let x = 0, to = 0; x < columns.length; x++) {
      const { first, weights } = columns[x];
      for (let channel = 0; channel < channels; channel++) {
        let sum = 0;
        for (let tap = 0, at = first * channels + channel; tap < weights.length; tap++, at += channels) {
          sum += weights[tap] * row[at];
        }
        finished[to++] = round(sum);
      }
    }
    return finished;
  }
}

/**
 * For each pixel along a side of the result: the given pixels of which it is the weighted mean, from `first` to before
 * `end`.
 */
function findTaps(size, resized) {
  const stretch = Math.max(1, size / resized);
  return Array.from({ length: resized }, (_, at) => {
    const place = ((at + 0.5) * size) / resized - 0.5;
    const weights = new Map();
    for (let tap = Math.ceil(place - 2 * stretch); tap <= Math.floor(place + 2 * stretch); tap++) {
      const weight = Math.abs(place - tap) < 2 * stretch ? keys(Math.abs(place - tap) / stretch) : 0;
      const source = mirror(tap, size);
      weights.set(source, (weights.get(source) ?? 0) + weight);
    }
    const sources = [...weights.keys()].sort((one, other) => one - other);
    const sum = sources.reduce((total, source) => total + weights.get(source), 0);
    const [first, end] = [sources[0], sources.at(-1) + 1];
    return {
      first,
      end,
      weights: Float64Array.from({ length: end - first }, (_, tap) => (weights.get(first + tap) ?? 0) / sum),
    };
  });
}
