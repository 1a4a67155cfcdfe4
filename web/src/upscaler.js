/** Enlarges and paints pictures with a `.tflite` file of keras-psr, on the device that shows the page. */

import { hasRelaxedSimd, hasThreads } from "./threads.js";

export { hasThreads };

/**
 * @typedef {import("./metadata.js").Metadata} Metadata
 *
 * @typedef {object} LoadOptions
 * @property {"auto" | "gpu" | "cpu"} [device] `auto`, the default, takes a GPU for float files if there is a real one
 * @property {AbortSignal} [signal] cancels the loading
 * @property {{2: string | URL, 4: string | URL}} [enlargers] of a style: addresses of files that enlarge 2 and 4 times,
 *   for `paintSize`; keras-psr takes `x2-fast` and `x4-photo`, in `int8` for a style in `int8`, else in `float32`
 *
 * @typedef {object} UpscaleOptions
 * @property {(progress: {done: number, total: number}) => void} [onProgress] called after each tile, with how many are
 *   done and how many there are
 * @property {AbortSignal} [signal] cancels: the promise is rejected at once, the worker stops after the tile that it is
 *   at, and the upscaler can be used again
 * @property {number} [strength] of a style: the share of the painting in the result, from 0 to 1; the rest is the picture
 * @property {boolean} [preserveColors] of a style: whether it paints brightness only and keeps the picture's colours
 * @property {number} [paintSize] of a style: a picture whose shorter side is longer than this is reduced to it and painted,
 *   and the painting is enlarged. A smaller size gives broader strokes. 0, the default, paints pictures at their size.
 *
 * @typedef {object} UpscaleResult
 * @property {Blob} png the result as a PNG, RGBA if the picture is transparent anywhere, else RGB
 * @property {Blob | null} preview a reduced PNG to show if the result has more than 16 million pixels, which many
 *   browsers do not show; else null
 * @property {number} width of the whole result in pixels
 * @property {number} height of the whole result in pixels
 */

const DEVICES = ["auto", "gpu", "cpu"];

/**
 * One `.tflite` file in a worker of its own. It takes one picture after the other.
 *
 * @example
 * const upscaler = await Upscaler.load("/models/x4_int8.tflite");
 * const { png } = await upscaler.upscale(file);
 * image.src = URL.createObjectURL(png);
 * upscaler.close();
 */
export class Upscaler {
  #worker = new Worker(new URL("../dist/worker.js", import.meta.url));
  /** @type {Map<number, any>} what the worker has not answered yet, by number */
  #asked = new Map();
  #count = 0;
  #isClosed = false;
  #hasEnlargers = false;
  /** @type {{metadata: Metadata, device: "gpu" | "cpu", threads: number, note: string} | undefined} */
  #state;

  /** @private Use `Upscaler.load`. */
  constructor() {
    this.#worker.onmessage = ({ data }) => this.#hear(data);
    this.#worker.onerror = (event) => {
      event.preventDefault();
      this.#fail(new Error(event.message || "The worker could not be started, or stopped."));
    };
  }

  /**
   * Loads a file, and LiteRT to run it with.
   * @param {string | URL} url of a `.tflite` that `keras-psr export` made
   * @param {LoadOptions} [options]
   * @returns {Promise<Upscaler>}
   * @throws {TypeError} `device` is not one of the three.
   * @throws {Error} The file is not one of keras-psr, or LiteRT cannot run it. Its `name` is `NetworkError` if the file
   *   cannot be downloaded, and `AbortError` if `signal` cancelled it.
   */
  static async load(url, { device = "auto", signal, enlargers } = {}) {
    if (!DEVICES.includes(device)) throw new TypeError(`device must be "auto", "gpu" or "cpu". Received: ${device}.`);
    if (signal?.aborted) throw reasonOf(signal);
    const addresses = enlargers && { 2: absolute(enlargers[2]), 4: absolute(enlargers[4]) };
    const upscaler = new Upscaler();
    upscaler.#hasEnlargers = Boolean(addresses);
    try {
      const load = { url: absolute(url), device, runtime: findRuntime(), enlargers: addresses };
      await upscaler.#ask({ load }, [], { signal });
      return upscaler;
    } catch (error) {
      upscaler.close();
      throw error;
    }
  }

  /**
   * Enlarges a picture, or paints it if the file is a style, into a PNG. A result of any size takes little more memory
   * than the picture, because it is written as it comes.
   * @param {ImageBitmapSource} image an ImageBitmap, a canvas, ImageData or a Blob; also an `img` or a `video`. It is
   *   8-bit sRGB afterwards; only ImageData keeps the colours of transparent pixels.
   * @param {UpscaleOptions} [options]
   * @returns {Promise<UpscaleResult>}
   * @throws {TypeError} `image` or an option is of another kind.
   * @throws {Error} Its `name` is `EncodingError` if a Blob cannot be decoded, `RangeError` if there is not enough
   *   memory, and `AbortError` if `signal` cancelled it or the upscaler was closed.
   */
  async upscale(image, options = {}) {
    return await this.#run(image, options, false);
  }

  /**
   * The same into plain pixels, for a canvas: `context.putImageData(await upscaler.upscalePixels(video), 0, 0)`.
   * @param {ImageBitmapSource} image
   * @param {UpscaleOptions} [options]
   * @returns {Promise<ImageData>}
   */
  async upscalePixels(image, options = {}) {
    const { data, width, height } = await this.#run(image, options, true);
    return new ImageData(data, width, height);
  }

  /** What `keras-psr export` wrote into the file: name, task, scale and more. */
  get metadata() {
    return this.#known.metadata;
  }

  /** How many times as wide and high a result is; 1 for a style. */
  get scale() {
    return this.metadata.scale;
  }

  /** What it runs on: `gpu` or `cpu`. If the GPU fails in the middle of a picture, this changes to `cpu`. */
  get device() {
    return this.#known.device;
  }

  /** The number of CPU threads that it uses; 0 on a GPU. */
  get threads() {
    return this.#known.threads;
  }

  /** Why it does not run on the GPU that was asked for, as a sentence; else empty. */
  get note() {
    return this.#known.note;
  }

  /** Ends the worker and frees its memory. Unfinished work is rejected with an `AbortError`. */
  close() {
    this.#fail(new DOMException("The upscaler was closed.", "AbortError"));
  }

  get #known() {
    if (!this.#state) throw new Error("Use `await Upscaler.load(url)`.");
    return this.#state;
  }

  /**
   * @param {ImageBitmapSource} image
   * @param {UpscaleOptions} options
   * @param {boolean} asPixels
   */
  async #run(image, { strength = 1, preserveColors = false, paintSize = 0, ...listeners }, asPixels) {
    if (!(strength >= 0 && strength <= 1)) throw new TypeError(`strength must be from 0 to 1. Received: ${strength}.`);
    if (!(paintSize >= 0)) throw new TypeError(`paintSize must be a number of pixels, or 0. Received: ${paintSize}.`);
    if (this.scale > 1 && (strength < 1 || preserveColors || paintSize)) {
      throw new TypeError(`strength, preserveColors and paintSize are for styles. ${this.metadata.name} enlarges.`);
    }
    if (paintSize && !this.#hasEnlargers) {
      throw new TypeError(
        "paintSize needs files that enlarge paintings: give Upscaler.load their addresses, `enlargers`.",
      );
    }
    const [sent, transfer] = await toSend(image);
    return await this.#ask({ image: sent, asPixels, strength, preserveColors, paintSize }, transfer, listeners);
  }

  /**
   * Sends a message to the worker.
   * @param {object} message
   * @param {Transferable[]} transfer
   * @param {Pick<UpscaleOptions, "signal" | "onProgress">} listeners
   * @returns {Promise<any>} the result in its answer
   */
  #ask(message, transfer, { signal, onProgress }) {
    const number = ++this.#count;
    return new Promise((resolve, reject) => {
      const cancel = () => {
        this.#worker.postMessage({ number, cancel: true });
        settle();
        reject(reasonOf(signal));
      };
      const settle = () => {
        signal?.removeEventListener("abort", cancel);
        this.#asked.delete(number);
      };
      if (signal?.aborted) return reject(reasonOf(signal));
      if (this.#isClosed) return reject(new DOMException("The upscaler was closed.", "AbortError"));
      signal?.addEventListener("abort", cancel);
      this.#asked.set(number, { resolve, reject, settle, onProgress });
      this.#worker.postMessage({ number, ...message }, transfer);
    });
  }

  /** @param {any} answer of the worker: progress, or the end */
  #hear({ number, done, total, result, state, error }) {
    const asked = this.#asked.get(number);
    if (!asked) return; // it was cancelled
    if (total) return asked.onProgress?.({ done, total });
    this.#state = state ?? this.#state;
    asked.settle();
    if (error)
      asked.reject(Object.assign(new Error(error.message), { name: error.name })); // DOMExceptions, too
    else asked.resolve(result);
  }

  /** @param {Error | DOMException} error */
  #fail(error) {
    this.#isClosed = true;
    this.#worker.terminate();
    for (const { settle, reject } of [...this.#asked.values()]) {
      settle();
      reject(error);
    }
  }
}

/**
 * An address in full, because the worker has another one.
 * @param {string | URL} url
 */
const absolute = (url) => new URL(url, globalThis.document?.baseURI ?? location.href).href;

/**
 * What can be sent to the worker: files and plain pixels as they are, everything else as a copy.
 * @param {ImageBitmapSource} image
 * @returns {Promise<[Blob | ImageData | ImageBitmap, Transferable[]]>}
 */
async function toSend(image) {
  if (image instanceof Blob || isPlain(image)) return [image, []];
  try {
    const bitmap = await createImageBitmap(image);
    return [bitmap, [bitmap]];
  } catch (error) {
    const reason = error instanceof Error ? error.message : error;
    throw new TypeError(`image must be an ImageBitmap, a canvas, ImageData or a Blob, with pixels. ${reason}`);
  }
}

/**
 * Whether it is ImageData of 8 bits in sRGB; the browser converts others.
 * @param {ImageBitmapSource} image
 * @returns {image is ImageData}
 */
const isPlain = (image) =>
  image instanceof ImageData && image.data instanceof Uint8ClampedArray && image.colorSpace !== "display-p3";

/** LiteRT for this browser: with threads, without them, or without relaxed SIMD. Bundlers want each address in full. */
function findRuntime() {
  const [script, wasm] = hasThreads()
    ? [
        new URL("../dist/litert/litert_wasm_threaded_internal.js", import.meta.url),
        new URL("../dist/litert/litert_wasm_threaded_internal.wasm", import.meta.url),
      ]
    : hasRelaxedSimd()
      ? [
          new URL("../dist/litert/litert_wasm_internal.js", import.meta.url),
          new URL("../dist/litert/litert_wasm_internal.wasm", import.meta.url),
        ]
      : [
          new URL("../dist/litert/litert_wasm_compat_internal.js", import.meta.url),
          new URL("../dist/litert/litert_wasm_compat_internal.wasm", import.meta.url),
        ];
  return { script: script.href, wasm: wasm.href };
}

/** @param {AbortSignal | undefined} signal */
const reasonOf = (signal) => signal?.reason ?? new DOMException("Cancelled.", "AbortError");
