"""Which task settings mean, and what help says about each of them."""

import inspect

import pytest

import keras_psr
from keras_psr.constants import STYLE_TRANSFER, SUPER_RESOLUTION
from keras_psr.errors import ConfigError
from keras_psr.tasks.config import FitConfig, StyleConfig, SuperResolutionConfig, list_settings, name_task


@pytest.mark.parametrize(
    ("settings", "task"),
    [
        ({}, SUPER_RESOLUTION),
        ({"scale": 2, "style_weight": 1.0}, SUPER_RESOLUTION),
        ({"style": ""}, SUPER_RESOLUTION),
        ({"style": "a.jpg"}, STYLE_TRANSFER),
        ({"task": STYLE_TRANSFER}, STYLE_TRANSFER),
    ],
)
def test_settings_mean_a_task_also_where_they_do_not_name_it(settings, task):
    assert name_task(settings) == task


@pytest.mark.parametrize("config", [SuperResolutionConfig(scale=2), StyleConfig(style="a.jpg")])
def test_settings_name_their_task_and_come_back(config):
    settings = config.to_json()
    assert settings["task"] == config.task
    assert FitConfig.from_json(settings) == type(config).from_json(settings) == config
    del settings["task"]
    assert FitConfig.from_json(settings) == config, "as in run folders from before tasks had names"


@pytest.mark.parametrize(
    ("config_class", "settings", "message"),
    [
        (
            FitConfig,
            {"task": "denoising"},
            "task must be one of super-resolution, style transfer. Received: 'denoising'",
        ),
        (
            FitConfig,
            {"task": SUPER_RESOLUTION, "style": "a.jpg"},
            "style does not go with settings for super-resolution",
        ),
        (StyleConfig, {"steps": 3}, "The settings must be those of style transfer. Received: super-resolution."),
    ],
)
def test_settings_of_another_task_are_refused(config_class, settings, message):
    with pytest.raises(ConfigError, match=message):
        config_class.from_json(settings)


def test_a_fit_is_named_by_what_it_makes(tmp_path):
    assert SuperResolutionConfig(scale=8).run_name() == "x8"
    assert StyleConfig(style="paintings/the scream.jpg").run_name() == "the scream"


def test_a_folder_of_paintings_is_a_fit_for_each(tmp_path):
    for name in ("a.jpg", "b.png"):
        (tmp_path / name).touch()
    config = StyleConfig(style=str(tmp_path), steps=7)
    fits = config.split()
    assert {folder: (one.style, one.steps) for folder, one in fits.items()} == {
        "a": (str(tmp_path / "a.jpg"), 7),
        "b": (str(tmp_path / "b.png"), 7),
    }
    assert fits["a"].split() == {"": fits["a"]} and SuperResolutionConfig().split() == {"": SuperResolutionConfig()}


def test_each_setting_has_a_text_and_a_default_of_its_type():
    settings = {one.name: one for one in list_settings()}
    assert set(settings) | {"task"} == {*SuperResolutionConfig().to_json(), *StyleConfig().to_json()}
    assert all(one.text.endswith(".") for one in settings.values())
    assert settings["crop"].defaults == {SUPER_RESOLUTION: 96, STYLE_TRANSFER: 256} and settings["crop"].kind is int
    assert list(settings["scale"].defaults) == [SUPER_RESOLUTION]


def test_docstrings_tell_each_field_where_it_is_declared():
    assert f"scale: {list_settings()[0].text}" in inspect.getdoc(SuperResolutionConfig)
    assert "    steps: Number of gradient steps" in inspect.getdoc(FitConfig)
    assert "steps:" not in inspect.getdoc(StyleConfig)


def test_fit_names_every_setting_in_its_signature_and_help():
    parameters = inspect.signature(keras_psr.fit).parameters
    assert list(parameters)[:3] == ["out", "resume", "overwrite"] and "settings" not in parameters
    assert parameters["scale"].default == 4 and parameters["learning_rate"].annotation is float
    assert parameters["crop"].default is None and parameters["crop"].annotation == int | None, "tasks differ"
    for one in list_settings():
        assert one.name in parameters and f"    {one.name}: {one.text[:20]}" in inspect.getdoc(keras_psr.fit)
