/** The page: choosing a picture and a model, running it, showing and saving the result. */

import { hasThreads, Upscaler } from "keras-psr";

import { describeCompression, readCompression } from "./compression.js";
import { canRecord, Live } from "./live.js";
import { save, toJpeg } from "./saving.js";
import { showAfter, showBefore } from "./viewer.js";

const ids =
  "stage empty toolbar tasks task-field model precision accelerator size run " +
  "limits working progress cancel status error download photo camera " +
  "viewer live film canvas rate recording live-toolbar snap record turn stop " +
  "choice sample saving jpeg share styles pictures painting strength strength-text paint-size colours";
const page = Object.fromEntries(ids.split(" ").map((id) => [id, document.getElementById(id)]));
const form = document.getElementById("settings");

const ENLARGE = "Enlarge";
const PAINT = "Paint";
const PRECISIONS = { int8: "8 bit, small", float16: "16 bit", float32: "32 bit, exact" };
const PLACES = { gpu: "GPU", cpu: "CPU" };

let models = [];
let enlargers = {}; // addresses of the files that enlarge paintings, by variant and scale
let choices = null; // names of the models for clean and for lossy pictures, until the user chooses one
let picture = null; // { file, url, width, height, compression }
let loading = null; // { key, upscaler, controller }: one file on one device, its `key`; `upscaler` is a promise
let running = null; // cancels the run
const live = new Live(page.canvas, page.film, showRate, () => stopLive("The camera was disconnected."));
let saved = null; // the result, as a file with a name
let results = []; // addresses of the result and of its preview

// Choosing a model

async function loadModels() {
  const response = await fetch("models.json").catch(() => null);
  if (!response?.ok) return showError("The list of models could not be loaded. Reload the page.");
  const site = await response.json();
  models = site.models;
  enlargers = site.enlargers;
  if (site.lossy && site.lossy !== site.default) choices = { clean: site.default, lossy: site.lossy };
  const tasks = [ENLARGE, PAINT].filter((task) => models.some((model) => taskOf(model) === task));
  page.tasks.replaceChildren(...tasks.map(makeSegment));
  page["task-field"].hidden = tasks.length < 2;
  const first = models.find(({ name }) => name === site.default) ?? models[0];
  form.elements.task.value = taskOf(first);
  listModels();
  page.model.value = first.name;
  listPrecisions();
}

function makeSegment(task) {
  const label = document.createElement("label");
  const radio = Object.assign(document.createElement("input"), { type: "radio", name: "task", value: task });
  label.append(radio, task);
  return label;
}

const taskOf = (model) => (model.task === "super-resolution" ? ENLARGE : PAINT);

const makeOption = ([value, text]) => new Option(text, value);

function listModels() {
  const task = form.elements.task.value;
  const listed = models.filter((model) => taskOf(model) === task);
  page.model.replaceChildren(...listed.map((model) => makeOption([model.name, describe(model)])));
  const shown = listed.filter(({ picture }) => picture);
  page.styles.hidden = !shown.length;
  page.pictures.replaceChildren(...shown.map(makePicture));
  page.painting.hidden = task !== PAINT;
}

/** A choice of a style, shown by a photo that it painted. */
function makePicture(model) {
  const label = document.createElement("label");
  const radio = Object.assign(document.createElement("input"), { type: "radio", name: "style", value: model.name });
  label.append(radio, Object.assign(new Image(), { src: model.picture, alt: "" }), describe(model));
  return label;
}

/** `x4-fast` becomes "×4 fast", `starry-night` "Starry night". */
function describe({ name, scale }) {
  const words = name.replaceAll("-", " ").replace(new RegExp(`^x${scale}\\b`), `×${scale}`);
  return words[0].toUpperCase() + words.slice(1);
}

function listPrecisions() {
  const { files, name } = chosenModel();
  for (const radio of page.pictures.querySelectorAll("input")) radio.checked = radio.value === name;
  const wanted = page.precision.value;
  page.precision.replaceChildren(
    ...files.map(({ variant, bytes }) =>
      makeOption([variant, `${PRECISIONS[variant] ?? variant} (${megabytes(bytes)})`]),
    ),
  );
  if (files.some(({ variant }) => variant === wanted)) page.precision.value = wanted;
  showSize();
}

const megabytes = (bytes) => (bytes < 1e5 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);
const chosenModel = () => models.find(({ name }) => name === page.model.value);
const chosenFile = () => chosenModel().files.find(({ variant }) => variant === page.precision.value);

/** Strength and colours of a painting; enlarging has neither. */
const adjustment = () =>
  taskOf(chosenModel()) === PAINT
    ? {
        strength: page.strength.value / 100,
        preserveColors: page.colours.checked,
        paintSize: Number(page["paint-size"].value),
      }
    : {};

// Choosing a picture

async function chooseSample() {
  const response = await fetch("sample.jpg").catch(() => null);
  if (!response?.ok) return showError("The sample could not be loaded. Choose a photo, or reload the page.");
  await choose(new File([await response.blob()], "sample.jpg", { type: "image/jpeg" }));
}

async function choose(file) {
  stopLive();
  showError("");
  page.run.disabled = true; // until the new picture is known, or a click would take the one before it
  const url = URL.createObjectURL(file);
  try {
    if (!file.size) throw new Error(`${file.name} is empty. Choose another picture.`);
    const { width, height } = await readSize(url, file.name);
    if (2 * memoryFor(width, height, 1) > memoryLimit()) throw new Error(`${file.name} ${tooLarge(width, height)}`);
    const compression = readCompression(new Uint8Array(await file.arrayBuffer()));
    forgetResult();
    if (picture) URL.revokeObjectURL(picture.url);
    picture = { file, url, width, height, compression };
    page.empty.hidden = true;
    page.toolbar.hidden = false;
    page.status.textContent = "";
    showBefore(url, width, height);
    chooseModel();
  } catch (error) {
    URL.revokeObjectURL(url);
    showError(error.message);
  }
  showSize();
}

/** Chooses the model that suits the picture's file, as `keras-psr upscale` does, unless the user has chosen one. */
function chooseModel() {
  page.choice.textContent = "";
  if (!choices || !picture || form.elements.task.value !== ENLARGE) return;
  const kind = picture.compression.hasArtefacts ? "lossy" : "clean";
  page.model.value = choices[kind];
  listPrecisions();
  const reason = describeCompression(picture.compression);
  page.choice.textContent = `${describe(chosenModel())} for a ${kind} picture (${reason}).`;
}

/** Keeps the model that the user has chosen, for all further pictures. */
function keepModel() {
  if (form.elements.task.value === ENLARGE) choices = null;
  page.choice.textContent = "";
  listPrecisions();
}

/** Reads a picture's size, turned upright, which browsers know before they decode the pixels. */
async function readSize(url, name) {
  const image = new Image();
  image.src = url;
  await new Promise((resolve, reject) => {
    image.onload = resolve;
    image.onerror = () =>
      reject(
        new Error(`${name} is too large, or not a picture that this browser can read. Choose a JPEG, PNG or WebP.`),
      );
  });
  return { width: image.naturalWidth, height: image.naturalHeight };
}

// Memory: RGBA of the picture and of the result. Browsers leave a page a quarter of the device's memory.
const memoryFor = (width, height, scale) => 4 * width * height * (1 + scale ** 2);
const memoryLimit = () => ((navigator.deviceMemory ?? 4) * 2 ** 30) / 4;
const tooLarge = (width, height) =>
  `is too large for this device's memory: ${width} × ${height}. Choose a smaller picture, or crop it first.`;

function showSize() {
  page.run.disabled = true;
  if (!models.length) return;
  const { scale } = chosenModel();
  page.run.textContent = taskOf(chosenModel());
  page.run.hidden = live.isOpen;
  page.size.textContent = "";
  if (!picture || live.isOpen) return;
  const { width, height } = picture;
  const [newWidth, newHeight] = [width * scale, height * scale];
  const fits = memoryFor(width, height, scale) <= memoryLimit();
  page.size.textContent = fits
    ? `${width} × ${height} → ${newWidth} × ${newHeight} (${((newWidth * newHeight) / 1e6).toFixed(1)} MP)`
    : `The result ${tooLarge(newWidth, newHeight)} Or take a smaller factor.`;
  page.run.disabled = !fits;
}

// Running

async function run() {
  showError("");
  setWorking(true);
  page.progress.removeAttribute("value");
  page.status.textContent = "Loading the model…";
  const { signal } = (running = new AbortController());
  try {
    const upscaler = await loadUpscaler();
    if (signal.aborted) return;
    const begin = performance.now();
    const result = await upscaler.upscale(picture.file, { signal, onProgress: showProgress, ...adjustment() });
    await finish(result, upscaler, (performance.now() - begin) / 1000);
  } catch (error) {
    if (!signal.aborted) fail(error.message);
  }
}

/** The chosen file's upscaler, which is loaded unless it already is. */
async function loadUpscaler() {
  const { url, variant } = chosenFile();
  const device = page.accelerator.value;
  const key = `${url} ${device}`;
  if (loading?.key !== key) {
    closeUpscaler();
    const controller = new AbortController();
    const options = {
      device,
      signal: controller.signal,
      enlargers: enlargers[variant === "int8" ? "int8" : "float32"],
    };
    const load = () => Upscaler.load(url, options);
    loading = { key, controller, upscaler: isControlled.then(load) }; // so that what is loaded is kept for use offline
  }
  return await loading.upscaler.catch((error) => {
    if (error.name !== "NetworkError") throw error;
    throw new Error("The model could not be loaded. Go online once, then it is kept for later.");
  });
}

function closeUpscaler() {
  loading?.controller.abort();
  loading?.upscaler.then(
    (upscaler) => upscaler.close(),
    () => {}, // whoever awaits it receives the error
  );
  loading = null;
}

function showProgress({ done, total }) {
  page.progress.value = done / total;
  page.status.textContent = `Tile ${done} of ${total}`;
}

async function finish({ png, preview, width, height }, { device, threads, note }, seconds) {
  setWorking(false);
  forgetResult();
  results = [png, preview ?? png].map((blob) => URL.createObjectURL(blob));
  const name = `${picture.file.name.replace(/\.[^.]*$/, "")}_${chosenModel().name}.png`;
  saved = new File([png], name, { type: "image/png" });
  page.saving.hidden = false;
  page.share.hidden = !navigator.canShare?.({ files: [saved] });
  Object.assign(page.download, { href: results[0], download: name });
  page.download.textContent = `Download PNG (${megabytes(png.size)})`;
  const speed = (width * height) / 1e6 / seconds;
  page.status.textContent =
    `${width} × ${height} in ${seconds.toFixed(1)} s, ${speed.toFixed(2)} MP/s on the ${placeOf(device, threads)}. ${note}` +
    (preview ? " The view here is reduced, the download is not." : "");
  page.download.focus({ preventScroll: true });
  await showAfter(results[1], width, height);
}

const placeOf = (device, threads) => PLACES[device] + (threads > 1 ? ` with ${threads} threads` : "");

function fail(message) {
  closeUpscaler();
  setWorking(false);
  page.status.textContent = "";
  showError(message);
}

function cancel() {
  running.abort();
  if (page.progress.position < 0) closeUpscaler(); // before the first tile, nothing else ends its loading or decoding
  setWorking(false);
  page.status.textContent = "Cancelled.";
}

function forgetResult() {
  results.forEach((url) => URL.revokeObjectURL(url));
  results = [];
  saved = null;
  page.saving.hidden = true;
}

async function saveJpeg() {
  const { name } = saved;
  try {
    save(await toJpeg(saved), name.replace(/png$/, "jpg"));
  } catch {
    showError("This browser cannot make a JPEG of a picture that large. Download the PNG.");
  }
}

/** Hands the result to another app, which the user chooses. */
async function share() {
  try {
    await navigator.share({ files: [saved] });
  } catch (error) {
    if (error.name !== "AbortError") showError(`It could not be shared (${error.message}). Download it instead.`);
  }
}

function setWorking(isWorking) {
  page.working.hidden = !isWorking;
  for (const element of [...form.elements, ...page.toolbar.querySelectorAll("[data-picks], [data-starts]")])
    element.disabled = isWorking;
  (isWorking ? page.cancel : page.run).focus({ preventScroll: true });
  page.stage.scrollIntoView({ block: "nearest", behavior: "smooth" });
}

function showError(message) {
  page.error.textContent = message;
}

// The live camera

async function startLive(which) {
  showError("");
  if (!live.isOpen) preferFast();
  page.status.textContent = "Starting the camera…";
  try {
    await live.open(which);
    const next = await live.camera?.next();
    if (!live.isOpen) return (page.status.textContent = ""); // stopped meanwhile
    page.turn.hidden = !next;
    setLive(true);
    await showLive();
  } catch (error) {
    failLive(error);
  }
}

function failLive(error) {
  page.status.textContent = "";
  stopLive();
  showError(error.message);
}

/** The fast variant of a model, which a live camera uses if there is one. */
function preferFast() {
  page.choice.textContent = "";
  const fast = `${choices && form.elements.task.value === ENLARGE ? choices.clean : page.model.value}-fast`;
  if (!models.some(({ name }) => name === fast)) return;
  page.model.value = fast;
  listPrecisions();
}

/** Shows the camera through the chosen file; called again whenever another is chosen. */
async function showLive() {
  page.rate.value = "";
  page.status.textContent = "Loading the model…";
  try {
    const upscaler = await loadUpscaler();
    if (live.isOpen) await live.show(upscaler, () => ({ ...adjustment(), paintSize: 0 })); // it is small already
  } catch (error) {
    if (error.name !== "AbortError") throw error; // else it was stopped, or another file was chosen
  }
}

function showRate({ width, height, rate, device, threads, isSmallest }) {
  page.rate.value = `${width} × ${height}` + (rate ? `, ${rate.toFixed(rate < 9.95 ? 1 : 0)} pictures/s` : "");
  const text = `Live on the ${placeOf(device, threads)}. Nothing is uploaded.`;
  const slow = isSmallest && rate < 8 ? " This device is slow for this model; others may be smoother." : "";
  if (page.status.textContent !== text + slow) page.status.textContent = text + slow;
}

function stopLive(reason = "") {
  live.stop(); // even if the camera is still being started
  if (page.live.hidden) return;
  closeUpscaler();
  setLive(false);
  page.status.textContent = reason;
}

function setLive(isLive) {
  page.live.hidden = page["live-toolbar"].hidden = !isLive;
  page.empty.hidden = isLive || Boolean(picture);
  page.viewer.hidden = page.toolbar.hidden = isLive || !picture;
  if (isLive) forgetResult();
  else if (picture) showBefore(picture.url, picture.width, picture.height);
  showSize();
  page.stage.scrollIntoView({ block: "nearest", behavior: "smooth" });
}

async function recordClip() {
  if (live.recorder) return live.recorder.stop();
  setRecording(true);
  try {
    const clip = await live.record();
    save(clip, nameLive(clip.type.split("/")[1]));
  } catch (error) {
    showError(`The clip could not be recorded (${error.message}).`);
  }
  setRecording(false);
}

function setRecording(isRecording) {
  page.recording.hidden = !isRecording;
  page.record.textContent = isRecording ? "End the clip" : "Record a clip";
  for (const element of [...form.elements, page.turn]) element.disabled = isRecording; // they would change its size
}

const nameLive = (extension) => `camera_${chosenModel().name}.${extension}`;

// Events

for (const button of document.querySelectorAll("[data-picks]")) {
  button.addEventListener("click", () => page[button.dataset.picks].click());
}
for (const input of [page.photo, page.camera]) {
  input.addEventListener("change", () => {
    if (input.files.length) choose(input.files[0]);
    input.value = ""; // so that the same file can be chosen again
  });
}
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  page.stage.classList.add("dragged-over");
});
document.addEventListener("dragleave", () => page.stage.classList.remove("dragged-over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  page.stage.classList.remove("dragged-over");
  if (event.dataTransfer.files.length && page.working.hidden) choose(event.dataTransfer.files[0]);
});
page.tasks.addEventListener("change", () => (listModels(), listPrecisions(), chooseModel()));
page.model.addEventListener("change", keepModel);
page.pictures.addEventListener("change", ({ target }) => {
  page.model.value = target.value;
  listPrecisions();
});
page.strength.addEventListener("input", () => (page["strength-text"].value = `${page.strength.value} %`));
page.sample.addEventListener("click", chooseSample);
page.jpeg.addEventListener("click", saveJpeg);
page.share.addEventListener("click", share);
form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!live.isOpen) run();
});
page.cancel.addEventListener("click", cancel);

for (const button of document.querySelectorAll("[data-starts=live]")) {
  button.addEventListener("click", () => startLive());
}
form.addEventListener("change", ({ target }) => {
  if (target.closest("#painting")) return; // these are read for each picture
  if (live.isOpen) showLive().catch(failLive);
});
page.stop.addEventListener("click", () => stopLive());
page.turn.addEventListener("click", async () => startLive(await live.camera.next()));
page.snap.addEventListener("click", async () => save(await live.picture(), nameLive("png")));
page.record.hidden = !canRecord();
page.record.addEventListener("click", recordClip);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) stopLive("The camera was switched off when the page was hidden.");
});
addEventListener("pagehide", () => stopLive());

// What this browser cannot do

/** Says why models run slower here than they could, if they do. */
async function showLimits() {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  let limit = "";
  if (!adapter) {
    Object.assign(page.accelerator.querySelector("[value=gpu]"), { text: "GPU (none here)", disabled: true });
    limit = navigator.gpu ? "No GPU: this browser found none for pages. " : "No GPU: this browser has no WebGPU here. ";
  }
  page.limits.textContent = limit + coreLimit();
}

function coreLimit() {
  if (!isSecureContext) return "One core only, because this address is not HTTPS.";
  if (!crossOriginIsolated) return "One core only, until the page is loaded again.";
  return hasThreads() ? "" : "One core only: several times slower than in Chrome or Firefox.";
}

/** With `?benchmark` in its address, the page measures its models and does nothing else. */
async function openBenchmark() {
  if (!models.length || !new URLSearchParams(location.search).has("benchmark")) return;
  const benchmark = await import("./benchmark.js").catch(() => null);
  if (!benchmark) return showError("The benchmark could not be loaded. Go online once, and reload the page.");
  await benchmark.showBenchmark(models, isControlled);
}

const loaded =
  "OffscreenCanvas" in window
    ? loadModels().then(openBenchmark)
    : showError("This browser is too old: it needs Chrome 92, Firefox 105, Safari 16.4 or newer.");

Promise.resolve(loaded).then(showLimits); // after the models, because some browsers take a while to find a GPU

/** Resolves when the service worker keeps what is loaded from then on, or when there is none. */
const isControlled = (async () => {
  try {
    const { active } = await navigator.serviceWorker.register("service-worker.js");
    if (active) return;
    await new Promise((resolve) => {
      navigator.serviceWorker.addEventListener("controllerchange", resolve, { once: true });
      setTimeout(resolve, 10_000);
    });
    await loaded;
    // What this first visit loaded before that is loaded once more, so that it is kept.
    const names = performance.getEntriesByType("resource").map(({ name }) => name);
    await Promise.all([location.href, ...names].map((name) => fetch(name)));
  } catch {
    // Over plain HTTP, only localhost has a service worker; elsewhere the page works, but not offline.
  }
})();
