"""Runs a `.tflite` on a GPU with LiteRT: WebGPU on Linux and Windows, Metal on macOS, without CUDA or TensorFlow."""

import atexit
import math
import platform
import queue
import re
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np

from keras_psr.inference.litert_log import captured_log, silence_standard_error

IN_FLIGHT = 2
"""Number of tiles queued on the GPU before the first is awaited, so that it is never idle."""

LOOKED_FOR = {
    "darwin": "a GPU with Metal",
    "win32": "a GPU with Direct3D 12 or Vulkan and its maker's driver",
}.get(
    sys.platform,
    "a GPU with Vulkan, through libvulkan.so.1 and drivers in /usr/share/vulkan/icd.d or VK_DRIVER_FILES",
)
"""The GPUs that LiteRT supports on this system, for messages."""

ADAPTER_LINE = re.compile(r"Selected adapter: (?P<name>.*?), arch=.*adapterType=(?P<kind>.*)")
"""The line of LiteRT's log that names the GPU."""

ERROR_LINE = re.compile(r"ERROR: \[[^\]]*\] (?P<reason>.+)")

Take: TypeAlias = Callable[[np.ndarray], Any]
Slot: TypeAlias = tuple[Sequence[Any], Sequence[Any]]
Requests: TypeAlias = "queue.SimpleQueue[tuple[np.ndarray, Future[np.ndarray]] | None]"

_SERVED: dict[threading.Thread, Requests] = {}
"""The threads that tried to run a file on a GPU, finished ones included, each with its queue."""


class GpuError(Exception):
    """There is no GPU, or it cannot run a file, or it failed. The text says why."""


class GpuNetwork:
    """A `.tflite` on a GPU, as a function of tiles that several threads may call at once.

    A separate thread makes all calls to LiteRT, because GPU interfaces are not thread-safe. While it waits for one
    tile, the GPU already has the next.

    Attributes:
        adapter: The GPU's name.
        is_hardware: Whether LiteRT reports a real GPU. A software adapter emulates one on the CPU, slowly.
        shape: Input shape, (1, height, width, 3).
    """

    def __init__(self, content: bytes, *, exact: bool = True) -> None:
        """Compiles a file for the GPU and runs it once.

        Args:
            content: A TFLite flatbuffer of a network from picture to picture, with fixed sizes.
            exact: Whether to compute in float32, as the CPU does, or else in float16 if the GPU supports it.

        Raises:
            GpuError: There is no GPU, or it does not support all of the file's operators.
        """
        self._requests: Requests = queue.SimpleQueue()
        started: Future[tuple[str, bool, tuple[int, ...]]] = Future()
        thread = threading.Thread(target=_serve, args=(content, exact, started, self._requests), daemon=True)
        thread.start()
        self.adapter, self.is_hardware, self.shape = started.result()
        self._thread, self._end = thread, weakref.finalize(self, self._requests.put, None)

    def __call__(self, tile: np.ndarray, take: Take = np.asarray) -> Any:
        """Runs the network on a tile.

        Args:
            tile: RGB of the file's tile size, in [0, 255].
            take: A function applied to the result.

        Returns:
            What `take` returns for the result: RGB in [0, 255], the tile without its halo, enlarged by the scale.

        Raises:
            GpuError: The GPU failed, or `close` has been called.
        """
        if not self._end.alive:
            raise GpuError("it has been closed")
        future: Future[np.ndarray] = Future()
        self._requests.put((tile[None].astype(np.float32, copy=False), future))
        return take(future.result())

    def time(self) -> float:
        """Returns the seconds that one tile takes, including transfers to and from the GPU."""
        noise = np.random.default_rng(0).integers(0, 256, self.shape[1:], np.uint8)
        start = time.perf_counter()
        self(noise)
        return time.perf_counter() - start

    def close(self) -> None:
        """Frees the GPU's memory. The network cannot be called afterwards."""
        self._end()
        self._thread.join()


class _CompiledFile:
    """LiteRT's model on the GPU, used only by the thread that created it.

    Attributes:
        slots: Pairs of input and output buffers that no tile on the GPU uses; `IN_FLIGHT` at first.
    """

    def __init__(self, content: bytes, exact: bool) -> None:
        """Compiles a file for the GPU and runs it once.

        Raises:
            GpuError: As for `GpuNetwork`.
        """
        self._content = content  # LiteRT keeps reading it
        self._model: Any = None
        self.slots: deque[Slot] = deque()
        failure, is_explained = "", True
        with captured_log() as log:
            try:
                self._load(exact)
                self._run_once()
            except (GpuError, RuntimeError, ValueError) as error:
                failure, is_explained = " ".join(str(error).split()), isinstance(error, GpuError)
                self.close()
        if failure:
            raise GpuError(failure if is_explained else _find_reason(log) or failure)
        self.adapter, self.is_hardware = _find_adapter(log)

    def _load(self, exact: bool) -> None:
        try:
            from ai_edge_litert import compiled_model as litert

            options = litert.Options(litert.HardwareAccelerator.GPU, gpu_options=litert.GpuOptions(enforce_f32=exact))
        except (ImportError, AttributeError) as error:
            raise GpuError("this needs ai-edge-litert 2.1.6 or newer: pip install -U ai-edge-litert") from error
        self._model = litert.CompiledModel.from_buffer(self._content, options=options)
        if not self._model.is_fully_accelerated():
            raise GpuError("the GPU does not support all of the file's operators")
        for _ in range(IN_FLIGHT):
            self.slots.append((self._model.create_input_buffers(0), self._model.create_output_buffers(0)))
        inputs, outputs = (buffers[0].get_tensor_details() for buffers in self.slots[0])
        self.shape, self._output_shape = tuple(inputs["shape"]), tuple(outputs["shape"])
        self._input_type, self._output_type = np.dtype(inputs["dtype"]), np.dtype(outputs["dtype"])

    def _run_once(self) -> None:
        """Runs an empty tile, because the first run is slow and writes to the log."""
        slot = self.start(np.zeros(self.shape, np.float32))
        self.finish(slot)
        self.slots.append(slot)

    def start(self, tile: np.ndarray) -> Slot:
        """Sends a tile (1, height, width, 3) to the GPU without waiting for the result."""
        slot = self.slots[0]
        slot[0][0].write(tile.astype(self._input_type, copy=False))
        self._model.run_by_index(0, *slot)
        self.slots.popleft()
        return slot

    def finish(self, slot: Slot) -> np.ndarray:
        """Waits for a tile's result and returns it, (height, width, 3) uint8 or float32."""
        result = slot[1][0].read(math.prod(self._output_shape), self._output_type)
        return result.reshape(self._output_shape[1:])

    def close(self) -> None:
        """Frees the memory, which makes LiteRT log."""
        self.slots.clear()
        self._model = None


def _serve(
    content: bytes, exact: bool, started: "Future[tuple[str, bool, tuple[int, ...]]]", requests: Requests
) -> None:
    """Compiles the file, then computes tiles until the request is None; runs in the GPU's thread."""
    _SERVED[threading.current_thread()] = requests
    try:
        compiled = _CompiledFile(content, exact)
    except BaseException as error:
        started.set_exception(error)
        return
    started.set_result((compiled.adapter, compiled.is_hardware, compiled.shape))
    _take_tiles(compiled, requests)
    with captured_log():
        compiled.close()


def _take_tiles(compiled: _CompiledFile, requests: Requests) -> None:
    """Computes requested tiles and sets their futures, until the request is None."""
    running: deque[tuple[Slot, Future[np.ndarray]]] = deque()
    while True:
        if running and (len(running) == IN_FLIGHT or requests.empty()):
            slot, future = running.popleft()
            with _failures_told_to(future):
                future.set_result(compiled.finish(slot))
            compiled.slots.append(slot)
            continue
        request = requests.get()
        if request is None:
            return
        tile, future = request
        with _failures_told_to(future):
            running.append((compiled.start(tile), future))


@contextmanager
def _failures_told_to(future: "Future[np.ndarray]") -> Iterator[None]:
    """Passes errors on to the future of a tile."""
    try:
        yield
    except Exception as error:  # LiteRT raises RuntimeError and ValueError
        future.set_exception(GpuError(" ".join(str(error).split()) or type(error).__name__))


@atexit.register
def _end_all() -> None:
    """Ends the GPU threads before Python exits, and keeps LiteRT's later log lines off the console."""
    for thread, requests in _SERVED.items():
        requests.put(None)
        thread.join()
    if _SERVED:
        silence_standard_error()


def _find_adapter(log: Sequence[str]) -> tuple[str, bool]:
    """Returns the name of the GPU that LiteRT chose, and whether it is real; unknown ones count as software."""
    for line in log:
        found = ADAPTER_LINE.search(line)
        if found:
            return found["name"], found["kind"].strip() in ("Discrete GPU", "Integrated GPU")
    if sys.platform == "darwin":  # Metal does not log a name, and every Mac with an Apple processor has such a GPU
        return "Metal", platform.machine() == "arm64"
    return "GPU of an unknown kind", False


def _find_reason(log: Sequence[str]) -> str | None:
    """Returns why LiteRT failed, from its log: the exception it raises names only a place in its source."""
    reasons = [found["reason"] for found in map(ERROR_LINE.match, log) if found]
    if any("adapters" in reason for reason in reasons):  # `No adapters found`, `No supported adapters`
        return "there is no GPU"
    return " ".join(reasons[0].split()) if reasons else None
