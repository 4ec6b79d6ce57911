from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from faceswap_diffusion.conditioning.identity import IDENTITY_NETWORKS, IRSE50, SFace, dequantize_blocks
from faceswap_diffusion.faces.alignment import crop, ffhq_matrix
from faceswap_diffusion.faces.analyzer import MeshFaceAnalyzer


@pytest.fixture(scope="module")
def sface() -> SFace:
    return SFace().eval()


def aligned_crop(path: Path, size: int = 128) -> torch.Tensor:
    image = np.asarray(Image.open(path).convert("RGB"))
    (face,) = MeshFaceAnalyzer().analyze(image)
    pixels = crop(image, ffhq_matrix(face.landmarks68, size), size)
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1


def test_blocks_are_dequantized_with_their_own_scale_and_zero_point():
    weight = torch.tensor([[1, 2, 3, 4, 5]], dtype=torch.int8)
    scale, zero_point = torch.tensor([[1.0, 10.0]]), torch.tensor([[0, 1]], dtype=torch.int8)
    assert dequantize_blocks(weight, scale, zero_point).tolist() == [[1.0, 2.0, 3.0, 30.0, 40.0]]


def test_sface_gives_what_the_original_onnx_file_gives(sface):
    # The golden embedding was computed by ONNX Runtime from face_recognition_sface_2021dec_int8bq.onnx.
    golden = load_file(Path(__file__).with_name("sface_golden.safetensors"))
    pixels = golden["aligned_face"].permute(2, 0, 1)[None].float() / 127.5 - 1
    torch.testing.assert_close(sface(pixels), golden["embedding"], atol=2e-6, rtol=0)


def test_sface_cannot_be_trained_nor_saved_but_lets_gradients_through(sface):
    assert not list(sface.parameters())
    assert not sface.state_dict()
    pixels = torch.zeros(1, 3, 128, 128, requires_grad=True)
    sface(sface.prepare(pixels))[0, 0].backward()
    assert pixels.grad is not None
    assert torch.isfinite(pixels.grad).all()
    assert pixels.grad.abs().sum() > 0


def test_two_photos_of_a_person_are_nearer_than_two_people(sface, example_images):
    names = ("p010_portrait.jpg", "p010_selfie.jpg", "p005_portrait.jpg", "p005_selfie.jpg")
    crops = torch.cat([aligned_crop(example_images / name) for name in names])
    embeds = sface(sface.prepare(crops))
    cosine = embeds @ embeds.T
    torch.testing.assert_close(cosine.diagonal(), torch.ones(4))
    others = max(cosine[:2, 2:].max().item(), 0.2)
    assert cosine[0, 1] > others + 0.2
    assert cosine[2, 3] > others + 0.2


def test_sface_has_its_buffers_in_the_same_order_in_every_process():
    """DDP sends buffers of the first process to the others by their order; another one would mix up their weights."""
    layers = [name.rpartition("_")[0] for name, _ in SFace().named_buffers()]
    assert list(dict.fromkeys(layers)) == sorted(set(layers))


def test_thresholds_of_one_person_belong_to_the_recogniser():
    assert SFace.same_person == 0.363
    assert IRSE50.same_person == pytest.approx(1 - 1.54 / 2)  # of a squared distance between unit vectors
    assert all(hasattr(network, "same_person") for network in IDENTITY_NETWORKS.values())
