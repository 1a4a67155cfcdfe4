/**
 * Speed, size and memory of the page of `keras-psr demo`, beside Python on the same machine. After `make web`:
 *   PYTHON=.venv/bin/python node benchmarks/page_speed.js
 */

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

import { readMetadata } from "../web/src/metadata.js";
import { spans } from "../web/src/tiling.js";
import { makeFolder, startChromium, startDemo } from "../web/test/support.js";

const X4 = fileURLToPath(new URL("../saved_models/x4", import.meta.url));

const PYTHON_CODE = `
import sys, time
from pathlib import Path
import numpy as np, skimage.data
from PIL import Image
import keras_psr
from keras_psr.images.decoding import read_photo
from keras_psr.images.encoding import save_photo
from keras_psr.inference.photos import upscale_photo
folder, variant, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
coffee = skimage.data.coffee()
Image.fromarray(coffee[60:316, 150:406]).save(folder + "/small.png")
Image.fromarray(np.tile(coffee, (2, 2, 1))[:750, :1000]).save(folder + "/large.png")
upscaler, picture = keras_psr.load(f"x4_{variant}", threads=threads), coffee[60:316, 150:406]


def upscale_file():
    save_photo(Path(folder, "python.png"), upscale_photo(upscaler, read_photo(Path(folder, "small.png"))))


for work in (lambda: upscaler(picture), upscale_file):
    work()
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    print(sorted(times)[2])
`;

const folder = makeFolder();
const [demo, x4, browser] = await Promise.all([startDemo(), startDemo("--model", X4), startChromium()]);
const say = (name, value) => console.log(`${name.padEnd(58)} ${value}`);

/** Proportional memory of the browser's processes, in MB (Linux). */
async function memory() {
  const session = await browser.newBrowserCDPSession();
  const { processInfo } = await session.send("SystemInfo.getProcessInfo");
  await session.detach();
  const sizes = processInfo.map(({ id }) => {
    try {
      return Number(readFileSync(`/proc/${id}/smaps_rollup`, "utf8").match(/^Pss:\s+(\d+)/m)[1]) / 1e3;
    } catch {
      return 0; // it has ended
    }
  });
  return sizes.reduce((sum, size) => sum + size, 0);
}

async function open() {
  const page = await (await browser.newContext({ viewport: { width: 1280, height: 800 } })).newPage();
  const begin = performance.now();
  await page.goto(demo.address);
  await page.waitForSelector("#model option", { state: "attached" });
  return [page, performance.now() - begin];
}

async function run(page) {
  await page.click("#run");
  await page.waitForSelector("#working", { state: "hidden", timeout: 300_000 });
  return Number((await page.textContent("#status")).match(/in ([\d.]+) s/)[1]);
}

/** Seconds that the page takes for the tiles of 256x256 pixels, by the kind of file, as its `?benchmark` measures them. */
async function timeTiles() {
  const page = await browser.newPage();
  await page.goto(`${x4.address}/?benchmark`);
  await page.click("#measure");
  await page.locator("#measured").filter({ hasText: "Done." }).waitFor({ timeout: 300_000 });
  const rows = await page
    .locator("#rows tr")
    .evaluateAll((rows) => rows.map(({ cells }) => [cells[1].textContent, Number(cells[3].textContent)]));
  await page.close();
  const total = spans(256, readMetadata(readFileSync(join(X4, "x4_int8.tflite")))).length ** 2;
  return Object.fromEntries(rows.map(([variant, milliseconds]) => [variant, (total * milliseconds) / 1000]));
}

/** What Python takes for the network's tiles, and from file to file. */
const timePython = (variant, threads) =>
  execFileSync(process.env.PYTHON ?? "python3", ["-c", PYTHON_CODE, folder, variant, threads], { encoding: "utf8" })
    .trim()
    .split("\n")
    .map(Number);

// Speed and size
let [page, milliseconds] = await open();
say("page can be used after", `${Math.round(milliseconds)} ms`);
const threads = await page.evaluate(() => navigator.hardwareConcurrency);
const tiles = await timeTiles();
for (const variant of ["int8", "float32"]) {
  const python = timePython(variant, threads);
  const sizes = [];
  const keepSize = async (response) => {
    if (response.request().url().startsWith("blob:")) return;
    const body = await response.body().catch(() => Buffer.alloc(0));
    sizes.push([body.length, gzipSync(body).length]);
  };
  await page.close();
  const context = await browser.newContext({ serviceWorkers: "block" });
  context.on("response", keepSize);
  page = await context.newPage();
  await page.goto(demo.address);
  await page.setInputFiles("#photo", join(folder, "small.png"));
  await page.selectOption("#precision", variant);
  await run(page);
  const whole = [await run(page), await run(page), await run(page)].sort()[1];
  for (const [name, ours, theirs] of [
    ["tiles", tiles[variant], python[0]],
    ["PNG to PNG", whole, python[1]],
  ]) {
    const ratio = `${(ours / theirs).toFixed(1)} times the ${theirs.toFixed(2)} s of Python`;
    say(`${variant}: 256x256, ${name}, ${threads} threads`, `${ours.toFixed(2)} s, ${ratio}`);
  }
  const [plain, compressed] = [0, 1].map((at) => sizes.reduce((sum, size) => sum + size[at], 0) / 1e6);
  say(
    `${variant}: over the wire, page, LiteRT and model`,
    `${plain.toFixed(1)} MB, ${compressed.toFixed(1)} MB with gzip`,
  );
}
await page.context().close();

// Memory
for (const variant of ["int8", "float32"]) {
  [page] = await open();
  await page.setInputFiles("#photo", join(folder, "large.png"));
  await page.selectOption("#precision", variant);
  await page.waitForTimeout(1000);
  const before = await memory();
  let most = 0;
  let isWatching = true;
  const watch = (async () => {
    while (isWatching) {
      most = Math.max(most, await memory());
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  })();
  await run(page);
  await page.waitForTimeout(2000);
  isWatching = false;
  await watch;
  say(`1000x750 to 12 MP, ${variant}: all of Chromium grew by at most`, `${Math.round(most - before)} MB`);
  await page.context().close();
}
await Promise.all([browser.close(), demo.stop(), x4.stop()]);
