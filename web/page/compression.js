/** How a file was compressed, and whether that left artefacts: `images/compression.py`, for what browsers show. */

/** JPEGs of at least this quality count as clean. */
const CLEAN_QUALITY = 90;

/** The quantisation table for luma that the IJG's encoder scales by quality (ITU-T T.81, table K.1). */
const LUMA_STEPS = [
  [16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55],
  [14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62],
  [18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92],
  [49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99],
].flat();

/** Brands of the formats whose headers do not say whether detail was lost. */
const ALWAYS_LOSSY = {
  AVIF: ["avif", "avis"],
  HEIC: ["heic", "heix", "hevc", "heim", "heis", "hevx", "mif1", "msf1"],
};

const SIGNATURES = { "\x89PNG": "PNG", GIF8: "GIF", BM: "BMP", "II*\0": "TIFF", "MM\0*": "TIFF" };

/**
 * @param {Uint8Array} file
 * @returns {{kind: string, hasArtefacts: boolean, quality: ?number}} `quality` is known only for a JPEG with tables
 */
export function readCompression(file) {
  if (file[0] === 0xff && file[1] === 0xd8) return readJpeg(file);
  if (text(file, 0, 4) === "RIFF" && text(file, 8, 12) === "WEBP") {
    const isLossy = isLossyWebp(file);
    return { kind: isLossy ? "lossy WebP" : "lossless WebP", hasArtefacts: isLossy, quality: null };
  }
  const kind = findBrand(file) ?? findSignature(file);
  return { kind, hasArtefacts: kind in ALWAYS_LOSSY, quality: null };
}

/** `JPEG of quality 73`, `lossless WebP`. */
export const describeCompression = ({ kind, quality }) => kind + (quality ? ` of quality ${quality}` : "");

const text = (file, start, end) => String.fromCharCode(...file.subarray(start, end));
const viewOf = (file) => new DataView(file.buffer, file.byteOffset, file.byteLength);

function findBrand(file) {
  if (text(file, 4, 8) !== "ftyp") return null;
  const places = Array.from({ length: Math.min(16, viewOf(file).getUint32(0) >> 2) }, (_, index) => 4 * index).slice(2);
  const brands = places.map((start) => text(file, start, start + 4));
  return Object.keys(ALWAYS_LOSSY).find((kind) => brands.some((brand) => ALWAYS_LOSSY[kind].includes(brand)));
}

const findSignature = (file) =>
  Object.entries(SIGNATURES).find(([beginning]) => text(file, 0, beginning.length) === beginning)?.[1] ?? "file";

/** Markers among those of frames that do not begin a frame. */
const TABLES = [0xc4, 0xc8, 0xcc];

/** Reads the segments before the pixels: quantisation tables (0xdb), and which of them the frame takes for luma. */
function readJpeg(file) {
  const view = viewOf(file);
  const sums = {};
  let luma = null;
  for (let at = 2; at + 4 <= file.length; ) {
    const marker = file[at + 1];
    if (file[at] !== 0xff || marker === 0xff) at += 1; // to the next marker, before which there may be several 0xff
    else if (marker < 0xc0 || (marker >= 0xd0 && marker <= 0xd8)) at += 2; // these have no length
    else if (marker === 0xd9 || marker === 0xda) break;
    else {
      const end = at + 2 + view.getUint16(at + 2);
      if (marker === 0xdb) Object.assign(sums, sumTables(file.subarray(at + 4, end)));
      if (marker < 0xd0 && !TABLES.includes(marker)) luma = file[at + 12]; // a frame
      at = end;
    }
  }
  const quality = luma in sums ? estimateQuality(sums[luma]) : null;
  return { kind: "JPEG", hasArtefacts: quality === null || quality < CLEAN_QUALITY, quality };
}

/** The sum of each table in a segment, by its number; a table has 64 steps of one or two bytes. */
function sumTables(segment) {
  const sums = {};
  for (let at = 0; at < segment.length; ) {
    const bytes = segment[at] >> 4 ? 2 : 1;
    const steps = segment.subarray(at + 1, at + 1 + 64 * bytes);
    if (steps.length === 64 * bytes) {
      sums[segment[at] & 15] = steps.reduce((sum, byte, place) => sum + byte * (bytes - (place % bytes) > 1 ? 256 : 1), 0);
    }
    at += 1 + 64 * bytes;
  }
  return sums;
}

/** The quality at which the luma table of the IJG's encoder has the closest sum. */
function estimateQuality(sum) {
  const distances = Array.from({ length: 100 }, (_, index) => Math.abs(sumOfQuality(100 - index) - sum));
  return 100 - distances.indexOf(Math.min(...distances));
}

function sumOfQuality(quality) {
  const percent = quality < 50 ? Math.floor(5000 / quality) : 200 - 2 * quality;
  const steps = LUMA_STEPS.map((step) => Math.floor((step * percent + 50) / 100));
  return steps.reduce((sum, step) => sum + Math.min(Math.max(step, 1), 255), 0);
}

/** Whether any picture is in a `VP8 ` chunk, which is lossy; `VP8L` chunks are lossless (RFC 9649, section 2). */
function isLossyWebp(file) {
  const view = viewOf(file);
  let isLossless = false;
  for (let at = 12; at + 8 <= file.length; ) {
    const name = text(file, at, at + 4);
    if (name === "VP8 ") return true;
    isLossless ||= name === "VP8L";
    const size = view.getUint32(at + 4, true);
    // Each frame of an animation begins with 16 bytes; its chunks follow. Chunks have an even length.
    at += 8 + (name === "ANMF" ? 16 : size + (size % 2));
  }
  if (!isLossless) throw new Error("The WebP holds no picture.");
  return false;
}
