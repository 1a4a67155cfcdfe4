import hashlib
import json
from zipfile import ZipFile

import numpy as np
import pytest
from skimage import data

import keras_psr.inference.registry
from keras_psr.errors import ModelError
from keras_psr.images.metrics import lattice_ratio
from keras_psr.inference.registry import (
    file_sha256,
    find_model,
    find_runnable,
    find_tflite,
    model_names,
    shipped_folder,
    shipped_models,
)
from keras_psr.inference.tflite_metadata import read_metadata
from keras_psr.inference.upscaler import load


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A folder of shipped models, `x4` whole and `x8` damaged, in the place of the real one."""
    folder = tmp_path / "saved_models"
    for name, content in {"x8": b"eight", "x4": b"four"}.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "model.keras").write_bytes(content)
        checksum = hashlib.sha256(content).hexdigest()
        card = {"scale": int(name[1:]), "sha256": {"model.keras": checksum}}
        (folder / name / "card.json").write_text(json.dumps(card))
    (folder / "x8" / "model.keras").write_bytes(b"eighr")
    (folder / "unfinished").mkdir()
    monkeypatch.setattr(keras_psr.inference.registry, "shipped_folder", lambda: folder)
    return folder


def test_checksum_is_the_published_example(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_sha256(tmp_path / "abc") == expected


def test_cards_are_listed_by_name(shipped):
    cards = shipped_models()
    assert list(cards) == ["x4", "x8"] and [card["scale"] for card in cards.values()] == [4, 8]


def test_a_shipped_model_is_found_by_name(shipped):
    assert find_model("x4") == shipped / "x4" / "model.keras"


def test_a_damaged_shipped_model_is_refused(shipped):
    message = r"x8/model\.keras is damaged: its sha256 is [0-9a-f]{64}, its card says [0-9a-f]{64}\. Reinstall"
    with pytest.raises(ModelError, match=message):
        find_model("x8")


@pytest.mark.parametrize("name", ["x16", "unfinished", ".", ""])
def test_unknown_names_are_refused_with_the_known(name, shipped, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"No model .* shipped model: x4, x8\.|The folder .* contains no model\.keras"):
        find_model(name)


def test_without_shipped_models_the_message_says_none(tmp_path, monkeypatch):
    monkeypatch.setattr(keras_psr.inference.registry, "shipped_folder", lambda: tmp_path)
    assert shipped_models() == {}
    with pytest.raises(ModelError, match=r"No model 'x4'\. Expected .*: none\."):
        find_model("x4")


def test_run_folders_and_files_are_found(tmp_path):
    with pytest.raises(ModelError, match=r"contains no model\.keras\. Give a run folder of `keras-psr fit`\."):
        find_model(tmp_path)
    (tmp_path / "model.keras").write_bytes(b"")
    assert find_model(tmp_path) == find_model(str(tmp_path)) == tmp_path / "model.keras"
    assert find_model(tmp_path / "model.keras") == tmp_path / "model.keras"


def test_a_path_wins_over_a_name(shipped, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x4").mkdir()
    (tmp_path / "x4" / "model.keras").write_bytes(b"mine")
    assert find_model("x4").read_bytes() == b"mine"


def test_the_models_that_ship_are_whole():
    for name, card in shipped_models().items():
        path = find_model(name)
        assert card["sha256"][path.name] == file_sha256(path)
        assert path.parent == shipped_folder() / name
        exported = sorted(path.parent.glob("*.tflite"))
        assert len(exported) == 3
        assert {read_metadata(str(file))["model_sha256"] for file in exported} == {card["sha256"][path.name]}


def ship(folder, name, content):
    (folder / name).write_bytes(content)
    card = json.loads((folder / "card.json").read_text())
    card["sha256"][name] = hashlib.sha256(content).hexdigest()
    (folder / "card.json").write_text(json.dumps(card))


def test_a_name_stands_for_its_float32_tflite_and_for_keras_without_one(shipped):
    assert find_runnable("x4") == shipped / "x4" / "model.keras"
    ship(shipped / "x4", "x4_float32.tflite", b"float")
    ship(shipped / "x4", "x4_int8.tflite", b"int")
    assert find_runnable("x4") == shipped / "x4" / "x4_float32.tflite"
    assert find_runnable("x4_int8") == shipped / "x4" / "x4_int8.tflite"
    assert find_model("x4") == shipped / "x4" / "model.keras"
    with pytest.raises(ModelError, match=r"No model 'x4_int4'\. Did you mean x4_int8\? .*: x4, x8; each also with _fl"):
        find_runnable("x4_int4")
    with pytest.raises(ModelError, match=r"No model 'x3'\. (Did|Expected)"):
        find_runnable("x3")
    with pytest.raises(
        ModelError, match=r"x4_int8 is a \.tflite file, which can only be run\. Give the network itself: x4\."
    ):
        find_model("x4_int8")
    assert find_tflite("x4") == shipped / "x4" / "x4_float32.tflite"
    assert model_names() == ["x4", "x4_float32", "x4_int8", "x8"]
    assert model_names(variants=False) == ["x4", "x8"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("x4fast", "x4-fast"),
        ("x4_fast", "x4-fast"),
        ("X4", "x4"),
        ("x4-int8", "x4_int8"),
        ("x4fast-int8", "x4-fast_int8"),
        ("starynight", "starry-night"),
        ("great_wave_float16", "great-wave_float16"),
    ],
)
def test_the_nearest_name_is_suggested_and_all_are_listed(typed, meant):
    with pytest.raises(ModelError) as caught:
        find_runnable(typed)
    assert f"No model {typed!r}. Did you mean {meant}?" in str(caught.value)
    assert all(name in str(caught.value) for name in [*shipped_models(), "_int8", "_float16", "_float32"])


def test_a_name_like_no_other_gets_the_list_alone():
    with pytest.raises(
        ModelError, match=r"No model 'portrait'\. Expected a run folder, .* x8; each also with _float16"
    ):
        find_runnable("portrait")


def test_what_only_keras_runs_is_no_tflite(tmp_path):
    (tmp_path / "model.keras").write_bytes(b"")
    with pytest.raises(ModelError, match=r"is not a \.tflite file\. Make one: keras-psr export .* --tflite"):
        find_tflite(tmp_path)


def test_names_with_hyphens_and_their_variants_are_found(shipped):
    for name in ("x4-fast", "x4-photo", "starry-night"):
        folder = shipped / name
        folder.mkdir()
        (folder / "card.json").write_text('{"scale": 4, "sha256": {}}')
        ship(folder, "model.keras", f"{name} in Keras".encode())
        ship(folder, f"{name}_float32.tflite", f"{name} in float32".encode())
        ship(folder, f"{name}_int8.tflite", f"{name} in int8".encode())
    for name in ("x4-fast", "x4-photo", "starry-night"):
        assert find_model(name) == shipped / name / "model.keras"
        assert find_runnable(name) == shipped / name / f"{name}_float32.tflite"
        assert find_runnable(f"{name}_int8") == shipped / name / f"{name}_int8.tflite"
    assert find_runnable("x4") == shipped / "x4" / "model.keras"
    with pytest.raises(ModelError, match=r"No model 'x4-fast_int4'\. Did you mean x4-fast_int8\?"):
        find_runnable("x4-fast_int4")
    (shipped / "x4-fast" / "x4-fast_int8.tflite").write_bytes(b"damaged")
    with pytest.raises(ModelError, match=r"x4-fast_int8\.tflite is damaged"):
        find_runnable("x4-fast_int8")


@pytest.mark.parametrize("damage", ["content", "card"])
def test_a_damaged_tflite_is_refused(shipped, damage):
    ship(shipped / "x4", "x4_float32.tflite", b"float")
    if damage == "content":
        (shipped / "x4" / "x4_float32.tflite").write_bytes(b"floaf")
    else:
        (shipped / "x4" / "card.json").write_text('{"sha256": {}}')
    with pytest.raises(ModelError, match=r"x4_float32\.tflite is damaged: its sha256 is .* Reinstall"):
        find_runnable("x4")


def test_paths_are_run_as_they_are(shipped, tmp_path):
    for name in ("model.keras", "any_int8.tflite"):
        (tmp_path / name).touch()
        assert find_runnable(tmp_path / name) == tmp_path / name
    assert find_runnable(tmp_path) == tmp_path / "model.keras"


def test_the_shipped_models_stay_small():
    assert sum(file.stat().st_size for file in shipped_folder().rglob("*") if file.is_file()) <= 40e6


@pytest.mark.parametrize("name", shipped_models())
def test_shipped_networks_hold_nothing_that_plain_keras_does_not_know(name):
    with ZipFile(shipped_folder() / name / "model.keras") as archive:
        config = archive.read("config.json").decode()
    assert '"class_name": "Conv2D"' in config
    assert "keras_psr" not in config


@pytest.mark.parametrize("name", shipped_models())
def test_the_files_of_a_shipped_model_name_its_network(name):
    folder = shipped_folder() / name
    files = sorted(folder.glob("*.tflite"))
    assert files
    checksum = file_sha256(folder / "model.keras")
    assert [read_metadata(file)["model_sha256"] for file in files] == len(files) * [checksum]


@pytest.mark.parametrize("style", [name for name, card in shipped_models().items() if card["scale"] == 1])
def test_no_shipped_style_paints_a_grid(style):
    paint = load(f"{style}_int8")
    assert np.median([lattice_ratio(paint(image), 4) for image in (data.astronaut(), data.coffee(), data.cat())]) <= 3
