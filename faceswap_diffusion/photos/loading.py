"""Reads any photo into 8-bit RGB, and restores its alpha, colour profile and EXIF on output."""

import io
import logging
import re
import warnings
from dataclasses import dataclass
from os import PathLike, fspath
from typing import BinaryIO

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from faceswap_diffusion.photos.exif import TRANSPOSITIONS, read_exif

logger = logging.getLogger(__name__)

GREY_MODES = ("1", "L", "LA", "La", "I;16", "I;16B", "I;16L", "I;16N", "I")
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
TIFF_HEADS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")


@dataclass(frozen=True)
class Photo:
    """A photo, upright and in 8-bit RGB.

    Args:
        rgb (`np.ndarray`): (H, W, 3) uint8 RGB.
        alpha (`np.ndarray`, *optional*): (H, W) uint8, 255 = opaque; `None` if the photo has none.
        icc_profile (`bytes`, *optional*): The RGB colour profile of `rgb`; `None` means sRGB.
        exif (`bytes`, *optional*): The EXIF block, without orientation, thumbnail and unreadable tags.
        mode (`str`): Pillow's mode of the original photo.
        name (`str`): The path, or what to call the photo in messages.
    """

    rgb: np.ndarray
    alpha: np.ndarray | None
    icc_profile: bytes | None
    exif: bytes | None
    mode: str
    name: str

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.rgb.shape[1], self.rgb.shape[0]

    @property
    def is_transparent(self) -> bool:
        """Whether any pixel is transparent."""
        return self.alpha is not None and bool((self.alpha < 255).any())

    def with_pixels(self, rgb: np.ndarray) -> Image.Image:
        """Makes a picture from new pixels, with this photo's alpha, colour profile and EXIF. A grey photo stays grey.

        Args:
            rgb (`np.ndarray`): (H, W, 3) uint8 RGB, with this photo's size.

        Returns:
            `PIL.Image.Image`: In mode RGB, or RGBA if the photo has alpha.
        """
        picture = Image.fromarray(np.ascontiguousarray(rgb))
        if self.mode in GREY_MODES:
            picture = picture.convert("L").convert("RGB")
        if self.alpha is not None:
            picture.putalpha(Image.fromarray(self.alpha))
        if self.icc_profile is not None:
            picture.info["icc_profile"] = self.icc_profile
        if self.exif is not None:
            picture.info["exif"] = self.exif
        return picture


PhotoLike = str | PathLike | BinaryIO | Image.Image | np.ndarray | Photo


def load_photo(photo: PhotoLike, name: str = "photo") -> Photo:
    """Reads a photo: the first frame, rotated by its EXIF orientation, with separate alpha, as 8-bit RGB.

    It warns once per photo if something is left out: later frames, or damaged EXIF.

    Args:
        photo (`str | PathLike | BinaryIO | PIL.Image.Image | np.ndarray | Photo`): A file or its path, a picture, or
            an array: (H, W), (H, W, 3) RGB or (H, W, 4) RGBA, uint8 or uint16. A [`Photo`] is returned as it is.
        name (`str`): What to call a picture without a path in messages.

    Raises:
        ValueError: If the file is missing, empty, damaged, not a picture, or larger than Pillow's limit; if it is
            HEIF and the extra `heif` is not installed; if the array has a wrong shape or type; if it is a TIFF of
            floating-point numbers that are not all from 0 to 1.
    """
    if isinstance(photo, Photo):
        return photo
    if isinstance(photo, np.ndarray):
        return _from_picture(_picture_of_array(photo, name), name)
    if isinstance(photo, Image.Image):
        return _decode(photo, getattr(photo, "filename", "") or name)
    if isinstance(photo, str | PathLike):
        path = fspath(photo)
        with _open_file(path) as file:
            return _load_file(file, path)
    return _load_file(photo, str(getattr(photo, "name", None) or name))


def measure_photo(file: BinaryIO, name: str = "photo") -> tuple[int, int]:
    """Reads width and height in pixels of a photo as it is stored, without decoding it.

    Args:
        file (`BinaryIO`): The open file.
        name (`str`): What to call it in messages.

    Raises:
        ValueError: If it is no picture, or larger than Pillow's limit.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `load_photo` will warn
        with _identify(file, name) as picture:
            return picture.size


def _open_file(path: str) -> BinaryIO:
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise ValueError(f"cannot read {path}: there is no such file; check the path") from None
    except IsADirectoryError:
        raise ValueError(f"cannot read {path}: it is a folder; name a photo in it") from None
    except PermissionError:
        raise ValueError(f"cannot read {path}: permission denied; make the file readable") from None
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}; check the path") from None


def _load_file(file: BinaryIO, name: str) -> Photo:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module="PIL")  # one line for each damaged tag
        with _identify(file, name) as picture:
            photo = _decode(picture, name)
            if holds_several(picture):
                logger.warning(f"{name} holds several pictures: only the first is taken")
            return photo


def _identify(file: BinaryIO, name: str) -> Image.Image:
    """Opens a file as a picture, before its pixels are decoded."""
    try:
        return Image.open(file)
    except Image.DecompressionBombError as error:
        raise _bomb(name, error) from None
    except UnidentifiedImageError:
        head = _head(file)
    except Exception as error:  # the readers of different formats raise different exceptions
        if "Exif" not in str(error):
            raise _damaged(name, error) from None
        return _identify_without_exif(file, name)
    if head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS:
        return _identify_heif(file, name)
    if head.startswith(TIFF_HEADS):
        if _holds_floats(file):
            return _identify_float_tiff(file, name)
        reason = "it is an unusual TIFF; save it with 8 or 16 bits a channel, or as another format"
    else:
        reason = "it is empty or not a picture; use a JPEG, PNG or WebP file, for instance"
    raise ValueError(f"cannot read {name}: {reason}")


def _head(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read(12)


def _identify_without_exif(file: BinaryIO, name: str) -> Image.Image:
    """Opens an AVIF file whose EXIF its decoder rejects: items of an unknown type are ignored (ISO 14496-12)."""
    file.seek(0)
    content = file.read()
    logger.warning(f"{name}: damaged parts of its EXIF are left out")
    try:
        return Image.open(io.BytesIO(content.replace(b"Exif", b"none", 1)))
    except Exception as error:
        raise _damaged(name, error) from None


def _holds_floats(file: BinaryIO) -> bool:
    """Whether a TIFF says of its first channel that it consists of floating-point numbers."""
    try:
        file.seek(0)
        directory = ImageFileDirectory_v2(file.read(8))
        file.seek(directory.next)
        directory.load(file)
        return directory.get(ExifTags.Base.SampleFormat, (1,))[0] == 3
    except Exception:  # Pillow's parser can raise anything
        return False


def _identify_float_tiff(file: BinaryIO, name: str) -> Image.Image:
    """Opens a TIFF of three 32-bit floating-point numbers a pixel, which Pillow does not read."""
    file.seek(0)
    values = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.float32 or values.ndim != 3 or values.shape[2] != 3:
        reason = "it is a TIFF of floating-point numbers of an unusual kind; save it with 8 or 16 bits a channel"
        raise ValueError(f"cannot read {name}: {reason}")
    return _picture_of_floats(np.ascontiguousarray(values[..., ::-1]), name)


def _picture_of_floats(values: np.ndarray, name: str) -> Image.Image:
    """Floating-point numbers from 0, black, to 1, white, in 8 bits."""
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        found = f"{np.nanmin(values):.4g} to {np.nanmax(values):.4g}"
        raise ValueError(
            f"cannot read {name}: its pixels are floating-point numbers from {found}, and only 0 (black) to 1 (white) "
            "is known to be right; save it with 8 or 16 bits"
        )
    return Image.fromarray(np.round(values * 255).astype(np.uint8))


def _identify_heif(file: BinaryIO, name: str) -> Image.Image:
    try:
        from pillow_heif import HeifImageFile  # pyright: ignore[reportMissingImports] - an extra
    except ImportError:
        raise ValueError(
            f"cannot read {name}: it is HEIC or HEIF, which needs: pip install 'faceswap-diffusion[heif]'"
        ) from None
    file.seek(0)
    try:
        return HeifImageFile(file)
    except Exception as error:
        raise _damaged(name, error) from None


def holds_several(picture: Image.Image) -> bool:
    """Whether a file that was opened as a picture is an animation or has several pages.

    Args:
        picture (`PIL.Image.Image`): Opened; second views (MPO) and layers (PSD) do not count.
    """
    try:
        return picture.format not in ("MPO", "PSD") and bool(getattr(picture, "is_animated", False))
    except Exception:  # later pictures may be damaged
        return True


def _decode(picture: Image.Image, name: str) -> Photo:
    """Decodes the pixels of a picture that was opened lazily."""
    try:
        picture.load()
        if picture.mode != "F":
            return _from_picture(picture, name)
    except Image.DecompressionBombError as error:
        raise _bomb(name, error) from None
    except Exception as error:  # different decoders raise different exceptions
        raise _damaged(name, error) from None
    return _from_picture(_picture_of_floats(np.asarray(picture), name), name)


def _bomb(name: str, error: Exception) -> ValueError:
    found, limit = (int(count) / 1e6 for count in re.findall(r"\d+", str(error))[:2])
    return ValueError(
        f"cannot read {name}: it has {found:.0f} megapixels, and the limit is {limit:.0f}; make it smaller first"
    )


def _damaged(name: str, error: Exception) -> ValueError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return ValueError(
        f"cannot read {name}: the file is damaged, truncated or of an unknown kind ({reason}); save it again"
    )


def _picture_of_array(pixels: np.ndarray, name: str) -> Image.Image:
    shape_known = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))
    if not shape_known or pixels.size == 0 or pixels.dtype not in (np.uint8, np.uint16):
        wanted = "an array (H, W), (H, W, 3) or (H, W, 4) of uint8 or uint16 is needed, RGB"
        raise ValueError(f"got {name} of shape {pixels.shape}, {pixels.dtype}; {wanted}")
    if pixels.dtype == np.uint16:
        pixels = _eight_bits(pixels)
    return Image.fromarray(np.ascontiguousarray(pixels))


def _from_picture(picture: Image.Image, name: str) -> Photo:
    mode = picture.mode
    icc_profile = picture.info.get("icc_profile") or None
    exif = read_exif(picture)
    if not exif.whole:
        logger.warning(f"{name}: damaged parts of its EXIF are left out")
    if exif.orientation in TRANSPOSITIONS:
        picture = picture.transpose(TRANSPOSITIONS[exif.orientation])
    rgb, icc_profile = _to_rgb(picture, icc_profile)
    alpha = np.asarray(picture.convert("RGBA").getchannel("A")) if picture.has_transparency_data else None
    return Photo(rgb, alpha, icc_profile, exif.block, mode, name)


def _to_rgb(picture: Image.Image, icc_profile: bytes | None) -> tuple[np.ndarray, bytes | None]:
    """Pixels (H, W, 3) uint8 and their RGB profile. A CMYK or grey profile is applied and not kept."""
    if picture.mode.startswith("I"):
        return np.stack([_eight_bits(np.asarray(picture))] * 3, axis=-1), None
    if icc_profile is None or icc_profile[16:20] == b"RGB ":
        return _opaque_rgb(picture), icc_profile
    return _apply_profile(picture, icc_profile), None


def _opaque_rgb(picture: Image.Image) -> np.ndarray:
    if picture.mode == "P" and picture.has_transparency_data:
        picture = picture.convert("RGBA")
    return np.array(picture.convert("RGB"))


def _apply_profile(picture: Image.Image, icc_profile: bytes) -> np.ndarray:
    """Converts a CMYK, grey or Lab picture to sRGB with its profile, or without it if the profile does not fit."""
    base = picture.convert("L") if picture.mode in GREY_MODES else picture
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile))
        converted = ImageCms.profileToProfile(base, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return _opaque_rgb(picture)
    return np.array(converted)


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """16-bit values, in any integer type, as uint8; 65535 becomes 255."""
    return ((np.clip(values.astype(np.int64), 0, 65535) + 128) // 257).astype(np.uint8)
