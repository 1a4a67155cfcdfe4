/** Shows what a camera sees through a network until it is stopped: always the newest picture; others are dropped. */

import { Camera } from "./camera.js";
import { liveSizes, Pace } from "./pace.js";

/** Milliseconds over which pictures are counted. */
const WINDOW = 2000;

/** Formats of clips; the first that the browser can write is taken. Phones share MP4 more readily. */
const CLIPS = ["video/mp4;codecs=avc1", "video/webm;codecs=vp9", "video/webm"];
const LONGEST_CLIP = 60_000; // milliseconds

export class Live {
  /**
   * @param {HTMLCanvasElement} canvas where pictures are shown
   * @param {HTMLVideoElement} video plays what the camera sees, below the canvas
   * @param {(facts: object) => void} onPicture receives the size, the rate and the device of each picture
   * @param {() => void} onLost called if the camera ends by itself
   */
  constructor(canvas, video, onPicture, onLost) {
    Object.assign(this, { canvas, video, onPicture, onLost, turn: 0, camera: null, recorder: null });
  }

  /** Starts a camera. A running one is stopped first, because many devices run only one at a time. */
  async open(which) {
    const turn = ++this.turn;
    this.camera?.stop();
    this.camera = null;
    const camera = await Camera.open(which);
    if (turn !== this.turn) return camera.stop(); // it was stopped while the browser asked its user
    this.camera = camera;
    camera.track.addEventListener("ended", () => camera === this.camera && this.onLost());
    this.video.srcObject = camera.stream;
    try {
      await this.video.play();
    } catch (error) {
      if (turn === this.turn) throw error; // otherwise `stop` interrupted `play`, which then fails
    }
    this.canvas.classList.toggle("mirrored", camera.isFront);
  }

  get isOpen() {
    return Boolean(this.camera);
  }

  /**
   * Shows pictures until it is called again, another camera is opened, or `stop` is called.
   * @param {Upscaler} upscaler
   * @param {() => object} adjustment gives the strength and colours of the painting; called for each picture
   */
  async show(upscaler, adjustment) {
    const turn = ++this.turn;
    const { videoWidth, videoHeight } = this.video;
    const pace = new Pace(liveSizes(videoWidth / videoHeight, videoWidth, upscaler.metadata));
    const times = [];
    let shown = -1; // the size that is shown
    for (let seen; turn === this.turn; seen = this.video.currentTime) {
      while (this.video.currentTime === seen && turn === this.turn) await new Promise(requestAnimationFrame);
      const begin = performance.now();
      const picture = await upscaler.upscalePixels(this.#grab(pace.size), adjustment());
      if (turn !== this.turn) return;
      if (this.recorder && shown >= 0 && shown !== pace.index) {
        pace.index = shown; // the clip began while this picture was computed, and has one size
        continue;
      }
      this.#draw(picture);
      shown = pace.index;
      pace.isFixed = Boolean(this.recorder);
      pace.notice((performance.now() - begin) / 1000);
      times.push(performance.now());
      while (times.length > 2 && times.at(-1) - times[0] > WINDOW) times.shift();
      const rate = (1000 * (times.length - 1)) / (times.at(-1) - times[0]);
      const { width, height } = picture;
      const { device, threads } = upscaler;
      this.onPicture({ width, height, rate, device, threads, isSmallest: pace.index === 0 });
    }
  }

  /** The camera's current picture, at a given size. */
  #grab({ width, height }) {
    const context = new OffscreenCanvas(width, height).getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(this.video, 0, 0, width, height);
    return context.canvas;
  }

  #draw(picture) {
    const { width, height } = picture;
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    this.canvas.getContext("2d").putImageData(picture, 0, 0);
  }

  /** Switches the camera's light off. A clip that is being recorded ends. */
  stop() {
    this.turn++;
    this.recorder?.stop();
    this.camera?.stop();
    this.camera = null;
    this.video.srcObject = null;
  }

  /** @returns {Promise<Blob>} the picture that is shown, as a PNG */
  picture = () => new Promise((resolve) => this.canvas.toBlob(resolve));

  /**
   * Records until `recorder.stop()`, or a minute.
   * @returns {Promise<Blob>} the clip
   */
  record() {
    const type = CLIPS.find((name) => MediaRecorder.isTypeSupported(name));
    const recorder = new MediaRecorder(this.canvas.captureStream(), { mimeType: type, videoBitsPerSecond: 8e6 });
    this.recorder = recorder;
    const parts = [];
    recorder.addEventListener("dataavailable", ({ data }) => parts.push(data));
    const timer = setTimeout(() => recorder.stop(), LONGEST_CLIP);
    recorder.start();
    return new Promise((resolve, reject) => {
      const end = (settle, value) => (clearTimeout(timer), (this.recorder = null), settle(value));
      recorder.addEventListener("stop", () => end(resolve, new Blob(parts, { type: type.split(";")[0] })));
      recorder.addEventListener("error", ({ error }) =>
        end(reject, error ?? new Error("The clip could not be written.")),
      );
    });
  }
}

/** Whether this browser can record what a canvas shows. */
export const canRecord = () =>
  "MediaRecorder" in window &&
  "captureStream" in HTMLCanvasElement.prototype &&
  CLIPS.some((name) => MediaRecorder.isTypeSupported(name));
