import ctypes
import gc
import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def pytest_collection_modifyitems(items):
    """Leaves out what needs arithmetic of 16 bits where oneDNN may not use the instructions that the processor has."""
    held_to = os.environ.get("ONEDNN_MAX_CPU_ISA")
    if not held_to:
        return
    # TensorFlow asks the processor what it can, and oneDNN then refuses: an error that no processor gives by itself.
    refused = pytest.mark.skip(reason=f"oneDNN, held to {held_to}, refuses 16 bits to TensorFlow")
    for item in items:
        if item.get_closest_marker("sixteen_bits"):
            item.add_marker(refused)


def pytest_collection_finish():
    """Spares what is imported by now, mostly TensorFlow, from being searched for garbage again and again."""
    gc.freeze()


@pytest.fixture(autouse=True)
def fixed_seed():
    """The same random numbers in each test; light tests do not pay for importing Keras."""
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(0)


@pytest.fixture
def runner():
    return CliRunner()


@pytest.fixture(scope="session")
def load_tool():
    """A function that imports a program of the folder tools, given its name."""
    loaded = []

    def load(name):
        path = Path(__file__).parents[1] / "tools" / f"{name}.py"
        specification = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(specification)
        sys.modules[name] = module  # where dataclasses look their module up
        loaded.append(name)
        specification.loader.exec_module(module)
        return module

    yield load
    for name in loaded:
        sys.modules.pop(name, None)


TINY = {
    "num_filters": 4,
    "num_residual_blocks": 1,
    "crop": 48,
    "batch_size": 2,
    "steps": 4,
    "save_every": 2,
    "feature_weight": 0.0,
    "precision": "float32",
}
"""Settings of a fit that takes seconds on any processor: some compute bfloat16 ten times as slowly as float32."""


@pytest.fixture(scope="session")
def tiny_settings():
    return TINY


@pytest.fixture(scope="session")
def photograph(tmp_path_factory):
    """A PNG file of 64x96 pixels, part of a photograph."""
    import skimage.data
    from PIL import Image

    path = tmp_path_factory.mktemp("photographs") / "coffee.png"
    Image.fromarray(skimage.data.coffee()[100:164, 200:296]).save(path)
    return path


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, photograph):
    """The run folder of a fit to x4."""
    import keras_psr

    folder = tmp_path_factory.mktemp("runs") / "tiny"
    keras_psr.fit(folder, data=str(photograph), val=str(photograph), **TINY)
    return folder


@pytest.fixture
def few_patches(monkeypatch):
    """Lets `evaluate` take the texture distance of sets with only two patches, which VGG16 reads in a second."""
    from functools import partial

    from keras_psr.tasks.super_resolution import evaluation
    from keras_psr.tasks.super_resolution.texture import texture_distance

    monkeypatch.setattr(evaluation, "texture_distance", partial(texture_distance, at_least=2))


@pytest.fixture(scope="session")
def random_network():
    """An x4 network with random weights, whose output covers the range of a picture."""
    import numpy as np

    from keras_psr.networks.super_resolution import build_network

    network, generator = build_network(scale=4, num_filters=4, num_residual_blocks=1), np.random.default_rng(1)
    network.set_weights([weight + generator.normal(0, 0.1, weight.shape) for weight in network.get_weights()])
    return network


@pytest.fixture(scope="session")
def export_tflite(tmp_path_factory, random_network):
    """Makes a `.tflite` of the random network: a function of variant and tile that returns its path."""
    from dataclasses import asdict
    from functools import cache

    import skimage.data

    from keras_psr.export.conversion import convert
    from keras_psr.inference.tflite_metadata import with_metadata
    from keras_psr.networks.receptive_field import measure_geometry

    photograph = skimage.data.coffee()
    calibration = [photograph[top : top + 48, 200:248] for top in range(0, 192, 48)]
    calibration.append(photograph[:48, :48] // 255 * 255)
    calibration[-1][0, 0], calibration[-1][0, 1] = 0, 255

    @cache
    def export(variant, tile=48):
        path = tmp_path_factory.mktemp("tflite") / f"tiny_{variant}.tflite"
        metadata = {"tile": tile, **asdict(measure_geometry(random_network))}
        path.write_bytes(with_metadata(convert(random_network, variant, tile, calibration), metadata))
        return path

    return export


@pytest.fixture(scope="session")
def empty_tflite():
    """The content of a `.tflite` without operators, whose input of 8x8 pixels is its output."""
    import numpy as np

    from keras_psr.inference.tflite_metadata import pack, schema

    tensor, graph, model = schema.TensorT(), schema.SubGraphT(), schema.ModelT()
    tensor.name, tensor.shape = b"StatefulPartitionedCall:0", np.int32([1, 8, 8, 3])
    graph.tensors, graph.inputs, graph.outputs = [tensor], np.int32([0]), np.int32([0])
    model.version, model.buffers, model.subgraphs = 3, [schema.BufferT()], [graph]
    return pack(model)


SWIFTSHADER = [Path("/usr/lib/chromium"), Path("/usr/lib/chromium-browser"), Path("/opt/google/chrome")]
"""Where Chromium and Chrome keep SwiftShader, which is Vulkan on the CPU."""


@pytest.fixture(scope="session")
def software_gpu(tmp_path_factory):
    """Makes SwiftShader the only GPU, so that tests of GPUs run on machines without one."""
    library = next((path / "libvk_swiftshader.so" for path in SWIFTSHADER if path.is_dir()), None)
    if library is None or not library.is_file():
        pytest.skip("no software Vulkan: install chromium, which holds libvk_swiftshader.so")
    try:
        ctypes.CDLL("libvulkan.so.1")
    except OSError:
        pytest.skip("no libvulkan.so.1: install libvulkan1")
    folder = tmp_path_factory.mktemp("vulkan")
    driver = {"file_format_version": "1.0.0", "ICD": {"library_path": str(library), "api_version": "1.0.5"}}
    (folder / "swiftshader.json").write_text(json.dumps(driver))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VK_DRIVER_FILES", str(folder / "swiftshader.json"))
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        yield


@pytest.fixture(autouse=True)
def no_gpu(request, monkeypatch):
    """Hides GPUs from all tests but those of `software_gpu`: LiteRT looks for them once in each process."""
    if "software_gpu" in request.fixturenames:
        return
    from keras_psr.inference import gpu

    def load(self, exact):
        raise gpu.GpuError("there is no GPU")

    monkeypatch.setattr(gpu._CompiledFile, "_load", load)


@pytest.fixture(scope="session")
def make_film(tmp_path_factory):
    """Makes a film of given frames: a function that returns its path.

    Its arguments: the file's name; the frames, uint8 RGB or `av.VideoFrame`; their times in milliseconds, by default 40
    apart; codec, pixel format and options of the encoder; `colour`, the codes of matrix, range, primaries and transfer;
    and `sound`, its length in seconds.
    """
    pytest.importorskip("av")
    return lambda name, frames, *times, **options: _write_film(tmp_path_factory, name, frames, *times, **options)


def _write_film(factory, name, frames, times=None, *, codec="ffv1", kind="yuv444p", options=None, **more):
    from fractions import Fraction

    import av
    import numpy as np

    path, colour, sound = factory.mktemp("films") / name, more.get("colour", (1, 1, 1, 1)), more.get("sound", 0)
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=25, options=options or {})
        first = frames[0]
        size = first.shape[:2] if isinstance(first, np.ndarray) else (first.height, first.width)
        stream.height, stream.width, stream.pix_fmt = *size, kind
        context = stream.codec_context
        stream.time_base = context.time_base = Fraction(1, 1000)
        context.colorspace, context.color_range, context.color_primaries, context.color_trc = colour
        track = output.add_stream("libopus" if name.endswith(".webm") else "aac", rate=48000) if sound else None
        if track:
            track.codec_context.layout = "mono"
        matrix, extent = {1: "bt709", 5: "bt470", 6: "smpte170m", 9: "bt2020"}[colour[0]], ("tv", "pc")[colour[1] - 1]
        scale = f"in_range=pc:out_range={extent}:out_color_matrix={matrix}:flags=accurate_rnd+full_chroma_int"
        for time, frame in zip(times or range(0, 40 * len(frames), 40), frames, strict=True):
            if isinstance(frame, np.ndarray):
                graph, frame = av.filter.Graph(), av.VideoFrame.from_ndarray(frame)
                source = graph.add_buffer(
                    width=size[1], height=size[0], format=frame.format, time_base=context.time_base
                )
                steps = graph.add("scale", scale), graph.add("format", kind), graph.add("buffersink")
                graph.link_nodes(source, *steps).configure()
                frame.pts = 0
                graph.push(frame)
                frame = graph.pull()
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if track:
            _write_sound(output, track, sound)
    return path


def _write_sound(output, track, seconds):
    import av
    import numpy as np

    wave = (0.3 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * 48000)) / 48000)).astype(np.float32)
    for start in range(0, len(wave) - 1023, 1024):
        kind = "flt" if track.name == "libopus" else "fltp"
        piece = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], format=kind, layout="mono")
        piece.sample_rate, piece.pts = 48000, start
        output.mux(track.encode(piece))
    output.mux(track.encode(None))


@pytest.fixture(scope="session")
def pan():
    """20 frames of 48x64 pixels: a crop that moves over a photograph."""
    import skimage.data

    photograph = skimage.data.coffee()
    return [photograph[100 + 2 * step : 148 + 2 * step, 200 + 3 * step : 264 + 3 * step].copy() for step in range(20)]
