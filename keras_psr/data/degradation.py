"""Degradations of real photographs: blur, sensor noise, JPEG and downscaling, in random order.

Reference:
    Wang et al. 2021, Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data, section 3, with
    the numbers of its `options/train_realesrnet_x4plus.yml`. We apply one of its two rounds, without sinc filters and
    without resizing to other sizes. The ranges are narrowed to pictures from phones and the web, because its full
    ranges teach a small network to smooth every picture.
"""

import io
import math

import numpy as np
from PIL import Image
from scipy import fft

from keras_psr.images.pixels import crop_to_multiple, resize_bicubic, to_uint8

STEP_PROBABILITY = 0.8
"""Probability of each of blur, noise and JPEG. Real-ESRGAN: 0.8 for its second blur; always noise and JPEG."""

BLUR_SIGMA = (0.05, 0.75)
"""Range of the blur's standard deviation, in low-resolution pixels. Real-ESRGAN: 0.2 to 3 pixels before reduction."""

MAX_BLUR_REACH = 3
"""Radius of the widest blur in low-resolution pixels: 4 standard deviations."""

ROUND_BLUR_PROBABILITY = 0.7
"""Probability that a blur is isotropic. Real-ESRGAN: 0.69."""

EVEN_NOISE_PROBABILITY = 0.5
"""Probability that noise is equally strong at all grey levels; otherwise it is shot noise. Real-ESRGAN: 0.5."""

GREY_NOISE_PROBABILITY = 0.4
"""Probability that noise is the same in all channels. Real-ESRGAN: 0.4."""

NOISE_SIGMA = (1, 10)
"""Range of standard deviations in grey levels. Real-ESRGAN: 1 to 30; above 10 is night noise, which phones remove."""

SHOT_NOISE = (0.05, 0.6)
"""Range of standard deviation / sqrt(grey level), so at most 9.6 for white. Real-ESRGAN: 0.05 to 3."""

JPEG_QUALITY = (50, 95)
"""Range of JPEG's quality. Real-ESRGAN: 30 to 95; phones use 90 and more, messengers and web pages 60 to 85."""

JPEG_BLOCK = 16
"""Side of JPEG's blocks in pixels, with colour at half the resolution."""


def degrade(high_res: np.ndarray, scale: int, generator: np.random.Generator) -> np.ndarray:
    """Makes a realistic low-resolution picture, like those from phones and the web.

    Blur, noise, JPEG and bicubic downscaling are applied in random order. The result is aligned with that of
    `pixels.make_low_res`.

    Args:
        high_res: uint8, (height, width, 3).
        scale: Factor by which both sides are reduced; `high_res` is cropped to a multiple of it first.
        generator: Source of all randomness.

    Returns:
        uint8, (height // scale, width // scale, 3).

    Raises:
        ConfigError: The picture is smaller than `scale`.

    Example:
        low_res = degrade(high_res, 4, np.random.default_rng(0))
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
    """Applies a Gaussian blur in a random direction. `BLUR_SIGMA` is in units of `unit` pixels of the image."""
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
    """Returns sensor noise in grey levels: equally strong everywhere, or shot noise, which grows with brightness."""
    if generator.random() < EVEN_NOISE_PROBABILITY:
        deviation = generator.uniform(*NOISE_SIGMA)
    else:
        deviation = generator.uniform(*SHOT_NOISE) * np.sqrt(np.clip(image, 0, 255))
    channels = 1 if generator.random() < GREY_NOISE_PROBABILITY else 3
    return deviation * generator.standard_normal((*image.shape[:2], channels), np.float32)


def _compress(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Compresses with JPEG and decodes. The blocks may begin anywhere, as in a crop of a photograph."""
    top, left = generator.integers(JPEG_BLOCK, size=2)
    extended = np.pad(to_uint8(image), [(top, 0), (left, 0), (0, 0)], mode="symmetric")
    file = io.BytesIO()
    Image.fromarray(extended).save(file, "JPEG", quality=int(generator.integers(*JPEG_QUALITY, endpoint=True)))
    return np.asarray(Image.open(file), np.float32)[top:, left:]
