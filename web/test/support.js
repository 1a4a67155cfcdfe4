/** What the tests need: Python, the demo's server, and Chromium. */

import { execFileSync, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { PNG } from "pngjs";

const PYTHON = process.env.PYTHON ?? "python3";
const CHROMIUM =
  process.env.CHROMIUM ??
  process.env.PATH.split(delimiter)
    .flatMap((folder) => ["chromium", "chromium-browser", "google-chrome"].map((name) => join(folder, name)))
    .find((path) => existsSync(path));

export const SCREENSHOTS = fileURLToPath(new URL("../screenshots", import.meta.url));

/** A folder that is gone after the tests. */
export function makeFolder() {
  const folder = mkdtempSync(join(tmpdir(), "keras-psr-page-"));
  process.on("exit", () => rmSync(folder, { recursive: true }));
  return folder;
}

const runPython = (...args) => execFileSync(PYTHON, args, { stdio: "pipe" }); // an error holds what was printed

/** Runs a function of reference.py. */
export const reference = (...args) => runPython(fileURLToPath(new URL("reference.py", import.meta.url)), ...args);

/** Runs `keras-psr demo` and resolves, when it listens, to its address and a function that ends it. */
export async function startDemo(...args) {
  const server = spawn(PYTHON, ["-m", "keras_psr", "demo", "--port", "0", ...args]);
  let text = "";
  const address = await new Promise((resolve, reject) => {
    server.stderr.on("data", (data) => {
      text += data;
      const found = text.match(/http:\S+/);
      if (found) resolve(found[0]);
    });
    server.on("exit", () => reject(new Error(`keras-psr demo ended: ${text}`)));
  });
  const stop = () => new Promise((resolve) => server.once("exit", resolve) && server.kill("SIGINT"));
  return { address, stop };
}

export const writeSite = (folder, ...args) => runPython("-m", "keras_psr", "demo", "--out", folder, ...args);

export const startChromium = (...args) =>
  chromium.launch({
    executablePath: CHROMIUM,
    args: [
      "--no-sandbox",
      "--disable-quic",
      "--disable-background-networking",
      "--disable-component-update",
      "--force-color-profile=srgb",
      ...args,
    ],
  });

/** A PNG as RGBA. */
export const readPng = (path) => PNG.sync.read(readFileSync(path));

export const readFloats = (path) => {
  const { buffer, byteOffset, byteLength } = readFileSync(path);
  return new Float32Array(buffer.slice(byteOffset, byteOffset + byteLength));
};
