/** The package as npm packs it, in a project that knows nothing else, in Chromium: what it gives is compared with Python's. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, afterEach, before } from "node:test";
import { fileURLToPath } from "node:url";
import { PNG } from "pngjs";

import { whyNot } from "./browsers.js";
import {
  countTiles,
  difference,
  makeFolder,
  readPng,
  reference,
  SCREENSHOTS,
  startChromium,
  startServer,
  testUnless,
  withFiles,
} from "./support.js";

const skip = whyNot("chromium");
const test = testUnless(skip);

const PACKAGE = fileURLToPath(new URL("..", import.meta.url));
const MODELS = fileURLToPath(new URL("../../saved_models", import.meta.url));
const folder = makeFolder();
const at = (...names) => join(folder, ...names);

const readJson = (path) => JSON.parse(readFileSync(path));
const { devDependencies, version } = readJson(join(PACKAGE, "package.json"));
const readme = readFileSync(join(PACKAGE, "README.md"), "utf8");
const listing = (name) => readme.match(new RegExp(`<!-- ${name} -->\\n` + "```js\\n(.*?)```", "s"))[1];
const run = (program, args, cwd) => execFileSync(program, args, { cwd, encoding: "utf8", stdio: "pipe" });

/** TypeScript of a user; it is checked, and the browser runs it. */
const CHECK = `
import { hasThreads, Upscaler, type UpscaleResult } from "keras-psr";
import { readMetadata, type Metadata } from "keras-psr/metadata";
import { spans } from "keras-psr/tiling";

export async function enlarge(file: File, canvas: OffscreenCanvas, signal: AbortSignal): Promise<UpscaleResult> {
  const upscaler = await Upscaler.load(new URL("x4-fast_int8.tflite", location.href), { device: "cpu", signal });
  const pixels: ImageData = await upscaler.upscalePixels(canvas, { onProgress: ({ done, total }) => done / total });
  const facts: Metadata = upscaler.metadata;
  const device: "gpu" | "cpu" = upscaler.device;
  console.log(pixels.width, facts.variant, device, upscaler.threads + upscaler.scale, hasThreads(), spans(9, facts));
  upscaler.close();
  // @ts-expect-error
  await Upscaler.load("x4.tflite", { device: "npu" });
  // @ts-expect-error
  await upscaler.upscale("photo.png");
  // @ts-expect-error
  await upscaler.upscale(file, { strength: "half" });
  // @ts-expect-error
  new Upscaler();
  return await upscaler.upscale(file, { strength: 0.5, preserveColors: true });
}

Object.assign(globalThis, { Upscaler, readMetadata });
`;

const PAGE = (script) => `<!doctype html>
<title>A stranger's page</title>
<input type="file"><progress max="1"></progress><button>Cancel</button><img alt="">
${script}`;

let browser, packed;
let page, errors;

before(() => {
  if (skip) return;
  reference("pictures", folder);
  reference("models", folder);
  for (const name of ["odd", "disc"]) {
    reference("upscaled", join(MODELS, "x4-fast/x4-fast_int8.tflite"), at(`${name}.png`), at(`${name}_x4.png`));
  }
  const output = run("npm", ["pack", "--json", "--pack-destination", folder], PACKAGE);
  [packed] = JSON.parse(output.match(/^\[$[^]*/m)[0]); // before it are the lines of the build
  for (const name of ["src", "public"]) mkdirSync(at("project", name), { recursive: true });
  writeFileSync(at("project", "package.json"), '{ "name": "project", "private": true, "type": "module" }');
  const tools = ["vite", "typescript"].map((name) => `${name}@${devDependencies[name]}`);
  run("npm", ["install", "--no-audit", "--no-fund", "--prefer-offline", ...tools, at(packed.filename)], at("project"));
  writeFileSync(at("project", "src/main.js"), listing("main.js"));
  writeFileSync(at("project", "src/check.ts"), CHECK);
  writeFileSync(at("project", "vite.config.js"), listing("vite.config.js"));
  writeFileSync(at("project", "index.html"), PAGE('<script type="module" src="src/main.js"></script>'));
  writeFileSync(at("project", "check.html"), PAGE('<script type="module" src="src/check.ts"></script>'));
  for (const name of ["x4-fast_int8", "x2-fast_float32", "x4-photo_float32"]) {
    const file = `${name}.tflite`;
    copyFileSync(join(MODELS, name.replace(/_.*/, ""), file), at("project/public", file));
  }
  for (const name of ["soft-lines_float32.tflite", "odd.png", "disc.png", "large.png", "cut off.png"]) {
    copyFileSync(at(name), at("project/public", name));
  }
});

before(async () => {
  if (!skip) browser = await startChromium();
});

afterEach(async () => {
  await page?.context().close();
  page = undefined;
});

after(() => browser?.close());

/** Opens a page; `errors` holds what went wrong in it since. */
async function open(address) {
  errors = [];
  page = await browser.newPage();
  await page.addInitScript(countTiles);
  await page.addInitScript(makeEncode);
  page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
  page.on("pageerror", (error) => errors.push(error.message));
  await page.route("**/favicon.ico", (route) => route.fulfill({ status: 204 }));
  await page.goto(address);
}

/** Makes Blobs texts; runs in the page. */
function makeEncode() {
  globalThis.encode = async (blob) => {
    const bytes = new Uint8Array(await blob.arrayBuffer());
    return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
  };
}

/** Starts one of Vite's servers for the project, on any free port. */
const startVite = (...args) =>
  startServer(at("project/node_modules/.bin/vite"), [...args, "--port", "0"], { cwd: at("project") });

async function withVite(args, code) {
  const { address, stop } = await startVite(...args);
  try {
    await code(address);
  } finally {
    await stop();
  }
}

/** Uses the page of the README, and gives what its image shows. */
async function useListing(address) {
  await open(address);
  await page.waitForFunction(() => document.querySelector("input").onchange);
  await page.setInputFiles("input", at("odd.png"));
  await page.waitForFunction(() => document.querySelector("img").naturalWidth, null, { timeout: 60_000 });
  assert.equal(await page.evaluate(() => document.querySelector("progress").value), 1);
  const content = await page.evaluate(async () =>
    encode(await (await fetch(document.querySelector("img").src)).blob()),
  );
  assert.deepEqual(errors, []);
  return decode(content);
}

const decode = (base64) => PNG.sync.read(Buffer.from(base64, "base64"));

function assertPythons(image, name) {
  const expected = readPng(at(`${name}_x4.png`));
  assert.deepEqual([image.width, image.height], [expected.width, expected.height]);
  const most = difference(image, expected.data, 4);
  assert.ok(most <= 1, `${most} grey levels`);
}

test("the package holds what it says, under the version of the Python package", () => {
  const names = packed.files.map(({ path }) => path);
  for (const name of ["LICENSE", "NOTICE", "README.md", "dist/worker.js", "dist/pako-LICENSE.txt"]) {
    assert.ok(names.includes(name), name);
  }
  assert.deepEqual(
    names.filter((name) => /test|page|node_modules|map$/.test(name)),
    [],
  );
  const { exports, license } = readJson(at("project/node_modules/keras-psr/package.json"));
  for (const path of Object.values(exports).flatMap((target) => Object.values(target))) {
    if (path.length > 1) assert.ok(names.includes(path.slice(2)), path);
  }
  assert.equal(license, "Apache-2.0");
  const licence = readFileSync(new URL("../../LICENSE", import.meta.url), "utf8");
  assert.equal(readFileSync(at("project/node_modules/keras-psr/LICENSE"), "utf8"), licence);
  const python = readFileSync(new URL("../../keras_psr/__init__.py", import.meta.url), "utf8");
  assert.equal(python.match(/__version__ = "(.*)"/)[1], version);
  assert.ok(packed.size < 10e6, `${packed.size} bytes`);
});

test("a user's TypeScript is checked: right uses pass, wrong ones do not", () => {
  const options = "--noEmit --strict --target es2022 --module esnext --moduleResolution bundler --lib es2022,dom";
  run("npx", ["tsc", ...options.split(" "), "src/check.ts"], at("project"));
});

test("the listing of the README gives Python's pixels when Vite has built it, on all cores", async () => {
  run("npx", ["vite", "build"], at("project"));
  await withVite(["preview"], async (address) => {
    assertPythons(await useListing(address), "odd");
    assert.equal(await page.evaluate(() => crossOriginIsolated), true);
    await page.screenshot({ path: `${SCREENSHOTS}/package.png` });
  });
});

test("without a bundler, served as plain files without any headers, it works on one core", async () => {
  const map = '{ "imports": { "keras-psr": "/node_modules/keras-psr/src/upscaler.js" } }';
  const html = PAGE(`<script type="importmap">${map}</script><script type="module" src="src/main.js"></script>`);
  const read = (name) => (name ? readFileSync(at("project", name.endsWith("tflite") ? "public" : "", name)) : html);
  await withFiles(read, async (address) => {
    assertPythons(await useListing(address), "odd");
    assert.equal(await page.evaluate(() => crossOriginIsolated), false);
  });
});

/** Runs code in the page of check.ts, from Vite's development server, with an `upscaler`. */
async function inPage(code, ...args) {
  await open(`${development.address}/check.html`);
  await page.waitForFunction(() => globalThis.Upscaler);
  await page.evaluate(async () => {
    globalThis.upscaler = await Upscaler.load("x4-fast_int8.tflite");
    globalThis.fetchBitmap = async (name) => createImageBitmap(await (await fetch(name)).blob());
    globalThis.pixelsOf = (bitmap) => {
      const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
      context.drawImage(bitmap, 0, 0);
      return context.getImageData(0, 0, bitmap.width, bitmap.height);
    };
  });
  return page.evaluate(code, ...args);
}

let development;
before(async () => {
  if (!skip) development = await startVite();
});
after(() => development?.stop());

test("all kinds of pictures give Python's pixels", async () => {
  const { results, png, widths } = await inPage(async () => {
    const bitmap = await fetchBitmap("odd.png");
    const canvas = Object.assign(document.createElement("canvas"), { width: bitmap.width, height: bitmap.height });
    canvas.getContext("2d").drawImage(bitmap, 0, 0);
    const offscreen = new OffscreenCanvas(bitmap.width, bitmap.height);
    offscreen.getContext("2d").drawImage(bitmap, 0, 0);
    const image = Object.assign(new Image(), { src: "odd.png" });
    await image.decode();
    const blob = await (await fetch("odd.png")).blob();
    const results = [];
    let first;
    for (const picture of [bitmap, canvas, offscreen, pixelsOf(bitmap), image, blob]) {
      const pixels = await upscaler.upscalePixels(picture);
      const { png, preview, ...size } = await upscaler.upscale(picture);
      first ??= png;
      const isSame = [first, png].map(async (blob) => {
        const { data } = pixelsOf(await createImageBitmap(blob));
        return data.length === pixels.data.length && data.every((value, index) => value === pixels.data[index]);
      });
      results.push({ name: picture.constructor.name, isSame: await Promise.all(isSame), preview, size });
    }
    return { results, png: await encode(first), widths: [bitmap.width, canvas.width] };
  });
  assert.deepEqual(widths, [130, 130], "they stay what they were");
  const names = ["ImageBitmap", "HTMLCanvasElement", "OffscreenCanvas", "ImageData", "HTMLImageElement", "Blob"];
  assert.deepEqual(
    results,
    names.map((name) => ({ name, isSame: [true, true], preview: null, size: { width: 520, height: 404 } })),
  );
  assertPythons(decode(png), "odd");
  assert.deepEqual(errors, []);
});

test("opacity is kept; of ImageData so are the colours below it", async () => {
  const { data: given, width, height } = readPng(at("disc.png"));
  const received = await inPage(
    async ({ given, width, height }) => {
      const { png } = await upscaler.upscale(new ImageData(Uint8ClampedArray.from(given), width, height));
      return encode(png);
    },
    { given: [...given], width, height },
  );
  const [image, expected] = [decode(received), readPng(at("disc_x4.png"))];
  assert.ok(expected.data.some((value, place) => place % 4 === 3 && value === 0));
  for (let pixel = 0; pixel < expected.data.length; pixel += 4) {
    const opacity = expected.data[pixel + 3];
    assert.ok(Math.abs(image.data[pixel + 3] - opacity) <= 1);
    for (let channel = 0; channel < 3; channel++) {
      const apart = Math.abs(image.data[pixel + channel] - expected.data[pixel + channel]);
      assert.ok((apart * opacity) / 255 <= 2, `${apart} grey levels at opacity ${opacity}`);
    }
  }
});

test("progress comes after each tile, and the page is not blocked", async () => {
  const { progress, ticks } = await inPage(async () => {
    const progress = [];
    let ticks = 0;
    const bitmap = await createImageBitmap(await fetchBitmap("large.png"), 0, 0, 400, 400);
    const timer = setInterval(() => ticks++, 5);
    await upscaler.upscale(bitmap, { onProgress: ({ done, total }) => progress.push([done, total]) });
    clearInterval(timer);
    return { progress, ticks };
  });
  assert.deepEqual(
    progress,
    Array.from({ length: 16 }, (_, index) => [index + 1, 16]),
  ); // 400 pixels, 128 for each tile
  assert.ok(ticks > 2 * 16, `answered ${ticks} times`); // once a tile, at most, if the page computed them itself
});

test("cancelling ends it within one tile, and the upscaler goes on", async () => {
  const { name, isReason, asked, heard, before, after, size, again, early } = await inPage(async () => {
    const large = await fetchBitmap("large.png");
    const controller = new AbortController();
    let asked;
    const onProgress = ({ done }) => {
      if (done !== 3) return;
      asked = tiles;
      controller.abort(new DOMException("enough", "AbortError"));
    };
    const error = await upscaler.upscale(large, { onProgress, signal: controller.signal }).catch((error) => error);
    const heard = tiles;
    await new Promise((resolve) => setTimeout(resolve)); // messages of tiles that were already computed arrive
    const before = tiles;
    const { width, height } = await upscaler.upscalePixels(new ImageData(1, 1)); // waits for the tile
    const after = tiles;
    const queued = new AbortController();
    const two = [upscaler.upscalePixels(new ImageData(9, 9)), upscaler.upscale(large, { signal: queued.signal })];
    queued.abort();
    const again = await Promise.allSettled(two);
    const early = await upscaler.upscale(large, { signal: AbortSignal.abort() }).catch((error) => error.name);
    return {
      ...{ name: error.name, isReason: error === controller.signal.reason, asked, heard, before, after, early },
      ...{ size: [width, height], again: again.map(({ status }) => status) },
    };
  });
  assert.deepEqual(
    { name, isReason, size, early },
    { name: "AbortError", isReason: true, size: [4, 4], early: "AbortError" },
  );
  assert.equal(heard, asked, "it is rejected at once, without waiting for the worker");
  assert.ok(after - before <= 2, `${after - before} tiles: the one that was being computed, and the other picture's`);
  assert.deepEqual(again, ["fulfilled", "rejected"]);
});

test("pictures are taken one after the other, and closing rejects what is not finished", async () => {
  const { widths, closed, later } = await inPage(async () => {
    const widths = [];
    const ask = async (width) => widths.push((await upscaler.upscalePixels(new ImageData(width, 2))).width);
    await Promise.all([ask(200), ask(1), ask(30)]);
    const pending = upscaler.upscale(await fetchBitmap("large.png")).catch((error) => error.name);
    await new Promise((resolve) => setTimeout(resolve, 100));
    upscaler.close();
    const later = await upscaler.upscale(new ImageData(1, 1)).catch((error) => error.message);
    return { widths, closed: await pending, later };
  });
  assert.deepEqual({ widths, closed }, { widths: [800, 4, 120], closed: "AbortError" });
  assert.equal(later, "The upscaler was closed.");
});

test("a style is mixed with the picture, keeps its colours, and paints at another size", async () => {
  const [plain, none, colours, small] = await inPage(async () => {
    const enlargers = { 2: "x2-fast_float32.tflite", 4: "x4-photo_float32.tflite" };
    const style = await Upscaler.load("soft-lines_float32.tflite", { enlargers });
    const bitmap = await fetchBitmap("odd.png");
    const options = [{}, { strength: 0 }, { strength: 0.6, preserveColors: true }, { paintSize: 64, strength: 0.6 }];
    return Promise.all(options.map(async (option) => [...(await style.upscalePixels(bitmap, option)).data]));
  });
  const given = readPng(at("odd.png"));
  assert.ok(difference(given, none, 4) === 0 && difference(given, plain, 4) > 5);
  const model = at("soft-lines_float32.tflite");
  reference("painted", model, at("odd.png"), "0", "0.6", "true", at("painted.png"));
  assert.ok(difference(readPng(at("painted.png")), colours, 4) <= 1);
  reference("painted", model, at("odd.png"), "64", "0.6", "false", at("painted.png"));
  const most = difference(readPng(at("painted.png")), small, 4);
  assert.ok(most <= 3, `${most} grey levels`); // two networks and three roundings to 8 bits
});

test("what cannot be done is said", async () => {
  const said = await inPage(async () => {
    const say = (promise) => promise.then(String, ({ name, message }) => `${name}: ${message}`);
    const style = await Upscaler.load("soft-lines_float32.tflite");
    const file = async (name) => new File([await (await fetch(name)).blob()], name);
    return Promise.all([
      say(Upscaler.load("missing.tflite")),
      say(Upscaler.load("http://127.0.0.1:1/x4.tflite")),
      say(Upscaler.load("odd.png")),
      say(Upscaler.load("x4-fast_int8.tflite", { device: "npu" })),
      say(Upscaler.load("x4-fast_int8.tflite", { signal: AbortSignal.abort() })),
      say(upscaler.upscale(await file("cut off.png"))),
      say(upscaler.upscale("odd.png")),
      say(upscaler.upscale(new OffscreenCanvas(0, 5))),
      say(upscaler.upscale(new ImageData(1, 1), { strength: 2 })),
      say(upscaler.upscale(new ImageData(1, 1), { strength: 0.5 })),
      say(upscaler.upscale(new ImageData(1, 1), { preserveColors: true })),
      say(upscaler.upscale(new ImageData(1, 1), { paintSize: 64 })),
      say(style.upscale(new ImageData(1, 1), { paintSize: 64 })),
    ]);
  });
  const expected = [
    /^NetworkError: The model could not be loaded from http.*missing\.tflite \(the server sent a web page\)\.$/,
    /^NetworkError: The model could not be loaded from http:\/\/127\.0\.0\.1:1\/x4\.tflite \(.+\)\.$/,
    /^Error: The model is not a TFLite file\.$/,
    /^TypeError: device must be "auto", "gpu" or "cpu"\. Received: npu\.$/,
    /^AbortError: /,
    /^EncodingError: cut off\.png cannot be decoded: it is damaged, or too large for this device\./,
    /^TypeError: image must be an ImageBitmap, a canvas, ImageData or a Blob, with pixels\. /,
    /^TypeError: image must be an ImageBitmap, a canvas, ImageData or a Blob, with pixels\. /,
    /^TypeError: strength must be from 0 to 1\. Received: 2\.$/,
    /^TypeError: strength, preserveColors and paintSize are for styles\. x4-fast enlarges\.$/,
    /^TypeError: strength, preserveColors and paintSize are for styles\. x4-fast enlarges\.$/,
    /^TypeError: strength, preserveColors and paintSize are for styles\. x4-fast enlarges\.$/,
    /^TypeError: paintSize needs files that enlarge paintings: give Upscaler\.load their addresses, `enlargers`\.$/,
  ];
  for (const [index, pattern] of expected.entries()) assert.match(said[index], pattern);
});
