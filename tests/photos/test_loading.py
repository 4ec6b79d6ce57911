"""Photos of every kind come in as upright 8-bit RGB, and go out with what they had."""

import io
import logging
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from faceswap_diffusion.photos.loading import load_photo


def gradient(width: int = 40, height: int = 30) -> np.ndarray:
    """Red grows to the right, green downwards, blue is 50."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 6, y * 8, np.full_like(x, 50)], -1).astype(np.uint8)


def saved(tmp_path: Path, picture: Image.Image, name: str, **options) -> Path:
    path = tmp_path / name
    picture.save(path, **options)
    return path


def test_rgb_file_array_and_picture_give_the_same_pixels(tmp_path):
    pixels = gradient()
    path = saved(tmp_path, Image.fromarray(pixels), "plain.png")
    for photo in (path, str(path), pixels, Image.fromarray(pixels), Image.open(path)):
        loaded = load_photo(photo)
        assert np.array_equal(loaded.rgb, pixels)
        assert loaded.rgb.dtype == np.uint8
        assert loaded.alpha is None
        assert loaded.mode == "RGB"
    assert load_photo(path).name == str(path)
    assert load_photo(pixels, "source").name == "source"


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_exif_orientation_is_applied_once_and_then_gone(tmp_path, orientation, turns):
    upright = gradient()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Model] = "a camera"
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(upright, -turns)))
    photo = load_photo(saved(tmp_path, stored, "turned.png", exif=exif))
    assert np.array_equal(photo.rgb, upright)
    kept = Image.Exif()
    assert photo.exif is not None
    kept.load(photo.exif)
    assert kept[ExifTags.Base.Model] == "a camera"
    assert kept.get(ExifTags.Base.Orientation, 1) == 1
    again = photo.with_pixels(photo.rgb)
    assert np.array_equal(load_photo(again).rgb, upright)


def test_an_exif_thumbnail_of_the_old_face_is_not_carried_over(tmp_path):
    thumbnail = io.BytesIO()
    Image.fromarray(gradient(16, 16)).save(thumbnail, "JPEG")
    exif = Image.Exif()
    exif[ExifTags.Base.Model] = "a camera"
    block = bytearray(exif.tobytes())
    assert block[6:8] == b"II" or block[6:8] == b"MM"
    order = "little" if block[6:8] == b"II" else "big"
    entries = int.from_bytes(block[14:16], order)
    link = 16 + 12 * entries  # the offset of the next directory follows the entries
    start = len(block) - 6
    block[link : link + 4] = start.to_bytes(4, order)
    offset, length = start + 2 + 2 * 12 + 4, len(thumbnail.getvalue())
    block += (2).to_bytes(2, order)
    for tag, value in ((0x0201, offset), (0x0202, length)):
        block += tag.to_bytes(2, order) + (4).to_bytes(2, order) + (1).to_bytes(4, order) + value.to_bytes(4, order)
    block += (0).to_bytes(4, order) + thumbnail.getvalue()
    path = saved(tmp_path, Image.fromarray(gradient()), "thumb.jpg", exif=bytes(block))
    with Image.open(path) as stored:
        assert thumbnail.getvalue() in stored.info["exif"]
    photo = load_photo(path)
    assert photo.exif is not None
    assert b"a camera" in photo.exif
    assert b"\xff\xd8\xff" not in photo.exif


def exif_with(**entries: tuple[int, int, bytes]) -> bytes:
    """EXIF whose entries, by tag name, are a type, a count and four bytes; a well-formed Model comes first."""
    rows = [(ExifTags.Base.Model, 2, 4, b"cam\0"), *((ExifTags.Base[tag], *entry) for tag, entry in entries.items())]
    rows.sort()
    table = b"".join(
        tag.to_bytes(2, "little") + kind.to_bytes(2, "little") + count.to_bytes(4, "little") + value
        for tag, kind, count, value in rows
    )
    numbers = (10).to_bytes(4, "little") + (1).to_bytes(4, "little") * 15
    head = b"Exif\0\0II*\0" + (8).to_bytes(4, "little") + len(rows).to_bytes(2, "little")
    offset = len(head) - 6 + len(table) + 4
    return head + table.replace(b"AWAY", offset.to_bytes(4, "little")) + bytes(4) + numbers


ODD_EXIF = {
    "orientation as text": exif_with(Orientation=(2, 2, b"6\0\0\0")),
    "orientation as a fraction": exif_with(Orientation=(5, 1, b"AWAY")),
    "resolution as text": exif_with(XResolution=(2, 4, b"72d\0")),
    "maker as a fraction": exif_with(Make=(5, 1, b"AWAY")),
    "unit as a float": exif_with(ResolutionUnit=(11, 1, b"\0\0\0\x40")),
    "details that lead nowhere": exif_with(ExifOffset=(4, 1, b"\xff\xff\xff\x7f")),
    "details that are no offset": exif_with(ExifOffset=(2, 4, b"abc\0")),
    "places that are a fraction": exif_with(GPSInfo=(5, 1, b"AWAY")),
}


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("kind", ODD_EXIF)
def test_odd_exif_costs_a_warning_and_keeps_pixels_and_the_rest(tmp_path, caplog, kind, file_format):
    exact = {"quality": 100, "subsampling": 0} if file_format == "JPEG" else {"lossless": True}
    path = saved(tmp_path, Image.fromarray(gradient()), "odd", format=file_format, exif=ODD_EXIF[kind], **exact)
    photo = load_photo(path)
    assert np.abs(photo.rgb.astype(int) - gradient()).max() <= 4
    assert photo.exif is not None
    kept = Image.Exif()
    kept.load(photo.exif)
    assert kept[ExifTags.Base.Model] == "cam"
    assert len(caplog.messages) <= 1
    assert all(message.startswith(f"{path}: damaged parts of its EXIF") for message in caplog.messages)
    assert np.array_equal(load_photo(photo.with_pixels(photo.rgb)).rgb, photo.rgb)


def test_an_orientation_that_is_no_number_is_told_and_not_guessed(tmp_path, caplog):
    path = saved(tmp_path, Image.fromarray(gradient()), "odd.png", exif=ODD_EXIF["orientation as text"])
    assert np.array_equal(load_photo(path).rgb, gradient())
    assert caplog.messages == [f"{path}: damaged parts of its EXIF are left out"]


@pytest.mark.parametrize(
    "block", [b"", b"Exif\0\0", b"Exif\0\0II", b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff"]
)
def test_an_exif_block_without_sense_is_left_out(tmp_path, block):
    path = saved(tmp_path, Image.fromarray(gradient()), "odd.jpg", exif=block, quality=100, subsampling=0)
    photo = load_photo(path)
    assert np.abs(photo.rgb.astype(int) - gradient()).max() <= 4
    assert photo.exif is None


def test_no_change_of_exif_bytes_stops_a_photo_or_its_saving(caplog):
    caplog.set_level(logging.CRITICAL)
    exif, content = Image.Exif(), io.BytesIO()
    exif[ExifTags.Base.Model], exif[ExifTags.Base.XResolution], exif[ExifTags.Base.Orientation] = "a camera", 72.0, 1
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.FNumber: 2.8, ExifTags.IFD.Interop: {1: "R98"}}
    exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitude: (1.0, 2.0, 3.0)}
    block = exif.tobytes()
    Image.new("RGB", (8, 8), (90, 120, 60)).save(content, "JPEG", exif=block)
    whole, dice = content.getvalue(), random.Random(0)
    for _ in range(300):
        changed = bytearray(block)
        for _ in range(dice.choice([1, 2, 4, 8])):
            changed[dice.randrange(6, len(block))] = dice.randrange(256)
        photo = load_photo(io.BytesIO(whole.replace(block, bytes(changed))))
        assert photo.rgb.shape == (8, 8, 3)
        assert photo.exif is None or load_photo(photo.with_pixels(photo.rgb)).exif == photo.exif


def test_avif_whose_exif_its_decoder_rejects(caplog):
    exif, content = Image.Exif(), io.BytesIO()
    exif[ExifTags.Base.Model] = "a camera"
    Image.new("RGB", (8, 8), (90, 120, 60)).save(content, "AVIF", exif=exif)
    head = exif.tobytes()[6:14]
    assert head in content.getvalue()
    photo = load_photo(io.BytesIO(content.getvalue().replace(head, b"nonsense")))
    assert np.abs(photo.rgb.astype(int) - (90, 120, 60)).max() <= 4
    assert photo.exif is None
    assert len(caplog.messages) == 1


def test_a_well_formed_photo_says_nothing(tmp_path, caplog, example_images):
    for name in ("p001_portrait.jpg", "group.jpg"):
        load_photo(example_images / name)
    assert caplog.messages == []


def test_grey_stays_grey():
    grey = gradient()[..., 0]
    for picture in (Image.fromarray(grey), grey):
        photo = load_photo(picture)
        assert photo.mode == "L"
        assert np.array_equal(photo.rgb, np.stack([grey] * 3, -1))
        out = np.asarray(photo.with_pixels(gradient()))
        assert np.array_equal(out[..., 0], out[..., 2])
        assert np.array_equal(np.asarray(photo.with_pixels(photo.rgb)), photo.rgb)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    values = np.array([[0, 257, 128 * 257, 65535]], np.uint16)
    path = saved(tmp_path, Image.fromarray(values), "deep.png")
    for photo in (load_photo(path), load_photo(values), load_photo(Image.open(path))):
        assert photo.rgb[0, :, 0].tolist() == [0, 1, 128, 255]
        assert np.ptp(photo.rgb, axis=-1).max() == 0


def test_sixteen_bit_colour_array():
    photo = load_photo(np.full((2, 2, 3), (65535, 257 * 7, 0), np.uint16))
    assert photo.rgb[0, 0].tolist() == [255, 7, 0]


@pytest.mark.parametrize("kind", ["RGBA", "LA", "P with a transparent colour", "RGB with a transparent colour"])
def test_alpha_is_kept_apart_and_put_back(tmp_path, kind):
    options = {}
    if kind == "RGBA":
        alpha = np.tile(np.arange(40, dtype=np.uint8), (30, 1))
        picture = Image.fromarray(np.dstack([gradient(), alpha]))
    elif kind == "LA":
        alpha = np.tile(np.arange(40, dtype=np.uint8), (30, 1))
        picture = Image.fromarray(gradient()[..., 0])
        picture.putalpha(Image.fromarray(alpha))
    elif kind.startswith("P"):
        indices = np.zeros((30, 40), np.uint8)
        indices[:, 20:] = 1
        picture = Image.fromarray(indices, mode="P")
        picture.putpalette([10, 20, 30, 200, 100, 50])
        options["transparency"] = 1
        alpha = np.where(indices == 1, 0, 255)
    else:
        pixels = gradient()
        picture, options["transparency"] = Image.fromarray(pixels), tuple(pixels[3, 4].tolist())
        alpha = np.where((pixels == pixels[3, 4]).all(-1), 0, 255)
    photo = load_photo(saved(tmp_path, picture, "see_through.png", **options))
    assert photo.alpha is not None
    assert np.array_equal(photo.alpha, alpha)
    out = photo.with_pixels(photo.rgb)
    assert out.mode == "RGBA"
    assert np.array_equal(np.asarray(out)[..., 3], alpha)
    if kind.startswith("P"):
        assert photo.rgb[0, 0].tolist() == [10, 20, 30]
        assert photo.rgb[0, 39].tolist() == [200, 100, 50]


def test_palette_and_bilevel(tmp_path):
    path = saved(tmp_path, Image.fromarray(gradient()).quantize(256), "few.gif")
    assert np.abs(load_photo(path).rgb.astype(int) - gradient()).mean() < 3
    bilevel = Image.fromarray(gradient()[..., 0] > 100)
    assert set(np.unique(load_photo(bilevel).rgb)) == {0, 255}


def test_cmyk_becomes_rgb(tmp_path):
    path = saved(tmp_path, Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "print.jpg", quality=100)
    photo = load_photo(path)
    assert photo.mode == "CMYK"
    assert np.abs(photo.rgb.astype(int) - (255, 0, 0)).max() <= 3


def test_animation_gives_its_first_frame(tmp_path):
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    path = saved(tmp_path, first, "moving.gif", save_all=True, append_images=[second])
    assert load_photo(path).rgb[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("name", "several"), [("m.gif", True), ("m.webp", True), ("m.png", True), ("m.tif", True), ("m.avif", True)]
)
def test_a_file_of_several_pictures_says_that_one_is_taken(tmp_path, caplog, name, several):
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    load_photo(saved(tmp_path, first, f"single_{name}"))
    assert caplog.messages == []
    path = saved(tmp_path, first, name, save_all=True, append_images=[second])
    assert np.abs(load_photo(path).rgb[0, 0].astype(int) - (255, 0, 0)).max() <= 4
    assert caplog.messages == [f"{path} holds several pictures: only the first is taken"]


def test_files_in_memory_and_open_files(tmp_path):
    path = saved(tmp_path, Image.fromarray(gradient()), "plain.png")
    memory = io.BytesIO()
    memory.write(path.read_bytes())  # and left at its end
    for _ in range(2):
        assert np.array_equal(load_photo(memory, "upload").rgb, gradient())
    assert load_photo(memory, "upload").name == "upload"
    with path.open("rb") as file:
        assert np.array_equal(load_photo(file).rgb, gradient())
        assert load_photo(file).name == str(path)
    with pytest.raises(ValueError, match="cannot read upload: it is empty"):
        load_photo(io.BytesIO(), "upload")


def test_a_photo_comes_back_as_it_is():
    photo = load_photo(gradient())
    assert load_photo(photo) is photo


def test_a_name_that_is_too_long_is_told():
    with pytest.raises(ValueError, match=r"cannot read n+: File name too long"):
        load_photo("n" * 300)


HEIC_HEAD = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


def test_heic_without_its_extra_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ValueError, match=r"it is HEIC or HEIF, which needs: pip install 'faceswap-diffusion\[heif\]'"):
        load_photo(write(tmp_path / "phone.heic", HEIC_HEAD))


def test_heic_with_its_extra(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    picture = Image.new("RGB", (64, 48), (200, 80, 40))
    picture.paste((20, 60, 220), (0, 0, 32, 48))
    exif = Image.Exif()
    exif[ExifTags.Base.Model] = "a phone"
    heif.from_pillow(picture).save(tmp_path / "phone.heic", quality=95, exif=exif.tobytes())
    photo = load_photo(tmp_path / "phone.heic")
    assert photo.rgb.shape == (48, 64, 3)
    assert np.abs(photo.rgb[24, [8, 56]].astype(int) - [(20, 60, 220), (200, 80, 40)]).max() <= 12
    assert photo.exif is not None
    assert b"a phone" in photo.exif
    with pytest.raises(ValueError, match="damaged"):
        load_photo(write(tmp_path / "cut.heic", HEIC_HEAD))


def test_rgb_profile_is_carried_and_a_grey_one_applied(tmp_path):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo = load_photo(saved(tmp_path, Image.fromarray(gradient()), "profile.png", icc_profile=srgb))
    assert photo.icc_profile == srgb
    assert photo.with_pixels(photo.rgb).info["icc_profile"] == srgb
    lying = bytearray(srgb)
    lying[16:20] = b"CMYK"
    photo = load_photo(saved(tmp_path, Image.new("L", (4, 4), 90), "odd.png", icc_profile=bytes(lying)))
    assert photo.icc_profile is None
    assert photo.rgb[0, 0].tolist() == [90, 90, 90]


def test_one_pixel_and_a_wide_panorama():
    assert load_photo(np.zeros((1, 1, 3), np.uint8)).rgb.shape == (1, 1, 3)
    assert load_photo(np.zeros((2, 12_000, 3), np.uint8)).rgb.shape == (2, 12_000, 3)


def truncated(tmp_path: Path, suffix: str) -> Path:
    path = saved(tmp_path, Image.fromarray(gradient(200, 200)), f"cut{suffix}")
    path.write_bytes(path.read_bytes()[:-150])
    return path


def float_rgb_tiff(*channels: float) -> bytes:
    """A TIFF of one pixel of three floats, which Pillow does not read."""
    tags = [(256, 1), (257, 1), (258, 32), (259, 1), (262, 2), (273, 8), (277, 3), (278, 1), (279, 12), (339, 3)]
    table = b"".join(
        tag.to_bytes(2, "little") + (3).to_bytes(2, "little") + (1).to_bytes(4, "little") + value.to_bytes(4, "little")
        for tag, value in tags
    )
    pixels = np.array(channels, "<f4").tobytes()
    return b"II*\0" + (20).to_bytes(4, "little") + pixels + len(tags).to_bytes(2, "little") + table + bytes(4)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: folder / "nowhere.jpg", "no such file"),
        (lambda folder: folder, "folder"),
        (lambda folder: write(folder / "empty.jpg", b""), "empty or not a picture"),
        (lambda folder: write(folder / "text.png", b"this is a text"), "empty or not a picture"),
        (lambda folder: truncated(folder, ".jpg"), "truncated"),
        (lambda folder: truncated(folder, ".png"), "truncated"),
        (
            lambda folder: saved(folder, Image.fromarray(np.full((2, 2), 255, np.float32)), "f.tiff"),
            r"f\.tiff: its pixels are floating-point numbers from 255 to 255, and only 0 \(black\) to 1 \(white\)",
        ),
        (
            lambda folder: write(folder / "hdr.tif", float_rgb_tiff(0.1, 0.5, 2.0)),
            r"floating-point numbers from 0\.1 to 2, and",
        ),
        (lambda folder: write(folder / "nan.tif", float_rgb_tiff(0.1, 0.5, np.nan)), r"from 0\.1 to 0\.5, and"),
        (lambda folder: write(folder / "raw.tif", b"II*\0" + bytes(100)), "an unusual TIFF"),
    ],
)
def test_bad_files_give_one_line_that_names_the_file(tmp_path, make, said):
    path = make(tmp_path)
    with pytest.raises(ValueError, match=said) as caught:
        load_photo(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_floating_point_numbers_from_black_to_white(tmp_path):
    assert load_photo(write(tmp_path / "rgb.tif", float_rgb_tiff(0.2, 1.0, 0.0))).rgb.tolist() == [[[51, 255, 0]]]
    grey = saved(tmp_path, Image.fromarray(np.array([[0, 0.2], [0.4, 1]], np.float32)), "grey.tif")
    assert load_photo(grey).rgb[..., 0].tolist() == [[0, 51], [102, 255]]


@pytest.mark.filterwarnings("error")
def test_picture_bomb(tmp_path, monkeypatch):
    path = saved(tmp_path, Image.new("1", (2000, 2000)), "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
    with pytest.raises(ValueError, match="it has 4 megapixels, and the limit is 2; make it smaller"):
        load_photo(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3_000_000)
    assert load_photo(path).rgb.shape == (2000, 2000, 3)


def test_a_damaged_picture_object(tmp_path):
    with pytest.raises(ValueError, match="truncated"):
        load_photo(Image.open(truncated(tmp_path, ".jpg")))


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 3)), np.zeros(4, np.uint8)],
)
def test_arrays_of_another_shape_or_type(pixels):
    with pytest.raises(ValueError, match="is needed"):
        load_photo(pixels, "target")
