"""Which shipped model is for which file: by what is shipped and by what the file says."""

import json

import pytest
from PIL import Image

import keras_psr
from keras_psr.errors import ImageFileError
from keras_psr.images.compression import Compression
from keras_psr.inference.choice import choose_model
from keras_psr.inference.registry import default_model, removes_artefacts, shipped_models


def make_card(scale, degradation, parameters):
    return {"scale": scale, "parameters": parameters, "fit": {"config": {"degradation": degradation}}}


STYLE = {"scale": 1, "parameters": 9, "fit": {"config": {}}}
CARDS = {"x2": make_card(2, "bicubic", 5), "x4": make_card(4, "bicubic", 5), "x8": make_card(8, "bicubic", 5)}


@pytest.fixture
def ship(tmp_path, monkeypatch):
    """Makes cards, by name, those of the shipped models."""
    monkeypatch.setattr("keras_psr.inference.registry.shipped_folder", lambda: tmp_path / "shipped")

    def ship(cards):
        for name, card in cards.items():
            (tmp_path / "shipped" / name).mkdir(parents=True)
            (tmp_path / "shipped" / name / "card.json").write_text(json.dumps(card))

    return ship


@pytest.fixture
def jpeg(photograph, tmp_path):
    """A JPEG of quality 60."""
    with Image.open(photograph) as image:
        image.save(tmp_path / "photo.jpg", quality=60)
    return tmp_path / "photo.jpg"


def test_a_model_fitted_to_artefacts_is_for_lossy_files_of_its_scale(ship, jpeg, photograph):
    ship(CARDS | {"great-wave": STYLE, "smooth": make_card(4, "photo", 5)})
    assert choose_model(jpeg) == ("smooth", Compression("JPEG", True, 60))
    assert choose_model(photograph) == ("x4", Compression("PNG"))
    assert [choose_model(jpeg, scale).model for scale in (2, 4, 8)] == ["x2", "smooth", "x8"]
    assert [choose_model(photograph, scale).model for scale in (2, 4, 8)] == ["x2", "x4", "x8"]


def test_of_several_the_largest_is_taken(ship):
    ship(CARDS | {"x2-photo": make_card(2, "photo", 7), "x2-photo-fast": make_card(2, "photo", 3)})
    assert default_model(2, for_artefacts=True) == "x2-photo"
    assert default_model(2) == "x2"


def test_the_shipped_models_are_chosen_by_their_cards(jpeg, photograph):
    cards = shipped_models()
    for scale in (2, 4, 8):
        assert choose_model(photograph, scale).model == f"x{scale}"
        chosen = choose_model(jpeg, scale).model
        assert cards[chosen]["scale"] == scale
        is_offered = any(card["scale"] == scale and removes_artefacts(card) for card in cards.values())
        assert removes_artefacts(cards[chosen]) == is_offered
    assert choose_model(jpeg).model == "x4-photo"


def test_it_is_public_and_what_it_returns_can_be_loaded(jpeg):
    model, compression = keras_psr.choose_model(str(jpeg), scale=4)
    # On the CPU, because LiteRT looks for GPUs once per process, and tests of GPUs come after this one.
    assert keras_psr.load(model, device="cpu").scale == 4 and compression.quality == 60


def test_a_file_that_is_missing_is_an_error(tmp_path):
    with pytest.raises(ImageFileError, match="no such picture"):
        choose_model(tmp_path / "photo.jpg")
