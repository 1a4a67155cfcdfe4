/** Files for the device's user. */

const JPEG_QUALITY = 0.93;

/** Milliseconds after which a download must have begun. */
const PATIENCE = 60_000;

/** Makes the browser save something as a file of that name. */
export function save(blob, name) {
  const url = URL.createObjectURL(blob);
  Object.assign(document.createElement("a"), { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), PATIENCE);
}

/** A picture as a JPEG, on white where it is transparent. */
export async function toJpeg(file) {
  const bitmap = await createImageBitmap(file);
  const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, bitmap.width, bitmap.height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const blob = await context.canvas.convertToBlob({ type: "image/jpeg", quality: JPEG_QUALITY });
  if (blob.type !== "image/jpeg") throw new Error(blob.type);
  return blob;
}
