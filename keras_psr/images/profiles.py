"""ICC colour profiles: checks that they fit the pixels, and conversion to sRGB.

Reference:
    ICC.1:2022, section 7.2: the header of a profile.
"""

import io

from PIL import Image, ImageCms

_CLASSES = (b"mntr", b"scnr", b"prtr", b"spac")
"""Classes of profiles for displays, cameras, printers and colour spaces; others do not describe a picture's pixels."""


def find_fault(profile: bytes, space: str) -> str | None:
    """Returns why a profile does not fit the pixels.

    Args:
        profile: The profile.
        space: Colour space of the pixels: `RGB`, `GRAY` or `CMYK`.

    Returns:
        None if the profile fits, else the reason in a few words.
    """
    if len(profile) < 132 or profile[36:40] != b"acsp":
        return "damaged colour profile"
    if profile[12:16] not in _CLASSES:
        return "colour profile for another purpose"
    described = profile[16:20].decode("latin-1").strip()
    if described != space:
        return f"colour profile for {described}, not {space},"
    try:
        ImageCms.ImageCmsProfile(io.BytesIO(profile))
    except Exception:  # Pillow raises OSError, and other kinds for damaged contents
        return "damaged colour profile"
    return None


def convert_to_srgb(image: Image.Image, profile: bytes) -> tuple[Image.Image, bytes]:
    """Converts an 8-bit picture through its profile, with relative colorimetric intent and black point compensation.

    Args:
        image: A Pillow image of mode CMYK or L.
        profile: The picture's profile.

    Returns:
        An RGB picture, and the sRGB profile.

    Raises:
        PIL.ImageCms.PyCMSError: The profile contains no conversion.
    """
    target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
    converted = ImageCms.profileToProfile(image, io.BytesIO(profile), target, intent, "RGB", flags=flags)
    assert converted is not None
    return converted, target.tobytes()
