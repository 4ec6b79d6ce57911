"""Who to become, without the photos: written, read, refused."""

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save, save_file

from faceswap_diffusion import SourceIdentity
from faceswap_diffusion.swapping.source_identity import FORMAT, _digest, _taken_apart
from faceswap_diffusion.swapping.swapper import FaceSwapper
from tests.tiny import tiny_components, tiny_image_encoder, tiny_pipeline

IMAGES = Path(__file__).parents[2] / "examples" / "images"
WOMAN, MAN, SELFIE, GROUP = (
    IMAGES / name for name in ("p001_portrait.jpg", "p005_portrait.jpg", "p010_selfie.jpg", "group.jpg")
)


@pytest.fixture(scope="module")
def drawing() -> FaceSwapper:
    return FaceSwapper(tiny_pipeline(crop_size=64, hidden_fill="reference", masked_latents="mode"), name="drawing")


@pytest.fixture(scope="module")
def saved(drawing: FaceSwapper, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("identities") / "woman.safetensors"
    drawing.encode_source([WOMAN]).save(path)
    assert os.listdir(path.parent) == ["woman.safetensors"]
    return path


def test_all_of_it_comes_back_as_it_was(drawing: FaceSwapper, saved: Path):
    identity, loaded = drawing.encode_source([WOMAN], region="face"), SourceIdentity.load(saved)
    assert loaded.name == str(saved)
    assert loaded.region == "face"
    for name in ("identity_embeds", "source_clip_embeds", "fingerprint"):
        assert torch.equal(getattr(loaded, name), getattr(identity, name))
    assert loaded.geometry is identity.geometry is None
    assert loaded.eyes_hidden is identity.eyes_hidden is False
    assert loaded.bearded is identity.bearded is False
    for group in ("texture", "head"):
        for name, value in vars(getattr(identity, group)).items():
            np.testing.assert_array_equal(getattr(getattr(loaded, group), name), value)


def test_a_file_of_before_lacks_what_it_could_not_say(saved: Path, tmp_path: Path):
    identity = SourceIdentity.load(saved)
    tensors, facts = _taken_apart(identity)
    del facts["bearded"], facts["texture.mouth_width"]
    old = {"sha256": _digest(tensors, facts), **facts}
    (tmp_path / "old.safetensors").write_bytes(save(tensors, {FORMAT: json.dumps(old)}))
    loaded = SourceIdentity.load(tmp_path / "old.safetensors")
    assert not loaded.bearded
    assert loaded.texture is not None
    assert loaded.texture.mouth_width == 0  # of a mouth that is narrower than any, whose folds stay
    assert torch.equal(loaded.identity_embeds, identity.identity_embeds)


def test_a_swap_needs_no_photos(drawing: FaceSwapper, saved: Path):
    wanted = np.asarray(drawing.swap(WOMAN, SELFIE).image)
    for source in (saved, str(saved), [saved], SourceIdentity.load(saved)):
        np.testing.assert_array_equal(np.asarray(drawing.swap(source, SELFIE).image), wanted)
    mapped = drawing.swap([saved, MAN], GROUP, mapping={0: 1, 2: 0})
    photos = drawing.swap([WOMAN, MAN], GROUP, mapping={0: 1, 2: 0})
    np.testing.assert_array_equal(np.asarray(mapped.image), np.asarray(photos.image))
    with pytest.raises(ValueError, match="got 2 sources for one person, an identity among them"):
        drawing.swap([saved, WOMAN], SELFIE)


def test_regions_that_need_the_same_of_a_source_share_it(drawing: FaceSwapper, saved: Path):
    by_photo, by_file = (drawing.swap(source, SELFIE, region="mouth") for source in (WOMAN, saved))
    np.testing.assert_array_equal(np.asarray(by_file.image), np.asarray(by_photo.image))
    with pytest.raises(ValueError, match=r"woman\.safetensors was encoded for region 'face' .* --region head"):
        drawing.swap(saved, SELFIE, region="head")
    with pytest.raises(ValueError, match="got region 'soul'; choose one of face"):
        drawing.encode_source([WOMAN], region="soul")


def test_other_networks_refuse_it_and_half_precision_does_not(drawing: FaceSwapper, saved: Path):
    components = {**tiny_components(crop_size=64), "image_encoder": tiny_image_encoder(seed=1)}
    other = FaceSwapper(type(drawing.pipeline)(**components, **drawing.pipeline.settings), drawing.analyzer)
    with pytest.raises(ValueError, match=r"woman\.safetensors was encoded with another recogniser or image encoder"):
        other.swap(saved, SELFIE)
    other = FaceSwapper(tiny_pipeline(crop_size=64, hidden_fill="reference", masked_latents="mode"), drawing.analyzer)
    recogniser = other.pipeline.conditioner.identity_encoder
    recogniser.head_weight.data = recogniser.head_weight.data.flip(0)
    with pytest.raises(ValueError, match="another recogniser"):
        other.swap(saved, SELFIE)
    half = FaceSwapper(tiny_pipeline(crop_size=64).to(torch.bfloat16), drawing.analyzer)
    half.check_identity(SourceIdentity.load(saved), "face")


def test_what_is_no_identity_is_refused_in_one_line(drawing: FaceSwapper, saved: Path, tmp_path: Path):
    content = saved.read_bytes()
    files = {
        "cut.safetensors": (content[: len(content) // 2], "damaged"),
        "bit.safetensors": (content[:-9] + bytes([content[-9] ^ 1]) + content[-8:], "damaged"),
        "empty.safetensors": (b"", "damaged"),
        "pickled.safetensors": (pickle.dumps({"identity_embeds": [1.0]}), "damaged or no safetensors file"),
    }
    for name, (data, message) in files.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=message) as refused:
            drawing.swap(tmp_path / name, SELFIE)
        assert "\n" not in str(refused.value)
        assert str(refused.value).startswith(f"cannot read {tmp_path / name}: ")
    save_file(load_file(saved), tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="it holds no source identity"):
        SourceIdentity.load(tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="there is no such file"):
        SourceIdentity.load(tmp_path / "missing.safetensors")


def test_it_is_saved_whole_or_not_at_all(drawing: FaceSwapper, saved: Path, tmp_path: Path):
    identity = SourceIdentity.load(saved)
    with pytest.raises(ValueError, match=r"end the name in \.safetensors"):
        identity.save(tmp_path / "woman.pt")
    with pytest.raises(ValueError, match="there is no folder"):
        identity.save(tmp_path / "none" / "woman.safetensors")
    with pytest.raises(ValueError, match="has no fingerprint"):
        replace(identity, fingerprint=None).save(tmp_path / "woman.safetensors")
    assert os.listdir(tmp_path) == []
