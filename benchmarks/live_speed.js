/**
 * Pictures a second of the page's live camera, with Chromium's own camera of 640x480. After `make web`:
 *   PYTHON=.venv/bin/python node benchmarks/live_speed.js
 * Beside the rate stands the processors' time that all of Chromium takes for a picture, which other work on the machine
 * changes less: over the number of cores it is what a picture takes on an idle machine, at least.
 */

import { readFileSync } from "node:fs";
import { cpus, loadavg } from "node:os";
import { setTimeout } from "node:timers/promises";

import { startChromium, startDemo } from "../web/test/support.js";

const SECONDS = 15;
const CLOCK = 100; // ticks a second of /proc
const MODELS = ["x2-fast", "x4-fast", "x4", "starry-night"];

const args = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"];
const [demo, browser] = await Promise.all([startDemo(), startChromium(...args)]);
const session = await browser.newBrowserCDPSession();

/** Seconds that Chromium's processes have computed (Linux). */
async function computed() {
  const { processInfo } = await session.send("SystemInfo.getProcessInfo");
  return processInfo.reduce((sum, { id }) => {
    const fields = readFileSync(`/proc/${id}/stat`, "utf8").split(") ")[1].split(" ");
    return sum + (Number(fields[11]) + Number(fields[12])) / CLOCK;
  }, 0);
}

console.log(`${cpus()[0].model}, ${cpus().length} cores, load ${loadavg()[0].toFixed(1)}`);
for (const name of MODELS) {
  const page = await (await browser.newContext({ viewport: { width: 1280, height: 800 } })).newPage();
  await page.goto(demo.address);
  await page.waitForSelector("#model option", { state: "attached" });
  if (name === "starry-night") await page.getByText("Paint", { exact: true }).click();
  await page.click("[data-starts=live]");
  await page.waitForSelector("#live", { state: "visible" });
  await page.selectOption("#model", name);
  await setTimeout(5000); // until its size has settled
  await page.evaluate(() => {
    globalThis.drawn = 0;
    const { putImageData } = CanvasRenderingContext2D.prototype;
    CanvasRenderingContext2D.prototype.putImageData = function (...args) {
      globalThis.drawn++;
      return putImageData.apply(this, args);
    };
  });
  const before = await computed();
  await setTimeout(SECONDS * 1000);
  const drawn = await page.evaluate(() => globalThis.drawn);
  const spent = (await computed()) - before;
  const size = (await page.textContent("#rate")).split(",")[0];
  const milliseconds = Math.round((1000 * spent) / drawn);
  console.log(
    `${name.padEnd(14)} ${size.padEnd(12)} ${(drawn / SECONDS).toFixed(1)} pictures/s, ${milliseconds} ms each`,
  );
  await page.context().close();
}
await Promise.all([browser.close(), demo.stop()]);
