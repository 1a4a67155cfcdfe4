"""ICC colour profiles: whether one fits the pixels, and conversion to sRGB.

Reference:
    ICC.1:2022, section 7.2: the header of a profile.
"""

import io

from PIL import Image, ImageCms

_CLASSES = (b"mntr", b"scnr", b"prtr", b"spac")
"""Profiles of screens, cameras, printers and colour spaces; others tell of no picture's pixels."""


def find_fault(profile: bytes, space: str) -> str | None:
    """Why a profile does not belong to pixels.

    Args:
        profile: The profile.
        space: Colour space of the pixels: `RGB`, `GRAY` or `CMYK`.

    Returns:
        None if it does belong to them; else a few words.
    """
    if len(profile) < 132 or profile[36:40] != b"acsp":
        return "damaged colour profile"
    if profile[12:16] not in _CLASSES:
        return "colour profile of another purpose"
    described = profile[16:20].decode("latin-1").strip()
    if described != space:
        return f"colour profile for {described}, not {space},"
    try:
        ImageCms.ImageCmsProfile(io.BytesIO(profile))
    except Exception:  # Pillow raises OSError, and others for what it finds inside
        return "damaged colour profile"
    return None


def convert_to_srgb(image: Image.Image, profile: bytes) -> tuple[Image.Image, bytes]:
    """Converts a picture of 8 bits through its profile, relative to white and with black point compensation.

    Args:
        image: Pillow's picture, of mode CMYK or L.
        profile: Its profile.

    Returns:
        An RGB picture and the profile of sRGB.

    Raises:
        PIL.ImageCms.PyCMSError: The profile holds no conversion.
    """
    target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
    converted = ImageCms.profileToProfile(image, io.BytesIO(profile), target, intent, "RGB", flags=flags)
    assert converted is not None
    return converted, target.tobytes()
