/** A `.tflite` file of keras-psr as a function of tiles, run by LiteRT.js on the GPU or the CPU. */

import { getGlobalLiteRt, getWebGpuDevice, loadAndCompile, loadLiteRt, Tensor } from "@litertjs/core";
import { readMetadata } from "./metadata.js";

/**
 * @param {string} url of the file
 * @param {"auto"|"gpu"|"cpu"} device `auto` takes the GPU for float files if there is one
 * @param {{script: string, wasm: string}} runtime addresses of LiteRT's files
 * @returns {Promise<Network>}
 */
export async function loadNetwork({ url, device, runtime }) {
  const file = new Uint8Array(await download(url));
  const metadata = readMetadata(file);
  started ??= startRuntime(runtime);
  await started.catch((error) => {
    throw new DOMException(
      `LiteRT could not be started (${error.message}). Reload the page, online.`,
      "OperationError",
    );
  });
  const network = new Network(file, metadata);
  await network.compile(device);
  return network;
}

let started; // once, for all networks

async function download(url) {
  const fail = (reason) => {
    throw new DOMException(`The model could not be loaded from ${url} (${reason}).`, "NetworkError");
  };
  const response = await fetch(url).catch(({ message }) => fail(message));
  if (!response.ok) fail([response.status, response.statusText].filter(Boolean).join(" "));
  // As servers for development answer what they do not have.
  if (/^text\/html/.test(response.headers.get("Content-Type"))) fail("the server sent a web page");
  return response.arrayBuffer();
}

async function startRuntime({ script, wasm }) {
  // In a worker the runtime takes the worker's own script for its file, and would start threads with it.
  self.Module = {
    mainScriptUrlOrBlob: script,
    locateFile: () => wasm, // it asks for nothing else
    printErr: (line) => (/^(INFO|WARNING|[IW]\d)/.test(line) ? console.debug(line) : console.error(line)),
  };
  await loadLiteRt(script);
}

class Network {
  /** `device` is "gpu" or "cpu" once compiled; `note` says why it is not the one that was asked for. */
  constructor(file, metadata) {
    const { scale, tile, halo, grid, variant } = metadata;
    Object.assign(this, { file, metadata, scale, tile, halo, grid, variant, note: "" });
    this.shape = [1, this.tile, this.tile, 3];
  }

  async compile(wanted) {
    const gpu = getWebGpuDevice();
    const isFast = gpu && !gpu.adapterInfo?.isFallbackAdapter; // not a CPU in the guise of a GPU
    this.device = "cpu";
    if (wanted === "gpu" && !gpu) this.note = "This browser offers no GPU.";
    if (gpu && (wanted === "gpu" || (wanted === "auto" && isFast && this.variant !== "int8"))) {
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
        this.device = "gpu";
      } else {
        this.note = "The GPU cannot run this file.";
        model.delete();
      }
    } catch (error) {
      this.note = `The GPU failed (${error.message}).`;
    }
  }

  get threads() {
    return this.device === "gpu" ? 0 : getGlobalLiteRt().liteRtWasm.getThreadCount();
  }

  /**
   * @param {Uint8Array|Float32Array} pixels RGB of a tile, in [0, 255]: bytes for a quantized file, floats for others
   * @returns {Promise<Uint8Array|Float32Array>} the same, without the halo, `scale` times as large along each side
   */
  async run(pixels) {
    try {
      return await this.#run(pixels);
    } catch (error) {
      if (this.device === "cpu") throw error;
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
    if (this.device === "gpu" && isEven(result) && !isEven(pixels)) {
      throw new Error("it gave an empty picture");
    }
    return result;
  }
}

/** Whether a tile holds one value only, as white skies do, or no numbers. */
const isEven = (values) => values.every((value) => value === values[0] || Number.isNaN(value));
