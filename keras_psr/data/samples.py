"""The sample stream: a pure function of (seed, sample index), so that a fit can be resumed and sharded."""

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from keras_psr.constants import DEGRADATIONS
from keras_psr.data.degradation import KERNEL_REACH, MARGIN, REDUCTIONS, degrade_reduced, draw_kernel, reduce
from keras_psr.data.sources import Picture, report_skipped
from keras_psr.errors import ConfigError, DataError, ImageFileError
from keras_psr.images.pixels import crop_to_multiple, make_low_res

if TYPE_CHECKING:
    import tensorflow as tf

CACHE_BYTES = 2 * 1024**3
"""Bytes of decoded pictures and their low-resolution versions in memory; others are decoded again each time."""

MAX_DRAWS = 1000
"""Number of draws for one sample after which all pictures count as unusable."""

log = logging.getLogger(__name__)

Kernel = Image.Resampling | None
"""How a picture is reduced: by `degradation.reduce`, or for None by `pixels.make_low_res`."""


@dataclass(frozen=True)
class Sample:
    """One crop of one picture, and its orientation.

    Attributes:
        picture: Index of the picture in the stream's list.
        top: First row of the crop, in pixels, a multiple of the scale.
        left: First column of the crop, in pixels, a multiple of the scale.
        orientation: 0 to 7: quarter turns (`orientation % 4`), mirrored from 4 on.
        index: Position in the stream, which seeds the degradation.
    """

    picture: int
    top: int
    left: int
    orientation: int
    index: int = field(default=0, compare=False)


class SampleStream:
    """An endless stream of random crops of pictures, each with its low-resolution input.

    Each picture is reduced once, as a whole, and pairs are cut from both versions, so that crops are aligned with the
    low-resolution pixels. Pictures are drawn in proportion to their area, so that every position in every picture is
    about equally likely.

    Example:
        stream = SampleStream(open_sources(["photos"]), scale=4, crop=192)
        low_res, high_res = stream.batch(0, 8)
    """

    def __init__(
        self,
        pictures: Sequence[Picture],
        *,
        scale: int,
        crop: int,
        seed: int = 0,
        blur_sigma: float = 0.0,
        degradation: str = "bicubic",
        surround: int = 0,
    ) -> None:
        """Creates a stream from the pictures that are at least as large as the crop, and warns once about the others.

        Args:
            pictures: The pictures to crop.
            scale: Upscaling factor; `crop` must be a multiple of it.
            crop: Side of the square high-resolution crops, in pixels.
            seed: Seed of the random crops.
            blur_sigma: Gaussian blur before downscaling, in high-resolution pixels (`pixels.make_low_res`).
            degradation: `bicubic`, or `photo` for realistic degradations (`degradation.degrade`).
            surround: Width of the picture around the crop that the input shows as well, in low-resolution pixels on
                each side; mirrored beyond the picture's border.

        Raises:
            ConfigError: The degradation is unknown, or is `photo`, which blurs itself, together with a `blur_sigma`.
            DataError: No picture is as large as the crop, or none can be read.
        """
        if degradation not in DEGRADATIONS:
            raise ConfigError(f"degradation must be one of {', '.join(DEGRADATIONS)}. Received: {degradation!r}.")
        if degradation == "photo" and blur_sigma:
            raise ConfigError(f"blur_sigma must be 0 with the degradation photo, which blurs. Received: {blur_sigma}.")
        fits = [min(picture.height, picture.width) >= crop for picture in pictures]
        self.pictures = [picture for picture, fit in zip(pictures, fits, strict=True) if fit]
        report_skipped(
            (picture.name, f"{picture.height}x{picture.width} is smaller than the crop of {crop}x{crop}")
            for picture, fit in zip(pictures, fits, strict=True)
            if not fit
        )
        if not self.pictures:
            raise DataError(
                f"None of {len(fits)} pictures is as large as the crop, {crop}x{crop}. Use a smaller --crop."
            )
        self.scale, self.crop, self.seed, self.blur_sigma = scale, crop, seed, blur_sigma
        self.degradation, self.surround = degradation, surround
        areas = np.array([picture.height * picture.width for picture in self.pictures], np.float64)
        self._cumulative_area = np.cumsum(areas) / areas.sum()
        self._kernels: tuple[Kernel, ...] = (None, *REDUCTIONS) if degradation == "photo" else (None,)
        self._cache: dict[int, tuple[np.ndarray, dict[Kernel, np.ndarray]]] = {}
        self._smallest = crop
        self._unusable: set[int] = set()
        self._lock = Lock()
        self.sample(0)  # if no picture can be read, this fails here and not later inside TensorFlow

    def sample(self, index: int) -> Sample:
        """Returns the sample at a position of the stream, drawing again if a picture turns out to be unusable.

        Args:
            index: Position in the stream, from 0.

        Returns:
            A sample, always the same for the same seed, index and pictures.

        Raises:
            DataError: `MAX_DRAWS` draws gave no usable picture.
        """
        generator = np.random.default_rng((self.seed, index))
        for _ in range(MAX_DRAWS):
            picture = int(np.searchsorted(self._cumulative_area, generator.random(), side="right"))
            place, orientation = generator.random(2), int(generator.integers(8))
            pixels = self._decode(picture)
            if pixels is not None:
                positions = [(side - self.crop) // self.scale + 1 for side in pixels.shape[:2]]
                top, left = (self.scale * int(p * number) for p, number in zip(place, positions, strict=True))
                return Sample(picture, top, left, orientation, index)
        raise DataError(f"{len(self._unusable)} of {len(self.pictures)} pictures cannot be read. Check the source.")

    def with_crop(self, crop: int) -> "SampleStream":
        """Returns the same stream with smaller crops. Both streams share the pictures in memory.

        Args:
            crop: Side of the crops, in pixels: a multiple of the scale, at most this stream's.
        """
        other = copy.copy(self)
        other.crop = crop
        return other

    def crops(self, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        """Cuts out a sample: the crop, and its low-resolution input.

        Args:
            sample: A sample from `sample`.

        Returns:
            (low_res, high_res), uint8 of shapes (side, side, 3) with side = crop / scale + 2 * surround, and
            (crop, crop, 3).

        Raises:
            ImageFileError: The picture can no longer be read.
        """
        pixels = self._decode(sample.picture)
        if pixels is None:
            raise ImageFileError(f"{self.pictures[sample.picture].name} can no longer be read.")
        high_res = _cut(pixels, sample.top, sample.left, self.crop)
        low_res = (
            self._degrade_crop(pixels, sample) if self.degradation == "photo" else self._reduce_crop(pixels, sample)
        )
        return _turn(low_res, sample.orientation), _turn(high_res, sample.orientation)

    @property
    def _low_crop(self) -> int:
        """The side of the input, in low-resolution pixels."""
        return self.crop // self.scale + 2 * self.surround

    def _degrade_crop(self, pixels: np.ndarray, sample: Sample) -> np.ndarray:
        """Makes the low-resolution input of one sample, with its own random degradations (`degradation.degrade`)."""
        # NumPy pads seeds with zeros: the 1 makes this generator differ from the one in `sample`.
        generator = np.random.default_rng((self.seed, sample.index, 1))
        kernel = draw_kernel(generator)
        if kernel is None:
            return self._reduce_crop(pixels, sample)
        surrounded = self._reduce_crop(pixels, sample, kernel, margin=MARGIN)
        return degrade_reduced(surrounded, generator)[MARGIN:-MARGIN, MARGIN:-MARGIN]

    def _reduce_crop(self, pixels: np.ndarray, sample: Sample, kernel: Kernel = None, margin: int = 0) -> np.ndarray:
        """Cuts a sample from the picture's low-resolution version; if none is kept, reduces a crop to the same pixels.

        `margin` is in low-resolution pixels. Pictures are mirrored at their borders.
        """
        _, versions = self._cache.get(sample.picture, (None, {}))
        if kernel not in versions:
            beyond = KERNEL_REACH + int(np.ceil(4 * self.blur_sigma / self.scale))
            border = self.scale * (self.surround + margin + beyond)
            part = _cut(pixels, sample.top - border, sample.left - border, self.crop + 2 * border)
            return self._reduce(part, kernel)[beyond:-beyond, beyond:-beyond]
        border = self.surround + margin
        top, left = (position // self.scale - border for position in (sample.top, sample.left))
        return _cut(versions[kernel], top, left, self.crop // self.scale + 2 * border)

    def _reduce(self, pixels: np.ndarray, kernel: Kernel) -> np.ndarray:
        if kernel is None:
            return make_low_res(pixels, self.scale, self.blur_sigma)
        return reduce(pixels, self.scale, kernel)

    def batch(self, first: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns samples `first` to `first + size - 1` of the stream, stacked: uint8 (low_res, high_res)."""
        low_res, high_res = zip(*(self._pair(index) for index in range(first, first + size)), strict=True)
        return np.stack(low_res), np.stack(high_res)

    def dataset(
        self,
        *,
        batch_size: int,
        first_sample: int,
        num_steps: int,
        replicas: range = range(1),
        num_replicas: int = 1,
    ) -> "tf.data.Dataset":
        """Returns the batches of `num_steps` steps, prefetched in the background.

        Args:
            batch_size: Samples per step, over all replicas.
            first_sample: Position of the first sample in the stream.
            num_steps: Number of steps.
            replicas: The replicas (devices that share a step) whose parts are returned, in turn.
            num_replicas: Total number of replicas; it must divide the batch size.

        Returns:
            A dataset of uint8 (low_res, high_res) batches of batch_size / num_replicas samples each.
        """
        import tensorflow as tf

        part, crop, low_crop = batch_size // num_replicas, self.crop, self._low_crop

        def load(turn: int) -> tuple[np.ndarray, np.ndarray]:
            step, local = divmod(int(turn), len(replicas))
            return self.batch(first_sample + step * batch_size + replicas[local] * part, part)

        def load_tensors(turn: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            low_res, high_res = tf.numpy_function(load, [turn], (tf.uint8, tf.uint8))
            return (
                tf.ensure_shape(low_res, (part, low_crop, low_crop, 3)),
                tf.ensure_shape(high_res, (part, crop, crop, 3)),
            )

        turns = tf.data.Dataset.range(num_steps * len(replicas))
        return turns.map(load_tensors, num_parallel_calls=2, deterministic=True).prefetch(4)

    def describe_batch(self, first: int, size: int) -> str:
        """Returns the index and name of each picture that a batch is cut from, for messages."""
        pictures = [self.sample(index).picture for index in range(first, first + size)]
        return ", ".join(f"{picture} ({self.pictures[picture].name})" for picture in dict.fromkeys(pictures))

    def _pair(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the crops of the sample at a position, from another picture if one breaks meanwhile."""
        while True:  # terminates, because `sample` skips broken pictures and raises DataError if all are broken
            try:
                return self.crops(self.sample(index))
            except ImageFileError:
                continue

    def _decode(self, index: int) -> np.ndarray | None:
        """Returns a picture's pixels, from memory if possible; warns once and returns None if it is unusable."""
        if index in self._cache:
            return self._cache[index][0]
        if index in self._unusable:
            return None
        picture = self.pictures[index]
        try:
            pixels = picture.read()
            if min(pixels.shape[:2]) < self._smallest:
                raise ImageFileError(
                    f"{pixels.shape[0]}x{pixels.shape[1]} is smaller than the crop of {self._smallest}"
                )
        except ImageFileError as error:
            with self._lock:
                if index not in self._unusable:
                    self._unusable.add(index)
                    report_skipped([(picture.name, str(error))])
            return None
        pixels = crop_to_multiple(pixels, self.scale)
        self._keep(index, pixels)
        return pixels

    def _keep(self, index: int, pixels: np.ndarray) -> None:
        """Keeps a picture in memory if there is room, and its low-resolution version of each kernel."""
        num_bytes = pixels.nbytes + len(self._kernels) * pixels.nbytes // self.scale**2
        if not self._has_room(num_bytes):
            return  # before it is reduced: pictures without room are decoded again for each sample
        versions = {kernel: self._reduce(pixels, kernel) for kernel in self._kernels}
        with self._lock:
            if index not in self._cache and self._has_room(num_bytes):
                self._cache[index] = (pixels, versions)

    def _has_room(self, num_bytes: int) -> bool:
        kept = [array for pixels, versions in list(self._cache.values()) for array in (pixels, *versions.values())]
        return sum(array.nbytes for array in kept) + num_bytes <= CACHE_BYTES


def _cut(pixels: np.ndarray, top: int, left: int, size: int) -> np.ndarray:
    """Cuts out a square. Pixels outside the picture are mirrored, the border pixel repeated (MATLAB `symmetric`)."""
    height, width = pixels.shape[:2]
    if min(top, left) >= 0 and top + size <= height and left + size <= width:
        return pixels[top : top + size, left : left + size]
    rows = _mirrored(np.arange(top, top + size), height)
    columns = _mirrored(np.arange(left, left + size), width)
    return pixels[rows[:, None], columns]


def _mirrored(positions: np.ndarray, size: int) -> np.ndarray:
    """Mirrors positions outside [0, size) at the borders, as often as needed."""
    positions = positions % (2 * size)
    return np.where(positions < size, positions, 2 * size - 1 - positions)


def _turn(image: np.ndarray, orientation: int) -> np.ndarray:
    turned = np.rot90(image, orientation % 4)
    return turned[:, ::-1] if orientation >= 4 else turned
