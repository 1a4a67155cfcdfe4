"""Running any `.tflite` with LiteRT, for measuring; `keras_psr.litert` runs those of keras-psr on pictures."""

import time
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from keras_psr.errors import ModelError


class TileUpscaler:
    """A `.tflite` as a function of tiles.

    Attributes:
        shape: Input shape, (1, tile, tile, 3).
    """

    def __init__(self, content: bytes, *, num_threads: int = 1) -> None:
        """Loads a model, with XNNPACK where it applies.

        Args:
            content: A TFLite flatbuffer of a network from pictures to pictures.
            num_threads: Threads to compute with.

        Raises:
            ModelError: LiteRT cannot load it, or it does not go from one picture to one picture.
        """
        try:
            self._interpreter = Interpreter(model_content=content, num_threads=num_threads)
            self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"LiteRT cannot load the model: {str(error).splitlines()[0]}") from error
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self.shape = tuple(int(side) for side in inputs[0]["shape"])
        if len(inputs) != 1 or len(outputs) != 1 or len(self.shape) != 4 or self.shape[3] != 3:
            raise ModelError(f"The model must take one picture (1, height, width, 3). Received: {self.shape}.")
        self._input: dict[str, Any] = inputs[0]
        self._output: dict[str, Any] = outputs[0]

    def __call__(self, tile: np.ndarray) -> np.ndarray:
        """Enlarges a tile.

        Args:
            tile: RGB (tile, tile, 3) in [0, 255]; of a model with open size any height and width.

        Returns:
            RGB (side, side, 3), uint8 for a fully quantized model, else float32; its side is scale times the tile's,
            of a fixed size without the halo.
        """
        if tile.shape != self.shape[1:]:
            self._interpreter.resize_tensor_input(self._input["index"], (1, *tile.shape))
            self._interpreter.allocate_tensors()
            self.shape = (1, *tile.shape)
        self._interpreter.set_tensor(self._input["index"], tile[None].astype(self._input["dtype"]))
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._output["index"])[0]

    def time(self) -> float:
        """Seconds that one tile takes, of the input that was given last."""
        start = time.perf_counter()
        self._interpreter.invoke()
        return time.perf_counter() - start
