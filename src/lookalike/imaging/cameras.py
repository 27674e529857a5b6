"""HEIC, JPEG XL and RAW, as phones and cameras keep photographs, by the libraries of the extra `formats`.

They are imported when the first such file comes. pillow_jxl adds itself to the formats that Pillow opens; we never ask
Pillow for it, and pillow_heif adds nothing.
"""

import io
from contextlib import suppress
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image

from lookalike.core.errors import ImageError
from lookalike.imaging.color import Color, cicp
from lookalike.imaging.raster import Raster, check_size, from_pillow, incomplete, shaded, without_words
from lookalike.imaging.readers import boxes, read_jpeg
from lookalike.imaging.tiff import is_raw, read_tiff

if TYPE_CHECKING:
    import rawpy


def _missing(kind: str) -> ImageError:
    return ImageError(f"{kind} is not read before `pip install 'lookalike[formats]'`.")


def read_heic(data: bytes, _: int | None) -> Raster:
    """The primary image of a HEIC. libheif turns, mirrors and crops it, so that what EXIF says of it is past."""
    try:
        import pillow_heif
    except ImportError as error:
        raise _missing("HEIC") from error
    file = pillow_heif.open_heif(io.BytesIO(data))  # the header
    image = file[file.primary_index]
    check_size(*image.size, 10)
    # libheif leaves tiles black that are not there; boxes with lengths of 64 bits have 0 where this looks
    held = ((place.start, place.stop - place.start) for kind, place in boxes(data, 0, len(data)) if kind == b"mdat")
    if any(int.from_bytes(data[start - 8 : start - 4], "big") - 8 > length for start, length in held):
        raise incomplete("HEIC", *image.size)
    told: dict[str, Any] = image.info
    color: Color | None = told.get("icc_profile")
    if not color and (codes := told.get("nclx_profile")):
        color = cicp(codes["color_primaries"], codes["transfer_characteristics"])
    return from_pillow(image.to_pillow(), color)


# ---------------------------------------------------------------------- JPEG XL

_RATIOS = ((0, 1), (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))  # width to height, by number


def read_jxl(data: bytes, at_least: int | None) -> Raster:
    """The image of a JPEG XL, turned by its library; a JPEG that was packed in one is read as that JPEG."""
    try:
        import pillow_jxl
    except ImportError as error:
        raise _missing("JPEG XL") from error
    width, height = _jxl_size(data)
    check_size(width, height, 16)  # floats of three planes, then bytes
    try:
        is_jpeg, info, body, profile, _ = pillow_jxl.Decoder(num_threads=0)(data)
    except RuntimeError as error:  # its words are for those who build it
        raise incomplete("JPEG XL", width, height) from error
    if is_jpeg:
        return read_jpeg(bytes(body), at_least)
    size, mode = (info.width, info.height), info.mode
    if mode in ("F", "F;16"):
        light = np.frombuffer(body, np.float32 if mode == "F" else np.float16).reshape(size[::-1])
        image = PIL.Image.fromarray(shaded(light, (0.0, 1.0, np.nan)))
    else:
        image = PIL.Image.frombytes(mode, size, body)
    return from_pillow(image, bytes(profile) if profile else None)


def _jxl_size(data: bytes) -> tuple[int, int]:
    """Width and height as the codestream begins (ISO/IEC 18181-1, SizeHeader); the lowest bit of a byte comes first."""
    if data[:2] != b"\xff\x0a":
        starts = {b"jxlc": 0, b"jxlp": 4}
        found = (place.start + starts[kind] for kind, place in boxes(data, 0, len(data)) if kind in starts)
        data = data[next(found, len(data)) :]
    bits = int.from_bytes(data[2:14], "little")
    if len(data) < 14:
        raise ImageError("The head of the JPEG XL image is damaged or truncated.")

    def number(size: int) -> int:
        nonlocal bits
        value, bits = bits & ((1 << size) - 1), bits >> size
        return value

    small = number(1)

    def side() -> int:
        return 8 * (1 + number(5)) if small else 1 + number((9, 13, 18, 30)[number(2)])

    height = side()
    wide, high = _RATIOS[number(3)]
    return (height * wide // high if wide else side()), height


# ---------------------------------------------------------------------- RAW

_TURNS = {3: 3, 5: 8, 6: 6}  # LibRaw's `flip` -> EXIF's orientation
_PREVIEW = 0.9  # of the sensor's sides: previews lack its rim


def read_raw(data: bytes, at_least: int | None) -> Raster:
    """The camera's own JPEG in a RAW file where it is as large as the sensor's image; else LibRaw develops it, with the
    camera's white balance, at half size where that suffices.
    """
    try:
        import rawpy
    except ImportError as error:
        raise _missing("A camera's RAW file") from error
    try:
        with without_words(), rawpy.imread(io.BytesIO(data)) as raw:
            return _preview(rawpy, raw, at_least) or _developed(rawpy, raw, at_least)
    except rawpy.LibRawFileUnsupportedError as error:
        raise ImageError(
            "A RAW file of a kind that is not read, LibRaw does not know it: develop it to JPEG or TIFF, or take the "
            "JPEG beside it."
        ) from error
    except rawpy.LibRawError as error:
        words = b" ".join(part for part in error.args if isinstance(part, bytes)).decode("utf-8", "replace")
        raise ImageError(f"The RAW image is damaged or truncated (LibRaw: {words}).") from error


def _preview(rawpy: ModuleType, raw: "rawpy.RawPy", at_least: int | None) -> Raster | None:
    """The embedded JPEG, None if there is none of full size; turned as it says, else as the RAW file says."""
    across, down, flip = raw.sizes.width, raw.sizes.height, raw.sizes.flip
    with suppress(ImageError, rawpy.LibRawNoThumbnailError, rawpy.LibRawUnsupportedThumbnailError):
        found = raw.extract_thumb()
        if not isinstance(found.data, bytes) or not found.data.rstrip(b"\0").endswith(b"\xff\xd9"):
            return None  # not a JPEG, or cut off: LibRaw gives what it has of one
        image = read_jpeg(found.data, at_least)
        if min(image.width, image.height) < _PREVIEW * min(across, down):
            return None
        is_upright = flip in (5, 6) and (image.width < image.height) != (across < down)  # whatever EXIF says
        turn = image.orientation if image.orientation > 1 else _TURNS.get(flip, 1)
        return replace(image, orientation=1 if is_upright else turn)
    return None


def _developed(rawpy: ModuleType, raw: "rawpy.RawPy", at_least: int | None) -> Raster:
    across, down = raw.sizes.width, raw.sizes.height
    scale = 2 if at_least and min(across, down) // 2 >= at_least else 1
    check_size(across, down, 14 if scale == 1 else 5)  # 16 bits, then four times 16 bits, then RGB
    pixels = raw.postprocess(
        use_camera_wb=True, output_color=rawpy.ColorSpace.sRGB, gamma=(2.4, 12.92), half_size=scale == 2
    )
    high, wide = pixels.shape[:2]
    return Raster(wide * scale, high * scale, lambda a, b: (pixels[a:b], None), scale=scale, whole=True)


def read_tagged(data: bytes, at_least: int | None) -> Raster:
    """A TIFF, or a RAW file that begins as one (DNG, NEF, ARW, PEF and most others)."""
    return read_raw(data, at_least) if is_raw(data) else read_tiff(data, at_least)
