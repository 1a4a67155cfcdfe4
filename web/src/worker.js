/** Everything that takes time, away from the page, which ends this worker to cancel and starts one for each network. */

import { enlarge } from "./enlarge.js";
import { loadNetwork } from "./network.js";

let network;

self.onmessage = async ({ data: { file, url, accelerator } }) => {
  try {
    network ??= await loadNetwork(url, accelerator);
    const begin = performance.now();
    const bitmap = await createImageBitmap(file).catch(() => {
      throw new Error(
        `${file.name} cannot be decoded: it is damaged, or too large for this device. Choose another picture.`,
      );
    });
    const result = await enlarge(bitmap, network, (done, total) => self.postMessage({ done, total }));
    bitmap.close();
    const seconds = (performance.now() - begin) / 1000;
    const { accelerator: used, threads, note } = network;
    self.postMessage({ result: { ...result, seconds, accelerator: used, threads, note } });
  } catch (error) {
    const isMemory = error instanceof RangeError || /memory/i.test(error.message);
    self.postMessage({
      error: isMemory ? `${file.name} needs more memory than there is. Choose a smaller one.` : error.message,
    });
  }
};
