/** Everything that takes time, away from the page, which ends this worker to cancel and starts one for each network. */

import { enlarge, enlargeFrame } from "./enlarge.js";
import { loadNetwork } from "./network.js";

let network;
const loaded = new Map(); // networks that enlarge paintings, by address
let latest = Promise.resolve(); // one message after the other: a network takes one picture at a time

self.onmessage = ({ data }) => (latest = latest.then(() => handle(data)));

/**
 * A message holds the `url` of a file and the `accelerator`, the same in all, and what to do: take a `file` or a
 * `frame` of the camera, with an `adjustment`, or without either tell the network's shape. Each answer has the
 * message's `number`. `enlargers` are addresses of files that enlarge paintings, by variant and scale.
 */
async function handle({ number, file, frame, adjustment, url, accelerator, enlargers }) {
  const answer = (message, transfer = []) => self.postMessage({ number, ...message }, transfer);
  try {
    network ??= await loadNetwork(url, accelerator);
    if (file) await answerFile(file, adjustment, (scale) => loadEnlarger(enlargers, scale, accelerator), answer);
    else if (frame) await answerFrame(frame, adjustment, answer);
    else answer({ shape: (({ scale, tile, halo, grid }) => ({ scale, tile, halo, grid }))(network) });
  } catch (error) {
    const name = file?.name ?? "The camera's picture";
    const isMemory = error instanceof RangeError || /memory/i.test(error.message);
    answer({ error: isMemory ? `${name} needs more memory than there is. Choose a smaller one.` : error.message });
  }
}

/** A network that enlarges a painting; of the same kind as the one that painted it, as keras_psr.Painter has it. */
async function loadEnlarger(files, scale, accelerator) {
  const url = files[network.isQuantized ? "int8" : "float32"][scale];
  if (!loaded.has(url)) loaded.set(url, await loadNetwork(url, accelerator));
  return loaded.get(url);
}

async function answerFile(file, adjustment, loadEnlarger, answer) {
  const begin = performance.now();
  const bitmap = await createImageBitmap(file).catch(() => {
    throw new Error(
      `${file.name} cannot be decoded: it is damaged, or too large for this device. Choose another picture.`,
    );
  });
  const result = await enlarge(bitmap, network, adjustment, loadEnlarger, (done, total) => answer({ done, total }));
  bitmap.close();
  const seconds = (performance.now() - begin) / 1000;
  const { accelerator, threads, note } = network;
  answer({ result: { ...result, seconds, accelerator, threads, note } });
}

async function answerFrame(frame, adjustment, answer) {
  const { data, width, height } = await enlargeFrame(frame, network, adjustment);
  frame.close();
  const { accelerator, threads } = network;
  answer({ frame: { data, width, height, accelerator, threads } }, [data.buffer]);
}
