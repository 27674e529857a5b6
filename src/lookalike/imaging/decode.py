"""Bytes of an image -> uint8 [H W 3], upright sRGB; the only file that imports a codec.

Pillow decodes, and simplejpeg whatever it decodes to the same pixels in less time. A JPEG that is much larger than
needed is decoded at 1/2, 1/4 or 1/8 by leaving out high frequencies, which is where the time of a large photograph
goes. The file's content decides its format, never its name. Nothing of Pillow's global state is changed.
"""

import io
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import PIL.Image
import simplejpeg
from jaxtyping import UInt8
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    ImageCms,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from lookalike.core.errors import ImageError
from lookalike.core.shapes import Image
from lookalike.imaging.resample import reduce

_READERS = (
    JpegImagePlugin.JpegImageFile,  # MPO, the JPEG of stereo cameras and many phones, included
    PngImagePlugin.PngImageFile,
    GifImagePlugin.GifImageFile,
    WebPImagePlugin.WebPImageFile,
    BmpImagePlugin.BmpImageFile,
    TiffImagePlugin.TiffImageFile,
    AvifImagePlugin.AvifImageFile,
    PpmImagePlugin.PpmImageFile,
)

FORMATS = tuple(reader.format for reader in _READERS)
"""What is read: the formats that cameras, phones and shops give. Pillow's rarer readers stay closed to strangers."""

MAX_SIDE = 32_768
"""Longest side in pixels that is read; phone panoramas have about 16,000."""

MAX_PIXELS = 2**27
"""Most pixels that are read: 134 million, 400 MB as RGB. The largest common photograph has 108 million."""

# What Pillow's readers raise on bytes that are wrong; everything else is a bug and keeps its traceback.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    RuntimeError,
    PIL.Image.DecompressionBombError,
)

_UPRIGHT = {  # EXIF orientation -> what undoes it
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}

# A JPEG is decoded at no less than this many times the wanted size: a 12-megapixel photograph at 1/4, for 256. Its
# MobileNetV2 features then have cosine .9998 with those of a full decode (lowest .9996), and most of the time left is
# entropy coding, which every scale pays; 1/2 would give .9999 for a third more time.
_GAP = 2.75
# Quality and subsampling of what is stored, by the cosine of those features with the features of the uncompressed
# image: 4:4:4 at 90 has .990 in 7.1 kB; 4:2:0 has .983 in 6.1 kB and needs 95 and 8.2 kB to reach .991 (60 images
# of 112 px, whose chroma is as sharp as that of a reduced photograph). 4:4:4 at 95 has .995, for a third more bytes.
_QUALITY = 90
_METADATA = 65_536  # bytes of EXIF, profile and comments that an image kept byte for byte may carry

# Python keeps warning filters per process; without the lock, two threads could leave each other's behind.
_filters = threading.Lock()


@dataclass(frozen=True)
class Stored:
    """An image as a collection keeps it."""

    data: bytes
    """JPEG, upright, sRGB or gray."""
    width: int
    """Of the upright original, in pixels."""
    height: int
    """Of the upright original, in pixels."""


def decode(data: bytes, at_least: int | None = None) -> Image:
    """The first frame of the image, upright, as sRGB: uint8 [H W 3].

    Alpha is laid on white, 16 bits are scaled to 8, a colour profile is applied.

    Args:
        data: A file of one of `FORMATS`.
        at_least: Shorter side in pixels that suffices: a larger JPEG may then come at 1/2, 1/4 or 1/8 of its size.

    Raises:
        ImageError: The image is empty, unknown, damaged, truncated or too large.
    """
    picture = _open(data)
    pixels, _ = _pixels(picture, data, at_least)
    orientation = _orientation(picture)
    profile = picture.info.get("icc_profile")
    if orientation == 1 and not profile and pixels.shape[2] == 3:
        return pixels
    return np.array(_turned(_srgb(_picture(pixels), profile), orientation).convert("RGB"))


def store(data: bytes, size: int) -> Stored:
    """The image as a JPEG whose shorter side is at most `size` pixels; never enlarged.

    A JPEG that is small enough, upright, sRGB or gray, and whole, is kept byte for byte.

    Raises:
        ImageError: As `decode`.
    """
    picture = _open(data)
    width, height = picture.size
    shorter = min(width, height)
    pixels, scale = _pixels(picture, data, int(_GAP * size) if shorter > size else None)
    orientation = _orientation(picture)
    upright = (height, width) if orientation >= 5 else (width, height)
    if shorter <= size and orientation == 1 and _is_plain(picture, len(data)):
        return Stored(data, *upright)
    if shorter > size:
        new_width, new_height = _shorter_to(width, height, size)
        # A reduced JPEG is rounded up to whole pixels: the box is the part of it that is image.
        pixels = reduce(pixels, new_height, new_width, (height / scale, width / scale))
    small = _turned(_srgb(_picture(pixels), picture.info.get("icc_profile")), orientation)
    return Stored(_jpeg(small, _QUALITY), *upright)


def resize_shorter(image: Image, size: int) -> UInt8[np.ndarray, "h w 3"]:
    """`image` with its shorter side reduced to `size` pixels, or as it is if it is not larger."""
    height, width = image.shape[:2]
    if min(height, width) <= size:
        return image
    new_width, new_height = _shorter_to(width, height, size)
    return reduce(image, new_height, new_width, (float(height), float(width)))


def encode_jpeg(image: Image, quality: int = 90) -> bytes:
    """`image` as a baseline JPEG without metadata, in 4:4:4.

    Args:
        image: uint8 [H W 3].
        quality: 1 (worst) to 95, the scale of libjpeg.
    """
    return _jpeg(PIL.Image.fromarray(image), quality)


def _open(data: bytes) -> PIL.Image.Image:
    """Read the header alone; refuse what is unknown or too large before a pixel is decoded."""
    if not data:
        raise ImageError("The file is empty (0 bytes).")
    try:
        with _quiet():
            picture = PIL.Image.open(io.BytesIO(data), formats=FORMATS)
    except PIL.Image.DecompressionBombError as error:
        raise ImageError(f"The image claims more than the {MAX_PIXELS:,} pixels that are read.") from error
    except PIL.UnidentifiedImageError as error:
        raise ImageError(
            f"Not an image of a known format: the file has {len(data):,} bytes and begins with {data[:8]!r}."
        ) from error
    except _DAMAGE as error:
        raise ImageError(f"The head of the image is damaged or truncated ({_reason(error)}).") from error
    width, height = picture.size
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise ImageError(
            f"The image is too large: {width:,} x {height:,} pixels, "
            f"and at most {MAX_SIDE:,} a side and {MAX_PIXELS:,} in all are read."
        )
    if min(width, height) < 1:
        raise ImageError(f"The image has no pixels: {width} x {height}.")
    return picture


def _pixels(picture: PIL.Image.Image, data: bytes, at_least: int | None) -> tuple[UInt8[np.ndarray, "H W C"], int]:
    """The first frame without alpha, 1 (gray), 3 (RGB) or 4 (CMYK) channels, not turned; and by what it was reduced."""
    scale = _scale(picture.size, at_least) if picture.format in ("JPEG", "MPO") else 1
    pixels = _turbo(picture, data, scale)
    if pixels is not None:
        return pixels, scale
    if scale > 1:
        picture.draft(None, (picture.width // scale, picture.height // scale))
    _load(picture)
    flat = np.array(_flat(picture))
    return flat[:, :, None] if flat.ndim == 2 else flat, scale


def _scale(size: tuple[int, int], at_least: int | None) -> int:
    """By how much a JPEG of `size` may be reduced while decoding: 1, 2, 4 or 8."""
    return max(scale for scale in (1, 2, 4, 8) if scale == 1 or (at_least and min(size) // scale >= at_least))


def _turbo(picture: PIL.Image.Image, data: bytes, scale: int) -> UInt8[np.ndarray, "H W C"] | None:
    """The same pixels from simplejpeg, which spares a copy and Pillow's four bytes a pixel; None: Pillow has to.

    Strict: what libjpeg would only warn of goes to Pillow, so that both ways accept the same images.
    """
    if picture.format not in ("JPEG", "MPO") or picture.mode not in ("L", "RGB"):
        return None
    height, width = -(-picture.height // scale), -(-picture.width // scale)
    space = "GRAY" if picture.mode == "L" else "RGB"
    try:
        pixels: np.ndarray = simplejpeg.decode_jpeg(
            data, space, min_height=height, min_width=width, min_factor=1, strict=True
        )
    except ValueError:
        return None
    return pixels if pixels.shape[:2] == (height, width) else None


def _picture(pixels: UInt8[np.ndarray, "H W C"]) -> PIL.Image.Image:
    mode = {1: "L", 3: "RGB", 4: "CMYK"}[pixels.shape[2]]
    return PIL.Image.frombytes(mode, (pixels.shape[1], pixels.shape[0]), pixels.tobytes())


def _load(picture: PIL.Image.Image) -> None:
    """Decode the first frame; an image that ends early is refused, not filled up with gray."""
    size = picture.size  # before a draft is carried out this is already the reduced size
    try:
        if picture.format == "TIFF":  # reads its tags again while loading, and warns
            with _quiet():
                picture.load()
        else:
            picture.load()
    except _DAMAGE as error:
        raise ImageError(
            f"The {picture.format} image is damaged or truncated: "
            f"not all of its {size[0]:,} x {size[1]:,} pixels could be decoded ({_reason(error)})."
        ) from error


def _orientation(picture: PIL.Image.Image) -> int:
    """EXIF orientation, 1 (upright) to 8; 1 where it is missing, broken or nonsense."""
    try:
        with _quiet():
            value = picture.getexif().get(0x0112, 1)
    except _DAMAGE:
        return 1
    return value if isinstance(value, int) and value in _UPRIGHT else 1


def _turned(picture: PIL.Image.Image, orientation: int) -> PIL.Image.Image:
    return picture.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else picture


def _flat(picture: PIL.Image.Image) -> PIL.Image.Image:
    """Any mode -> L, RGB or CMYK, without alpha."""
    if picture.mode.startswith("I") or picture.mode == "F":
        return _eight_bits(picture)
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        paper = PIL.Image.new("RGBA", layer.size, "white")
        return PIL.Image.alpha_composite(paper, layer).convert("RGB")
    if picture.mode in ("L", "RGB", "CMYK"):
        return picture
    return picture.convert("L" if picture.mode == "1" else "RGB")


def _eight_bits(picture: PIL.Image.Image) -> PIL.Image.Image:
    """Gray of 16 bits, 32 bits or floats -> L, scaled (Pillow's own conversion clips at 255).

    Only 16 bits say where white is; for the rest it is the smallest usual white not below the maximum.
    """
    values = np.nan_to_num(np.asarray(picture).astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    peak = float(values.max())
    if picture.mode.startswith("I;16"):
        bits = picture.tag_v2.get(258, (16,)) if picture.format == "TIFF" else (16,)  # type: ignore[attr-defined]
        white = float(2 ** bits[0] - 1)  # a camera's 12 bits in 16 would be nearly black
    else:
        white = min([w for w in (1.0, 255.0, 65_535.0) if peak <= w] or [peak])
    return PIL.Image.fromarray((values.clip(0, white) * (255.0 / white) + 0.5).astype(np.uint8))


def _srgb(picture: PIL.Image.Image, profile: bytes | None) -> PIL.Image.Image:
    """L or sRGB from L, RGB or CMYK.

    Phones store Display P3: read as sRGB, the same thing would be paler on one phone than on another. So a profile
    is applied, and then dropped. This runs after resizing, on few pixels.
    """
    if picture.mode != "L" and profile:
        transform = _transform(profile, picture.mode)
        if transform is not None:
            return ImageCms.applyTransform(picture, transform) or picture
    return picture.convert("RGB") if picture.mode == "CMYK" else picture


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From `profile` to sRGB; None where it is sRGB already, or broken."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if mode == "RGB" and "sRGB" in (source.profile.profile_description or ""):
            return None
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _is_plain(picture: PIL.Image.Image, length: int) -> bool:
    """Whether a whole, upright image can be kept byte for byte: JPEG, L or sRGB, metadata of ordinary size."""
    if picture.format != "JPEG" or picture.mode not in ("L", "RGB"):
        return False
    if length > 3 * picture.width * picture.height + _METADATA:
        return False
    profile = picture.info.get("icc_profile")
    return not profile or picture.mode == "L" or _transform(profile, picture.mode) is None


def _shorter_to(width: int, height: int, size: int) -> tuple[int, int]:
    scale = size / min(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _jpeg(picture: PIL.Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, subsampling="4:4:4")
    return buffer.getvalue()


def _reason(error: BaseException) -> str:
    """The codec's own words on one line."""
    return " ".join(str(error).split())[:120] or type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back Pillow's warnings on strange metadata: the image is read or refused, and that is said once."""
    with _filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
