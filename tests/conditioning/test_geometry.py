import numpy as np
import torch

from faceswap_diffusion.conditioning.geometry import exchange_geometry, fit_geometry, identity_geometry, move_mesh
from faceswap_diffusion.faces.mesh_topology import FACE_OVAL_478
from tests.canonical_face import canonical_face


def people(count: int = 400) -> tuple[torch.Tensor, ...]:
    """Landmarks made of pose, expression and a shape of their owner's, each known."""
    generator = torch.Generator().manual_seed(0)
    pose = 20 * torch.randn(count, 3, generator=generator)
    blendshapes = torch.rand(count, 52, generator=generator)
    by_pose, by_expression = (torch.randn(n, 136, generator=generator) for n in (2, 52))
    shape = 2 * torch.randn(count, 136, generator=generator)
    landmarks = 64 + (pose[:, :2] / 30) @ by_pose + blendshapes @ by_expression + shape
    return landmarks.view(-1, 68, 2), pose, blendshapes, shape.view(-1, 68, 2)


def test_what_pose_and_expression_do_not_explain_is_the_owners_shape():
    landmarks, pose, blendshapes, shape = people()
    residual = identity_geometry(landmarks, pose, blendshapes, fit_geometry(landmarks, pose, blendshapes))
    assert torch.corrcoef(torch.stack([residual.flatten(), shape.flatten()]))[0, 1] > 0.9
    # The same face turned and smiling has the same shape: nothing of pose is left.
    correlation = torch.corrcoef(torch.cat([pose.T, residual.flatten(1).T]))[:2, 3:]
    assert correlation.abs().max() < 0.05


def test_exchange_replaces_a_share_of_the_shape():
    landmarks, own, other = torch.full((3, 68, 2), 10.0), torch.full((3, 68, 2), 1.0), torch.full((3, 68, 2), 3.0)
    exchanged = exchange_geometry(landmarks, own, other, torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1))
    assert exchanged[:, 0, 0].tolist() == [10.0, 11.0, 12.0]


class TestMoveMesh:
    mesh = canonical_face().landmarks

    def test_no_displacement_moves_nothing(self):
        np.testing.assert_array_equal(move_mesh(self.mesh, np.zeros((68, 2))), self.mesh)

    def test_a_shift_of_all_landmarks_is_one_of_the_inner_face_but_not_of_its_outline(self):
        moved = move_mesh(self.mesh, np.tile([3.0, -2.0], (68, 1))) - self.mesh
        np.testing.assert_allclose(moved[[1, 33, 263, 13, 14]], np.tile([3.0, -2.0], (5, 1)), atol=0.01)
        np.testing.assert_allclose(moved[list(FACE_OVAL_478)], 0, atol=1e-9)

    def test_a_wider_mouth_moves_the_mouth_and_its_neighbours_only(self):
        displacement = np.zeros((68, 2))
        displacement[[48, 54]] = [[-4.0, 0], [4.0, 0]]  # the corners
        moved = move_mesh(self.mesh, displacement) - self.mesh
        assert -4 < moved[61, 0] < -1.5  # smoothed: a single landmark is not believed to the pixel
        assert 1.5 < moved[291, 0] < 4
        assert np.abs(moved[[33, 133, 263, 362]]).max() < 0.5
