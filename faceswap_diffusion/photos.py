"""Photos as they come, made into 8-bit RGB on entry, and their alpha, colour profile and EXIF given back on exit."""

import io
import warnings
from dataclasses import dataclass
from os import PathLike, fspath

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

PhotoLike = str | PathLike | Image.Image | np.ndarray

GREY_MODES = ("1", "L", "LA", "La", "I;16", "I;16B", "I;16L", "I;16N", "I")


@dataclass(frozen=True)
class Photo:
    """A photo, upright and in 8-bit RGB.

    Args:
        rgb (`np.ndarray`): (H, W, 3) uint8 RGB.
        alpha (`np.ndarray`, *optional*): (H, W) uint8, 255 = opaque; `None` where the photo has none.
        icc_profile (`bytes`, *optional*): The RGB colour profile that `rgb` is in; `None` means sRGB.
        exif (`bytes`, *optional*): The EXIF block, without orientation and thumbnail.
        mode (`str`): Pillow's mode of the photo as it came.
        name (`str`): The path, or what to call the photo in messages.
    """

    rgb: np.ndarray
    alpha: np.ndarray | None
    icc_profile: bytes | None
    exif: bytes | None
    mode: str
    name: str

    def with_pixels(self, rgb: np.ndarray) -> Image.Image:
        """Makes a picture of new pixels with this photo's alpha, colour profile and EXIF; a grey photo stays grey.

        Args:
            rgb (`np.ndarray`): (H, W, 3) uint8 RGB of this photo's size.

        Returns:
            `PIL.Image.Image`: In mode RGB, or RGBA where the photo has alpha.
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


def load_photo(photo: PhotoLike, name: str = "photo") -> Photo:
    """Reads a photo: first frame, upright by its EXIF orientation, alpha apart, any colour mode made 8-bit RGB.

    Args:
        photo (`str | PathLike | PIL.Image.Image | np.ndarray`): A file, a picture, or an array: (H, W), (H, W, 3) RGB
            or (H, W, 4) RGBA, uint8 or uint16.
        name (`str`): What to call a picture without a path in messages.

    Raises:
        ValueError: If the file is missing, empty, damaged, no picture, or larger than Pillow's limit; if the array's
            shape or type is another.
    """
    if isinstance(photo, np.ndarray):
        return _from_picture(_picture_of_array(photo, name), name)
    if isinstance(photo, Image.Image):
        return _decode(photo, getattr(photo, "filename", "") or name)
    path = fspath(photo)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                return _decode(picture, path)
    except FileNotFoundError:
        raise ValueError(f"cannot read {path}: there is no such file; check the path") from None
    except IsADirectoryError:
        raise ValueError(f"cannot read {path}: it is a folder; name a photo in it") from None
    except PermissionError:
        raise ValueError(f"cannot read {path}: permission denied; make the file readable") from None
    except Image.DecompressionBombError as error:
        raise _bomb(path, error) from None
    except UnidentifiedImageError:
        raise ValueError(
            f"cannot read {path}: it is empty or no picture; give a JPEG, PNG, WebP or the like"
        ) from None
    except OSError as error:
        raise _damaged(path, error) from None


def _decode(picture: Image.Image, name: str) -> Photo:
    """Decodes the pixels of a picture opened lazily; every decoder fails in its own way."""
    try:
        picture.load()
        return _from_picture(picture, name)
    except Image.DecompressionBombError as error:
        raise _bomb(name, error) from None
    except (OSError, SyntaxError, EOFError, IndexError, ValueError) as error:
        raise _damaged(name, error) from None


def _bomb(name: str, error: Exception) -> ValueError:
    return ValueError(f"cannot read {name}: too many pixels ({error}); make it smaller first")


def _damaged(name: str, error: Exception) -> ValueError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return ValueError(
        f"cannot read {name}: the file is damaged, cut short or of an unknown kind ({reason}); save it anew"
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
    picture = ImageOps.exif_transpose(picture)
    exif = picture.getexif()
    rgb, icc_profile = _to_rgb(picture, icc_profile)
    alpha = np.asarray(picture.convert("RGBA").getchannel("A")) if picture.has_transparency_data else None
    return Photo(rgb, alpha, icc_profile, exif.tobytes() if len(exif) else None, mode, name)


def _to_rgb(picture: Image.Image, icc_profile: bytes | None) -> tuple[np.ndarray, bytes | None]:
    """Pixels (H, W, 3) uint8, and the profile that they are in; a CMYK or grey one is applied, not kept."""
    if picture.mode.startswith("I"):
        return np.stack([_eight_bits(np.asarray(picture))] * 3, axis=-1), None
    if picture.mode == "F":
        raise ValueError("pixels are floating-point numbers; save it with 8 or 16 bits")
    if icc_profile is None or icc_profile[16:20] == b"RGB ":
        return _opaque_rgb(picture), icc_profile
    return _apply_profile(picture, icc_profile), None


def _opaque_rgb(picture: Image.Image) -> np.ndarray:
    if picture.mode == "P" and picture.has_transparency_data:
        picture = picture.convert("RGBA")
    return np.array(picture.convert("RGB"))


def _apply_profile(picture: Image.Image, icc_profile: bytes) -> np.ndarray:
    """Converts a CMYK, grey or Lab picture to sRGB by its profile, or plainly where the profile does not fit."""
    base = picture.convert("L") if picture.mode in GREY_MODES else picture
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile))
        converted = ImageCms.profileToProfile(base, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return _opaque_rgb(picture)
    return np.array(converted)


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """16-bit values (held in any integer type) as uint8, 65535 becoming 255."""
    return ((np.clip(values.astype(np.int64), 0, 65535) + 128) // 257).astype(np.uint8)
