"""The options that choose a model and the device that it runs on, and the functions that load the model."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from keras_psr.cli.result_size import size_options
from keras_psr.cli.terminal import say
from keras_psr.constants import SCALES, SUPER_RESOLUTION
from keras_psr.errors import ConfigError, ModelError
from keras_psr.tasks.report import REPORTS

if TYPE_CHECKING:
    from keras_psr.inference.upscaler import Upscaler

DEFAULT_SCALE = 4

Command = TypeVar("Command", bound=Callable[..., Any])
Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def complete_models(*, task: str | None = None, variants: bool = True) -> Complete:
    """Returns a shell completion for models: names of shipped models, run folders, else files.

    Args:
        task: Complete only models whose card states this task; None for all.
        variants: Whether to include names of `.tflite` files such as `x4_int8`.
    """

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from keras_psr.inference.registry import RUNS_FOLDER, model_names

        runs = [str(path.parent) for path in sorted(Path(RUNS_FOLDER).glob("*/model.keras"))]
        names = [name for name in [*model_names(task=task, variants=variants), *runs] if name.startswith(incomplete)]
        return [CompletionItem(name) for name in names] or complete_files(context, parameter, incomplete)

    return complete


def complete_files(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Leaves the completion of a path to the shell."""
    return [CompletionItem(incomplete, type="file")]


class NetworkScale(click.Choice[Any]):
    """The scales of shipped networks. The error for another scale says how to get other sizes."""

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        """Parses a scale, or raises an error with the remedy."""
        try:
            return super().convert(value, parameter, context)
        except click.BadParameter as error:
            hint = ""
            if context and any(option.name == "output_scale" for option in context.command.params):
                hint = " For another size of the result, use --output-scale, --width or --height."
            raise click.BadParameter(error.message + hint, context, parameter) from None


def model_option(default: str) -> Callable[[Command], Command]:
    """Returns the option `--model`, whose help says what is taken without it."""
    return click.option(
        *("-m", "-n", "--model"),
        metavar="MODEL",
        help=f"A shipped model's name (x4, x4_int8), a run folder, or a .tflite or .keras file.  [default: {default}]",
        shell_complete=complete_models(),
    )


scale_option = click.option(
    *("-s", "--scale"),
    type=NetworkScale(SCALES),
    help=f"Upscaling factor of the network.  [default: the model's; {DEFAULT_SCALE} without --model]",
)

threads_option = click.option(
    "--threads", type=click.IntRange(1), help="Tiles that a .tflite computes at once.  [default: all cores]"
)

device_option = click.option(
    "--device",
    type=click.Choice(("auto", "cpu", "gpu")),
    default="auto",
    show_default=True,
    help="Device to run on. auto runs a float .tflite on a GPU that gives the CPU's pixels and is faster.",
)


def result_options(command: Command) -> Command:
    """Adds the options for what `photos.upscale_photo` does in addition to the network."""
    options = [
        size_options,
        click.option(
            "--match-histogram",
            is_flag=True,
            help="Give each channel of the result the histogram of the input.",
        ),
        click.option(
            "--strength",
            type=click.FloatRange(0, 1),
            default=1.0,
            show_default=True,
            help="Share of the network in the result; the rest is the input, enlarged bicubically.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def name_model(model: str) -> str:
    """Returns a model's short name: that of a shipped model or a run folder, or a file's name without its ending."""
    path = Path(model)
    if path.is_file():
        return path.parent.resolve().name if path.name == "model.keras" else path.stem
    return path.resolve().name


def load_any_model(
    model: str | None,
    scale: int | None,
    threads: int | None = None,
    device: str = "auto",
    *,
    on_device: Callable[[str], None] = say,
) -> "Upscaler":
    """Loads the model that `--model` and `--scale` choose, for any task.

    Args:
        model: A model as for `upscaler.load`; None for the shipped model of the scale.
        scale: The requested scale, if any.
        threads: Tiles to compute at once; None for one per core.
        device: `auto`, `cpu` or `gpu`.
        on_device: Called with a line that says what was chosen; by default, prints it.

    Returns:
        The network as a function of pictures.

    Raises:
        ConfigError: The model has another scale, or there is no GPU.
        ModelError: The model cannot be loaded.
    """
    from keras_psr.inference.registry import default_model
    from keras_psr.inference.upscaler import load

    name = model or default_model(scale or DEFAULT_SCALE)
    upscaler = load(name, threads=threads, device=device, on_device=on_device)
    if scale not in (None, upscaler.scale):
        effect = REPORTS[upscaler.task].describe_effect(upscaler.scale)
        raise ConfigError(
            f"--scale {scale} does not fit the model {name}, which {effect}. Leave --scale out, or give another "
            "--model."
        )
    return upscaler


def load_model(
    model: str | None,
    scale: int | None = None,
    threads: int | None = None,
    device: str = "auto",
    *,
    task: str = SUPER_RESOLUTION,
    on_device: Callable[[str], None] = say,
) -> "Upscaler":
    """Loads a network of one task, as `load_any_model` does.

    Raises:
        ConfigError: The model has another scale, or there is no GPU.
        ModelError: The model cannot be loaded, or has another task.
    """
    upscaler = load_any_model(model, scale, threads, device, on_device=on_device)
    if upscaler.task != task:
        report = REPORTS[upscaler.task]
        effect = report.describe_effect(upscaler.scale)
        raise ModelError(f"{model} {effect} and is not for {task}. Use keras-psr {report.command} --model {model}.")
    return upscaler
