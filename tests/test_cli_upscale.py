"""`keras-psr upscale`: where pictures go, what is never overwritten, and how one bad file leaves the rest alone."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

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
        "Error: photo.png: photo_x4.png exists. Use --skip-existing, --overwrite, or another -o or --suffix.\n"
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
    assert "photo.png: photo_x4.png is written for photo.jpg already" in result.stderr


def test_a_picture_larger_than_the_limit_is_refused(upscale, photo):
    result = upscale("photo.png", "--max-pixels", (384 * 256 - 1) / 1e6)
    assert result.exit_code == 1
    assert "photo.png would become 384x256, 0.1 million pixels. If you trust it" in result.stderr
    assert "raise --max-pixels" in result.stderr
    assert upscale("photo.png", "--max-pixels", 384 * 256 / 1e6).exit_code == 0


@pytest.mark.parametrize(
    ("mode", "upscaled"),
    [
        *(("L", "L"), ("LA", "LA"), ("RGB", "RGB"), ("RGBA", "RGBA")),
        *(("P", "RGB"), ("1", "L"), ("CMYK", "RGB"), ("I;16", "I;16")),
    ],
)
def test_every_kind_of_picture_keeps_its_kind(upscale, tmp_path, mode, upscaled):
    kind = "photo.tif" if mode == "CMYK" else "photo.png"
    Image.new("L", (10, 7), "gray").convert(mode).save(tmp_path / kind)
    result = upscale(kind)
    assert result.exit_code == 0, result.stderr
    with Image.open(tmp_path / "photo_x4.png") as image:
        assert image.mode == upscaled and image.size == (40, 28)


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

    def load(name, **options):
        from keras_psr.errors import ModelError

        asked.append(name)
        raise ModelError("none")

    monkeypatch.setattr("keras_psr.inference.load", load)
    runner.invoke(main, ["upscale", str(photo)])
    runner.invoke(main, ["upscale", str(photo), "--scale", "8"])
    assert asked == ["x4", "x8"]


# === A .tflite, without TensorFlow ===


@pytest.fixture
def light(runner, export_tflite, tmp_path, monkeypatch):
    """Runs `keras-psr upscale` with a .tflite, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    model = ["--model", str(export_tflite("float32")), "--device", "cpu"]
    return lambda *args: runner.invoke(main, ["upscale", *model, *map(str, args)])


def list_files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def make_tree(folder, photo):
    """Three pictures in a tree, the last two of one name."""
    for name in ("one.png", "a/two.png", "a/b/two.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, folder / name)
    return folder


RESULTS = ["a/b/two_x4.png", "a/two_x4.png", "one_x4.png"]


@pytest.mark.parametrize("model", ["file", "x4"])
def test_tensorflow_is_not_imported(photo, export_tflite, tmp_path, model):
    """Neither by a file nor by a shipped model, whatever the options."""
    if model == "file":
        model = str(export_tflite("int8"))
    else:
        (tmp_path / "shipped" / "x4").mkdir(parents=True)
        path = shutil.copy(export_tflite("float32"), tmp_path / "shipped" / "x4" / "x4_float32.tflite")
        card = {"sha256": {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}}
        (path.parent / "card.json").write_text(json.dumps(card))
    code = (
        "import sys, pathlib, keras_psr.registry; from keras_psr.cli.main import main\n"
        "keras_psr.registry.shipped_folder = lambda: pathlib.Path('shipped')\n"
        "main(sys.argv[1:], standalone_mode=False)\n"
        "print({'tensorflow', 'keras', 'scipy', 'skimage'} & set(sys.modules))"
    )
    options = ["--match-histogram", "--strength", "0.9", "--output-scale", "3"]
    command = [sys.executable, "-c", code, "upscale", "photo.png", "--model", model, *options]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"
    device, written = result.stderr.splitlines()
    assert device.startswith("Computing on the ") and written == "photo.png -> photo_x3.png (288x192)"


def test_trees_of_folders_are_mirrored(light, photo, tmp_path):
    make_tree(tmp_path / "in", photo)
    assert light("in", "-o", "out").exit_code == 0
    assert list_files(tmp_path / "out") == RESULTS
    assert light(str(tmp_path / "in" / "**" / "*.png"), "-o", "globbed").exit_code == 0
    assert list_files(tmp_path / "globbed") == RESULTS
    assert light("in/a/b/two.png", "-o", "flat").exit_code == 0
    assert list_files(tmp_path / "flat") == ["two_x4.png"]


def test_a_second_run_completes_what_a_first_one_left(light, photo, tmp_path):
    make_tree(tmp_path / "in", photo)
    assert light("in/a", "-o", "out/a").exit_code == 0
    before = (tmp_path / "out/a/two_x4.png").stat().st_mtime_ns
    result = light("in", "-o", "out", "--skip-existing")
    assert result.exit_code == 0
    assert result.stderr.endswith("2 skipped, for their results exist.\n")
    assert list_files(tmp_path / "out") == RESULTS
    assert (tmp_path / "out/a/two_x4.png").stat().st_mtime_ns == before
    result = light("in", "-o", "out")
    assert result.exit_code == 1 and "0 upscaled, 3 failed:" in result.stderr
    assert light("in", "-o", "out", "--skip-existing", "--overwrite").exit_code == 2


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT])
def test_a_batch_that_is_killed_leaves_no_half_files_and_can_be_completed(photo, export_tflite, tmp_path, signum):
    for index in range(40):
        (tmp_path / "in").mkdir(exist_ok=True)
        shutil.copy(photo, tmp_path / "in" / f"{index:02}.png")
    model = str(export_tflite("float32"))
    command = [sys.executable, "-m", "keras_psr", "upscale", "in", "-o", "out", "--model", model]

    def heed_sigint():  # shells start background jobs with SIGINT ignored, and children inherit that
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, preexec_fn=heed_sigint)
    while not len(list(tmp_path.glob("out/[!.]*.png"))) > 2 and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signum)
    process.communicate()
    assert process.returncode == (130 if signum == signal.SIGINT else -signal.SIGKILL)
    written = list((tmp_path / "out").glob("[!.]*"))
    assert 0 < len(written) < 40
    for path in written:
        assert read_pixels(path).shape == (256, 384, 3)
    if signum == signal.SIGINT:
        assert not list((tmp_path / "out").glob(".*"))
    subprocess.run([*command, "--skip-existing"], cwd=tmp_path, check=True, capture_output=True)
    assert sorted(os.listdir(tmp_path / "out")) == [f"{index:02}_x4.png" for index in range(40)]


def test_a_dry_run_writes_nothing(light, photo, tmp_path):
    (tmp_path / "bad.png").write_text("no picture")
    result = light("photo.png", "bad.png", "--dry-run", "-o", "out", "--json", "-")
    assert result.exit_code == 1
    assert result.stderr.startswith("Would write:\n  photo.png -> out/photo_x4.png (384x256)\n")
    assert "bad.png is not a picture" in result.stderr
    assert not (tmp_path / "out").exists()
    assert [row["status"] for row in json.loads(result.stdout)["pictures"]] == ["planned", "failed"]


def test_json_tells_what_was_done(light, photo, tmp_path):
    shutil.copy(photo, tmp_path / "photo_x4.png")
    (tmp_path / "bad.png").write_text("no picture")
    Image.new("RGBA", (5, 4), (1, 2, 3, 4)).save(tmp_path / "clear.png")
    result = light(
        *("photo.png", "bad.png", "clear.png", "missing.png", "--json", "report.json"),
        *("--skip-existing", "--format", "png"),
    )
    assert result.exit_code == 1 and result.stdout == ""
    report = json.loads((tmp_path / "report.json").read_text())
    assert [row["status"] for row in report["pictures"]] == ["skipped", "failed", "written"]
    assert report["pictures"][2].items() >= {"output": "clear_x4.png", "width": 20, "height": 16, "error": None}.items()
    assert report["pictures"][2]["seconds"] > 0
    assert len(report["failures"]) == 2 and "missing.png" in report["failures"][0]
    assert report["pictures"][1]["error"] == report["failures"][1]


@pytest.mark.parametrize("file_format", ["png", "jpg", "webp", "tif", "bmp"])
def test_formats(light, tmp_path, file_format):
    Image.new("RGBA", (5, 4), (255, 0, 0, 128)).save(tmp_path / "clear.png", dpi=(144, 144))
    result = light("clear.png", "--format", file_format)
    assert result.exit_code == 0, result.stderr
    holds_alpha = file_format not in ("jpg", "bmp")
    assert ("transparency laid over white" in result.stderr) != holds_alpha
    with Image.open(tmp_path / f"clear_x4.{file_format}") as image:
        assert image.mode == ("RGBA" if holds_alpha else "RGB") and image.size == (20, 16)


def test_quality_makes_files_smaller(light, photo, tmp_path):
    assert light("photo.png", "-o", "a.jpg", "--quality", "30").exit_code == 0
    assert light("photo.png", "-o", "b.jpg").exit_code == 0
    assert (tmp_path / "a.jpg").stat().st_size < (tmp_path / "b.jpg").stat().st_size / 2
    assert light("photo.png", "-o", "c.jpg", "--format", "png").exit_code == 2


def test_output_scale_names_and_sizes_the_result(light, photo, tmp_path):
    assert light("photo.png", "--output-scale", "1.5", "--jobs", "2", "--threads", "1").exit_code == 0
    assert read_pixels(tmp_path / "photo_x1.5.png").shape == (96, 144, 3)


def test_strength_0_is_bicubic(light, photo, tmp_path):
    from keras_psr.pixels import resize_bicubic

    assert light("photo.png", "--strength", "0").exit_code == 0
    expected = resize_bicubic(read_pixels(photo).astype(np.float32), 256, 384)
    assert np.abs(read_pixels(tmp_path / "photo_x4.png") - expected.clip(0, 255)).max() < 0.51


def test_several_jobs_write_what_one_writes(light, photo, tmp_path):
    make_tree(tmp_path / "in", photo)
    assert light("in", "-o", "one").exit_code == light("in", "-o", "three", "--jobs", "3").exit_code == 0
    for name in RESULTS:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "three" / name).read_bytes()


def test_a_header_that_declares_a_bomb_is_refused_before_decoding(light, tmp_path):
    import struct
    import zlib

    header = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunks = [header, b"IDAT" + zlib.compress(b""), b"IEND"]
    parts = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    limit = Image.MAX_IMAGE_PIXELS
    result = light("bomb.png")
    assert result.exit_code == 1
    assert "bomb.png would become 400000x400000, 160000.0 million pixels. If you trust it" in result.stderr
    assert "raise --max-pixels 500" in result.stderr
    assert Image.MAX_IMAGE_PIXELS == limit


def test_16_bits_are_refused_by_a_quantized_model_in_one_line(runner, export_tflite, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.full((4, 5), 40000, np.uint16)).save("deep.png")
    result = runner.invoke(main, ["upscale", "deep.png", "--model", str(export_tflite("int8")), "--device", "cpu"])
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: deep.png: image has 16 bits for each channel, but the model is quantized to 8. "
        "Use its float32 or float16 file.\n"
    )


def test_a_terminal_shows_one_bar_over_all_pixels(light, photo, monkeypatch):
    import rich.console

    from keras_psr.cli.batches import Job, show_progress

    monkeypatch.setattr(rich.console.Console, "is_terminal", True)
    shown = []
    monkeypatch.setattr("rich.progress.Progress.update", lambda self, task, **values: shown.append(values["advance"]))
    with show_progress([Job(photo, photo, network_pixels=5), Job(photo, photo, network_pixels=7)]) as on_pixels:
        on_pixels(5)
        on_pixels(7)
    assert shown == [5, 7]


@pytest.mark.parametrize("source", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("target", ["jpg", "png", "webp", "tif"])
def test_orientation_profile_exif_and_resolution_survive(light, tmp_path, source, target):
    from PIL import ExifTags, ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Artist] = 6, "Somebody"
    exif[ExifTags.Base.XResolution] = exif[ExifTags.Base.YResolution] = 300.0
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.ExifImageWidth: 12, ExifTags.Base.ExifImageHeight: 8}
    picture = Image.new("RGB", (12, 8), "black")
    picture.paste("white", (0, 0, 6, 8))  # the left half, which orientation 6 turns to the top
    options = {} if source == "webp" else {"dpi": (300, 300)}
    picture.save(tmp_path / f"photo.{source}", exif=exif.tobytes(), icc_profile=profile, **options)
    result = light(f"photo.{source}", "--format", target)
    assert (result.exit_code, result.stderr) == (0, f"photo.{source} -> photo_x4.{target} (32x48)\n")
    with Image.open(tmp_path / f"photo_x4.{target}") as image:
        received = image.getexif()
        assert image.mode == "RGB" and image.size == (32, 48)
        assert image.info["icc_profile"] == profile
        assert received.get(ExifTags.Base.Orientation, 1) == 1 and received[ExifTags.Base.Artist] == "Somebody"
        details = received.get_ifd(ExifTags.IFD.Exif)
        assert (details[ExifTags.Base.ExifImageWidth], details[ExifTags.Base.ExifImageHeight]) == (32, 48)
        dpi = image.info.get("dpi") or (received[ExifTags.Base.XResolution], received[ExifTags.Base.YResolution])
        assert [round(float(dots)) for dots in dpi] == [300, 300]
    top, bottom = np.split(read_pixels(tmp_path / f"photo_x4.{target}").astype(float), 2)
    assert top[:8].mean() > bottom[-8:].mean() + 50


def test_of_an_animation_the_first_frame_is_upscaled_and_told(light, tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ["red", "blue"]]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    result = light("a.gif")
    assert (result.exit_code, result.stderr) == (0, "a.gif -> a_x4.png (32x32; first of 2 frames)\n")
