/** `?benchmark` in the page's address: how fast this device runs each model, as a table that can be copied. */

import { Upscaler } from "keras-psr";
import { version } from "keras-psr/package.json";

const TILES = 12;

const names = "benchmark machine measure share-done measured rows copy plain";
const page = Object.fromEntries(names.split(" ").map((name) => [name, document.getElementById(name)]));

let running = null; // stops the measurement

/**
 * Shows the benchmark in place of everything else.
 * @param {object[]} models of `models.json`
 * @param {Promise<void>} isControlled resolves when what is loaded from then on is kept for use offline
 */
export async function showBenchmark(models, isControlled) {
  document.querySelector("main").hidden = true;
  page.benchmark.hidden = false;
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  page.machine.textContent = await describeMachine(adapter);
  const jobs = listJobs(models, Boolean(adapter));
  page.measure.addEventListener("click", () => (running ? running.abort() : measure(jobs, isControlled)));
  page.copy.addEventListener("click", copy);
  page.measure.disabled = false;
}

/** Each file on each device. 16 bits take the time of 32 here, and LiteRT.js computes integers on CPUs only. */
const listJobs = (models, hasGpu) =>
  models.flatMap(({ name, files }) =>
    files
      .filter(({ variant }) => variant !== "float16")
      .flatMap(({ variant, url }) =>
        (hasGpu && variant !== "int8" ? ["cpu", "gpu"] : ["cpu"]).map((device) => ({ name, variant, url, device })),
      ),
  );

// The machine

async function describeMachine(adapter) {
  const { vendor, architecture, description } = adapter?.info ?? {};
  const name = description || [vendor, architecture].filter(Boolean).join(" ") || "not named";
  const gpu = adapter ? name : "none for pages";
  const [browser, date] = [await describeBrowser(), new Date().toISOString().slice(0, 10)];
  return `${browser}; ${navigator.hardwareConcurrency} cores; GPU: ${gpu}; keras-psr ${version}; ${date}`;
}

/** Browser, system and processor, as far as the browser tells them. */
async function describeBrowser() {
  const hints = ["fullVersionList", "platformVersion", "model", "architecture", "bitness"];
  const facts = await navigator.userAgentData?.getHighEntropyValues(hints).catch(() => null);
  if (!facts?.fullVersionList?.length) return navigator.userAgent;
  const { platform, platformVersion, model, architecture, bitness } = facts;
  const brands = facts.fullVersionList.filter(({ brand }) => !/not.*brand/i.test(brand)); // a placeholder
  const { brand, version } = brands.find(({ brand }) => brand !== "Chromium") ?? brands[0];
  const processor = architecture && `${architecture} with ${bitness} bits`;
  const system = [platform, platformVersion].filter(Boolean).join(" ");
  return [`${brand} ${version} on ${system}`, model, processor].filter(Boolean).join("; ");
}

// Measuring

async function measure(jobs, isControlled) {
  const { signal } = (running = new AbortController());
  page.rows.replaceChildren();
  page.measured.textContent = "Starting…";
  setMeasuring(true);
  await isControlled;
  for (const [index, job] of jobs.entries()) {
    if (signal.aborted) break;
    const { name, variant, device } = job;
    page.measured.textContent = `${name}, ${variant}, ${device.toUpperCase()}: ${index + 1} of ${jobs.length}`;
    page["share-done"].value = index / jobs.length;
    const onProgress = (share) => (page["share-done"].value = (index + share) / jobs.length);
    try {
      addRow(job, await measureFile(job, signal, onProgress));
    } catch (error) {
      if (!signal.aborted) addRow(job, { reason: error.message });
    }
  }
  page.measured.textContent = signal.aborted ? "Stopped." : "Done.";
  running = null;
  setMeasuring(false);
}

/** How many milliseconds a file takes for a tile, the median of several. Fails on any other device. */
async function measureFile({ url, device }, signal, onProgress) {
  const upscaler = await Upscaler.load(url, { device, signal });
  const check = () => {
    if (upscaler.device !== device) throw new Error(upscaler.note);
  };
  try {
    check();
    const { tile, halo, scale } = upscaler.metadata;
    const side = tile - 2 * halo;
    const picture = makePicture(TILES * side, side);
    let times;
    for (const round of [0, 1]) {
      times = []; // of the last round: browsers compile what runs often once more, for speed
      const hear = ({ done, total }) => (times.push(performance.now()), onProgress((round + done / total) / 2));
      await upscaler.upscalePixels(picture, { signal, onProgress: hear });
      check(); // a GPU may fail on the way
    }
    const between = times.slice(1).map((time, index) => time - times[index]);
    const milliseconds = between.sort((one, other) => one - other)[between.length >> 1];
    return { milliseconds, speed: (side * scale) ** 2 / 1e3 / milliseconds, threads: upscaler.threads };
  } finally {
    upscaler.close();
  }
}

/** A picture without even areas, because even results count as failures of a GPU. */
function makePicture(width, height) {
  const picture = new ImageData(width, height);
  picture.data.forEach((_, place, data) => (data[place] = place % 4 === 3 ? 255 : (place * 7) % 251));
  return picture;
}

function setMeasuring(isMeasuring) {
  page.measure.textContent = isMeasuring ? "Stop" : "Measure";
  page["share-done"].hidden = !isMeasuring;
  page.copy.disabled = isMeasuring || !page.rows.children.length;
  page.plain.hidden = true;
}

// The table

function addRow({ name, variant, device }, { milliseconds, speed, threads, reason }) {
  const place = device.toUpperCase() + (threads ? `, ${threads} thread${threads > 1 ? "s" : ""}` : "");
  const row = page.rows.insertRow();
  const cells = [name, variant, place, ...(reason ? [reason] : [round(milliseconds), round(speed)])];
  for (const text of cells) row.insertCell().textContent = text;
  if (reason) row.lastChild.colSpan = 2;
}

/** A number with three digits, or all those before its point. */
const round = (value) => (value < 100 ? `${Number(value.toPrecision(3))}` : value.toFixed());

/** The table in Markdown, with the machine above it. */
function toMarkdown() {
  const [head, ...rows] = [...page.rows.parentElement.rows].map(({ cells }) => [...cells].map(textOf));
  const table = [head, head.map(() => "---"), ...rows.map((cells) => head.map((_, index) => cells[index] ?? ""))];
  const lines = table.map((cells) => `| ${cells.join(" | ")} |`);
  return `${page.machine.textContent}\n\n${lines.join("\n")}\n`;
}

const textOf = (cell) => cell.textContent.replace(/\s+/g, " ").replaceAll("|", "\\|");

/** Copies the text. Without HTTPS, pages have no clipboard: then the text is shown, to be copied by hand. */
async function copy() {
  page.plain.value = toMarkdown();
  try {
    await navigator.clipboard.writeText(page.plain.value);
    page.measured.textContent = "Copied.";
  } catch {
    page.plain.hidden = false;
    page.plain.select();
    page.measured.textContent = "This browser does not let pages copy. Copy the text below.";
  }
}
