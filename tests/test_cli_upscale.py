"""`keras-psr upscale`: where pictures go, what is never overwritten, and how one bad file leaves the rest alone."""

import shutil

import numpy as np
import pytest
from PIL import Image

from keras_psr.cli import upscale as module
from keras_psr.cli.main import main


@pytest.fixture
def upscale(runner, tiny_run, tmp_path, monkeypatch):
    """Runs `keras-psr upscale` with the tiny model, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *args: runner.invoke(main, ["upscale", "--model", str(tiny_run), *map(str, args)])


@pytest.fixture
def photo(photograph, tmp_path):
    """A copy of the photograph, 64x96, in the current folder."""
    return shutil.copy(photograph, tmp_path / "photo.png")


def read_pixels(path):
    return np.asarray(Image.open(path))


def test_a_picture_lands_beside_its_original(upscale, photo, tiny_run, tmp_path):
    from keras_psr import load

    result = upscale("photo.png")
    assert result.exit_code == 0, result.stderr
    assert (result.stdout, result.stderr) == ("", "photo.png -> photo_x4.png (384x256)\n")
    expected = load(tiny_run)(read_pixels(photo))
    np.testing.assert_array_equal(read_pixels(tmp_path / "photo_x4.png"), expected)


def test_an_existing_file_is_replaced_only_with_overwrite(upscale, photo, tmp_path):
    target = tmp_path / "photo_x4.png"
    target.write_text("precious")
    result = upscale("photo.png")
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: photo.png: photo_x4.png exists. Use --overwrite, or another -o or --suffix.\n"
    )
    assert target.read_text() == "precious"
    assert upscale("photo.png", "--overwrite").exit_code == 0
    assert read_pixels(target).shape == (256, 384, 3)


def test_an_original_is_not_its_own_target(upscale, photo):
    assert upscale("photo.png", "--suffix", "").exit_code == 1
    assert read_pixels(photo).shape == (64, 96, 3)


@pytest.mark.parametrize(
    ("output", "target"), [("big.jpg", "big.jpg"), ("out", "out/photo_x4.png"), ("a/b.c", "a/b.c/photo_x4.png")]
)
def test_output_is_a_file_if_it_has_an_ending_and_is_no_folder(upscale, photo, tmp_path, output, target):
    (tmp_path / "a" / "b.c").mkdir(parents=True)
    result = upscale("photo.png", "-o", output)
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / target).is_file()


def test_one_file_does_not_hold_two_pictures(upscale, photo, tmp_path):
    shutil.copy(photo, tmp_path / "other.png")
    result = upscale("photo.png", "other.png", "-o", "big.png")
    assert result.exit_code == 2
    assert "-o big.png is one file, but there are 2 pictures" in result.stderr


def test_a_bad_file_does_not_stop_the_rest(upscale, photo, tmp_path):
    (tmp_path / "folder").mkdir()
    shutil.copy(photo, tmp_path / "folder" / "good.png")
    (tmp_path / "folder" / "text.png").write_text("no picture")
    (tmp_path / "folder" / "cut.png").write_bytes((tmp_path / "photo.png").read_bytes()[:2000])
    result = upscale("folder", "photo.png", "missing.png")
    assert result.exit_code == 1
    assert "2 upscaled, 3 failed:" in result.stderr
    for name in ("text.png is not a picture", "cut.png cannot be read", "no such file or folder: missing.png"):
        assert name in result.stderr
    assert (tmp_path / "folder" / "good_x4.png").is_file()
    assert (tmp_path / "photo_x4.png").is_file()


def test_a_second_run_over_a_folder_leaves_results_alone(upscale, photo, tmp_path):
    assert upscale(".").exit_code == 0
    assert upscale(".", "--overwrite").exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photo.png", "photo_x4.png"]
    photo.unlink()
    result = upscale(".")
    assert result.exit_code == 1
    assert result.stderr == "Error: Nothing to upscale: the names of all 1 pictures end in _x4 already.\n"


def test_a_picture_that_is_named_is_upscaled_whatever_its_name(upscale, photo, tmp_path):
    photo.rename(tmp_path / "small_x4.png")
    assert upscale("small_x4.png").exit_code == 0
    assert (tmp_path / "small_x4_x4.png").is_file()


def test_two_inputs_for_one_target_are_told(upscale, photo, tmp_path):
    Image.open(photo).save(tmp_path / "photo.jpg")
    result = upscale("photo.jpg", "photo.png")
    assert result.exit_code == 1
    assert "photo.png: photo_x4.png was written for another input already" in result.stderr


def test_a_picture_too_large_for_memory_is_refused(upscale, photo, monkeypatch):
    monkeypatch.setattr(module, "MAX_OUTPUT_PIXELS", 384 * 256 - 1)
    result = upscale("photo.png")
    assert result.exit_code == 1
    assert "photo.png would become 384x256" in result.stderr


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "I;16"])
def test_every_kind_of_picture_becomes_rgb(upscale, tmp_path, mode):
    kind = "photo.tif" if mode == "CMYK" else "photo.png"
    Image.new("RGB" if mode == "I;16" else "L", (10, 7), "gray").convert("L").convert(mode).save(tmp_path / kind)
    result = upscale(kind)
    assert result.exit_code == 0, result.stderr
    assert read_pixels(tmp_path / "photo_x4.png").shape == (28, 40, 3)


def test_a_single_pixel_is_upscaled(upscale, tmp_path):
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    assert upscale("dot.png").exit_code == 0
    assert read_pixels(tmp_path / "dot_x4.png").shape == (4, 4, 3)


def test_a_missing_picture_is_one_line(upscale):
    result = upscale("missing.png")
    assert result.exit_code == 1
    assert result.stderr == "Error: no such file or folder: missing.png; give a picture, a folder or a quoted glob.\n"


@pytest.mark.parametrize("name", ["notes.txt", "notes.keras", "notes.h5"])
def test_a_model_file_that_is_none_is_one_line(runner, photo, tmp_path, name):
    (tmp_path / name).write_text("not a model")
    result = runner.invoke(main, ["upscale", str(photo), "--model", str(tmp_path / name)])
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: {tmp_path / name} is not a .keras file. Give a run folder of `keras-psr fit` or its model.keras.\n"
    )


def test_a_scale_that_does_not_fit_the_model_is_one_line(upscale, photo, tiny_run):
    result = upscale("photo.png", "--scale", "2")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: --scale 2 does not fit the model {tiny_run}, which enlarges 4 times.")


def test_scale_3_is_a_usage_error(upscale, photo):
    result = upscale("photo.png", "--scale", "3")
    assert result.exit_code == 2
    assert "'3' is not one of '2', '4', '8'" in result.stderr


def test_without_a_model_the_shipped_one_for_the_scale_is_taken(runner, photo, monkeypatch):
    asked = []

    def load(name):
        from keras_psr.errors import ModelError

        asked.append(name)
        raise ModelError("none")

    monkeypatch.setattr("keras_psr.inference.load", load)
    runner.invoke(main, ["upscale", str(photo)])
    runner.invoke(main, ["upscale", str(photo), "--scale", "8"])
    assert asked == ["x4", "x8"]
