/** The modules that repeat Python code, against Python. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { PNG } from "pngjs";

import { describeCompression, readCompression } from "../page/compression.js";
import { enlargeChannel } from "../src/bicubic.js";
import { readMetadata } from "../src/metadata.js";
import { PngWriter } from "../src/png.js";
import { Resizer } from "../src/resizer.js";
import { mirrored, spans } from "../src/tiling.js";
import { makeFolder, reference } from "./support.js";

const folder = makeFolder();
reference("bicubic", `${folder}/bicubic.json`);
const { channel, enlarged, picture, resized } = JSON.parse(readFileSync(`${folder}/bicubic.json`));

test("tiles lie where the vectors say, as in Python", () => {
  const vectors = new URL("../../tests/golden/tiling.json", import.meta.url);
  const { cases, refused } = JSON.parse(readFileSync(vectors));
  assert.ok(cases.length > 40 && refused.length > 3);
  for (const { size, spans: expected, mirrored: places, ...network } of cases) {
    const received = spans(size, network).map(({ start, first, end }) => [start, first, end]);
    assert.deepEqual(received, expected, JSON.stringify({ size, ...network }));
    assert.deepEqual([...mirrored(size, network)], places);
  }
  for (const network of refused) assert.throws(() => spans(10, network), /larger than twice its halo/);
});

test("opacity is enlarged as by Python, but at the border", () => {
  for (const [factor, expected] of Object.entries(enlarged)) {
    const [scale, side] = [Number(factor), 20 * factor];
    const received = enlargeChannel(Uint8Array.from(channel), 20, scale);
    assert.equal(received.length, expected.length);
    for (let y = 2 * scale; y < side - 2 * scale; y++) {
      for (let x = 2 * scale; x < side - 2 * scale; x++) {
        assert.equal(received[y * side + x], expected[y * side + x], `×${scale} at ${x}, ${y}`);
      }
    }
  }
});

test("how files were compressed is found as by Python", () => {
  reference("compressions", `${folder}/compressions.json`);
  const rows = JSON.parse(readFileSync(`${folder}/compressions.json`));
  assert.ok(rows.length > 110);
  for (const [index, { content, expected }] of rows.entries()) {
    const file = new Uint8Array(Buffer.from(content, "base64"));
    if (expected) {
      const { kind, has_artefacts: hasArtefacts, quality } = expected;
      assert.deepEqual(readCompression(file), { kind, hasArtefacts, quality }, `file ${index}`);
    } else {
      const found = attempt(() => readCompression(file)); // browsers do not show such files
      assert.ok(found instanceof Error || typeof found.hasArtefacts === "boolean", `file ${index}`);
    }
  }
  assert.deepEqual(readCompression(new Uint8Array()), { kind: "file", hasArtefacts: false, quality: null });
});

const attempt = (code) => {
  try {
    return code();
  } catch (error) {
    return error;
  }
};

test("HEIC, which some browsers show, is lossy", () => {
  const head = "\0\0\0\x18ftypheic\0\0\0\0mif1heic";
  const file = Uint8Array.from(head, (letter) => letter.charCodeAt(0));
  assert.deepEqual(readCompression(file), { kind: "HEIC", hasArtefacts: true, quality: null });
});

test("what was found is said in a few words", () => {
  assert.equal(describeCompression({ kind: "JPEG", quality: 73 }), "JPEG of quality 73");
  assert.equal(describeCompression({ kind: "lossless WebP", quality: null }), "lossless WebP");
});

for (const [height, width, expected] of resized) {
  test(`a picture of 31 × 23 is resized to ${width} × ${height} as by Python, in strips of any height`, () => {
    for (const rows of [1, 5, 23]) {
      const resizer = new Resizer({ width: 31, height: 23 }, { width, height }, 3);
      const received = [];
      for (let top = 0; top < 23; top += rows) {
        received.push(...resizer.write(Uint8Array.from(picture.slice(top * 93, (top + rows) * 93))));
      }
      assert.equal(received.length, expected.length);
      const differences = received.map((value, at) => Math.abs(value - expected[at]));
      assert.ok(Math.max(...differences) <= 1);
      assert.ok(differences.filter(Boolean).length < 0.01 * expected.length, "Pillow's weights have 22 bits");
    }
  });
}

for (const channels of [3, 4]) {
  test(`a PNG of ${channels} channels written in strips reads back`, async () => {
    const [width, height] = [37, 23];
    const pixels = Uint8Array.from({ length: width * height * channels }, (_, at) => (at * at * 7 + (at >> 3)) % 256);
    const writer = new PngWriter(width, height, channels);
    for (const [top, end] of [
      [0, 1],
      [1, 16],
      [16, 23],
    ]) {
      await writer.write(pixels.subarray(top * width * channels, end * width * channels));
    }
    const blob = await writer.finish();
    assert.equal(blob.type, "image/png");
    const image = PNG.sync.read(Buffer.from(await blob.arrayBuffer()), { checkCRC: true });
    assert.deepEqual([image.width, image.height], [width, height]);
    for (let at = 0; at < width * height; at++) {
      const expected = [...pixels.subarray(at * channels, (at + 1) * channels), 255].slice(0, 4);
      assert.deepEqual([...image.data.subarray(at * 4, at * 4 + 4)], expected);
    }
  });
}

const file = new Uint8Array(readFileSync(new URL("../../saved_models/x4/x4_int8.tflite", import.meta.url)));

test("the metadata of a file is read", () => {
  const { task, scale, variant, tile, halo } = readMetadata(file);
  assert.deepEqual({ task, scale, variant }, { task: "super-resolution", scale: 4, variant: "int8" });
  assert.ok(tile > 2 * halo && halo > 0);
});

test("files without metadata, or cut off, are refused in words", () => {
  assert.throws(() => readMetadata(new Uint8Array()), /not a TFLite file/);
  assert.throws(() => readMetadata(new TextEncoder().encode("Dear reader,\n")), /not a TFLite file/);
  for (const length of [8, 20, 1000, file.length >> 1]) {
    assert.throws(() => readMetadata(file.slice(0, length)), /damaged, or was not made by/, `${length}`);
  }
});
