"""Runs a plan: `upscale` and `stylize` process a batch of pictures here, with progress and a report."""

import json
import os
import queue
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from keras_psr.cli.batch_films import check_options, write_animation, write_film
from keras_psr.cli.batch_jobs import STDOUT, Job, Process, Work
from keras_psr.cli.batch_options import STREAM, Batch
from keras_psr.cli.batch_plan import (
    Inputs,
    check_plan,
    find_inputs,
    leave_out_results,
    make_plan,
    plan_stdin,
    trusted_headers,
)
from keras_psr.cli.claims import ClaimedError, Claims, remove_stale_parts
from keras_psr.cli.model_choice import describe_choices
from keras_psr.cli.own_results import sign
from keras_psr.cli.signals import PATIENCE, heeded_signals
from keras_psr.cli.terminal import say, shown
from keras_psr.errors import KerasPSRError

FILM_PATIENCE = 60.0
"""Seconds that an encoder has to finish a film that was interrupted."""

WRITING_SHARE = 0.25
"""Share of the progress bar for writing a picture, relative to the share for computing it."""


def work_through(batch: Batch, load: Callable[[], Work]) -> None:
    """Does a command's work on all pictures, and exits with code 1 if any failed.

    Args:
        batch: The options.
        load: A function that returns the work; called once there is a picture.

    Raises:
        click.UsageError: Options exclude each other, or the output cannot be written.
        KerasPSRError: There is nothing to do, or the only picture failed.
    """
    batch.check()
    with heeded_signals(), scratch_folder(batch) as scratch:
        if batch.all_inputs == (STREAM,):
            found, file = Inputs(), scratch / "stdin"
            file.write_bytes(sys.stdin.buffer.read())
            work = load()
            plan = plan_stdin(file, batch, find_suffix(batch, work))
        else:
            found = find_inputs(batch.all_inputs)
            if not found.roots:
                report_outcome(found.failures, [], batch)
            work = load()
            plan = plan_files(found, batch, work)
        try:
            check_plan(plan, work, batch)
            for line in describe_choices(plan, work.size.scale):
                say(line)
            if batch.dry_run:
                say("\n".join(["Would write:", *(f"  {job.describe()}" for job in plan if job.status == "planned")]))
            else:
                run_plan(plan, work, batch, scratch)
        except KeyboardInterrupt:
            write_report(found.failures, plan, batch)
            raise
        report_outcome(found.failures, plan, batch, f"{work.verb}d")


@contextmanager
def scratch_folder(batch: Batch) -> Iterator[Path]:
    """Provides a temporary folder for pictures from stdin or to stdout, if there are any."""
    if not batch.streams:
        yield Path()
        return
    with TemporaryDirectory(prefix="keras-psr-") as folder:
        yield Path(folder)


def find_suffix(batch: Batch, work: Work) -> str:
    """Returns the suffix of the names of results."""
    return work.suffix if batch.suffix is None else batch.suffix


def plan_files(found: Inputs, batch: Batch, work: Work) -> list[Job]:
    """Returns the jobs for the pictures that were found, and prints a line about those left out.

    Raises:
        click.UsageError: There are several pictures, but the output is a single file; or an option applies to none.
        KerasPSRError: All pictures were left out.
    """
    suffix = find_suffix(batch, work)
    chosen, left_out = leave_out_results(found, batch, suffix)
    if not chosen:
        report_outcome([*found.failures, f"Nothing to {work.verb}. Left out: {'; '.join(left_out)}."], [], batch)
    if left_out:
        say(f"Left out: {'; '.join(left_out)}.")
    plan = make_plan(chosen, found, batch, suffix)
    check_options(plan, batch)
    return plan


def run_plan(plan: Sequence[Job], work: Work, batch: Batch, scratch: Path) -> None:
    """Processes the planned jobs, several at once. Ctrl-C ends it after the current tiles and files."""
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    finished: queue.SimpleQueue[Job] = queue.SimpleQueue()
    planned = [job for job in plan if job.status == "planned"]
    for job in planned:
        waiting.put(job)
    processes = {name: work.load(name) for name in dict.fromkeys(job.model for job in planned)}
    stopped, tried = threading.Event(), list[Job]()
    remove_stale_parts({job.target.parent for job in planned if job.target != STDOUT and job.target.parent.is_dir()})
    debug = bool(click.get_current_context().find_root().params.get("debug"))

    with trusted_headers(), show_progress(planned) as bar, Claims() as claims:

        def advance(pixels: float) -> None:
            if stopped.is_set():
                raise KeyboardInterrupt
            bar.advance(pixels)

        def work_off() -> None:
            while not stopped.is_set():
                try:
                    job = waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    process_file(job, processes[job.model], batch, claims, scratch, advance, bar, debug)
                except ClaimedError:
                    if job not in tried:
                        tried.append(job)
                        waiting.put(job)  # try again after all others, because the other run may have been killed
                        continue
                    job.leave()
                    advance(planned_work(job))
                except KeyboardInterrupt:
                    return
                finished.put(job)

        # Python waits for a pool's threads at exit, however long they take to write a file. It does not wait for these.
        threads = [threading.Thread(target=work_off, daemon=True) for _ in range(min(batch.jobs, len(planned)))]
        for thread in threads:
            thread.start()
        try:
            for _ in planned:
                job = wait_for(finished)
                bar.count()
                if job.status == "written":
                    say(job.describe())
        finally:
            stopped.set()
            wait_for_threads(threads, planned)


def wait_for_threads(threads: Sequence[threading.Thread], jobs: Sequence[Job]) -> None:
    """Waits until threads that were asked to stop have done so, but not longer than they should take.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed again. What arrives within a second is the first one, sent twice, as some
            programs do.
    """
    begin = time.monotonic()
    deadline = begin + PATIENCE
    if any(job.is_open for job in jobs):
        deadline += FILM_PATIENCE
        say("Finishing the film. Press Ctrl-C again to abandon it.")
    while any(thread.is_alive() for thread in threads) and time.monotonic() < deadline:
        try:
            time.sleep(0.05)
        except KeyboardInterrupt:
            if time.monotonic() > begin + 1:
                raise


def wait_for(finished: "queue.SimpleQueue[Job]") -> Job:
    """Returns the next finished job. It wakes up regularly, because on Windows Ctrl-C does not interrupt a wait."""
    while True:
        try:
            return finished.get(timeout=0.5)
        except queue.Empty:
            continue


def process_file(
    job: Job,
    process: Process,
    batch: Batch,
    claims: Claims,
    scratch: Path,
    advance: Callable[[float], None],
    bar: "BatchBar",
    debug: bool,
) -> None:
    """Reads, processes and writes one picture, and records the outcome in the job.

    Any exception that a library raises marks only this picture as failed.

    Raises:
        ClaimedError: Another run is working on the picture, or has written it since this run began.
        KeyboardInterrupt: The run should end.
    """
    start, counter = time.perf_counter(), Counter(job, advance, bar)
    try:
        place = scratch / f"stdout{job.ending}" if job.target == STDOUT else job.target
        with claims.claim(place) as part:
            if place.exists() and not batch.overwrite:
                raise ClaimedError  # another run has written it since this run began
            if job.kind == "film":
                job.is_open = True
                write_film(job, process, batch, counter.count, counter.count_frames)
            else:
                write_result(job, process, batch, part, counter.count)
                deliver(job, part, place, overwrite=batch.overwrite)
    except ClaimedError:
        raise
    except Exception as error:
        job.fail(error)
        if debug:
            say(traceback.format_exc())
    finally:
        job.is_open = False
    counter.finish()
    job.seconds = time.perf_counter() - start


class Counter:
    """Advances the progress bar for one job."""

    def __init__(self, job: Job, advance: Callable[[float], None], bar: "BatchBar") -> None:
        """Stores what to advance.

        Args:
            job: The job.
            advance: Called with numbers of pixels; it raises KeyboardInterrupt if the run should end.
            bar: Shows the number of frames.
        """
        self._job, self._advance, self._bar = job, advance, bar
        self._planned, self._done = planned_work(job), 0.0
        self._per_frame, self._copied = self._planned / (job.frames or 1), -1

    def count(self, pixels: float) -> None:
        """Counts computed pixels."""
        self._done += pixels
        self._advance(pixels)

    def count_frames(self, frames: int) -> None:
        """Counts a frame of a film, given the number of all in the result, some of which may have been copied."""
        if self._copied < 0:
            self._copied = frames - 1
            self._planned -= self._copied * self._per_frame
            self._bar.shorten(self._copied * self._per_frame)
        self.count((frames - self._copied) * self._per_frame - self._done)
        self._bar.show_frames(self._job, frames)

    def finish(self) -> None:
        """Counts what the plan did not foresee."""
        self._advance(self._planned - self._done)


def write_result(job: Job, process: Process, batch: Batch, part: Path, count: Callable[[float], None]) -> None:
    """Computes a result and writes it to `part`."""
    if job.kind == "animation":
        write_animation(job, process, batch, part, count)
        return
    from keras_psr.images.decoding import read_photo
    from keras_psr.images.encoding import fit_to_format, save_photo

    computed = 0

    def count_computed(pixels: int) -> None:
        nonlocal computed
        computed += pixels
        count(pixels)

    photo = process(read_photo(job.file), count_computed)
    count(job.network_pixels - computed)
    photo = sign(fit_to_format(photo, job.ending), job.model, job.ending)
    save_photo(part, photo, batch.quality)
    job.notes = list(photo.notes)


def deliver(job: Job, part: Path, place: Path, *, overwrite: bool) -> None:
    """Renames a finished file to its final name, or writes it to stdout.

    Raises:
        ClaimedError: Another run has written a file of that name.
        OSError: The file cannot be renamed.
    """
    if job.target == STDOUT:
        with part.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.buffer.flush()
    elif place.exists() and not overwrite:
        raise ClaimedError
    else:
        os.replace(part, place)
    job.status = "written"


def planned_work(job: Job) -> float:
    """Returns what the progress bar counts for a job: the pixels to compute, and a share for writing."""
    return job.network_pixels * (1 + WRITING_SHARE)


class BatchBar:
    """One progress bar for the tiles, frames and files of all jobs. Without a terminal it does nothing."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        """Creates a bar that is not shown yet.

        Args:
            jobs: The planned jobs.
        """
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        word = "picture" if all(job.kind == "picture" for job in jobs) else "file"
        self._files = f"{len(jobs)} {word}{'' if len(jobs) == 1 else 's'}"
        self.progress = Progress(
            *(TextColumn("{task.fields[done]}"), BarColumn(), TaskProgressColumn()),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._finished, self._film, self._frames = 0, "", 0.0
        total = sum(planned_work(job) for job in jobs)
        self._task = self.progress.add_task("", total=total, done=f"0 of {self._files}", rate="")

    def advance(self, pixels: float) -> None:
        """Advances the bar by a number of computed pixels, or by the share for writing."""
        speed = self.progress.tasks[0].speed or 0
        rate = f"{speed * self._frames:.1f} fps" if self._frames else f"{speed / 1e6:.1f} MP/s"
        self.progress.update(self._task, advance=pixels, rate=rate)

    def show_frames(self, job: Job, count: int) -> None:
        """Shows how many frames of a film are done."""
        of = f" of {job.frames}" if job.frames else ""
        self._film, self._frames = f"frame {count}{of}", (job.frames or 0) / max(1.0, planned_work(job))
        self._show_done()

    def shorten(self, pixels: float) -> None:
        """Leaves pixels out of what is planned."""
        self.progress.update(self._task, total=(self.progress.tasks[0].total or 0) - pixels)

    def count(self) -> None:
        """Counts a finished file."""
        self._finished, self._film, self._frames = self._finished + 1, "", 0.0
        self._show_done()

    def _show_done(self) -> None:
        files = "" if self._film and self._files == "1 file" else f"{self._finished} of {self._files}"
        self.progress.update(self._task, done=", ".join(filter(None, (files, self._film))))


@contextmanager
def show_progress(jobs: Sequence[Job]) -> Iterator[BatchBar]:
    """Shows a progress bar inside the context."""
    bar = BatchBar(jobs)
    with shown(bar.progress):
        yield bar


def write_report(failures: Sequence[str], plan: Sequence[Job], batch: Batch) -> list[str]:
    """Writes the report of `--json`, if requested.

    Args:
        failures: Messages about inputs without pictures.
        plan: All jobs, finished or not.
        batch: The options.

    Returns:
        The messages about all failures, of inputs and of pictures.

    Raises:
        KerasPSRError: The report cannot be written.
    """
    from keras_psr.images.atomic import write_whole

    failures = [*failures, *(job.error for job in plan if job.status == "failed")]
    text = json.dumps({"failures": failures, "pictures": [job.to_json() for job in plan]}, indent=2) + "\n"
    if batch.report == STREAM:
        click.echo(text, nl=False)
    elif batch.report:
        path = Path(batch.report)
        try:
            if path.exists() and not path.is_file():  # a pipe or a device, which must not be replaced
                path.write_text(text, encoding="utf-8")
            else:
                with write_whole(path) as unfinished:
                    unfinished.write_text(text, encoding="utf-8")
        except OSError as error:
            raise KerasPSRError(f"--json {batch.report} cannot be written: {error.strerror or error}.") from error
    return failures


def report_outcome(failures: Sequence[str], plan: Sequence[Job], batch: Batch, done: str = "done") -> None:
    """Writes the report, prints a summary, and exits with code 1 if anything failed.

    Raises:
        KerasPSRError: The only picture failed.
        click.exceptions.Exit: Some of several pictures failed; the summary names each.
    """
    failures = write_report(failures, plan, batch)
    written = sum(job.status == "written" for job in plan)
    skipped = [job for job in plan if job.status == "skipped"]
    elsewhere = sum(bool(job.notes) for job in skipped)
    if len(failures) == 1 and all(job.status == "failed" for job in plan):
        raise KerasPSRError(failures[0])
    if len(skipped) > elsewhere:
        say(f"{len(skipped) - elsewhere} skipped, because their results exist.")
    if elsewhere:
        say(f"{elsewhere} left to another run, which is writing them or has just done so.")
    if failures:
        say("\n  ".join([f"{written} {done}, {len(failures)} failed:", *failures]))
        raise click.exceptions.Exit(1)
