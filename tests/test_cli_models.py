"""`keras-psr models`: the table, a card, JSON."""

import json

import pytest

from keras_psr.cli.main import main

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
    cards |= {name: STYLE_CARD for name in ("starry-night", "great-wave", "the-scream")}
    for name, card in cards.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "card.json").write_text(json.dumps(card))
    result = runner.invoke(main, ["models"], env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.stderr
    lines = [line.rstrip() for line in result.stdout.splitlines() if line.strip()]
    assert [line.split()[0] for line in lines] == [
        *("super-resolution:", "name", "x2", "x2-fast", "x4", "x4-fast", "x4-photo", "x8"),
        *("style-transfer", "name", "great-wave", "starry-night", "the-scream"),
    ]
    assert max(map(len, lines)) <= 80
    assert "30.50 (+2.07)  30.50 (+2.07)  30.50 (+2.07)" in lines[4]
    assert lines[-1].split() == ["the-scream", "1", "2.6", "MB", "0.8123", "120"]


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
        "--json shows the rest: settings, versions, protocol, checksums.",
    ]


@pytest.mark.usefixtures("shipped")
@pytest.mark.parametrize(("args", "document"), [(["x4"], CARD), ([], {"x4": CARD})])
def test_json(runner, args, document):
    assert json.loads(runner.invoke(main, ["models", *args, "--json"]).stdout) == document


@pytest.mark.usefixtures("shipped")
def test_an_unknown_name_is_one_line(runner):
    result = runner.invoke(main, ["models", "x5"])
    assert result.exit_code == 1
    assert result.stderr == "Error: No shipped model 'x5'. There are: x4.\n"


def test_without_models_the_next_step_is_told(runner, monkeypatch, tmp_path):
    monkeypatch.setattr("keras_psr.inference.registry.shipped_folder", lambda: tmp_path)
    result = runner.invoke(main, ["models"])
    assert (result.exit_code, result.stdout) == (0, "")
    assert "keras-psr fit --scale 4" in result.stderr


def test_the_models_of_this_installation_are_listed(runner):
    from keras_psr.inference.registry import shipped_models

    result = runner.invoke(main, ["models"], env={"COLUMNS": "120"})
    assert result.exit_code == 0, result.stderr
    for name in shipped_models():
        assert name in result.stdout


def test_the_metadata_of_a_tflite_file_is_shown(runner, tmp_path):
    from keras_psr.inference.tflite_metadata import pack, schema, with_metadata

    model = schema.ModelT()
    model.version, model.buffers = 3, [schema.BufferT()]
    (tmp_path / "x4_int8.tflite").write_bytes(with_metadata(pack(model), {"scale": 4, "tile": 128, "halo": 16}))
    result = runner.invoke(main, ["models", str(tmp_path / "x4_int8.tflite"), "--json"])
    assert json.loads(result.stdout) == {"scale": 4, "tile": 128, "halo": 16}
    assert "128" in runner.invoke(main, ["models", str(tmp_path / "x4_int8.tflite")]).stdout


def test_a_tflite_file_of_others_is_refused(runner, tmp_path):
    (tmp_path / "letter.tflite").write_text("Dear reader")
    result = runner.invoke(main, ["models", str(tmp_path / "letter.tflite")])
    assert result.exit_code == 1 and "not a TFLite model" in result.stderr
