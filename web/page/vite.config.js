import { copyFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

const OUT = fileURLToPath(new URL("../../keras_psr/page", import.meta.url));

const copyLicence = {
  name: "copy-licence",
  writeBundle: () =>
    copyFileSync(new URL("../dist/pako-LICENSE.txt", import.meta.url), `${OUT}/assets/pako-LICENSE.txt`),
};

export default defineConfig({
  base: "./", // so that the page works in any folder of a web host
  build: { outDir: OUT, emptyOutDir: true, modulePreload: false },
  plugins: [copyLicence],
});
