"""The lines that say which models were chosen for the pictures of a batch, and why."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_psr.cli.batch_jobs import Job
    from keras_psr.images.compression import Compression


def describe_choices(plan: Sequence["Job"], scale: int) -> list[str]:
    """Returns a line for each model that was chosen for planned pictures, and for lossy and clean ones apart.

    Args:
        plan: The jobs of the batch.
        scale: Scale of the models.

    Returns:
        Lines such as `Chose x4-photo for 2 lossy pictures (1 JPEG of quality 73, 1 lossy WebP).`; none if the user
        named a model.
    """
    from keras_psr.inference.registry import default_model

    groups: dict[tuple[str, bool], list[Compression]] = {}
    word = "file" if any(job.kind == "film" for job in plan) else "picture"
    for job in plan:
        if job.compression and job.status == "planned":
            groups.setdefault((job.model, job.compression.has_artefacts), []).append(job.compression)
    lines = []
    for (model, is_lossy), found in groups.items():
        pictures = f"{len(found)} {'lossy' if is_lossy else 'clean'} {word}{'s' if len(found) > 1 else ''}"
        is_plain = model == default_model(scale)
        reason = f", because no shipped model of scale {scale} smooths artefacts" if is_lossy and is_plain else ""
        lines.append(f"Chose {model} for {pictures} ({describe_compressions(found)}){reason}.")
    return lines


def describe_compressions(found: Sequence["Compression"]) -> str:
    """Returns how many files there are of each kind: `2 JPEG of quality 60 to 92, 1 AVIF`."""
    kinds = Counter(compression.kind for compression in found)
    qualities = describe_qualities(compression.quality for compression in found if compression.quality)
    texts = (kind + (qualities if kind == "JPEG" else "") for kind in kinds)
    if len(found) == 1:
        return next(texts)
    return ", ".join(f"{number} {text}" for number, text in zip(kinds.values(), texts, strict=True))


def describe_qualities(qualities: Iterable[int]) -> str:
    """Returns ` of quality 73`, ` of quality 60 to 92`, or nothing if none is known."""
    ends = sorted(set(qualities))
    return f" of quality {' to '.join(map(str, dict.fromkeys((ends[0], ends[-1]))))}" if ends else ""
