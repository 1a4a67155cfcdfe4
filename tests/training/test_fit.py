import gc
import json
import shutil
import signal
import subprocess
import sys
import weakref
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from skimage import data

import keras_psr.data.samples
import keras_psr.training.callbacks
from keras_psr.data.samples import SampleStream
from keras_psr.data.sources import open_sources
from keras_psr.errors import ConfigError, DataError, ModelError, TrainingError
from keras_psr.inference.upscaler import load, load_network
from keras_psr.networks.super_resolution import build_network
from keras_psr.tasks.config import FitConfig, Stage, SuperResolutionConfig, read_config_file
from keras_psr.tasks.super_resolution.task import build_stream
from keras_psr.training.callbacks import Progress
from keras_psr.training.fit import build_trainer, fit
from keras_psr.training.run_folder import RunFolder, SavedRun
from keras_psr.training.signals import HANGUP, STOP_SIGNALS, stop_signals
from keras_psr.training.trainer import Trainer

TINY = {
    "num_filters": 4,
    "num_residual_blocks": 1,
    "crop": 48,
    "batch_size": 2,
    "steps": 6,
    "save_every": 2,
    "warmup_steps": 0,
    "feature_weight": 0.0,
    "precision": "float32",
}
"""Settings of a fit of a second; data and val are added by the fixtures."""

WHOLE = {**TINY, "warmup_steps": 2, "feature_weight": 1.5e-4, "ema_momentum": 0.5}
"""Settings of a fit with everything: two stages, VGG16 and averaged weights. Tracing it takes twice as long."""


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Settings that name two folders: a picture to fit to, and one to validate on."""
    folder = tmp_path_factory.mktemp("photographs")
    for name, pixels in {"data": data.astronaut()[:128, 150:310], "val": data.coffee()[100:168, 200:268]}.items():
        (folder / name).mkdir()
        Image.fromarray(pixels).save(folder / name / "photograph.png")
    return {name: [str(folder / name)] for name in ("data", "val")}


@pytest.fixture(scope="module")
def finished(photographs, tmp_path_factory):
    """A run folder after a whole fit, and the numbers that were logged."""
    out, logged = tmp_path_factory.mktemp("finished") / "run", []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras_psr.training.callbacks, "LOG_EVERY", 5)
        settings = {**WHOLE, **photographs}
        fit(out, **settings, on_log=lambda step, numbers: logged.append((step, numbers)), command=["made", "up"])
    return RunFolder(out), logged


@pytest.fixture(scope="module")
def plain(photographs, tmp_path_factory):
    """A run folder after a fit with `TINY`, and the weights after each step."""
    out, history = tmp_path_factory.mktemp("plain") / "run", []
    callback = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: history.append(callback.model.network.get_weights())
    )
    fit(out, **TINY, **photographs, callbacks=[callback])
    return RunFolder(out), history


@pytest.mark.parametrize(
    "changed", [{"scale": 2}, {"crop": 72}, {"seed": 1}, {"blur_sigma": 1.0}, {"degradation": "photo"}], ids=str
)
def test_each_setting_of_the_sample_stream_reaches_it(photographs, changed):
    first = {"scale": 4, "crop": 48, **photographs}
    (low_res, high_res), (other_low_res, other_high_res) = (
        build_stream(SuperResolutionConfig(**settings)).batch(0, 1) for settings in (first, first | changed)
    )
    assert not np.array_equal(low_res, other_low_res)
    if "degradation" in changed:
        assert np.array_equal(high_res, other_high_res)


def weights_of(path):
    return load_network(path).get_weights()


def state_of(run):
    """The arrays of the newest checkpoint, without the callbacks' record."""
    _, state = run.load_checkpoint()
    del state["progress"]
    return state


def assert_close(first, second, **tolerance):
    for one, other in zip(first, second, strict=True):
        np.testing.assert_allclose(one, other, **tolerance)


class At(keras.callbacks.Callback):
    """Does something to the model before the step of a number, counted from 0."""

    def __init__(self, step, action):
        super().__init__()
        self.step, self.action = step, action

    def on_train_batch_begin(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == self.step:
            self.action(self.model)


class Interruption(Exception):
    """Stands for whatever ends a process."""


def interrupt(model):
    raise Interruption


# === Settings ===


def test_settings_round_trip_through_json():
    config = SuperResolutionConfig(
        scale=8, data=("photos", "tfds:div2k"), learning_rate=2e-4, phase_weight=0.0, init="x4"
    )
    assert FitConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    assert FitConfig.from_json({}) == SuperResolutionConfig()


def test_whole_numbers_pass_for_floats_and_lists_for_tuples():
    config = FitConfig.from_json({"pixel_weight": 2, "data": ["a", "b"]})
    assert config.pixel_weight == 2.0 and isinstance(config.pixel_weight, float)
    assert config.data == ("a", "b")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": 3}, "scale must be one of 2, 4, 8. Received: 3."),
        ({"pixel_norm": "l3"}, "pixel_norm must be one of l1, l2. Received: l3."),
        ({"optimizer": "sgd"}, "optimizer must be one of muon, adam. Received: sgd."),
        ({"vgg_pooling": "median"}, "vgg_pooling must be one of average, max."),
        ({"precision": "float64"}, "precision must be one of auto, float32, bfloat16, float16."),
        ({"steps": 0}, "steps must be at least 1. Received: 0."),
        ({"batch_size": 0}, "batch_size must be at least 1."),
        ({"save_every": 0}, "save_every must be at least 1."),
        ({"num_filters": 0}, "num_filters must be at least 1."),
        ({"num_residual_blocks": -1}, "num_residual_blocks must be at least 1."),
        ({"pixel_weight": -0.5}, "pixel_weight must be 0 or more. Received: -0.5."),
        ({"feature_weight": float("inf")}, "feature_weight must be 0 or more. Received: inf."),
        ({"phase_weight": float("nan")}, "phase_weight must be 0 or more. Received: nan."),
        ({"total_variation_weight": -1.0}, "total_variation_weight must be 0 or more."),
        ({"blur_sigma": -1.0}, "blur_sigma must be 0 or more."),
        ({"warmup_steps": -1}, "warmup_steps must be 0 or more."),
        ({"warmup_batch_size": -1}, "warmup_batch_size must be 0 or more."),
        ({"warmup_crop": 30}, "warmup_crop must be 0, or a multiple of the scale, 4, and at least 24. Received: 30."),
        ({"warmup_learning_rate": 2.0}, r"warmup_learning_rate must be in \[0, 1\]. Received: 2.0."),
        (
            {"warmup_steps": 1, "pixel_weight": 0.0},
            "pixel_weight must be above 0 with warmup_steps, which use no other loss. Received: 0.0.",
        ),
        ({"seed": -1}, "seed must be 0 or more."),
        ({"ema_momentum": 1.0}, r"ema_momentum must be in \[0, 1\). Received: 1.0."),
        ({"learning_rate": 0.0}, r"learning_rate must be in \(0, 1\]. Received: 0.0."),
        ({"learning_rate": 1.5}, r"learning_rate must be in \(0, 1\]."),
        ({"learning_rate": float("nan")}, r"learning_rate must be in \(0, 1\]. Received: nan."),
        ({"degradation": "rain"}, "degradation must be one of bicubic, photo. Received: rain."),
        ({"degradation": "photo", "blur_sigma": 1.0}, "blur_sigma must be 0 with the degradation photo"),
        ({"keep": 0}, "keep must be at least 1."),
        ({"strategy": "tpu"}, "strategy must be one of auto, none, mirrored, multiworker."),
        ({"style_weight": -1.0}, "style_weight must be 0 or more."),
        ({"style": "a.jpg", "scale": 2}, "scale is for super-resolution. Leave it out with --style."),
        ({"content_weight": 1.0}, "content_weight goes only with --style."),
        ({"crop": 98}, "crop must be a multiple of the scale, 4, and at least 24. Received: 98."),
        ({"crop": 20}, "crop must be a multiple of the scale, 4, and at least 24."),
        ({"crop": 12, "scale": 2, "adversarial_weight": 1}, "crop must be at least 16 with adversarial_weight."),
        ({"adversarial_weight": -1.0}, "adversarial_weight must be 0 or more."),
        ({"crop": 40, "scale": 8}, "crop must be a multiple of the scale, 8, and at least 48."),
        ({"pixel_weight": 0, "feature_weight": 0}, "pixel_weight must be above 0 if feature_weight is 0"),
        ({"steps": "many"}, "steps must be of type int. Received: 'many'."),
        ({"steps": 10.5}, "steps must be of type int. Received: 10.5."),
        ({"steps": True}, "steps must be of type int. Received: True."),
        ({"pixel_weight": True}, "pixel_weight must be of type float. Received: True."),
        ({"data": "photos"}, "data must be of type tuple. Received: 'photos'."),
        ({"data": [1]}, r"data must be of type tuple. Received: \[1\]."),
        ({"num_filter": 8}, "Unknown setting 'num_filter'. Did you mean 'num_filters'?"),
        ({"lerning_rate": 8}, "Unknown setting 'lerning_rate'. Did you mean 'learning_rate'?"),
        ({"zzz": 8}, "Unknown setting 'zzz'. Known: data, val, "),
    ],
)
def test_bad_settings_are_refused_by_name(settings, message):
    with pytest.raises(ConfigError, match=message):
        FitConfig.from_json(settings)


def test_a_config_file_is_an_object_of_settings_or_a_runs_record(tmp_path):
    file = tmp_path / "settings.json"
    file.write_text('{"steps": 7}')
    assert read_config_file(file) == {"steps": 7}
    file.write_text('{"config": {"steps": 8}, "versions": {}}')
    assert read_config_file(file) == {"steps": 8}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "must contain one JSON object. Received in .*: list"),
        ("{", "must be a JSON file"),
        (None, "No such file"),
    ],
)
def test_a_file_that_is_no_config_is_refused(content, message, tmp_path):
    if content is not None:
        (tmp_path / "odd.json").write_text(content)
    with pytest.raises(ConfigError, match=f"--config .*{message}"):
        read_config_file(tmp_path / "odd.json")


# === The run folder ===


def test_a_run_folder_holds_what_it_promises(finished, photographs):
    run, _ = finished
    assert sorted(path.name for path in run.path.iterdir()) == [
        ".lock",
        "checkpoints",
        "config.json",
        "log.jsonl",
        "model.keras",
        "samples",
        "tensorboard",
    ]
    record = json.loads(run.config_file.read_text())
    settings = FitConfig.from_json({**WHOLE, **photographs}).to_json()
    assert record["config"] == SavedRun.read(run.path).settings == settings
    assert record["command"] == ["made", "up"]
    assert record["versions"]["keras"] == keras.__version__
    assert [path.name for path in sorted(run.checkpoints.iterdir())] == ["step-00000004.npz", "step-00000006.npz"]
    samples = sorted(run.samples.iterdir())
    assert [path.name for path in samples] == ["step-00000002.png", "step-00000004.png", "step-00000006.png"]
    with Image.open(samples[0]) as sheet:
        assert sheet.width >= 3 * 68 and sheet.height >= 68
    (events,) = run.tensorboard.iterdir()
    assert events.name.startswith("events.out.tfevents") and events.stat().st_size > 10_000


def test_validations_are_logged(finished):
    run, logged = finished
    lines = [json.loads(line) for line in run.log_file.read_text().splitlines()]
    assert [line.pop("step") for line in lines] == [2, 2, 4, 5, 6, 6] == [step for step, _ in logged]
    assert lines == [numbers for _, numbers in logged]
    for losses in (lines.pop(4), lines.pop(3), lines.pop(0)):
        assert set(losses) >= {"loss", "crops_per_second"}, "losses are logged at the end of each stage, too"
    for line in lines:
        assert set(line) >= {"val_psnr_y", "val_ssim_y", "val_feature_distance_ratio", "val_lattice_ratio"}
        assert 15 < line["val_psnr_y"] < 45 and 0.3 < line["val_ssim_y"] < 1


def test_losses_are_logged_and_are_means_since_the_last_line(photographs, tmp_path, monkeypatch):
    monkeypatch.setattr(keras_psr.training.callbacks, "LOG_EVERY", 2)
    losses, lines = [], []

    class Losses(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            losses.append(logs["loss"])

    def on_log(step, numbers):
        if "loss" in numbers:
            lines.append((step, numbers))

    settings = {**WHOLE, **photographs, "steps": 6, "save_every": 6, "warmup_steps": 3, "phase_weight": 0.5}
    fit(tmp_path / "run", **settings, on_log=on_log, callbacks=[Losses()])
    assert [step for step, _ in lines] == [2, 3, 4, 6], "each second step, and the end of each stage"
    assert all(numbers["loss"] == numbers["pixel_loss"] for _, numbers in lines[:2]), "the warm-up has no other loss"
    assert not any("feature_loss" in numbers for _, numbers in lines[:2])
    for (step, numbers), since in zip(lines[2:], (3, 4), strict=True):
        assert numbers["loss"] == pytest.approx(np.mean(losses[since:step]))
        assert numbers.get("crops_per_second", 1) > 0
        weighted = numbers["pixel_loss"] + 1.5e-4 * numbers["feature_loss"] + 0.5 * numbers["phase_loss"]
        assert numbers["loss"] == pytest.approx(weighted, rel=1e-5)


@pytest.mark.sixteen_bits
def test_the_saved_network_is_float32_also_after_a_fit_in_bfloat16(photographs, tmp_path):
    upscaler = fit(tmp_path / "run", **{**TINY, **photographs, "precision": "bfloat16", "steps": 2})
    np.testing.assert_array_equal(upscaler.network.get_weights()[0], weights_of(tmp_path / "run" / "model.keras")[0])
    assert {layer.compute_dtype for layer in upscaler.network.layers} == {"float32"}
    assert {variable.dtype for variable in upscaler.network.variables} == {"float32"}
    assert upscaler.scale == 4


def test_the_fit_moved_the_network_from_where_it_starts(finished):
    run, _ = finished
    config = FitConfig.from_json(SavedRun.read(run.path).settings)
    start = build_trainer(config).network.get_weights()
    moved = [np.abs(a - b).max() for a, b in zip(start, weights_of(run.model_file), strict=True)]
    assert min(moved) > 0


def test_a_run_is_not_replaced_without_being_asked(finished, photographs, tmp_path):
    run, _ = finished
    before = run.model_file.read_bytes()
    with pytest.raises(TrainingError, match=r"--out .* already contains a run\. Use --resume, --overwrite or another"):
        fit(run.path, **TINY, **photographs)
    assert run.model_file.read_bytes() == before
    (tmp_path / "letters.txt").write_text("mine")
    with pytest.raises(TrainingError, match=r"--out .* is not empty and contains no run\. Use another folder\."):
        fit(tmp_path, **TINY, **photographs, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["letters.txt"]


def test_overwriting_leaves_nothing_of_the_run_before(plain, photographs, tmp_path):
    run = RunFolder(shutil.copytree(plain[0].path, tmp_path / "run"))
    fit(run.path, **{**TINY, **photographs, "steps": 2, "seed": 1}, overwrite=True)
    assert SavedRun.read(run.path).settings["seed"] == 1
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-00000002.npz"]
    assert [path.name for path in run.samples.iterdir()] == ["step-00000002.png"]
    assert [json.loads(line)["step"] for line in run.log_file.read_text().splitlines()] == [2, 2]
    assert 1 == len(list(run.tensorboard.iterdir()))


def test_a_validation_picture_that_cannot_be_scored_is_left_out_and_named(photographs, tmp_path, caplog):
    tiny, logged = tmp_path / "tiny.png", []
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tiny)
    settings = {**TINY, **photographs, "steps": 2}
    with pytest.raises(DataError, match="None of 1 validation pictures can be scored.*tiny.png: "):
        fit(tmp_path / "run", **{**settings, "val": [str(tiny)]})
    val = [*photographs["val"], str(tiny)]
    fit(tmp_path / "run", **{**settings, "val": val}, on_log=lambda step, numbers: logged.append(numbers))
    assert "1 picture left out" in caplog.text and "tiny.png" in caplog.text
    assert "val_psnr_y" in logged[-1]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"feature_weight": 1.0, "feature_layer": "relu9_9"}, ConfigError, "VGG16 layers must be among"),
        ({"architecture": "johnson"}, ConfigError, "architecture must be one of"),
        ({"init": "nowhere"}, ModelError, "No model 'nowhere'"),
        ({"feature_weight": 1.0, "vgg_weights": "gone.npz"}, ModelError, "VGG16 weights must be"),
        ({"data": "gone"}, DataError, "no such file or folder: gone"),
        ({"val": []}, DataError, "None of 0 validation pictures"),
    ],
)
def test_a_fit_that_cannot_start_leaves_the_run_before_alone(settings, error, message, finished, photographs):
    run, _ = finished
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    with pytest.raises(error, match=message):
        fit(run.path, **{**TINY, **photographs, **settings}, overwrite=True)
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before


# === Resuming ===


def test_a_resumed_run_ends_where_a_straight_one_does(finished, tmp_path, monkeypatch):
    """Of a run that was killed while it wrote its last checkpoint."""
    monkeypatch.setattr(keras_psr.training.callbacks, "LOG_EVERY", 5)
    straight, resumed = finished[0], RunFolder(shutil.copytree(finished[0].path, tmp_path / "resumed"))
    (resumed.checkpoints / "step-00000006.npz").unlink()
    (resumed.checkpoints / ".part.step-00000006.npz").write_bytes(b"half")
    with resumed.log_file.open("a") as file:
        file.write('{"step": 6, "lo')
    steps = []
    fit(resumed.path, resume=True, callbacks=[At(4, lambda model: steps.append(4)), At(3, interrupt)])
    assert steps == [4], "it did not go on after the checkpoint of step 4"
    assert_close(weights_of(straight.model_file), weights_of(resumed.model_file), atol=1e-6)
    states = state_of(straight), state_of(resumed)
    assert states[0].keys() == states[1].keys()
    assert_close(states[0].values(), states[1].values(), rtol=1e-4, atol=1e-6)
    early = np.load(straight.checkpoints / "step-00000004.npz")
    assert max(np.abs(early[name] - states[0][name]).max() for name in early if "network" in name) > 1e-4
    # The log has each line once, and the folder holds nothing else.
    for line, other in zip(straight.read_log(), resumed.read_log(), strict=True):
        assert {**other, "crops_per_second": 0} == pytest.approx({**line, "crops_per_second": 0}, rel=1e-4)
    names = [
        sorted(str(path.relative_to(run.path)) for path in run.path.rglob("*") if "tfevents" not in path.name)
        for run in (straight, resumed)
    ]
    assert names[0] == names[1]
    assert len(list(resumed.tensorboard.iterdir())) == 1


@pytest.mark.slow
def test_an_adversarial_run_ends_where_a_straight_one_does_also_when_resumed_from_a_warm_up(photographs, tmp_path):
    settings = {**WHOLE, **photographs, "adversarial_weight": 1.0, "save_every": 1, "keep": 10}
    straight = RunFolder(tmp_path / "straight")
    fit(straight.path, **settings)
    for step in (1, 4):  # in the warm-up, and between two adversarial steps
        resumed = RunFolder(tmp_path / str(step))
        shutil.copytree(straight.path, resumed.path)
        for path in resumed.checkpoints.iterdir():
            if int(path.stem[-1]) > step:
                path.unlink()
        begun = At(step, lambda model: None)
        fit(resumed.path, resume=True, callbacks=[begun])
        assert begun.model.steps_done == 6
        states = state_of(straight), state_of(resumed)
        assert states[0].keys() == states[1].keys()
        assert_close(states[0].values(), states[1].values(), rtol=1e-4, atol=1e-5)
    early, middle, late = (np.load(straight.checkpoints / f"step-0000000{step}.npz") for step in (1, 2, 6))
    names = [name for name in early if name.startswith("discriminators/")]
    assert len(names) == 23
    for name in names:
        np.testing.assert_array_equal(early[name], middle[name], err_msg="the warm-up has no adversarial loss")
        assert not np.array_equal(middle[name], late[name])
    assert "adversarial_loss" not in straight.read_log()[0]
    assert {"adversarial_loss", "discriminator_loss", "discriminator_accuracy"} <= straight.read_log()[-2].keys()


def test_a_run_without_an_adversarial_loss_has_no_discriminators(plain):
    assert {name.split("/")[0] for name in state_of(plain[0])} == {"network", "optimizer"}


def test_a_signal_ends_the_step_and_leaves_a_checkpoint_to_resume_from(photographs, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        press = At(3, lambda model: signal.raise_signal(signal.SIGTERM))
        fit(tmp_path / "run", **{**TINY, **photographs, "save_every": 100}, callbacks=[press])
    assert [path.name for path in RunFolder(tmp_path / "run").checkpoints.iterdir()] == ["step-00000004.npz"]
    fit(tmp_path / "run", resume=True, callbacks=[At(3, interrupt)])
    assert [path.name for path in RunFolder(tmp_path / "run").samples.iterdir()] == ["step-00000006.png"]


@pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: number.name)
def test_each_signal_asks_a_fit_to_stop(number):
    before = signal.signal(number, signal.SIG_DFL)  # under nohup SIGHUP would be ignored
    try:
        with stop_signals() as stop:
            signal.raise_signal(number)
            assert stop.is_set()
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)


@pytest.mark.skipif(not HANGUP, reason="Windows has no SIGHUP")
def test_a_hangup_that_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop.is_set()
            signal.raise_signal(signal.SIGTERM)
            assert stop.is_set()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_resuming_without_a_checkpoint_starts_anew_and_says_so(plain, tmp_path, caplog):
    out = shutil.copytree(plain[0].path, tmp_path / "run")
    for path in (out / "checkpoints").iterdir():
        path.unlink()
    fit(out, resume=True)
    assert f"{out} contains no checkpoint yet, so the run starts from the beginning." in caplog.text
    assert [line["step"] for line in RunFolder(out).read_log()] == [2, 4, 6, 6]


def test_a_checkpoint_of_an_older_version_has_a_record_that_is_read():
    progress = Progress(summed_steps=3, sums={"loss": 1.5}, best_score=20.0)
    older = json.loads(str(progress.to_array())) | {"samples": 48}
    older["best_psnr"] = older.pop("best_score")
    assert Progress.from_array(np.array(json.dumps(older))) == progress


def test_resuming_a_finished_run_gives_its_network_also_one_that_names_no_task(finished):
    run, _ = finished
    before = run.model_file.read_bytes()
    image = data.coffee()[:20, :20]
    record = json.loads(run.config_file.read_text())
    assert record["config"].pop("task") == "super-resolution"
    run.config_file.write_text(json.dumps(record))
    fitted = fit(run.path, resume=True)
    assert fitted.task == "super-resolution" == SavedRun.read(run.path).settings["task"]
    np.testing.assert_array_equal(fitted(image), load(run.path)(image))
    assert run.model_file.read_bytes() == before


def test_what_cannot_be_resumed_is_refused(finished, tmp_path):
    run, _ = finished
    with pytest.raises(ConfigError, match="leave out what differs: steps was 6, now 9, seed was 0, now 1"):
        fit(run.path, resume=True, steps=9, seed=1)
    with pytest.raises(ModelError, match=r"contains no run \(config.json is missing\)"):
        fit(tmp_path, resume=True)


def test_missing_and_damaged_checkpoints_are_refused(finished, tmp_path):
    run = RunFolder(tmp_path)
    run.checkpoints.mkdir()
    assert run.load_checkpoint() is None
    whole = sorted(finished[0].checkpoints.iterdir())[-1].read_bytes()
    for damaged in (b"", b"text", whole[:1000], whole[:-100], flip_a_bit(whole)):
        (run.checkpoints / "step-00000001.npz").write_bytes(damaged)
        with pytest.raises(
            TrainingError, match=r"each of 1 checkpoints in .* is damaged\. Start again with --overwrite\."
        ):
            run.load_checkpoint()


def flip_a_bit(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def test_a_damaged_checkpoint_is_named_and_the_one_before_used(plain, tmp_path, caplog):
    shutil.copytree(plain[0].path, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    newest = run.checkpoints / "step-00000006.npz"
    newest.write_bytes(flip_a_bit(newest.read_bytes()))
    assert run.load_checkpoint()[0] == 4
    assert "step-00000006.npz is damaged" in caplog.text
    fit(run.path, resume=True)
    assert run.load_checkpoint()[0] == 6
    np.testing.assert_array_equal(weights_of(run.model_file)[0], weights_of(plain[0].model_file)[0])


def test_a_checkpoint_of_right_form_and_wrong_content_is_damaged(finished, tmp_path):
    run = RunFolder(tmp_path)
    step, state = finished[0].load_checkpoint()
    run.save_checkpoint(step, state, keep=1)
    with np.load(run.checkpoints / "step-00000006.npz") as arrays:
        changed = {**arrays, "network/000": arrays["network/000"] + 1e-6}
    np.savez(run.checkpoints / "step-00000006.npz", **changed)
    with pytest.raises(TrainingError, match="is damaged"):
        run.load_checkpoint()


# === Faults ===


TWICE = """
import signal
from keras_psr.training.signals import stop_signals
with stop_signals() as stop:
    signal.raise_signal(signal.SIGTERM)
    print(stop.is_set(), flush=True)
    signal.raise_signal(signal.SIGTERM)
    print("the fit would go on")
"""


def test_a_second_signal_ends_the_process_at_once():
    result = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (-signal.SIGTERM, "True\n")


def test_a_full_disk_ends_nothing_and_spares_the_last_checkpoint(plain, photographs, tmp_path, caplog):
    resource = pytest.importorskip("resource")

    def limit(size):  # no file of this process may grow beyond it
        return lambda model: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    run = RunFolder(tmp_path / "run")
    try:
        fit(run.path, **TINY, **photographs, callbacks=[At(3, limit(8000)), At(5, limit(resource.RLIM_INFINITY))])
    finally:
        limit(resource.RLIM_INFINITY)(None)
    for what in ("checkpoint of step 4", f"network {run.model_file}", f"sheet {run.samples / 'step-00000004.png'}"):
        assert f"Cannot write the {what}" in caplog.text
    assert "The fit goes on; free some space." in caplog.text
    assert [path.name for path in sorted(run.checkpoints.iterdir())] == ["step-00000002.npz", "step-00000006.npz"]
    assert_close(weights_of(run.model_file), weights_of(plain[0].model_file), atol=1e-6)


def test_a_second_fit_into_the_folder_is_refused_while_the_first_one_runs(photographs, tmp_path):
    refused = []

    def fit_again(model):
        for options in ({"overwrite": True}, {"resume": True}):
            with pytest.raises(TrainingError, match="Another fit is writing into --out .*run. Use another folder."):
                fit(tmp_path / "run", **TINY, **photographs, **options)
            refused.append(options)

    fit(tmp_path / "run", **TINY, **photographs, callbacks=[At(3, fit_again)])
    assert len(refused) == 2
    fit(tmp_path / "run", resume=True)


def two_pictures(photographs, tmp_path):
    """A folder of two pictures, each read anew for each crop."""
    (source,) = Path(photographs["data"][0]).iterdir()
    for name in ("a", "b"):
        shutil.copy(source, tmp_path / f"{name}.png")
    return {**TINY, **photographs, "data": [str(tmp_path / "*.png")], "steps": 30, "save_every": 10}


def test_a_picture_that_vanishes_is_left_out_and_named(photographs, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(keras_psr.data.samples, "CACHE_BYTES", 0)
    settings = two_pictures(photographs, tmp_path)
    fit(tmp_path / "run", **settings, callbacks=[At(3, lambda model: (tmp_path / "a.png").unlink())])
    assert RunFolder(tmp_path / "run").load_checkpoint()[0] == 30
    assert "a.png" in caplog.text


def test_a_fit_whose_pictures_all_vanish_ends_with_a_message(photographs, tmp_path, monkeypatch):
    monkeypatch.setattr(keras_psr.data.samples, "CACHE_BYTES", 0)
    settings = two_pictures(photographs, tmp_path)

    def remove_all(model):
        for path in tmp_path.glob("*.png"):
            path.write_bytes(b"")

    with pytest.raises(
        TrainingError, match=r"after step \d+; the last checkpoint is kept: .*2 of 2 pictures cannot be"
    ):
        fit(tmp_path / "run", **settings, callbacks=[At(3, remove_all)])


def test_a_fit_that_tensorflow_ends_lets_go_of_its_dataset(photographs, tmp_path, monkeypatch):
    """A dataset that lives until the end of the process can keep it from ending."""
    held = []

    def fail(self, dataset, **options):
        batches = iter(dataset)
        next(batches)
        held.append(weakref.ref(batches))
        raise tf.errors.InternalError(None, None, "made up")

    monkeypatch.setattr(Trainer, "fit", fail)
    with pytest.raises(TrainingError, match="TensorFlow failed after step 0; .*: made up") as caught:
        fit(tmp_path / "run", **TINY, **photographs)
    gc.collect()
    assert caught.value.__cause__.__traceback__ and [reference() for reference in held] == [None]


def test_an_exploding_loss_ends_the_fit_before_it_is_saved(photographs, tmp_path, monkeypatch):
    monkeypatch.setattr(keras_psr.training.callbacks, "LOG_EVERY", 1)

    def explode(model):
        model.network.get_layer("exit").bias.assign([1e6, 1e6, 1e6])

    message = r"diverged at step 4: the loss is .*e\+0\d, after .* The pictures of this step: 0 \(.*photograph.png\)\."
    with pytest.raises(TrainingError, match=message):
        fit(tmp_path / "run", **TINY, **photographs, callbacks=[At(3, explode)])
    assert [path.name for path in RunFolder(tmp_path / "run").checkpoints.iterdir()] == ["step-00000002.npz"]


def test_what_does_not_change_the_weights_may_be_changed_when_resuming(finished, tmp_path):
    out = shutil.copytree(finished[0].path, tmp_path / "run")
    fit(out, resume=True, keep=1, save_every=7, strategy="none")
    assert {"keep": 1, "save_every": 7, "strategy": "none"}.items() <= SavedRun.read(out).settings.items()


# === Starting from another network ===


def test_init_copies_the_weights(plain):
    run, _ = plain
    trainer = build_trainer(FitConfig.from_json({**TINY, "init": str(run.path)}))
    assert_close(trainer.network.get_weights(), weights_of(run.model_file), atol=0)


@pytest.mark.parametrize(("scale", "anew"), [(2, []), (8, ["upsample3"])])
def test_init_of_another_scale_copies_all_that_fits(scale, anew, plain):
    run, _ = plain
    network = build_trainer(FitConfig.from_json({**TINY, "init": str(run.path), "scale": scale})).network
    source = load_network(run.model_file)
    for layer in network.layers:
        if layer.weights and layer.name not in anew:
            assert_close(layer.get_weights(), source.get_layer(layer.name).get_weights(), atol=0)
    assert {"entry", "block1_conv1", "upsample1", "exit"} <= {layer.name for layer in network.layers}


@pytest.mark.parametrize("architecture", ["residual", "fast", "johnson2016"])
def test_blocks_that_init_lacks_change_nothing_at_first(architecture, tmp_path):
    source = build_network(architecture, num_filters=4, num_residual_blocks=1)
    rng = np.random.default_rng(0)
    source.set_weights([np.abs(rng.normal(0, 0.1, weights.shape)) for weights in source.get_weights()])
    source.save(tmp_path / "source.keras")
    deeper = {**TINY, "architecture": architecture, "num_residual_blocks": 3, "init": str(tmp_path / "source.keras")}
    network = build_trainer(FitConfig.from_json(deeper)).network
    image = rng.uniform(0, 255, (1, 24, 24, 3)).astype("float32")
    assert np.ptp(source(image)) > 1
    assert_close(network(image), source(image), rtol=1e-5)
    assert np.any(network.get_layer("block3_conv1").get_weights()[0])


@pytest.mark.parametrize(
    "change",
    [
        {"num_filters": 5},
        {"num_filters": 5, "num_residual_blocks": 2},
        {"architecture": "fast"},
        {"architecture": "johnson2016"},
    ],
)
def test_init_of_another_shape_is_refused(change, plain):
    run, _ = plain
    with pytest.raises(ConfigError, match=r"init must be a network of the same architecture as \w+_x4\. Received"):
        build_trainer(FitConfig.from_json({**TINY, "init": str(run.path), **change}))


def test_init_with_more_blocks_is_refused(tmp_path):
    build_network("residual", num_filters=4, num_residual_blocks=2).save(tmp_path / "source.keras")
    with pytest.raises(ConfigError, match="init must be a network of the same architecture"):
        build_trainer(FitConfig.from_json({**TINY, "init": str(tmp_path / "source.keras")}))


# === Stages ===


def test_a_fit_has_one_stage_or_a_warm_up_before_it():
    plain = SuperResolutionConfig(steps=10)
    assert plain.stages() == [Stage(plain, first_step=0, last_step=10, first_sample=0)]
    config = SuperResolutionConfig(steps=10, warmup_steps=4, warmup_batch_size=8, warmup_crop=192, batch_size=2)
    warmup, rest = config.stages()
    assert (warmup.first_step, warmup.last_step, rest.first_step, rest.last_step) == (0, 4, 4, 10)
    assert (warmup.config.batch_size, warmup.config.crop) == (8, 192) and rest.config == config
    weights = {name: getattr(warmup.config, name) for name in ("pixel_weight", "feature_weight", "phase_weight")}
    assert weights == {"pixel_weight": 1.0, "feature_weight": 0.0, "phase_weight": 0.0}
    assert [warmup.position(0), warmup.position(4), rest.position(4), rest.position(6)] == [0, 32, 32, 36]
    assert [config.stage_at(step).config.batch_size for step in (0, 3, 4, 9, 10)] == [8, 8, 2, 2, 2]
    same = SuperResolutionConfig(steps=10, warmup_steps=4).stages()[0].config
    assert (same.batch_size, same.crop, same.learning_rate) == (config.batch_size * 8, config.crop, 1e-3)


def test_a_warm_up_as_long_as_the_fit_is_the_whole_of_it():
    (stage,) = SuperResolutionConfig(steps=10, warmup_steps=30).stages()
    assert (stage.last_step, stage.config.feature_weight) == (10, 0.0)


def test_each_stage_sees_its_own_crops(photographs, tmp_path, monkeypatch):
    shapes, train_step = [], Trainer.train_step

    def trace(trainer, data):
        shapes.append([tuple(images.shape) for images in data])
        return train_step(trainer, data)

    monkeypatch.setattr(Trainer, "train_step", trace)
    stages = {"warmup_steps": 2, "warmup_batch_size": 3, "warmup_crop": 64, "steps": 4, "save_every": 4}
    fit(tmp_path / "run", **{**TINY, **photographs, **stages})
    assert [shape for index, shape in enumerate(shapes) if shape not in shapes[:index]] == [
        [(3, 16, 16, 3), (3, 64, 64, 3)],
        [(2, 12, 12, 3), (2, 48, 48, 3)],
    ]


# === The gradient step ===


def fitted_trainer(photographs, **settings):
    """A trainer after all its steps, with the batches it was given."""
    config = FitConfig.from_json({**TINY, **photographs, **settings})
    trainer = build_trainer(config)
    stream = SampleStream(open_sources(config.data), scale=config.scale, crop=config.crop, seed=config.seed)
    return trainer, stream.dataset(batch_size=config.batch_size, first_sample=0, num_steps=config.steps)


def test_the_step_moves_the_network_and_not_vgg(photographs):
    trainer, batches = fitted_trainer(photographs, feature_weight=1.5e-4, steps=3)
    vgg = trainer.perceptual_loss.encoder
    before, vgg_before = trainer.network.get_weights(), vgg.get_weights()
    assert {v.path for v in trainer.trainable_variables} == {v.path for v in trainer.network.trainable_variables}
    trainer.fit(batches, verbose=0, shuffle=False)
    assert all(np.abs(a - b).max() > 0 for a, b in zip(before, trainer.network.get_weights(), strict=True))
    assert_close(vgg_before, vgg.get_weights(), atol=0)


@pytest.mark.parametrize(
    ("architecture", "precision"),
    [
        ("residual", "float32"),
        ("johnson2016", "float32"),
        pytest.param("residual", "float16", marks=pytest.mark.sixteen_bits),
        pytest.param("johnson2016", "bfloat16", marks=pytest.mark.sixteen_bits),
    ],
)
def test_the_loss_falls(architecture, precision, photographs):
    settings = {"architecture": architecture, "precision": precision, "num_filters": 8, "crop": 24}
    trainer, batches = fitted_trainer(photographs, **settings, feature_weight=1.5e-4, steps=20, learning_rate=5e-3)
    losses = []
    callback = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: trainer.reset_metrics(),
        on_train_batch_end=lambda batch, logs: losses.append(logs["loss"]),
    )
    trainer.fit(batches.take(1).repeat(20), verbose=0, shuffle=False, callbacks=[callback])
    assert losses[-1] < 0.9 * losses[0]


def of_the_exit(model):
    return model.network.get_layer("exit").bias


def of_the_average(model):
    (average,) = (variable for variable in model.optimizer.variables if variable.path.endswith("exit_bias_average"))
    return average


@pytest.mark.parametrize(
    ("bias", "message"),
    [
        (of_the_exit, r"diverged at step 4: loss, .* is not finite\."),
        # Averages are saved, and no loss depends on them. (Nor must it on a NaN before a ReLU, which some processors
        # turn into 0.)
        (of_the_average, r"diverged at step 4: a weight is not finite\."),
    ],
)
def test_what_is_no_number_stops_the_fit_and_is_not_saved(bias, message, photographs, tmp_path):
    def poison(model):
        bias(model).assign(np.nan * bias(model))

    settings = {**TINY, **photographs, "steps": 20}
    with pytest.raises(TrainingError, match=message + " .*smaller --learning-rate"):
        fit(tmp_path / "run", **settings, callbacks=[At(3, poison)])
    run = RunFolder(tmp_path / "run")
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-00000002.npz"]
    assert all(np.isfinite(array).all() for array in state_of(run).values())
    assert all(np.isfinite(array).all() for array in weights_of(run.model_file))


def test_the_saved_weights_are_the_exponential_average(photographs, tmp_path):
    history = []
    callback = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: history.append(callback.model.network.get_weights())
    )
    settings = {**TINY, **photographs, "steps": 20, "save_every": 20}
    fit(tmp_path / "run", **settings, learning_rate=0.05, ema_momentum=0.4, callbacks=[callback])
    average = [weight.astype(np.float64) for weight in history[0]]
    for weights in history[1:]:
        average = [0.4 * old + 0.6 * new for old, new in zip(average, weights, strict=True)]
    saved = weights_of(tmp_path / "run" / "model.keras")
    assert_close(saved, average, atol=1e-6)
    assert max(np.abs(a - b).max() for a, b in zip(saved, history[-1], strict=True)) > 1e-4


def test_short_fits_average_over_a_tenth_of_themselves(photographs):
    momenta = {}
    for steps in (5, 100, 3000, 100_000):
        trainer, _ = fitted_trainer(photographs, steps=steps)
        momenta[steps] = trainer.optimizer.ema_momentum if trainer.optimizer.use_ema else 0
    assert momenta == pytest.approx({5: 0, 100: 0.9, 3000: 1 - 1 / 300, 100_000: 0.999})


def test_without_averaging_the_last_weights_are_saved(plain):
    run, history = plain
    assert_close(weights_of(run.model_file), history[-1], atol=0)


def test_batch_norm_statistics_are_saved(photographs, tmp_path):
    fit(tmp_path / "run", **{**TINY, **photographs, "architecture": "johnson2016", "steps": 2})
    norm = load_network(tmp_path / "run" / "model.keras").get_layer("entry_norm")
    assert np.abs(np.asarray(norm.moving_mean)).max() > 0


def test_the_learning_rate_falls_along_a_cosine_to_zero(photographs):
    trainer, _ = fitted_trainer(photographs, steps=100, learning_rate=0.01)
    rates = []
    for step in (0, 25, 50, 100):
        trainer.optimizer.iterations.assign(step)
        rates.append(float(trainer.optimizer.learning_rate))
    assert rates == pytest.approx([0.01 * (1 + np.cos(np.pi * step / 100)) / 2 for step in (0, 25, 50, 100)], abs=1e-9)


def test_the_same_seed_gives_the_same_start_and_another_seed_another():
    first, again, other = (build_trainer(FitConfig.from_json({**TINY, "seed": seed})).state() for seed in (0, 0, 1))
    assert_close(first.values(), again.values(), atol=0)
    assert np.abs(first["network/000"] - other["network/000"]).max() > 0
