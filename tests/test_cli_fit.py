"""`keras-psr fit`: which settings win, what a run folder holds afterwards, and what each mistake is answered."""

import json
import re
import shutil
import signal
from dataclasses import fields

import pytest

from keras_psr.cli.fit import fit, resolve
from keras_psr.cli.main import main
from keras_psr.tasks.config import StyleConfig, SuperResolutionConfig, default_settings

DEFAULTS = SuperResolutionConfig()


@pytest.fixture
def fit_tiny(runner, photograph, tiny_settings):
    """Runs `keras-psr fit` on the tiny settings, to which the given arguments are added."""
    names = {"num_residual_blocks": "residual-blocks"}
    tiny = [f"--{names.get(name, name).replace('_', '-')}={value}" for name, value in tiny_settings.items()]

    def run(*args, data=photograph):
        return runner.invoke(main, ["fit", *tiny, "--data", str(data), "--val", str(photograph), *map(str, args)])

    return run


def test_every_setting_has_an_option():
    settings = set(default_settings(SuperResolutionConfig)) | set(default_settings(StyleConfig))
    options = [option.name for option in fit.params]
    assert settings <= set(options) and len(options) == len(set(options))
    assert set(options) - settings == {"out", "resume", "overwrite", "config_file"}
    assert options.index("style") < options.index("data") < options.index("warmup_steps"), "in order of need"


def test_the_help_of_an_option_is_the_text_of_its_field():
    for one in fields(StyleConfig):
        (option,) = (option for option in fit.params if option.name == one.name)
        assert not one.metadata or option.help.startswith(one.metadata["text"])


@pytest.mark.parametrize(
    ("flag", "default"),
    [
        ("--scale", "4"),
        ("--tv-weight", "0.0; 0.0001 with --style"),
        ("--residual-blocks", "5"),
        ("--init", "none"),
        ("--data", "sample"),
        ("--crop", "96; 256 with --style"),
        ("--style-size", "384"),
    ],
)
def test_help_shows_the_default(flag, default):
    (option,) = (option for option in fit.params if flag in option.opts)
    assert option.help.endswith(f"  [default: {default}]")


def test_without_options_the_settings_are_the_defaults():
    assert resolve({"scale": None, "data": (), "seed": None}, None, {}) == DEFAULTS


def test_options_win_over_the_file_and_the_file_over_the_defaults(tmp_path):
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({"scale": 2, "steps": 70, "data": ["photos/"]}))
    config = resolve({"scale": 8, "steps": None, "data": (), "val": ("a/", "b/")}, file, {})
    assert (config.scale, config.steps, config.data, config.val) == (8, 70, ("photos/",), ("a/", "b/"))
    assert config.learning_rate == DEFAULTS.learning_rate


@pytest.mark.parametrize(("args", "value"), [([], True), (["--no-shift-pooling"], False)])
def test_a_switch_can_be_turned_off(args, value):
    options = fit.make_context("fit", args).params
    assert resolve({"shift_pooling": options["shift_pooling"]}, None, {}).shift_pooling is value


def test_zero_is_a_value_that_was_given():
    assert resolve({"seed": 0, "feature_weight": 0.0}, None, {}).feature_weight == 0.0


def test_a_run_is_made_resumed_and_ready_to_use(fit_tiny, tmp_path):
    out = tmp_path / "run"
    result = fit_tiny("--out", out)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    assert f"Fitting into {out}, on the CPU" in result.stderr
    assert "num_filters 4" in result.stderr and "shift_pooling True" in result.stderr
    assert "step 4/4: validation PSNR" in result.stderr
    *_, done, scores, folder, following = result.stderr.splitlines()
    assert done.startswith("Done after 4 steps; this session took 0:0")
    assert re.match(r"Scores: PSNR \d\d\.\d\d dB, over bicubic [+-]\d", scores)
    assert folder == f"Run folder: {out} (network: model.keras, pictures of its progress: samples/)"
    assert following == f"Next: keras-psr upscale photo.jpg --model {out}"
    record = json.loads((out / "config.json").read_text())
    assert (record["config"]["num_filters"], record["config"]["learning_rate"]) == (4, DEFAULTS.learning_rate)
    assert (out / "model.keras").is_file()

    again = fit_tiny("--out", out)
    assert again.exit_code == 1
    assert again.stderr == f"Error: --out {out} already contains a run. Use --resume, --overwrite or another folder.\n"


def test_resume_takes_the_runs_own_settings(runner, tiny_run, tmp_path):
    out = shutil.copytree(tiny_run, tmp_path / "run")
    (out / "checkpoints" / "step-00000004.npz").unlink()
    result = runner.invoke(main, ["fit", "--out", str(out), "--resume"])
    assert result.exit_code == 0, result.stderr
    assert f"Going on after step 2 in {out}" in result.stderr
    assert "step 4/4" in result.stderr
    assert "step 2/4" not in result.stderr
    steps = [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert steps == [2, 4, 4]


def test_without_out_the_run_is_named_by_scale_and_date(fit_tiny, monkeypatch):
    fitted = []
    monkeypatch.setattr("keras_psr.cli.fit.fit_visibly", lambda config, out, **options: fitted.append(out))
    assert fit_tiny("--scale", 2).exit_code == 0
    assert len(fitted) == 1 and re.fullmatch(r"runs/x2-\d{8}-\d{6}", fitted[0].as_posix())


def test_a_mistake_does_not_remove_the_run_that_would_be_overwritten(fit_tiny, tiny_run, tmp_path):
    out = shutil.copytree(tiny_run, tmp_path / "run")
    result = fit_tiny("--out", out, "--overwrite", "--feature-weight", 1, "--feature-layer", "relu9_9")
    assert result.exit_code == 1
    assert "relu2_2, " in result.stderr
    assert (out / "model.keras").is_file()


def test_an_interrupted_fit_says_how_to_go_on(fit_tiny, tmp_path, monkeypatch):
    from keras_psr.training.callbacks import StopOnDivergence

    def interrupt_at_three(self, batch, logs=None):
        if self.step() == 3:
            signal.raise_signal(signal.SIGTERM)

    out = tmp_path / "run"
    monkeypatch.setattr(StopOnDivergence, "on_train_batch_end", interrupt_at_three)
    result = fit_tiny("--out", out)
    assert result.exit_code == 130
    assert result.stderr.endswith(f"To continue from here: keras-psr fit --out {out} --resume\nInterrupted.\n")
    assert (out / "checkpoints" / "step-00000003.npz").is_file()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--scale", "3"], "scale must be one of 2, 4, 8. Received: 3."),
        (["--pixel-weight", "-1"], "pixel_weight must be 0 or more. Received: -1.0."),
        (["--precision", "float8"], "precision must be one of auto, float32, bfloat16, float16. Received: float8."),
        (["--architecture", "unet"], "architecture must be one of johnson2016, residual, fast. Received: 'unet'."),
        (["--data", "nowhere/"], "no such file or folder: nowhere"),
        (["--crop", "100"], "as large as the crop, 100x100"),
        (["--init", "nothing"], "No model 'nothing'"),
    ],
)
def test_a_bad_value_is_one_line(fit_tiny, tmp_path, args, message):
    result = fit_tiny("--out", tmp_path / "run", *args)
    assert result.exit_code == 1
    assert message in result.stderr.splitlines()[-1]
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    assert not (tmp_path / "run").exists()


def test_a_folder_without_pictures_is_one_line(fit_tiny, tmp_path):
    result = fit_tiny("--out", tmp_path / "run", data=tmp_path)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: no pictures in {tmp_path}")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--resume"], "--resume needs the --out"),
        (["--resume", "--overwrite", "--out", "x"], "does not go with --overwrite"),
        (["--steps", "many"], "'many' is not a valid integer"),
        (["--config", "missing.json"], "'missing.json' does not exist"),
    ],
)
def test_usage_errors(runner, args, message):
    result = runner.invoke(main, ["fit", *args])
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [('{"stepz": 3}', "Unknown setting 'stepz'. Did you mean 'steps'?"), ("steps: 3", "must be a JSON file")],
)
def test_a_bad_config_file_is_one_line(runner, tmp_path, text, message):
    file = tmp_path / "settings.json"
    file.write_text(text)
    result = runner.invoke(main, ["fit", "--config", str(file)])
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
