"""The program of docs/distributed.md on a local Ray cluster of two workers, one of which is killed on the way."""

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
import pyarrow.dataset
import pytest
import skimage.data
from PIL import Image

from keras_psr.cli.main import main

pytestmark = pytest.mark.slow

DOCUMENT = Path(__file__).parents[1] / "docs" / "distributed.md"
COMMAND = "upscale --model x4-fast_int8 --threads 1"
PICTURES, PART = 200, 10
PATIENCE = 600
"""Seconds for one run of the program, which takes half a minute on two idle cores."""


@pytest.fixture
def folder(tmp_path):
    """A folder with 199 small pictures, whose names occur in two folders, and one broken file."""
    photograph = Image.fromarray(skimage.data.coffee())
    for index in range(PICTURES):
        path = tmp_path / "photos" / str(index % 2) / f"{index // 2:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        photograph.crop((index, index, index + 32, index + 24)).save(path)
    path.write_bytes(b"not a picture")
    return tmp_path


@pytest.fixture
def start(folder):
    """Starts the program of the document, with a smaller command, folder and cluster; returns its process."""
    (program,) = re.findall(r"<!-- ray -->\n```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    sockets = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # paths of sockets may have no more than 107 characters
    cluster = f"num_cpus=2, include_dashboard=False, object_store_memory={80 * 2**20}, _temp_dir={sockets!r}"
    for old, new in {
        "upscale --model x4 --threads 1": COMMAND,
        "/shared": str(folder),
        "ray.init()": f"ray.init({cluster})",
        "100": str(PART),
    }.items():
        assert old in program
        program = program.replace(old, new)
    processes = []

    def run():
        processes.append(subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True))
        return processes[-1]

    yield run
    for process in processes:
        process.kill()
        process.wait()
    shutil.rmtree(sockets, ignore_errors=True)


def list_results(folder):
    """When each result was written, by its path."""
    return {path: path.stat().st_mtime_ns for path in (folder / "enlarged").rglob("*_x4.png") if path.name[0] != "."}


def read_manifest(folder):
    return pyarrow.dataset.dataset(folder / "enlarged_manifest").to_table().to_pylist()


def read_files(folder):
    """The content of every file below a folder, hidden ones too, by its path there."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def find_workers(process):
    """The processes that have a `PictureWorker`, among those that the program started."""
    below = psutil.Process(process.pid).children(recursive=True)
    return [child for child in below if "PictureWorker" in " ".join(child.cmdline())]


def finish(process):
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors


def test_a_killed_worker_loses_nothing_and_the_next_run_goes_on(folder, start, runner):
    process, deadline = start(), time.monotonic() + PATIENCE
    while len(list_results(folder)) < PICTURES // 4:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    workers = find_workers(process)
    assert len(workers) == 2
    workers[0].kill()
    before = list_results(folder)
    finish(process)

    broken = f"{folder}/photos/1/{PICTURES // 2 - 1:03}.png"
    rows = read_manifest(folder)
    assert Counter(row["input"] for row in rows) == Counter(map(str, (folder / "photos").rglob("*.png")))
    statuses = Counter(row["status"] for row in rows)
    assert statuses["failed"] == 1 and statuses["written"] + statuses["skipped"] == PICTURES - 1
    # Only what the killed worker had finished of its parts, of which Ray gives a worker some in advance, is skipped.
    assert statuses["skipped"] <= 4 * PART and len(before) < PICTURES - 1
    assert all((row["width"], row["height"]) == (128, 96) for row in rows if row["input"] != broken)
    assert runner.invoke(main, [*COMMAND.split(), f"{folder}/photos", "-o", f"{folder}/expected"]).exit_code == 1
    assert read_files(folder / "enlarged") == read_files(folder / "expected")
    after = list_results(folder)
    assert {path: after[path] for path in before} == before, "a finished picture was done again"

    # A run that ended before it wrote all of the manifest, and a new picture.
    lost = next(path for path in (folder / "enlarged_manifest").iterdir() if broken not in str(read_parquet(path)))
    pending = {row["input"] for row in read_parquet(lost)}
    lost.unlink()
    shutil.copy(folder / "photos/0/000.png", folder / "photos/new.png")
    finish(start())
    again = Counter((row["input"], row["status"]) for row in read_manifest(folder))
    again -= Counter((row["input"], row["status"]) for row in rows if row["input"] not in pending)
    expected = {(path, "skipped"): 1 for path in pending} | {(f"{folder}/photos/new.png", "written"): 1}
    assert again == expected | {(broken, "failed"): 1}
    now = list_results(folder)
    assert {path: now[path] for path in after} == after and len(now) == PICTURES


def read_parquet(path):
    return pyarrow.dataset.dataset(path).to_table().to_pylist()
