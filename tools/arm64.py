"""Runs shipped models on an emulated ARM64 processor, and compares the pixels with this machine's: `make arm64-test`.

Everything that is needed is installed into FOLDER: Python and its libraries with apt, from this machine's sources but
without changing its state; the packages in requirements-runtime.txt with pip, as wheels for ARM64; and keras-psr from
this checkout. Then both processors run `keras-psr upscale` or `stylize` on the same picture.

python tools/arm64.py                  # all shipped int8 files and a float one
python tools/arm64.py x8 x2_int8       # these files
"""

import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from keras_psr.data.sources import open_source
from keras_psr.environment import available_cores
from keras_psr.images.decoding import read_photo
from keras_psr.images.encoding import save_photo
from keras_psr.images.photo import Photo
from keras_psr.inference.registry import find_runnable, shipped_folder
from keras_psr.inference.tflite_metadata import read_metadata

CHECKOUT = Path(__file__).parents[1]
EMULATORS = ("qemu-aarch64-static", "qemu-aarch64")
APT_PACKAGES = ("python3", "libstdc++6")
"""Packages for apt, which adds their dependencies."""

GLIBC = 36
"""Minor version of the C library in Debian 12, the oldest Debian with a Python that LiteRT has wheels for."""

PROCESSORS = {
    "cortex-a76": ("0xd0b", "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp asimdrdm lrcpc asimddp"),
    "cortex-a72": ("0xd08", "fp asimd evtstrm aes pmull sha1 sha2 crc32"),
}
"""Part number and features in /proc/cpuinfo by processor: one with dot products of bytes, as in phones and in the
Raspberry Pi 5, and one without, as in the Raspberry Pi 4. XNNPACK uses different code for each."""

FLOAT_FILE = "x4-fast"
WITHOUT_DOT_PRODUCTS = ("x4-fast_int8",)
"""Files that also run on the second processor."""

BOUND = {"int8": 0.0, "float16": 0.1, "float32": 0.01}
"""Largest accepted difference in grey levels, by variant. int8 uses whole numbers, which are the same everywhere."""

HEIGHT, WIDTH = 24, 32
"""Size of the picture, in pixels, which is smaller than a tile of any model."""


@dataclass(frozen=True)
class Comparison:
    """The results of one file on both processors.

    Attributes:
        model: Name of the file.
        processor: The emulated processor.
        differing: Share of the levels that differ.
        greatest: Largest difference in grey levels of 0 to 255.
        bound: Largest accepted difference.
        seconds: Time that the emulation took.
    """

    model: str
    processor: str
    differing: float
    greatest: float
    bound: float
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether the difference is within the bound."""
        return self.greatest <= self.bound


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), default=Path("build/arm64"))
def main(models: tuple[str, ...], folder: Path) -> None:
    """Compares shipped .tflite files on an emulated ARM64 processor with this machine, and exits 1 if they differ."""
    emulator, folder = find_emulator(), folder.resolve()
    prepare(folder)
    wanted = models or (*sorted(path.stem for path in shipped_folder().glob("*/*_int8.tflite")), FLOAT_FILE)
    plan = {"cortex-a76": wanted, "cortex-a72": models or WITHOUT_DOT_PRODUCTS}
    write_pictures(folder)
    comparisons = []
    for processor, names in plan.items():
        write_processor(folder / "root", processor)
        click.echo(
            f"Running {len(names)} files on an emulated {processor}, up to a minute each: {', '.join(names)}", err=True
        )
        comparisons += run(names, processor, emulator, folder)
    Console(width=80).print(build_table(comparisons))
    failed = [comparison.model for comparison in comparisons if not comparison.holds]
    click.echo(f"LiteRT {version('ai-edge-litert')}, emulated ARM64 compared with this {platform.machine()}.")
    if failed:
        raise click.ClickException(f"Beyond the bound: {', '.join(failed)}.")


def run(names: Sequence[str], processor: str, emulator: str, folder: Path) -> list[Comparison]:
    """Compares files, one on each core, with a line for each. The first failure ends it."""
    with ThreadPoolExecutor(available_cores()) as executor:
        jobs = [executor.submit(compare, name, processor, emulator, folder) for name in names]
        try:
            for done, job in enumerate(as_completed(jobs), 1):
                click.echo(f"{done}/{len(jobs)}: {job.result().model}", err=True)
        except BaseException:
            executor.shutdown(cancel_futures=True)
            raise
    return [job.result() for job in jobs]


def find_emulator() -> str:
    """Returns the path of QEMU's user-mode emulator.

    Raises:
        ClickException: The emulator or apt is not installed, or the processor is an ARM64 itself.
    """
    if platform.machine() in ("aarch64", "arm64"):
        raise click.ClickException("This machine is ARM64 itself: `make test` tests keras-psr on it.")
    emulator = next(filter(None, map(shutil.which, EMULATORS)), None)
    if not emulator:
        raise click.ClickException(
            f"No emulator: {EMULATORS[0]} is not installed. On Debian: apt-get install qemu-user-static"
        )
    if not shutil.which("apt-get"):
        raise click.ClickException("No apt-get, which brings Python for ARM64. Run this on Debian 12 or newer.")
    return emulator


def prepare(folder: Path) -> None:
    """Creates `root` and `site` in a folder if they are missing, and `package` from the checkout each time."""
    requirements = CHECKOUT / "requirements-runtime.txt"
    key = "\n".join([*APT_PACKAGES, requirements.read_text(encoding="utf-8"), version("ai-edge-litert")])
    ready = folder / "ready"
    if not ready.is_file() or ready.read_text(encoding="utf-8") != key:
        shutil.rmtree(folder, ignore_errors=True)
        click.echo(f"Getting Python for ARM64 with apt, and wheels with pip, into {folder}: 250 MB ...", err=True)
        unpack_debian(folder)
        install_wheels(folder, requirements)
        ready.write_text(key, encoding="utf-8")
    shutil.rmtree(folder / "package", ignore_errors=True)
    build = ("setup.py", "--quiet", "build_py", "--build-lib", folder / "package")
    call(sys.executable, *build, cwd=CHECKOUT)


def unpack_debian(folder: Path) -> None:
    """Unpacks Python for ARM64 and its dependencies into `folder/root`, without changing the machine's apt state."""
    apt = folder / "apt"
    for place in ("lists/partial", "archives/partial"):
        (apt / place).mkdir(parents=True)
    (apt / "status").touch()
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "root",
        "Dir::State::lists": apt / "lists",
        "Dir::State::status": apt / "status",
        "Dir::Cache::archives": apt / "archives",
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
        "Debug::NoLocking": "1",
    }
    options = [f"--option={name}={value}" for name, value in settings.items()]
    call("apt-get", "-qq", *options, "update")
    call("apt-get", "-qq", *options, "--no-install-recommends", "--download-only", "install", *APT_PACKAGES)
    for archive in sorted((apt / "archives").glob("*.deb")):
        call("dpkg-deb", "--extract", archive, folder / "root")
    shutil.rmtree(apt)


def install_wheels(folder: Path, requirements: Path) -> None:
    """Installs the runtime's wheels for ARM64 into `folder/site`, with the same version of LiteRT as here."""
    python = os.readlink(folder / "root" / "usr" / "bin" / "python3").removeprefix("python")
    platforms = ["manylinux2014_aarch64", *(f"manylinux_2_{minor}_aarch64" for minor in range(17, GLIBC + 1))]
    options = ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
    options += [f"--platform={name}" for name in platforms]
    wanted = ["-r", requirements, f"ai-edge-litert=={version('ai-edge-litert')}"]
    call(sys.executable, "-m", "pip", "install", "--quiet", "--target", folder / "site", *options, *wanted)


def call(*command: str | Path, cwd: Path | None = None) -> None:
    """Runs a command in a folder, by default the current one.

    Raises:
        ClickException: The command failed; the message contains its output.
    """
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if result.returncode:
        raise click.ClickException(f"{Path(command[0]).name} failed:\n{result.stderr or result.stdout}")


def write_processor(root: Path, processor: str) -> None:
    """Writes the files in which LiteRT looks up the processor. Without them it would find the host's, and crash."""
    part, features = PROCESSORS[processor]
    lines = {
        "processor": "0",
        "BogoMIPS": "100.00",
        "Features": features,
        "CPU implementer": "0x41",
        "CPU architecture": "8",
        "CPU variant": "0x0",
        "CPU part": part,
        "CPU revision": "3",
    }
    text = "".join(f"{name}\t: {value}\n" for name, value in lines.items())
    cpus = root / "sys" / "devices" / "system" / "cpu"
    for path, content in {
        root / "proc" / "cpuinfo": f"{text}\n",
        cpus / "possible": "0\n",
        cpus / "present": "0\n",
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="ascii")


def write_pictures(folder: Path) -> None:
    """Writes part of a photograph: with 8 bits for int8 files, else with 16 bits, which show smaller differences."""
    (photograph,) = open_source("sample:val")
    pixels = photograph.read()[200 : 200 + HEIGHT, 240 : 240 + WIDTH]
    save_photo(folder / "8.png", Photo(pixels))
    save_photo(folder / "16.png", Photo(pixels.astype(np.uint16) * 257))


def compare(model: str, processor: str, emulator: str, folder: Path) -> Comparison:
    """Runs a file on both processors."""
    metadata = read_metadata(find_runnable(model))
    is_int8 = metadata["variant"] == "int8"
    arguments = [
        *("-m", "keras_psr", "stylize" if metadata["scale"] == 1 else "upscale"),
        *(folder / ("8.png" if is_int8 else "16.png"), "--model", model, "--threads", "1", "--overwrite", "-o"),
    ]
    here, there = (folder / f"{model}_{name}.png" for name in (platform.machine(), processor))
    call(sys.executable, *arguments, here, cwd=folder)  # `python -m` would prefer a checkout to the package
    root = folder / "root"
    path = os.pathsep.join(str(folder / name) for name in ("package", "site"))
    emulation = [emulator, "-cpu", processor, "-L", root, "-E", f"PYTHONPATH={path}", "-E", "PYTHONNOUSERSITE=1"]
    start = time.perf_counter()
    call(*emulation, root / "usr" / "bin" / "python3", *arguments, there, cwd=folder)
    seconds = time.perf_counter() - start
    difference = measure(read_photo(here).pixels, read_photo(there).pixels)
    differing = float(np.count_nonzero(difference) / difference.size)
    return Comparison(model, processor, differing, float(difference.max()), BOUND[metadata["variant"]], seconds)


def measure(expected: np.ndarray, received: np.ndarray) -> np.ndarray:
    """Returns the absolute differences of two pictures, uint8 or uint16, in grey levels of 0 to 255.

    Raises:
        ClickException: The pictures differ in size or depth.
    """
    if (expected.shape, expected.dtype) != (received.shape, received.dtype):
        raise click.ClickException(
            f"Expected {expected.dtype} {expected.shape}. Received: {received.dtype} {received.shape}."
        )
    return np.abs(expected.astype(np.float64) - received) / (257 if expected.dtype == np.uint16 else 1)


def build_table(comparisons: Sequence[Comparison]) -> Table:
    """Builds a table with a row per comparison."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("\nfile", "\nprocessor", "\ndiffering", "greatest\ndifference", "\naccepted", "emulated\nin"):
        table.add_column(heading, justify="left" if heading in ("\nfile", "\nprocessor") else "right", no_wrap=True)
    for one in comparisons:
        table.add_row(
            one.model,
            one.processor,
            f"{one.differing:.2%}",
            f"{one.greatest:.4f}" if one.greatest else "0",
            f"{one.bound:g}",
            f"{one.seconds:.0f} s",
        )
    return table


if __name__ == "__main__":
    main()
