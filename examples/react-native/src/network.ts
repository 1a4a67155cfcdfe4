/** A `.tflite` of keras-psr as a function of tiles, on the GPU where there is one that can run it, else on the CPU. */

import { Asset } from "expo-asset";
import { File } from "expo-file-system";
import { readMetadata } from "keras-psr/metadata";
import { Platform } from "react-native";
import { loadTensorflowModel, type TensorflowModelDelegate } from "react-native-fast-tflite";

import { withFallback, type Network } from "./fallback.ts";

/** GPUs of phones compute in 16 bits, and their CPUs are fastest with bytes. */
const FILES: Record<"gpu" | "cpu", number> = {
  gpu: require("../assets/x2-fast_float16.tflite"),
  cpu: require("../assets/x2-fast_int8.tflite"),
};

/** fast-tflite 3 has no Metal; Core ML takes the GPU or the Neural Engine. */
const DELEGATES: { [system: string]: TensorflowModelDelegate } = { android: "android-gpu", ios: "core-ml" };

export async function loadNetwork(): Promise<Network> {
  const delegate = DELEGATES[Platform.OS];
  try {
    const gpu = await load(FILES.gpu, [delegate]);
    return withFallback({ ...gpu, device: "GPU" }, () => load(FILES.gpu, []));
  } catch {
    return load(FILES.cpu, []);
  }
}

async function load(file: number, delegates: TensorflowModelDelegate[]): Promise<Network> {
  const asset = await Asset.fromModule(file).downloadAsync();
  const url = asset.localUri ?? asset.uri;
  const { scale, tile, halo, grid } = readMetadata(await new File(url).bytes());
  const model = await loadTensorflowModel({ url }, delegates);
  const isQuantized = model.inputs[0].dataType === "uint8";
  const run = async (colours: Uint8Array | Float32Array) => {
    const [result] = await model.run([colours.buffer as ArrayBuffer]);
    return isQuantized ? new Uint8Array(result) : new Float32Array(result);
  };
  return { device: "CPU", scale, tile, halo, grid, isQuantized, run };
}
