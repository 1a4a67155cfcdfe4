import json
import runpy
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import pytest

from keras_psr.errors import ConfigError
from keras_psr.images.tiling import Geometry, _mirrored, spans, tile_starts, upscale_in_tiles
from keras_psr.networks.receptive_field import measure_geometry
from keras_psr.networks.super_resolution import build_network

VECTORS = Path(__file__).parents[1] / "golden" / "tiling.json"
"""What the package for web pages and the React Native example must agree with as well."""


@pytest.mark.parametrize(
    "case", json.loads(VECTORS.read_text(encoding="utf-8"))["cases"], ids=lambda case: case["size"]
)
def test_tiles_lie_where_the_vectors_say(case):
    size, tile, geometry = case["size"], case["tile"], Geometry(1, case["halo"], case["grid"])
    assert [[span.start, span.first, span.end] for span in spans(size, tile, geometry)] == case["spans"]
    assert _mirrored(size, tile, geometry).tolist() == case["mirrored"]


@pytest.mark.parametrize("case", json.loads(VECTORS.read_text(encoding="utf-8"))["refused"])
def test_what_the_vectors_refuse_is_refused(case):
    with pytest.raises(ConfigError, match="larger than twice the network's halo"):
        spans(10, case["tile"], Geometry(1, case["halo"], case["grid"]))


def test_the_vectors_are_what_their_script_writes():
    assert runpy.run_path(str(VECTORS.with_name("make_tiling.py")))["document"]() == VECTORS.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("size", "tile", "halo"), [(1, 8, 2), (4, 8, 2), (5, 8, 2), (9, 8, 2), (100, 16, 3), (97, 16, 7), (31, 16, 0)]
)
def test_every_pixel_is_kept_once_and_away_from_its_tiles_edges(size, tile, halo):
    kept = []
    for span in spans(size, tile, Geometry(1, halo)):
        for pixel in range(span.first, span.end):
            kept.append(pixel)
            place = pixel + halo - span.start  # in the tile
            assert halo <= place < tile - halo
    assert kept == list(range(size))
    starts = tile_starts(size, tile, Geometry(1, halo))
    assert starts[0] == 0 and starts[-1] + tile == max(tile, size + 2 * halo)


def test_geometry_counts_in_whole_blocks_of_the_grid():
    geometry = Geometry(scale=1, halo=8, grid=4)
    assert [geometry.whole_blocks(size) for size in (1, 4, 5, 8, 9)] == [4, 4, 8, 8, 12]
    assert geometry.middle(24) == 8
    with pytest.raises(FrozenInstanceError):
        geometry.halo = 4


def test_a_tile_that_is_all_halo_is_refused():
    with pytest.raises(ConfigError, match="tile must be larger than twice the network's halo, 8. Received: 8"):
        tile_starts(100, 8, Geometry(1, halo=4))


@pytest.fixture(scope="module")
def network():
    """A network with random weights, scale 2."""
    network = build_network("residual", scale=2, num_filters=4, num_residual_blocks=1)
    generator = np.random.default_rng(0)
    network.set_weights([generator.normal(0, 0.1, weight.shape) for weight in network.get_weights()])
    network.get_layer("exit").kernel.assign(generator.normal(0, 1, (9, 9, 4, 3)))
    return network


def run(network, tile):
    return np.asarray(network(tile[None].astype(np.float32)))[0]


def upscale_whole(network, image, halo):
    """The independent way: extend the picture, run the network once, cut the result."""
    extended = np.pad(image, [(halo, halo), (halo, halo), (0, 0)], mode="symmetric")
    output = run(network, extended)
    return output[2 * halo : -2 * halo, 2 * halo : -2 * halo]


def random_sizes():
    generator = np.random.default_rng(7)
    return [tuple(int(side) for side in generator.integers(1, 100, 2)) for _ in range(5)]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 300), (41, 77), (67, 129), (300, 1), *random_sizes()])
def test_tiles_give_what_the_whole_picture_gives(network, height, width):
    image = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)
    geometry = measure_geometry(network)
    whole = upscale_whole(network, image, geometry.halo)
    for tile in (40, (33, 57)):
        tiled = upscale_in_tiles(lambda part: run(network, part), image, geometry, tile=tile)
        assert tiled.shape == whole.shape
        assert np.abs(tiled - whole).max() < 0.01


def test_a_smaller_halo_leaves_seams(network):
    image = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
    geometry = measure_geometry(network)
    whole = upscale_whole(network, image, geometry.halo)
    nearer = replace(geometry, halo=geometry.halo - 1)
    seams = upscale_in_tiles(lambda tile: run(network, tile), image, nearer, tile=40)
    assert np.abs(seams - whole).max() > 0.01


def test_zeros_of_padding_do_not_show_at_borders():
    """A mean over 3x3 pixels of a white picture is white in its corners, too."""
    from scipy.ndimage import uniform_filter

    def blur(tile):
        return uniform_filter(tile, (3, 3, 0), mode="constant").repeat(2, 0).repeat(2, 1)

    white = np.full((5, 9, 3), 255, np.float32)
    assert (blur(white)[0, 0] < 150).all()
    assert np.allclose(upscale_in_tiles(blur, white, Geometry(2, 1), tile=6), 255)


@pytest.mark.parametrize("shape", [(2, 3, 3), (2, 3), (30, 17, 3)])
def test_kinds_and_dtypes_of_pictures(shape):
    image = np.arange(np.prod(shape)).reshape(shape).astype(np.uint16)
    counted = []
    with ThreadPoolExecutor(3) as executor:
        enlarged = upscale_in_tiles(
            lambda tile: tile.repeat(2, 0).repeat(2, 1),
            image,
            Geometry(2, halo=1),
            tile=8,
            dtype=np.uint16,
            map_tiles=executor.map,
            on_pixels=counted.append,
        )
    assert enlarged.dtype == np.uint16 and np.array_equal(enlarged, image.repeat(2, 0).repeat(2, 1))
    assert sum(counted) == 4 * shape[0] * shape[1]


@pytest.mark.parametrize("map_tiles", [map, ThreadPoolExecutor(2).map])
def test_a_tile_that_fails_fails_the_picture(map_tiles):
    def upscale(tile):
        if tile.max() > 90:
            raise MemoryError("tile")
        return tile

    image = np.arange(100, dtype=np.uint8).reshape(10, 10)
    with pytest.raises(MemoryError):
        upscale_in_tiles(upscale, image, Geometry(1, halo=1), tile=4, map_tiles=map_tiles)


@pytest.mark.parametrize(("size", "tile", "halo"), [(1, 24, 8), (9, 24, 8), (31, 24, 8), (100, 32, 4), (96, 32, 0)])
def test_tiles_on_a_grid_begin_at_its_multiples_and_hold_whole_blocks(size, tile, halo):
    kept = []
    for span in spans(size, tile, Geometry(1, halo, grid=4)):
        assert span.start % 4 == 0 and (span.first == 0 or (span.first + halo - span.start) % 4 == 0)
        last_block = (span.end - 1) // 4 * 4 + 3
        assert last_block + halo - span.start < tile - halo, "the halo of the last, perhaps unfinished block"
        kept.extend(range(span.first, span.end))
    assert kept == list(range(size))


def test_a_tile_off_the_grid_is_refused():
    with pytest.raises(ConfigError, match="tile must be a multiple of 4 and larger than .*, 16. Received: 30"):
        tile_starts(100, 30, Geometry(1, halo=8, grid=4))
