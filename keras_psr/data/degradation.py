"""What happens to a photograph before it is small: blur, sensor noise and JPEG, in random order.

Reference:
    Wang et al. 2021, Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data, section 3; the
    numbers are those of its `options/train_realesrnet_x4plus.yml`. Of its two rounds this is one, without filters that
    ring and without resizing to other sizes. Each range ends where pictures of phones and of the web end: the whole of
    Real-ESRGAN's teaches a small network to smooth all pictures.
"""

import io
import math

import numpy as np
from PIL import Image
from scipy import fft

from keras_psr.images.pixels import crop_to_multiple, resize_bicubic, to_uint8

STEP_PROBABILITY = 0.8
"""Of each of blur, noise and JPEG. Real-ESRGAN: 0.8 for its second blur; its noise and JPEG are always there."""

BLUR_SIGMA = (0.05, 0.75)
"""In low-resolution pixels. Real-ESRGAN: 0.2 to 3 pixels of a picture that is then shrunk to a quarter."""

MAX_BLUR_REACH = 3
"""Low-resolution pixels that the widest blur reaches: 4 standard deviations."""

ROUND_BLUR_PROBABILITY = 0.7
"""Of a blur that is alike in all directions. Real-ESRGAN: 0.69."""

EVEN_NOISE_PROBABILITY = 0.5
"""Of noise that is as strong in shadows as in lights; else it is shot noise. Real-ESRGAN: 0.5."""

GREY_NOISE_PROBABILITY = 0.4
"""Of noise that is the same in all channels. Real-ESRGAN: 0.4."""

NOISE_SIGMA = (1, 10)
"""In grey levels. Real-ESRGAN: 1 to 30; above 10 is a night whose noise the phone did not remove."""

SHOT_NOISE = (0.05, 0.6)
"""Standard deviation over the square root of the grey level, so at most 9.6 for white. Real-ESRGAN: 0.05 to 3."""

JPEG_QUALITY = (50, 95)
"""Real-ESRGAN: 30 to 95; phones write 90 and more, messengers and web pages 60 to 85."""

JPEG_BLOCK = 16
"""Side of what JPEG compresses at once, with halved colour, in pixels."""


def degrade(high_res: np.ndarray, scale: int, generator: np.random.Generator) -> np.ndarray:
    """Makes a low-resolution picture as a phone or a web page would: bicubic, with what else happens to photographs.

    Blur, noise, JPEG and the reduction come in random order. The grid is that of `pixels.make_low_res`: nothing moves.

    Args:
        high_res: uint8, (height, width, 3).
        scale: Factor by which both sides shrink; `high_res` is cropped to a multiple of it first.
        generator: Decides everything that is random.

    Returns:
        uint8, (height // scale, width // scale, 3).

    Raises:
        ConfigError: The picture is smaller than `scale`.
    """
    image = crop_to_multiple(high_res, scale).astype(np.float32)
    rows, columns = (side // scale for side in image.shape[:2])
    for step in generator.permutation(["reduce", "blur", "noise", "jpeg"]):
        if step == "reduce":
            image = resize_bicubic(image, rows, columns)
        elif generator.random() >= STEP_PROBABILITY:
            continue
        elif step == "blur":
            image = _blur(image, image.shape[0] // rows, generator)
        elif step == "noise":
            image = image + _make_noise(image, generator)
        else:
            image = _compress(image, generator)
    return to_uint8(image)


def _blur(image: np.ndarray, unit: int, generator: np.random.Generator) -> np.ndarray:
    """A Gaussian blur in any direction; `BLUR_SIGMA` counts in `unit` pixels of the image."""
    sigmas = unit * generator.uniform(*BLUR_SIGMA, 2)
    if generator.random() < ROUND_BLUR_PROBABILITY:
        sigmas[1] = sigmas[0]
    angle = generator.uniform(0, math.pi)
    reach = MAX_BLUR_REACH * unit
    mirrored = np.pad(image, [(reach, reach), (reach, reach), (0, 0)], mode="symmetric")
    height, width = mirrored.shape[:2]
    rows, columns = fft.fftfreq(height)[:, None], fft.rfftfreq(width)
    along = columns * math.cos(angle) + rows * math.sin(angle)
    across = rows * math.cos(angle) - columns * math.sin(angle)
    response = np.exp(-2 * math.pi**2 * ((sigmas[0] * along) ** 2 + (sigmas[1] * across) ** 2)).astype(np.float32)
    spectrum = fft.rfft2(mirrored, axes=(0, 1)) * response[..., None]
    return fft.irfft2(spectrum, s=(height, width), axes=(0, 1))[reach:-reach, reach:-reach]


def _make_noise(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Sensor noise in grey levels: even, or growing with the light as that of counted photons does."""
    if generator.random() < EVEN_NOISE_PROBABILITY:
        deviation = generator.uniform(*NOISE_SIGMA)
    else:
        deviation = generator.uniform(*SHOT_NOISE) * np.sqrt(np.clip(image, 0, 255))
    channels = 1 if generator.random() < GREY_NOISE_PROBABILITY else 3
    return deviation * generator.standard_normal((*image.shape[:2], channels), np.float32)


def _compress(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """JPEG and back. Its blocks may begin anywhere, as in a crop of a photograph."""
    top, left = generator.integers(JPEG_BLOCK, size=2)
    extended = np.pad(to_uint8(image), [(top, 0), (left, 0), (0, 0)], mode="symmetric")
    file = io.BytesIO()
    Image.fromarray(extended).save(file, "JPEG", quality=int(generator.integers(*JPEG_QUALITY, endpoint=True)))
    return np.asarray(Image.open(file), np.float32)[top:, left:]
