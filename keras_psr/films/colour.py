"""Frames of films as RGB pictures, and back: matrices, ranges, chroma sampling and depth."""

from dataclasses import dataclass, replace
from fractions import Fraction

import av
import numpy as np
from av.filter import Graph

from keras_psr.errors import ImageFileError
from keras_psr.images.photo import Photo
from keras_psr.images.pixels import spread_levels, to_8_bits, to_three_channels

RGB, BT709, UNSPECIFIED = 0, 1, 2
"""Codes of matrices, as in ITU-T H.273 and FFmpeg. `UNSPECIFIED` is also a code of primaries and transfers."""

LUMA = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087)}
LUMA |= {9: (0.2627, 0.0593)}
"""Maps the codes of matrices to the weights of red and blue in luma (ITU-T H.273, table 4)."""

_NAMES = {1: "bt709", 4: "fcc", 5: "bt470", 6: "smpte170m", 7: "smpte240m", 9: "bt2020"}
"""The same matrices as FFmpeg's scale filter calls them."""

_FLAGS = "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
"""Without these, swscale is off by up to two levels."""

KEEPING_RANGE = ("ffv1", "libsvtav1", "libvpx-vp9", "libx264", "libx265")
"""Encoders that store whether a film has full range. Players assume limited range for all others."""

CENTRED = ("mjpeg", "mpeg1video")
"""Codecs whose chroma lies between pixels, and not above every second pixel."""

_DEPTHS = (9, 10, 12, 14, 16)
"""Depths above 8 that FFmpeg has planar formats for."""


@dataclass(frozen=True)
class Colour:
    """What the numbers of a film's frames mean.

    Attributes:
        matrix: Code of the matrix between RGB and luma and chroma; `RGB` if frames are RGB themselves.
        is_full: Whether black and white are 0 and the largest number, and not 16 and 235 as in most films.
        primaries: Code of the primaries, which networks do not change.
        transfer: Code of the transfer function, which networks do not change.
    """

    matrix: int
    is_full: bool
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED

    def written_by(self, encoder: str, frame_format: str) -> "Colour":
        """Returns the colours of a film made from this one.

        They are the same, as far as possible: what was RGB becomes BT.709 in limited range if the format has luma and
        chroma, everything becomes RGB if the format is RGB, and encoders that cannot store their range have only one.

        Args:
            encoder: FFmpeg's name of the encoder.
            frame_format: FFmpeg's name of the pixel format.
        """
        if av.VideoFormat(frame_format).is_rgb:
            return replace(self, matrix=RGB, is_full=True)
        colour = replace(self, matrix=BT709, is_full=False) if self.matrix == RGB else self
        return colour if encoder in KEEPING_RANGE else replace(colour, is_full=False)


def find_colour(frame: av.VideoFrame, primaries: int = UNSPECIFIED, transfer: int = UNSPECIFIED) -> Colour:
    """Returns the colours of a frame. Films that do not name their matrix get the one that players assume.

    Args:
        frame: A decoded frame.
        primaries: Code of the primaries, from the decoder.
        transfer: Code of the transfer function, from the decoder.

    Raises:
        ImageFileError: The matrix is not in `LUMA`.
    """
    is_rgb, name = frame.format.is_rgb or frame.format.has_palette, frame.format.name
    matrix = int(frame.colorspace)
    if is_rgb:
        matrix = RGB
    elif matrix in (RGB, UNSPECIFIED, 3):  # 3 is reserved
        matrix = BT709 if frame.width >= 1280 or frame.height > 576 else 6
    elif matrix not in LUMA:
        raise ImageFileError(
            f"its colours have the matrix {matrix} of ITU-T H.273, which is not supported. Convert the film to BT.709 "
            "or BT.2020 (non-constant luminance) first."
        )
    by_name = is_rgb or name.startswith(("yuvj", "gray"))
    is_full = int(frame.color_range) == 2 or int(frame.color_range) == 0 and by_name
    return Colour(matrix, is_full, primaries, transfer)


def depth_of(frame_format: av.VideoFormat) -> int:
    """Returns the bits per channel of a frame's format."""
    return 8 if frame_format.has_palette else max(component.bits for component in frame_format.components)


def chroma_of(frame_format: av.VideoFormat) -> tuple[int, int]:
    """Returns how many pixels of a frame's format share a chroma value, horizontally and vertically."""
    if frame_format.is_rgb or len(frame_format.components) < 3:
        return 1, 1
    return 4 // frame_format.chroma_width(4), 4 // frame_format.chroma_height(4)


def has_opacity(frame_format: av.VideoFormat) -> bool:
    """Returns whether a frame's format has an alpha channel."""
    return any(component.is_alpha for component in frame_format.components)


class FrameReader:
    """Converts decoded frames to photos of one size: 8 bits for 8 bits, else 16."""

    def __init__(self, height: int, width: int, codec: str) -> None:
        """Creates a converter.

        Args:
            height: Height of the photos; frames of another size, which some films have in between, are resized.
            width: Width of the photos.
            codec: FFmpeg's name of the codec.
        """
        self._height, self._width, self._is_centred = height, width, codec in CENTRED
        self._kind: tuple[int, int, str, int, int] | None = None

    def __call__(self, frame: av.VideoFrame) -> Photo:
        """Returns a frame as a photo.

        Raises:
            ImageFileError: The frame's matrix is not supported.
        """
        kind = (frame.width, frame.height, frame.format.name, int(frame.colorspace), int(frame.color_range))
        if kind != self._kind:
            self._colour = find_colour(frame)
            self._prepare(frame)
            self._kind = kind
        self._graph.push(frame)
        converted = self._graph.pull()
        assert isinstance(converted, av.VideoFrame)
        if self._bits == 8:
            levels = converted.to_ndarray()
            return Photo(levels[..., :3], levels[..., 3]) if levels.shape[2] == 4 else Photo(levels)
        planes = _planes(converted)
        rgb = _swap_gbr(planes, self._bits) if self._is_rgb else _to_rgb(planes, self._colour, self._bits)
        return Photo(rgb, spread_levels(planes[3], self._bits) if len(planes) == 4 else None)

    def _prepare(self, frame: av.VideoFrame) -> None:
        bits, with_alpha = depth_of(frame.format), has_opacity(frame.format)
        self._is_rgb = self._colour.matrix == RGB
        self._bits = 8 if bits <= 8 else min(depth for depth in _DEPTHS if depth >= min(bits, 16))
        if self._bits == 8:
            wanted = "rgba" if with_alpha else "rgb24"
        elif self._is_rgb:
            self._bits = max(self._bits, 10) if with_alpha else self._bits
            wanted = f"gbr{'a' if with_alpha else ''}p{self._bits}le"
        else:
            self._bits = 16 if with_alpha and self._bits == 14 else self._bits  # FFmpeg lacks 14 bits with alpha
            wanted = f"yuv{'a' if with_alpha else ''}444p{self._bits}le"
        keeps_range = self._bits > 8 and not self._is_rgb
        received = "pc" if self._colour.is_full else "tv"
        options = [f"w={self._width}:h={self._height}", _FLAGS, f"in_range={received}"]
        options += _place_chroma("in", frame.format, is_centred=self._is_centred)
        options += [f"out_range={received if keeps_range else 'pc'}"]
        if not self._is_rgb:
            name = _NAMES[self._colour.matrix]
            options += [f"in_color_matrix={name}", *([f"out_color_matrix={name}"] if keeps_range else [])]
        self._graph = build_graph(frame, ("scale", ":".join(options)), ("format", wanted))


class FrameWriter:
    """Converts photos to frames for an encoder."""

    def __init__(self, colour: Colour, frame_format: str, height: int, width: int) -> None:
        """Creates a converter.

        Args:
            colour: Colours of the frames.
            frame_format: FFmpeg's name of the pixel format, such as `yuv420p10le`.
            height: Height of the frames; a photo that is smaller by one is extended at the bottom.
            width: Width of the frames; a photo that is smaller by one is extended at the right.
        """
        self._colour, self._format, self._size = colour, av.VideoFormat(frame_format), (height, width)
        depth = depth_of(self._format)
        self._bits = 8 if depth <= 8 or self._format.is_rgb else min(bits for bits in _DEPTHS if bits >= depth)
        self._graph: Graph | None = None

    def __call__(self, photo: Photo) -> av.VideoFrame:
        """Returns a photo as a frame without a time stamp."""
        pixels = to_three_channels(photo.pixels)
        if photo.alpha is not None:
            pixels = np.dstack([pixels, photo.alpha])
        missing = [wanted - given for wanted, given in zip(self._size, pixels.shape[:2], strict=True)]
        if any(missing):
            pixels = np.pad(pixels, [(0, missing[0]), (0, missing[1]), (0, 0)], mode="edge")
        if self._bits == 8:
            levels = to_8_bits(pixels)
            kind = "rgb24" if pixels.shape[2] == 3 else "rgba"
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(levels), format=kind)
        else:
            frame = _to_yuv(pixels, self._colour, self._bits)
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        if self._graph is None:
            self._graph = self._prepare(frame)
        self._graph.push(frame)
        converted = self._graph.pull()
        assert isinstance(converted, av.VideoFrame)
        return converted

    def _prepare(self, frame: av.VideoFrame) -> Graph:
        colour = self._colour
        written = "pc" if colour.is_full else "tv"
        options = [_FLAGS, f"in_range={'pc' if frame.format.is_rgb else written}", f"out_range={written}"]
        options += _place_chroma("out", self._format)
        if colour.matrix != RGB:
            name = _NAMES[colour.matrix]
            options += [f"out_color_matrix={name}", *([] if frame.format.is_rgb else [f"in_color_matrix={name}"])]
        tags = f"range={written}:colorspace={colour.matrix}"
        tags += f":color_primaries={colour.primaries}:color_trc={colour.transfer}"
        return build_graph(frame, ("scale", ":".join(options)), ("format", self._format.name), ("setparams", tags))


def _place_chroma(side: str, frame_format: av.VideoFormat, *, is_centred: bool = False) -> list[str]:
    """Returns options of the scale filter that say where the chroma of a subsampled format lies.

    Without them, the filter assumes the middle between pixels for input, but not for output.
    """
    across, down = chroma_of(frame_format)
    horizontal = [f"{side}_h_chr_pos={128 if is_centred else 0}"] if across > 1 else []
    return horizontal + ([f"{side}_v_chr_pos=128"] if down > 1 else [])


def build_graph(frame: av.VideoFrame, *steps: tuple[str, str]) -> Graph:
    """Returns a graph of FFmpeg's filters for frames like this one.

    Args:
        frame: A frame with the size and the format that all will have.
        steps: The filters in their order, each a name and its options.
    """
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1, 25)
    )
    filters = [graph.add(name, options) for name, options in steps]
    graph.link_nodes(source, *filters, graph.add("buffersink")).configure()
    return graph


def _planes(frame: av.VideoFrame) -> list[np.ndarray]:
    """Returns the planes of a frame of more than 8 bits without subsampling, as views."""
    return [
        np.frombuffer(plane, np.uint16).reshape(frame.height, -1)[:, : frame.width]  # type: ignore[call-overload]
        for plane in frame.planes
    ]


def _swap_gbr(planes: list[np.ndarray], bits: int) -> np.ndarray:
    green, blue, red = planes[:3]
    return spread_levels(np.dstack([red, green, blue]), bits)


def _ranges(colour: Colour, bits: int) -> tuple[float, float, float, float]:
    """Returns offset and extent of luma, then of chroma, whose extent reaches from -0.5 to 0.5."""
    step = 2.0 ** (bits - 8)
    if colour.is_full:
        return 0.0, 2.0**bits - 1, 128 * step, 2.0**bits - 1
    return 16 * step, 219 * step, 128 * step, 224 * step


def _to_rgb(planes: list[np.ndarray], colour: Colour, bits: int) -> np.ndarray:
    """Returns luma and chroma of more than 8 bits as 16-bit RGB, because swscale is off by four levels of 10 bits."""
    red_weight, blue_weight = LUMA[colour.matrix]
    black, luma_extent, middle, chroma_extent = _ranges(colour, bits)
    luma = (planes[0] - np.float32(black)) * np.float32(65535 / luma_extent)
    blue, red = ((plane - np.float32(middle)) * np.float32(65535 / chroma_extent) for plane in planes[1:3])
    rgb = np.empty((*luma.shape, 3), np.float32)
    rgb[..., 0] = luma + red * np.float32(2 * (1 - red_weight))
    rgb[..., 2] = luma + blue * np.float32(2 * (1 - blue_weight))
    rgb[..., 1] = luma - np.float32(red_weight) * rgb[..., 0] - np.float32(blue_weight) * rgb[..., 2]
    rgb[..., 1] /= np.float32(1 - red_weight - blue_weight)
    return np.rint(np.clip(rgb, 0, 65535, out=rgb), out=rgb).astype(np.uint16)


def _to_yuv(pixels: np.ndarray, colour: Colour, bits: int) -> av.VideoFrame:
    """Returns RGB, with or without opacity, as a frame of luma and chroma of more than 8 bits without subsampling."""
    red_weight, blue_weight = LUMA[colour.matrix]
    black, luma_extent, middle, chroma_extent = _ranges(colour, bits)
    top = np.iinfo(pixels.dtype).max
    red, green, blue = (pixels[..., channel] * np.float32(1 / top) for channel in range(3))
    luma = red * np.float32(red_weight) + blue * np.float32(blue_weight)
    luma += green * np.float32(1 - red_weight - blue_weight)
    planes = [luma * np.float32(luma_extent) + np.float32(black)]
    for channel, weight in ((blue, blue_weight), (red, red_weight)):
        planes.append((channel - luma) * np.float32(chroma_extent / (2 * (1 - weight))) + np.float32(middle))
    with_alpha = pixels.shape[2] == 4
    if with_alpha:
        planes.append(pixels[..., 3] * np.float32((2**bits - 1) / top))
    frame = av.VideoFrame(pixels.shape[1], pixels.shape[0], f"yuv{'a' if with_alpha else ''}444p{bits}le")
    for plane, levels in zip(frame.planes, planes, strict=True):
        target = np.frombuffer(plane, np.uint16).reshape(frame.height, -1)  # type: ignore[call-overload]
        target[:, : frame.width] = np.rint(np.clip(levels, 0, 2**bits - 1))
    return frame
