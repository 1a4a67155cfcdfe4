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
    assert result.stderr == "Error: Nothing to upscale. Left out: 1 result of keras-psr (see --include-results).\n"


def test_a_picture_that_is_named_is_upscaled_whatever_its_name(upscale, photo, tmp_path):
    photo.rename(tmp_path / "small_x4.png")
    assert upscale("small_x4.png").exit_code == 0
    assert (tmp_path / "small_x4_x4.png").is_file()


def test_two_inputs_for_one_target_are_told(upscale, photo, tmp_path):
    Image.open(photo).save(tmp_path / "photo.jpg")
    result = upscale("photo.jpg", "photo.png")
    assert result.exit_code == 1
    assert "photo.png: photo_x4.png is already written for photo.jpg" in result.stderr


def test_a_picture_larger_than_the_limit_is_refused(upscale, photo):
    result = upscale("photo.png", "--max-pixels", (384 * 256 - 1) / 1e6)
    assert result.exit_code == 1
    assert "photo.png would become 384x256, 0.1 megapixels. If you trust it" in result.stderr
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
    assert "'3' is not one of '2', '4', '8'. For another size of the result, use --output-scale" in result.stderr


def test_without_a_model_the_shipped_one_for_the_scale_is_taken(runner, photo, monkeypatch):
    asked = []

    def load(name, **options):
        from keras_psr.errors import ModelError

        asked.append(name)
        raise ModelError("none")

    monkeypatch.setattr("keras_psr.inference.upscaler.load", load)
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


@pytest.mark.parametrize("model", ["file", "x4", "chosen"])
def test_tensorflow_is_not_imported(photo, export_tflite, tmp_path, model):
    """Neither by a file nor by a shipped model, nor by choosing one, whatever the options."""
    if model == "file":
        model = str(export_tflite("int8"))
    else:
        (tmp_path / "shipped" / "x4").mkdir(parents=True)
        path = shutil.copy(export_tflite("float32"), tmp_path / "shipped" / "x4" / "x4_float32.tflite")
        card = {"sha256": {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}}
        (path.parent / "card.json").write_text(json.dumps(card))
    code = (
        "import sys, pathlib, keras_psr.inference.registry; from keras_psr.cli.main import main\n"
        "keras_psr.inference.registry.shipped_folder = lambda: pathlib.Path('shipped')\n"
        "main(sys.argv[1:], standalone_mode=False)\n"
        "print({'tensorflow', 'keras', 'scipy', 'skimage'} & set(sys.modules))"
    )
    options = ["--match-histogram", "--strength", "0.9", "--output-scale", "3"]
    options += [] if model == "chosen" else ["--model", model]
    command = [sys.executable, "-c", code, "upscale", "photo.png", *options]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"
    device, written = result.stderr.splitlines()[-2:]
    assert device.startswith("Computing on the ") and written.startswith("photo.png -> photo_x3.png (288x192")


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
    assert result.stderr.endswith("2 skipped, because their results exist.\n")
    assert list_files(tmp_path / "out") == RESULTS
    assert (tmp_path / "out/a/two_x4.png").stat().st_mtime_ns == before
    result = light("in", "-o", "out")
    assert result.exit_code == 1 and "0 upscaled, 3 failed:" in result.stderr
    assert light("in", "-o", "out", "--skip-existing", "--overwrite").exit_code == 2


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_batch_that_is_killed_leaves_no_half_files_and_can_be_completed(photo, export_tflite, tmp_path, signum):
    for index in range(40):
        (tmp_path / "in").mkdir(exist_ok=True)
        shutil.copy(photo, tmp_path / "in" / f"{index:02}.png")
    model = str(export_tflite("float32"))
    command = [sys.executable, "-m", "keras_psr", "upscale", "in", "-o", "out", "--model", model]
    process = start([*command, "--json", "report.json"], tmp_path)
    while not len(list(tmp_path.glob("out/[!.]*.png"))) > 2 and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signum)
    process.communicate()
    codes = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGKILL: -signal.SIGKILL}
    assert process.returncode == codes[signum]
    written = list((tmp_path / "out").glob("[!.]*"))
    assert 0 < len(written) < 40
    for path in written:
        assert read_pixels(path).shape == (256, 384, 3)
    if signum != signal.SIGKILL:
        assert not list((tmp_path / "out").glob(".*"))
        report = json.loads((tmp_path / "report.json").read_text())
        assert sum(row["status"] == "written" for row in report["pictures"]) == len(written)
    else:
        subprocess.run([*command, "--skip-existing"], cwd=tmp_path, check=True, capture_output=True)
        assert sorted(os.listdir(tmp_path / "out")) == [f"{index:02}_x4.png" for index in range(40)]


def start(command, folder):
    def heed_signals():  # shells start background jobs with SIGINT ignored, and children inherit that
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)

    return subprocess.Popen(
        command, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=heed_signals, text=True
    )


def test_sigterm_does_not_wait_for_a_file_that_takes_long_to_write(export_tflite, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    model = str(export_tflite("float32"))
    command = [sys.executable, "-m", "keras_psr", "upscale", "noise.png", "-o", "out", "-m", model, "-f", "webp"]
    process = start(command, tmp_path)
    while not list(tmp_path.glob("out/.part*.webp")) and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    assert process.communicate()[1].splitlines()[-1] == "Terminated."
    assert process.returncode == 143 and list((tmp_path / "out").iterdir()) == []


def test_two_runs_at_once_share_the_work(photo, export_tflite, tmp_path):
    (tmp_path / "in").mkdir()
    for index in range(30):
        shutil.copy(photo, tmp_path / "in" / f"{index:02}.png")
    model = str(export_tflite("float32"))
    command = [sys.executable, "-m", "keras_psr", "upscale", "in", "-o", "out", "-m", model, "--json", "-"]
    processes = [start(command, tmp_path)]
    wait_for_results(tmp_path, 1, processes)
    processes[0].send_signal(signal.SIGSTOP)  # until the other has begun, however busy the machine is
    processes.append(start(command, tmp_path))
    wait_for_results(tmp_path, len(list(tmp_path.glob("out/*.png"))) + 1, processes)
    processes[0].send_signal(signal.SIGCONT)
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    for rows in zip(*(json.loads(output)["pictures"] for output, _ in outputs), strict=True):
        assert sorted(row["status"] for row in rows) == ["skipped", "written"], rows
    assert sorted(os.listdir(tmp_path / "out")) == [f"{index:02}_x4.png" for index in range(30)]
    for path in (tmp_path / "out").iterdir():
        assert read_pixels(path).shape == (256, 384, 3)


def wait_for_results(folder, count, processes):
    while len(list(folder.glob("out/*.png"))) < count and all(process.poll() is None for process in processes):
        time.sleep(0.005)


STOPPING = """
import signal, sys, threading
from keras_psr.cli import batch_run
from keras_psr.cli.main import main
process_file, calls = batch_run.process_file, []
def stop_before_the_fourth(*arguments):
    calls.append(arguments)
    if len(calls) == 4:
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
    process_file(*arguments)
batch_run.process_file = stop_before_the_fourth
main(sys.argv[1:])
"""


def test_a_run_is_seen_between_two_pictures(photo, export_tflite, tmp_path):
    (tmp_path / "in").mkdir()
    for index in range(6):
        shutil.copy(photo, tmp_path / "in" / f"{index}.png")
    options = ["upscale", "in", "-o", "out", "-m", str(export_tflite("float32")), "--jobs", "1", "--json", "-"]
    first = start([sys.executable, "-c", STOPPING, *options], tmp_path)
    os.waitpid(first.pid, os.WUNTRACED)
    second = start([sys.executable, "-m", "keras_psr", *options], tmp_path)
    outputs = [second.communicate()]
    first.send_signal(signal.SIGCONT)
    outputs.append(first.communicate())
    assert (first.returncode, second.returncode) == (0, 0), outputs
    rows, others = ([row["status"] for row in json.loads(output)["pictures"]] for output, _ in outputs)
    assert rows == ["skipped"] * 3 + ["written"] * 3 and others == ["written"] * 3 + ["skipped"] * 3
    assert sorted(os.listdir(tmp_path / "out")) == [f"{index}_x4.png" for index in range(6)]


def test_what_another_run_writes_meanwhile_is_left_to_it(light, photo, tmp_path):
    from keras_psr.cli.claims import Claims

    with Claims() as claims, claims.claim(tmp_path / "photo_x4.png"):
        result = light("photo.png", "--overwrite", "--json", "-")
    assert result.exit_code == 0
    assert result.stderr == "1 left to another run, which is writing them or has just done so.\n"
    assert json.loads(result.stdout)["pictures"][0]["status"] == "skipped"
    assert not (tmp_path / "photo_x4.png").exists()


def test_a_retry_that_begins_later_does_not_fail_on_what_is_written_meanwhile(light, photo, tmp_path):
    from keras_psr.cli.claims import Claims

    shutil.copy(photo, tmp_path / "other.png")
    assert light("photo.png").exit_code == 0
    with Claims() as claims, claims.claim(tmp_path / "other_x4.png"):
        result = light("photo.png", "other.png")
    assert result.exit_code == 0
    assert result.stderr == "2 left to another run, which is writing them or has just done so.\n"
    (tmp_path / "other_x4.png").write_text("precious")
    with Claims() as claims, claims.claim(tmp_path / "third_x4.png"):
        result = light("photo.png", "other.png")
    assert result.exit_code == 1 and "other.png: other_x4.png exists." in result.stderr, "it is not a result"


def test_what_another_run_gave_up_is_done(light, photo, tmp_path, monkeypatch):
    from keras_psr.cli.claims import ClaimedError, Claims

    claim, refused = Claims.claim, []

    def refuse_once(self, target):
        if target.name == "one_x4.png" and not refused:
            refused.append(target)
            raise ClaimedError
        return claim(self, target)

    monkeypatch.setattr(Claims, "claim", refuse_once)
    make_tree(tmp_path / "in", photo)
    result = light("in", "-o", "out")
    assert (result.exit_code, list_files(tmp_path / "out")) == (0, RESULTS)
    assert result.stderr.splitlines()[-1].startswith("in/one.png ->")


# === Whatever is raised belongs to its picture ===


@pytest.mark.parametrize("error", [TypeError("bad\nentry"), OverflowError(), KeyError("x"), RecursionError("deep")])
@pytest.mark.parametrize(
    "place",
    [
        "images.decoding.image_size",
        "images.decoding.read_photo",
        "inference.photos.upscale_photo",
        "images.encoding.save_photo",
    ],
)
def test_an_exception_of_any_kind_fails_one_picture_and_the_rest_goes_on(
    light, photo, tmp_path, monkeypatch, error, place
):
    from importlib import import_module

    make_tree(tmp_path / "in", photo)
    module, _, name = place.rpartition(".")
    module = import_module(f"keras_psr.{module}")
    function, calls = getattr(module, name), []

    def fail_once(*args, **options):
        calls.append(args)
        if len(calls) == 2:
            raise error
        return function(*args, **options)

    monkeypatch.setattr(module, name, fail_once)
    result = light("in", "-o", "out", "--json", "report.json")
    assert result.exit_code == 1 and "2 upscaled, 1 failed:\n" in result.stderr
    line = result.stderr.splitlines()[-1]
    assert line.startswith("  in/a/two.png: ") and type(error).__name__ in line and "another program" in line
    assert list_files(tmp_path / "out") == ["a/b/two_x4.png", "one_x4.png"]
    report = json.loads((tmp_path / "report.json").read_text())
    assert sorted(row["status"] for row in report["pictures"]) == ["failed", "written", "written"]
    assert report["failures"] == [line.strip()]


def test_debug_shows_the_traceback_and_goes_on(runner, photo, export_tflite, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(photo, "other.png")
    monkeypatch.setattr("keras_psr.images.decoding.read_photo", lambda path: 1 / 0)
    result = runner.invoke(main, ["--debug", "upscale", "photo.png", "other.png", "-m", str(export_tflite("float32"))])
    assert result.exit_code == 1
    assert result.stderr.count("Traceback") == 2 and "0 upscaled, 2 failed" in result.stderr


# === What cannot be written is known before anything is computed ===


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-o", "x.jp2"), "expected one of .bmp, .jfif, .jpe, .jpeg, .jpg, .png, .tif, .tiff, .webp, .gif, .mp4"),
        (("-o", "x.avif"), "expected one of .bmp"),
        (("-o", "out.v2"), "If it is a folder, write out.v2/."),
        (("-o", "photo.png/out"), "-o photo.png/out cannot be written: photo.png is a file"),
        (("-o", "photo.png/"), "-o photo.png cannot be written: photo.png is a file"),
        (("--json", "photo.png/report.json"), "--json photo.png/report.json cannot be written: photo.png is a file"),
        (("--json", "."), "--json . cannot be written: . is a folder"),
        (("-o", "-", "--json", "-"), "cannot both go to stdout"),
        (("-", "-o", "a.png"), "- means one picture from stdin"),
    ],
)
def test_a_place_that_cannot_be_is_a_usage_error_at_once(light, photo, tmp_path, monkeypatch, options, message):
    monkeypatch.setattr("keras_psr.inference.upscaler.load", None)
    before = list_files(tmp_path)
    result = light("photo.png", *options)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.stderr.split())
    assert list_files(tmp_path) == before


def test_without_an_input_the_kinds_are_named(light):
    result = light()
    assert result.exit_code == 2
    assert "Missing argument 'INPUT...': a picture, a folder, a quoted glob, or - for stdin." in result.stderr


def test_a_slash_at_the_end_means_a_folder(light, photo, tmp_path):
    assert light("photo.png", "-o", "out.v2/").exit_code == 0
    assert light("-i", "photo.png", "-o", "out.v2", "-f", "jpg").exit_code == 0, "it exists now"
    assert list_files(tmp_path / "out.v2") == ["photo_x4.jpg", "photo_x4.png"]


@pytest.mark.parametrize(
    ("size", "file_format", "message"),
    [
        ((16376, 1), "jpg", "JPEG is limited to 65500 pixels per side, and the picture would have 65504x4"),
        ((1, 4096), "webp", "WEBP is limited to 16383 pixels per side, and the picture would have 4x16384"),
    ],
)
def test_a_size_beyond_the_format_is_refused_before_it_is_computed(
    light, tmp_path, monkeypatch, size, file_format, message
):
    monkeypatch.setattr("keras_psr.inference.photos.upscale_photo", None)
    Image.new("RGB", size).save(tmp_path / "long.png")
    result = light("long.png", "--format", file_format)
    assert result.exit_code == 1 and message in result.stderr


def test_the_largest_sizes_of_formats_are_written(light, tmp_path):
    Image.new("L", (16375, 1)).save(tmp_path / "long.png")
    assert light("long.png", "--format", "jpg").exit_code == 0
    assert read_pixels(tmp_path / "long_x4.jpg").shape == (4, 65500)
    assert light("long.png", "--format", "webp", "--width", "16383").exit_code == 0
    assert read_pixels(tmp_path / "long_w16383.webp").shape[:2] == (1, 16383)


# === stdin and stdout ===


@pytest.mark.parametrize("options", [(), ("-o", "-")])
def test_a_picture_goes_through_pipes(runner, photo, export_tflite, tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    model = str(export_tflite("float32"))
    assert (
        runner.invoke(main, ["upscale", "photo.png", "-o", "expected.png", "--device", "cpu", "-m", model]).exit_code
        == 0
    )
    before = list_files(tmp_path)
    result = runner.invoke(main, ["upscale", "-", "--device", "cpu", "-m", model, *options], input=photo.read_bytes())
    assert (result.exit_code, result.stderr) == (0, "stdin -> stdout (384x256)\n")
    assert result.stdout_bytes == (tmp_path / "expected.png").read_bytes()
    assert list_files(tmp_path) == before
    result = runner.invoke(main, ["upscale", "photo.png", "-o", "-", "-f", "jpg", "--device", "cpu", "-m", model])
    assert result.exit_code == 0 and result.stdout_bytes.startswith(b"\xff\xd8\xff")


def test_a_picture_from_stdin_can_go_to_a_folder(runner, photo, export_tflite, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["upscale", "-", "-o", "out", "-f", "tif", "--device", "cpu", "-m", str(export_tflite("float32"))]
    assert runner.invoke(main, command, input=photo.read_bytes()).exit_code == 0
    assert list_files(tmp_path / "out") == ["stdin_x4.tif"]
    result = runner.invoke(main, command, input=photo.read_bytes())
    assert result.exit_code == 1 and result.stderr.startswith("Error: stdin: out/stdin_x4.tif exists.")
    result = runner.invoke(main, [*command, "--overwrite"], input=b"no picture")
    assert result.exit_code == 1 and result.stderr.startswith("Error: stdin is not a picture")


def test_stdout_takes_one_picture(light, photo, tmp_path):
    result = light(str(make_tree(tmp_path / "in", photo)), "-o", "-")
    assert result.exit_code == 2 and "-o - is one file, but there are 3 pictures" in result.stderr


# === Which pictures are taken ===


def test_an_output_folder_inside_the_input_folder_is_no_input(light, photo, tmp_path):
    make_tree(tmp_path / "in", photo)
    for suffix, options in (("", ()), ("", ("--skip-existing",)), ("-new", ())):
        result = light("in", "-o", "in/out", "--suffix", suffix, *options)
        assert result.exit_code == 0, result.stderr
    assert "Left out: 6 in the output folder in/out" not in result.stderr
    assert "Left out: 3 in the output folder in/out." in result.stderr
    names = [
        f"{folder}{name}{suffix}.png"
        for folder, name in (("a/b/", "two"), ("a/", "two"), ("", "one"))
        for suffix in ("", "-new")
    ]
    assert sorted(list_files(tmp_path / "in" / "out")) == sorted(names)


def test_results_of_any_model_are_no_inputs_unless_they_are_wanted(light, upscale, photo, tmp_path):
    assert light("photo.png", "-o", "renamed.jpg").exit_code == 0
    result = upscale(".", "--width", "100", "--format", "tif")
    assert result.exit_code == 0, result.stderr
    assert result.stderr.startswith("Left out: 1 result of keras-psr (see --include-results).\n")
    assert list_files(tmp_path) == ["photo.png", "photo_w100.tif", "renamed.jpg"]
    assert light("renamed.jpg", "--dry-run").exit_code == 0, "it was named"
    result = light(".", "--include-results", "--dry-run", "-o", "out")
    assert result.stderr.count(" -> ") == 3


def test_linked_folders_are_inputs_and_what_is_no_picture_is_counted(light, photo, tmp_path):
    make_tree(tmp_path / "real", photo)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "in")
    for name in ("a.JXL", "b.jxl", "c.txt", "plain"):
        (tmp_path / "in" / name).touch()
    result = light("in", "-o", "out")
    assert result.exit_code == 0, result.stderr
    assert result.stderr.startswith("Left out: 2 .jxl, 1 .txt, 1 without ending.\n")
    assert list_files(tmp_path / "out") == [f"link/{name}" for name in RESULTS]


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
    assert ("transparency blended with white" in result.stderr) != holds_alpha
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
    from keras_psr.images.pixels import resize_bicubic

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
    assert "bomb.png would become 400000x400000, 160000.0 megapixels. If you trust it" in result.stderr
    assert "raise --max-pixels 500" in result.stderr
    assert Image.MAX_IMAGE_PIXELS == limit


def test_16_bits_are_refused_by_a_quantized_model_in_one_line(runner, export_tflite, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.full((4, 5), 40000, np.uint16)).save("deep.png")
    result = runner.invoke(main, ["upscale", "deep.png", "--model", str(export_tflite("int8")), "--device", "cpu"])
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: deep.png: image has 16 bits per channel, but the model is quantized to 8. "
        "Use its float32 or float16 file.\n"
    )


def test_a_terminal_shows_one_bar_over_all_pictures(light, photo, tmp_path, monkeypatch):
    import rich.console

    from keras_psr.cli import batch_run

    monkeypatch.setattr(rich.console.Console, "is_terminal", True)
    bars = []
    monkeypatch.setattr(batch_run.BatchBar, "count", lambda bar: bars.append(bar))
    make_tree(tmp_path / "in", photo)
    result = light("in", "-o", "out")
    assert result.exit_code == 0, result.stderr
    task = bars[0].progress.tasks[0]
    assert len(bars) == 3 and task.total > 3 * 256 * 384
    assert task.completed == pytest.approx(task.total)


def test_the_bar_is_not_full_while_a_file_is_written(light, photo, tmp_path, monkeypatch):
    from keras_psr.cli import batch_run

    advanced, before_writing, deliver = [], [], batch_run.deliver
    monkeypatch.setattr(batch_run.BatchBar, "advance", lambda bar, pixels: advanced.append(pixels))

    def see_bar_and_deliver(*args, **options):
        before_writing.append(sum(advanced))
        return deliver(*args, **options)

    monkeypatch.setattr(batch_run, "deliver", see_bar_and_deliver)
    assert light("photo.png").exit_code == 0
    assert before_writing == [256 * 384]
    assert sum(advanced) == pytest.approx(256 * 384 * (1 + batch_run.WRITING_SHARE))


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


def test_of_several_pages_the_first_is_upscaled_and_told(light, tmp_path):
    pages = [Image.new("RGB", (8, 8), colour) for colour in ["red", "blue"]]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    result = light("a.tif")
    assert (result.exit_code, result.stderr) == (0, "a.tif -> a_x4.png (32x32; first of 2 frames)\n")
