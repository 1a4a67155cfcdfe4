"""The Python listing of docs/deploy.md, run as it stands."""

import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from keras_psr.data.sources import open_sources
from keras_psr.export.calibration import calibration_tiles
from keras_psr.export.conversion import convert
from keras_psr.inference.tflite_metadata import with_metadata
from keras_psr.inference.upscaler import Upscaler
from keras_psr.networks.receptive_field import measure_geometry
from keras_psr.networks.style_transfer import build_style_network
from keras_psr.networks.super_resolution import build_network

DEPLOY = Path(__file__).parents[1] / "docs" / "deploy.md"
TILE = 40


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    network = build_network("residual", scale=2, num_filters=4, num_residual_blocks=1)
    network.get_layer("exit").kernel.assign(np.random.default_rng(0).normal(0, 0.3, (9, 9, 4, 3)))
    return network


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    (listing,) = re.findall(r"<!-- raspberry -->\n```python\n(.*?)```", DEPLOY.read_text(encoding="utf-8"), re.DOTALL)
    path = tmp_path_factory.mktemp("pi") / "upscale.py"
    path.write_text(listing, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def contents(network):
    tiles = calibration_tiles(open_sources(["sample"]), scale=2, tile=TILE, count=30)
    metadata = {"tile": TILE, **asdict(measure_geometry(network))}
    return {name: with_metadata(convert(network, name, TILE, tiles), metadata) for name in ("float32", "int8")}


@pytest.mark.parametrize(("height", "width"), [(50, 95), (7, 41), (1, 3)])
@pytest.mark.parametrize("variant", ["float32", "int8"])
def test_the_listing_gives_the_networks_pixels(network, contents, script, tmp_path, variant, height, width):
    (tmp_path / "x2.tflite").write_bytes(contents[variant])
    photo = open_sources(["sample:val"])[0].read()[100 : 100 + height, 100 : 100 + width]
    Image.fromarray(photo).save(tmp_path / "photo.png")
    command = [sys.executable, script, "x2.tflite", "photo.png", "big.png"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    received = np.asarray(Image.open(tmp_path / "big.png")).astype(int)
    difference = np.abs(received - Upscaler(network)(photo))
    assert received.shape == (2 * height, 2 * width, 3)
    assert difference.max() <= (1 if variant == "float32" else 6)
    assert difference.mean() < (0.01 if variant == "float32" else 1)


def test_the_listing_paints_with_a_style_of_any_size_without_a_seam(script, tmp_path):
    network, generator = build_style_network(num_filters=2, num_residual_blocks=1), np.random.default_rng(0)
    network.get_layer("exit").kernel.assign(generator.normal(0, 5, (9, 9, 2, 3)))
    halo = measure_geometry(network).halo
    tile = 2 * halo + 20
    metadata = {"task": "style transfer", "scale": 1, "tile": tile, "halo": halo, "grid": 4}
    (tmp_path / "style.tflite").write_bytes(with_metadata(convert(network, "float32", tile), metadata))
    photo = open_sources(["sample:val"])[0].read()[100:150, 100:195]
    Image.fromarray(photo).save(tmp_path / "photo.png")
    command = [sys.executable, script, "style.tflite", "photo.png", "painted.png"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    received = np.asarray(Image.open(tmp_path / "painted.png")).astype(int)
    assert np.abs(received - Upscaler(network)(photo)).max() <= 1 and np.ptp(received) > 50


def test_the_listing_imports_neither_tensorflow_nor_keras_psr(script):
    imported = re.findall(r"^(?:import|from) (\w+)", script.read_text(), re.MULTILINE)
    assert set(imported) == {"json", "sys", "numpy", "ai_edge_litert", "PIL"}
