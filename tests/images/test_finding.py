import os
from pathlib import Path

import pytest

from keras_psr.errors import DataError
from keras_psr.images.finding import describe_endings, find_images, find_images_and_others


def test_find_images_walks_a_folder_and_ignores_what_is_no_visible_picture(tmp_path):
    for name in ["b.PNG", "a.jpg", "deep/er/c.tiff", ".hidden.png", ".cache/d.png", "notes.txt"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    expected = [tmp_path / "a.jpg", tmp_path / "b.PNG", tmp_path / "deep/er/c.tiff"]
    assert find_images(tmp_path) == expected
    assert find_images(str(tmp_path / "**" / "*")) == expected
    assert find_images(tmp_path / "*.jpg") == [tmp_path / "a.jpg"]


def test_find_images_in_a_folder_below_a_hidden_one(tmp_path):
    (tmp_path / ".runs").mkdir()
    (tmp_path / ".runs" / "a.png").touch()
    assert find_images(tmp_path / ".runs") == [tmp_path / ".runs" / "a.png"]


def make_linked_tree(folder):
    """A real folder, a link to another one, and links that lead in circles."""
    for name in ("in/real/a.png", "in/b.png", "elsewhere/c.png", "beside.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    for link, target in {"early": "real", "up": "..", "self": ".", "link": "../elsewhere"}.items():
        (folder / "in" / link).symlink_to(target)
    (folder / "elsewhere" / "back").symlink_to("../in")
    return folder / "in"


def test_linked_folders_are_searched_once_and_by_the_path_without_links(tmp_path):
    folder = make_linked_tree(tmp_path)
    expected = [folder / name for name in ("b.png", "link/c.png", "real/a.png")]
    assert find_images(folder) == expected
    assert find_images(str(folder / "**" / "*.png")) == expected
    assert find_images(str(folder / "**" / "**" / "*.png")) == expected
    assert find_images(str(folder / "*" / "*.png")) == sorted(
        [*expected[1:], folder / "early/a.png", *(folder / name for name in ("self/b.png", "up/beside.png"))]
    )


def test_a_folder_of_links_to_folders_has_pictures(tmp_path):
    make_linked_tree(tmp_path)
    (tmp_path / "links").mkdir()
    for name in ("in/real", "elsewhere"):
        (tmp_path / "links" / Path(name).name).symlink_to(tmp_path / name)
    assert [path.name for path in find_images(tmp_path / "links")] == ["b.png", "c.png", "a.png"]


def test_what_is_left_out_is_counted_by_ending(tmp_path):
    for name in ("a.png", "b.PSD", "deep/c.psd", "d.txt", "plain", ".hidden.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for where in (tmp_path, str(tmp_path / "**" / "*")):
        images, others = find_images_and_others(where)
        assert images == [tmp_path / "a.png"]
        assert describe_endings(others) == "2 .psd, 1 .txt, 1 without ending"
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match=r"There are 2 \.psd, 1 \.txt, 1 without ending\."):
        find_images(tmp_path)


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_counted(tmp_path):
    (tmp_path / "a.png").touch()
    (tmp_path / "closed").mkdir(mode=0)
    assert describe_endings(find_images_and_others(tmp_path)[1]) == "1 folders without permission"


@pytest.mark.parametrize("name", ["photo", "a[1].png", ".hidden.png"])
def test_find_images_takes_a_named_file_as_it_is(tmp_path, name):
    (tmp_path / name).touch()
    assert find_images(tmp_path / name) == [tmp_path / name]


def test_find_images_says_what_it_looked_for(tmp_path):
    with pytest.raises(DataError, match="no such file or folder: .*nowhere"):
        find_images(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no pictures in .*looked for files ending in \.bmp, \.gif"):
        find_images(tmp_path)
    with pytest.raises(DataError, match=r"no pictures in .*\*\.jpg"):
        find_images(tmp_path / "*.jpg")
