/** Builds dist/: the worker in one file with LiteRT.js and pako, and LiteRT's WebAssembly next to it. */

import { cpSync } from "node:fs";
import { defineConfig } from "vite";

/** LiteRT's WebAssembly: with threads, without them, or without relaxed SIMD. A browser fetches one of the three. */
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
  // A script and not a module: LiteRT.js loads its runtime with importScripts, which module workers lack.
  build: { lib: { entry: "src/worker.js", formats: ["iife"], name: "worker", fileName: () => "worker.js" } },
  plugins: [copyFromPackages],
});
