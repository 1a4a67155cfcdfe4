"""Fitted networks as functions of pictures, for both tasks. Importing this does not import TensorFlow or Keras."""

import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_psr.constants import STYLE_TRANSFER, SUPER_RESOLUTION
from keras_psr.environment import require_everything
from keras_psr.errors import ConfigError, ModelError
from keras_psr.images.pixels import from_uint16, resize_bicubic, to_three_channels, to_uint8, to_uint16
from keras_psr.images.tiling import upscale_in_tiles
from keras_psr.inference.litert import LiteRTNetwork, check_device
from keras_psr.inference.registry import find_model, find_runnable, named_task

if TYPE_CHECKING:
    import keras

KERAS_OUTPUT_SIDE = 768
"""Largest side of a tile that Keras computes, in output pixels: the default network needs 0.9 KB for each pixel."""

BICUBIC_HALO = 3
"""Halo that bicubic upsampling needs, in input pixels."""


class Upscaler:
    """Enlarges or paints pictures of any size with a network, tile by tile.

    A picture is extended by mirroring at its borders, by the network's receptive field (its halo), and the result is
    cropped. Therefore the zeros with which convolutions pad never show, and tiles give the same result as the whole
    picture.

    Attributes:
        network: The Keras model, or the `LiteRTNetwork`.
        task: Name of its task: `super-resolution` or `style transfer`.
        scale: The upscaling factor; 1 for style transfer.

    Example:
        upscaler = keras_psr.Upscaler(keras.saving.load_model("runs/x4/model.keras"))
        enlarged = upscaler(keras_psr.read_rgb("photo.jpg"))
    """

    def __init__(
        self, network: "keras.Model | LiteRTNetwork", *, task: str | None = None, device: str = "auto"
    ) -> None:
        """Wraps a network.

        Args:
            network: A functional Keras model from (batch, height, width, 3) to (batch, scale * height, scale * width,
                3), RGB in [0, 255]; or a `LiteRTNetwork`.
            task: Name of its task; None for the one that its file names, or else the one that its scale suggests.
            device: What a Keras model runs on: `auto`, `cpu` or `gpu`.

        Raises:
            ModelError: The Keras model has a layer of an unknown kind, so that its receptive field is unknown.
            ConfigError: `device` is `gpu`, but TensorFlow finds no GPU.
        """
        self.network = network
        self._tiles = network if isinstance(network, LiteRTNetwork) else KerasNetwork(network, device)
        self.scale = self._tiles.geometry.scale
        self.task = task or self._tiles.task or guess_task(self.scale)
        self._executor: ThreadPoolExecutor | None = None
        if self._tiles.workers > 1:
            self._executor = ThreadPoolExecutor(self._tiles.workers)

    def __repr__(self) -> str:
        """Returns a line that says which network it is, and what it does."""
        kind = f"{self.task}, scale {self.scale}"
        return f"<Upscaler {self.network.name}: {kind}; call it with uint8 or uint16 pixels (height, width[, 3])>"

    @property
    def device(self) -> str:
        """A line that says what the network runs on."""
        return self._tiles.device

    @property
    def takes_16_bits(self) -> bool:
        """Whether it accepts uint16 pictures; a quantized file does not."""
        return not self._tiles.is_quantized

    def __call__(
        self, image: np.ndarray, *, strength: float = 1.0, on_pixels: Callable[[int], None] = lambda pixels: None
    ) -> np.ndarray:
        """Enlarges or paints one picture. Several threads may call it at once.

        Args:
            image: uint8 or uint16, RGB (height, width, 3) or grey (height, width). The network receives grey as three
                equal channels, and the mean of its output channels is the result.
            strength: Share of the network in the result, in [0, 1]. The rest is bicubic upsampling, or the picture
                itself for style transfer.
            on_pixels: Called repeatedly with the number of output pixels that have been added.

        Returns:
            A picture `scale` times as high and wide, of the same kind and dtype as `image`.

        Raises:
            ConfigError: `image` has another shape or dtype, or has 16 bits and the network is quantized.
        """
        if not isinstance(image, np.ndarray):
            raise ConfigError(
                f"image must be a NumPy array of pixels. Received: {image!r:.60}. "
                "Read a file with keras_psr.read_rgb(path)."
            )
        if image.dtype not in (np.uint8, np.uint16) or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
            raise ConfigError(
                "image must be uint8 or uint16, RGB of shape (height, width, 3) or grey of shape (height, width). "
                f"Received: {image.dtype} of shape {image.shape}."
            )
        if not image.size:
            raise ConfigError(f"image must contain pixels. Received: shape {image.shape}.")
        if not 0 <= strength <= 1:
            raise ConfigError(f"strength must be in [0, 1]. Received: {strength}.")
        if image.dtype == np.uint16 and not self.takes_16_bits:
            raise ConfigError(
                "image has 16 bits per channel, but the model is quantized to 8. Use its float32 or float16 file."
            )
        geometry = self._tiles.geometry
        if strength < 1 and self.scale > 1:
            geometry = replace(geometry, halo=max(geometry.halo, BICUBIC_HALO))
        return upscale_in_tiles(
            lambda tile: self._upscale_tile(tile, strength),
            image,
            geometry,
            tile=self._tiles.tile_size(*image.shape[:2]),
            dtype=image.dtype,
            map_tiles=self._executor.map if self._executor else map,
            on_pixels=on_pixels,
        )

    def _upscale_tile(self, tile: np.ndarray, strength: float) -> np.ndarray:
        """Enlarges or paints one tile, keeping the picture's dtype and kind."""
        if tile.dtype == np.uint8 and tile.ndim == 3 and strength == 1:
            return self._tiles(tile, to_uint8)
        levels = from_uint16(tile) if tile.dtype == np.uint16 else tile
        enlarged = self._tiles(to_three_channels(levels), np.array)
        if tile.ndim == 2:
            enlarged = enlarged.mean(axis=-1, dtype=np.float32)
        if strength < 1:
            bicubic = resize_bicubic(levels.astype(np.float32), *(side * self.scale for side in tile.shape[:2]))
            missing = (len(bicubic) - len(enlarged)) // 2  # a .tflite returns a tile without its halo
            bicubic = bicubic[missing : len(bicubic) - missing, missing : bicubic.shape[1] - missing]
            enlarged = strength * np.clip(enlarged.astype(np.float32), 0, 255) + (1 - strength) * bicubic
        if tile.dtype == np.uint16:
            return to_uint16(enlarged)
        return to_uint8(enlarged)


class KerasNetwork:
    """A Keras model as a function of tiles.

    Attributes:
        task: None, because Keras models do not name theirs.
        geometry: Scale, halo and grid, measured from the network.
        workers: Number of threads that should call it at once: 1, because TensorFlow uses all cores itself.
        is_quantized: Always False.
        device: A line that says what the network runs on.
    """

    workers = 1
    task: str | None = None
    is_quantized = False

    def __init__(self, network: "keras.Model", device: str = "auto") -> None:
        """Measures a network's geometry.

        Args:
            network: The Keras model.
            device: `auto` leaves the choice to TensorFlow; `cpu`; or `gpu`, which TensorFlow must find.

        Raises:
            ModelError: The network has a layer of an unknown kind.
            ConfigError: `device` is `gpu`, but TensorFlow finds no GPU.
        """
        import tensorflow as tf

        from keras_psr.networks.receptive_field import measure_geometry

        self._network, self._device = network, device
        gpus = tf.config.list_physical_devices("GPU")
        if device == "gpu" and not gpus:
            raise ConfigError(
                "--device gpu: TensorFlow, which runs .keras files, finds no GPU. A .tflite runs on any GPU: "
                "keras-psr export MODEL --tflite. Or use --device cpu."
            )
        self.device = f"TensorFlow computes on the {'GPU' if gpus and device != 'cpu' else 'CPU'}"
        self.geometry = measure_geometry(network)
        self._tile = max(KERAS_OUTPUT_SIDE // self.geometry.scale, 4 * max(self.geometry.halo, BICUBIC_HALO))

    def _on_device(self) -> AbstractContextManager[object]:
        import tensorflow as tf

        return tf.device("CPU:0") if self._device == "cpu" else nullcontext()

    def tile_size(self, height: int, width: int) -> tuple[int, int]:
        """Returns the height and width of tiles for a picture: one tile for all of it, unless it is too large."""
        around, whole_blocks = 2 * max(self.geometry.halo, BICUBIC_HALO), self.geometry.whole_blocks
        return whole_blocks(min(self._tile, height + around)), whole_blocks(min(self._tile, width + around))

    def __call__(self, tile: np.ndarray, take: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Runs the network on a tile, as `LiteRTNetwork` does, but keeps the halo and does not clip."""
        with self._on_device():
            return take(np.asarray(self._network(tile[None].astype(np.float32), training=False))[0].astype(np.float32))


def guess_task(scale: int) -> str:
    """Returns the task of a network whose file is older than the names of tasks, and does not state it."""
    return SUPER_RESOLUTION if scale > 1 else STYLE_TRANSFER


def load(
    model: str | Path,
    *,
    threads: int | None = None,
    device: str = "auto",
    on_device: Callable[[str], None] = lambda line: None,
) -> Upscaler:
    """Loads a fitted network.

    Args:
        model: A shipped model's name (`x4`), the name of one of its `.tflite` files (`x4_int8`), a run folder, or a
            `.tflite` or `.keras` file. A shipped model's name means its float32 `.tflite`, which gives the same pixels
            as the Keras network without TensorFlow, or its `.keras` file if it has no `.tflite`.
        threads: Tiles of a `.tflite` that the CPU computes at once; None for one per core.
        device: `auto` runs a float `.tflite` on a GPU if there is a real one that gives the CPU's pixels and is faster
            (`litert.LiteRTNetwork`); `cpu` and `gpu` force the choice. CUDA and TensorFlow are not needed.
        on_device: Called with a line that says what a `.tflite` runs on, unless `device` is `cpu`, and again if a GPU
            fails and the CPU takes over.

    Returns:
        The network as a function of pictures.

    Raises:
        ModelError: There is no such model, or it does not map pictures to pictures.
        ConfigError: `device` is unknown, or is `gpu` and no GPU can run the model.

    Example:
        upscaler = keras_psr.load("x4")
        enlarged = upscaler(keras_psr.read_rgb("photo.jpg"))
    """
    path = find_runnable(model)
    if path.suffix == ".tflite":
        return Upscaler(LiteRTNetwork(path, threads, device, on_device))
    return load_keras(path, device=device)


def load_keras(model: str | Path, *, device: str = "auto") -> Upscaler:
    """Loads a fitted network as a Keras model, to fine-tune or export it.

    Args:
        model: A shipped model's name (`x4`), a run folder, or a `.keras` file.
        device: What TensorFlow runs on: `auto`, `cpu` or `gpu`.

    Returns:
        The network as a function of pictures; its `network` is a Keras model.

    Raises:
        ModelError: There is no such model, or it does not map pictures to pictures.
        ConfigError: `device` is unknown, or is `gpu` and TensorFlow finds no GPU.

    Example:
        network = load_keras("x4").network
    """
    check_device(device)
    path = find_model(model)
    network = load_network(path)
    if network.output_shape != (None, None, None, 3) or network.input_shape != (None, None, None, 3):
        raise ModelError(
            f"{path} is not a keras-psr network: it maps {network.input_shape} to {network.output_shape}, "
            "expected (None, None, None, 3) for both."
        )
    return Upscaler(network, task=named_task(path), device=device)


def load_network(path: Path) -> "keras.Model":
    """Loads a `.keras` file without executing code from it (`safe_mode`).

    Args:
        path: The `.keras` file.

    Returns:
        The model, not compiled.

    Raises:
        ModelError: The file is not a Keras model file.
        InstallationError: Keras is not installed.

    Example:
        network = load_network(Path("runs/x4/model.keras"))
    """
    if path.suffix != ".keras" or not zipfile.is_zipfile(path):  # Keras would also open .h5, without `safe_mode`
        raise ModelError(f"{path} is not a .keras file. Give a run folder of `keras-psr fit` or its model.keras.")
    require_everything(f"The .keras file {path}")
    import keras

    import keras_psr.networks.style_transfer  # noqa: F401 - registers the layers that a style network may contain

    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises ValueError, KeyError, TypeError, OSError and zipfile's kinds
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{path} is not a usable Keras model file: {reason}") from error
