"""Measures the latency, throughput and memory of `.tflite` files on this machine."""

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_psr.errors import ConfigError, ModelError
from keras_psr.export.delegates import measure_xnnpack
from keras_psr.inference.gpu import GpuError, GpuNetwork
from keras_psr.inference.litert import TileInterpreter, is_exact, no_gpu
from keras_psr.inference.tflite_metadata import read_metadata

WARM_UP = 3
"""Number of runs before timing starts: the first ones allocate memory, pack weights and wake the CPU."""

SECONDS = 2.0
"""Seconds of timing per model and number of threads, in at least `MIN_RUNS` and at most `MAX_RUNS` runs."""

MIN_RUNS, MAX_RUNS = 5, 200

OPEN_SIDE = 128
"""Side of the input for models with an open size, in pixels."""


def measure_latency(models: Mapping[str, bytes], num_threads: int) -> dict[str, np.ndarray]:
    """Times models on the CPU in turns, so that other load on the machine affects all of them equally.

    Args:
        models: TFLite flatbuffers by name.
        num_threads: Number of threads.

    Returns:
        The seconds of each run on one tile of noise, by name.

    Example:
        seconds = measure_latency({"x4": Path("x4_float32.tflite").read_bytes()}, num_threads=2)
    """
    interpreters = {name: TileInterpreter(content, num_threads=num_threads) for name, content in models.items()}
    for interpreter in interpreters.values():
        interpreter(_noise(interpreter))
    return time_in_turns(interpreters)


def time_in_turns(networks: Mapping[str, TileInterpreter | GpuNetwork]) -> dict[str, np.ndarray]:
    """Returns the seconds of each run of each network, by name. The networks run in turns."""
    for network in networks.values():
        for _ in range(WARM_UP - 1):
            network.time()
    times: dict[str, list[float]] = {name: [] for name in networks}
    for done in range(MAX_RUNS):
        for name, network in networks.items():
            if done < MIN_RUNS or sum(times[name]) < SECONDS:
                times[name].append(network.time())
    return {name: np.array(seconds) for name, seconds in times.items()}


def benchmark(
    paths: Sequence[Path],
    threads: Sequence[int] = (1, 2),
    *,
    device: str = "cpu",
    on_step: Callable[[str], None] = lambda description: None,
) -> dict[str, Any]:
    """Benchmarks `.tflite` files side by side.

    Args:
        paths: The `.tflite` files.
        threads: Numbers of CPU threads to measure.
        device: `cpu`; `gpu` for the GPU only, which may be a software adapter; or `auto` for both, if the GPU is real.
        on_step: Called with a description before each step.

    Returns:
        A dictionary for JSON: `files`, a list of {`file`, `bytes`, `xnnpack_partitions`, `operators_outside_xnnpack`,
        `output_pixels`, `peak_memory_mb` on the CPU, `threads`: {number: {`median_ms`, `p95_ms`,
        `megapixels_per_second`}}, `gpu`: None or the same three and its `adapter`}; and `comparisons`, a list of
        {`float32`, `int8`, `threads`, `ratio`}, where the ratio is the median latency of an int8 file divided by that
        of the float32 file of the same network and tile.

    Raises:
        ModelError: A file cannot be read or run.
        ConfigError: `device` is `gpu`, and no GPU can run the files.

    Example:
        result = benchmark([Path("x4_float32.tflite"), Path("x4_int8.tflite")], threads=(1, 4))
    """
    contents = {str(path): _read(path) for path in paths}
    files: list[dict[str, Any]] = []
    for name, content in contents.items():
        on_step(f"loading {name}")
        upscaler = TileInterpreter(content)
        delegation = measure_xnnpack(content)
        output = upscaler(_noise(upscaler))
        row = {
            "file": name,
            "bytes": len(content),
            "xnnpack_partitions": delegation.partitions,
            "operators_outside_xnnpack": delegation.outside,
            "output_pixels": output.shape[0] * output.shape[1],
            "peak_memory_mb": _measure_memory(name),
            "threads": {},
            "gpu": None,
        }
        files.append(row)
    for number in threads if device != "gpu" else ():
        on_step(f"timing {len(files)} files with {number} thread{'s' if number > 1 else ''}")
        for row, seconds in zip(files, measure_latency(contents, number).values(), strict=True):
            row["threads"][str(number)] = _summarize(seconds, row["output_pixels"])
    if device != "cpu":
        on_step("timing a GPU")
        gpus = _open_gpus(contents, device)
        seconds_on_gpu = time_in_turns(gpus)
        for row in files:
            if row["file"] in gpus:
                summary = _summarize(seconds_on_gpu[row["file"]], row["output_pixels"])
                row["gpu"] = {"adapter": gpus[row["file"]].adapter, **summary}
    return {"files": files, "comparisons": _compare(files)}


def _open_gpus(contents: Mapping[str, bytes], device: str) -> dict[str, GpuNetwork]:
    """Loads files on the GPU, by name.

    Raises:
        ConfigError: `device` is `gpu`, and the GPU cannot run a file.
    """
    gpus = {}
    for name, content in contents.items():
        try:
            gpu = GpuNetwork(content, exact=is_exact(_metadata(name)))
        except GpuError as error:
            if device == "gpu":
                raise ConfigError(no_gpu(name, error)) from error
            continue
        if device == "gpu" or gpu.is_hardware:
            gpus[name] = gpu
    return gpus


def _summarize(seconds: np.ndarray, output_pixels: int) -> dict[str, float]:
    median = float(np.median(seconds))
    return {
        "median_ms": median * 1e3,
        "p95_ms": float(np.percentile(seconds, 95)) * 1e3,
        "megapixels_per_second": output_pixels / 1e6 / median,
    }


def _compare(files: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Divides the latency of int8 by that of float32 for each pair of files with the same network and tile."""
    kinds: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
    for row in files:
        metadata = _metadata(row["file"])
        if {"model_sha256", "tile", "variant"} <= set(metadata):
            kinds.setdefault((metadata["model_sha256"], metadata["tile"]), {})[metadata["variant"]] = row
    return [
        {
            "float32": pair["float32"]["file"],
            "int8": pair["int8"]["file"],
            "threads": int(number),
            "ratio": pair["int8"]["threads"][number]["median_ms"] / pair["float32"]["threads"][number]["median_ms"],
        }
        for pair in kinds.values()
        if {"float32", "int8"} <= set(pair)
        for number in pair["int8"]["threads"]
    ]


def _metadata(path: str) -> dict[str, Any]:
    """Returns a file's metadata; empty if keras-psr did not make the file."""
    try:
        return read_metadata(path)
    except ModelError:
        return {}


def _noise(upscaler: TileInterpreter) -> np.ndarray:
    height, width = (side if side > 1 else OPEN_SIDE for side in upscaler.shape[1:3])
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}. Give .tflite files.") from error


def _measure_memory(path: str) -> float:
    """Returns the peak memory, in MB of 10^6 bytes, of a new Python process that runs the file with one thread."""
    command = [sys.executable, "-m", __name__, path]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise ModelError(f"{path} cannot be run: {result.stderr.strip().splitlines()[-1]}")
    return float(result.stdout)


def _print_own_memory(path: str) -> None:
    """Runs a file and prints the peak memory of this process, which `_measure_memory` starts."""
    upscaler = TileInterpreter(Path(path).read_bytes())
    upscaler(_noise(upscaler))
    sys.stdout.write(str(_peak_memory() / 1e6))


def _peak_memory() -> int:
    """Returns the peak memory of this process in bytes. On Linux, `getrusage` would include the parent process."""
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(status.read_text().split("VmHWM:")[1].split()[0])
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    _print_own_memory(sys.argv[1])
