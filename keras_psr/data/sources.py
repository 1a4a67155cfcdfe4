"""Sources of pictures: a folder, a glob, `tfds:NAME[:SPLIT]` or `sample`, each opened as a list of `Picture`."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from keras_psr.errors import ConfigError, DataError, ImageFileError
from keras_psr.images.decoding import image_size, read_rgb
from keras_psr.images.finding import find_images

SAMPLE_TRAINING = ("astronaut", "chelsea", "hubble_deep_field", "rocket", "stereo_motorcycle")
SAMPLE_HELD_OUT = ("coffee",)
"""Colour photographs that come with scikit-image. No network is fitted to `sample:val`, the held-out ones."""

TFDS_NOMINAL_SIZE = (480, 640)
"""Assumed (height, width) of a `tfds:` picture, for sampling: its true size is known only after decoding."""

Item = TypeVar("Item")
Result = TypeVar("Result")

OnPicture = Callable[[str, int, int], None]
"""A function that is called before each picture with its name, the number of finished pictures, and the total."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Picture:
    """A picture that is decoded on demand.

    Attributes:
        name: Its name in messages: a path, or the source and a number.
        height: Height in pixels; nominal for `tfds:`.
        width: Width in pixels; nominal for `tfds:`.
        read: A function that decodes it to uint8 RGB (height, width, 3) or raises ImageFileError.
    """

    name: str
    height: int
    width: int
    read: Callable[[], np.ndarray]

    def __str__(self) -> str:
        """Returns the name."""
        return self.name


def open_sources(sources: Sequence[str]) -> list[Picture]:
    """Lists the pictures of several sources, in order.

    Broken files are left out; one warning counts and names them.

    Args:
        sources: Each a folder (searched recursively), a glob, `tfds:NAME[:SPLIT]`, `sample` or `sample:val`.

    Returns:
        The pictures, not decoded yet.

    Raises:
        DataError: A source is missing or has no usable picture.

    Example:
        pictures = open_sources(["photos", "more/*.png"])
        pixels = pictures[0].read()
    """
    return [picture for source in sources for picture in open_source(source)]


def open_source(source: str) -> list[Picture]:
    """Lists the pictures of one source, as `open_sources` does.

    Example:
        pictures = open_source("photos/**/*.jpg")
    """
    if source == "sample":
        return _open_sample(SAMPLE_TRAINING)
    if source == "sample:val":
        return _open_sample(SAMPLE_HELD_OUT)
    if source.startswith("tfds:"):
        return _open_tfds(source)
    return _open_files(source)


def use_pictures(
    pictures: Sequence[Item],
    use: Callable[[Item], Result],
    *,
    refusal: str,
    limit: int | None = None,
    on_picture: OnPicture = lambda name, done, total: None,
) -> tuple[list[Result], list[tuple[str, str]]]:
    """Applies a function to each picture, and leaves out pictures for which it fails.

    One warning names the pictures that were left out.

    Args:
        pictures: `Picture` objects, or paths of files.
        use: The function. It raises ImageFileError or ConfigError if a picture cannot be used.
        refusal: Text of the error if no picture can be used. `{number}` stands for the number of pictures.
        limit: Number of usable pictures to stop at; None for all pictures.
        on_picture: Called before each picture.

    Returns:
        The results of `use` for the usable pictures; and (name, reason) of the pictures that were left out.

    Raises:
        DataError: No picture can be used.

    Example:
        pictures = open_sources(["photos/"])
        pixels, skipped = use_pictures(pictures, lambda one: one.read(), refusal="None of {number} can be read.")
    """
    results: list[Result] = []
    skipped: list[tuple[str, str]] = []
    for done, picture in enumerate(pictures):
        on_picture(str(picture), done, len(pictures))
        try:
            results.append(use(picture))
        except (ImageFileError, ConfigError) as error:
            skipped.append((str(picture), str(error)))
        if len(results) == limit:
            break
    if not results:
        reason = f" {skipped[0][0]}: {skipped[0][1].rstrip('.')}." if skipped else ""
        raise DataError(refusal.replace("{number}", str(len(pictures))) + reason)
    report_skipped(skipped)
    return results, skipped


def report_skipped(skipped: Iterable[tuple[str, str]]) -> None:
    """Warns once about all pictures that are left out.

    Args:
        skipped: Pairs (name, reason).

    Example:
        report_skipped([("photo.jpg", "it is truncated")])
    """
    skipped = list(skipped)
    if skipped:
        lines = "".join(f"\n  {name}: {reason}" for name, reason in skipped)
        log.warning("%d picture%s left out:%s", len(skipped), "" if len(skipped) == 1 else "s", lines)


def _open_files(source: str) -> list[Picture]:
    def describe(path: Path) -> Picture:
        height, width = image_size(path)
        return Picture(str(path), height, width, partial(read_rgb, path))

    refusal = f"No usable picture in {source}: {{number}} found, all broken. Give another source."
    return use_pictures(find_images(source), describe, refusal=refusal)[0]


def _open_sample(names: Sequence[str]) -> list[Picture]:
    import skimage.data

    def read(name: str) -> np.ndarray:
        image = getattr(skimage.data, name)()
        return np.asarray(image[0] if isinstance(image, tuple) else image)  # stereo pairs: the left picture

    sizes: dict[str, tuple[int, ...]] = {name: read(name).shape for name in names}
    return [Picture(f"sample:{name}", sizes[name][0], sizes[name][1], partial(read, name)) for name in names]


def _open_tfds(source: str) -> list[Picture]:
    import tensorflow_datasets as tfds

    name, _, split = source.removeprefix("tfds:").partition(":")
    split = split or "train"
    try:
        records: Any = tfds.data_source(name, split=split)
        key = _image_feature(tfds.builder(name).info.features, tfds.features.Image)
    except Exception as error:  # tfds raises many kinds: unknown name, unknown split, failed download
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"Cannot open {source} (tfds:NAME[:SPLIT], as in tfds:div2k or tfds:coco/2014:validation): {reason}"
        ) from error
    if len(records) == 0:
        raise DataError(f"{source} contains no picture. Choose another split than {split!r}.")
    height, width = TFDS_NOMINAL_SIZE

    def read(index: int) -> np.ndarray:
        return np.asarray(records[index][key], np.uint8)

    return [Picture(f"{source}[{index}]", height, width, partial(read, index)) for index in range(len(records))]


def _image_feature(features: Any, image_type: Any) -> str:
    """Returns the name of the feature that holds the picture: `hr` if present (div2k), else the first colour image."""
    names = [name for name, feature in features.items() if isinstance(feature, image_type) and feature.shape[-1] == 3]
    if not names:
        raise DataError(f"it has no colour picture; its features are {', '.join(features)}.")
    return "hr" if "hr" in names else str(names[0])
