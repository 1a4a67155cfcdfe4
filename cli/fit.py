"""`keras-psr fit`: options made from `FitConfig`, what happens on the way, and where to go on."""

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keras_psr.cli.fit_progress import FitDisplay, describe_scores
from keras_psr.cli.terminal import say
from keras_psr.installation import require_everything
from keras_psr.tasks.config import (
    FitConfig,
    StyleConfig,
    SuperResolutionConfig,
    default_settings,
    read_config_file,
)

if TYPE_CHECKING:
    import keras

HELP = {
    "scale": "Upscaling factor: 2, 4 or 8.",
    "style": "Fit a style transfer instead, to this painting; of a folder each picture gets a fit of its own.",
    "data": "Training pictures: a folder, a quoted glob, tfds:NAME[:SPLIT] or sample. Repeatable.",
    "val": "Validation pictures, never trained on; given as for --data. Repeatable.",
    "steps": "Gradient steps in all.",
    "batch_size": "Crops a step, over all devices.",
    "crop": "Side of the crops that the loss sees, in pixels.",
    "optimizer": "What takes the steps: muon, or the paper's adam.",
    "learning_rate": "Peak of the learning rate, which decays to zero.",
    "seed": "Of the initial weights and the sample stream.",
    "init": "Model to start from: a shipped model's name, a run folder or a .keras file.",
    "save_every": "Steps between checkpoints, each with a validation.",
    "keep": "Checkpoints kept, the newest ones.",
    "strategy": "Devices: auto (all GPUs), none (one device), mirrored, or multiworker (machines of TF_CONFIG).",
    "devices": "A device of the mirrored strategy, such as GPU:0. Repeatable.",
    "deterministic": "Use deterministic operations only: the same command gives the same bits.",
    "precision": "Arithmetic of the hidden layers and of VGG16: auto (the fastest here), float32, bfloat16 or float16.",
    "architecture": "Network: residual, fast, or the paper's johnson2016; of styles, style or johnson2016-style.",
    "num_filters": "Channels of the hidden layers; of styles, those of the first.",
    "num_residual_blocks": "Residual blocks.",
    "degradation": "How small pictures are made: bicubic, or photo with blur, noise and JPEG.",
    "blur_sigma": "Gaussian blur before downscaling, in high-resolution pixels.",
    "pixel_weight": "Weight of the pixel loss.",
    "pixel_norm": "Norm of the pixel loss: l1 or l2.",
    "feature_weight": "Weight of the VGG16 feature loss.",
    "feature_layer": "VGG16 layer that the feature loss compares.",
    "content_weight": "Weight of the feature loss against the photograph, of styles.",
    "content_layer": "VGG16 layer that it compares, of styles.",
    "style_weight": "Weight of the style loss; of super-resolution, a texture loss against the original.",
    "style_layers": "A VGG16 layer that the style loss compares. Repeatable.",
    "style_size": "Longer side to which the painting is reduced, in pixels.",
    "photograph_size": "Shorter side to which photographs are reduced, in pixels, of styles; 0 for as they are.",
    "style_normalization": "What the style loss is divided by: energy (the painting's own), mean or paper (nothing).",
    "phase_weight": "Weight of the loss on what repeats with the upsampling lattice.",
    "total_variation_weight": "Weight of the output's total variation.",
    "warmup_steps": "Steps at the start with the pixel loss alone.",
    "warmup_batch_size": "Crops a step in the warm-up; 0 for the batch size.",
    "warmup_crop": "Side of the crops in the warm-up, in pixels; 0 for the crop.",
    "warmup_learning_rate": "Peak of the learning rate in the warm-up; 0 for the learning rate.",
    "vgg_weights": "Weights of VGG16: bundled, imagenet (downloaded by Keras) or a file.",
    "vgg_pooling": "Pooling inside the loss's VGG16: average or max.",
    "shift_pooling": "Move VGG16's pooling grid against the upsampling lattice from step to step, or leave it.",
    "ema_momentum": "Decay of the averaged weights that are saved; 0 saves the last step's.",
}
"""Help by field of both tasks' settings, in the order of `--help`; types and defaults are the field's own."""

SHORT_FLAGS = {"num_residual_blocks": "--residual-blocks", "total_variation_weight": "--tv-weight"}


def setting_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds an option for each setting; one that the user does not give is None or (), so that defaults stay apart."""
    defaults, style_defaults = default_settings(SuperResolutionConfig), default_settings(StyleConfig)
    for name, text in reversed(HELP.items()):
        default = defaults.get(name, style_defaults.get(name))
        repeatable = isinstance(default, tuple)
        shown = describe_default(default)
        if name in style_defaults and style_defaults[name] != default:
            shown = f"{shown}; {describe_default(style_defaults[name])} with --style"
        flag = SHORT_FLAGS.get(name, f"--{name.replace('_', '-')}")
        command = click.option(
            f"{flag}/--no-{flag[2:]}" if isinstance(default, bool) else flag,
            name,
            type=str if repeatable else type(default),
            multiple=repeatable,
            default=None,
            help=f"{text}  [default: {shown}]",
        )(command)
    return command


def describe_default(default: Any) -> str:
    """A default, as it would be typed."""
    return (" ".join(default) if isinstance(default, tuple) else str(default)) or "none"


@click.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Run folder.  [default: runs/x4-DATE]")
@click.option("--resume", is_flag=True, help="Go on with the run in --out, with its own settings.")
@click.option("--overwrite", is_flag=True, help="Replace the run in --out.")
@click.option(
    "--config",
    "config_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON file of settings, such as another run's config.json; options given here win over it.",
)
@setting_options
def fit(out: Path | None, resume: bool, overwrite: bool, config_file: Path | None, **options: Any) -> None:
    """Fit a network to photographs.

    Without options it fits an x4 network to the photographs that come with scikit-image. Ctrl-C stops it; --resume
    goes on.

    \b
    Examples:
      keras-psr fit --scale 4
      keras-psr fit --data photos/ --val Set5/ --out runs/x4
      keras-psr fit --data photos/ --data "more/**/*.png" --steps 20000
      keras-psr fit --style painting.jpg --data photos/ --out runs/painting
      keras-psr fit --out runs/x4 --resume
    """  # noqa: D301 - \b is click's sign for a paragraph that it must not wrap
    if resume and (overwrite or out is None):
        raise click.UsageError("--resume needs the --out that it goes on with, and goes without --overwrite.")
    require_everything("keras-psr fit")
    config = resolve(options, config_file, resumed=out if resume else None)
    out = out or Path("runs") / f"{name_run(config)}-{datetime.now():%Y%m%d-%H%M%S}"
    for one, folder in split_paintings(config, out):
        fit_visibly(one, folder, resume=resume, overwrite=overwrite)


def split_paintings(
    config: SuperResolutionConfig | StyleConfig, out: Path
) -> list[tuple[SuperResolutionConfig | StyleConfig, Path]]:
    """The fits that are asked for: one, or of a folder of paintings one for each, in a run folder of its own."""
    if isinstance(config, SuperResolutionConfig) or not Path(config.style).is_dir():
        return [(config, out)]
    from keras_psr.images.finding import find_images

    return [(replace(config, style=str(path)), out / path.stem) for path in find_images(config.style)]


def name_run(config: SuperResolutionConfig | StyleConfig) -> str:
    """What a run folder's name begins with: the scale, or the painting."""
    return f"x{config.scale}" if isinstance(config, SuperResolutionConfig) else Path(config.style).stem


def resolve(
    options: dict[str, Any], config_file: Path | None, resumed: Path | None
) -> SuperResolutionConfig | StyleConfig:
    """The settings: defaults, or those of a resumed run; then the file's; then the options that were given.

    Raises:
        ConfigError: A setting is unknown or not accepted.
        ModelError: There is no run to resume.
    """
    settings: dict[str, Any] = {}
    if resumed:
        from keras_psr.training.run_folder import saved_config

        settings |= saved_config(resumed)
    if config_file:
        settings |= read_config_file(config_file)
    settings |= {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in options.items()
        if value not in (None, ())
    }
    return FitConfig.from_json(settings)


def describe_settings(config: FitConfig, width: int) -> str:
    """All settings, in a paragraph of lines of at most `width` characters."""
    settings = {name: " ".join(value) if isinstance(value, list) else value for name, value in config.to_json().items()}
    text = ", ".join(f"{name} {value}" for name, value in settings.items() if value != "")
    return click.wrap_text(text, width=width, initial_indent="  ", subsequent_indent="  ")


def fit_visibly(config: SuperResolutionConfig | StyleConfig, out: Path, *, resume: bool, overwrite: bool) -> None:
    """Fits, shows how far it is, and tells how to go on at the end and after Ctrl-C."""
    start = time.monotonic()
    with FitDisplay(config.steps) as display:
        from keras_psr.training.fit import fit as fit_network  # seconds, while the bar stands there already

        callbacks = [build_callback(display, config, out)]
        try:
            fit_network(
                out, resume=resume, overwrite=overwrite, on_log=display.log, callbacks=callbacks, **config.to_json()
            )
        except KeyboardInterrupt:
            if any(out.glob("checkpoints/*.npz")):
                display.say(f"To go on from here: keras-psr fit --out {out} --resume")
            raise
        display.say(summarize(config, out, time.monotonic() - start))
    command = "stylize" if isinstance(config, StyleConfig) else "upscale"
    say(f"Next: keras-psr {command} photo.jpg --model {out}")


def build_callback(display: FitDisplay, config: FitConfig, out: Path) -> "keras.callbacks.Callback":
    """A callback that tells the display of the start and of each step; made here as its base imports Keras."""
    from keras_psr.training.callbacks import StepCallback
    from keras_psr.training.devices import describe_devices

    class Report(StepCallback):
        has_begun = False

        def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
            step = self.step()
            if self.has_begun:
                display.begin(f"step {step}/{config.steps}: the warm-up is over; from here on with all losses", step)
                return
            self.has_begun = True
            begins = f"Going on after step {step} in {out}" if step else f"Fitting into {out}"
            devices = describe_devices(self.model.distribute_strategy)
            precision = f"in {self.model.precision.precision} ({self.model.precision.reason})"
            settings = describe_settings(config, min(display.console.width, 100))
            display.begin(f"{begins}, on {devices}, {precision}:\n{settings}", step)

        def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
            display.count(self.step(), logs or {})

    return Report()


def summarize(config: FitConfig, out: Path, seconds: float) -> str:
    """What there is after a fit: its last scores and its folder."""
    from keras_psr.training.run_folder import RunFolder

    run = RunFolder(out)
    scores = next(filter(None, (describe_scores(line) for line in reversed(run.read_log()))), "none")
    return f"""
Done after {config.steps} steps; this session took {timedelta(seconds=round(seconds))}.
Scores: {scores}
Run folder: {out} (network: {run.model_file.name}, pictures of its progress: {run.samples.name}/)"""
