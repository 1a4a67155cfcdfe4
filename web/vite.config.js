import { copyFileSync, mkdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

const OUT = fileURLToPath(new URL("../keras_psr/page", import.meta.url));

/** LiteRT's WebAssembly, of which a browser fetches one: with threads, without, or without relaxed SIMD. */
const RUNTIMES = ["litert_wasm_threaded_internal", "litert_wasm_internal", "litert_wasm_compat_internal"];

const copyFromPackages = {
  name: "copy-from-packages",
  writeBundle() {
    mkdirSync(`${OUT}/litert`, { recursive: true });
    for (const file of RUNTIMES.flatMap((name) => [`${name}.js`, `${name}.wasm`])) {
      copyFileSync(new URL(`node_modules/@litertjs/core/wasm/${file}`, import.meta.url), `${OUT}/litert/${file}`);
    }
    copyFileSync(new URL("node_modules/pako/LICENSE", import.meta.url), `${OUT}/assets/pako-LICENSE.txt`);
  },
};

export default defineConfig({
  base: "./", // so that the page works in any folder of a web host
  build: { outDir: OUT, emptyOutDir: true, modulePreload: false },
  worker: { format: "iife" }, // LiteRT.js loads its runtime with importScripts, which module workers lack
  plugins: [copyFromPackages],
});
