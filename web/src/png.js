/** A PNG written strip by strip, so that no canvas limits its size and no copy of the picture is kept. */

import { Deflate, Z_FILTERED } from "pako";

/** As in Python. The browser's CompressionStream knows only level 6: files 6% smaller, in twice the time. */
const LEVEL = 4;

const SIGNATURE = Uint8Array.of(137, 80, 78, 71, 13, 10, 26, 10);
const COLOUR = { 3: 2, 4: 6 }; // RGB and RGBA, by channels
const PAETH = 4;

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, crc) => {
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  return crc;
});

export class PngWriter {
  /** @param {3|4} channels of 8 bits: RGB, or RGBA not premultiplied */
  constructor(width, height, channels) {
    const header = new DataView(new ArrayBuffer(13));
    header.setUint32(0, width);
    header.setUint32(4, height);
    header.setUint8(8, 8);
    header.setUint8(9, COLOUR[channels]);
    this.channels = channels;
    this.above = new Uint8Array(width * channels);
    this.parts = [SIGNATURE, chunk("IHDR", new Uint8Array(header.buffer))];
    this.compressor = new Deflate({ level: LEVEL, strategy: Z_FILTERED });
    this.compressor.onData = (part) => this.parts.push(new Blob([chunk("IDAT", part)])); // kept outside the heap
  }

  /** Adds whole rows, from the top. */
  write(pixels) {
    this.compressor.push(this.filter(pixels));
  }

  /** @returns {Blob} */
  finish() {
    this.compressor.push(new Uint8Array(), true);
    return new Blob([...this.parts, chunk("IEND", new Uint8Array())], { type: "image/png" });
  }

  /** Each byte minus whichever of left, above and corner is nearest to left + above - corner (PNG, section 9.4). */
  filter(pixels) {
    const stride = this.above.length;
    const filtered = new Uint8Array(pixels.length + pixels.length / stride);
    for (let start = 0, at = 0; start < pixels.length; start += stride) {
      const row = pixels.subarray(start, start + stride);
      filtered[at++] = PAETH;
      for (let x = 0; x < stride; x++) {
        const left = x < this.channels ? 0 : row[x - this.channels];
        const corner = x < this.channels ? 0 : this.above[x - this.channels];
        const above = this.above[x];
        const toLeft = Math.abs(above - corner);
        const toAbove = Math.abs(left - corner);
        const toCorner = Math.abs(left + above - 2 * corner);
        const nearest = toLeft <= toAbove && toLeft <= toCorner ? left : toAbove <= toCorner ? above : corner;
        filtered[at++] = row[x] - nearest;
      }
      this.above = row;
    }
    this.above = this.above.slice(); // not a view that keeps the strip alive
    return filtered;
  }
}

function chunk(name, content) {
  const bytes = new Uint8Array(12 + content.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, content.length);
  bytes.set(new TextEncoder().encode(name), 4);
  bytes.set(content, 8);
  let crc = -1;
  for (let at = 4; at < bytes.length - 4; at++) crc = CRC_TABLE[(crc ^ bytes[at]) & 255] ^ (crc >>> 8);
  view.setUint32(bytes.length - 4, ~crc);
  return bytes;
}
