"""The landmark network in torch against the same network run by LiteRT."""

import copy
import zipfile

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

from faceswap_diffusion.faces.landmarks import NET_SIZE
from faceswap_diffusion.training.objectives.mesh_network import MeshNetwork
from faceswap_diffusion.weights.registry import model_path

STEP = 1e-9  # few of the network's kinks lie within


@pytest.fixture(scope="module")
def network() -> MeshNetwork:
    return MeshNetwork()


@pytest.fixture(scope="module")
def photos(example_images) -> torch.Tensor:
    """Two photos, as the network takes them."""
    paths = sorted(example_images.glob("*portrait*.jpg"))[:2]
    images = [np.asarray(Image.open(path).convert("RGB").resize((NET_SIZE, NET_SIZE))) for path in paths]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


def test_it_computes_what_litert_computes(network, photos):
    with zipfile.ZipFile(model_path("face_landmarker")) as task:
        original = Interpreter(model_content=task.read("face_landmarks_detector.tflite"), num_threads=1)
    original.allocate_tensors()
    meshes = network(photos)
    assert meshes.shape == (2, 478, 3)
    for photo, mesh in zip(photos, meshes, strict=True):
        original.set_tensor(original.get_input_details()[0]["index"], photo[None].permute(0, 2, 3, 1).numpy())
        original.invoke()
        wanted = original.get_tensor(original.get_output_details()[0]["index"]).reshape(478, 3)
        np.testing.assert_allclose(mesh.numpy(), wanted, atol=2e-3)


def test_gradients_reach_the_picture_and_no_weight(network, photos):
    """The derivative along a direction is that of finite differences."""
    noise = torch.randn(1, 3, 266, 266, generator=torch.manual_seed(0), dtype=torch.float64)
    direction = torch.nn.functional.avg_pool2d(noise, 11, 1)
    exact = copy.deepcopy(network).double()
    photo = photos[:1].double().requires_grad_()
    (gradient,) = torch.autograd.grad(exact(photo)[:, 152, 1].sum(), photo)
    slope = (gradient * direction).sum()
    with torch.no_grad():
        ahead, behind = (exact(photo + sign * STEP * direction)[0, 152, 1] for sign in (1, -1))
    assert slope != 0
    torch.testing.assert_close(slope, (ahead - behind) / (2 * STEP), rtol=1e-4, atol=0)
    assert not any(parameter.requires_grad for parameter in network.parameters())
