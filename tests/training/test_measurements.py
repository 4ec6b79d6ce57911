import numpy as np
import pytest
import torch
from PIL import Image

from faceswap_diffusion.faces.landmarks import BLENDSHAPE_NAMES
from faceswap_diffusion.training.batches import SwapSampler
from faceswap_diffusion.training.measurements import (
    MIRRORED_DLIB68,
    light_samples,
    measure_faces,
    mirrored_blendshapes,
)


@pytest.fixture(scope="module")
def crops(tmp_path_factory, example_images):
    """A face, its mirror image, and a picture without a face."""
    folder = tmp_path_factory.mktemp("crops")
    image = Image.open(example_images / "p010_portrait.jpg").convert("RGB").resize((256, 256))
    image.save(folder / "a.png")
    image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "b.png")
    Image.new("RGB", (256, 256), "grey").save(folder / "c.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def measured(crops, tmp_path_factory):
    return measure_faces(crops, tmp_path_factory.mktemp("cache") / "measured.safetensors", 128)


def test_a_picture_without_a_face_is_left_out(measured):
    assert measured["path_index"].tolist() == [0, 1]
    assert measured["pixels"].shape == (2, 128, 128, 3)
    assert measured["identity_embeds"].shape == (2, 2, 128)


def test_the_mirror_tables_name_what_is_found_in_the_mirrored_picture(measured):
    assert MIRRORED_DLIB68[MIRRORED_DLIB68].tolist() == list(range(68))
    order = mirrored_blendshapes()
    assert BLENDSHAPE_NAMES[order[BLENDSHAPE_NAMES.index("mouthSmileLeft")]] == "mouthSmileRight"
    straight, mirrored = measured["landmarks"]
    flipped = straight[MIRRORED_DLIB68] * torch.tensor([-1.0, 1.0]) + torch.tensor([127.0, 0.0])
    assert (flipped - mirrored).norm(dim=1).mean() < 1.5  # pixels; a wrong table is off by tens
    torch.testing.assert_close(
        measured["head_pose"][0] * torch.tensor([-1, 1, -1]), measured["head_pose"][1], atol=3, rtol=0
    )


def test_masks_cover_the_face_and_the_head_reaches_further(measured):
    face, head = measured["face_mask"][0] > 127, measured["head_mask"][0] > 127
    x, y = measured["landmarks"][0, 30].round().long().tolist()  # tip of the nose
    assert face[y, x]
    assert head.sum() > 1.2 * face.sum()
    assert (face & ~head).sum() < 0.02 * face.sum()


def test_light_is_read_where_the_mesh_says():
    image = np.zeros((50, 50, 3), np.uint8)
    image[:25, :, 0] = 255
    landmarks = np.full((478, 2), 40.0)
    landmarks[151] = (25, 10)
    samples = light_samples(image, landmarks)
    assert samples[0].tolist() == [1.0, -1.0, -1.0]
    assert samples[1].tolist() == [-1.0, -1.0, -1.0]


def test_a_batch_gives_the_first_samples_another_persons_source(measured):
    latents = torch.arange(2 * 2, dtype=torch.float16).view(2, 2, 1, 1, 1).expand(-1, -1, 4, 32, 32)
    sampler = SwapSampler(measured, latents, identity_noise=0.0, landmark_noise=0.0)
    torch.manual_seed(0)
    rows = torch.tensor([0, 1])
    batch = sampler.draw(rows, num_cross=2)
    known = measured["identity_embeds"]
    for sample, source in enumerate((1, 0)):
        assert (batch.identity_embeds[sample] - known[source]).norm(dim=1).min() < 1e-6
    alone = sampler.draw(rows, num_cross=0)
    for sample in (0, 1):
        assert (alone.identity_embeds[sample] - known[sample]).norm(dim=1).min() < 1e-6
    assert batch.mask.min() >= 0
    assert batch.mask.max() <= 1
    assert batch.pixels.shape == batch.source_pixels.shape == (2, 3, 128, 128)


def test_a_mirrored_target_has_mirrored_latents_landmarks_and_pixels(measured):
    latents = torch.arange(2 * 2, dtype=torch.float16).view(2, 2, 1, 1, 1).expand(-1, -1, 4, 32, 32)
    sampler = SwapSampler(measured, latents, landmark_noise=0.0, geometry_share=0.0)
    straight = measured["pixels"][0].permute(2, 0, 1).float() / 127.5 - 1
    seen = set()
    for seed in range(8):
        torch.manual_seed(seed)
        batch = sampler.draw(torch.tensor([0]), num_cross=0)
        mirrored = int(batch.latents[0, 0, 0, 0])  # 0 straight, 1 mirrored, as laid out above
        seen.add(mirrored)
        assert torch.equal(batch.pixels[0], straight.flip(-1) if mirrored else straight)
        nose_x = batch.landmarks[0, 30, 0].item()
        wanted = measured["landmarks"][0, 30, 0].item()
        assert nose_x == pytest.approx(127 - wanted if mirrored else wanted, abs=1e-3)
    assert seen == {0, 1}


def test_a_batch_moves_to_a_device_whole(measured):
    sampler = SwapSampler(measured, torch.zeros(2, 2, 4, 32, 32))
    batch = sampler.draw(torch.tensor([0, 1]), num_cross=1)
    moved = batch.to("meta")
    tensors = {name: value for name, value in vars(moved).items() if isinstance(value, torch.Tensor)}
    assert len(tensors) == 7
    assert {value.device.type for value in tensors.values()} == {"meta"}
    assert moved.num_cross == 1
    assert batch.pixels.device.type == "cpu"
