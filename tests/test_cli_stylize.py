"""`keras-psr stylize`, and what the other commands do with a style network."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageCms

from keras_psr.cli.main import main

TINY_STYLE = ["--num-filters", "2", "--residual-blocks", "1", "--crop", "32", "--batch-size", "1", "--steps", "1"]
TINY_STYLE += ["--style-layers", "relu1_2", "--content-layer", "relu2_2", "--precision", "float32"]


@pytest.fixture(scope="session")
def painting(tmp_path_factory):
    import skimage.data

    path = tmp_path_factory.mktemp("paintings") / "painting.png"
    Image.fromarray(skimage.data.cat()[:60, :80]).save(path)
    return path


@pytest.fixture(scope="session")
def style_run(tmp_path_factory, photograph, painting):
    """The run folder of a style fit."""
    folder = tmp_path_factory.mktemp("runs") / "tiny-style"
    places = ["--style", painting, "--data", photograph, "--val", photograph, "--out", folder]
    result = CliRunner().invoke(main, ["fit", *map(str, places), *TINY_STYLE])
    assert result.exit_code == 0, result.stderr
    assert result.stderr.endswith(f"Next: keras-psr stylize photo.jpg --model {folder}\n")
    return folder


@pytest.fixture
def photo(photograph, tmp_path, monkeypatch):
    """A copy of the photograph, 64x96, in the current folder."""
    monkeypatch.chdir(tmp_path)
    return shutil.copy(photograph, tmp_path / "photo.png")


@pytest.fixture
def run(runner):
    return lambda *args: runner.invoke(main, list(map(str, args)))


def read_pixels(path):
    return np.asarray(Image.open(path))


def test_a_painted_picture_lands_beside_its_original(run, photo, style_run, tmp_path):
    from keras_psr import load

    result = run("stylize", "photo.png", "--model", style_run)
    assert result.exit_code == 0, result.stderr
    assert (result.stdout, result.stderr) == ("", "photo.png -> photo_tiny-style.png (96x64)\n")
    np.testing.assert_array_equal(read_pixels(tmp_path / "photo_tiny-style.png"), load(style_run)(read_pixels(photo)))


def test_strength_and_colours(run, photo, style_run, tmp_path):
    options = ("stylize", "photo.png", "--model", style_run, "--overwrite", "-o", "painted.png")
    assert run(*options, "--strength", "0").exit_code == 0
    np.testing.assert_array_equal(read_pixels(tmp_path / "painted.png"), read_pixels(photo))
    assert run(*options, "--preserve-colors").exit_code == 0
    painted, original = (read_pixels(path).astype(int) for path in ("painted.png", photo))
    inside = (painted > 0).all(axis=-1) & (painted < 255).all(axis=-1)
    assert inside.any() and np.ptp((painted - original)[inside], axis=-1).max() <= 1


def test_options_of_upscale_work_alike(run, photo, style_run, tmp_path):
    result = run("stylize", ".", "-o", "out", "--model", style_run, "--format", "jpg", "--output-scale", "0.5")
    assert result.exit_code == 0, result.stderr
    assert read_pixels(tmp_path / "out" / "photo_tiny-style.jpg").shape == (32, 48, 3)
    result = run("stylize", ".", "-o", "out", "--model", style_run, "--format", "jpg", "--skip-existing")
    assert (result.exit_code, result.stderr) == (
        0,
        "Left out: 1 in the output folder out.\n1 skipped, because their results exist.\n",
    )


def test_without_a_network_the_pixels_are_optimised(run, photo, painting, tmp_path):
    options = ("--style", painting, "--iterations", 3, "--style-size", 64, "--style-weight", 5, "--json", "-")
    result = run("stylize", "photo.png", "-o", "slow.png", *options)
    assert result.exit_code == 0, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("iteration")]
    objectives = [float(line.split()[-1]) for line in lines]
    assert [line.split(":")[0] for line in lines] == ["iteration 1/3", "iteration 2/3", "iteration 3/3"]
    assert objectives == sorted(objectives, reverse=True)
    assert json.loads(result.stdout)["pictures"][0]["status"] == "written"
    assert read_pixels(tmp_path / "slow.png").shape == (64, 96, 3)
    from_noise = run("stylize", "photo.png", "--style", painting, "--iterations", 1, "--from-noise")
    assert from_noise.exit_code == 0 and (tmp_path / "photo_painting.png").exists()
    assert np.abs(read_pixels("photo_painting.png").astype(int) - read_pixels("slow.png")).mean() > 30


def test_a_picture_above_the_paint_size_is_painted_small_and_enlarged(run, photo):
    from keras_psr import Painter, load

    options = ("stylize", "photo.png", "-m", "starry-night", "--device", "cpu", "--overwrite", "-o", "painted.png")
    options += ("--paint-size",)
    network, pixels = load("starry-night", device="cpu"), read_pixels(photo)
    for size, expected in ((0, network), (64, network), (40, Painter(network, 40)), (20, Painter(network, 20))):
        result = run(*options, size)
        assert result.exit_code == 0, result.stderr
        np.testing.assert_array_equal(read_pixels("painted.png"), expected(pixels))
    assert np.abs(read_pixels("painted.png").astype(int) - network(pixels)).mean() > 5
    mixed = Painter(network, 20)(pixels, strength=0.25)
    assert run(*options, 20, "--strength", "0.25").exit_code == 0
    np.testing.assert_array_equal(read_pixels("painted.png"), mixed)


def test_profile_opacity_and_size_survive_the_paint_size(run, photo, style_run):
    opacity = Image.linear_gradient("L").resize((96, 64))
    picture = Image.fromarray(read_pixels(photo))
    picture.putalpha(opacity)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture.save("photo.png", icc_profile=profile)
    result = run("stylize", "photo.png", "--model", style_run, "-o", "painted.png", "--paint-size", 30)
    assert result.exit_code == 0, result.stderr
    with Image.open("painted.png") as painted:
        assert painted.size == (96, 64) and painted.info["icc_profile"] == profile
        np.testing.assert_array_equal(np.asarray(painted)[..., 3], opacity)
    result = run("stylize", "photo.png", "--model", style_run, "-o", "wide.png", "--paint-size", 30, "--width", 111)
    assert result.exit_code == 0 and read_pixels("wide.png").shape == (74, 111, 4)


def test_what_is_optimised_has_a_paint_size_too(run, photo, painting, tmp_path):
    options = ("--style", painting, "--iterations", 1, "--style-size", 64)
    result = run("stylize", "photo.png", "-o", "small.png", "--paint-size", 32, *options)
    assert result.exit_code == 0, result.stderr
    assert read_pixels("small.png").shape == (64, 96, 3)


@pytest.mark.parametrize("size", ["-1", "many", "1.5"])
def test_a_paint_size_that_is_none_is_a_usage_error(run, photo, style_run, size):
    result = run("stylize", "photo.png", "--model", style_run, "--paint-size", size)
    assert result.exit_code == 2 and "Invalid value for '--paint-size'" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "Give a --model, or a painting with --style."),
        (("--model", "m", "--style", "photo.png"), "Give a --model, or a painting with --style."),
        (("--model", "m", "--iterations", "5"), "--iterations goes with --style, not with --model."),
        (("--model", "m", "--from-noise"), "--from-noise goes with --style, not with --model."),
    ],
)
def test_options_that_do_not_go_together_are_usage_errors(run, photo, options, message):
    result = run("stylize", "photo.png", *options)
    assert result.exit_code == 2 and message in result.stderr


def test_a_network_of_the_other_task_is_refused(run, photo, tiny_run, style_run):
    result = run("stylize", "photo.png", "--model", tiny_run)
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: {tiny_run} enlarges 4 times and is not for style transfer. Use keras-psr upscale --model {tiny_run}.\n"
    )
    result = run("upscale", "photo.png", "--model", style_run)
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: {style_run} transfers a style and is not for super-resolution. "
        f"Use keras-psr stylize --model {style_run}.\n"
    )
    result = run("upscale", "photo.png", "--model", style_run, "--scale", 4)
    assert result.exit_code == 1 and "--scale 4 does not fit the model" in result.stderr


@pytest.mark.parametrize("content", [b"no picture", b""])
def test_a_style_that_is_no_picture_is_refused_in_a_line(run, photo, tmp_path, content):
    (tmp_path / "painting.jpg").write_bytes(content)
    for command in (("stylize", "photo.png"), ("fit", "--data", "photo.png", "--crop", "32", "--out", "run")):
        result = run(*command, "--style", "painting.jpg")
        assert result.exit_code == 1
        assert result.stderr.splitlines()[-1].startswith("Error: ") and "painting.jpg" in result.stderr
        assert "Traceback" not in result.stderr


def test_a_tiny_style_is_refused_in_a_line(run, photo, tmp_path):
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    for command in (("stylize", "photo.png"), ("fit", "--data", "photo.png", "--crop", "32", "--out", "run")):
        result = run(*command, "--style", "dot.png")
        assert result.exit_code == 1 and "Error: style must be a picture whose shorter side" in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_style_beside_a_super_resolution_option_is_refused(run, photo, painting):
    result = run("fit", "--style", painting, "--scale", "4", "--data", "photo.png")
    assert result.exit_code == 1
    assert result.stderr == "Error: scale is for super-resolution. Leave it out with --style.\n"
    result = run("fit", "--scale", "4", "--content-weight", "2")
    assert result.exit_code == 1 and result.stderr == "Error: content_weight goes only with --style.\n"


def test_a_folder_of_paintings_fits_a_network_to_each(run, painting, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "paintings").mkdir()
    for name in ("one", "two"):
        shutil.copy(painting, tmp_path / "paintings" / f"{name}.png")
    fitted = {}
    monkeypatch.setattr("keras_psr.cli.fit.fit_visibly", lambda config, out, **options: fitted.update({out: config}))
    result = run("fit", "--style", "paintings", "--out", "runs", *TINY_STYLE)
    assert result.exit_code == 0, result.stderr
    assert {out.as_posix(): config.style for out, config in fitted.items()} == {
        f"runs/{name}": f"paintings/{name}.png" for name in ("one", "two")
    }
    assert all(config.num_filters == 2 for config in fitted.values())


def test_evaluate_measures_the_loss_that_it_was_fitted_to(run, style_run, painting, tmp_path, monkeypatch):
    import skimage.data

    monkeypatch.setattr("keras_psr.tasks.style_transfer.evaluation.BASELINE_ITERATIONS", (1, 2))
    Image.fromarray(skimage.data.coffee()[:260, :300]).save(tmp_path / "photo.png")
    result = run("evaluate", "--model", style_run, "--data", tmp_path, "--iterations", 2, "--json", "-")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["weights"] == {"feature_loss": 1.0, "style_loss": 2.0, "total_variation": 1e-4}
    assert list(document["summary"]) == ["photograph", "painting", "model", "L-BFGS 1", "L-BFGS 2"]
    for name in ("photograph", "L-BFGS 2"):
        (row,) = (line for line in result.stderr.splitlines() if name in line)
        assert f"{document['summary'][name]['loss']:.4f}" in row
    shutil.copytree(style_run, tmp_path / "moved")
    settings = json.loads((tmp_path / "moved" / "config.json").read_text())
    settings["config"]["style"] = "gone.png"
    (tmp_path / "moved" / "config.json").write_text(json.dumps(settings))
    result = run("evaluate", "--model", tmp_path / "moved", "--data", tmp_path)
    assert result.exit_code == 1 and "There is no file gone.png." in result.stderr
    result = run("evaluate", "--model", tmp_path / "moved", "--data", tmp_path, "--style", painting)
    assert result.exit_code == 0, result.stderr


def test_evaluate_refuses_style_options_for_other_networks(run, tiny_run, photo, painting):
    result = run("evaluate", "--model", tiny_run, "--data", photo, "--style", painting)
    assert result.exit_code == 1
    assert "Error: --style and --iterations are for style networks." in result.stderr


def test_export_and_what_it_wrote(run, style_run, photo, tmp_path, monkeypatch):
    from keras_psr import load
    from keras_psr.export import benchmark
    from keras_psr.inference.tflite_metadata import read_metadata

    monkeypatch.setattr(benchmark, "SECONDS", 0.02)
    flags = ["--tile", 96, "--calibration", "photo.png", "--verify", "photo.png", "--out", tmp_path]
    monkeypatch.setattr("keras_psr.export.tflite.CALIBRATION_MIDDLE", 8)
    result = run("export", style_run, "--tflite", *flags)
    assert result.exit_code == 0, result.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["task"] == "style transfer" and (report["scale"], report["grid"]) == (1, 4)
    assert report["min_psnr"] == 30 and report["files"]["float32"]["psnr"] > 60 < report["files"]["float32"]["psnr"]
    assert read_metadata(tmp_path / "tiny-style_int8.tflite")["grid"] == 4
    photograph = read_pixels(photo)
    expected = load(style_run)(photograph).astype(int)
    for variant, largest in (("float32", 1), ("int8", 60)):
        painted = load(tmp_path / f"tiny-style_{variant}.tflite")(photograph).astype(int)
        assert painted.shape == photograph.shape and np.abs(painted - expected).max() <= largest
    result = run("stylize", photo, "--model", tmp_path / "tiny-style_int8.tflite")
    assert result.exit_code == 0 and (tmp_path / "photo_tiny-style_int8.png").is_file()
    assert run("upscale", photo, "--model", tmp_path / "tiny-style_int8.tflite").exit_code == 1


def test_a_style_file_far_from_its_network_is_rejected(run, style_run, photo, tmp_path, monkeypatch):
    from keras_psr.export import benchmark

    monkeypatch.setattr(benchmark, "SECONDS", 0.02)
    monkeypatch.setattr("keras_psr.tasks.style_transfer.task.MIN_PSNR", 101.0)
    flags = ["--tile", 96, "--verify", "photo.png", "--out", tmp_path, "--quantize", "float16"]
    result = run("export", style_run, "--tflite", *flags)
    assert result.exit_code == 1 and "Less than 101 dB of PSNR against the network's pictures" in result.stderr
    assert (tmp_path / "tiny-style_float16.tflite.rejected").is_file()


def test_a_tile_off_the_grid_is_refused(run, style_run, tmp_path):
    result = run("export", style_run, "--tflite", "--tile", 98, "--out", tmp_path)
    assert result.exit_code == 1 and "tile must be a multiple of 4 and larger than" in result.stderr
