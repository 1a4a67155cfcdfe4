"""Runs a `.tflite` with LiteRT on the CPU's cores or on a GPU, tile by tile, without TensorFlow or Keras."""

import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from keras_psr.environment import available_cores
from keras_psr.errors import ConfigError, ModelError
from keras_psr.images.tiling import Geometry
from keras_psr.inference.gpu import LOOKED_FOR, GpuError, GpuNetwork
from keras_psr.inference.litert_log import captured_log
from keras_psr.inference.tflite_metadata import read_metadata

DEVICES = ("auto", "cpu", "gpu")
"""Values that `device` accepts."""

GPU_WORKERS = 4
"""Threads that cut tiles for a GPU and place the results: while two tiles are on the GPU, the next ones wait."""

MAX_GPU_DIFFERENCE = 1.0
"""Largest difference from the CPU's result, in grey levels, at which `auto` chooses the GPU.

In float32, GPUs differ by less than 0.01. Arithmetic in float16, which float16 files ask for, has steps of 0.125
between 128 and 255, whose errors add up over the layers.
"""

Take: TypeAlias = Callable[[np.ndarray], Any]


class TileInterpreter:
    """Any `.tflite` on the CPU, as a function of tiles that one thread may call at a time.

    Attributes:
        shape: Input shape, (1, height, width, 3).
        output_shape: Output shape.
        dtype: Dtype of input and output: uint8 for a fully quantized file, else float32.
    """

    def __init__(self, content: bytes, *, num_threads: int = 1) -> None:
        """Loads a file, with XNNPACK for the operators that it supports.

        Args:
            content: A TFLite flatbuffer of a network from picture to picture.
            num_threads: Number of threads.

        Raises:
            ModelError: LiteRT cannot load it, or it does not map one picture to one picture.
        """
        try:
            with captured_log():
                self._interpreter = Interpreter(model_content=content, num_threads=num_threads)
                self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"LiteRT cannot load the model: {' '.join(str(error).split())}") from error
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self.shape, self.output_shape = (
            tuple(int(side) for side in details[0]["shape"]) for details in (inputs, outputs)
        )
        if len(inputs) != 1 or len(outputs) != 1 or len(self.shape) != 4 or self.shape[3] != 3:
            raise ModelError(f"The model must take one picture (1, height, width, 3). Received: {self.shape}.")
        self.dtype = np.dtype(inputs[0]["dtype"])
        self._input, self._output = inputs[0]["index"], outputs[0]["index"]

    def __call__(self, tile: np.ndarray, take: Take = np.array) -> Any:
        """Runs the network on a tile.

        Args:
            tile: RGB (height, width, 3) in [0, 255], of the file's tile size, or of any size if the file has none.
            take: A function applied to the result. The result is a view of LiteRT's memory, so `take` must copy what
                it keeps.

        Returns:
            What `take` returns for the result, by default a copy: RGB (height, width, 3) in [0, 255], the tile enlarged
            by the scale, without its halo if the file has a tile size.
        """
        if tile.shape != self.shape[1:]:
            self._interpreter.resize_tensor_input(self._input, (1, *tile.shape))
            self._interpreter.allocate_tensors()
            self.shape = (1, *tile.shape)
        self._interpreter.set_tensor(self._input, tile[None].astype(self.dtype, copy=False))
        self._interpreter.invoke()
        return take(self._interpreter.tensor(self._output)()[0])

    def time(self) -> float:
        """Returns the seconds that the network alone takes for the last tile."""
        start = time.perf_counter()
        self._interpreter.invoke()
        return time.perf_counter() - start

    def describe_operators(self) -> list[dict[str, Any]]:
        """Returns LiteRT's list of operators: `index`, `op_name`, `inputs`, `outputs`, types, and delegated parts."""
        return self._interpreter._get_ops_details()

    def tensor_shapes(self) -> dict[int, list[int]]:
        """Returns the shape of each tensor by the number that `describe_operators` gives it."""
        return {tensor["index"]: tensor["shape"].tolist() for tensor in self._interpreter.get_tensor_details()}


class LiteRTNetwork:
    """A `.tflite` exported by keras-psr, as a function of tiles that several threads may call at once.

    Attributes:
        task: Name of its task; None if the file does not state it.
        geometry: Scale, halo and grid, from the file's metadata.
        workers: Number of threads that should call it at once.
        is_quantized: Whether its input and output are uint8, so that it cannot process 16-bit pictures.
        name: The file's name, for messages.
        device: A line that says what it runs on, and why.
    """

    def __init__(
        self,
        path: Path,
        threads: int | None = None,
        device: str = "cpu",
        on_device: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Loads a file.

        Args:
            path: The `.tflite` file.
            threads: Tiles that the CPU computes at once, one per core; None for all cores. Each needs 20 to 150 MB of
                memory.
            device: `cpu`; `gpu`, which may be a software adapter; or `auto`, which chooses a GPU that is real, differs
                by at most `MAX_GPU_DIFFERENCE` from the CPU on one tile, and is faster on it.
            on_device: Called with a line that says what the file runs on, unless `device` is `cpu`, and again if a GPU
                fails later and the CPU takes over.

        Raises:
            ModelError: The file is not a `.tflite`, was not exported by keras-psr, or is damaged.
            ConfigError: `device` is unknown, or is `gpu` and no GPU can run the file.
        """
        check_device(device)
        metadata = read_metadata(path)
        self.name, self._cores, self._on_device = path.name, threads or available_cores(), on_device
        self.task: str | None = metadata.get("task")
        self._content = path.read_bytes()
        self._interpreters: queue.LifoQueue[TileInterpreter | None] = queue.LifoQueue()
        for _ in range(self._cores - 1):
            self._interpreters.put(None)  # created when a tile needs it
        interpreter = self._make_interpreter()
        self._interpreters.put(interpreter)
        self.is_quantized = interpreter.dtype == np.uint8
        try:
            scale, halo, self._tile = (int(metadata[key]) for key in ("scale", "halo", "tile"))
            # Files that were exported before style transfer existed do not state a grid.
            self.geometry = Geometry(scale, halo, int(metadata.get("grid", 1)))
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{path} does not state its scale, halo and tile. Export it again.") from error
        side = (self._tile - 2 * halo) * scale
        shapes = [list(shape) for shape in (interpreter.shape, interpreter.output_shape)]
        if shapes != [[1, self._tile, self._tile, 3], [1, side, side, 3]]:
            raise ModelError(
                f"{path} maps {shapes[0]} to {shapes[1]}, which contradicts its metadata. Export it again."
            )
        self._lock, self._gpu = threading.Lock(), self._open_gpu(device, is_exact(metadata))
        self.workers = max(self._cores, GPU_WORKERS) if self._gpu else self._cores

    def tile_size(self, height: int, width: int) -> tuple[int, int]:
        """Returns the height and width of tiles, which the file fixes for pictures of every size."""
        return self._tile, self._tile

    def __call__(self, tile: np.ndarray, take: Take = np.array) -> Any:
        """Runs the network on a tile.

        Args:
            tile: RGB of the file's tile size, in [0, 255].
            take: A function applied to the result; it must copy what it keeps.

        Returns:
            What `take` returns for the result, by default a copy: RGB in [0, 255], the tile without its halo, enlarged
            by the scale; uint8 from a quantized file, else float32.
        """
        gpu = self._gpu
        if gpu:
            try:
                return gpu(tile, take)
            except GpuError as error:
                self._give_up(gpu, error)
        interpreter = self._interpreters.get()
        try:
            interpreter = interpreter or self._make_interpreter()
            return interpreter(tile, take)
        finally:
            self._interpreters.put(interpreter)

    def _make_interpreter(self) -> TileInterpreter:
        try:
            return TileInterpreter(self._content)
        except ModelError as error:
            raise ModelError(f"{self.name} cannot be run: {error} Export it again.") from error

    def _open_gpu(self, device: str, exact: bool) -> GpuNetwork | None:
        """Returns the GPU to run on, or None for the CPU, and reports the choice."""
        self.device = f"Computing on the CPU with {self._cores} thread{'s' if self._cores > 1 else ''}"
        if device == "cpu":
            return None
        gpu = None
        try:
            if device == "auto" and self.is_quantized:
                raise GpuError("8-bit files are made for it")
            gpu = GpuNetwork(self._content, exact=exact)
            difference = self._compare(gpu, is_choosy=device == "auto")
            self.device = f"Computing on the GPU {gpu.adapter}: within {difference:.2g} grey levels of the CPU"
        except GpuError as error:
            if gpu:
                gpu.close()
                gpu = None
            if device == "gpu":
                raise ConfigError(no_gpu(self.name, error)) from error
            self.device += f": {error}"
        self._on_device(self.device)
        return gpu

    def _compare(self, gpu: GpuNetwork, *, is_choosy: bool) -> float:
        """Returns the largest difference between the GPU's and the CPU's pixels on a tile of noise, in grey levels.

        Raises:
            GpuError: `is_choosy` is true, and the GPU is emulated, inaccurate or slower than the CPU.
        """
        if is_choosy and not gpu.is_hardware:
            raise GpuError(f"the only adapter, {gpu.adapter}, is not a real GPU")
        interpreter = self._interpreters.queue[-1]
        assert interpreter
        tile = np.random.default_rng(0).integers(0, 256, interpreter.shape[1:], np.uint8)
        expected = interpreter(tile).astype(np.float32)
        difference = float(np.abs(gpu(tile) - expected).max())
        if is_choosy and not difference <= MAX_GPU_DIFFERENCE:  # also rejects NaN
            raise GpuError(f"{gpu.adapter} gives different pixels, by up to {difference:.2g} grey levels")
        if is_choosy:
            on_gpu = min(gpu.time() for _ in range(2))
            on_cpu = min(interpreter.time() for _ in range(2)) / self._cores
            if on_gpu > on_cpu:
                raise GpuError(f"{gpu.adapter} takes {on_gpu / on_cpu:.2g} times as long")
        return difference

    def _give_up(self, gpu: GpuNetwork, error: GpuError) -> None:
        """Switches to the CPU after a GPU failed, and reports it once however many threads notice."""
        with self._lock:
            if self._gpu is gpu:
                self._gpu = None
                self.device = f"The GPU {gpu.adapter} failed ({error}). The CPU takes over; nothing is lost"
                self._on_device(self.device)


def check_device(device: str) -> None:
    """Raises ConfigError if `device` is not one of `DEVICES`."""
    if device not in DEVICES:
        raise ConfigError(f"device must be one of {', '.join(DEVICES)}. Received: {device!r}.")


def is_exact(metadata: dict[str, Any]) -> bool:
    """Returns whether a GPU should run a file in float32, which holds for all files except float16 ones."""
    return metadata.get("variant") != "float16"


def no_gpu(name: str, error: GpuError) -> str:
    """Returns the message for `--device gpu` when no GPU can run the named file."""
    return f"--device gpu cannot run {name}: {error}. Looked for {LOOKED_FOR}. Install the driver, or use --device cpu."
