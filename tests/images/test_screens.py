"""Enlarged screens keep the brightness of their cells."""

import numpy as np
import pytest

from keras_psr.images.pixels import resize_bicubic
from keras_psr.images.screens import is_screen, keep_local_means

SLOPE = np.add.outer(np.arange(48) / 96, np.arange(64) / 128)
DITHERED = (SLOPE > np.random.default_rng(0).random(SLOPE.shape)) * np.uint8(255)


def test_screens_have_two_levels_in_each_channel():
    assert is_screen(DITHERED) and is_screen(DITHERED // 2 + np.uint8(10))
    assert is_screen(np.dstack([DITHERED, DITHERED[::-1], DITHERED // 2]))
    grey = DITHERED.copy()
    grey[3, 3] = 7
    assert not is_screen(grey) and not is_screen(np.dstack([DITHERED, DITHERED, grey]))
    assert not is_screen(np.zeros((4, 4), np.uint8)), "a flat picture is not a screen"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize("shift", [-20, 20])
def test_cells_get_their_means_back(dtype, channels, shift):
    """Enlarged four times by repetition and blurred a little, the means are right; then all but the ends is moved."""
    top = np.iinfo(dtype).max
    screen = (DITHERED.astype(dtype) // 255 * top).reshape(*DITHERED.shape, *(1,) * len(channels))
    screen = np.broadcast_to(screen, (*DITHERED.shape, *channels)).copy()
    big = resize_bicubic(screen.astype(np.float32), 192, 256) / top * 255
    shifted = np.where((big > 2) & (big < 253), np.clip(big + shift, 0, 255), np.clip(big, 0, 255))
    enlarged = np.rint(shifted * (top / 255)).astype(dtype)
    kept = keep_local_means(enlarged, screen)
    assert kept.dtype == dtype and kept.shape == enlarged.shape
    before, after = (abs(part.mean() / top - screen.mean() / top) * 255 for part in (enlarged, kept))
    assert after < 0.5 < before
    blocks = [
        part.reshape(6, part.shape[0] // 6, 8, part.shape[1] // 8, -1).mean(axis=(1, 3)) for part in (kept, screen)
    ]
    assert np.abs(blocks[0] - blocks[1]).max() / top * 255 < 6, "of blocks of 8x8 pixels"
    assert (kept[enlarged == 0] == 0).all() and (kept[enlarged == top] == top).all()
