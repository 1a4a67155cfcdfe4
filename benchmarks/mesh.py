"""Measures how much of a mesh models draw on textures, as a bump in the spectrum of their pictures.

python benchmarks/mesh.py --data Set14/ x4 runs/x4-fast

The power of photographs falls with frequency. The feature loss rewards a network for high frequencies anywhere, and it
puts them where it can most easily, between the harmonics of its upsampling lattice: at about 3/8 cycles per pixel for
x4, with a sign that alternates from one low-resolution pixel to the next, so that neither `lattice_ratio` nor the phase
loss sees them. At 300% it looks like woven cloth. The bump is how far the power rises, in dB, over the lowest at lower
frequencies.
"""

import click
import numpy as np

import keras_psr
from keras_psr.data.sources import open_sources
from keras_psr.images.metrics import rgb_to_y
from keras_psr.images.pixels import crop_to_multiple, make_low_res, resize_bicubic

BANDS = 16


def measure_bands(image: np.ndarray) -> np.ndarray:
    """Returns the power of luma per pixel in bands up to half a cycle per pixel, along rows and columns."""
    luma = rgb_to_y(image)
    total = np.zeros(BANDS)
    for lines in (luma, luma.T):
        length = lines.shape[1]
        centred = (lines - lines.mean(1, keepdims=True)) * np.hanning(length)
        power = (np.abs(np.fft.rfft(centred)) ** 2).mean(0)[1:] / length
        total += [band.mean() for band in np.array_split(power, BANDS)]
    return total


def measure_bump(decibels: np.ndarray) -> float:
    """Returns the largest rise of a band over the lowest band before it, in dB."""
    return float((decibels - np.minimum.accumulate(decibels)).max())


@click.command()
@click.argument("models", nargs=-1, required=True)
@click.option("--data", required=True, help="Folder of originals.")
def main(models: tuple[str, ...], data: str) -> None:
    """Prints dB per band, and the bump, of originals, bicubic and MODELS."""
    originals = [picture.read() for picture in open_sources([data])]
    rows = {"originals": [measure_bands(original) for original in originals]}
    for model in models:
        upscaler = keras_psr.load(model)
        scale = upscaler.scale
        small = [make_low_res(crop_to_multiple(original, scale), scale) for original in originals]
        if f"bicubic x{scale}" not in rows:
            enlarged = (resize_bicubic(image, *(side * scale for side in image.shape[:2])) for image in small)
            rows[f"bicubic x{scale}"] = [measure_bands(image) for image in enlarged]
        rows[model] = [measure_bands(upscaler(image)) for image in small]
    for name, powers in rows.items():
        decibels = 10 * np.log10(np.mean(powers, axis=0))
        bands_text = " ".join(f"{band:4.0f}" for band in decibels)
        click.echo(f"{name:24} bump {measure_bump(decibels):4.1f} dB   {bands_text}")


if __name__ == "__main__":
    main()
