"""`keras-psr models`: the table, a card, JSON."""

import json

import pytest

from keras_psr.cli.main import main
from keras_psr.inference.registry import find_model

CARD = {
    "name": "x4",
    "task": "super-resolution",
    "scale": 4,
    "parameters": 637379,
    "licence": "Apache-2.0",
    "fit": {
        "command": "keras-psr fit",
        "steps": 3000,
        "config": {"steps": 3000},
        "started_from": {"command": "keras-psr fit --steps 5", "started_from": None, "versions": {"keras": "3"}},
    },
    "scores": {"Set5": {"bicubic": {"psnr_y": 28.43}, "model": {"psnr_y": 30.5}}},
    "bytes": {"model.keras": 2_600_000},
    "sha256": {"model.keras": "b2f6"},
    "verified on": ["Set5", "Set14"],
}


@pytest.fixture
def shipped(monkeypatch, tmp_path):
    """An installation whose only model is CARD's."""
    (tmp_path / "x4").mkdir()
    (tmp_path / "x4" / "card.json").write_text(json.dumps(CARD))
    monkeypatch.setattr("keras_psr.inference.registry.shipped_folder", lambda: tmp_path)


STYLE_CARD = CARD | {"task": "style-transfer", "scale": 1, "scores": {"objective": 0.8123, "as after iterations": 120}}


@pytest.mark.usefixtures("shipped")
def test_the_table_shows_each_model(runner):
    result = runner.invoke(main, ["models"])
    assert result.exit_code == 0, result.stderr
    title, headings, row = result.stdout.splitlines()[:3]
    assert "super-resolution" in title
    assert (headings.split(), row.split()) == (
        ["name", "scale", "size", "Set5"],
        ["x4", "4", "2.6", "MB", "30.50", "(+2.07)"],
    )


def test_many_models_of_two_tasks_fit_80_columns_with_a_line_each(runner, monkeypatch, tmp_path):
    monkeypatch.setattr("keras_psr.inference.registry.shipped_folder", lambda: tmp_path)
    sets = {name: CARD["scores"]["Set5"] for name in ("Set5", "Set14", "BSD100")}
    cards = {name: CARD | {"scores": sets} for name in ("x2", "x2-fast", "x4", "x4-fast", "x4-photo", "x8")}
    cards |= {name: STYLE_CARD | {"painting": name} for name in ("starry-night", "great-wave", "the-scream")}
    for name, card in cards.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "card.json").write_text(json.dumps(card))
    result = runner.invoke(main, ["models"], env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.stderr
    lines = [line.rstrip() for line in result.stdout.splitlines() if line.strip()]
    assert [line.split()[0] for line in lines] == [
        *("super-resolution:", "name", "x2", "x2-fast", "x4", "x4-fast", "x4-photo", "x8", "x2,"),
        *("style-transfer", "name", "great-wave", "starry-night", "the-scream"),
        *("great-wave", "starry-night", "the-scream", "objective"),
        "keras-psr",
    ]
    assert max(map(len, lines)) <= 80
    assert "30.50 (+2.07)  30.50 (+2.07)  30.50 (+2.07)" in lines[4]
    assert lines[13].split() == ["the-scream", "1", "2.6", "MB", "0.8123", "120"]


@pytest.mark.usefixtures("shipped")
def test_a_card_is_shown_but_for_its_details(runner):
    result = runner.invoke(main, ["models", "x4"], env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.stderr
    assert [line.rstrip() for line in result.stdout.splitlines()] == [
        "x4",
        "name                 x4",
        "task                 super-resolution",
        "scale                4",
        "parameters           637379",
        "licence              Apache-2.0",
        "fit                  command keras-psr fit, steps 3000",
        "fit started_from     command keras-psr fit --steps 5",
        "scores Set5 bicubic  psnr_y 28.43",
        "scores Set5 model    psnr_y 30.5",
        "bytes                model.keras 2600000",
        "verified on          Set5, Set14",
        "--json shows everything, such as settings, versions, protocol and checksums.",
    ]


@pytest.mark.usefixtures("shipped")
@pytest.mark.parametrize(("args", "document"), [(["x4"], CARD), ([], {"x4": CARD})])
def test_json(runner, args, document):
    assert json.loads(runner.invoke(main, ["models", *args, "--json"]).stdout) == document


@pytest.mark.usefixtures("shipped")
def test_an_unknown_name_is_one_line(runner):
    result = runner.invoke(main, ["models", "x5"])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: No model 'x5'. ") and ": x4.\n" in result.stderr


def test_every_name_of_upscale_is_taken(runner, tiny_run, tmp_path):
    from keras_psr.inference.registry import find_runnable, shipped_models

    for name in ("x4_int8", str(find_runnable("x4_int8"))):
        document = json.loads(runner.invoke(main, ["models", name, "--json"]).stdout)
        assert (document["name"], document["variant"]) == ("x4", "int8")
    document = json.loads(runner.invoke(main, ["models", str(find_model("x4")), "--json"]).stdout)
    assert document == shipped_models()["x4"]
    for name in (tiny_run, tiny_run / "model.keras"):
        result = runner.invoke(main, ["models", str(name)])
        assert result.exit_code == 0, result.stderr
        assert str(tiny_run / "model.keras") in "".join(result.stdout.split())
        document = json.loads(runner.invoke(main, ["models", str(name), "--json"]).stdout)
        assert document["config"]["num_filters"] == 4 and "val_psnr_y" in document["last validation"]
    alone = tmp_path / "alone.keras"
    alone.write_bytes((tiny_run / "model.keras").read_bytes())
    assert list(json.loads(runner.invoke(main, ["models", str(alone), "--json"]).stdout)) == ["file", "saved", "keras"]
    alone.write_text("no model")
    result = runner.invoke(main, ["models", str(alone)])
    assert result.exit_code == 1 and "alone.keras is not a .keras file." in result.stderr


def test_without_models_the_next_step_is_told(runner, monkeypatch, tmp_path):
    monkeypatch.setattr("keras_psr.inference.registry.shipped_folder", lambda: tmp_path)
    result = runner.invoke(main, ["models"])
    assert (result.exit_code, result.stdout) == (0, "")
    assert "keras-psr fit --scale 4" in result.stderr


def test_it_says_what_each_model_is_for_and_what_the_columns_of_styles_mean(runner):
    result = runner.invoke(main, ["models"], env={"COLUMNS": "80"})
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    assert "x2-fast, x4-fast    for phones and previews: several times as fast" in lines
    assert "x2-photo, x4-photo  for lossy files (upscale takes it for them), noise and" in lines
    assert "starry-night   Vincent van Gogh, The Starry Night, 1889" in lines
    for heading in ("objective", "photograph", "lattice ratio"):
        assert any(line.startswith(f"{heading}  ") and len(line) > 30 for line in lines), heading
    assert max(map(len, lines)) <= 80
    assert "--model takes NAME, NAME_float16, NAME_float32, NAME_int8." in " ".join(result.stdout.split())


def test_the_models_of_this_installation_are_listed(runner):
    from keras_psr.inference.registry import shipped_models

    result = runner.invoke(main, ["models"], env={"COLUMNS": "120"})
    assert result.exit_code == 0, result.stderr
    for name in shipped_models():
        assert name in result.stdout


def test_the_metadata_of_a_tflite_file_is_shown(runner, tmp_path, empty_tflite):
    from keras_psr.inference.tflite_metadata import with_metadata

    (tmp_path / "x4_int8.tflite").write_bytes(with_metadata(empty_tflite, {"scale": 4, "tile": 128, "halo": 16}))
    result = runner.invoke(main, ["models", str(tmp_path / "x4_int8.tflite"), "--json"])
    assert json.loads(result.stdout) == {"scale": 4, "tile": 128, "halo": 16}
    assert "128" in runner.invoke(main, ["models", str(tmp_path / "x4_int8.tflite")]).stdout


def test_a_tflite_file_of_others_is_refused(runner, tmp_path):
    (tmp_path / "letter.tflite").write_text("Dear reader")
    result = runner.invoke(main, ["models", str(tmp_path / "letter.tflite")])
    assert result.exit_code == 1 and "not a TFLite model" in result.stderr
