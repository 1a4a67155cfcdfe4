/** Copies the models that the app takes along into assets/. */

import { cpSync } from "node:fs";

for (const variant of ["float16", "int8"]) {
  const name = `x2-fast_${variant}.tflite`;
  cpSync(new URL(`../../saved_models/x2-fast/${name}`, import.meta.url), new URL(`assets/${name}`, import.meta.url));
}
