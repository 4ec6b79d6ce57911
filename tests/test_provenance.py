"""One save point: metadata, colour profile and alpha arrive in the file, and a failed save leaves nothing behind."""

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from faceswap_diffusion import __version__
from faceswap_diffusion.photos import load_photo
from faceswap_diffusion.provenance import COMPOSITE, GENERATED, check_output, read_provenance, save_image

FACTS = {"model": "small <default> & 'more'", "seed": 3, "faces": [0, 2], "note": 'é\n"quoted"'}


def picture(mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 4), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG", ".webp"])
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
        assert stored.getexif()[ExifTags.Base.Software] == f"faceswap-diffusion {__version__}"
        assert stored.size == (32, 24)


def test_a_picture_that_a_model_made_altogether_says_so(tmp_path):
    save_image(picture(), tmp_path / "out.jpg", provenance=FACTS, digital_source_type=GENERATED)
    read = read_provenance(tmp_path / "out.jpg")
    assert read is not None
    assert read["digital_source_type"].endswith("/trainedAlgorithmicMedia")


def test_png_pixels_and_alpha_are_exact(tmp_path):
    save_image(picture("RGBA"), tmp_path / "out.png", provenance=FACTS)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out.png")), np.asarray(picture("RGBA")))


def test_profile_and_exif_of_the_photo_are_kept(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[ExifTags.Base.Model] = "a camera"
    picture().save(tmp_path / "in.png", icc_profile=profile, exif=exif)
    photo = load_photo(tmp_path / "in.png")
    for suffix in (".png", ".jpg", ".webp"):
        save_image(photo.with_pixels(photo.rgb), tmp_path / f"out{suffix}", provenance=FACTS)
        with Image.open(tmp_path / f"out{suffix}") as stored:
            assert stored.info["icc_profile"] == profile
            assert stored.getexif()[ExifTags.Base.Model] == "a camera"


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
        ("out.bmp", "unknown kind"),
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


def test_a_long_name_that_the_file_system_refuses(tmp_path):
    with pytest.raises(ValueError, match="cannot save"):
        save_image(picture(), tmp_path / ("n" * 300 + ".png"), provenance=FACTS)
    assert list(tmp_path.iterdir()) == []
