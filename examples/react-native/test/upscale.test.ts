/** The app's loop over tiles in Node: with bicubic, and with the app's model in LiteRT.js, against Python's pixels. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { runInThisContext } from "node:vm";

import { readMetadata } from "keras-psr/metadata";
import type { TileNetwork } from "keras-psr/strips";
import { mirrored, spans } from "keras-psr/tiling";

import { withFallback, type Network } from "../src/fallback.ts";
import { loadOnce } from "../src/loadOnce.ts";
import { Cancelled, upscale, type Pixels } from "../src/upscale.ts";

const EXAMPLE = fileURLToPath(new URL("../../", import.meta.url)); // this runs in build/test
const CHECKOUT = join(EXAMPLE, "../..");
const PACKAGE = join(EXAMPLE, "node_modules/keras-psr");
const MODEL = join(CHECKOUT, "saved_models/x2-fast/x2-fast_int8.tflite");
const folder = mkdtempSync(join(tmpdir(), "keras-psr-react-native-"));

let photo: Pixels;

before(() => {
  execFileSync(process.env.PYTHON ?? "python3", [join(EXAMPLE, "test/reference.py"), folder], { stdio: "pipe" });
  const name = readdirSync(folder).find((file) => file.startsWith("photo_"))!;
  const [width, height] = name.split("_")[1].split("x").map(Number);
  photo = { data: readFileSync(join(folder, name)), width, height, format: "RGB" };
});

after(() => rmSync(folder, { recursive: true }));

const quiet = { onProgress: () => {}, signal: { aborted: false } };

test("tiles lie where the vectors say, as in Python", () => {
  const { cases, refused } = JSON.parse(readFileSync(join(CHECKOUT, "tests/golden/tiling.json"), "utf8"));
  assert.ok(cases.length > 40 && refused.length > 3);
  for (const { size, spans: expected, mirrored: places, ...geometry } of cases) {
    const received = spans(size, geometry).map(({ start, first, end }) => [start, first, end]);
    assert.deepEqual(received, expected, JSON.stringify({ size, ...geometry }));
    assert.deepEqual([...mirrored(size, geometry)], places);
  }
  for (const geometry of refused) assert.throws(() => spans(10, geometry), RangeError);
});

/** Bicubic in the place of a network; the package has it for opacity, channel by channel. */
async function bicubic(): Promise<TileNetwork> {
  const { enlargeChannel } = await import(`file://${PACKAGE}/src/bicubic.js`);
  const [scale, tile, halo] = [2, 40, 4];
  const side = scale * (tile - 2 * halo);
  return {
    ...{ scale, tile, halo, grid: 1, isQuantized: true },
    async run(colours) {
      const result = new Uint8Array(side * side * 3);
      for (let channel = 0; channel < 3; channel++) {
        const plane = Uint8Array.from({ length: tile * tile }, (_, at) => colours[3 * at + channel]);
        const enlarged = enlargeChannel(plane, tile, scale);
        for (let at = 0; at < side * side; at++) {
          const [y, x] = [Math.floor(at / side) + halo * scale, (at % side) + halo * scale];
          result[3 * at + channel] = enlarged[y * tile * scale + x];
        }
      }
      return result;
    },
  };
}

/** The app's model as LiteRT.js runs it, in Node, which lacks what LiteRT.js loads its WebAssembly with. */
async function litert(): Promise<TileNetwork> {
  const require = createRequire(join(CHECKOUT, "web/package.json"));
  const wasm = join(PACKAGE, "dist/litert/");
  Object.assign(globalThis, {
    ...{ self: globalThis, require, __dirname: wasm },
    importScripts: (path: string) =>
      runInThisContext(`${readFileSync(path, "utf8")}; self.ModuleFactory = ModuleFactory`, { filename: path }),
    Module: { locateFile: (name: string) => wasm + name, printErr: () => {} },
  });
  console.warn = () => {}; // it says that there is no WebGPU
  const { loadLiteRt, loadAndCompile, Tensor } = await import(`file://${require.resolve("@litertjs/core")}`);
  await loadLiteRt(`${wasm}litert_wasm_compat_internal.js`);
  const file = new Uint8Array(readFileSync(MODEL));
  const { scale, tile, halo, grid } = readMetadata(file);
  const model = await loadAndCompile(file, { accelerator: "wasm" });
  return {
    ...{ scale, tile, halo, grid, isQuantized: true },
    async run(colours) {
      const [result] = await model.run([new Tensor(colours, [1, tile, tile, 3])]);
      return result.data();
    },
  };
}

for (const [name, load, most] of [
  ["bicubic", bicubic, 0],
  ["x2-fast_int8", litert, 1], // int8 may differ by a level between processors
] as const) {
  test(`${name} gives Python's pixels`, async () => {
    const { data, width, height, format } = await upscale(photo, await load(), quiet);
    assert.deepEqual([width, height, format], [2 * photo.width, 2 * photo.height, "RGBA"]);
    const expected = readFileSync(join(folder, name));
    assert.equal(expected.length, width * height * 3);
    let largest = 0;
    for (let pixel = 0; pixel < width * height; pixel++) {
      for (let channel = 0; channel < 3; channel++) {
        largest = Math.max(largest, Math.abs(data[4 * pixel + channel] - expected[3 * pixel + channel]));
      }
      assert.equal(data[4 * pixel + 3], 255);
    }
    assert.ok(largest <= most, `${largest} grey levels`);
  });
}

test("the order of bytes is that of the platform's pictures", async () => {
  const network = await bicubic();
  const { data } = await upscale(photo, network, quiet);
  for (const format of ["BGRA", "RGBX", "ARGB", "BGR"]) {
    const bytes = new Uint8Array(photo.width * photo.height * format.length).fill(77);
    for (let pixel = 0; pixel < photo.width * photo.height; pixel++) {
      for (const [channel, colour] of [..."RGB"].entries()) {
        bytes[pixel * format.length + format.indexOf(colour)] = photo.data[3 * pixel + channel];
      }
    }
    assert.deepEqual((await upscale({ ...photo, data: bytes, format }, network, quiet)).data, data, format);
  }
  await assert.rejects(upscale({ ...photo, format: "unknown" }, network, quiet), /8-bit RGB\. Received: unknown/);
});

test("progress grows with each tile, and cancelling ends it within one", async () => {
  const network = await bicubic();
  const shares: number[] = [];
  await upscale(photo, network, { ...quiet, onProgress: (share) => shares.push(share) });
  const tiles = Math.ceil(photo.width / 32) * Math.ceil(photo.height / 32);
  assert.deepEqual(
    shares,
    Array.from({ length: tiles }, (_, index) => (index + 1) / tiles),
  );
  const controller = new AbortController();
  let count = 0;
  const counting = { ...network, run: (colours: Uint8Array | Float32Array) => (count++, network.run(colours)) };
  const onProgress = (share: number) => share >= 3 / tiles && setTimeout(() => controller.abort()); // as a button does
  await assert.rejects(upscale(photo, counting, { onProgress, signal: controller.signal }), Cancelled);
  assert.ok(count <= 4, `${count} tiles`);
});

for (const [what, fail] of [
  ["throws", async () => Promise.reject(new Error("GPU"))],
  ["leaves a tile empty", async (colours: Uint8Array | Float32Array) => colours.map(() => 0)],
] as const) {
  test(`when the GPU ${what}, the CPU takes that tile and the others`, async () => {
    const cpu: Network = { ...(await bicubic()), device: "CPU" };
    let count = 0;
    const run = (colours: Uint8Array | Float32Array) => (++count < 3 ? cpu.run(colours) : fail(colours));
    const network = withFallback({ ...cpu, device: "GPU", run }, async () => cpu);
    assert.deepEqual(await upscale(photo, network, quiet), await upscale(photo, cpu, quiet));
    assert.deepEqual([count, network.device], [3, "CPU"]);
  });
}

test("an even tile, as of a white sky, is no failure of the GPU", async () => {
  const cpu: Network = { ...(await bicubic()), device: "CPU" };
  const network = withFallback({ ...cpu, device: "GPU" }, () => assert.fail("the CPU was loaded"));
  await upscale({ ...photo, data: photo.data.map(() => 255) }, network, quiet);
  assert.equal(network.device, "GPU");
});

test("a network that failed to load is loaded anew at the next need, and then kept", async () => {
  let count = 0;
  const get = loadOnce(async () => (++count === 1 ? Promise.reject(new Error("no memory")) : `network ${count}`));
  const first = await Promise.allSettled([get(), get()]);
  assert.deepEqual(
    first.map(({ status }) => status),
    ["rejected", "rejected"],
  );
  assert.equal(count, 1, "who asks meanwhile waits for the same");
  assert.deepEqual([await get(), await get(), count], ["network 2", "network 2", 2]);
});

test("both files of the app have the same tiles, which their metadata says", () => {
  const [one, other] = ["float16", "int8"].map((variant) =>
    readMetadata(new Uint8Array(readFileSync(MODEL.replace("int8", variant)))),
  );
  assert.deepEqual([one.variant, other.variant, one.scale], ["float16", "int8", 2]);
  assert.deepEqual([one.tile, one.halo, one.grid], [other.tile, other.halo, other.grid]);
});
