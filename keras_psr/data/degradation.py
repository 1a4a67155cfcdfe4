"""Degradations of photographs from phones and the web: reduction, blur, noise, sharpening, and JPEG as the last step.

Reference:
    Wang et al. 2021, Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data, section 3, with
    the numbers of its `options/train_realesrnet_x4plus.yml`; Zhang et al. 2021, Designing a Practical Degradation Model
    for Deep Blind Image Super-Resolution (BSRGAN), section 3.

    Both enlarge the space of degradations until it covers nearly every picture: two rounds, or a random order of the
    steps. A small network that is fitted to all of that learns to smooth. We keep to one round and to the order in
    which files are really made. JPEG comes after the reduction, because a reduction by 4 removes the blocks of a JPEG
    before it, and with them what a network has to learn to remove.
"""

import io
from collections.abc import Callable
from zlib import crc32

import numpy as np
from PIL import Image, ImageFilter

from keras_psr.errors import ConfigError
from keras_psr.images.pixels import crop_to_multiple, make_low_res, to_uint8

CLEAN_PROBABILITY = 0.2
"""Probability that nothing but `make_low_res` happens, so that clean pictures stay what they are. BSRGAN and
Real-ESRGAN: 0."""

REDUCTIONS = (
    Image.Resampling.BICUBIC,
    Image.Resampling.BILINEAR,
    Image.Resampling.BOX,
    Image.Resampling.LANCZOS,
)
"""Antialiased kernels with which phones and web sites reduce, equally likely. Real-ESRGAN: area, bilinear, bicubic;
ImageMagick, on which many web sites run, takes Lanczos."""

KERNEL_REACH = 3
"""Low-resolution pixels on each side on which a pixel depends: those of Lanczos, the widest kernel."""

BLUR_PROBABILITY = 0.5
"""Probability of a blur. Real-ESRGAN: always, then 0.8; but phones and web sites sharpen, so that about half of all
pictures is sharp."""

BLUR_SIGMA = (0.05, 0.75)
"""Range of the blur's standard deviation along each axis, in low-resolution pixels: from a sharp lens to the noise
reduction of a phone. Real-ESRGAN: 0.2 to 3 pixels before the reduction, which is the same at a scale of 4."""

ROUND_BLUR_PROBABILITY = 0.7
"""Probability that a blur is equally wide along both axes. Real-ESRGAN: 0.69."""

NOISE_PROBABILITY = 0.5
"""Probability of noise. Real-ESRGAN: always, then 0.8; but most pictures are taken by day, and reduction averages
noise."""

EVEN_NOISE_PROBABILITY = 0.5
"""Probability that noise is equally strong at all grey levels; otherwise it is shot noise. Real-ESRGAN: 0.5."""

GREY_NOISE_PROBABILITY = 0.4
"""Probability that noise is the same in all channels. Real-ESRGAN: 0.4."""

NOISE_SIGMA = (1, 15)
"""Range of standard deviations in grey levels. Real-ESRGAN: 1 to 30; above 15 is night noise, which phones remove."""

SHOT_NOISE = (0.05, 0.9)
"""Range of standard deviation / sqrt(grey level), so at most 14 for white. Real-ESRGAN: 0.05 to 3."""

SHARPENING_PROBABILITY = 0.3
"""Probability of sharpening, which cameras and many web sites do after the reduction. Real-ESRGAN and BSRGAN sharpen
the original instead, so that results are sharpened; we want them without halos."""

SHARPENING_SIGMA = (0.5, 1.1)
"""Range of the standard deviation of the unsharp mask's blur, in low-resolution pixels: 0.5 to 1 is common on the web.
From 1.15 on, Pillow's blur would reach 6 pixels and not 3."""

SHARPENING_PERCENT = (20, 80)
"""Range of the unsharp mask's strength; at 80, noise is up to 1.7 times as strong, and halos begin to be visible."""

JPEG_PROBABILITY = 0.9
"""Probability that a degraded picture is saved as JPEG. Real-ESRGAN: 1."""

SECOND_JPEG_PROBABILITY = 0.2
"""Probability that a JPEG was one before, with other blocks: a crop, or a screenshot, of a picture from the web.
BSRGAN: 0.75; Real-ESRGAN: 1, but with a reduction in between."""

JPEG_QUALITY = (40, 95)
"""Range of JPEG's quality, all equally likely: messengers 40 to 80, web sites 60 to 85, phones 90 and more. BSRGAN and
Real-ESRGAN: 30 to 95."""

FULL_COLOUR_PROBABILITY = 0.2
"""Probability that JPEG keeps the resolution of colour (4:4:4), as many picture editors do; else it is halved (4:2:0),
as phones, messengers and most web sites do. BSRGAN and Real-ESRGAN: OpenCV's 4:2:0."""

JPEG_BLOCK = 16
"""Side of JPEG's blocks in pixels, with colour at half the resolution."""

MARGIN = 6
"""Low-resolution pixels around a crop on which it depends, apart from JPEG: 3 each for blur and sharpening."""


def degrade(high_res: np.ndarray, scale: int, generator: np.random.Generator) -> np.ndarray:
    """Makes a realistic low-resolution picture, like those from phones and the web.

    The picture is reduced by a random kernel. Blur, noise, sharpening and JPEG follow, each with a probability. A part
    of all pictures is clean, as from `pixels.make_low_res`, with which all others are aligned.

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
    kernel = draw_kernel(generator)
    return (
        make_low_res(high_res, scale) if kernel is None else degrade_reduced(reduce(high_res, scale, kernel), generator)
    )


def draw_kernel(generator: np.random.Generator) -> Image.Resampling | None:
    """Draws the kernel of a picture's reduction, which is the first step of `degrade`.

    Args:
        generator: Source of all randomness.

    Returns:
        One of `REDUCTIONS`; None for a picture that stays clean, which `pixels.make_low_res` reduces.

    Example:
        kernel = draw_kernel(np.random.default_rng(0))
    """
    if generator.random() < CLEAN_PROBABILITY:
        return None
    return REDUCTIONS[generator.integers(len(REDUCTIONS))]


def reduce(high_res: np.ndarray, scale: int, kernel: Image.Resampling) -> np.ndarray:
    """Reduces a picture as phones and web sites do, aligned with `pixels.make_low_res` and mirrored as there.

    Args:
        high_res: uint8, (height, width, 3).
        scale: Factor by which both sides are reduced; `high_res` is cropped to a multiple of it first.
        kernel: One of Pillow's antialiased kernels.

    Returns:
        uint8, (height // scale, width // scale, 3).

    Raises:
        ConfigError: The picture is smaller than `scale`.

    Example:
        low_res = reduce(high_res, 4, Image.Resampling.LANCZOS)
    """
    border = KERNEL_REACH * scale
    image = np.pad(crop_to_multiple(high_res, scale), [(border, border), (border, border), (0, 0)], mode="symmetric")
    size = (image.shape[1] // scale, image.shape[0] // scale)
    reduced = np.asarray(Image.fromarray(image).resize(size, kernel))
    return reduced[KERNEL_REACH:-KERNEL_REACH, KERNEL_REACH:-KERNEL_REACH]


def degrade_reduced(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Applies all steps of `degrade` after the reduction.

    Args:
        image: uint8, (height, width, 3).
        generator: Source of all randomness.

    Returns:
        uint8, of the same shape.

    Example:
        low_res = degrade_reduced(make_low_res(high_res, 4), np.random.default_rng(0))
    """
    if generator.random() < BLUR_PROBABILITY:
        image = _blur(image, generator)
    if generator.random() < NOISE_PROBABILITY:
        image = to_uint8(image + _make_noise(image, generator))
    if generator.random() < SHARPENING_PROBABILITY:
        image = _sharpen(image, generator)
    if generator.random() < JPEG_PROBABILITY:
        is_second = generator.random() < SECOND_JPEG_PROBABILITY
        for _ in range(2 if is_second else 1):
            image = _compress(image, generator)
    return image


def _blur(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Applies a Gaussian blur.

    It follows the reduction, which may then be made once for many crops. It hardly matters: an antialiased reduction
    leaves little that a blur before it would have kept from aliasing.
    """
    sigmas = generator.uniform(*BLUR_SIGMA, 2)
    if generator.random() < ROUND_BLUR_PROBABILITY:
        sigmas[1] = sigmas[0]
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(tuple(sigmas))))


def _make_noise(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Returns sensor noise in grey levels: equally strong everywhere, or shot noise, which grows with brightness."""
    if generator.random() < EVEN_NOISE_PROBABILITY:
        deviation = np.float32(generator.uniform(*NOISE_SIGMA))
    else:
        deviation = np.float32(generator.uniform(*SHOT_NOISE)) * np.sqrt(image, dtype=np.float32)
    channels = 1 if generator.random() < GREY_NOISE_PROBABILITY else 3
    return deviation * generator.standard_normal((*image.shape[:2], channels), np.float32)


def _sharpen(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Applies an unsharp mask, which adds to a picture what a blur takes from it."""
    sigma, percent = generator.uniform(*SHARPENING_SIGMA), round(generator.uniform(*SHARPENING_PERCENT))
    return np.asarray(Image.fromarray(image).filter(ImageFilter.UnsharpMask(sigma, percent, threshold=0)))


def _compress(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Compresses with JPEG and decodes. The blocks may begin anywhere, as they do in a crop."""
    top, left = generator.integers(JPEG_BLOCK, size=2)
    quality = int(generator.integers(*JPEG_QUALITY, endpoint=True))
    subsampling = "4:4:4" if generator.random() < FULL_COLOUR_PROBABILITY else "4:2:0"
    extended = np.pad(image, [(top, 0), (left, 0), (0, 0)], mode="symmetric")
    return compress_jpeg(extended, quality, subsampling)[top:, left:]


def compress_jpeg(image: np.ndarray, quality: int, subsampling: str = "4:2:0") -> np.ndarray:
    """Compresses a picture with JPEG and decodes it.

    Args:
        image: uint8, (height, width, 3).
        quality: As libjpeg counts it, 1 to 100.
        subsampling: `4:2:0`, in which colour has half the resolution, or `4:4:4`.

    Returns:
        uint8, of the same shape.

    Example:
        low_res = compress_jpeg(make_low_res(high_res, 4), quality=75)
    """
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling=subsampling)
    return np.asarray(Image.open(file))


Degradation = Callable[[np.ndarray, int], np.ndarray]
"""A function of an original and the scale that makes the low-resolution picture."""


def named_degradation(name: str) -> Degradation:
    """Returns the degradation that a name stands for. Networks are scored with these.

    The result depends on nothing but the original: its pixels are the seed of what is random.

    Args:
        name: `bicubic` for `pixels.make_low_res`, `photo` for `degrade`, or what follows `make_low_res`: `jpeg:75` for
            JPEG of this quality with colour at half the resolution, `noise:10` for even noise of this standard
            deviation in grey levels, or `blur:0.5` for a Gaussian blur of this standard deviation in low-resolution
            pixels.

    Raises:
        ConfigError: No degradation has this name.

    Example:
        low_res = named_degradation("jpeg:75")(high_res, 4)
    """
    kind, _, text = name.partition(":")
    try:
        strength = float(text or "nan")
    except ValueError:
        strength = float("nan")
    if name == "bicubic":
        return make_low_res
    if name == "photo":
        return lambda high_res, scale: degrade(high_res, scale, _seeded(high_res))
    if kind == "jpeg" and strength in range(1, 101):
        return lambda high_res, scale: compress_jpeg(make_low_res(high_res, scale), int(strength))
    if kind == "noise" and 0 < strength < float("inf"):
        return lambda high_res, scale: _add_noise(make_low_res(high_res, scale), strength, _seeded(high_res))
    if kind == "blur" and 0 < strength < float("inf"):
        return lambda high_res, scale: _blur_evenly(make_low_res(high_res, scale), strength)
    raise ConfigError(
        f"degradation must be bicubic, photo, jpeg:QUALITY (1 to 100), noise:SIGMA or blur:SIGMA. Received: {name!r}."
    )


def _seeded(image: np.ndarray) -> np.random.Generator:
    return np.random.default_rng(crc32(image.tobytes()))


def _add_noise(image: np.ndarray, deviation: float, generator: np.random.Generator) -> np.ndarray:
    return to_uint8(image + np.float32(deviation) * generator.standard_normal(image.shape, np.float32))


def _blur_evenly(image: np.ndarray, sigma: float) -> np.ndarray:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma)))
