"""What each error of a command becomes on the way to the user."""

import subprocess
import sys
from types import SimpleNamespace

import click
import pytest

from keras_psr import __version__
from keras_psr.cli.main import COMMANDS, main
from keras_psr.errors import ImageFileError


@pytest.fixture
def run_raising(runner, monkeypatch):
    """Runs `keras-psr boom ARGS`, a command that raises the given exception."""

    def run(exception, *args):
        @click.command()
        def boom():
            raise exception

        monkeypatch.setitem(COMMANDS, "boom", "Raise.")
        monkeypatch.setitem(sys.modules, "keras_psr.cli.boom", SimpleNamespace(boom=boom))
        return runner.invoke(main, args or ["boom"])

    return run


def test_version(runner):
    result = runner.invoke(main, ["--version"])
    assert result.exit_code == 0
    assert result.output == f"keras-psr, version {__version__}\n"


def test_help_lists_the_commands(runner):
    result = runner.invoke(main, ["--help"])
    assert result.exit_code == 0
    for name, text in COMMANDS.items():
        assert name in result.output
        assert text in result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_with_an_example(runner, name):
    result = runner.invoke(main, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert f"keras-psr {name}" in result.output.split("Options:")[0].split("\n", 1)[1]


def test_a_misspelt_command_is_a_usage_error_with_a_suggestion(runner):
    result = runner.invoke(main, ["upscal"])
    assert result.exit_code == 2
    assert result.stderr.endswith("Error: No such command 'upscal'. Did you mean 'upscale'?\n")


def test_a_command_like_no_other_lists_them(runner):
    result = runner.invoke(main, ["xyz"])
    assert result.exit_code == 2
    assert f"The commands are: {', '.join(COMMANDS)}." in result.stderr


def test_an_error_of_ours_is_one_line(run_raising):
    result = run_raising(ImageFileError("cannot read 'a.png':\nit holds text."))
    assert result.exit_code == 1
    assert result.stderr == "Error: cannot read 'a.png': it holds text.\n"
    assert result.stdout == ""


def test_an_unexpected_error_is_one_line_that_names_debug(run_raising):
    result = run_raising(ZeroDivisionError("division by zero"))
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: ZeroDivisionError: division by zero (unexpected; run again with --debug for the traceback)\n"
    )


@pytest.mark.parametrize("args", [("--debug", "boom"), ("boom", "--debug")])
def test_debug_lets_the_exception_through(run_raising, args):
    error = ImageFileError("cannot read 'a.png'")
    assert run_raising(error, *args).exception is error


def test_interrupt_exits_130(run_raising):
    result = run_raising(KeyboardInterrupt())
    assert result.exit_code == 130
    assert result.stderr == "Interrupted.\n"


@pytest.mark.parametrize("code", [0, 3])
def test_exit_codes_of_commands_pass(run_raising, code):
    assert run_raising(click.exceptions.Exit(code)).exit_code == code


@pytest.mark.parametrize(
    ("words", "completion"),
    [
        ("keras-psr upsc", "upscale"),
        ("keras-psr --de", "--debug"),
        ("keras-psr xyz --de", "--debug"),
        ("keras-psr upscale --model x4-fast_in", "x4-fast_int8"),
        ("keras-psr upscale -m x4-ph", ["x4-photo", "x4-photo_float16", "x4-photo_float32", "x4-photo_int8"]),
        ("keras-psr stylize --model the-scream_i", "the-scream_int8"),
        ("keras-psr evaluate --model great-wave_i", "great-wave_int8"),
        ("keras-psr export x4", ["x4", "x4-fast", "x4-photo"]),
        ("keras-psr benchmark x8_i", "x8_int8"),
        ("keras-psr models x8_i", "x8_int8"),
        ("keras-psr fit --init x4", ["x4", "x4-fast", "x4-photo"]),
        ("keras-psr fit --init the-s", "the-scream"),
    ],
)
def test_shell_completion(runner, words, completion):
    position = words.count(" ")
    env = {"_KERAS_PSR_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(position)}
    result = runner.invoke(main, env=env, prog_name="keras-psr")
    completions = [completion] if isinstance(completion, str) else completion
    assert (result.exit_code, result.output) == (0, "".join(f"plain,{name}\n" for name in completions))


def test_shell_completion_of_a_model_goes_on_to_files_and_run_folders(runner, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "model.keras").touch()
    for typed, completion in (
        ("upscale --model runs/", "plain,runs/mine"),
        ("upscale --model export/", "file,export/"),
        ("fit --init runs/", "plain,runs/mine"),
        ("fit --data photos/", "file,photos/"),
        ("fit --style paint", "file,paint"),
    ):
        words = {"COMP_WORDS": f"keras-psr {typed}", "COMP_CWORD": "3"}
        env = {"_KERAS_PSR_COMPLETE": "bash_complete", **words}
        assert runner.invoke(main, env=env, prog_name="keras-psr").output == f"{completion}\n"


BOOM = """
import os, sys, types, click
from keras_psr.cli.main import COMMANDS, main

@click.command()
def boom():
    os.write(2, b"native noise\\n")
    print("python note", file=sys.stderr)
    raise RuntimeError("broken")

COMMANDS["boom"] = "Raise."
sys.modules["keras_psr.cli.boom"] = types.SimpleNamespace(boom=boom)
main(sys.argv[1:])
"""


def run_process(tmp_path, *args):
    return subprocess.run([sys.executable, "-c", BOOM, *args], cwd=tmp_path, capture_output=True, text=True)


def test_a_process_hides_native_noise_and_keeps_our_lines(tmp_path):
    result = run_process(tmp_path, "boom")
    assert result.returncode == 1
    note, error = result.stderr.splitlines()
    assert note == "python note"
    assert error.startswith("Error: RuntimeError: broken")


def test_a_process_with_debug_shows_native_noise_and_the_traceback(tmp_path):
    result = run_process(tmp_path, "boom", "--debug")
    assert result.returncode == 1
    assert "native noise" in result.stderr
    assert "Traceback (most recent call last)" in result.stderr


def test_the_module_runs_as_the_command(tmp_path):
    command = [sys.executable, "-m", "keras_psr", "--version"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout == f"keras-psr, version {__version__}\n"
