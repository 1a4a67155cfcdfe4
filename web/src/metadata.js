/** What keras-psr wrote into a `.tflite` file, read from the flatbuffer: scale, tile, halo and more. */

/**
 * The keys that apps need; docs/deploy.md in keras-psr's repository lists the others.
 * @typedef {object} Metadata
 * @property {string} task `super-resolution` or `style transfer`
 * @property {string} name of the model
 * @property {string} variant the kind of file: `int8`, `float16`, `float32` ...
 * @property {number} scale pixels of the result for each pixel of the picture, along each side; 1 for a style
 * @property {number} tile side of what the network takes, in pixels
 * @property {number} halo pixels at each side of a tile that the result leaves out
 * @property {number} grid tiles begin at multiples of this
 */

// Numbers of the fields in schema.fbs of TFLite.
const MODEL = { buffers: 4, metadata: 6 };
const METADATA = { name: 0, buffer: 1 };
const BUFFER = { data: 0 };

/**
 * Reads a file's metadata.
 * @param {Uint8Array} file
 * @returns {Metadata}
 * @throws {Error} The file is not a `.tflite` that `keras-psr export` made for tiles.
 */
export function readMetadata(file) {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  if (file.length < 8 || text(file, 4, 4) !== "TFL3") throw new Error("The model is not a TFLite file.");
  let found;
  try {
    const model = follow(view, 0);
    const entries = elements(view, field(view, model, MODEL.metadata));
    const entry = entries.find((table) => string(view, file, field(view, table, METADATA.name)) === "keras_psr");
    if (entry === undefined) throw new RangeError("no entry");
    const index = view.getUint32(field(view, entry, METADATA.buffer), true);
    const buffer = elements(view, field(view, model, MODEL.buffers))[index];
    found = JSON.parse(string(view, file, field(view, buffer, BUFFER.data)));
    if (![found.scale, found.halo].every(Number.isInteger)) throw new RangeError("scale or halo");
  } catch {
    throw new Error("The model is damaged, or was not made by `keras-psr export`.");
  }
  if (!Number.isInteger(found.tile)) throw new Error("The model has no tile: export it without --dynamic-shape.");
  return { grid: 1, ...found }; // files that are older than the grid do not have it
}

/**
 * ASCII, which the names and the JSON are; Hermes, of React Native, has no TextDecoder.
 * @type {(file: Uint8Array, start: number, length: number) => string}
 */
const text = (file, start, length) =>
  Array.from(file.subarray(start, start + length), (byte) => String.fromCharCode(byte)).join("");

/**
 * Where an offset that is stored at `place` points to.
 * @type {(view: DataView, place: number) => number}
 */
const follow = (view, place) => place + view.getUint32(place, true);

/**
 * Where a field of a table is stored.
 * @type {(view: DataView, table: number, number: number) => number}
 */
function field(view, table, number) {
  const vtable = table - view.getInt32(table, true);
  const entry = 4 + 2 * number;
  const offset = entry < view.getUint16(vtable, true) ? view.getUint16(vtable + entry, true) : 0;
  if (!offset) throw new RangeError(`field ${number} is missing`);
  return table + offset;
}

/**
 * The tables of a vector of tables.
 * @type {(view: DataView, place: number) => number[]}
 */
function elements(view, place) {
  const vector = follow(view, place);
  return Array.from({ length: view.getUint32(vector, true) }, (_, index) => follow(view, vector + 4 + 4 * index));
}

/**
 * A string, or a vector of bytes as one.
 * @type {(view: DataView, file: Uint8Array, place: number) => string}
 */
function string(view, file, place) {
  const vector = follow(view, place);
  return text(file, vector + 4, view.getUint32(vector, true));
}
