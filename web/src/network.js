/** A `.tflite` file of keras-psr as a function of tiles, run by LiteRT.js on the GPU or the CPU. */

import { getGlobalLiteRt, getWebGpuDevice, loadAndCompile, loadLiteRt, Tensor } from "@litertjs/core";
import { readMetadata } from "./metadata.js";
import { hasThreads } from "./threads.js";

const RUNTIME = new URL("../litert/", self.location.href).href;

/**
 * @param {string} url of the file
 * @param {"auto"|"gpu"|"cpu"} accelerator `auto` takes the GPU for float files if there is one
 * @returns {Promise<Network>}
 */
export async function loadNetwork(url, accelerator) {
  const response = await fetch(url).catch(() => null);
  if (!response?.ok) throw new Error("The model could not be loaded. Go online once, then it is kept for later.");
  const file = new Uint8Array(await response.arrayBuffer());
  const metadata = readMetadata(file);
  runtime ??= loadRuntime();
  await runtime.catch((error) => {
    throw new Error(`LiteRT could not be started (${error.message}). Reload the page, online.`);
  });
  const network = new Network(file, metadata);
  await network.compile(accelerator);
  return network;
}

let runtime; // loaded once, for all networks

async function loadRuntime() {
  // In a worker the runtime takes the worker's own script for its file, and would start threads with it.
  self.Module = {
    mainScriptUrlOrBlob: `${RUNTIME}litert_wasm_threaded_internal.js`,
    locateFile: (name) => RUNTIME + name,
    printErr: (line) => (/^(INFO|WARNING|[IW]\d)/.test(line) ? console.debug(line) : console.error(line)),
  };
  await loadLiteRt(RUNTIME, { threads: hasThreads() });
}

class Network {
  /** `accelerator` is "gpu" or "cpu" once compiled; `note` says why it is not the one that was asked for. */
  constructor(file, { scale, tile, halo, grid = 1, variant }) {
    Object.assign(this, { file, scale, tile, halo, grid, variant, note: "" });
    this.shape = [1, this.tile, this.tile, 3];
  }

  async compile(accelerator) {
    const device = getWebGpuDevice();
    const isFast = device && !device.adapterInfo?.isFallbackAdapter; // not a CPU in the guise of a GPU
    this.accelerator = "cpu";
    if (accelerator === "gpu" && !device) this.note = "This browser offers no GPU.";
    if (device && (accelerator === "gpu" || (accelerator === "auto" && isFast && this.variant !== "int8"))) {
      await this.#compileForGpu();
    }
    this.model ??= await loadAndCompile(this.file, { accelerator: "wasm" });
    const [given] = this.model.getInputDetails();
    const [got] = this.model.getOutputDetails();
    const side = (this.tile - 2 * this.halo) * this.scale;
    if (`${given.shape}` !== `${this.shape}` || `${got.shape}` !== `${[1, side, side, 3]}`) {
      throw new Error("The model's shapes are not what its metadata says. Export it again.");
    }
    this.isQuantized = given.dtype === "uint8";
  }

  async #compileForGpu() {
    try {
      // In 16 bits, GPUs without shader-f16 gave black pictures and no error.
      const model = await loadAndCompile(this.file, { accelerator: "webgpu", gpuOptions: { precision: "fp32" } });
      if (model.options.accelerator === "webgpu" && model.isFullyAccelerated) {
        this.model = model;
        this.accelerator = "gpu";
      } else {
        this.note = "The GPU cannot run this file.";
        model.delete();
      }
    } catch (error) {
      this.note = `The GPU failed (${error.message}).`;
    }
  }

  get threads() {
    return this.accelerator === "gpu" ? 0 : getGlobalLiteRt().liteRtWasm.getThreadCount();
  }

  /**
   * @param {Uint8Array|Float32Array} pixels RGB of a tile, in [0, 255]: bytes for a quantized file, floats for others
   * @returns {Promise<Uint8Array|Float32Array>} the same, without the halo, `scale` times as large along each side
   */
  async run(pixels) {
    try {
      return await this.#run(pixels);
    } catch (error) {
      if (this.accelerator === "cpu") throw error;
      this.model = undefined;
      await this.compile("cpu");
      this.note = `The GPU failed (${error.message}).`;
      return await this.#run(pixels);
    }
  }

  async #run(pixels) {
    const input = new Tensor(pixels, this.shape);
    const [output] = await this.model.run([input]);
    input.delete();
    const result = await output.data();
    output.delete();
    if (this.accelerator === "gpu" && result.every((value) => value === result[0] || Number.isNaN(value))) {
      throw new Error("it gave an empty picture");
    }
    return result;
  }
}
