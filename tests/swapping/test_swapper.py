"""Photo to photo, with a pipeline of random weights: what it paints is noise, where and for whom is what counts."""

import io
import json
import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_lcm import LCMScheduler
from PIL import Image, ImageDraw
from safetensors.torch import load_file

from faceswap_diffusion.conditioning.identity import SFace
from faceswap_diffusion.faces.alignment import crop, ffhq_matrix, uncrop
from faceswap_diffusion.faces.analyzer import Face, FaceAnalyzer
from faceswap_diffusion.faces.mesh_topology import dlib68
from faceswap_diffusion.faces.selection import NoFaceFoundError
from faceswap_diffusion.masks.bisenet import REFACE_LABELS, BiSeNet
from faceswap_diffusion.masks.regions import feather, region_mask, repaint_mask
from faceswap_diffusion.metrics.faces import sharpness
from faceswap_diffusion.photos.loading import load_photo
from faceswap_diffusion.pipelines.faceswap_inpaint import FaceSwapInpaintPipeline
from faceswap_diffusion.provenance.save import read_provenance
from faceswap_diffusion.provenance.watermark import SIZE, find_mark, payload_of
from faceswap_diffusion.swapping.aligned_face import AlignedFace, within_photo
from faceswap_diffusion.swapping.source_identity import average_identities
from faceswap_diffusion.swapping.swapper import FaceSwapper
from tests.tiny import TINY_SETTINGS, save_with_few_steps, tiny_components, tiny_conditioner, tiny_pipeline

IMAGES = Path(__file__).parents[2] / "examples" / "images"
WOMAN, MAN, SELFIE, GROUP = (
    IMAGES / name for name in ("p001_portrait.jpg", "p005_portrait.jpg", "p010_selfie.jpg", "group.jpg")
)
WOMAN_IN_GROUP = 3


@pytest.fixture(scope="module")
def swapper() -> FaceSwapper:
    return FaceSwapper(tiny_pipeline(crop_size=64), name="tiny")


@pytest.fixture(scope="module")
def no_face(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "wall.png"
    Image.new("RGB", (200, 150), (180, 170, 160)).save(path)
    return path


def changed_pixels(result, target) -> np.ndarray:
    return (np.asarray(result.image.convert("RGB")) != load_photo(target).rgb).any(-1)


def test_only_what_the_mask_shows_is_changed(swapper: FaceSwapper):
    result = swapper.swap(WOMAN, SELFIE)
    changed, mask = changed_pixels(result, SELFIE), np.asarray(result.mask)
    assert result.image.size == result.mask.size == (640, 768)
    assert result.swapped == [0]
    assert len(result.faces) == 1
    assert not changed[mask == 0].any()
    assert changed[mask > 200].mean() > 0.9
    left, top, right, bottom = result.faces[0].bbox.round().astype(int)
    assert (mask[top:bottom, left:right] > 0).mean() > 0.6
    assert 0 < (mask == 255).sum() < mask.size / 3
    assert len(np.unique(mask)) > 50  # the seam is feathered
    assert list(result.seconds) == ["load", "detect", "check", "encode", "reference", "diffuse", "paste"]
    assert all(seconds > 0 for seconds in result.seconds.values())


def test_new_pixels_carry_a_mark_unless_it_is_switched_off(swapper: FaceSwapper):
    marked, plain = (swapper.swap(WOMAN, SELFIE, watermark=switch, consent="she did") for switch in (True, False))
    (face,) = marked.faces
    pictures = [np.asarray(result.image) for result in (marked, plain)]
    added = np.clip(128 + pictures[0].astype(int) - pictures[1], 0, 255).astype(np.uint8)  # noise hides it otherwise
    mark = find_mark(added, ffhq_matrix(face.landmarks68, SIZE))
    assert mark.found
    assert mark.payload == payload_of("tiny")
    assert np.std(added[np.asarray(marked.mask) == 255]) < 4
    assert not (pictures[0] != pictures[1]).any(-1)[np.asarray(marked.mask) == 0].any()
    assert marked.provenance["consent"] == "she did"
    assert "consent" not in swapper.swap(WOMAN, SELFIE).provenance


def test_every_face_comes_out_the_same_alone_and_with_others(swapper: FaceSwapper, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("faceswap_diffusion.swapping.steps.FACES_PER_BATCH", 3)  # so that four faces make two batches
    together = swapper.swap(WOMAN, GROUP, target_face="all")
    assert together.swapped == [0, 1, 2, 3]
    for index in (1, 3):
        alone = swapper.swap(WOMAN, GROUP, target_face=index)
        assert alone.swapped == [index]
        mask = np.asarray(alone.mask) > 0
        difference = np.asarray(alone.image).astype(int)[mask] - np.asarray(together.image)[mask]
        assert np.abs(difference).max() <= 1


def test_mapping_gives_each_face_its_own_source(swapper: FaceSwapper):
    both = swapper.swap([WOMAN, MAN], GROUP, mapping={0: 1, 2: 0})
    assert both.swapped == [0, 2]
    for index, source, other in ((0, MAN, WOMAN), (2, WOMAN, MAN)):
        wanted, unwanted = (swapper.swap(path, GROUP, target_face=index) for path in (source, other))
        mask = np.asarray(wanted.mask) == 255
        pixels = np.asarray(both.image).astype(int)[mask]
        assert np.abs(pixels - np.asarray(wanted.image)[mask]).max() <= 1
        assert np.abs(pixels - np.asarray(unwanted.image)[mask]).max() > 1


def test_photos_of_one_person_are_averaged(swapper: FaceSwapper):
    photos = [load_photo(IMAGES / name) for name in ("p001_portrait.jpg", "p001_park.jpg")]
    first, second = (swapper.encode_source([photo]) for photo in photos)
    both = swapper.encode_source(photos)
    mean = (first.identity_embeds + second.identity_embeds) / 2
    assert mean.norm() < 0.99  # two looks differ, so that a mean left as it is would be too short
    torch.testing.assert_close(both.identity_embeds, mean / mean.norm())
    torch.testing.assert_close(both.source_clip_embeds, (first.source_clip_embeds + second.source_clip_embeds) / 2)
    twice = swapper.swap([WOMAN, WOMAN], SELFIE)
    once = swapper.swap(WOMAN, SELFIE)
    assert np.abs(np.asarray(twice.image).astype(int) - np.asarray(once.image)).max() <= 1


class TestExchangedShape:
    """With coefficients of zero all of the landmarks are their owner's: lending everything gives the source's own."""

    @staticmethod
    def swapper(share: float) -> FaceSwapper:
        components = {**tiny_components(crop_size=64), "conditioner": tiny_conditioner(identity_geometry=True)}
        return FaceSwapper(FaceSwapInpaintPipeline(**components, **{**TINY_SETTINGS, "geometry_share": share}))

    @staticmethod
    def aligned(swapper: FaceSwapper, path: Path) -> AlignedFace:
        rgb = load_photo(path).rgb
        (face,) = swapper.analyzer.analyze(rgb)
        return swapper.align(rgb, face)

    @pytest.mark.parametrize("share", [1.0, 0.25])
    def test_the_targets_landmarks_move_towards_the_sources(self, share: float):
        swapper = self.swapper(share)
        source, target = self.aligned(swapper, WOMAN), self.aligned(swapper, SELFIE)
        lent = swapper.exchange_shape(target, swapper.encode_source([load_photo(WOMAN)]))[0].numpy()
        wanted = target.landmarks68 + share * (source.landmarks68 - target.landmarks68)
        assert np.abs(source.landmarks68 - target.landmarks68).max() > 1  # pixels: they differ
        np.testing.assert_allclose(lent, wanted, atol=1e-3)

    def test_what_pose_and_expression_explain_stays(self):
        swapper = self.swapper(1.0)
        source, target = self.aligned(swapper, WOMAN), self.aligned(swapper, SELFIE)
        # The first feature is constant: these coefficients explain a mean face, which both share.
        swapper.pipeline.conditioner.geometry_coefficients[0] = torch.from_numpy(source.landmarks68).flatten()
        person = swapper.encode_source([load_photo(WOMAN)])
        assert person.geometry is not None
        assert person.geometry.abs().max() < 1e-3
        lent = swapper.exchange_shape(self.aligned(swapper, SELFIE), person)
        np.testing.assert_allclose(lent[0].numpy(), source.landmarks68, atol=1e-3)
        assert target.geometry is not None

    def test_without_a_share_or_an_expression_nothing_moves(self, swapper: FaceSwapper):
        target, person = self.aligned(swapper, SELFIE), swapper.encode_source([load_photo(WOMAN)])
        np.testing.assert_allclose(swapper.exchange_shape(target, person)[0].numpy(), target.landmarks68, atol=1e-4)
        lending = self.swapper(1.0)
        blank = replace(self.aligned(lending, SELFIE), geometry=None)
        moved = lending.exchange_shape(blank, lending.encode_source([load_photo(WOMAN)]))
        np.testing.assert_allclose(moved[0].numpy(), blank.landmarks68, atol=1e-4)


def test_mapping_takes_several_photos_for_a_person(swapper: FaceSwapper):
    averaged = swapper.swap([WOMAN, IMAGES / "p001_park.jpg"], SELFIE)
    mapped = swapper.swap([MAN, [WOMAN, IMAGES / "p001_park.jpg"]], SELFIE, mapping={0: 1})
    np.testing.assert_array_equal(np.asarray(mapped.image), np.asarray(averaged.image))


def test_the_seed_decides(swapper: FaceSwapper):
    first, again, other = (swapper.swap(WOMAN, SELFIE, seed=seed).image for seed in (1, 1, 2))
    np.testing.assert_array_equal(np.asarray(first), np.asarray(again))
    assert (np.asarray(first) != np.asarray(other)).any()


def test_photos_may_be_paths_pictures_or_arrays(swapper: FaceSwapper):
    by_path = swapper.swap(str(WOMAN), str(SELFIE))
    by_value = swapper.swap(load_photo(WOMAN).rgb, Image.open(SELFIE))
    np.testing.assert_array_equal(np.asarray(by_path.image), np.asarray(by_value.image))


def test_regions_are_nested_as_their_names_say(swapper: FaceSwapper):
    masks = {
        region: np.asarray(swapper.swap(WOMAN, SELFIE, region=region).mask) for region in ("head", "face", "mouth")
    }
    assert (masks["head"] > 0).sum() > 1.2 * (masks["face"] > 0).sum()
    assert (masks["face"] > 0).sum() > 5 * (masks["mouth"] > 0).sum()
    assert (masks["face"] > 0)[masks["mouth"] == 255].all()
    with pytest.raises(ValueError, match="region 'nostril'; choose one of face, head"):
        swapper.swap(WOMAN, SELFIE, region="nostril")


def test_what_is_repainted_beyond_the_face_is_shown_of_the_source(swapper: FaceSwapper):
    photo = load_photo(WOMAN)
    face, head = (swapper.encode_source([photo], region=region) for region in ("face", "head"))
    mouth, worn = (swapper.encode_source([photo], region=region) for region in ("mouth", "accessories"))
    torch.testing.assert_close(face.identity_embeds, head.identity_embeds)
    assert not torch.allclose(face.source_clip_embeds, head.source_clip_embeds)
    torch.testing.assert_close(face.source_clip_embeds, mouth.source_clip_embeds)
    assert not torch.allclose(face.source_clip_embeds, worn.source_clip_embeds)


def test_numbers_of_numpy_are_taken_as_numbers(swapper: FaceSwapper):
    plain = swapper.swap(WOMAN, GROUP, target_face=2, source_face=0, seed=3, guidance_scale=1.0)
    numbers = swapper.swap(
        WOMAN, GROUP, target_face=np.int64(2), source_face=np.uint8(0), seed=np.int64(3),
        num_inference_steps=np.int32(plain.provenance["num_inference_steps"]), guidance_scale=np.float32(1),
    )  # fmt: skip
    assert numbers.swapped == plain.swapped == [2]
    assert np.array_equal(np.asarray(numbers.image), np.asarray(plain.image))
    numbers.save(io.BytesIO())
    mapped = swapper.swap([WOMAN], GROUP, mapping={np.int64(2): np.int64(0)}, seed=3)
    assert mapped.swapped == [2]
    assert json.dumps(mapped.swapped) == "[2]"
    with pytest.raises(NoFaceFoundError, match="face 9 was asked for"):
        swapper.swap(WOMAN, GROUP, target_face=np.int64(9))


def test_photos_in_memory_and_a_picture_into_memory(swapper: FaceSwapper, tmp_path: Path):
    from_paths = swapper.swap(WOMAN, SELFIE)
    source, target, saved = io.BytesIO(WOMAN.read_bytes()), io.BytesIO(SELFIE.read_bytes()), io.BytesIO()
    result = swapper.swap(source, target)
    assert np.array_equal(np.asarray(result.image), np.asarray(from_paths.image))
    result.save(saved)
    assert Image.open(saved).format == "PNG"
    assert np.array_equal(load_photo(saved).rgb, np.asarray(result.image))
    result.save(tmp_path / "out.png")
    assert np.array_equal(load_photo(tmp_path / "out.png").rgb, np.asarray(result.image))
    result.save(saved_as_jpeg := io.BytesIO(), "JPEG")
    assert Image.open(saved_as_jpeg).format == "JPEG"
    (tmp_path / "again.png").write_bytes(saved.getvalue())
    assert read_provenance(tmp_path / "again.png") is not None
    assert np.array_equal(
        np.asarray(swapper.swap(load_photo(WOMAN), load_photo(SELFIE)).image), np.asarray(result.image)
    )


def test_a_mask_of_the_users_own_takes_the_place_of_the_region(swapper: FaceSwapper, tmp_path: Path):
    faces = swapper.analyzer.analyze(load_photo(SELFIE).rgb)
    left, top, right, bottom = faces[0].bbox
    mask = Image.new("L", (640, 768))
    ImageDraw.Draw(mask).rectangle((left, top, (left + right) / 2, bottom), fill=255)
    mask.save(tmp_path / "mask.png")
    result = swapper.swap(WOMAN, SELFIE, mask_image=mask)
    changed = changed_pixels(result, SELFIE)
    assert changed.sum() > 0.5 * (right - left) * (bottom - top) / 2
    assert not changed[np.asarray(mask) == 0].any()
    same = swapper.swap(WOMAN, SELFIE, mask_image=tmp_path / "mask.png")
    np.testing.assert_array_equal(np.asarray(same.image), np.asarray(result.image))
    with pytest.raises(ValueError, match="mask of 640 x 700 pixels for a picture of 640 x 768"):
        swapper.swap(WOMAN, SELFIE, mask_image=mask.crop((0, 0, 640, 700)))
    with pytest.raises(ValueError, match="nothing to repaint on face 0"):
        swapper.swap(WOMAN, SELFIE, mask_image=Image.new("L", (640, 768)))


def test_colour_match_brings_the_skin_to_the_targets(swapper: FaceSwapper):
    target = load_photo(SELFIE).rgb
    plain, matched = (swapper.swap(WOMAN, SELFIE, color_match=match) for match in (False, True))
    inside = np.asarray(plain.mask) == 255
    wanted, before, after = (
        np.asarray(image)[inside].mean(0) for image in (Image.fromarray(target), plain.image, matched.image)
    )
    assert np.abs(after - wanted).max() < 0.5 * np.abs(before - wanted).max()
    np.testing.assert_array_equal(np.asarray(plain.mask), np.asarray(matched.mask))


def test_skin_has_the_texture_of_a_photo_that_is_finer_than_the_crop(swapper: FaceSwapper):
    photo = load_photo(SELFIE).rgb
    smooth, textured = (swapper.swap(WOMAN, SELFIE, skin_texture=texture) for texture in (False, True))
    face = swapper.align(photo, textured.faces[textured.swapped[0]])
    skin = uncrop(region_mask(face.labels, "skin", face.label_names), face.matrix, photo.shape[1::-1])
    inside = feather(skin, 4) * (np.asarray(textured.mask) / 255)
    wanted, before, after = (sharpness(np.asarray(image), inside) for image in (photo, smooth.image, textured.image))
    assert before < 0.25 * wanted
    assert 0.5 * wanted < after < 1.5 * wanted
    beyond = cv2.dilate(np.abs(skin), np.ones((17, 17))) == 0  # as far as the filters reach
    assert beyond.any()
    assert (np.asarray(smooth.image)[beyond] == np.asarray(textured.image)[beyond]).all()


@pytest.fixture(scope="module")
def distilled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with a few-step version beside it."""
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    save_with_few_steps(tiny_pipeline(crop_size=64, default_num_inference_steps=5), folder)
    return folder


@pytest.fixture(scope="module")
def few(distilled: Path) -> FaceSwapper:
    return FaceSwapper.from_pretrained(distilled, device="cpu", few_steps=True)


class TestFewSteps:
    """The LoRA beside a checkpoint: two steps in place of five."""

    def test_its_lora_is_in_the_unet_and_its_scheduler_in_place(self, few: FaceSwapper, distilled: Path):
        plain = FaceSwapper.from_pretrained(distilled, device="cpu")
        name = "mid_block.resnets.0.conv1.weight"
        layers = load_file(distilled / "few_steps" / "pytorch_lora_weights.safetensors")
        up, down = (layers[f"unet.mid_block.resnets.0.conv1.lora_{part}.weight"] for part in "BA")
        added = torch.einsum("orij,rikl->oikl", up, down)  # the first is 1 x 1
        before, after = (swapper.pipeline.unet.state_dict()[name] for swapper in (plain, few))
        torch.testing.assert_close(after, before + added)
        assert added.abs().max() > 1e-3
        assert isinstance(few.pipeline.scheduler, LCMScheduler)
        settings = {"num_inference_steps": 2, "guidance_scale": 1.0}
        images = [np.asarray(swapper.swap(WOMAN, SELFIE, **settings).image) for swapper in (plain, few)]
        assert (images[0] != images[1]).any()

    def test_it_takes_two_steps_unless_told_and_no_more_than_its_teacher(self, few: FaceSwapper):
        made = few.swap(WOMAN, SELFIE).provenance
        assert made["num_inference_steps"] == 2
        assert made["checkpoint"] == "tiny/few_steps"
        assert few.swap(WOMAN, SELFIE, num_inference_steps=1).provenance["num_inference_steps"] == 1
        with pytest.raises(ValueError, match="got 6 denoising steps, and a few-step version takes 5 at most"):
            few.swap(WOMAN, SELFIE, num_inference_steps=6)

    def test_its_steps_are_what_it_was_made_for_and_more_are_warned_of(self, tmp_path: Path, caplog, monkeypatch):
        monkeypatch.setattr(logging.getLogger("faceswap_diffusion"), "propagate", True)
        folder = tmp_path / "tiny"
        save_with_few_steps(tiny_pipeline(crop_size=64, default_num_inference_steps=5), folder, num_inference_steps=4)
        swapper = FaceSwapper.from_pretrained(folder, device="cpu", few_steps=True)
        assert swapper.swap(WOMAN, SELFIE).provenance["num_inference_steps"] == 4
        assert "denoising steps are more than" not in caplog.text
        swapper.swap(WOMAN, SELFIE, num_inference_steps=5)
        assert "5 denoising steps are more than the 4 that this few-step version is made for" in caplog.text

    def test_older_ones_have_no_config_and_take_two_steps(self, distilled: Path, tmp_path: Path):
        folder = Path(shutil.copytree(distilled, tmp_path / "old"))
        (folder / "few_steps" / "config.json").unlink()
        pipeline = FaceSwapper.from_pretrained(folder, device="cpu", few_steps=True).pipeline
        names = ("default_num_inference_steps", "default_guidance_scale", "default_strength")
        assert [pipeline.config[name] for name in names] == [2, 1.0, 1.0]

    def test_a_checkpoint_without_one_says_so(self, tmp_path: Path):
        tiny_pipeline().save_pretrained(tmp_path / "tiny")
        with pytest.raises(ValueError, match=r"tiny has no few-step version \(no folder few_steps\)"):
            FaceSwapper.from_pretrained(tmp_path / "tiny", device="cpu", few_steps=True)


def test_a_face_is_found_by_a_photo_of_the_person():
    swapper = FaceSwapper(tiny_pipeline(crop_size=128))
    found = swapper.survey(load_photo(GROUP).rgb)
    assert swapper.choose_faces(found, WOMAN, "group") == [WOMAN_IN_GROUP]
    assert swapper.choose_faces(found, Image.open(IMAGES / "p001_park.jpg"), "group") == [WOMAN_IN_GROUP]
    with pytest.raises(NoFaceFoundError, match="no face matches the reference face"):
        swapper.choose_faces(found, MAN, "group")
    network = swapper.pipeline.conditioner.identity_encoder
    network.same_person = 0.99  # the threshold is the recogniser's
    with pytest.raises(NoFaceFoundError, match=r"at least 0\.99 is needed"):
        swapper.choose_faces(found, Image.open(IMAGES / "p001_park.jpg"), "group")
    network.same_person = None  # nobody knows: the nearest is meant
    assert swapper.choose_faces(found, MAN, "group")[0] in range(len(found.faces))
    with pytest.raises(ValueError, match="target_face is 'biggest': give 'largest', 'all', an index"):
        swapper.swap(WOMAN, GROUP, target_face="biggest")


def test_the_largest_face_is_the_default(swapper: FaceSwapper):
    found = swapper.survey(load_photo(GROUP).rgb)
    areas = [np.prod(face.bbox[2:] - face.bbox[:2]) for face in found.faces]
    assert swapper.choose_faces(found, "largest", "group") == [int(np.argmax(areas))]


def test_a_missing_face_names_the_photo(swapper: FaceSwapper, no_face: Path):
    with pytest.raises(NoFaceFoundError, match=r"no face found in .*wall\.png"):
        swapper.swap(no_face, SELFIE)
    with pytest.raises(NoFaceFoundError, match=r"no face found in .*wall\.png"):
        swapper.swap(WOMAN, no_face, target_face="all")
    with pytest.raises(NoFaceFoundError, match=r"face 4 was asked for, but .*group\.jpg has 4 face"):
        swapper.swap(WOMAN, GROUP, target_face=4)
    with pytest.raises(NoFaceFoundError, match=r"face 1 was asked for, but .*p001_portrait\.jpg has 1 face"):
        swapper.swap(WOMAN, GROUP, source_face=1)


def test_wrong_mappings_are_refused(swapper: FaceSwapper):
    with pytest.raises(NoFaceFoundError, match=r"mapping names face 4, but .*group\.jpg has 4"):
        swapper.swap([WOMAN, MAN], GROUP, mapping={4: 0})
    with pytest.raises(ValueError, match="mapping names source 2, but 2 source"):
        swapper.swap([WOMAN, MAN], GROUP, mapping={0: 2})
    with pytest.raises(ValueError, match="mapping is empty"):
        swapper.swap([WOMAN, MAN], GROUP, mapping={})
    with pytest.raises(ValueError, match="give one of them"):
        swapper.swap([WOMAN, MAN], GROUP, mapping={0: 0}, target_face="all")
    with pytest.raises(ValueError, match="no source given"):
        swapper.swap([], GROUP)


def test_settings_reach_the_pipeline_and_the_metadata(swapper: FaceSwapper, tmp_path: Path):
    steps = []

    def on_step_end(pipeline, step, timestep, tensors):
        steps.append((step, pipeline.guidance_scale))
        return tensors

    result = swapper.swap(
        WOMAN, SELFIE, num_inference_steps=3, guidance_scale=1.5, seed=7, callback_on_step_end=on_step_end
    )
    assert steps == [(0, 1.5), (1, 1.5), (2, 1.5)]
    result.save(tmp_path / "swap.jpg")
    provenance = read_provenance(tmp_path / "swap.jpg")
    assert provenance is not None
    assert provenance["digital_source_type"].endswith("compositeWithTrainedAlgorithmicMedia")
    facts = {"checkpoint": "tiny", "region": "face", "seed": 7, "faces": 1}
    facts |= {"num_inference_steps": 3, "guidance_scale": 1.5}
    assert provenance.items() >= facts.items()
    with pytest.raises(ValueError, match="`num_inference_steps` is 0"):
        swapper.swap(WOMAN, SELFIE, num_inference_steps=0)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_photos_of_any_mode_keep_what_is_outside_the_face(swapper: FaceSwapper, mode: str):
    target = Image.open(SELFIE).convert("RGB")
    if mode == "I;16":
        target = Image.fromarray(np.asarray(target.convert("L")).astype(np.uint16) * 257)
    elif mode in ("LA", "RGBA"):
        target.putalpha(Image.linear_gradient("L").resize(target.size))
        target = target.convert(mode)
    else:
        target = target.convert(mode)
    result = swapper.swap(WOMAN, target)
    before, after = load_photo(target), np.asarray(result.image.convert("RGBA"))
    outside = np.asarray(result.mask) == 0
    np.testing.assert_array_equal(after[..., :3][outside], before.rgb[outside])
    assert (after[..., :3][~outside] != before.rgb[~outside]).any()
    if before.alpha is not None:
        np.testing.assert_array_equal(after[..., 3], before.alpha)
    if mode in ("L", "LA", "I;16"):
        assert (after[..., 0] == after[..., 2]).all()


def test_a_photo_turned_by_exif_gives_the_upright_result(swapper: FaceSwapper, tmp_path: Path):
    upright = Image.open(SELFIE).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    turned = swapper.swap(WOMAN, tmp_path / "turned.png")
    plain = swapper.swap(WOMAN, upright)
    np.testing.assert_array_equal(np.asarray(turned.image), np.asarray(plain.image))


def test_an_upside_down_face_is_swapped_where_it_is(swapper: FaceSwapper):
    target = Image.open(SELFIE).transpose(Image.Transpose.ROTATE_180)
    turned = np.asarray(swapper.swap(WOMAN, target).mask.transpose(Image.Transpose.ROTATE_180)) > 0
    upright = np.asarray(swapper.swap(WOMAN, SELFIE).mask) > 0
    assert (turned & upright).sum() > 0.85 * (turned | upright).sum()


def test_a_panorama_of_12000_pixels_is_swapped_in_place(swapper: FaceSwapper):
    panorama = np.full((768, 12_000, 3), 127, np.uint8)
    panorama[:, 9_000:9_640] = load_photo(SELFIE).rgb
    result = swapper.swap(WOMAN, panorama)
    columns = np.nonzero(np.asarray(result.mask).any(0))[0]
    assert result.image.size == (12_000, 768)
    assert 9_000 < columns[0] < columns[-1] < 9_640


def test_a_face_at_the_photos_edge_is_swapped(swapper: FaceSwapper):
    photo = load_photo(SELFIE).rgb
    (face,) = swapper.analyzer.analyze(photo)
    left, top, right, _ = face.bbox.round().astype(int)
    cut = np.ascontiguousarray(photo[top:, left + (right - left) // 8 :])
    result = swapper.swap(WOMAN, cut)
    assert (np.asarray(result.image) != cut).any()


def test_half_precision_swaps_and_devices_are_checked(tmp_path: Path):
    tiny_pipeline(crop_size=64).save_pretrained(tmp_path)
    swapper = FaceSwapper.from_pretrained(tmp_path, device="cpu", dtype="bfloat16")
    assert swapper.pipeline.unet.dtype == swapper.pipeline.vae.dtype == torch.bfloat16
    assert changed_pixels(swapper.swap(WOMAN, SELFIE), SELFIE).any()
    assert swapper.name == tmp_path.name
    with pytest.raises(ValueError, match="device banana cannot be used here"):
        FaceSwapper.from_pretrained(tmp_path, device="banana")
    with pytest.raises(ValueError, match="dtype is int8: choose one of float32, float16, bfloat16"):
        FaceSwapper.from_pretrained(tmp_path, device="cpu", dtype="int8")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_cuda_takes_half_precision_and_paints_what_the_cpu_paints(tmp_path: Path):
    tiny_pipeline(crop_size=64).save_pretrained(tmp_path)
    half = FaceSwapper.from_pretrained(tmp_path)
    assert half.pipeline.unet.dtype == torch.float16
    on_gpu = FaceSwapper.from_pretrained(tmp_path, dtype="float32").swap(WOMAN, SELFIE)
    on_cpu = FaceSwapper.from_pretrained(tmp_path, device="cpu").swap(WOMAN, SELFIE)
    difference = np.asarray(on_gpu.image).astype(int) - np.asarray(on_cpu.image)
    assert np.abs(difference).mean() < 1


def test_a_result_that_cannot_be_saved_leaves_nothing(swapper: FaceSwapper, tmp_path: Path):
    result = swapper.swap(WOMAN, SELFIE)
    with pytest.raises(ValueError, match="unknown kind"):
        result.save(tmp_path / "swap.xyz")
    assert os.listdir(tmp_path) == []


def test_with_refaces_parser_masks_are_its_sets_of_labels(monkeypatch: pytest.MonkeyPatch):
    parser = BiSeNet(sample_size=64)
    stripes = np.repeat(np.arange(64, dtype=np.uint8)[:, None] // 4, 64, axis=1) % 12  # every label, 4 rows each
    monkeypatch.setattr(parser, "parse", lambda crop: stripes)
    swapper = FaceSwapper(tiny_pipeline(crop_size=64), parser=parser)
    photo = load_photo(SELFIE)
    (face,) = swapper.analyzer.analyze(photo.rgb)
    aligned = swapper.align(photo.rgb, face)
    assert aligned.label_names == REFACE_LABELS
    expected = {"face": {1, 2, 3, 5, 6, 7, 9}, "head": {1, 2, 3, 4, 5, 6, 7, 9, 10, 11}, "hair": {4}}
    for region, indices in expected.items():
        result = swapper.swap(WOMAN, SELFIE, region=region)
        changed = crop(np.asarray(result.mask), aligned.matrix, 64) > 128
        rows = {int(stripes[row, 32]) for row in range(1, 64, 4) if changed[row + 1, 20:44].mean() > 0.5}
        assert rows <= indices
        assert len(rows) > len(indices) / 2


@pytest.fixture(scope="module")
def drawing() -> FaceSwapper:
    """A swapper whose checkpoint is shown the source's face, drawn on the target's mesh."""
    return FaceSwapper(tiny_pipeline(crop_size=64, hidden_fill="reference", masked_latents="mode"), name="drawing")


def aligned_faces(swapper: FaceSwapper, path: Path) -> list[AlignedFace]:
    rgb = load_photo(path).rgb
    return [swapper.align(rgb, face) for face in swapper.analyzer.analyze(rgb)]


class TestDrawnReference:
    @pytest.mark.parametrize("path", [WOMAN, MAN, SELFIE])
    def test_a_face_drawn_on_its_own_photo_is_that_photo(self, drawing: FaceSwapper, path: Path):
        (face,) = aligned_faces(drawing, path)
        reference = drawing.draw_reference(face, drawing.encode_source([load_photo(path)]))
        assert reference is not None
        visible = repaint_mask(face.labels, face.landmarks)
        assert (reference.coverage * visible).sum() > 0.85 * visible.sum()
        covered = reference.coverage * cv2.erode(visible, np.ones((5, 5)))  # textures leave out the border
        difference = np.abs(reference.pixels - face.pixels).mean(axis=2)
        # Of 255, at 64 px; 4.6 to 7.7 were measured, 4.4 to 6.7 with all cast shadows left in the texture.
        assert (covered * difference).sum() / covered.sum() < 8

    def test_it_is_what_the_pipeline_is_shown_where_the_face_is_hidden(self, drawing: FaceSwapper):
        (face,), person = aligned_faces(drawing, SELFIE), drawing.encode_source([load_photo(WOMAN)])
        mask, reference = repaint_mask(face.labels, face.landmarks), drawing.draw_reference(face, person)
        assert reference is not None
        latents = []

        def on_step_end(pipeline, step, timestep, tensors):
            latents.append(tensors["masked_image_latents"])
            return tensors

        (masked,) = drawing.masked_images([face], [mask], [reference])
        assert masked is not None
        drawing.repaint(
            [face], [mask], [person], [masked], 0, num_inference_steps=1,
            callback_on_step_end=on_step_end, callback_on_step_end_tensor_inputs=["masked_image_latents"],
        )  # fmt: skip
        shown = drawing.shown_reference(face, masked, person)
        drawn = mask * reference.coverage == 1
        assert drawn.sum() > 200
        np.testing.assert_allclose(shown.filled[drawn], reference.pixels[drawn], atol=0.01)
        np.testing.assert_allclose(shown.filled[mask == 0], face.pixels[mask == 0], atol=0.01)
        vae, pixels = drawing.pipeline.vae, torch.from_numpy(shown.filled).permute(2, 0, 1)[None] / 127.5 - 1
        with torch.no_grad():
            wanted = vae.encode(pixels).latent_dist.mode()
            rebuilt = vae.decode(wanted).sample[0].permute(1, 2, 0)
        torch.testing.assert_close(latents[0], wanted * vae.config["scaling_factor"], atol=1e-4, rtol=1e-4)
        np.testing.assert_allclose(shown.rebuilt, (rebuilt.numpy() + 1) * 127.5, atol=0.05)
        assert shown.fine is not None  # the photo is finer than the crop
        assert shown.fine.pixels.shape[0] > 150

    def test_faces_with_and_without_one_come_out_as_alone(self, drawing: FaceSwapper):
        faces = aligned_faces(drawing, GROUP)[:3]
        person = drawing.encode_source([load_photo(WOMAN)])
        masks = [repaint_mask(face.labels, face.landmarks) for face in faces]
        references = [drawing.draw_reference(face, person) for face in faces]
        references[1] = None
        masked = drawing.masked_images(faces, masks, references)
        together = drawing.repaint(faces, masks, [person] * 3, masked, 0, num_inference_steps=1)
        for index, crop_together in enumerate(together):
            part = slice(index, index + 1)
            (alone,) = drawing.repaint(faces[part], masks[part], [person], masked[part], 0, num_inference_steps=1)
            assert np.abs(alone.astype(int) - crop_together).max() <= 1

    def test_a_mesh_without_depth_has_none(self, drawing: FaceSwapper):
        (face,) = aligned_faces(drawing, SELFIE)
        flat = replace(face, depth=None)
        person = average_identities([drawing.encode_face(load_photo(SELFIE).rgb, flat)])
        assert person.texture is person.head is None
        assert drawing.draw_reference(face, person) is None
        assert drawing.draw_reference(flat, drawing.encode_source([load_photo(WOMAN)])) is None


class ProfileAnalyzer:
    """Finds the faces of square photos turned by 75 degrees, those of others as they are."""

    def __init__(self, analyzer: FaceAnalyzer):
        self.analyzer = analyzer

    def analyze(self, image: np.ndarray) -> list[Face]:
        faces = self.analyzer.analyze(image)
        return [self.turn(face) for face in faces] if image.shape[0] == image.shape[1] else faces

    @staticmethod
    def turn(face: Face) -> Face:
        points = np.column_stack([face.landmarks, face.depth])
        middle = (points.min(axis=0) + points.max(axis=0)) / 2
        cosine, sine = np.cos(np.radians(75)), np.sin(np.radians(75))
        turn = np.array([[cosine, 0, -sine], [0, 1, 0], [sine, 0, cosine]])  # depth grows away from the viewer
        points = (points - middle) @ turn.T + middle
        return replace(
            face, landmarks=points[:, :2], landmarks68=dlib68(points[:, :2]), depth=points[:, 2], head_pose=None
        )


class TestSourceShown:
    def test_a_source_in_profile_shows_one_side(self, drawing: FaceSwapper):
        in_profile = FaceSwapper(drawing.pipeline, ProfileAnalyzer(drawing.analyzer), parser=drawing.parser)
        (share,), (frontal,) = (swapper.swap(WOMAN, SELFIE).source_shown for swapper in (in_profile, drawing))
        assert 0.1 < share < 0.5
        assert frontal > 0.75
        look = in_profile.encode_source([load_photo(WOMAN)])
        x = look.texture.confidence.shape[1]
        left, right = look.texture.confidence[:, : x // 4], look.texture.confidence[:, -x // 4 :]
        assert (left > 0.5).mean() > 0.2  # it is turned to the viewer's right
        assert right.max() <= 0.31  # nothing but the mirror image

    def test_results_say_how_much_of_each_face_was_shown(self, drawing: FaceSwapper, tmp_path: Path):
        both = drawing.swap([WOMAN, MAN], GROUP, mapping={0: 1, 2: 0})
        shares = [drawing.encode_source([load_photo(path)]).texture.shown for path in (MAN, WOMAN)]
        assert both.source_shown == both.provenance["source_shown"] == pytest.approx(shares, abs=1e-3)
        assert all(0.6 < share <= 1 for share in shares)
        both.save(tmp_path / "both.png")
        provenance = read_provenance(tmp_path / "both.png")
        assert provenance is not None
        assert provenance["source_shown"] == both.source_shown

    def test_without_references_there_is_nothing_to_say(self, swapper: FaceSwapper):
        result = swapper.swap(WOMAN, SELFIE)
        assert result.source_shown is result.provenance["source_shown"] is None

    def test_several_photos_show_at_least_what_the_best_of_them_shows(self, drawing: FaceSwapper):
        """One face has twice the pixels of the other: their textures are of two sizes."""
        photos = [load_photo(IMAGES / name) for name in ("p001_portrait.jpg", "p001_park.jpg")]
        alone = [drawing.encode_source([photo]) for photo in photos]
        assert [len(person.texture.confidence) for person in alone] == [640, 256]
        for listed in (photos, photos[::-1]):
            both = drawing.encode_source(listed)
            assert both.texture.pixels.shape == (640, 640, 3)
            assert both.texture.shown >= max(person.texture.shown for person in alone) - 1e-3
            best = max(alone, key=lambda person: person.texture.shown)
            np.testing.assert_array_equal(both.head.image, best.head.image)

    def test_what_lies_beyond_the_photos_edge_is_not_shown(self, drawing: FaceSwapper):
        """Crops show the mirror image there, which is nobody's other half."""
        whole = load_photo(WOMAN).rgb
        (face,) = drawing.analyzer.analyze(whole)
        middle = round(face.landmarks[4, 0])  # the tip of the nose
        half = np.ascontiguousarray(whole[:, :middle])
        (cut,) = drawing.analyzer.analyze(half)
        aligned = drawing.align(half, cut)
        look = drawing.encode_face(half, aligned)
        beyond = within_photo(half, aligned.matrix, 64) == 0
        assert 0.2 < beyond.mean() < 0.6
        assert look.texture.shown < drawing.encode_source([load_photo(WOMAN)]).texture.shown - 0.35
        assert (look.head.shown[beyond] == 0).all()
        right = look.texture.confidence.shape[1] * 3 // 4
        assert (look.texture.confidence[:, right:] > 0).mean() < 0.02

    def test_the_photo_in_a_crop_by_hand(self):
        shifted = np.array([[1.0, 0, 6], [0, 1.0, 0]])  # the crop's first six columns are left of the photo
        inside = within_photo(np.zeros((12, 12, 3), np.uint8), shifted, 12)
        assert (inside[:, :4] == 0).all()
        assert (inside[:9, 8:] == 1).all()


class TestWarnings:
    def test_photos_of_two_people_given_as_one_are_named(self, caplog: pytest.LogCaptureFixture):
        swapper = FaceSwapper(tiny_pipeline(crop_size=128))
        person = swapper.encode_source([load_photo(path) for path in (WOMAN, IMAGES / "p001_park.jpg", MAN)])
        (told,) = caplog.messages
        looks = [swapper.encode_source([load_photo(path)]).identity_embeds[0] for path in (WOMAN, MAN)]
        cosine = float(looks[0] @ looks[1])
        assert cosine < SFace.same_person
        assert told.startswith(f"{MAN} does not look like the person in {WOMAN} (cosine {cosine:.2f}, below 0.363): ")
        assert person.identity_embeds.norm().item() == pytest.approx(1, abs=1e-5)

    def test_a_source_that_shows_little_is_warned_of(self, drawing: FaceSwapper, caplog: pytest.LogCaptureFixture):
        photo = load_photo(WOMAN)
        (face,) = drawing.analyzer.analyze(photo.rgb)
        left, _, right, _ = face.bbox
        cut = replace(
            photo, rgb=np.ascontiguousarray(photo.rgb[:, : round(left + 0.4 * (right - left))]), name="cut.jpg"
        )
        person = drawing.encode_source([cut])
        assert 0.2 < person.texture.shown < 1 / 3
        (told,) = caplog.messages
        assert told.startswith(f"cut.jpg shows only {person.texture.shown:.0%} of the face")
        caplog.clear()
        drawing.encode_source([cut, photo])  # which shows the rest
        assert caplog.messages == []

    def test_one_frontal_photo_is_not_warned_of(self, drawing: FaceSwapper, caplog: pytest.LogCaptureFixture):
        drawing.encode_source([load_photo(WOMAN)])
        drawing.encode_source([load_photo(WOMAN), load_photo(WOMAN)])
        assert caplog.messages == []


class TestStrength:
    @staticmethod
    def steps_of(swapper: FaceSwapper, **settings) -> tuple[int, float]:
        steps = []

        def on_step_end(pipeline, step, timestep, tensors):
            steps.append(step)
            return tensors

        settings = {"num_inference_steps": 4, "callback_on_step_end": on_step_end, **settings}
        made = swapper.swap(WOMAN, SELFIE, region="nose", **settings)  # without holes, which take all steps
        return len(steps), made.provenance["strength"]

    def test_below_one_a_swap_takes_fewer_steps(self, drawing: FaceSwapper):
        assert self.steps_of(drawing, strength=0.5) == (2, 0.5)
        assert self.steps_of(drawing, strength=1.0) == (4, 1.0)

    def test_the_checkpoint_has_a_default(self, drawing: FaceSwapper, swapper: FaceSwapper):
        assert self.steps_of(drawing) == (4, 1.0)
        eager = FaceSwapper(tiny_pipeline(crop_size=64, hidden_fill="reference", default_strength=0.75))
        assert self.steps_of(eager) == (3, 0.75)
        assert self.steps_of(swapper) == (4, 1.0)

    def test_it_is_refused_where_nothing_is_drawn(self, swapper: FaceSwapper, drawing: FaceSwapper):
        with pytest.raises(ValueError, match=r"`strength` is 0\.5, but below 1 a swap starts from the reference"):
            swapper.swap(WOMAN, SELFIE, strength=0.5)
        with pytest.raises(ValueError, match=r"`strength` is 1\.5: a number above 0 and at most 1 is needed"):
            drawing.swap(WOMAN, SELFIE, strength=1.5)
