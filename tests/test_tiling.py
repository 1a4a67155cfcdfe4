import numpy as np
import pytest

from keras_psr.errors import ConfigError
from keras_psr.networks import build_network
from keras_psr.receptive_field import receptive_halo
from keras_psr.tiling import tile_starts, upscale_in_tiles


@pytest.mark.parametrize(
    ("size", "tile", "halo"), [(5, 8, 2), (8, 8, 2), (9, 8, 2), (100, 16, 3), (97, 16, 7), (31, 16, 0)]
)
def test_every_pixel_is_away_from_cuts_in_some_tile(size, tile, halo):
    starts = tile_starts(size, tile, halo)
    for pixel in range(size):
        safe = [
            start <= pixel < start + tile
            and (start == 0 or pixel - start >= halo)
            and (start + tile >= size or start + tile - 1 - pixel >= halo)
            for start in starts
        ]
        assert any(safe), pixel
    assert starts[0] == 0 and starts[-1] == max(0, size - tile)


def test_a_tile_that_is_all_halo_is_refused():
    with pytest.raises(ConfigError, match="tile must be larger than twice the network's halo, 8. Received: 8"):
        tile_starts(100, 8, 4)


@pytest.mark.parametrize(("height", "width"), [(40, 40), (41, 77), (97, 40)])
def test_tiles_give_what_the_whole_picture_gives(height, width):
    network = build_network("residual", scale=2, num_filters=4, num_residual_blocks=1)
    generator = np.random.default_rng(0)
    network.get_layer("exit").kernel.assign(generator.normal(0, 1, (9, 9, 4, 3)))
    image = generator.integers(0, 256, (height, width, 3)).astype(np.float32)

    def upscale(tile):
        return np.asarray(network(tile[None]))[0]

    whole = upscale(image)
    halo = receptive_halo(network)
    tiled = upscale_in_tiles(upscale, image, scale=2, tile=40, halo=halo)
    assert tiled.shape == whole.shape
    assert np.abs(tiled - whole).max() < 0.01
    seams = upscale_in_tiles(upscale, image, scale=2, tile=40, halo=halo - 1)
    if (height, width) != (40, 40):
        assert np.abs(seams - whole).max() > 0.01


def test_a_picture_smaller_than_a_tile():
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    enlarged = upscale_in_tiles(lambda tile: tile.repeat(2, 0).repeat(2, 1), image, scale=2, tile=8, halo=1)
    assert np.array_equal(enlarged, image.repeat(2, 0).repeat(2, 1))
