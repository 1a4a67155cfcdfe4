/** The page in Chromium: what it gives is compared with Python's; screenshots are left in web/screenshots/. */

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { after, afterEach, before } from "node:test";
import { setTimeout } from "node:timers/promises";

import { readMetadata } from "../src/metadata.js";
import { whyNot } from "./browsers.js";
import {
  countTiles,
  difference,
  makeFolder,
  readFloats,
  readPng,
  reference,
  SCREENSHOTS,
  startChromium,
  startDemo,
  testUnless,
  withFiles,
  writeSite,
} from "./support.js";

const folder = makeFolder();
const shipped = (variant) => new URL(`../../saved_models/x4/x4_${variant}.tflite`, import.meta.url).pathname;
const at = (name) => join(folder, name);

const skip = whyNot("chromium");
const test = testUnless(skip);

let browser, demo, tiny;
let watched = []; // pages of the running test, each with its address and what went wrong

before(async () => {
  if (skip) return;
  reference("pictures", folder);
  reference("models", folder);
  [browser, demo, tiny] = await Promise.all([startChromium(), startDemo(), startDemo("--model", folder)]);
});

after(() => skip || Promise.all([browser.close(), demo.stop(), tiny.stop()]));

afterEach(async () => {
  const [pages, errors] = [watched.map(({ page }) => page), watched.flatMap(({ errors }) => errors)];
  watched = [];
  await Promise.all(pages.map((page) => page.context().close()));
  assert.deepEqual(errors, []);
});

/** Opens the page; afterwards there must have been no console error, and no request to another origin. */
async function open({ address = demo.address, query = "", from = browser, prepare = () => {}, ...options } = {}) {
  const context = await from.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  const errors = [];
  context.on("request", (request) => {
    const url = new URL(request.url());
    if (url.protocol !== "blob:" && url.protocol !== "data:" && url.origin !== address) errors.push(`asked ${url}`);
  });
  context.on("console", (message) => message.type() === "error" && errors.push(message.text()));
  context.on("weberror", ({ error }) => errors.push(error().message));
  const page = await context.newPage();
  watched.push({ page, errors });
  await prepare(page);
  await page.goto(`${address}/${query}`);
  await page.waitForSelector("#model option", { state: "attached" });
  return page;
}

const choose = (page, name) => page.setInputFiles("#photo", at(name));

/** Waits until an element's text matches. */
const expectText = (page, id, pattern) =>
  page.locator(id).filter({ hasText: pattern }).waitFor({ state: "attached", timeout: 60_000 });

async function run(page) {
  await page.click("#run");
  await page.waitForSelector("#working", { state: "hidden", timeout: 240_000 });
  assert.equal(await page.textContent("#error"), "");
  await page.waitForSelector("#compare", { state: "visible" });
  return page.textContent("#status");
}

/** The largest difference of two pictures with opacity, shown over black, in grey levels. */
function differenceOverBlack(image, expected) {
  let most = 0;
  for (let pixel = 0; pixel < image.data.length; pixel += 4) {
    const [opacity, wanted] = [image.data[pixel + 3], expected.data[pixel + 3]];
    assert.ok(Math.abs(opacity - wanted) <= 1, `opacity ${opacity} for ${wanted}`);
    for (let channel = 0; channel < 3; channel++) {
      const [one, other] = [image.data[pixel + channel] * opacity, expected.data[pixel + channel] * wanted];
      most = Math.max(most, Math.abs(one - other) / 255);
    }
  }
  return most;
}

async function save(page) {
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("#download")]);
  const path = at(`page-${download.suggestedFilename()}`);
  await download.saveAs(path);
  return { name: download.suggestedFilename(), image: readPng(path) };
}

test("it can be used with 100 kB, and loads neither a model nor LiteRT before it is needed", async () => {
  const responses = [];
  const prepare = (page) => page.on("response", (response) => responses.push(response));
  const page = await open({ serviceWorkers: "block", prepare });
  const names = responses.map((response) => basename(response.url()));
  assert.ok(names.includes("models.json"));
  assert.deepEqual(
    names.filter((name) => /wasm|tflite|worker/.test(name)),
    [],
  );
  const sizes = await Promise.all(responses.map(async (response) => (await response.body()).length));
  const bytes = sizes.reduce((sum, size) => sum + size);
  assert.ok(bytes < 100_000, `${bytes} bytes`);
  assert.equal(await page.evaluate(() => crossOriginIsolated), true);
});

for (const [variant, picture] of [
  ["int8", "photo.png"],
  ["float32", "odd.png"],
]) {
  test(`${variant} gives Python's pixels`, async () => {
    const page = await open();
    await choose(page, picture);
    await page.selectOption("#precision", variant);
    assert.match(await run(page), /^\d+ × \d+ in [\d.]+ s, [\d.]+ MP\/s on the CPU with \d+ threads/);
    const { name, image } = await save(page);
    assert.equal(name, `${basename(picture, ".png")}_x4.png`);
    reference("floats", shipped(variant), at(picture), at("floats"));
    const given = readPng(at(picture));
    assert.deepEqual([image.width, image.height], [given.width * 4, given.height * 4]);
    // int8 may differ by a level; a float, once rounded, by half a level and what comes before the rounding.
    const most = difference(image, readFloats(at("floats")), 3);
    assert.ok(most <= (variant === "int8" ? 1 : 0.51), `${most} grey levels`);
  });
}

test("a style keeps the size, and a task has its own models", async () => {
  const page = await open({ address: tiny.address });
  await choose(page, "odd.png");
  assert.equal(await page.textContent("#run"), "Enlarge");
  await page.getByText("Paint", { exact: true }).click();
  assert.deepEqual(await page.locator("#model option").allTextContents(), ["Soft lines"]);
  assert.equal(await page.textContent("#run"), "Paint");
  assert.match(await run(page), /^130 × 101 in /);
  const { name, image } = await save(page);
  assert.equal(name, "odd_soft-lines.png");
  reference("floats", at("soft-lines_float32.tflite"), at("odd.png"), at("floats"));
  assert.ok(difference(image, readFloats(at("floats")), 3) <= 0.51);
});

test("strength and the photo's colours are as by keras-psr stylize", async () => {
  const page = await open({ address: tiny.address });
  await choose(page, "odd.png");
  assert.ok(await page.isHidden("#strength"), "they belong to painting");
  await page.getByText("Paint", { exact: true }).click();
  await page.fill("#strength", "60");
  assert.equal(await page.textContent("#strength-text"), "60 %");
  await page.check("#colours");
  await run(page);
  const { image } = await save(page);
  reference("painted", at("soft-lines_float32.tflite"), at("odd.png"), "512", "0.6", "true", at("expected.png"));
  const expected = readPng(at("expected.png"));
  assert.ok(difference(image, expected.data, 4) <= 1);
  const photo = readPng(at("odd.png"));
  assert.ok(difference(image, photo.data, 4) > 5, "it is painted");
});

test("a larger picture is painted small and enlarged as by keras-psr stylize", async () => {
  const page = await open({ address: tiny.address });
  await page.getByText("Paint", { exact: true }).click();
  assert.equal(await page.inputValue("#paint-size"), "512");
  for (const [name, size] of [
    ["above.png", 256],
    ["large disc.png", 256],
    ["above.png", 0],
  ]) {
    await choose(page, name);
    await page.selectOption("#paint-size", `${size}`);
    await page.fill("#strength", size ? "80" : "100");
    await page.setChecked("#colours", name === "above.png" && size > 0);
    await run(page);
    const { image } = await save(page);
    const keepsColours = await page.isChecked("#colours");
    const strength = size ? "0.8" : "1";
    const model = at("soft-lines_float32.tflite");
    reference("painted", model, at(name), `${size}`, strength, `${keepsColours}`, at("expected.png"));
    const expected = readPng(at("expected.png"));
    assert.deepEqual([image.width, image.height], [expected.width, expected.height]);
    const most = differenceOverBlack(image, expected);
    assert.ok(most <= 3, `${name} at ${size}: ${most} grey levels`); // two networks and three roundings to 8 bits
  }
});

test("a style is chosen by its picture", async () => {
  const page = await open();
  assert.ok(await page.isHidden("#styles"));
  await page.getByText("Paint", { exact: true }).click();
  await page.getByRole("radio", { name: "The scream" }).check();
  assert.equal(await page.inputValue("#model"), "the-scream");
  await page.selectOption("#model", "great-wave");
  assert.ok(await page.getByRole("radio", { name: "Great wave" }).isChecked());
  const widths = await page.evaluate(async () => {
    const pictures = [...document.querySelectorAll("#pictures img")];
    await Promise.all(pictures.map((picture) => picture.decode()));
    return pictures.map((picture) => picture.naturalWidth);
  });
  assert.ok(widths.length >= 3 && widths.every((width) => width > 100));
  await page.screenshot({ path: `${SCREENSHOTS}/styles.png` });
});

test("a sample can be tried at once, and saved as a JPEG", async () => {
  const page = await open({ address: tiny.address });
  await page.click("text=Try a sample");
  await expectText(page, "#size", /^360 × 240 → 720 × 480/);
  await run(page);
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("#jpeg")]);
  assert.equal(download.suggestedFilename(), "sample_x2-tiny.jpg");
  await download.saveAs(at("sample.jpg"));
  assert.deepEqual([...readFileSync(at("sample.jpg")).subarray(0, 3)], [0xff, 0xd8, 0xff]);
  const { image } = await save(page);
  const viewer = await page.context().newPage();
  const pixels = await viewer.evaluate(
    async (source) => {
      const picture = Object.assign(new Image(), { src: source });
      await picture.decode();
      const context = new OffscreenCanvas(720, 480).getContext("2d");
      context.drawImage(picture, 0, 0);
      return [picture.naturalWidth, picture.naturalHeight, ...context.getImageData(200, 100, 64, 64).data];
    },
    `data:image/jpeg;base64,${readFileSync(at("sample.jpg"), "base64")}`,
  );
  assert.deepEqual(pixels.splice(0, 2), [720, 480]);
  let sum = 0;
  for (let y = 0; y < 64; y++) {
    for (let x = 0; x < 256; x++) sum += Math.abs(pixels[y * 256 + x] - image.data[((100 + y) * 720 + 200) * 4 + x]);
  }
  assert.ok(sum / 64 / 256 < 8, `${sum / 64 / 256} grey levels between the JPEG and the PNG`);
});

test("where the browser can share files, the result is shared", async () => {
  const page = await open({ address: tiny.address });
  await page.evaluate(() => {
    navigator.canShare = ({ files }) => files[0].type === "image/png";
    navigator.share = async ({ files }) => (globalThis.shared = [files[0].name, files[0].size]);
  });
  await choose(page, "odd.png");
  await run(page);
  await page.click("text=Share");
  const [name, size] = await page.evaluate(() => globalThis.shared);
  assert.equal(name, "odd_x2-tiny.png");
  assert.ok(size > 1000);
  await page.evaluate(() => (navigator.share = () => Promise.reject(new DOMException("no", "NotAllowedError"))));
  await page.click("text=Share");
  await expectText(page, "#error", /^It could not be shared \(no\)\. Download it instead\.$/);
});

test("opacity is kept, and colours do not bleed from what is transparent", async () => {
  const page = await open({ address: tiny.address });
  await choose(page, "disc.png");
  await page.selectOption("#precision", "float32");
  await run(page);
  const { image } = await save(page);
  reference("upscaled", at("x2-tiny_float32.tflite"), at("disc.png"), at("expected.png"));
  const expected = readPng(at("expected.png"));
  const most = differenceOverBlack(image, expected);
  assert.ok(most <= 2, `${most} grey levels over black`);
  assert.ok(image.data.some((value, place) => place % 4 === 3 && value === 0));
});

test("a photo that says how it was turned comes out upright", async () => {
  const page = await open({ address: tiny.address });
  await choose(page, "turned.jpg");
  await expectText(page, "#size", /^80 × 130 → 160 × 260/);
  await page.selectOption("#precision", "float32");
  await run(page);
  const { image } = await save(page);
  reference("upscaled", at("x2-tiny_float32.tflite"), at("turned.jpg"), at("expected.png"));
  const expected = readPng(at("expected.png"));
  assert.deepEqual([image.width, image.height], [160, 260]);
  assert.ok(difference(image, expected.data, 4) <= 8, "decoders of JPEG differ by little");
});

test("the model suits the picture's file, until one is chosen", async () => {
  const page = await open();
  const seen = async () => [await page.inputValue("#model"), await page.textContent("#choice")];
  assert.deepEqual(await seen(), ["x4", ""]);
  await choose(page, "lossy.jpg");
  await expectText(page, "#choice", /./);
  assert.deepEqual(await seen(), ["x4-photo", "×4 photo for a lossy picture (JPEG of quality 60)."]);
  await page.screenshot({ path: `${SCREENSHOTS}/lossy.png` });
  assert.match(await run(page), /^520 × 320 in /);
  assert.equal((await save(page)).name, "lossy_x4-photo.png");
  await page.getByText("Paint", { exact: true }).click();
  assert.equal((await seen())[1], "");
  await page.getByText("Enlarge", { exact: true }).first().click();
  assert.equal((await seen())[0], "x4-photo");
  await choose(page, "odd.png");
  await expectText(page, "#choice", /clean/);
  assert.deepEqual(await seen(), ["x4", "×4 for a clean picture (PNG)."]);
  await page.selectOption("#model", "x2");
  await choose(page, "lossy.jpg");
  await expectText(page, "#size", /^130 × 80 → 260 × 160/);
  assert.deepEqual(await seen(), ["x2", ""], "what the user chose stays");
});

test("of models of one's own none is preferred", async () => {
  const page = await open({ address: tiny.address });
  await choose(page, "lossy.jpg");
  await expectText(page, "#size", /^130 × 80 → /);
  assert.deepEqual([await page.inputValue("#model"), await page.textContent("#choice")], ["x2-tiny", ""]);
});

test("a picture can be dropped", async () => {
  const page = await open({ address: tiny.address });
  const content = readFileSync(at("odd.png"), "base64");
  const data = await page.evaluateHandle(async (content) => {
    const transfer = new DataTransfer();
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    transfer.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
    return transfer;
  }, content);
  await page.dispatchEvent("#stage", "dragover", { dataTransfer: data });
  await page.dispatchEvent("#stage", "drop", { dataTransfer: data });
  await expectText(page, "#size", /^130 × 101 → /);
});

test("one pixel is a picture", async () => {
  const page = await open({ address: tiny.address });
  await choose(page, "one pixel.png");
  assert.match(await run(page), /^2 × 2 in /);
});

test("of a large result a reduced one is shown, and all of it saved", async () => {
  const page = await open({ address: tiny.address });
  await choose(page, "large.png");
  await page.getByText("Paint", { exact: true }).click();
  await page.getByText("Enlarge", { exact: true }).first().click();
  assert.match(await run(page), /^4102 × 4100 in .* The view here is reduced, the download is not\.$/);
  const shown = await page.evaluate(() => ["after", "before"].map((id) => document.getElementById(id).naturalWidth));
  assert.deepEqual(shown, [2051, 2051]);
  const { image } = await save(page);
  assert.deepEqual([image.width, image.height], [4102, 4100]);
  const means = await page.evaluate(() => {
    const context = Object.assign(document.createElement("canvas"), { width: 3, height: 3 }).getContext("2d");
    context.drawImage(document.getElementById("after"), -1000, -2000);
    return [...context.getImageData(0, 0, 3, 3).data];
  });
  for (const [x, y] of [
    [0, 0],
    [2, 1],
    [1, 2],
  ]) {
    for (let channel = 0; channel < 3; channel++) {
      let sum = 0;
      for (const [right, down] of [
        [0, 0],
        [1, 0],
        [0, 1],
        [1, 1],
      ]) {
        sum += image.data[((2 * (2000 + y) + down) * 4102 + 2 * (1000 + x) + right) * 4 + channel];
      }
      assert.ok(Math.abs(means[(y * 3 + x) * 4 + channel] - sum / 4) <= 0.5);
    }
  }
});

for (const [name, message] of [
  ["notes.png", /^notes\.png is too large, or not a picture that this browser can read/],
  ["empty.png", /^empty\.png is empty/],
  ["huge.png", /^huge\.png is too large for this device's memory: 16000 × 16000/],
  ["cut off.png", /^cut off\.png cannot be decoded/],
]) {
  test(`${name} is refused in words, and nothing is lost`, async () => {
    const page = await open({ address: tiny.address });
    await choose(page, "odd.png");
    await run(page);
    await page.evaluate(() => Object.defineProperty(navigator, "deviceMemory", { value: 4 }));
    await choose(page, name);
    if (name === "cut off.png") await page.click("#run"); // its header is whole
    await expectText(page, "#error", message);
    if (name === "cut off.png") await choose(page, "odd.png");
    else assert.ok(await page.isVisible("#download"));
    assert.match(await run(page), /^260 × 202 in /);
    assert.equal(await page.textContent("#error"), "");
  });
}

test("a result too large for the memory is refused before it begins", async () => {
  const page = await open();
  await page.evaluate(() => Object.defineProperty(navigator, "deviceMemory", { value: 0.003 }));
  await choose(page, "odd.png");
  await expectText(page, "#size", /^The result is too large for this device's memory: 520 × 404/);
  assert.ok(await page.isDisabled("#run"));
});

test("a run is cancelled within a tile, and the page goes on with the same model", async () => {
  const asked = [];
  const page = await open({ prepare: (page) => page.addInitScript(countTiles) });
  page.on("request", (request) => asked.push(basename(request.url())));
  await choose(page, "large.png");
  await page.click("#run");
  await expectText(page, "#status", /^Tile \d+ of 289$/);
  assert.ok(await page.isDisabled("#model"));
  await page.click("#cancel");
  assert.equal(await page.textContent("#status"), "Cancelled.");
  assert.ok(await page.isHidden("#download"));
  await page.evaluate(() => new Promise((resolve) => setTimeout(resolve))); // tiles that were computed already arrive
  const tiles = () => page.evaluate(() => globalThis.tiles);
  const before = await tiles();
  await choose(page, "one pixel.png");
  assert.match(await run(page), /^4 × 4 in /);
  assert.ok((await tiles()) - before <= 2, "the one that was being computed, and the one pixel's");
  assert.equal(asked.filter((name) => name === "x4_int8.tflite").length, 1);
});

test("a run is cancelled while the model is being loaded, and the page goes on", async () => {
  const page = await open({ address: tiny.address });
  let answer;
  const isCancelled = new Promise((resolve) => (answer = resolve));
  const answerLate = async (route) => {
    await isCancelled;
    await route.continue().catch(() => {}); // it was given up
  };
  await page.context().route("**/*.tflite", answerLate, { times: 1 });
  await choose(page, "odd.png");
  await page.click("#run");
  await expectText(page, "#status", /^Loading the model…$/);
  await page.click("#cancel");
  assert.equal(await page.textContent("#status"), "Cancelled.");
  answer();
  assert.match(await run(page), /^260 × 202 in /);
});

test("the page answers while a worker works", async () => {
  const page = await open({ prepare: (page) => page.addInitScript(countTiles) });
  await choose(page, "photo.png");
  await page.waitForSelector("#run:enabled");
  const ticks = await page.evaluate(async () => {
    document.querySelector("#run").click();
    const tick = () => new Promise((resolve) => setTimeout(resolve, 5));
    while (!globalThis.tiles) await tick(); // LiteRT and the model are loaded
    let count = 0;
    for (; !document.querySelector("#working").hidden; count++) await tick();
    return count;
  });
  assert.ok(ticks > 45, `answered ${ticks} times during its tiles`);
});

test("the keyboard does all of it, and all controls have names", async () => {
  const page = await open({ address: tiny.address });
  const chooser = page.waitForEvent("filechooser"); // before the next two steps: Chromium needs a moment to listen
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Choose a photo");
  await page.keyboard.press("Enter");
  await (await chooser).setFiles(at("odd.png"));
  for (const name of ["Model", "Precision", "Runs on"]) await page.getByRole("combobox", { name }).waitFor();
  await page.waitForSelector("#run:enabled");
  await page.focus("#run");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#compare", { state: "visible" });
  const split = page.getByRole("slider", { name: /shows the original/ });
  const cut = () => page.evaluate(() => document.getElementById("after").style.clipPath);
  const middle = await cut();
  await split.focus();
  for (let press = 0; press < 20; press++) await page.keyboard.press("ArrowRight");
  assert.equal(await split.inputValue(), "60");
  assert.notEqual(await cut(), middle);
  const zoom = async () => parseInt(await page.textContent("#zoom"));
  await page.keyboard.press("1");
  assert.equal(await zoom(), 100);
  await page.keyboard.press("+");
  assert.equal(await zoom(), 150);
  await page.keyboard.press("0");
  const unnamed = await page.evaluate(() =>
    [...document.querySelectorAll("button, select, input:not([hidden]), progress")]
      .filter((element) => !(element.labels?.length || element.ariaLabel || element.textContent.trim()))
      .map((element) => element.outerHTML),
  );
  assert.deepEqual(unnamed, []);
});

test("zoom keeps the point under the pointer, and the slider its place", async () => {
  const page = await open({ address: tiny.address });
  await choose(page, "odd.png");
  await run(page);
  const box = await page.locator("#scroller").boundingBox();
  const [x, y] = [box.x + box.width / 2 + 100, box.y + box.height / 2 - 50];
  const under = () =>
    page.evaluate(
      ([x, y]) => {
        const image = document.getElementById("after").getBoundingClientRect();
        return [(x - image.left) / image.width, (y - image.top) / image.height];
      },
      [x, y],
    );
  const start = await under();
  const most = Math.min(800, 3 * parseInt(await page.textContent("#zoom"))); // after three turns, of 1.5 each
  await page.mouse.move(x, y);
  await page.keyboard.down("Control");
  for (let turn = 0; turn < 3; turn++) await page.mouse.wheel(0, -100);
  await page.keyboard.up("Control");
  await page.waitForFunction((most) => parseInt(document.getElementById("zoom").value) >= most, most);
  const end = await under();
  assert.ok(Math.abs(end[0] - start[0]) < 0.01 && Math.abs(end[1] - start[1]) < 0.01, `${start} to ${end}`);
  await page.mouse.down();
  await page.mouse.move(x - 60, y, { steps: 5 });
  await page.mouse.up();
  const [image, cut] = await page.evaluate(() => {
    const after = document.getElementById("after");
    return [after.getBoundingClientRect().left, parseFloat(after.style.clipPath.match(/([\d.]+)px\)$/)[1])];
  });
  assert.ok(Math.abs(image + cut - (box.x + box.width / 2)) < 1.5, "the cut stays in the middle of the view");
});

test("without a GPU it says so, and does not offer it", async () => {
  const page = await open({ address: tiny.address });
  await expectText(page, "#limits", /^No GPU: this browser found none for pages\. $/);
  assert.ok(await page.isDisabled("#accelerator option[value=gpu]"));
});

test("a GPU that the page has and its worker has not is said, and the CPU taken", async () => {
  const page = await open({ address: tiny.address });
  await choose(page, "odd.png");
  await expectText(page, "#limits", /^No GPU/); // from then on the page leaves the option alone
  await page.evaluate(() => (document.querySelector("#accelerator option[value=gpu]").disabled = false));
  await page.selectOption("#accelerator", "gpu");
  assert.match(await run(page), /on the CPU with \d+ threads\. This browser offers no GPU\./);
});

test("a file is named by its size, not by a speed that is not so everywhere", async () => {
  const page = await open();
  const names = await page.locator("#precision option").allTextContents();
  assert.match(names[0], /^8 bit, small \(0\.\d MB\)$/);
  assert.deepEqual(
    names.filter((name) => /fast/.test(name)),
    [],
  );
});

test("WebGPU gives the same, and what it cannot run goes to the CPU", async () => {
  const emulated = await startChromium("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader");
  try {
    const page = await open({ address: tiny.address, from: emulated });
    await choose(page, "odd.png");
    await page.selectOption("#accelerator", "gpu");
    await page.selectOption("#precision", "float32");
    assert.match(await run(page), /MP\/s on the GPU\./);
    const { image } = await save(page);
    reference("floats", at("x2-tiny_float32.tflite"), at("odd.png"), at("floats"));
    const most = difference(image, readFloats(at("floats")), 3);
    assert.ok(most <= 0.6, `${most} grey levels`);
    await page.selectOption("#precision", "int8");
    assert.match(await run(page), /on the CPU with \d+ threads\. The GPU /);
    const { errors } = watched.pop();
    assert.deepEqual(errors, []);
  } finally {
    await emulated.close();
  }
});

test("it works offline with what was used before", async () => {
  const other = await startDemo("--model", folder);
  const answerLate = async (route) => {
    await setTimeout(1000);
    await route.continue();
  };
  // The list comes when the service worker is there already, but had not been when it was asked for.
  const prepare = (page) => page.route("**/models.json", answerLate, { times: 1 });
  const page = await open({ address: other.address, prepare });
  await choose(page, "odd.png");
  await run(page);
  await other.stop();
  await page.reload();
  await page.waitForSelector("#model option", { state: "attached" });
  await choose(page, "odd.png");
  assert.match(await run(page), /^260 × 202 in .* with \d+ threads/);
  await page.selectOption("#precision", "float32");
  await page.click("#run");
  await expectText(page, "#error", /Go online once/);
  watched.at(-1).errors.length = 0; // Chromium reports the failed request itself
});

test("a static site works without the headers, and has threads from the second visit on", async () => {
  writeSite(at("site"), "--model", folder);
  const read = (name) => readFileSync(join(folder, "site", name.replace("keras-psr/", "") || "index.html"));
  await withFiles(read, async (address) => {
    const context = await browser.newContext();
    const page = await context.newPage();
    await page.goto(`${address}keras-psr/`);
    await page.waitForSelector("#model option", { state: "attached" });
    await expectText(page, "#limits", /One core only, until the page is loaded again\.$/);
    await choose(page, "odd.png");
    assert.match(await run(page), /on the CPU\./);
    await page.reload();
    await choose(page, "odd.png");
    await page.waitForSelector("#run:enabled");
    assert.match(await run(page), /on the CPU with \d+ threads\./);
    await context.close();
  });
});

/** Uses the page at an address without HTTPS, where Chromium says why there are no threads, and nothing else. */
async function overPlainHttp(use) {
  const phone = await startChromium("--host-resolver-rules=MAP computer.test 127.0.0.1");
  try {
    await use({ address: tiny.address.replace("localhost", "computer.test"), from: phone });
    const { errors } = watched.pop();
    assert.deepEqual(
      errors.filter((text) => !text.includes("header has been ignored")),
      [],
    );
  } finally {
    await phone.close();
  }
}

test("over plain HTTP, as from a phone with --lan, it runs on one core", () =>
  overPlainHttp(async (options) => {
    const page = await open(options);
    await choose(page, "odd.png");
    assert.match(await run(page), /^260 × 202 in .* on the CPU\. $/);
    await expectText(page, "#limits", /One core only, because this address is not HTTPS\.$/);
  }));

test("requests to elsewhere are forbidden", async () => {
  const page = await open();
  const { errors } = watched.at(-1);
  const isSaid = page.waitForEvent("console", (message) => message.text().includes("Content Security Policy"));
  const answer = await page.evaluate(
    (address) =>
      fetch(address).then(
        () => "answered",
        (error) => error.name,
      ),
    tiny.address,
  );
  assert.equal(answer, "TypeError");
  await isSaid;
  errors.length = 0;
});

for (const colorScheme of ["light", "dark"]) {
  test(`it fits a phone of 360 pixels and a desktop, ${colorScheme}`, async () => {
    const phone = { viewport: { width: 360, height: 800 }, isMobile: true, hasTouch: true, deviceScaleFactor: 2 };
    for (const [device, options] of [
      ["phone", phone],
      ["desktop", {}],
    ]) {
      const page = await open({ colorScheme, ...options });
      await page.screenshot({ path: `${SCREENSHOTS}/${device}-${colorScheme}-start.png` });
      assert.equal(await page.isVisible("text=Take a photo"), device === "phone");
      await choose(page, "photo.png");
      await run(page);
      await page.waitForTimeout(300); // it scrolls to the picture
      await page.screenshot({ path: `${SCREENSHOTS}/${device}-${colorScheme}-result.png` });
      assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), options.viewport?.width ?? 1280);
      const small = await page.evaluate(() =>
        [...document.querySelectorAll("button, select, .button, #split")]
          .filter((element) => element.offsetParent && element.getBoundingClientRect().height < 44)
          .map((element) => element.outerHTML),
      );
      assert.deepEqual(small, []);
    }
  });
}

// The benchmark

async function openBenchmark(options) {
  const page = await open({ address: tiny.address, query: "?benchmark", ...options });
  await page.waitForSelector("#benchmark", { state: "visible" });
  return page;
}

const rowsOf = (page) =>
  page
    .locator("#rows tr")
    .evaluateAll((rows) => rows.map(({ cells }) => Array.from(cells, (cell) => cell.textContent)));

async function measure(page) {
  await page.click("#measure");
  await page.locator("#measured").filter({ hasText: "Done." }).waitFor({ timeout: 240_000 });
  return rowsOf(page);
}

/** The rows below the head of a table in Markdown, without the empty cells at their ends. */
function parseTable(text) {
  const rows = text.split("\n").filter((line) => line.startsWith("|"));
  const [head, separator, ...others] = rows.map((row) => row.match(/^\| (.*) \|$/)[1].split(/ ?(?<!\\)\| ?/));
  assert.deepEqual(head, ["Model", "Precision", "Runs on", "ms per tile", "MP/s"]);
  assert.deepEqual(separator, Array(5).fill("---"));
  for (const row of others) assert.equal(row.length, 5);
  return others.map((row) => row.filter(Boolean));
}

/** Checks the numbers of a row: a tile's pixels take the time that is said. */
function assertMeasured([name, variant, , milliseconds, speed]) {
  const { tile, halo, scale } = readMetadata(readFileSync(at(`${name}_${variant}.tflite`)));
  const megapixels = ((tile - 2 * halo) * scale) ** 2 / 1e6;
  assert.ok(milliseconds > 0 && milliseconds < 60_000, milliseconds);
  assert.ok(Math.abs((speed * milliseconds) / 1000 / megapixels - 1) < 0.02, `${milliseconds} ms, ${speed} MP/s`);
}

test("the benchmark measures each file on CPU and GPU, and its table can be copied", async () => {
  const emulated = await startChromium("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader");
  try {
    const page = await openBenchmark({ from: emulated, permissions: ["clipboard-read", "clipboard-write"] });
    assert.ok(await page.isHidden("#run"));
    assert.ok(await page.isDisabled("#copy"));
    const rows = await measure(page);
    assert.deepEqual(
      rows.map(([name, variant, place]) => [name, variant, place.replace(/\d+/, "2")]),
      [
        ["x2-tiny", "int8", "CPU, 2 threads"],
        ["x2-tiny", "float32", "CPU, 2 threads"],
        ["x2-tiny", "float32", "GPU"],
        ["soft-lines", "float32", "CPU, 2 threads"],
        ["soft-lines", "float32", "GPU"],
      ],
    );
    rows.forEach(assertMeasured);
    await page.click("#copy");
    await expectText(page, "#measured", /^Copied\.$/);
    const text = await page.evaluate(() => navigator.clipboard.readText());
    assert.deepEqual(parseTable(text), rows);
    const [machine] = text.split("\n\n");
    assert.equal(machine, await page.textContent("#machine"));
    const pattern = /^\S*Chrom\S* \d[\d.]+ on Linux.*; \d+ cores; GPU: .*swiftshader.*; keras-psr \d+\.\d+\.\d+; /i;
    assert.match(machine, pattern);
    assert.ok(machine.endsWith(new Date().toISOString().slice(0, 10)));
    const { errors } = watched.pop();
    assert.deepEqual(errors, []);
  } finally {
    await emulated.close();
  }
});

test("over plain HTTP the table is shown as text, with the reason of a file that cannot be measured", () =>
  overPlainHttp(async (options) => {
    const page = await openBenchmark(options);
    await page.route("**/x2-tiny_int8.tflite", (route) => route.fulfill({ body: "Dear reader," }));
    const [broken, ...others] = await measure(page);
    assert.deepEqual(broken, ["x2-tiny", "int8", "CPU", "The model is not a TFLite file."]);
    assert.deepEqual(
      others.map((row) => row.slice(0, 3)),
      [
        ["x2-tiny", "float32", "CPU, 1 thread"],
        ["soft-lines", "float32", "CPU, 1 thread"],
      ],
    );
    others.forEach(assertMeasured);
    await page.click("#copy");
    await page.waitForSelector("#plain", { state: "visible" });
    assert.deepEqual(parseTable(await page.inputValue("#plain")), [broken, ...others]);
  }));

test("a GPU that the page has and its worker has not is measured on no other device", async () => {
  const pretend = (page) =>
    page.addInitScript(() => {
      const requestAdapter = async () => ({ info: { vendor: "maker", architecture: "of GPUs", description: "" } });
      Object.defineProperty(Navigator.prototype, "gpu", { get: () => ({ requestAdapter }) });
    });
  const page = await openBenchmark({ prepare: pretend });
  const rows = await measure(page);
  assert.match(await page.textContent("#machine"), /; GPU: maker of GPUs; /);
  assert.deepEqual(
    rows.filter(([, , place]) => place === "GPU"),
    ["x2-tiny", "soft-lines"].map((name) => [name, "float32", "GPU", "This browser offers no GPU."]),
  );
  const others = rows.filter(([, , place]) => place !== "GPU");
  assert.equal(others.length, 3);
  others.forEach(assertMeasured);
});

test("the benchmark is stopped, keeps what it has, and begins anew", async () => {
  const page = await openBenchmark();
  let answer;
  const isStopped = new Promise((resolve) => (answer = resolve));
  const answerLate = async (route) => {
    await isStopped;
    await route.continue().catch(() => {}); // it was given up
  };
  await page.context().route("**/x2-tiny_float32.tflite", answerLate, { times: 1 });
  await page.click("#measure");
  await expectText(page, "#measured", /^x2-tiny, float32, CPU: 2 of 3$/);
  assert.equal(await page.textContent("#measure"), "Stop");
  await page.click("#measure");
  await expectText(page, "#measured", /^Stopped\.$/);
  answer();
  assert.deepEqual((await rowsOf(page)).map(([name, variant]) => [name, variant]), [["x2-tiny", "int8"]]);
  assert.ok(await page.isEnabled("#copy"));
  assert.equal((await measure(page)).length, 3);
});

test("the benchmark fits a phone of 360 pixels", async () => {
  const page = await openBenchmark({
    ...{ address: demo.address, viewport: { width: 360, height: 800 } },
    ...{ isMobile: true, hasTouch: true, deviceScaleFactor: 2 },
  });
  const isBroken = ({ pathname }) => pathname.endsWith(".tflite") && !pathname.endsWith("starry-night_int8.tflite");
  const answerPage = (route) => route.fulfill({ contentType: "text/html", body: "Not found" });
  await page.context().route(isBroken, answerPage); // to be quick, and for long reasons
  const rows = await measure(page);
  const entries = readdirSync(new URL("../../saved_models/", import.meta.url), { withFileTypes: true });
  const models = entries.filter((entry) => entry.isDirectory() && !entry.name.startsWith("_"));
  assert.equal(rows.length, 2 * models.length, "two files of each of the shipped models, each on the CPU");
  assert.equal(rows.filter((row) => row.length === 5).length, 1);
  await page.screenshot({ path: `${SCREENSHOTS}/benchmark-phone.png`, fullPage: true });
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360);
});
