"""`keras-psr evaluate`: the table, one JSON document, and what each mistake is answered."""

import json

import pytest
from PIL import Image

from keras_psr.cli.main import main


@pytest.fixture
def evaluate(runner, tiny_run):
    """Runs `keras-psr evaluate` with the tiny model."""
    return lambda *args: runner.invoke(main, ["evaluate", "--model", str(tiny_run), *map(str, args)])


def test_json_on_stdout_is_what_the_library_gives(evaluate, tiny_run, photograph):
    import keras_psr

    result = evaluate("--data", photograph, "--json", "-")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert (document["model"], document["data"], document["scale"]) == (str(tiny_run), [str(photograph)], 4)
    expected = keras_psr.evaluate(tiny_run, str(photograph))["summary"]
    assert list(document["summary"]) == ["bicubic", "lanczos", "model"]
    for method, scores in document["summary"].items():
        assert scores == pytest.approx(expected[method], nan_ok=True)


def test_the_table_has_a_row_for_each_method(evaluate, photograph, tmp_path):
    result = evaluate("--data", photograph, "--json", tmp_path / "scores.json")
    assert result.stdout == ""
    summary = json.loads((tmp_path / "scores.json").read_text())["summary"]
    for name in ("bicubic", "lanczos"):
        (row,) = (line for line in result.stderr.splitlines() if f"│ {name}" in line)
        assert f"{summary[name]['psnr_y']:.2f}" in row
        assert f"{summary[name]['ssim_y']:.4f}" in row


def test_a_score_that_is_not_defined_is_null_and_a_dash(evaluate, tmp_path):
    Image.new("RGB", (64, 64), "gray").save(tmp_path / "flat.png")
    result = evaluate("--data", tmp_path, "--json", "-")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["pictures"][0]["scores"]["bicubic"]["psnr_y"] is None
    (row,) = (line for line in result.stderr.splitlines() if "│ bicubic" in line)
    assert " - " in row


def test_too_few_patches_are_said_and_the_rest_goes_on(evaluate, photograph):
    result = evaluate("--data", photograph, "--json", "-")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert "texture" not in next(line for line in result.stderr.splitlines() if "PSNR" in line)
    assert "texture_distance" not in document["summary"]["model"] and document["summary"]["model"]["psnr_y"] > 10
    reason = document["missing"]["texture_distance"]
    # 64x96 pixels
    assert reason.startswith("The texture distance needs 2,000 patches") and "Received: 6." in reason
    assert reason in " ".join(result.stderr.split())


@pytest.mark.usefixtures("few_patches")
def test_the_texture_distance_is_shown_and_in_the_json(evaluate, tmp_path):
    import skimage.data

    Image.fromarray(skimage.data.astronaut()[:128, 160:288]).save(tmp_path / "astronaut.png")
    result = evaluate("--data", tmp_path, "--json", "-")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["missing"] == {} and "texture_distance" in document["protocol"]
    assert "texture" in next(line for line in result.stderr.splitlines() if "PSNR" in line)
    (row,) = (line for line in result.stderr.splitlines() if "│ bicubic" in line)
    assert f" {document['summary']['bicubic']['texture_distance']:.1f} " in row


def test_a_picture_that_is_too_small_is_left_out_by_name(evaluate, photograph, tmp_path):
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    result = evaluate("--data", photograph, "--data", tmp_path, "--json", "-")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert [skipped["name"] for skipped in document["skipped"]] == [str(tmp_path / "dot.png")]
    assert len(document["pictures"]) == 1


def test_no_usable_picture_is_one_line(evaluate, tmp_path):
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    result = evaluate("--data", tmp_path, "--json", "-")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1].startswith("Error: None of the 1 pictures can be scored. ")
    assert result.stderr.count("Error") == 1


def test_an_empty_folder_is_one_line(evaluate, tmp_path):
    result = evaluate("--data", tmp_path)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith(f"Error: no pictures in {tmp_path}")


def test_a_scale_that_does_not_fit_the_model_is_one_line(evaluate, photograph):
    result = evaluate("--data", photograph, "--scale", 8)
    assert result.exit_code == 1
    assert "--scale 8 does not fit the model" in result.stderr


def test_data_is_required(runner):
    result = runner.invoke(main, ["evaluate"])
    assert result.exit_code == 2
    assert "Missing option '--data'" in result.stderr


def test_degraded_pictures_have_columns_of_their_own(evaluate, photograph):
    plain, degraded = (evaluate("--data", photograph, *options) for options in ((), ("--degradation", "jpeg:60")))
    assert degraded.exit_code == 0, degraded.stderr
    assert "x4, bicubic" in plain.stderr and "blocks" not in plain.stderr
    assert "x4, jpeg:60" in degraded.stderr and "blocks" in degraded.stderr


def test_all_columns_fit_a_terminal_of_80_characters():
    from rich.console import Console

    from keras_psr.cli.evaluate import build_table
    from keras_psr.constants import SUPER_RESOLUTION
    from keras_psr.tasks.report import REPORTS

    scores = dict.fromkeys(REPORTS[SUPER_RESOLUTION].evaluation, 1.0) | {"psnr_y": 31.64, "texture_distance": 240.87}
    summary = {"bicubic": scores, "lanczos": scores, "model": scores}
    result = {"task": SUPER_RESOLUTION, "scale": 4, "degradation": "jpeg:75", "pictures": [], "summary": summary}
    console = Console(width=80)
    with console.capture() as shown:
        console.print(build_table("x4-photo", result))
    text = shown.get()
    assert "…" not in text and all(word in text for word in ("features", "texture", "x4-photo", "240.9"))


def test_all_columns_of_a_style_fit_a_terminal_of_80_characters():
    from rich.console import Console

    from keras_psr.cli.evaluate import build_table
    from keras_psr.constants import STYLE_TRANSFER
    from keras_psr.tasks.report import REPORTS

    scores = dict.fromkeys(REPORTS[STYLE_TRANSFER].evaluation, 1.0) | {"loss": 13.0436, "total_variation": 1234.0}
    summary = {"photograph": scores, "painting": scores, "model": scores, "L-BFGS 100": scores}
    console = Console(width=80)
    with console.capture() as shown:
        console.print(
            build_table("starry-night", {"task": STYLE_TRANSFER, "size": 256, "pictures": [], "summary": summary})
        )
    text = shown.get()
    assert "…" not in text and all(word in text for word in ("starry-night", "L-BFGS 100", "13.0436", "moving"))


def test_an_unknown_degradation_is_one_line(evaluate, photograph):
    result = evaluate("--data", photograph, "--degradation", "rain")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("Error: degradation must be bicubic, photo, jpeg:QUALITY")
