/** Makes dist/: the worker in one file, with LiteRT.js and pako, and LiteRT's WebAssembly beside it. */

import { cpSync } from "node:fs";
import { defineConfig } from "vite";

/** LiteRT's WebAssembly, of which a browser fetches one: with threads, without, or without relaxed SIMD. */
const RUNTIMES = ["litert_wasm_threaded_internal", "litert_wasm_internal", "litert_wasm_compat_internal"];

const copyFromPackages = {
  name: "copy-from-packages",
  writeBundle() {
    for (const file of RUNTIMES.flatMap((name) => [`${name}.js`, `${name}.wasm`])) {
      cpSync(`node_modules/@litertjs/core/wasm/${file}`, `dist/litert/${file}`);
    }
    cpSync("node_modules/pako/LICENSE", "dist/pako-LICENSE.txt");
  },
};

export default defineConfig({
  // A script and no module: LiteRT.js loads its runtime with importScripts, which module workers lack.
  build: { lib: { entry: "src/worker.js", formats: ["iife"], name: "worker", fileName: () => "worker.js" } },
  plugins: [copyFromPackages],
});
