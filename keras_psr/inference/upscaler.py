"""Fitted networks as functions of pictures, for both tasks; importing this imports neither TensorFlow nor Keras."""

import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_psr.constants import STYLE_TRANSFER, SUPER_RESOLUTION
from keras_psr.errors import ConfigError, ModelError
from keras_psr.images.pixels import resize_bicubic, to_uint8, to_uint16
from keras_psr.images.tiling import upscale_in_tiles
from keras_psr.inference.litert import LiteRTNetwork, check_device
from keras_psr.inference.registry import find_model, find_runnable, named_task
from keras_psr.installation import require_everything

if TYPE_CHECKING:
    import keras

KERAS_OUTPUT_SIDE = 768
"""Side of what Keras computes at once, in enlarged pixels: the default network takes 0.9 KB for each."""

BICUBIC_HALO = 3
"""What a bicubically enlarged pixel needs around it, in low-resolution pixels."""


class Upscaler:
    """Enlarges pictures with a network, or paints them, of any size, in tiles.

    A picture is extended by mirroring at its borders as far as the network looks (its halo), and the result is cut: so
    the zeros with which convolutions pad never show, and tiles give what the whole picture would give.

    Attributes:
        network: The Keras model, or the `LiteRTNetwork`.
        task: Name of its task: `super-resolution` or `style transfer`.
        scale: Its upscaling factor; 1 of a network that does not enlarge.
    """

    def __init__(
        self, network: "keras.Model | LiteRTNetwork", *, task: str | None = None, device: str = "auto"
    ) -> None:
        """Wraps a network.

        Args:
            network: A functional Keras model from (batch, height, width, 3) to an enlarged picture, RGB in [0, 255]; or
                a `.tflite`.
            task: Name of its task; None for the one that its file names, or else the one that its scale suggests.
            device: What computes a Keras model: `auto`, `cpu` or `gpu`.

        Raises:
            ModelError: A layer of the Keras model is of an unknown kind, so nobody knows how far it looks.
            ConfigError: `device` is `gpu`, and TensorFlow sees none.
        """
        self.network = network
        self._tiles = network if isinstance(network, LiteRTNetwork) else KerasNetwork(network, device)
        self.scale = self._tiles.geometry.scale
        self.task = task or self._tiles.task or guess_task(self.scale)
        self._executor: ThreadPoolExecutor | None = None
        if self._tiles.workers > 1:
            self._executor = ThreadPoolExecutor(self._tiles.workers)

    def __repr__(self) -> str:
        """Which network it is, and what it does."""
        kind = f"{self.task}, scale {self.scale}"
        return f"<Upscaler {self.network.name}: {kind}; call it with uint8 or uint16 pixels (height, width[, 3])>"

    @property
    def device(self) -> str:
        """A line that says what computes."""
        return self._tiles.device

    @property
    def takes_16_bits(self) -> bool:
        """Whether it takes uint16 pictures; a quantized file does not."""
        return not self._tiles.is_quantized

    def __call__(
        self, image: np.ndarray, *, strength: float = 1.0, on_pixels: Callable[[int], None] = lambda pixels: None
    ) -> np.ndarray:
        """Enlarges one picture. Several threads may do so at once.

        Args:
            image: uint8 or uint16, RGB (height, width, 3) or grey (height, width). Grey is given to the network as
                three equal channels, whose mean is taken.
            strength: Share of the network in the result, in [0, 1]; the rest is bicubic, or the picture of a style.
            on_pixels: Called again and again with the number of pixels of the result that have been added.

        Returns:
            `scale` times as high and wide, of the same kind and dtype.

        Raises:
            ConfigError: `image` is of another shape or dtype, or has 16 bits and the network is quantized.
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
            raise ConfigError(f"image must hold pixels. Received: shape {image.shape}.")
        if not 0 <= strength <= 1:
            raise ConfigError(f"strength must be in [0, 1]. Received: {strength}.")
        if image.dtype == np.uint16 and not self.takes_16_bits:
            raise ConfigError(
                "image has 16 bits for each channel, but the model is quantized to 8. Use its float32 or float16 file."
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
        """One tile, in the dtype and kind of the picture."""
        if tile.dtype == np.uint8 and tile.ndim == 3 and strength == 1:
            return self._tiles(tile, to_uint8)
        levels = tile.astype(np.float32) / 257 if tile.dtype == np.uint16 else tile
        enlarged = self._tiles(levels if tile.ndim == 3 else np.stack([levels] * 3, axis=-1), np.array)
        if tile.ndim == 2:
            enlarged = enlarged.mean(axis=-1, dtype=np.float32)
        if strength < 1:
            bicubic = resize_bicubic(levels.astype(np.float32), *(side * self.scale for side in tile.shape[:2]))
            missing = (len(bicubic) - len(enlarged)) // 2  # files give a tile without its halo
            bicubic = bicubic[missing : len(bicubic) - missing, missing : bicubic.shape[1] - missing]
            enlarged = strength * np.clip(enlarged.astype(np.float32), 0, 255) + (1 - strength) * bicubic
        if tile.dtype == np.uint16:
            return to_uint16(enlarged)
        return to_uint8(enlarged)


class KerasNetwork:
    """A Keras model as a function of tiles.

    Attributes:
        geometry: Scale, halo and grid, measured.
        workers: 1, for TensorFlow itself uses all cores.
        is_quantized: False.
        task: None: Keras models do not name theirs.
        device: A line that says what computes.
    """

    workers = 1
    task: str | None = None
    is_quantized = False

    def __init__(self, network: "keras.Model", device: str = "auto") -> None:
        """Finds out how far a network looks.

        Args:
            network: The Keras model.
            device: `auto` leaves the choice to TensorFlow; `cpu`; or `gpu`, which TensorFlow must see.

        Raises:
            ModelError: It has a layer of an unknown kind.
            ConfigError: TensorFlow sees no GPU.
        """
        import tensorflow as tf

        from keras_psr.networks.receptive_field import measure_geometry

        self._network, self._device = network, device
        gpus = tf.config.list_physical_devices("GPU")
        if device == "gpu" and not gpus:
            raise ConfigError(
                "--device gpu: TensorFlow, which runs .keras files, sees no GPU. A .tflite runs on any: "
                "keras-psr export MODEL --tflite. Or use --device cpu."
            )
        self.device = f"TensorFlow computes on the {'GPU' if gpus and device != 'cpu' else 'CPU'}"
        self.geometry = measure_geometry(network)
        self._tile = max(KERAS_OUTPUT_SIDE // self.geometry.scale, 4 * max(self.geometry.halo, BICUBIC_HALO))

    def _on_device(self) -> AbstractContextManager[object]:
        import tensorflow as tf

        return tf.device("CPU:0") if self._device == "cpu" else nullcontext()

    def tile_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the tiles for a picture: the whole, unless that is too large."""
        around, whole_blocks = 2 * max(self.geometry.halo, BICUBIC_HALO), self.geometry.whole_blocks
        return whole_blocks(min(self._tile, height + around)), whole_blocks(min(self._tile, width + around))

    def __call__(self, tile: np.ndarray, take: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Enlarges a tile, as `LiteRTNetwork` does, but with its halo and not clipped."""
        with self._on_device():
            return take(np.asarray(self._network(tile[None].astype(np.float32), training=False))[0].astype(np.float32))


def guess_task(scale: int) -> str:
    """Returns the task of a network that does not name it, as files that are older than tasks' names."""
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
            `.tflite` or `.keras` file. A name alone means the model's float32 `.tflite`, which gives the network's own
            pixels without TensorFlow, and its `.keras` file if it has none.
        threads: Tiles of a `.tflite` that the CPU computes at once; None for one on each core.
        device: `auto` takes a GPU for a float `.tflite` if there is a real one that gives the CPU's pixels and is
            faster (`litert.LiteRTNetwork`); or `cpu` or `gpu`. It needs neither CUDA nor TensorFlow.
        on_device: Called with a line that says which it is, if a `.tflite` left a choice, and again if a GPU fails and
            the CPU goes on.

    Returns:
        The network as a function of pictures.

    Raises:
        ModelError: There is no such model, or it does not go from picture to picture.
        ConfigError: `device` is unknown, or `gpu` and there is none.
    """
    path = find_runnable(model)
    if path.suffix == ".tflite":
        return Upscaler(LiteRTNetwork(path, threads, device, on_device))
    return load_keras(path, device=device)


def load_keras(model: str | Path, *, device: str = "auto") -> Upscaler:
    """Loads a fitted network as a Keras model, to fit or export it further.

    Args:
        model: A shipped model's name (`x4`), a run folder, or a `.keras` file.
        device: `auto`, `cpu` or `gpu`: what TensorFlow computes on.

    Returns:
        The network as a function of pictures; its `network` is a Keras model.

    Raises:
        ModelError: There is no such model, or it does not go from picture to picture.
        ConfigError: `device` is unknown, or `gpu` and TensorFlow sees none.
    """
    check_device(device)
    path = find_model(model)
    network = load_network(path)
    if network.output_shape != (None, None, None, 3) or network.input_shape != (None, None, None, 3):
        raise ModelError(
            f"{path} is not a network of keras-psr: it goes from {network.input_shape} to {network.output_shape}, "
            "expected (None, None, None, 3) for both."
        )
    return Upscaler(network, task=named_task(path), device=device)


def load_network(path: Path) -> "keras.Model":
    """Loads a `.keras` file without executing anything in it (`safe_mode`).

    Args:
        path: The file.

    Returns:
        The model, not compiled.

    Raises:
        ModelError: It is not a Keras model file.
        InstallationError: Keras is not installed.
    """
    if path.suffix != ".keras" or not zipfile.is_zipfile(path):  # Keras would also open .h5, without `safe_mode`
        raise ModelError(f"{path} is not a .keras file. Give a run folder of `keras-psr fit` or its model.keras.")
    require_everything(f"The .keras file {path}")
    import keras

    import keras_psr.networks.style_transfer  # noqa: F401 - registers the layer that a network of it may have

    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises ValueError, KeyError, TypeError, OSError and zipfile's kinds
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{path} is not a usable Keras model file: {reason}") from error
