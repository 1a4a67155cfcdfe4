/** The device's cameras. Nothing of what they see leaves the page. */

const REASONS = {
  NotAllowedError: "The camera was not allowed. Allow it for this page in the browser's settings, and try again.",
  NotFoundError: "No camera was found. Connect one, or choose a photo.",
  NotReadableError: "The camera cannot be read: another program may be using it. Close that, and try again.",
};

/** A running camera: a stream of pictures until `stop`, which switches its light off. */
export class Camera {
  /**
   * @param {MediaTrackConstraints} which of the cameras; the back one of a phone by default
   * @returns {Promise<Camera>}
   */
  static async open(which = { facingMode: "environment" }) {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Error("Browsers give a camera only to pages with HTTPS and on localhost. Open the page there.");
    }
    const size = { width: { ideal: 1280 }, height: { ideal: 720 } };
    try {
      return new Camera(await navigator.mediaDevices.getUserMedia({ video: { ...size, ...which }, audio: false }));
    } catch (error) {
      throw new Error(REASONS[error.name] ?? `The camera could not be started (${error.message || error.name}).`);
    }
  }

  constructor(stream) {
    this.stream = stream;
    [this.track] = stream.getVideoTracks();
  }

  /** Whether it faces the user, who then expects a mirror. Webcams face the user, but do not say so. */
  get isFront() {
    return this.track.getSettings().facingMode !== "environment";
  }

  /** The next camera; null if there is no other. */
  async next() {
    const devices = await navigator.mediaDevices.enumerateDevices();
    const cameras = devices.filter(({ kind }) => kind === "videoinput");
    if (cameras.length < 2) return null;
    const { deviceId, facingMode } = this.track.getSettings();
    if (facingMode) return { facingMode: facingMode === "user" ? "environment" : "user" };
    const index = cameras.findIndex((camera) => camera.deviceId === deviceId);
    return { deviceId: { exact: cameras[(index + 1) % cameras.length].deviceId } };
  }

  stop() {
    for (const track of this.stream.getTracks()) track.stop();
  }
}
