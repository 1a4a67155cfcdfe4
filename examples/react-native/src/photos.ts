/** Photos of the device: choosing one, its pixels, and saving another. */

import { ImageManipulator, SaveFormat } from "expo-image-manipulator";
import { launchImageLibraryAsync } from "expo-image-picker";
import { Asset, requestPermissionsAsync } from "expo-media-library";
import { Images, type PixelFormat } from "react-native-nitro-image";

import type { Pixels } from "./upscale.ts";

/** Lets the user choose a photo and turns it upright. Gives the address of a PNG; null if none was chosen. */
export async function choosePhoto(): Promise<string | null> {
  const { assets } = await launchImageLibraryAsync({ mediaTypes: "images" });
  if (!assets) return null;
  const image = await ImageManipulator.manipulate(assets[0].uri).renderAsync();
  return (await image.saveAsync({ format: SaveFormat.PNG })).uri;
}

export async function readPixels(url: string): Promise<Pixels> {
  const image = await Images.loadFromFileAsync(url.replace("file://", ""));
  const { buffer, width, height, pixelFormat } = await image.toRawPixelDataAsync();
  return { data: new Uint8Array(buffer), width, height, format: pixelFormat };
}

/** Writes pixels into a PNG, and gives its address. */
export async function writePng({ data, width, height, format }: Pixels): Promise<string> {
  const pixelFormat = format as PixelFormat;
  const image = await Images.loadFromRawPixelDataAsync({
    buffer: data.buffer as ArrayBuffer,
    width,
    height,
    pixelFormat,
  });
  return `file://${await image.saveToTemporaryFileAsync("png")}`;
}

/** Puts a picture into the device's library. */
export async function savePhoto(url: string): Promise<void> {
  const { granted } = await requestPermissionsAsync(true);
  if (!granted) throw new Error("Saving was not allowed. Allow it in the settings of the device.");
  await Asset.create(url);
}
