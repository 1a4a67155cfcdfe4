/**
 * A model of UpscalerJS in Node.js, for peers.py: reads pictures from stdin and writes the enlarged ones to stdout.
 *   node benchmarks/peers.js MODULES PACKAGE SCALE
 * The first line on stdout describes the model. A picture is a line {width, height}, then bytes RGB; its answer is a line
 * {seconds}, then bytes.
 */

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";

const [modules, name, scale] = process.argv.slice(2);
const require = createRequire(`${resolve(modules)}/`);

/** TensorFlow's own library if it is there, else WebAssembly. */
async function startBackend() {
  try {
    const tf = require("@tensorflow/tfjs-node");
    await tf.ready();
    return { tf, backend: "tfjs-node" };
  } catch {
    const tf = require("@tensorflow/tfjs");
    const wasm = require("@tensorflow/tfjs-backend-wasm");
    wasm.setWasmPaths(`${dirname(require.resolve("@tensorflow/tfjs-backend-wasm/package.json"))}/dist/`);
    await tf.setBackend("wasm");
    return { tf, backend: `tfjs with WebAssembly, ${wasm.getThreadsCount()} thread` };
  }
}

/** The package's model for the scale, from its folder: TensorFlow.js itself loads over the network only. */
async function loadModel(tf) {
  const entry = require.resolve(`${name}/${scale}x`);
  const exported = require(entry);
  const definition = exported.default ?? exported;
  definition.setup?.(tf); // registers its layers
  const path = join(entry.split("/dist/")[0], definition._internals.path);
  const { modelTopology, weightsManifest } = JSON.parse(readFileSync(path));
  const weightSpecs = weightsManifest.flatMap(({ weights }) => weights);
  const parts = weightsManifest.flatMap(({ paths }) => paths).map((part) => readFileSync(join(dirname(path), part)));
  const weightData = new Uint8Array(Buffer.concat(parts)).buffer;
  const model = await tf.loadLayersModel({ load: async () => ({ modelTopology, weightSpecs, weightData }) });
  return { model, white: definition.inputRange[1] };
}

async function enlarge(tf, { model, white }, bytes, width, height) {
  const begin = performance.now();
  const enlarged = tf.tidy(() => {
    const input = tf.tensor4d(Float32Array.from(bytes), [1, height, width, 3]);
    return model.predict(input.mul(white / 255)).mul(255 / white);
  });
  const levels = await enlarged.data();
  enlarged.dispose();
  const seconds = (performance.now() - begin) / 1000;
  return { seconds, pixels: Uint8ClampedArray.from(levels) }; // it clips and rounds
}

const { tf, backend } = await startBackend();
const network = await loadModel(tf);
console.log(JSON.stringify({ parameters: network.model.countParams(), backend }));

let received = Buffer.alloc(0);
for await (const chunk of process.stdin) {
  received = Buffer.concat([received, chunk]);
  const end = received.indexOf("\n");
  if (end < 0) continue;
  const { width, height } = JSON.parse(received.subarray(0, end));
  const next = end + 1 + 3 * width * height;
  if (received.length < next) continue;
  const { seconds, pixels } = await enlarge(tf, network, received.subarray(end + 1, next), width, height);
  received = received.subarray(next);
  process.stdout.write(`${JSON.stringify({ seconds })}\n`);
  process.stdout.write(Buffer.from(pixels.buffer));
}
