/** The live camera, in Chromium with its camera of a file. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, afterEach, before } from "node:test";

import { whyNot } from "./browsers.js";
import { makeFolder, readPng, reference, SCREENSHOTS, startChromium, startDemo, testUnless } from "./support.js";

const folder = makeFolder();
const at = (name) => join(folder, name);
const skip = whyNot("chromium");
const test = testUnless(skip);
const CAMERAS = [
  "--use-fake-ui-for-media-stream",
  "--use-fake-device-for-media-stream",
  `--use-file-for-fake-video-capture=${at("camera.y4m")}`,
];

let browser, demo;
let errors = [];

before(async () => {
  if (skip) return;
  reference("pictures", folder);
  [browser, demo] = await Promise.all([startChromium(...CAMERAS), startDemo()]);
});

after(() => skip || Promise.all([browser.close(), demo.stop()]));

afterEach(async () => {
  if (skip) return;
  await Promise.all(browser.contexts().map((context) => context.close()));
  assert.deepEqual(errors.splice(0), []);
});

/** Opens the page; no console error may follow, and no request to elsewhere. */
async function open({ from = browser, address = demo.address, prepare = () => {}, ...options } = {}) {
  const context = await from.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  context.on("request", (request) => {
    const { protocol, origin } = new URL(request.url());
    if (!["blob:", "data:"].includes(protocol) && origin !== address) errors.push(`asked ${request.url()}`);
  });
  context.on("console", (message) => message.type() === "error" && errors.push(message.text()));
  context.on("weberror", ({ error }) => errors.push(error().message));
  const page = await context.newPage();
  await page.addInitScript(countFrames);
  await page.addInitScript(countWorkers);
  await page.addInitScript(prepare);
  await page.goto(address);
  await page.waitForSelector("#model option", { state: "attached" });
  return page;
}

/** Counts how many pictures the worker has at once; runs in the page. */
function countFrames() {
  globalThis.frames = { sent: 0, inFlight: 0, most: 0 };
  const { postMessage } = Worker.prototype;
  Worker.prototype.postMessage = function (message, ...others) {
    if (message.asPixels) {
      const { frames } = globalThis;
      frames.sent++;
      frames.most = Math.max(frames.most, ++frames.inFlight);
      const listen = ({ data }) => {
        if (data.number !== message.number || data.total) return; // only a tile is done
        frames.inFlight--;
        this.removeEventListener("message", listen);
      };
      this.addEventListener("message", listen);
    }
    return postMessage.call(this, message, ...others);
  };
}

/** Counts the workers that are started and terminated; runs in the page. */
function countWorkers() {
  Object.assign(globalThis, { started: 0, running: new Set() });
  globalThis.Worker = class extends Worker {
    constructor(...args) {
      super(...args);
      globalThis.started++;
      globalThis.running.add(this);
    }

    terminate() {
      super.terminate();
      globalThis.running.delete(this);
    }
  };
}

async function start(page) {
  await page.locator("[data-starts=live]:visible").click();
  await page.waitForSelector("#live", { state: "visible" }); // with that, the rate of an earlier camera is gone
  await showsPictures(page);
}

const showsPictures = (page) =>
  page.waitForFunction(() => /pictures\/s/.test(document.getElementById("rate").value), null, { timeout: 60_000 });

/** Waits until so many pictures were sent to the worker. */
const sends = (page, count) =>
  page.waitForFunction((count) => globalThis.frames.sent >= count, count, { timeout: 60_000 });

/**
 * How many workers the page has started, and how many of them it has not terminated. Chromium and Playwright list them,
 * and the threads below them, for seconds longer: a thread that sleeps is ended by force, after 2 seconds.
 */
const workers = (page) => page.evaluate(() => ({ started: globalThis.started, running: globalThis.running.size }));

const keepTrack = (page) =>
  page.evaluate(() => void (globalThis.track = document.getElementById("film").srcObject.getVideoTracks()[0]));

const trackState = (page) => page.evaluate(() => globalThis.track.readyState);

async function save(page, button) {
  const [download] = await Promise.all([page.waitForEvent("download"), page.click(button)]);
  const path = at(download.suggestedFilename());
  await download.saveAs(path);
  return { name: download.suggestedFilename(), path };
}

/** Means of red, green and blue in cells of a picture, 8 by 6. */
function cells({ data, width, height }) {
  const sums = Array.from({ length: 48 * 3 }, () => [0, 0]);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const cell = Math.floor((y * 6) / height) * 8 + Math.floor((x * 8) / width);
      for (let channel = 0; channel < 3; channel++) {
        const sum = sums[cell * 3 + channel];
        sum[0] += data[(y * width + x) * 4 + channel];
        sum[1]++;
      }
    }
  }
  return sums.map(([sum, count]) => sum / count);
}

test("it enlarges what the camera sees, one picture at a time, until stopped", async () => {
  const page = await open();
  await start(page);
  assert.equal(await page.inputValue("#model"), "x4-fast", "the fast one of the models for this factor");
  assert.match(await page.textContent("#status"), /^Live on the CPU with \d+ threads\. Nothing is uploaded\./);
  await page.screenshot({ path: `${SCREENSHOTS}/live-enlarge.png` });
  await keepTrack(page);
  const { name, path } = await save(page, "#snap");
  assert.equal(name, "camera_x4-fast.png");
  const [image, camera] = [readPng(path), readPng(at("camera.png"))];
  assert.ok(Math.abs(image.width / image.height - 4 / 3) < 0.02);
  const expected = cells(camera);
  const most = Math.max(...cells(image).map((mean, index) => Math.abs(mean - expected[index])));
  assert.ok(most < 8, `${most} grey levels between what the camera sees and what is shown`);
  await sends(page, 3);
  assert.equal(await page.evaluate(() => globalThis.frames.most), 1, "pictures are dropped, not queued");
  await page.click("#stop");
  assert.equal(await trackState(page), "ended");
  assert.ok(await page.isVisible("text=Choose a photo"));
  assert.equal(await page.textContent("#status"), "");
  assert.deepEqual(await workers(page), { started: 1, running: 0 });
});

test("it paints, and takes another style without stopping", async () => {
  const page = await open();
  await page.getByText("Paint", { exact: true }).click();
  await start(page);
  await keepTrack(page);
  for (const model of ["great-wave", "the-scream"]) {
    await page.selectOption("#model", model); // the first is chosen already; both clear the rate at once
    await showsPictures(page);
  }
  await page.screenshot({ path: `${SCREENSHOTS}/live-paint.png` });
  assert.equal(await trackState(page), "live");
  assert.equal((await save(page, "#snap")).name, "camera_the-scream.png");
  const levels = new Set(readPng(at("camera_the-scream.png")).data);
  assert.ok(levels.size > 100, "a picture, not a plain area");
});

test("another choice while the model is being loaded is no trouble", async () => {
  const page = await open();
  await page.locator("[data-starts=live]:visible").click();
  await page.waitForSelector("#live", { state: "visible" });
  await page.selectOption("#model", "x4-fast"); // the same: its worker goes on
  await page.selectOption("#precision", "float32");
  await page.selectOption("#precision", "int8");
  await showsPictures(page);
});

test("a clip is recorded, of one size, and plays", async () => {
  const page = await open();
  await start(page);
  await page.click("#record");
  assert.ok(await page.isVisible("text=● Recording"));
  assert.ok(await page.isDisabled("#model"));
  const [size, sent] = await page.evaluate(() => [document.getElementById("canvas").width, globalThis.frames.sent]);
  await sends(page, sent + 10);
  assert.equal(await page.evaluate(() => document.getElementById("canvas").width), size);
  const { name, path } = await save(page, "#record");
  assert.match(name, /^camera_x4-fast\.(webm|mp4)$/);
  assert.ok(await page.isEnabled("#model"));
  const player = await page.context().newPage();
  const content = `data:video/${name.split(".").at(-1)};base64,${readFileSync(path, "base64")}`;
  const width = await player.evaluate(async (source) => {
    const video = Object.assign(document.createElement("video"), { src: source, muted: true });
    await video.play();
    return video.videoWidth;
  }, content);
  assert.equal(width, size);
});

test("a clip that begins while a larger picture is computed keeps the size that is shown", async () => {
  const page = await open({ prepare: recordWhenItGrows });
  await start(page);
  await page.waitForFunction(() => globalThis.shownWidth);
  await sends(page, (await page.evaluate(() => globalThis.frames.sent)) + 4);
  const [width, shown] = await page.evaluate(() => [document.getElementById("canvas").width, globalThis.shownWidth]);
  assert.equal(width, shown);
  assert.match((await save(page, "#record")).name, /^camera_x4-fast\./);
});

/** Begins a clip when the first larger picture was sent; pictures grow, because time is slow. Runs in the page. */
function recordWhenItGrows() {
  const now = performance.now.bind(performance);
  performance.now = () => now() / 1000;
  const { postMessage } = Worker.prototype;
  let width;
  Worker.prototype.postMessage = function (message, ...others) {
    const isLarger = message.asPixels && message.image.width > width;
    if (message.asPixels) width ??= message.image.width;
    postMessage.call(this, message, ...others);
    if (!isLarger || globalThis.shownWidth) return;
    globalThis.shownWidth = document.getElementById("canvas").width;
    document.getElementById("record").click();
  };
}

test("a clip that runs when the camera is stopped is saved", async () => {
  const page = await open();
  await start(page);
  await page.click("#record");
  await sends(page, (await page.evaluate(() => globalThis.frames.sent)) + 5);
  assert.match((await save(page, "#stop")).name, /^camera_x4-fast\./);
});

test("the camera goes off when the page is hidden", async () => {
  const page = await open();
  await start(page);
  await keepTrack(page);
  await page.evaluate(() => {
    Object.defineProperty(document, "hidden", { value: true, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
  });
  assert.equal(await trackState(page), "ended");
  assert.equal(await page.textContent("#status"), "The camera was switched off when the page was hidden.");
});

for (const [when, name] of [
  ["asks its user", "getUserMedia"],
  ["plays what the camera sees", "play"],
  ["counts the cameras", "enumerateDevices"],
]) {
  test(`a page that is hidden while the browser ${when} switches the camera off, without an error`, async () => {
    const page = await open();
    await page.evaluate((name) => {
      const media = navigator.mediaDevices;
      const ask = media.getUserMedia.bind(media);
      media.getUserMedia = async (wanted) => {
        const stream = await ask(wanted);
        [globalThis.track] = stream.getVideoTracks();
        return stream;
      };
      const owner = name === "play" ? HTMLMediaElement.prototype : media;
      const original = owner[name];
      owner[name] = async function (...args) {
        const result = original.apply(this, args);
        if (name !== "play") await result;
        Object.defineProperty(document, "hidden", { value: true, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
        return await result.finally(() => setTimeout(() => (globalThis.isOver = true), 500));
      };
    }, name);
    await page.locator("[data-starts=live]:visible").click();
    await page.waitForFunction(() => globalThis.isOver && globalThis.track.readyState === "ended");
    assert.ok(await page.isHidden("#live"));
    assert.equal(await page.textContent("#status"), "");
    assert.equal(await page.textContent("#error"), "");
    assert.deepEqual(await workers(page), { started: 0, running: 0 });
  });
}

test("a camera that is stopped before the model is loaded leaves no worker", async () => {
  const page = await open({ prepare: holdServiceWorker });
  await page.locator("[data-starts=live]:visible").click();
  await page.locator("#status").filter({ hasText: "Loading the model…" }).waitFor();
  await page.click("#stop");
  assert.equal(await page.textContent("#status"), "");
  await page.evaluate(() => globalThis.letServiceWorker());
  await start(page); // when its model is loaded, the first camera's would have been
  assert.deepEqual(await workers(page), { started: 1, running: 1 });
  assert.equal(await page.textContent("#error"), "");
});

/** Holds back the page's service worker, for which models wait, until `letServiceWorker` is called. Runs in the page. */
function holdServiceWorker() {
  const { register } = ServiceWorkerContainer.prototype;
  ServiceWorkerContainer.prototype.register = async function (...args) {
    await new Promise((resolve) => (globalThis.letServiceWorker = resolve));
    return register.apply(this, args);
  };
}

test("the other camera is taken, and the first goes off", async () => {
  const two = await startChromium(
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream=device-count=2",
  );
  try {
    const page = await open({ from: two });
    await start(page);
    await keepTrack(page);
    const id = () =>
      page.evaluate(() => document.getElementById("film").srcObject.getVideoTracks()[0].getSettings().deviceId);
    const first = await id();
    await page.click("#turn");
    await page.waitForFunction(() => globalThis.track.readyState === "ended");
    await page.waitForFunction(() => {
      const [track] = document.getElementById("film").srcObject.getVideoTracks();
      return track !== globalThis.track && track.readyState === "live";
    });
    await showsPictures(page);
    assert.notEqual(await id(), first);
  } finally {
    await two.close();
  }
});

test("choosing a photo stops the camera", async () => {
  const page = await open();
  await start(page);
  await keepTrack(page);
  await page.setInputFiles("#photo", at("odd.png"));
  await page.waitForSelector("#run:enabled");
  assert.equal(await trackState(page), "ended");
  assert.ok(await page.isVisible("#viewer"));
  await start(page);
  await page.click("#stop");
  assert.ok(await page.isVisible("#viewer"), "and the photo is there again afterwards");
  assert.match(await page.textContent("#size"), /^130 × 101/);
});

for (const [what, args, message] of [
  ["no camera", ["--use-fake-ui-for-media-stream"], /^No camera was found\. Connect one, or choose a photo\.$/],
  ["a camera that is not allowed", CAMERAS.slice(1), /^The camera was not allowed\. Allow it for this page/],
  [
    "a page without HTTPS",
    ["--host-resolver-rules=MAP computer.test 127.0.0.1"],
    /^Browsers give a camera only to pages with HTTPS/,
  ],
]) {
  test(`${what}: one line, and the page goes on`, async () => {
    const other = await startChromium(...args);
    try {
      const address = what.includes("HTTPS") ? demo.address.replace("localhost", "computer.test") : demo.address;
      const page = await open({ from: other, address });
      await page.click("[data-starts=live]");
      await page.locator("#error").filter({ hasText: message }).waitFor();
      assert.equal(await page.textContent("#status"), "");
      assert.ok(await page.isHidden("#live"));
      await page.setInputFiles("#photo", at("odd.png"));
      await page.waitForSelector("#run:enabled");
      if (what.includes("HTTPS")) errors = errors.filter((text) => !text.includes("header has been ignored"));
    } finally {
      await other.close();
    }
  });
}

test("it fits a phone of 360 pixels", async () => {
  const page = await open({
    viewport: { width: 360, height: 740 },
    isMobile: true,
    hasTouch: true,
    deviceScaleFactor: 2,
  });
  await page.getByText("Paint", { exact: true }).click();
  await start(page);
  await page.waitForTimeout(300); // it scrolls to the picture
  await page.screenshot({ path: `${SCREENSHOTS}/live-phone.png` });
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360);
});
