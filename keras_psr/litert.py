"""A `.tflite` file as a function of tiles, run by LiteRT on all cores; needs neither TensorFlow nor Keras."""

import os
import queue
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from keras_psr.errors import ModelError
from keras_psr.images.tiling import Geometry
from keras_psr.tflite_metadata import read_metadata


class LiteRTNetwork:
    """A `.tflite` that keras-psr exported; several threads may call it at once.

    Attributes:
        geometry: Scale, halo and grid, which the file states.
        workers: Tiles that are computed at once, each on one core.
        is_quantized: Whether it takes and gives uint8, so that 16-bit pictures are beyond it.
        name: The file's name, for messages.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        """Loads a file.

        Args:
            path: The `.tflite` file.
            threads: Tiles to compute at once; None for one on each core. Each takes its own memory, 20 to 150 MB.

        Raises:
            ModelError: It is no such file, was not exported by keras-psr, or is damaged.
        """
        metadata = read_metadata(path)
        self.name, self.workers = path.name, threads or available_cores()
        self._content = path.read_bytes()
        self._interpreters: queue.LifoQueue[Interpreter | None] = queue.LifoQueue()
        for _ in range(self.workers - 1):
            self._interpreters.put(None)  # made when so many tiles are under way
        interpreter = self._make_interpreter()
        self._interpreters.put(interpreter)
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        self._input: dict[str, Any] = inputs[0]
        self._output: dict[str, Any] = outputs[0]
        self.is_quantized = self._input["dtype"] == np.uint8
        try:
            scale, halo, self._tile = (int(metadata[key]) for key in ("scale", "halo", "tile"))
            # Files that were made before there were styles do not state a grid.
            self.geometry = Geometry(scale, halo, int(metadata.get("grid", 1)))
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{path} does not say its scale, halo and tile. Export it again.") from error
        side = (self._tile - 2 * halo) * scale
        shapes = [[int(length) for length in details["shape"]] for details in (self._input, self._output)]
        if shapes != [[1, self._tile, self._tile, 3], [1, side, side, 3]]:
            raise ModelError(
                f"{path} goes from {shapes[0]} to {shapes[1]}, which is not what its metadata says. Export it again."
            )

    def tile_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the tiles for a picture: always those of the file."""
        return self._tile, self._tile

    def __call__(self, tile: np.ndarray) -> np.ndarray:
        """Enlarges a tile.

        Args:
            tile: RGB of the file's tile size, in [0, 255].

        Returns:
            RGB in [0, 255], the tile without its halo, enlarged by the scale; uint8 of a quantized file, else float32.
        """
        interpreter = self._interpreters.get()
        try:
            if interpreter is None:
                interpreter = self._make_interpreter()
            interpreter.set_tensor(self._input["index"], tile[None].astype(self._input["dtype"], copy=False))
            interpreter.invoke()
            return interpreter.get_tensor(self._output["index"])[0]
        finally:
            self._interpreters.put(interpreter)

    def _make_interpreter(self) -> Interpreter:
        try:
            interpreter = Interpreter(model_content=self._content, num_threads=1)
            interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ModelError(f"{self.name} cannot be run by LiteRT: {reason}. Export it again.") from error
        return interpreter


def available_cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
