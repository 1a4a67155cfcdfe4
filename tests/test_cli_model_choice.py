"""`keras-psr upscale` without a model: which one each picture gets, and what is said about it."""

import json
import shutil

import numpy as np
import pytest
from PIL import ExifTags, Image

from keras_psr.cli.main import main
from keras_psr.images.compression import Compression
from keras_psr.inference.registry import file_sha256

CLEAN, LOSSY = "float32", "int8"
"""The files of x4 and x4-photo, whose pixels differ."""


@pytest.fixture
def shipped(tmp_path, export_tflite, monkeypatch):
    """An installation of two models of scale 4, of which x4-photo was fitted to photos."""
    for name, variant, degradation in (("x4", CLEAN, "bicubic"), ("x4-photo", LOSSY, "photo")):
        folder = tmp_path / "shipped" / name
        folder.mkdir(parents=True)
        file = folder / f"{name}_float32.tflite"
        shutil.copy(export_tflite(variant), file)
        card = {"scale": 4, "parameters": 1, "fit": {"config": {"degradation": degradation}}}
        (folder / "card.json").write_text(json.dumps(card | {"sha256": {file.name: file_sha256(file)}}))
    monkeypatch.setattr("keras_psr.inference.registry.shipped_folder", lambda: tmp_path / "shipped")


@pytest.fixture
def upscale(runner, shipped, tmp_path, monkeypatch):
    """Runs `keras-psr upscale` without --model, in an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return lambda *args, **options: runner.invoke(main, ["upscale", "--device", "cpu", *map(str, args)], **options)


@pytest.fixture
def save(photograph, upscale):
    """Saves the photograph in the current folder."""

    def save(name, **options):
        with Image.open(photograph) as image:
            image.save(name, **options)

    return save


def signature(path):
    with Image.open(path) as image:
        return image.getexif()[ExifTags.Base.Software]


@pytest.mark.parametrize(
    ("name", "options", "model", "said"),
    [
        ("photo.png", {}, "x4", "x4 for 1 clean picture (PNG)"),
        ("photo.jpg", {"quality": 50}, "x4-photo", "x4-photo for 1 lossy picture (JPEG of quality 50)"),
        ("photo.jpg", {"quality": 97, "subsampling": 0}, "x4", "x4 for 1 clean picture (JPEG of quality 97)"),
        ("photo.webp", {}, "x4-photo", "x4-photo for 1 lossy picture (lossy WebP)"),
        ("photo.webp", {"lossless": True}, "x4", "x4 for 1 clean picture (lossless WebP)"),
    ],
)
def test_a_picture_gets_its_model_and_one_line_says_why(
    upscale, save, export_tflite, tmp_path, name, options, model, said
):
    from keras_psr import load, read_rgb

    save(name, **options)
    result = upscale(name)
    assert (result.exit_code, result.stderr) == (0, f"Chose {said}.\n{name} -> photo_x4.png (384x256; {model})\n")
    assert signature("photo_x4.png") == f"keras-psr {model}"
    network = load(export_tflite(CLEAN if model == "x4" else LOSSY))
    np.testing.assert_array_equal(read_rgb("photo_x4.png"), network(read_rgb(name)))


def test_stdin_is_looked_at_too(upscale, save, tmp_path):
    save("photo.jpg", quality=73)
    result = upscale("-", input=(tmp_path / "here" / "photo.jpg").read_bytes())
    chosen, written = result.stderr.splitlines()
    assert chosen == "Chose x4-photo for 1 lossy picture (JPEG of quality 73)."
    assert written == "stdin -> stdout (384x256; x4-photo)"
    assert result.stdout_bytes.startswith(b"\x89PNG")


@pytest.fixture
def mixed(save):
    """Six pictures of both kinds."""
    save("a.png")
    for name, quality in (("b.jpg", 60), ("c.jpg", 88), ("d.jpg", 98)):
        save(name, quality=quality)
    save("e.webp")
    save("f.webp", lossless=True)


BOTH = [
    "Chose x4 for 3 clean pictures (1 PNG, 1 JPEG of quality 98, 1 lossless WebP).",
    "Chose x4-photo for 3 lossy pictures (2 JPEG of quality 60 to 88, 1 lossy WebP).",
]
MODELS = ["x4", "x4-photo", "x4-photo", "x4", "x4-photo", "x4"]


@pytest.mark.usefixtures("mixed")
@pytest.mark.parametrize("jobs", [1, 3])
def test_a_batch_of_both_kinds_has_a_line_for_each_and_both_models(upscale, jobs):
    result = upscale(".", "-o", "out", "--json", "report.json", "--jobs", jobs)
    assert result.exit_code == 0, result.stderr
    assert result.stderr.splitlines()[:2] == BOTH
    assert len(result.stderr.splitlines()) == 2 + 6
    with open("report.json", encoding="utf-8") as file:
        pictures = json.load(file)["pictures"]
    assert [picture["model"] for picture in pictures] == MODELS
    assert pictures[1]["compression"] == {"kind": "JPEG", "has_artefacts": True, "quality": 60}
    assert [signature(picture["output"]) for picture in pictures] == [f"keras-psr {model}" for model in MODELS]


@pytest.mark.usefixtures("mixed")
def test_a_dry_run_says_it_and_loads_no_model(upscale, monkeypatch):
    monkeypatch.setattr("keras_psr.inference.upscaler.load", None)
    result = upscale(".", "-o", "out", "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert result.stderr.splitlines() == [
        *BOTH,
        "Would write:",
        *(
            f"  {name} -> out/{name[0]}_x4.png (384x256; {model})"
            for name, model in zip(["a.png", "b.jpg", "c.jpg", "d.jpg", "e.webp", "f.webp"], MODELS, strict=True)
        ),
    ]


@pytest.mark.usefixtures("mixed")
def test_a_named_model_wins_and_nothing_is_said_of_a_choice(upscale):
    result = upscale(".", "-o", "out", "--model", "x4", "--json", "report.json")
    assert result.exit_code == 0 and "Chose" not in result.stderr and "x4-photo" not in result.stderr
    with open("report.json", encoding="utf-8") as file:
        pictures = json.load(file)["pictures"]
    assert [(picture["model"], picture["compression"]) for picture in pictures] == [("x4", None)] * 6
    assert {signature(picture["output"]) for picture in pictures} == {"keras-psr x4"}


@pytest.mark.usefixtures("mixed")
def test_without_a_model_for_artefacts_the_plain_one_is_taken_and_that_is_said(upscale):
    result = upscale("b.jpg", "a.png", "--scale", "2", "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert result.stderr.splitlines()[:2] == [
        "Chose x2 for 1 lossy picture (JPEG of quality 60), because no shipped model of scale 2 smooths artefacts.",
        "Chose x2 for 1 clean picture (PNG).",
    ]


@pytest.mark.usefixtures("mixed")
def test_only_what_is_left_to_do_is_counted_and_loaded(upscale, monkeypatch):
    assert upscale("b.jpg", "c.jpg").exit_code == 0
    result = upscale("a.png", "b.jpg", "c.jpg", "--skip-existing")
    assert result.stderr.splitlines()[0] == "Chose x4 for 1 clean picture (PNG)."
    monkeypatch.setattr("keras_psr.inference.upscaler.load", None)
    result = upscale("b.jpg", "c.jpg", "--skip-existing")
    assert (result.exit_code, result.stderr) == (0, "2 skipped, because their results exist.\n")


@pytest.mark.usefixtures("mixed")
def test_what_is_skipped_is_not_opened(upscale, tmp_path):
    assert upscale("b.jpg").exit_code == 0
    (tmp_path / "here" / "b.jpg").write_bytes(b"no picture any more")
    for options, model in (((), None), (("--model", "x4"), "x4")):
        result = upscale("b.jpg", "--skip-existing", "--json", "-", *options)
        (picture,) = json.loads(result.stdout)["pictures"]
        assert (result.exit_code, picture["status"], picture["model"]) == (0, "skipped", model)


@pytest.mark.usefixtures("mixed")
def test_a_file_that_is_no_picture_fails_alone(upscale, tmp_path):
    (tmp_path / "here" / "g.jpg").write_bytes(b"\xff\xd8\xff")
    result = upscale("a.png", "g.jpg", "--json", "-")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[0] == "Chose x4 for 1 clean picture (PNG)."
    assert "1 upscaled, 1 failed:\n  g.jpg " in result.stderr
    assert [picture["model"] for picture in json.loads(result.stdout)["pictures"]] == ["x4", None]


@pytest.mark.usefixtures("mixed")
def test_a_damaged_model_is_an_error_before_anything_is_written(upscale, tmp_path):
    (tmp_path / "shipped" / "x4-photo" / "x4-photo_float32.tflite").write_bytes(b"TFL3")
    result = upscale("a.png", "b.jpg", "-o", "out")
    assert result.exit_code == 1 and "x4-photo_float32.tflite is damaged" in result.stderr.splitlines()[-1]
    assert not (tmp_path / "here" / "out").exists()


def test_two_models_on_one_device_name_it_once(upscale, save, export_tflite, tmp_path):
    save("a.png")
    save("b.jpg")
    file = tmp_path / "shipped" / "x4-photo" / "x4-photo_float32.tflite"
    shutil.copy(export_tflite(CLEAN), file)
    card = json.loads((file.parent / "card.json").read_text())
    (file.parent / "card.json").write_text(json.dumps(card | {"sha256": {file.name: file_sha256(file)}}))
    result = upscale("a.png", "b.jpg", "--device", "auto")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stderr.splitlines()] == ["Chose", "Chose", "Computing", "a.png", "b.jpg"]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([Compression("JPEG", True)], "JPEG"),
        ([Compression("JPEG", True), Compression("JPEG", True, 80)], "2 JPEG of quality 80"),
        ([Compression("AVIF", True)] * 2, "2 AVIF"),
    ],
)
def test_kinds_are_counted(found, expected):
    from keras_psr.cli.model_choice import describe_compressions

    assert describe_compressions(found) == expected
