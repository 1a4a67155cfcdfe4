/** Does everything that takes time, away from the page. One `Upscaler` has one worker, which has one network. */

import { enlargeToPixels, enlargeToPng } from "./enlarge.js";
import { loadNetwork } from "./network.js";

let network;
let settings; // those with which it was loaded
const enlargers = new Map(); // networks that enlarge paintings, by scale
let latest = Promise.resolve(); // one message after the other: a network takes one picture at a time
const cancelled = new Set(); // numbers of messages whose answers nobody awaits any more

self.onmessage = ({ data }) => {
  if (data.cancel) cancelled.add(data.number);
  else latest = latest.then(() => handle(data));
};

/**
 * The first message says what to `load`; each further one holds an `image`, and says whether the result is wanted
 * `asPixels`. There is an answer for each tile, and one at the end; all have the message's `number`.
 */
async function handle({ number, load, image, asPixels, ...options }) {
  const answer = (message, transfer = []) => self.postMessage({ number, ...message }, transfer);
  const check = async () => {
    await turn(); // lets a cancelling message in
    if (cancelled.has(number)) throw new DOMException("Cancelled.", "AbortError");
  };
  const onTile = async (done, total) => {
    answer({ done, total });
    await check();
  };
  try {
    await check();
    if (load) {
      settings = load;
      network = await loadNetwork(load);
      return answer({ state: describe(network) });
    }
    const picture = image instanceof Blob ? await decode(image) : image;
    await check();
    const enlarge = asPixels ? enlargeToPixels : enlargeToPng;
    const result = await enlarge(picture, network, { ...options, loadEnlarger, onTile, onStrip: check });
    picture.close?.();
    answer({ result, state: describe(network) }, asPixels ? [result.data.buffer] : []);
  } catch (error) {
    const { name = "Error", message = String(error) } = error; // WebAssembly throws numbers, too
    const isMemory = name === "RangeError" || /memory/i.test(message);
    const text = `${nameOf(image)} needs more memory than there is. Choose a smaller one.`;
    answer({ error: isMemory && image ? { name: "RangeError", message: text } : { name, message } });
  } finally {
    cancelled.delete(number);
  }
}

/** A network that enlarges a painting. */
async function loadEnlarger(scale) {
  if (!enlargers.has(scale)) {
    enlargers.set(scale, await loadNetwork({ ...settings, url: settings.enlargers[scale] }));
  }
  return enlargers.get(scale);
}

const decode = (file) =>
  createImageBitmap(file).catch(() => {
    const reason = "it is damaged, or too large for this device. Choose another picture.";
    throw new DOMException(`${nameOf(file)} cannot be decoded: ${reason}`, "EncodingError");
  });

const nameOf = (image) => image?.name ?? "The picture";

const describe = ({ metadata, device, threads, note }) => ({ metadata, device, threads, note });

const channel = new MessageChannel();

/** Resolves when the messages that had arrived are handled; timers would wait for 4 ms. */
const turn = () =>
  new Promise((resolve) => {
    channel.port1.onmessage = resolve;
    channel.port2.postMessage(null);
  });
