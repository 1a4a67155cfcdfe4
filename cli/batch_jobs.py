"""The jobs of a batch, one for each picture, and the work that a command does in them."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_psr.errors import KerasPSRError

if TYPE_CHECKING:
    from keras_psr.cli.result_size import ResultSize
    from keras_psr.films.encoders import Encoding
    from keras_psr.films.reading import Film
    from keras_psr.images.animation import Animation
    from keras_psr.images.compression import Compression
    from keras_psr.images.photo import Photo

STDIN, STDOUT = Path("stdin"), Path("stdout")
"""Shown to users as the source or the target of a job."""

OnPixels = Callable[[int], None]
Process = Callable[["Photo", OnPixels], "Photo"]
"""A function from a photo, and a callback for the number of computed pixels, to the result."""


@dataclass(frozen=True)
class Work:
    """What a command does to each picture.

    Attributes:
        verb: The command's name, which ends in e: `upscale`.
        model: Name of the model or painting, with which results are signed; None to choose one for each picture.
        load: A function from that name, or the name of a chosen model, to what is done to a photo.
        size: Size of the results.
        suffix: Suffix of the names of results.
        passes: How often each pixel is computed.
    """

    verb: str
    model: str | None
    load: Callable[[str], Process]
    size: "ResultSize"
    suffix: str
    passes: int = 1


@dataclass(frozen=True)
class FilmPlan:
    """How a film of a batch will be written.

    Attributes:
        encoding: How to encode.
        size: Height and width of the network's results, resized if requested, in pixels.
        signature: Who makes the film, with a digest of the options that change its frames.
    """

    encoding: "Encoding"
    size: tuple[int, int]
    signature: str


@dataclass
class Job:
    """One picture of a batch.

    Attributes:
        source: The picture's file, as shown to users.
        target: The file to write.
        file: The file to read: the source, or a copy of stdin.
        ending: Ending of the target, which sets its format.
        size: Height and width of the result, in pixels; None until the header has been read.
        network_pixels: Number of pixels that the network computes.
        model: Name of the model or painting. If it depends on the file's header, it is empty until that has been read.
        compression: How the file was compressed, if the model was chosen for that.
        status: `planned`, `written`, `skipped`, `failed` or `interrupted`.
        error: Why it failed, in one line.
        notes: What could not be kept.
        seconds: Time from reading the picture to renaming the written file.
        kind: `picture`, `animation` or `film`.
        frames: Number of frames, if there are several and their number is known.
        is_open: Whether its film is being written.
        moving: How the film will be written, or what the animation is; None for pictures.
    """

    source: Path
    target: Path
    file: Path
    ending: str
    size: tuple[int, int] | None = None
    network_pixels: int = 0
    model: str = ""
    compression: "Compression | None" = None
    status: str = "planned"
    error: str = ""
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    kind: str = "picture"
    frames: int | None = None
    is_open: bool = False
    moving: "FilmPlan | Animation | None" = None

    @cached_property
    def film(self) -> "Film":
        """What the job's film is; its file is read when this is first needed.

        Raises:
            ImageFileError: The film cannot be read.
            InstallationError: PyAV is not installed.
        """
        from keras_psr.films.formats import require_video

        require_video(self.source)
        from keras_psr.films.reading import read_film

        return read_film(self.file)

    def fail(self, error: Exception) -> None:
        """Marks the job as failed, with an error of one line that names the file."""
        text = " ".join(str(error).split())
        if isinstance(error, MemoryError):
            text = "there is not enough memory for it. Use fewer --jobs, or cut it into parts."
        elif not isinstance(error, KerasPSRError):
            text = (
                f"{type(error).__name__}: {text} (unexpected). Save it again with another program, or run with --debug."
            )
        text = text.replace(str(self.file), str(self.source))
        self.status, self.error = "failed", text if str(self.source) in text else f"{self.source}: {text}"

    def leave(self) -> None:
        """Marks the job as left to another run."""
        self.status, self.notes = "skipped", ["another run is writing it"]

    def describe(self) -> str:
        """Returns a line that describes the job to users."""
        height, width = self.size or (0, 0)
        size = f"{width}x{height}" + (f", {self.frames} frames" if self.frames else "")
        facts = [size, *([self.model] if self.compression else []), *self.notes]
        return f"{self.source} -> {self.target} ({'; '.join(facts)})"

    def to_json(self) -> dict[str, Any]:
        """Returns the job as a dictionary for JSON."""
        height, width = self.size or (None, None)
        return {
            "input": str(self.source),
            "output": str(self.target),
            "status": self.status,
            "model": self.model or None,
            "compression": asdict(self.compression) if self.compression else None,
            "height": height,
            "width": width,
            "frames": self.frames,
            "seconds": round(self.seconds, 3),
            "notes": self.notes,
            "error": self.error or None,
        }
