/** A photo through a network, tile by tile. Nothing here needs a device: test/upscale.test.ts runs it in Node. */

import { strips, type TileNetwork } from "keras-psr/strips";

/** A picture as libraries give it: `format` names the bytes of each pixel, as in RGBA, BGRA or RGBX. */
export interface Pixels {
  data: Uint8Array;
  width: number;
  height: number;
  format: string;
}

/** What cancels: an `AbortSignal`, of which React Native's has no more than this. */
export interface Signal {
  readonly aborted: boolean;
}

export class Cancelled extends Error {}

/**
 * @param photo is taken as opaque
 * @param onProgress is told the share that is done, after each tile
 * @returns the enlarged photo, RGBA
 * @throws Cancelled within one tile of `signal`
 */
export async function upscale(
  photo: Pixels,
  network: TileNetwork,
  { onProgress, signal }: { onProgress: (share: number) => void; signal: Signal },
): Promise<Pixels> {
  const { width, height } = photo;
  const result = new Uint8Array(width * height * network.scale ** 2 * 4);
  const onTile = async (done: number, total: number) => {
    onProgress(done / total);
    await new Promise((resolve) => setTimeout(resolve, 0)); // lets the app draw, and hear of Cancel
    if (signal.aborted) throw new Cancelled();
  };
  let at = 0;
  for await (const strip of strips({ width, height, read: reader(photo) }, network, { channels: 4, onTile })) {
    result.set(strip, at);
    at += strip.length;
  }
  return { data: result, width: width * network.scale, height: height * network.scale, format: "RGBA" };
}

/** Gives rows of a photo as RGBA. */
function reader({ data, width, format }: Pixels): (top: number, rows: number) => Uint8Array {
  const [red, green, blue] = [..."RGB"].map((colour) => format.indexOf(colour));
  if (red < 0 || green < 0 || blue < 0) throw new Error(`Pixels must be of 8-bit RGB. Received: ${format}.`);
  const step = format.length;
  return (top, rows) => {
    const pixels = new Uint8Array(rows * width * 4);
    for (let to = 0, from = top * width * step; to < pixels.length; to += 4, from += step) {
      pixels[to] = data[from + red];
      pixels[to + 1] = data[from + green];
      pixels[to + 2] = data[from + blue];
      pixels[to + 3] = 255;
    }
    return pixels;
  };
}
