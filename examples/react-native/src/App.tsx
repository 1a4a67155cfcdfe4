/** Choose a photo, enlarge it on this device with progress and Cancel, look at it, save it. */

import { useRef, useState } from "react";
import { Button, Image, StyleSheet, Text, View } from "react-native";

import { loadOnce } from "./loadOnce.ts";
import { loadNetwork } from "./network.ts";
import { choosePhoto, readPixels, savePhoto, writePng } from "./photos.ts";
import { Cancelled, upscale } from "./upscale.ts";

/** Pixels of the largest result: four bytes each, twice while it is written, is what many phones leave an app. */
const MOST_PIXELS = 50e6;

const getNetwork = loadOnce(loadNetwork);

export function App() {
  const [photo, setPhoto] = useState<string | null>(null);
  const [result, setResult] = useState<string | null>(null);
  const [status, setStatus] = useState("");
  const [isWorking, setWorking] = useState(false);
  const cancelling = useRef(new AbortController());

  /** Runs what a button starts, and says what went wrong. */
  const attempt = (work: () => Promise<void>) => async () => {
    setStatus("");
    setWorking(true);
    try {
      await work();
    } catch (error) {
      setStatus(error instanceof Cancelled ? "Cancelled." : String(error));
    }
    setWorking(false);
  };

  const choose = attempt(async () => {
    const chosen = await choosePhoto();
    if (!chosen) return;
    setPhoto(chosen);
    setResult(null);
  });

  const enlarge = attempt(async () => {
    const { signal } = (cancelling.current = new AbortController());
    const network = await getNetwork();
    const pixels = await readPixels(photo!);
    const { width, height } = pixels;
    if (width * height * network.scale ** 2 > MOST_PIXELS) {
      throw new Error(`The photo is too large for this app: ${width} × ${height}. Choose a smaller one.`);
    }
    const begin = Date.now();
    const onProgress = (share: number) => setStatus(`${Math.round(100 * share)} % on the ${network.device}`);
    const enlarged = await upscale(pixels, network, { onProgress, signal });
    const seconds = (Date.now() - begin) / 1000;
    setResult(await writePng(enlarged));
    setStatus(`${enlarged.width} × ${enlarged.height} in ${seconds.toFixed(1)} s on the ${network.device}`);
  });

  const save = attempt(async () => {
    await savePhoto(result!);
    setStatus("Saved.");
  });

  return (
    <View style={styles.page}>
      <Image style={styles.picture} source={{ uri: result ?? photo ?? undefined }} resizeMode="contain" />
      <Text style={styles.status}>{status}</Text>
      <View style={styles.buttons}>
        <Button title="Choose a photo" onPress={choose} disabled={isWorking} />
        {isWorking ? (
          <Button title="Cancel" onPress={() => cancelling.current.abort()} />
        ) : (
          <Button title="Enlarge" onPress={enlarge} disabled={!photo} />
        )}
        <Button title="Save" onPress={save} disabled={!result || isWorking} />
      </View>
    </View>
  );
}

const styles = StyleSheet.create({
  page: { flex: 1, paddingVertical: 40 },
  picture: { flex: 1, margin: 12 },
  status: { textAlign: "center", padding: 12 },
  buttons: { flexDirection: "row", justifyContent: "space-around", padding: 12 },
});
