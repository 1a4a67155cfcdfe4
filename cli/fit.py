"""The `keras-psr fit` command, whose options are made from the settings in `tasks/config.py`."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keras_psr.cli.model_options import complete_files, complete_models
from keras_psr.cli.terminal import say
from keras_psr.environment import require_everything
from keras_psr.tasks.config import FitConfig, list_settings, read_config_file
from keras_psr.tasks.report import REPORTS
from keras_psr.training.display import FitDisplay

if TYPE_CHECKING:
    from keras_psr.training.run_folder import SavedRun

COMPLETIONS = {
    "init": complete_models(variants=False),
    **dict.fromkeys(("data", "val", "style", "vgg_weights"), complete_files),
}
"""Shell completions of options, by setting."""

METAVARS = {"data": "SRC", "val": "SRC", "style": "PAINTING", "init": "MODEL"}
"""Words for the values of options in the help, by setting; for others, the help shows the type."""

SHORT_FLAGS = {"num_residual_blocks": "--residual-blocks", "total_variation_weight": "--tv-weight"}


def setting_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds an option for each setting. An option that is not given is None or (), and not the setting's default."""
    for setting in reversed(list_settings()):
        flag = SHORT_FLAGS.get(setting.name, f"--{setting.name.replace('_', '-')}")
        repeatable = isinstance(setting.default, tuple)
        text = f"{setting.text} Repeatable." if repeatable else setting.text
        command = click.option(
            f"{flag}/--no-{flag[2:]}" if isinstance(setting.default, bool) else flag,
            setting.name,
            type=str if repeatable else type(setting.default),
            multiple=repeatable,
            default=None,
            metavar=METAVARS.get(setting.name),
            help=f"{text}  [default: {setting.describe_default()}]",
            shell_complete=COMPLETIONS.get(setting.name),
        )(command)
    return command


@click.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Run folder.  [default: runs/x4-DATE]")
@click.option("--resume", is_flag=True, help="Continue the run in --out, with its own settings.")
@click.option("--overwrite", is_flag=True, help="Replace the run in --out.")
@click.option(
    "--config",
    "config_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON file of settings, such as another run's config.json; options given here take precedence.",
)
@setting_options
def fit(out: Path | None, resume: bool, overwrite: bool, config_file: Path | None, **options: Any) -> None:
    """Fit a network to photographs.

    Without options, this fits an x4 network to the photographs that come with scikit-image. Ctrl-C saves and stops;
    --resume continues.

    \b
    Examples:
      keras-psr fit --scale 4
      keras-psr fit --data photos/ --val Set5/ --out runs/x4
      keras-psr fit --data photos/ --data "more/**/*.png" --steps 20000
      keras-psr fit --style painting.jpg --data photos/ --out runs/painting
      keras-psr fit --out runs/x4 --resume
    """  # noqa: D301 - \b is click's sign for a paragraph that it must not wrap
    if resume and (overwrite or out is None):
        raise click.UsageError("--resume needs --out, the run to continue, and does not go with --overwrite.")
    require_everything("keras-psr fit")
    resumed = None
    if resume and out:
        from keras_psr.training.run_folder import SavedRun

        resumed = SavedRun.read(out)
    config = resolve(options, config_file, resumed.settings if resumed else {})
    out = out or Path("runs") / f"{config.run_name()}-{datetime.now():%Y%m%d-%H%M%S}"
    for folder, one in config.split().items():
        fit_visibly(one, out / folder, resumed=resumed, overwrite=overwrite)


def resolve(options: dict[str, Any], config_file: Path | None, saved: dict[str, Any]) -> FitConfig:
    """Returns the settings: options first, then the file, then those of a resumed run, then the defaults.

    Raises:
        ConfigError: A setting is unknown or not accepted.
    """
    from_file = read_config_file(config_file) if config_file else {}
    given = {name: value for name, value in options.items() if value not in (None, ())}
    return FitConfig.from_json({**saved, **from_file, **given})


def fit_visibly(config: FitConfig, out: Path, *, resumed: "SavedRun | None", overwrite: bool) -> None:
    """Fits, shows the progress, and says how to continue at the end and after Ctrl-C."""
    with FitDisplay(config, out) as display:
        from keras_psr.training.fit import fit_network  # takes seconds, during which the bar is already shown

        try:
            fit_network(out, config, resumed=resumed, overwrite=overwrite, display=display)
        except KeyboardInterrupt:
            if any(out.glob("checkpoints/*.npz")):
                display.say(f"To continue from here: keras-psr fit --out {out} --resume")
            raise
    say(f"Next: keras-psr {REPORTS[config.task].command} photo.jpg --model {out}")
