/** The page in Firefox and WebKit: what every browser must do, compared with Python; page.test.js has the rest. */

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe } from "node:test";
import { setTimeout } from "node:timers/promises";

import { BROWSERS, whyNot } from "./browsers.js";
import {
  countTiles,
  difference,
  makeFolder,
  readFloats,
  readPng,
  reference,
  SCREENSHOTS,
  startDemo,
  testUnless,
} from "./support.js";
import { startFirefox, startWebKit } from "./webdriver.js";

const folder = makeFolder();
const at = (name) => join(folder, name);
const test = testUnless(false);
const shipped = (name) => new URL(`../../saved_models/x4/${name}`, import.meta.url).pathname;

before(() => {
  reference("pictures", folder);
  reference("models", folder);
});

for (const [id, start] of [
  ["firefox", startFirefox],
  ["webkit", startWebKit],
]) {
  describe(BROWSERS[id].name, { skip: whyNot(id) }, () => {
    let demo, tiny, page;

    before(async () => {
      [demo, tiny, page] = await Promise.all([startDemo(), startDemo("--model", folder), start(at(id))]);
      await page.resize(1280, 900);
    });

    after(() => Promise.all([demo?.stop(), tiny?.stop(), page?.stop()]));

    async function open(address, picture) {
      await page.go(address);
      await page.until(() => document.querySelector("#model option"));
      await page.attach("#photo", at(picture));
      await page.until(() => document.querySelector("#run:enabled"));
    }

    async function run() {
      await page.click("#run");
      await page.until(() => {
        const [working, compare, error] = ["working", "compare", "error"].map((id) => document.getElementById(id));
        return working.hidden && (!compare.hidden || error.textContent); // `working` is hidden before, too
      }, 240_000);
      assert.equal(await page.text("#error"), "");
      return page.text("#status");
    }

    /** Clicks the download and reads the PNG that the browser wrote. */
    async function save(name) {
      const path = join(page.downloads, name);
      await page.click("#download");
      for (let tries = 0; tries < 600; tries++, await setTimeout(100)) {
        if (!existsSync(path) || existsSync(`${path}.part`) || existsSync(`${path}.wkdownload`)) continue;
        try {
          return readPng(path);
        } catch {
          // not all of it is there yet
        }
      }
      throw new Error(`${name} did not come.`);
    }

    test("it can be used, and says what the browser lacks", async () => {
      await open(demo.address, "odd.png");
      assert.equal(await page.evaluate(() => crossOriginIsolated), true);
      const hasGpu = await page.evaluate(() => "gpu" in navigator);
      if (!hasGpu) await page.until(() => /No GPU: this browser has no WebGPU here/.test(document.body.textContent));
      const threads = await page.evaluate(() => typeof SharedArrayBuffer === "function");
      if (!threads) assert.match(await page.text("#limits"), /One core only: several times slower than/);
    });

    test("the shipped x4 gives Python's pixels, shows them, and saves them", async () => {
      await open(demo.address, "odd.png");
      const hasThreads = !/One core/.test(await page.text("#limits"));
      assert.match(await run(), hasThreads ? /^520 × 404 in .* threads\. $/ : /^520 × 404 in .* on the CPU\. $/);
      await page.screenshot(`${SCREENSHOTS}/${id}-desktop.png`);
      const image = await save("odd_x4.png");
      reference("floats", shipped("x4_int8.tflite"), at("odd.png"), at("floats"));
      assert.deepEqual([image.width, image.height], [520, 404]);
      const most = difference(image, readFloats(at("floats")), 3);
      assert.ok(most <= 1, `${most} grey levels`);
      const shown = await page.evaluate(() => {
        const after = document.getElementById("after");
        const context = Object.assign(document.createElement("canvas"), { width: 520, height: 404 }).getContext("2d");
        context.drawImage(after, 0, 0);
        return [...context.getImageData(200, 100, 20, 20).data];
      });
      const saved = [];
      for (let y = 100; y < 120; y++) saved.push(...image.data.subarray((y * 520 + 200) * 4, (y * 520 + 220) * 4));
      assert.deepEqual(shown, saved);
    });

    for (const [task, model, name, size] of [
      ["Enlarge", "x2-tiny", "odd_x2-tiny.png", [260, 202]],
      ["Paint", "soft-lines", "odd_soft-lines.png", [130, 101]],
    ]) {
      test(`a float file, ${model}, gives Python's pixels`, async () => {
        await open(tiny.address, "odd.png");
        await page.click(`[name=task][value=${task}]`);
        assert.equal(await page.select("#model", model), model);
        assert.equal(await page.select("#precision", "float32"), "float32");
        assert.equal(await page.text("#run"), task);
        await run();
        const image = await save(name);
        reference("floats", at(`${model}_float32.tflite`), at("odd.png"), at("floats"));
        assert.deepEqual([image.width, image.height], size);
        const most = difference(image, readFloats(at("floats")), 3);
        assert.ok(most <= 0.51, `${most} grey levels`);
      });
    }

    test("opacity is kept", async () => {
      await open(tiny.address, "disc.png");
      await page.select("#precision", "float32");
      await run();
      const image = await save("disc_x2-tiny.png");
      reference("upscaled", at("x2-tiny_float32.tflite"), at("disc.png"), at("expected.png"));
      const expected = readPng(at("expected.png"));
      for (let pixel = 3; pixel < image.data.length; pixel += 4) {
        assert.ok(Math.abs(image.data[pixel] - expected.data[pixel]) <= 1);
      }
    });

    test("a photo that says how it was turned comes out upright", async () => {
      await open(tiny.address, "turned.jpg");
      await run();
      const { width, height } = await save("turned_x2-tiny.png");
      assert.deepEqual([width, height], [160, 260]);
    });

    for (const [name, message] of [
      ["notes.png", "notes.png is too large, or not a picture that this browser can read"],
      ["empty.png", "empty.png is empty"],
    ]) {
      test(`${name} is refused in words, and the page goes on`, async () => {
        await open(tiny.address, "odd.png");
        await page.attach("#photo", at(name));
        await page.until(() => document.getElementById("error").textContent);
        assert.ok((await page.text("#error")).startsWith(message));
        assert.match(await run(), /^260 × 202 in /);
      });
    }

    test("a run is cancelled within a tile, and the page goes on", async () => {
      await open(demo.address, "large.png");
      await page.evaluate(countTiles);
      await page.click("#run");
      await page.until(() => /^Tile \d+ of 289$/.test(document.getElementById("status").textContent), 60_000);
      await page.click("#cancel");
      await page.until(() => document.getElementById("status").textContent === "Cancelled.");
      await page.evaluate(() => void setTimeout(() => (window.haveArrived = true))); // tiles that were computed already
      await page.until(() => window.haveArrived);
      const before = await page.evaluate(() => globalThis.tiles);
      await page.attach("#photo", at("one pixel.png"));
      await page.until(() => /^1 × 1 /.test(document.getElementById("size").textContent));
      assert.match(await run(), /^4 × 4 in /);
      const tiles = (await page.evaluate(() => globalThis.tiles)) - before;
      assert.ok(tiles <= 2, `${tiles} tiles: the one that was being computed, and the one pixel's`);
    });

    test("it works offline with what was used before", async () => {
      const other = await startDemo("--model", folder);
      await open(other.address, "odd.png");
      await run();
      await other.stop();
      await open(other.address, "odd.png");
      assert.match(await run(), /^260 × 202 in /);
    });

    test("the benchmark measures each file", async () => {
      await page.go(`${tiny.address}/?benchmark`);
      await page.until(() => document.querySelector("#measure:enabled"));
      await page.click("#measure");
      await page.until(() => document.getElementById("measured").textContent === "Done.", 240_000);
      const rows = await page.evaluate(() =>
        Array.from(document.querySelectorAll("#rows tr"), ({ cells }) => Array.from(cells, (cell) => cell.textContent)),
      );
      const measured = rows.filter(([, , place]) => place.startsWith("CPU"));
      assert.deepEqual(
        measured.map(([name, variant]) => `${name} ${variant}`),
        ["x2-tiny int8", "x2-tiny float32", "soft-lines float32"],
      );
      for (const [, , , milliseconds, speed] of measured) assert.ok(milliseconds > 0 && speed > 0, milliseconds);
    });

    const testCamera = testUnless(id === "webkit" && "its cameras cannot be feigned");
    testCamera("it shows a camera live, and switches it off", async () => {
      await page.go(demo.address);
      await page.until(() => document.querySelector("#model option"));
      await page.click("#empty [data-starts=live]");
      await page.until(() => /pictures\/s/.test(document.getElementById("rate").value), 60_000);
      await page.evaluate(() => void (window.track = document.getElementById("film").srcObject.getVideoTracks()[0]));
      await page.screenshot(`${SCREENSHOTS}/${id}-live.png`);
      await page.click("#stop");
      await page.until(() => window.track.readyState === "ended");
    });

    test("it fits a narrow window", async () => {
      await open(tiny.address, "photo.png");
      await run();
      await page.resize(360, 800); // Firefox stops at 500
      await page.until(() => innerWidth <= 500);
      await setTimeout(300); // it scrolls to the picture
      await page.screenshot(`${SCREENSHOTS}/${id}-narrow.png`);
      const [width, inner] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
      assert.ok(width <= inner, `${width} in ${inner}`);
      await page.resize(1280, 900);
    });
  });
}
