import torch

from faceswap_diffusion.conditioning.geometry import exchange_geometry, fit_geometry, identity_geometry


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
