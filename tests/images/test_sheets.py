import numpy as np
import pytest

from keras_psr.errors import ConfigError
from keras_psr.images.sheets import comparison_sheet


def plain(height: int, width: int, colour: tuple[int, int, int]) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def where_is(sheet: np.ndarray, colour: tuple[int, int, int]) -> tuple[slice, slice]:
    rows, columns = np.nonzero((sheet == colour).all(axis=-1))
    return np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def test_pictures_stand_unchanged_side_by_side_and_rows_below_each_other():
    top = {"a": plain(40, 60, RED), "b": plain(40, 60, GREEN)}
    sheet = comparison_sheet([top, {"c": plain(30, 90, BLUE)}])
    assert sheet.dtype == np.uint8
    red, green, blue = (where_is(sheet, colour) for colour in (RED, GREEN, BLUE))
    assert (sheet[red] == RED).all() and sheet[red].shape == (40, 60, 3)
    assert (sheet[green] == GREEN).all() and sheet[green].shape == (40, 60, 3)
    assert (sheet[blue] == BLUE).all() and sheet[blue].shape == (30, 90, 3)
    assert red[0] == green[0] and red[1].stop < green[1].start
    assert red[0].stop < blue[0].start and red[1].start == blue[1].start
    assert (sheet[-1] == 255).all() and (sheet[:, 0] == 255).all() and (sheet[:, -1] == 255).all()


def test_labels_are_drawn_above_their_picture():
    pictures = {"": plain(32, 96, RED), "bicubic": plain(32, 96, GREEN)}
    sheet = comparison_sheet([pictures])
    red, green = where_is(sheet, RED), where_is(sheet, GREEN)
    assert (sheet[: red[0].start, red[1]] == 255).all()
    label = sheet[: green[0].start, green[1]]
    assert label.min() < 50
    assert (label[0] == 255).all() and (label[-1] == 255).all()
    ink = np.nonzero((label < 128).all(axis=-1))[1]
    assert 20 < np.ptp(ink) < 90


def test_long_labels_do_not_reach_the_next_picture():
    sheet = comparison_sheet([{"a label of many words": plain(8, 24, RED), "": plain(8, 24, GREEN)}])
    green = where_is(sheet, GREEN)
    assert (sheet[: green[0].start, green[1]] == 255).all()


@pytest.mark.parametrize("rows", [[], [{}], [{"a": plain(4, 4, RED)}, {}]])
def test_empty_rows_are_refused(rows):
    with pytest.raises(ConfigError, match="at least one picture"):
        comparison_sheet(rows)


def test_pictures_of_different_size_are_refused():
    with pytest.raises(ConfigError, match=r"one size\. Received: .*'b': \(4, 5, 3\)"):
        comparison_sheet([{"a": plain(4, 4, RED), "b": plain(4, 5, RED)}])
