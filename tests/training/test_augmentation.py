import pytest
import torch

from faceswap_diffusion.training.augmentation import (
    augment_sources,
    gaussian_blur,
    jitter_views,
    rotations,
    thin_plate_basis,
    warp_masks,
)


def test_the_basis_moves_the_centre_and_no_other_control_point():
    basis = thin_plate_basis(65)
    controls = basis[::32, ::32]
    wanted = torch.zeros(3, 3)
    wanted[1, 1] = 1
    torch.testing.assert_close(controls, wanted, atol=1e-5, rtol=0)
    torch.testing.assert_close(basis, basis.flip(0).flip(1), atol=1e-5, rtol=0)


def test_the_basis_is_the_spline_that_scipy_solves():
    interpolate = pytest.importorskip("scipy.interpolate")
    axis = torch.linspace(-1, 1, 3)
    controls = torch.cartesian_prod(axis, axis).numpy()
    values = [0, 0, 0, 0, 1, 0, 0, 0, 0]
    spline = interpolate.RBFInterpolator(controls, values, kernel="thin_plate_spline", degree=1)
    pixels = torch.cartesian_prod(*[torch.linspace(-1, 1, 17)] * 2).numpy()
    wanted = torch.from_numpy(spline(pixels)).view(17, 17).float()
    torch.testing.assert_close(thin_plate_basis(17), wanted, atol=1e-4, rtol=0)


def test_warping_moves_a_centred_mask_and_keeps_the_border():
    torch.manual_seed(0)
    masks = torch.zeros(64, 1, 33, 33)
    masks[:, :, 12:21, 12:21] = 1
    warped = warp_masks(masks, thin_plate_basis(33))
    axis = torch.linspace(-1, 1, 33)
    centre_x = (warped.sum(2) * axis).sum((1, 2)) / warped.sum((1, 2, 3))
    assert centre_x.abs().max() <= 0.5 + 1 / 16  # s / 2 with s <= 1
    assert centre_x.std() > 0.1
    full = torch.ones(2, 1, 33, 33)
    torch.testing.assert_close(warp_masks(full, thin_plate_basis(33)), full)


def test_blur_keeps_the_mean_and_spreads_a_point_by_sigma():
    point = torch.zeros(1, 2, 41, 41)
    point[..., 20, 20] = 1
    blurred = gaussian_blur(point, 2.0)
    axis = torch.arange(41.0) - 20
    torch.testing.assert_close(blurred.sum((2, 3)), torch.ones(1, 2))
    assert (blurred.sum(2) * axis.square()).sum(2).sqrt() == pytest.approx(torch.full((1, 2), 2.0), rel=0.02)
    assert gaussian_blur(point, 0.0) is point


def test_pixels_and_mask_of_a_source_turn_together():
    torch.manual_seed(0)
    picture = torch.zeros(8, 4, 64, 64)
    picture[:, :, 20:30, 34:50] = 1
    turned = augment_sources(picture, blur_probability=0.0)
    torch.testing.assert_close(turned[:, :3], turned[:, 3:].expand(-1, 3, -1, -1))
    assert (turned != picture).flatten(1).any(1).all()
    torch.testing.assert_close(turned.sum((1, 2, 3)), picture.sum((1, 2, 3)), rtol=0.05, atol=0)


def test_rotation_by_hand():
    matrix = rotations(torch.tensor([90.0]), torch.tensor([2.0]), torch.tensor([[0.5, -0.25]]))
    torch.testing.assert_close(matrix, torch.tensor([[[0.0, -2.0, 0.5], [2.0, 0.0, -0.25]]]), atol=1e-6, rtol=0)


def test_jittered_views_differ_a_little_are_mirrored_half_the_time_and_carry_gradients():
    torch.manual_seed(0)
    pictures = torch.zeros(64, 1, 65, 65, requires_grad=True)
    with torch.no_grad():
        pictures[:, :, 30:35, 42:47] = 1  # right of the centre
    views = jitter_views(pictures)
    axis = torch.linspace(-1, 1, 65)
    centre_x = (views.sum(2) * axis).sum((1, 2)) / views.sum((1, 2, 3))
    mirrored = (centre_x < 0).float().mean().item()
    assert 0.25 < mirrored < 0.75
    assert (centre_x.abs() - 0.375).abs().max() < 0.12
    views.sum().backward()
    assert pictures.grad is not None
    assert pictures.grad.abs().sum() > 0
