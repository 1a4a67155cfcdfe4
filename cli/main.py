"""The `keras-psr` command, which finds the subcommands and turns errors into one line and an exit code."""

import logging
import os
import sys
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click

from keras_psr import __version__
from keras_psr.environment import explain
from keras_psr.errors import KerasPSRError

COMMANDS = {
    "fit": "Fit a network to photographs.",
    "upscale": "Upscale pictures and films with a fitted network.",
    "stylize": "Paint pictures and films like a painting.",
    "evaluate": "Score a network and bicubic on a folder of pictures.",
    "export": "Export a network to verified .tflite files or a SavedModel.",
    "benchmark": "Time .tflite files on this machine.",
    "demo": "Show the models in a browser.",
    "models": "List the shipped models, or show one's card.",
}
"""The commands that `--help` lists. Command NAME is the click command `NAME` in `keras_psr.cli.NAME`."""


class LazyGroup(click.Group):
    """A click group that imports a command only when it is called, and reports every error in one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the names in the order of the work, not of the alphabet."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports and returns the command of this name, or returns None if there is none."""
        if cmd_name not in COMMANDS:
            return None
        return getattr(import_module(f"keras_psr.cli.{cmd_name}"), cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds the command that the user typed; on a mistake, suggests a near spelling or lists all commands."""
        if args[0] not in COMMANDS and not ctx.resilient_parsing:  # resilient: shell completion
            near = get_close_matches(args[0], COMMANDS, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"The commands are: {', '.join(COMMANDS)}."
            ctx.fail(f"No such command {args[0]!r}. {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Accepts `--debug` after the command too, because people append it to the line that failed."""
        rest = [arg for arg in args if arg != "--debug"]
        return super().parse_args(ctx, rest if rest == args else ["--debug", *rest])

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command; exits with 1 and one line on an error (`--debug`: a traceback), with 130 on Ctrl-C."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(130)
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except Exception as error:
            if ctx.params["debug"]:
                raise
            if isinstance(error, ModuleNotFoundError):
                error = explain(error, f"keras-psr {ctx.invoked_subcommand}")
            raise click.ClickException(_one_line(error)) from error


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, KerasPSRError):
        return text
    return f"{type(error).__name__}: {text} (unexpected; run again with --debug for the traceback)"


def _silence_native_log() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    # TensorFlow's C++ code writes to file descriptor 2 at any log level (tensorflow issue 100442). So Python keeps the
    # real stderr, and native code gets the null device. A stream that a test has put there stays.
    real = sys.__stderr__
    if real is not None and sys.stderr is real:
        sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, encoding=real.encoding, errors=real.errors)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.close(null)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="keras-psr")
@click.option("--debug", is_flag=True, help="Show tracebacks and TensorFlow's log.")
def main(debug: bool) -> None:
    """Fit, score and use networks that enlarge photographs 2, 4 or 8 times, or paint them like a painting.

    \b
    Examples:
      keras-psr upscale photo.jpg -o big.png
      keras-psr fit --scale 4 --data photos/ --out runs/x4
      keras-psr evaluate --model runs/x4 --data Set14/
    """  # noqa: D301 - \b is click's sign for a paragraph that it must not wrap
    if not debug:
        _silence_native_log()
