"""Measures what Ray costs: processor time of the program in docs/distributed.md, and of the command on one machine.

`python benchmarks/ray_overhead.py --pictures 200 1000` takes the cost of a picture from the difference of
two runs, so that what happens once is left out. Processor time hardly depends on what else the machine does.
"""

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import psutil
import skimage.data
from PIL import Image

DOCUMENT = Path(__file__).parents[1] / "docs" / "distributed.md"
COMMAND = "upscale --model x4-fast_int8 --threads 1"


def make_pictures(folder: Path, number: int) -> None:
    """Writes parts of a photograph, 160x120 pixels each."""
    photograph = Image.fromarray(skimage.data.coffee())
    folder.mkdir()
    for index in range(number):
        left, top = 13 * index % 440, 7 * index % 280
        photograph.crop((left, top, left + 160, top + 120)).save(folder / f"{index:05}.png")


def read_program(folder: Path, sockets: str) -> str:
    """Returns the program of the document for pictures in a folder, on a local cluster of two workers."""
    (program,) = re.findall(r"<!-- ray -->\n```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    program = program.replace("upscale --model x4 --threads 1", COMMAND).replace("/shared", str(folder))
    return program.replace("ray.init()", f"ray.init(num_cpus=2, include_dashboard=False, _temp_dir={sockets!r})")


def measure(command: list[str]) -> tuple[dict[str, float], list[int]]:
    """Runs a command, and returns what it and its children cost, and the memory of the workers in the order of time.

    Returns:
        Seconds of wall time (`wall`), of processor time of the processes that compute (`workers`) and of the others
        (`services`); and the megabytes of the workers' largest process, once a second.
    """
    start, seconds, workers, memory = time.perf_counter(), dict[int, float](), set[int](), list[int]()
    process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        held = [0]
        for child in [process, *process.children(recursive=True)]:
            try:
                times = child.cpu_times()
                seconds[child.pid] = times.user + times.system
                if "PictureWorker" in " ".join(child.cmdline()[:1]):
                    workers.add(child.pid)
                    held.append(child.memory_info().rss >> 20)
            except psutil.Error:  # it has just ended
                continue
        memory.append(max(held))
        time.sleep(1)
    if process.returncode:
        raise click.ClickException(f"{command[:2]} ended with {process.returncode}")
    workers = workers or {process.pid}
    cost = {"wall": time.perf_counter() - start, "workers": sum(seconds[pid] for pid in workers)}
    return cost | {"services": sum(seconds.values()) - cost["workers"]}, memory


@click.command()
@click.option("--pictures", "numbers", type=int, nargs=2, default=(200, 1000), show_default=True)
def main(numbers: tuple[int, int]) -> None:
    """Measures both with two numbers of pictures."""
    measured: dict[str, list[dict[str, float]]] = {"command": [], "ray": []}
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as scratch:
        for number in numbers:
            folder = Path(scratch) / str(number)
            folder.mkdir()
            make_pictures(folder / "photos", number)
            alone = [str(Path(sys.executable).with_name("keras-psr")), *COMMAND.split(), str(folder / "photos")]
            programs = {
                "command": [*alone, "-o", str(folder / "alone"), "--jobs", "2"],
                "ray": [sys.executable, "-c", read_program(folder, scratch)],
            }
            for name, command in programs.items():
                cost, memory = measure(command)
                measured[name].append(cost)
                parts = ", ".join(f"{part} {seconds:.1f} s" for part, seconds in cost.items())
                click.echo(f"{name}, {number} pictures: {parts}; MB of a worker {memory[:: max(1, len(memory) // 8)]}")
    pictures = numbers[1] - numbers[0]
    each = {name: {part: (b[part] - a[part]) / pictures for part in a} for name, (a, b) in measured.items()}
    workers = each["ray"]["workers"] / each["command"]["workers"] - 1
    services = each["ray"]["services"] / each["ray"]["wall"]
    click.echo(f"A picture costs the workers {100 * workers:+.1f}% of the command's processor time.")
    click.echo(f"Ray's other processes use {services:.2f} cores as long as the program runs.")


if __name__ == "__main__":
    main()
