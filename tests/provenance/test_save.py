"""One save point: metadata, colour profile and alpha arrive in the file, and a failed save leaves nothing behind."""

import io
import os
import stat

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from faceswap_diffusion import __version__
from faceswap_diffusion.photos.loading import load_photo
from faceswap_diffusion.provenance.save import COMPOSITE, GENERATED, check_output, read_provenance, save_image

FACTS = {"model": "small <default> & 'more'", "seed": 3, "faces": [0, 2], "note": 'é\n"quoted"'}


def picture(mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 4), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG", ".webp", ".tif", ".TIFF", ".avif", ".bmp"])
def test_facts_come_back_and_the_file_says_that_a_model_painted(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    save_image(picture(), path, provenance=FACTS)
    read = read_provenance(path)
    assert read == {
        **FACTS,
        "digital_source_type": COMPOSITE,
        "software": f"faceswap-diffusion {__version__}",
    }
    content = path.read_bytes()
    assert b"Iptc4xmpExt:DigitalSourceType=" in content
    assert b"digitalsourcetype/compositeWithTrainedAlgorithmicMedia" in content
    with Image.open(path) as stored:
        if suffix != ".bmp":  # which has no place for EXIF
            assert stored.getexif()[ExifTags.Base.Software] == f"faceswap-diffusion {__version__}"
        assert stored.size == (32, 24)


def test_a_picture_that_a_model_made_altogether_says_so(tmp_path):
    save_image(picture(), tmp_path / "out.jpg", provenance=FACTS, digital_source_type=GENERATED)
    read = read_provenance(tmp_path / "out.jpg")
    assert read is not None
    assert read["digital_source_type"].endswith("/trainedAlgorithmicMedia")


@pytest.mark.parametrize(
    ("name", "mode"), [("out.png", "RGBA"), ("out.tif", "RGBA"), ("out.tif", "RGB"), ("out.bmp", "RGB")]
)
def test_pixels_and_alpha_are_exact(tmp_path, name, mode):
    save_image(picture(mode), tmp_path / name, provenance=FACTS)
    assert np.array_equal(np.asarray(Image.open(tmp_path / name)), np.asarray(picture(mode)))


def test_avif_keeps_alpha_and_looks_the_same(tmp_path):
    smooth = Image.linear_gradient("L").convert("RGBA")
    smooth.putalpha(Image.linear_gradient("L").rotate(90))
    save_image(smooth, tmp_path / "out.avif", provenance=FACTS)
    with Image.open(tmp_path / "out.avif") as stored:
        assert np.abs(np.asarray(stored).astype(int) - np.asarray(smooth)).max() <= 4


def test_numbers_of_numpy_are_facts_as_well(tmp_path):
    facts = {"seed": np.int64(7), "guidance_scale": np.float32(1.5)}
    save_image(picture(), tmp_path / "out.png", provenance=facts)
    assert read_provenance(tmp_path / "out.png").items() >= {"seed": 7, "guidance_scale": 1.5}.items()


def test_profile_and_exif_of_the_photo_are_kept(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[ExifTags.Base.Model] = "a camera"
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.FNumber: 2.8}
    picture().save(tmp_path / "in.png", icc_profile=profile, exif=exif)
    photo = load_photo(tmp_path / "in.png")
    for suffix in (".png", ".jpg", ".webp", ".tif", ".avif"):
        save_image(photo.with_pixels(photo.rgb), tmp_path / f"out{suffix}", provenance=FACTS)
        with Image.open(tmp_path / f"out{suffix}") as stored:
            assert stored.info["icc_profile"] == profile
            assert stored.getexif()[ExifTags.Base.Model] == "a camera"
            assert stored.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FNumber] == 2.8


def test_a_tiff_does_not_pass_on_how_its_own_pixels_lay(tmp_path):
    picture().save(tmp_path / "in.tif", compression="tiff_lzw", description="a walk")
    photo = load_photo(tmp_path / "in.tif")
    save_image(photo.with_pixels(photo.rgb), tmp_path / "out.jpg", provenance=FACTS)
    with Image.open(tmp_path / "out.jpg") as stored:
        assert stored.getexif()[ExifTags.Base.ImageDescription] == "a walk"
        assert not {ExifTags.Base.Compression, ExifTags.Base.StripOffsets} & {*stored.getexif()}


def test_bmp_says_that_it_drops_a_colour_profile(tmp_path, caplog):
    profiled = picture()
    save_image(profiled, tmp_path / "plain.bmp", provenance=FACTS)
    assert caplog.messages == []
    profiled.info["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    save_image(profiled, tmp_path / "out.bmp", provenance=FACTS)
    assert "out.bmp: BMP cannot store the photo's colour profile" in caplog.text


def test_exif_too_large_for_jpeg_is_dropped_with_a_warning_and_kept_elsewhere(tmp_path, caplog):
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = "n" * 65_000
    exif[ExifTags.Base.Artist] = "m" * 1_000
    large = picture()
    large.info["exif"] = exif.tobytes()
    save_image(large, tmp_path / "out.jpg", provenance=FACTS)
    (told,) = caplog.messages
    assert "out.jpg: the photo's EXIF is too large for JPEG" in told
    with Image.open(tmp_path / "out.jpg") as stored:
        assert stored.getexif()[ExifTags.Base.Software] == f"faceswap-diffusion {__version__}"
        assert ExifTags.Base.ImageDescription not in stored.getexif()
    assert read_provenance(tmp_path / "out.jpg") is not None
    for name in ("out.png", "out.webp", "out.tif", "out.avif"):
        save_image(large, tmp_path / name, provenance=FACTS)
        with Image.open(tmp_path / name) as stored:
            assert stored.getexif()[ExifTags.Base.ImageDescription] == "n" * 65_000
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF", "BMP"])
def test_an_open_file_takes_a_marked_picture(file_format):
    memory = io.BytesIO()
    save_image(picture(), memory, provenance=FACTS, file_format=file_format)
    with Image.open(io.BytesIO(memory.getvalue())) as stored:
        assert stored.format == file_format
        assert stored.size == (32, 24)
    assert b"digitalsourcetype/compositeWithTrainedAlgorithmicMedia" in memory.getvalue()


def test_an_open_file_is_of_the_kind_that_its_name_says(tmp_path):
    with (tmp_path / "out.jpg").open("wb") as file:
        save_image(picture(), file, provenance=FACTS)
    with Image.open(tmp_path / "out.jpg") as stored:
        assert stored.format == "JPEG"
    with pytest.raises(ValueError, match="the suffix of a path selects the format"):
        save_image(picture(), tmp_path / "again.jpg", provenance=FACTS, file_format="PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["out.jpg"]


def test_an_open_file_is_refused_what_its_format_cannot_hold():
    for file_format, said in (("JPEG", "is transparent"), ("GIF", "choose one of")):
        memory = io.BytesIO()
        with pytest.raises(ValueError, match=said):
            save_image(picture("RGBA"), memory, provenance=FACTS, file_format=file_format)
        assert memory.getvalue() == b""


def test_without_provenance_nothing_is_claimed(tmp_path):
    save_image(picture(), tmp_path / "plain.png", provenance=None)
    assert read_provenance(tmp_path / "plain.png") is None
    assert b"faceswap" not in (tmp_path / "plain.png").read_bytes()


@pytest.mark.parametrize("packet", [b"<not xml", b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"])
def test_foreign_xmp_is_no_provenance(tmp_path, packet):
    picture().save(tmp_path / "foreign.jpg", xmp=packet)
    assert read_provenance(tmp_path / "foreign.jpg") is None


def test_jpeg_refuses_transparency_but_takes_an_opaque_alpha(tmp_path):
    with pytest.raises(ValueError, match="PNG"):
        save_image(picture("RGBA"), tmp_path / "out.jpg", provenance=FACTS)
    assert list(tmp_path.iterdir()) == []
    opaque = picture("RGB").convert("RGBA")
    save_image(opaque, tmp_path / "out.jpg", provenance=FACTS)
    assert Image.open(tmp_path / "out.jpg").mode == "RGB"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("out.gif", "unknown kind"),
        ("out", "unknown kind"),
        ("missing/out.png", "no folder"),
        ("folder.png", "it is a folder"),
    ],
)
def test_unwritable_outputs_are_refused_before_the_work(tmp_path, name, said):
    (tmp_path / "folder.png").mkdir()
    for refuse in (check_output, lambda path: save_image(picture(), path, provenance=FACTS)):
        with pytest.raises(ValueError, match=said) as caught:
            refuse(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]


def test_check_output_passes_what_can_be_written(tmp_path):
    assert check_output(str(tmp_path / "out.PNG")) == tmp_path / "out.PNG"
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_leaves_the_old_file_and_no_rest(tmp_path):
    save_image(picture(), tmp_path / "out.png", provenance=FACTS)
    before = (tmp_path / "out.png").read_bytes()
    with pytest.raises(TypeError):
        save_image(picture(), tmp_path / "out.png", provenance={"unserialisable": object()})
    with pytest.raises(ValueError, match="cannot save"):
        save_image(picture("HSV"), tmp_path / "out.png", provenance=FACTS)
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]
    assert (tmp_path / "out.png").read_bytes() == before


@pytest.mark.parametrize("letter", ["n", "\u9854", "\U0001f642"])  # of one, three and four bytes
def test_names_may_be_as_long_as_the_file_system_allows_and_longer_ones_are_told_before(tmp_path, letter):
    longest = os.pathconf(tmp_path, "PC_NAME_MAX") - len(".png")
    name = letter * (longest // len(letter.encode())) + ".png"
    save_image(picture(), tmp_path / name, provenance=FACTS)
    assert os.listdir(tmp_path) == [name]
    with pytest.raises(ValueError, match=r"cannot save .*[Nn]ame too long"):
        check_output(tmp_path / (letter + name))


@pytest.mark.parametrize(
    ("name", "size", "said"),
    [
        ("out.webp", (16_384, 4), "the picture has 16384 x 4 pixels, and WEBP allows 16383 per side"),
        ("out.jpg", (4, 65_501), "JPEG allows 65500 per side"),
        ("out.avif", (32_769, 4), "AVIF allows 32768 per side"),
    ],
)
def test_a_side_that_a_format_cannot_hold_is_told_before(tmp_path, name, size, said):
    with pytest.raises(ValueError, match=said):
        check_output(tmp_path / name, size=size)
    with pytest.raises(ValueError, match=said):
        save_image(Image.new("L", size), tmp_path / name, provenance=None)
    check_output(tmp_path / "out.png", size=size)
    largest = tuple(min(side, {"out.webp": 16_383, "out.jpg": 65_500, "out.avif": 32_768}[name]) for side in size)
    save_image(Image.new("L", largest), tmp_path / name, provenance=None)
    assert Image.open(tmp_path / name).size == largest


@pytest.mark.parametrize("name", ["out.jpg", "out.bmp"])
def test_transparency_that_a_format_cannot_hold_is_told_before(tmp_path, name):
    with pytest.raises(ValueError, match=r"is transparent and (JPEG|BMP) cannot be"):
        check_output(tmp_path / name, has_alpha=True)
    check_output(tmp_path / "out.tif", has_alpha=True)


def test_a_link_is_followed_and_stays_a_link(tmp_path):
    (tmp_path / "pictures").mkdir()
    original = tmp_path / "pictures" / "original.png"
    original.write_bytes(b"older")
    (tmp_path / "first.png").symlink_to("pictures/original.png")
    (tmp_path / "second.png").symlink_to(tmp_path / "first.png")
    save_image(picture(), tmp_path / "second.png", provenance=FACTS)
    assert (tmp_path / "first.png").is_symlink()
    assert (tmp_path / "second.png").is_symlink()
    assert read_provenance(original) is not None
    assert os.listdir(tmp_path / "pictures") == ["original.png"]


def test_a_link_to_what_is_not_there_yet_makes_it(tmp_path):
    (tmp_path / "link.png").symlink_to(tmp_path / "new.png")
    save_image(picture(), tmp_path / "link.png", provenance=FACTS)
    assert (tmp_path / "link.png").is_symlink()
    assert read_provenance(tmp_path / "new.png") is not None
    (tmp_path / "astray.png").symlink_to(tmp_path / "missing" / "new.png")
    with pytest.raises(ValueError, match=r"there is no folder .*missing"):
        check_output(tmp_path / "astray.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    with pytest.raises(ValueError, match=r"cannot save .*loop.png"):
        check_output(tmp_path / "loop.png")


@pytest.mark.parametrize("mode", [0o600, 0o664])
def test_a_file_that_is_replaced_keeps_its_mode(tmp_path, mode):
    path = tmp_path / "out.png"
    path.write_bytes(b"older")
    path.chmod(mode)
    save_image(picture(), path, provenance=FACTS)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert read_provenance(path) is not None


def test_a_read_only_file_is_not_replaced_even_by_the_superuser(tmp_path):
    path = tmp_path / "out.png"
    path.write_bytes(b"older")
    path.chmod(0o444)
    with pytest.raises(ValueError, match=r"out.png: it is read-only"):
        save_image(picture(), path, provenance=FACTS)
    assert path.read_bytes() == b"older"


def test_an_older_file_is_replaced_only_where_that_is_asked_for(tmp_path):
    path = tmp_path / "out.png"
    assert check_output(path, overwrite=False) == path
    path.write_bytes(b"older")
    with pytest.raises(ValueError, match="exists: choose another name, or pass --overwrite"):
        check_output(path, overwrite=False)
    assert check_output(path) == path


def test_a_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ValueError, match="a device or a pipe"):
        check_output(tmp_path / "pipe.png")
