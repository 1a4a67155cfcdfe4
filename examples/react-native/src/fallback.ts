/** What happens when a GPU fails on the way. */

import type { TileNetwork } from "keras-psr/strips";

export interface Network extends TileNetwork {
  device: "GPU" | "CPU";
}

/**
 * The CPU takes a tile that the GPU fails at or leaves empty, and all that follow.
 * @param loadCpu loads the same file for the CPU
 */
export function withFallback(gpu: Network, loadCpu: () => Promise<Network>): Network {
  const network: Network = {
    ...gpu,
    async run(colours) {
      const result = await gpu.run(colours).catch(() => null);
      if (result && (!isEven(result) || isEven(colours))) return result;
      Object.assign(network, await loadCpu());
      return network.run(colours);
    },
  };
  return network;
}

/** Whether a tile holds one value only, as white skies do, or no numbers. */
const isEven = (values: Uint8Array | Float32Array) =>
  values.every((value: number) => value === values[0] || Number.isNaN(value));
