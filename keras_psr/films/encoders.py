"""Chooses how a film is encoded: codec, pixel format and quality, by what the film is and where it goes."""

from dataclasses import dataclass, field
from difflib import get_close_matches

import av

from keras_psr.errors import ConfigError
from keras_psr.films.colour import chroma_of, depth_of, has_opacity
from keras_psr.films.reading import Film

ENCODERS = {
    "h264": "libx264",
    "hevc": "libx265",
    "h265": "libx265",
    "av1": "libsvtav1",
    "vp9": "libvpx-vp9",
    "prores": "prores_ks",
}
"""Maps names of codecs to the encoders that are used for them. Other encoders go by FFmpeg's own names."""

_BY_QUALITY = {"flags": "+qscale", "global_quality": str(2 * 118)}
SETTINGS: dict[str, dict[str, str]] = {
    "libx264": {"crf": "18", "preset": "medium"},
    "libx265": {"crf": "20", "preset": "fast", "x265-params": "log-level=error"},
    "libsvtav1": {"crf": "25", "preset": "8"},
    "libvpx-vp9": {"crf": "24", "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"},
    "mpeg4": _BY_QUALITY,
    "mpeg2video": _BY_QUALITY,
}
"""Options of encoders. Their own defaults are for small files, and would blur what a network has drawn."""

NO_ALPHA = ("libx265",)
"""Encoders whose transparency hardly any player shows."""

LARGEST_DEPTH = 10
"""Bits per channel that players show; more are kept only by codecs that were asked for."""


@dataclass(frozen=True)
class Encoding:
    """How a film is encoded.

    Attributes:
        encoder: FFmpeg's name of the encoder.
        frame_format: FFmpeg's name of the pixel format.
        options: Options of the encoder.
        notes: What is lost, in a few words each.
    """

    encoder: str
    frame_format: str
    options: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def alignment(self) -> tuple[int, int]:
        """Numbers that height and width of frames must be multiples of, because pixels share chroma."""
        across, down = chroma_of(av.VideoFormat(self.frame_format))
        return down, across


def choose_encoding(film: Film, ending: str, codec: str | None = None, crf: int | None = None) -> Encoding:
    """Returns how to encode what is made from a film.

    Args:
        film: The film.
        ending: Ending of the result's name, one of `formats.CONTAINERS`.
        codec: A codec or encoder; None for one that most players know, and that holds the film's depth.
        crf: The encoder's constant rate factor, where lower means better quality; None for a good one.

    Returns:
        The encoding: with the film's depth, chroma sampling and transparency, as far as the encoder has them.

    Raises:
        ConfigError: There is no such encoder, or it has no constant rate factor.

    Example:
        encoding = choose_encoding(read_film(Path("clip.mp4")), ".mkv", codec="hevc")
    """
    name = codec or _choose_codec(film, ending)
    encoder = _find_encoder(name)
    formats = [kind for kind in encoder.video_formats or [] if not (encoder.name in NO_ALPHA and has_opacity(kind))]
    if not formats:
        raise ConfigError(f"--codec {name} needs special hardware, which is not supported. Leave it out.")
    bits = film.bits if codec else min(film.bits, LARGEST_DEPTH)
    chosen = min(formats, key=lambda candidate: _distance(candidate, film, bits))
    options = dict(SETTINGS.get(encoder.name, {}))
    if crf is not None:
        if "crf" not in options:
            raise ConfigError(
                f"--crf does not go with --codec {name}, which has no constant rate factor. Leave it out."
            )
        options["crf"] = str(crf)
    notes = []
    if film.light.options and encoder.name == "libx265" and depth_of(chosen) > 8:
        options["x265-params"] += f":hdr10=1{film.light.options}"
    elif film.light.options:
        notes.append(f"HDR's brightness data left out for {name}")
    if film.light.is_dynamic:
        notes.append("dynamic HDR data left out")
    if depth_of(chosen) < film.bits:
        notes.append(f"{film.bits} bits rounded to {depth_of(chosen)} for {name}")
    if film.has_alpha and not has_opacity(chosen):
        notes.append(f"transparency blended with white for {name}")
    return Encoding(encoder.name, chosen.name, options, tuple(notes))


def _choose_codec(film: Film, ending: str) -> str:
    if film.has_alpha and ending in (".webm", ".mkv", ".mov"):
        return "prores" if ending == ".mov" else "vp9"
    if ending == ".webm":
        return "vp9" if film.bits <= 8 else "av1"
    return "h264" if film.bits <= 8 else "hevc"


def _find_encoder(name: str) -> av.Codec:
    """Returns a video encoder by its own name or that of its codec.

    Raises:
        ConfigError: There is none.
    """
    try:
        encoder = av.Codec(ENCODERS.get(name.lower(), name), "w")
        if encoder.type == "video":
            return encoder
    except ValueError:  # PyAV's UnknownCodecError
        pass
    near = get_close_matches(name.lower(), ENCODERS, n=1)
    hint = f"Did you mean {near[0]}? " if near else ""
    raise ConfigError(f"--codec {name} is not a video encoder. {hint}Give one of {', '.join(ENCODERS)}.")


def _distance(candidate: av.VideoFormat, film: Film, bits: int) -> tuple[int, ...]:
    """Returns how far a pixel format is from a film's; tuples compare what matters most first."""
    depth = depth_of(candidate)
    lacks_alpha = film.has_alpha and not has_opacity(candidate)
    extra_alpha = has_opacity(candidate) and not film.has_alpha
    if candidate.is_rgb or len(candidate.components) < 3:
        loss, gain = (3, 0) if not candidate.is_rgb else (0, 4)
    else:
        chroma = chroma_of(candidate)
        wanted = (2, 2) if film.colour.matrix == 0 else film.chroma
        loss = sum(has > want for has, want in zip(chroma, wanted, strict=True))
        gain = sum(has < want for has, want in zip(chroma, wanted, strict=True))
    odd = not candidate.name.startswith("yuv") or candidate.name.startswith("yuvj") or candidate.has_palette
    return int(lacks_alpha), max(0, bits - depth), loss, max(0, depth - bits), gain, int(extra_alpha), int(odd)
