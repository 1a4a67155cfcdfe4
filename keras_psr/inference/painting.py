"""Painting at a fixed size: reduce, paint, enlarge. Importing this does not import TensorFlow or Keras."""

from collections.abc import Callable
from threading import Lock

import numpy as np

from keras_psr.constants import PAINT_SIZE
from keras_psr.errors import ConfigError
from keras_psr.images.pixels import mix
from keras_psr.inference.photos import PictureFunction, output_size, resize
from keras_psr.inference.upscaler import Upscaler, load

ENLARGERS = {2: "x2-fast", 4: "x4-photo"}
"""The shipped models that enlarge a painting, by scale: up to twice its size, and beyond.

A painting is soft at its own size. Of the networks that enlarge 4 times, only `x4-photo`, which was fitted to blurred
pictures, draws strokes with sharp edges. Up to twice the size, reducing what it draws makes strokes coarse.
"""


class Painter:
    """Paints pictures of any size with strokes of one size: larger ones are reduced, painted and enlarged again.

    A style network draws strokes of a fixed size in pixels, so a large picture drowns in small strokes. Therefore
    pictures are painted at the paint size, and a shipped network enlarges the painting, which also takes less time. A
    last bicubic step gives the exact size.

    Attributes:
        painter: The style network, or the optimisation towards a painting.
        paint_size: Shorter side at which pictures are painted, in pixels; 0 for their own.
        scale: 1.
        takes_16_bits: As `painter`. If it is quantized, so is the network that enlarges.

    Example:
        paint = keras_psr.Painter(keras_psr.load("starry-night"))
        painted = paint(keras_psr.read_rgb("photo.jpg"))
    """

    scale = 1

    def __init__(
        self,
        painter: PictureFunction,
        paint_size: int = PAINT_SIZE,
        *,
        passes: int = 1,
        load_enlarger: Callable[[str], Upscaler] = load,
    ) -> None:
        """Sets how pictures are painted.

        Args:
            painter: An `Upscaler` for a style, or a `style_transfer.optimization.PixelOptimizer`.
            paint_size: Shorter side at which larger pictures are painted, in pixels; 0 paints all as they are.
            passes: How often `painter` computes each pixel, for progress.
            load_enlarger: Loads a model of `ENLARGERS`, when a picture first needs it.

        Raises:
            ConfigError: `painter` enlarges, or `paint_size` is negative.
        """
        if painter.scale != 1:
            raise ConfigError(f"painter must be a style, such as starry-night. Received: one of scale {painter.scale}.")
        if paint_size < 0:
            raise ConfigError(f"paint_size must be 0 or more pixels (0 keeps the size). Received: {paint_size}.")
        self.painter, self.paint_size, self._passes = painter, paint_size, passes
        self._load, self._enlargers, self._lock = load_enlarger, dict[str, Upscaler](), Lock()

    @property
    def takes_16_bits(self) -> bool:
        """Whether it accepts uint16 pictures, not only uint8."""
        return self.painter.takes_16_bits

    def __call__(
        self, image: np.ndarray, *, strength: float = 1.0, on_pixels: Callable[[int], None] = lambda pixels: None
    ) -> np.ndarray:
        """Paints one picture. Several threads may call it at once.

        Args:
            image: uint8 or uint16, RGB (height, width, 3) or grey (height, width).
            strength: Share of the painting in the result, in [0, 1]; the rest is the picture at its full size.
            on_pixels: Called repeatedly with numbers that add up to at most the result's pixels times `passes`.

        Returns:
            The painted picture, of the same shape and dtype.

        Raises:
            ConfigError: As for `painter`.
        """
        height, width = image.shape[:2]
        if not self.paint_size or min(height, width) <= self.paint_size:
            return self.painter(image, strength=strength, on_pixels=on_pixels)
        reduced = resize(image, output_size(height, width, self.paint_size / min(height, width)))
        enlarger = self._enlarger(2 if min(height, width) <= 2 * self.paint_size else 4)
        computed = reduced.shape[0] * reduced.shape[1] * (self._passes + enlarger.scale**2)
        share = height * width * self._passes / computed

        def count(pixels: int) -> None:
            on_pixels(int(pixels * share))

        painted = self.painter(reduced, strength=1.0, on_pixels=count)
        enlarged = resize(enlarger(painted, on_pixels=count), (height, width))
        return mix(enlarged, image, strength) if strength < 1 else enlarged

    def _enlarger(self, scale: int) -> Upscaler:
        """Returns the network that enlarges by a scale, which is loaded once."""
        name = ENLARGERS[scale] + ("" if self.takes_16_bits else "_int8")
        with self._lock:
            if name not in self._enlargers:
                self._enlargers[name] = self._load(name)
            return self._enlargers[name]
