"""Fits of styles: what is asked of a painting, the settings, a tiny fit from end to end."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from skimage import data

from keras_psr.data.samples import Sample
from keras_psr.data.sources import Picture
from keras_psr.errors import ConfigError, ImageFileError
from keras_psr.inference.upscaler import load
from keras_psr.networks.receptive_field import measure_geometry
from keras_psr.tasks.config import FitConfig
from keras_psr.tasks.style_transfer.task import (
    build_loss,
    build_objective,
    build_stream,
    build_validation,
    read_painting,
    reduce_photograph,
)
from keras_psr.tasks.super_resolution.task import build_stream as build_super_resolution_stream
from keras_psr.training.fit import build_trainer, fit

TINY = {
    "num_filters": 2,
    "num_residual_blocks": 1,
    "crop": 32,
    "batch_size": 2,
    "steps": 4,
    "save_every": 2,
    "style_layers": ["relu1_2", "relu2_2"],
    "content_layer": "relu2_2",
    "style_size": 48,
    "precision": "float32",
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Settings that name a painting and two folders of a photograph."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, pixels in {"data": data.astronaut()[:128, 150:310], "val": data.coffee()[100:165, 200:271]}.items():
        (folder / name).mkdir()
        Image.fromarray(pixels).save(folder / name / "photograph.png")
    Image.fromarray(data.cat()[:100, :140]).save(folder / "painting.png")
    return {"data": [str(folder / "data")], "val": [str(folder / "val")], "style": str(folder / "painting.png")}


@pytest.fixture(scope="module")
def config(sources):
    return FitConfig.from_json({**TINY, **sources})


def save_painting(folder, height, width, mode="RGB"):
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(folder / "painting.png")
    return str(folder / "painting.png")


@pytest.fixture(scope="module")
def straight(sources, tmp_path_factory):
    """The folder of a fit from beginning to end, its network, and the numbers that were logged."""
    out, logged = tmp_path_factory.mktemp("straight") / "run", []
    return out, fit(out, **TINY, **sources, on_log=lambda step, numbers: logged.append(numbers)), logged


def test_a_fit_from_end_to_end(straight, sources):
    out, fitted, logged = straight
    _, losses, scores = logged
    terms = losses["feature_loss"] + 2 * losses["style_loss"] + 1e-4 * losses["total_variation"]
    extra = 0.01 * losses["phase_loss"] + 0.2 * losses["chroma_loss"]
    extra += 0.0006 * losses["stability_loss"]
    assert losses["phase_loss"] > 0 and losses["chroma_loss"] > 0 and losses["stability_loss"] > 0
    assert losses["loss"] == pytest.approx(terms + extra, rel=1e-3)
    assert set(scores) == {"val_loss", "val_feature_loss", "val_style_loss", "val_total_variation"}
    assert np.asarray(Image.open(out / "samples" / "step-00000004.png")).shape[2] == 3
    saved = json.loads((out / "config.json").read_text())["config"]
    assert saved["style"] == sources["style"] and FitConfig.from_json(saved).style_size == 48
    image = data.coffee()[:33, :50]
    assert fitted.scale == 1 and fitted(image).shape == image.shape
    np.testing.assert_array_equal(load(out)(image), fitted(image))


def test_a_resumed_fit_ends_where_a_straight_one_does(straight, tmp_path):
    out = shutil.copytree(straight[0], tmp_path / "run")
    (out / "checkpoints" / "step-00000004.npz").unlink()
    network, resumed = straight[1].network, fit(out, resume=True).network
    assert [weight.path for weight in network.weights if "moving" in weight.path], "of batch norm"
    for one, other in zip(network.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def fit_to_one_batch(config, **settings):
    """The losses of 25 steps with the same batch."""
    trainer = build_trainer(replace(config, learning_rate=0.01, steps=1000, **settings))
    one_batch = build_stream(config).dataset(batch_size=2, first_sample=0, num_steps=1)
    return trainer.fit(one_batch, epochs=25, verbose=0, shuffle=False).history


@pytest.fixture(scope="module")
def without_phase_loss(config):
    return fit_to_one_batch(config, phase_weight=1e-9)


def test_a_fit_comes_nearer_to_the_painting(without_phase_loss):
    losses = without_phase_loss["loss"]
    assert losses[-1] < 0.7 * losses[0]


def test_photographs_have_a_surround_that_the_network_sees(config):
    photographs, originals = build_stream(config).batch(0, 2)
    halo = measure_geometry(build_trainer(config).network).halo
    surround = (photographs.shape[1] - 32) // 2
    assert photographs.shape == (2, 128, 128, 3) and surround >= halo > 16
    np.testing.assert_array_equal(photographs[:, surround:-surround, surround:-surround], originals)


@pytest.mark.parametrize(("size", "height", "width"), [(40, 40, 50), (128, 128, 160), (288, 128, 160), (0, 128, 160)])
def test_photographs_are_reduced_before_crops_are_cut(size, height, width, config, sources):
    stream = build_stream(replace(config, photograph_size=size))
    assert (stream.pictures[0].height, stream.pictures[0].width) == (height, width)
    photograph = Image.open(sources["data"][0] + "/photograph.png").resize((width, height), Image.Resampling.BICUBIC)
    _, crop = stream.crops(Sample(picture=0, top=height - 33, left=width - 34, orientation=0))
    expected = np.asarray(photograph)[height - 33 : height - 1, width - 34 : width - 2]
    assert np.abs(crop.astype(int) - expected).max() <= 2  # Pillow rounds its weights


def test_photographs_whose_size_is_known_late_are_reduced_by_their_true_size():
    photograph = Picture("record 0", 480, 640, data.astronaut)
    reduced = reduce_photograph(photograph, 120)
    assert (reduced.height, reduced.width) == (120, 160) and reduced.read().shape == (120, 120, 3)


def test_the_painting_is_reduced_to_the_style_size(tmp_path, sources):
    painting = save_painting(tmp_path, 120, 300)
    assert read_painting(FitConfig.from_json({**sources, "style": painting, "style_size": 100})).shape == (40, 100, 3)


def test_a_painting_smaller_than_the_style_size_stays_as_it_is_and_says_so(tmp_path, sources, caplog):
    config = FitConfig.from_json({**sources, "style": save_painting(tmp_path, 50, 60), "style_size": 384})
    assert read_painting(config).shape == (50, 60, 3)
    assert "painting.png has 60x50 pixels and is not enlarged to style_size 384." in caplog.text


def test_a_grey_painting_is_rgb_of_equal_channels(tmp_path, sources):
    config = FitConfig.from_json({**sources, "style": save_painting(tmp_path, 50, 60, "L")})
    painting = read_painting(config)
    assert painting.shape == (50, 60, 3) and (painting == painting[..., :1]).all()
    assert build_objective(config, painting).measure(painting, painting)["style_loss"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (31, 200), (40, 2000)])
def test_a_painting_without_room_for_a_style_is_refused(height, width, tmp_path, sources):
    config = FitConfig.from_json({**sources, "style": save_painting(tmp_path, height, width)})
    message = f"style must be a picture whose shorter side has at least 32 pixels.*style_size 384.*{width}x{height}"
    with pytest.raises(ConfigError, match=message):
        build_validation(config)


def test_what_is_no_picture_is_refused(tmp_path, sources):
    (tmp_path / "painting.jpg").write_text("not a picture")
    for path in ("painting.jpg", "missing.jpg"):
        with pytest.raises(ImageFileError, match=path):
            read_painting(FitConfig.from_json({**sources, "style": str(tmp_path / path)}))


def test_a_huge_painting_is_refused_before_it_is_decoded(tmp_path, sources, monkeypatch):
    painting = save_painting(tmp_path, 50, 60)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageFileError, match="painting.png"):
        read_painting(FitConfig.from_json({**sources, "style": painting}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"photograph_size": 31}, "photograph_size must be 0, or at least the crop, 256. Received: 31."),
        ({"style_size": 31}, "style_size must be at least 32. Received: 31."),
        ({"crop": 30}, "crop must be a multiple of 4, and at least 32. Received: 30."),
        ({"style_weight": 0.0}, "style_weight must be above 0"),
        ({"style_normalization": "l2"}, "style_normalization must be one of energy, paper, mean. Received: l2."),
        ({"scale": 4}, "scale is for super-resolution. Leave it out with --style."),
        ({"pixel_weight": 0.1}, "pixel_weight is for super-resolution"),
    ],
)
def test_settings_that_do_not_go_with_a_style_are_refused(settings, message, sources):
    with pytest.raises(ConfigError, match=message):
        FitConfig.from_json({**sources, **settings})


def test_a_style_setting_without_a_style_is_refused():
    with pytest.raises(ConfigError, match="content_layer goes only with --style."):
        FitConfig.from_json({"content_layer": "relu2_2"})


def test_each_normalization_has_the_content_loss_that_belongs_to_it(sources):
    losses = {
        name: build_loss(FitConfig.from_json({**TINY, **sources, "style_normalization": name}))
        for name in ("energy", "paper")
    }
    image, photograph = data.coffee()[:32, :32], data.coffee()[50:82, :32]
    energy, paper = (losses[name].measure(image, photograph) for name in ("energy", "paper"))
    response = np.asarray(losses["paper"].responses(photograph[None].astype(np.float32))["relu2_2"])
    assert energy["feature_loss"] == pytest.approx(paper["feature_loss"] / (response**2).mean(), rel=1e-4)
    assert energy["style_loss"] != pytest.approx(paper["style_loss"], rel=0.1)


def test_the_objective_is_that_of_the_fit_without_lattice_and_chroma(config):
    loss, objective = (build(config) for build in (build_loss, build_objective))
    image, photograph = data.coffee()[:48, :48], data.coffee()[50:98, :48]
    of_fit, compared = loss.measure(image, photograph), objective.measure(image, photograph)
    ours = 0.01 * of_fit["phase_loss"] + 0.2 * of_fit["chroma_loss"]
    assert of_fit["loss"] == pytest.approx(compared["loss"] + ours) and of_fit["chroma_loss"] > 0
    assert objective.measure(image[:, :33], photograph[:, :33])["loss"] > 0, "of any size"


def test_the_phase_loss_keeps_a_grid_of_four_pixels_out(config, without_phase_loss):
    # Steps grow out of rounding, so that two machines fit two networks: of the whole sum only a term that outweighs all
    # others, here by a hundred times, must fall on each of them.
    without, alone = without_phase_loss["phase_loss"], fit_to_one_batch(config, phase_weight=100.0)["phase_loss"]
    assert alone[0] == pytest.approx(without[0], rel=1e-3)
    assert np.mean(alone[-10:]) < 0.1 * alone[0] and np.mean(alone[-10:]) < 0.6 * np.mean(without[-10:])


def test_super_resolution_takes_a_texture_loss(sources):
    places = {name: sources[name] for name in ("data", "val")}
    settings = {"num_filters": 2, "num_residual_blocks": 1, "crop": 32, "batch_size": 2, "precision": "float32"}
    settings |= {"style_weight": 3.0, "style_layers": ["relu1_2"], "feature_weight": 0.0, "phase_weight": 0.0}
    config = FitConfig.from_json({**settings, **places})
    batches = build_super_resolution_stream(config).dataset(batch_size=2, first_sample=0, num_steps=1)
    losses = build_trainer(config).fit(batches, verbose=0, shuffle=False).history
    assert losses["style_loss"][0] > 0
    assert losses["loss"][0] == pytest.approx(losses["pixel_loss"][0] + 3 * losses["style_loss"][0], rel=1e-3)
    trainer = build_trainer(FitConfig.from_json({"num_filters": 2, "precision": "float32", **places}))
    assert "style_loss" not in trainer.perceptual_loss.weights, "off by default, as in the paper"
