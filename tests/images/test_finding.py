import pytest

from keras_psr.errors import DataError
from keras_psr.images.finding import find_images


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
