/** What the tests need: Python, the demo's server, and Chromium. */

import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { extname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { stripVTControlCharacters } from "node:util";
import { chromium } from "playwright-core";
import { PNG } from "pngjs";

import { BROWSERS, findPrograms } from "./browsers.js";

const PYTHON = process.env.PYTHON ?? "python3";

export const SCREENSHOTS = fileURLToPath(new URL("../screenshots", import.meta.url));
mkdirSync(SCREENSHOTS, { recursive: true });

/** Declares tests; one fails after some minutes, because `page.evaluate` waits without limit for a page that hangs. */
export const testUnless = (skip) => (name, code) => test(name, { skip, timeout: 300_000 }, code);

/** A folder that is gone after the tests. */
export function makeFolder() {
  const folder = mkdtempSync(join(tmpdir(), "keras-psr-page-"));
  process.on("exit", () => rmSync(folder, { recursive: true }));
  return folder;
}

const runPython = (...args) => execFileSync(PYTHON, args, { stdio: "pipe" }); // an error holds what was printed

/** Runs a function of reference.py. */
export const reference = (...args) => runPython(fileURLToPath(new URL("reference.py", import.meta.url)), ...args);

/** Starts a server and resolves, when it prints its address, to that and a function that ends it. */
export async function startServer(program, args, options) {
  const server = spawn(program, args, options);
  process.on("exit", () => server.kill()); // if a test failed before it was stopped
  let text = "";
  const address = await new Promise((resolve, reject) => {
    const read = (data) => {
      text += stripVTControlCharacters(data.toString());
      const found = text.match(/http:\S+:\d+(?=\s|\/)/);
      if (found) resolve(found[0]);
    };
    server.stdout.on("data", read);
    server.stderr.on("data", read);
    server.on("error", reject);
    server.on("exit", () => reject(new Error(`${program} ended: ${text}`)));
  });
  return { address, stop: () => end(server, "SIGINT") };
}

/** Ends a process, unless it has ended by itself. */
export async function end(process, signal = "SIGTERM") {
  if (process.exitCode !== null || process.signalCode !== null) return;
  await new Promise((resolve) => process.once("exit", resolve) && process.kill(signal));
}

export const startDemo = (...args) => startServer(PYTHON, ["-m", "keras_psr", "demo", "--port", "0", ...args]);

const TYPES = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".css": "text/css",
  ".json": "application/json",
  ".svg": "image/svg+xml",
  ".wasm": "application/wasm",
};

/**
 * Serves files without any headers but their type while `code` runs, which is given the address.
 * @param {(name: string) => Buffer | string} read gives the content for a path without the slash before it
 */
export async function withFiles(read, code) {
  const server = createServer(({ url }, response) => {
    const name = url.slice(1).split("?")[0];
    response.setHeader("Content-Type", TYPES[extname(name) || ".html"] ?? "application/octet-stream");
    response.end(read(name));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    await code(`http://127.0.0.1:${server.address().port}/`);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

export const writeSite = (folder, ...args) => runPython("-m", "keras_psr", "demo", "--out", folder, ...args);

export const startChromium = (...args) =>
  chromium.launch({
    executablePath: findPrograms(BROWSERS.chromium)[0],
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

/** The largest difference of colours between RGBA pixels and other numbers, RGB or RGBA. */
export function difference(image, expected, channels) {
  let most = 0;
  for (let pixel = 0; pixel < image.width * image.height; pixel++) {
    for (let channel = 0; channel < 3; channel++) {
      const wanted = Math.min(255, Math.max(0, expected[pixel * channels + channel]));
      most = Math.max(most, Math.abs(image.data[pixel * 4 + channel] - wanted));
    }
  }
  return most;
}

/** Counts the tiles that workers say are done; runs in the page. */
export function countTiles() {
  globalThis.tiles = 0;
  const heard = new WeakSet();
  const { postMessage } = Worker.prototype;
  Worker.prototype.postMessage = function (...message) {
    if (!heard.has(this)) this.addEventListener("message", ({ data }) => data.total && globalThis.tiles++);
    heard.add(this);
    return postMessage.apply(this, message);
  };
}
