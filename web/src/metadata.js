/** What keras-psr wrote into a `.tflite` file, read from the flatbuffer: scale, tile, halo and more. */

// Numbers of the fields in schema.fbs of TFLite.
const MODEL = { buffers: 4, metadata: 6 };
const METADATA = { name: 0, buffer: 1 };
const BUFFER = { data: 0 };

/**
 * @param {Uint8Array} file
 * @returns {{task: string, scale: number, tile: number, halo: number, variant: string}}
 */
export function readMetadata(file) {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  if (file.length < 8 || text(file, 4, 4) !== "TFL3") throw new Error("The model is not a TFLite file.");
  try {
    const model = follow(view, 0);
    const entries = elements(view, field(view, model, MODEL.metadata));
    const entry = entries.find((table) => string(view, file, field(view, table, METADATA.name)) === "keras_psr");
    const index = view.getUint32(field(view, entry, METADATA.buffer), true);
    const buffer = elements(view, field(view, model, MODEL.buffers))[index];
    const found = JSON.parse(string(view, file, field(view, buffer, BUFFER.data)));
    if (![found.scale, found.tile, found.halo].every(Number.isInteger)) throw new RangeError("scale, tile or halo");
    return found;
  } catch {
    throw new Error("The model is damaged, or was not made by `keras-psr export`.");
  }
}

const text = (file, start, length) => new TextDecoder().decode(file.subarray(start, start + length));

/** Where an offset that is stored at `place` points to. */
const follow = (view, place) => place + view.getUint32(place, true);

/** Where a field of a table is stored. */
function field(view, table, number) {
  const vtable = table - view.getInt32(table, true);
  const entry = 4 + 2 * number;
  const offset = entry < view.getUint16(vtable, true) ? view.getUint16(vtable + entry, true) : 0;
  if (!offset) throw new RangeError(`field ${number} is missing`);
  return table + offset;
}

/** The tables of a vector of tables. */
function elements(view, place) {
  const vector = follow(view, place);
  return Array.from({ length: view.getUint32(vector, true) }, (_, index) => follow(view, vector + 4 + 4 * index));
}

/** A string, or a vector of bytes as one. */
function string(view, file, place) {
  const vector = follow(view, place);
  return text(file, vector + 4, view.getUint32(vector, true));
}
