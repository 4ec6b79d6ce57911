import pytest
import torch

from faceswap_diffusion.training.data.augmentation import (
    augment_source,
    elastic_field,
    gaussian_blur,
    jitter_views,
    rotations,
    soften,
    thin_plate_basis,
    warp_mask,
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


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def centre_x(images: torch.Tensor) -> torch.Tensor:
    """Centre of mass along x in [-1, 1], of (B, C, S, S)."""
    axis = torch.linspace(-1, 1, images.shape[-1])
    return (images.sum(2) * axis).sum((1, 2)) / images.sum((1, 2, 3))


def test_warping_moves_a_centred_mask_and_keeps_the_border():
    mask = torch.zeros(1, 33, 33)
    mask[:, 12:21, 12:21] = 1
    basis = thin_plate_basis(33)
    warped = torch.stack([warp_mask(mask, basis, generator(seed)) for seed in range(64)])
    assert centre_x(warped).abs().max() <= 0.5 + 1 / 16  # s / 2 with s <= 1
    assert centre_x(warped).std() > 0.1
    full = torch.ones(1, 33, 33)
    torch.testing.assert_close(warp_mask(full, basis, generator()), full)


def test_blur_keeps_the_mean_and_spreads_a_point_by_sigma():
    point = torch.zeros(1, 2, 41, 41)
    point[..., 20, 20] = 1
    blurred = gaussian_blur(point, 2.0)
    axis = torch.arange(41.0) - 20
    torch.testing.assert_close(blurred.sum((2, 3)), torch.ones(1, 2))
    assert (blurred.sum(2) * axis.square()).sum(2).sqrt() == pytest.approx(torch.full((1, 2), 2.0), rel=0.02)
    torch.testing.assert_close(gaussian_blur(point[0], 2.0), blurred[0])
    assert gaussian_blur(point, 0.0) is point


def test_masks_are_softened_by_different_sigmas_up_to_the_largest():
    point = torch.zeros(1, 41, 41)
    point[..., 20, 20] = 1
    axis = torch.arange(41.0) - 20
    softened = torch.stack([soften(point, 2.0, generator(seed)) for seed in range(32)])
    spreads = (softened[:, 0].sum(1) * axis.square()).sum(1).sqrt()
    assert spreads.max() < 2.0
    assert spreads.max() - spreads.min() > 1.0


@pytest.mark.parametrize(("blur", "elastic"), [(0.0, 0.0), (0.0, 1.0), (1.0, 1.0)])
def test_pixels_and_mask_of_a_source_move_together(blur, elastic):
    picture = torch.zeros(4, 64, 64)
    picture[:, 20:30, 34:50] = 1
    for seed in range(4):
        moved = augment_source(picture, generator(seed), blur_probability=blur, elastic_probability=elastic)
        torch.testing.assert_close(moved[:3], moved[3:].expand(3, -1, -1))
        assert (moved != picture).any()
        torch.testing.assert_close(moved.sum((1, 2)), picture.sum((1, 2)), rtol=0.3 if elastic else 0.05, atol=0)


def test_shares_of_blurred_and_of_deformed_sources_are_as_asked():
    torch.manual_seed(0)
    picture = torch.rand(1, 128, 128)  # where almost no sigma is too small to tell
    plain, blurred, deformed = [
        [augment_source(picture, generator(seed), 0.0, *shares) for seed in range(200)]
        for shares in ((0.0, 0.0), (0.3, 0.0), (0.0, 0.3))
    ]
    for changed in (blurred, deformed):
        differ = [not torch.equal(a, b) for a, b in zip(changed, plain, strict=True)]
        assert 0.2 < sum(differ) / 200 < 0.4
    torch.testing.assert_close(plain[0], picture)


def test_sources_turn_either_way_up_to_the_limit():
    bar = torch.zeros(1, 65, 65)
    bar[:, 30:35, 8:57] = 1
    axis = torch.linspace(-1, 1, 65)
    angles = []
    for seed in range(64):
        turned = augment_source(bar, generator(seed), 20.0, 0.0, 0.0)[0]
        xy, xx = (turned * axis[:, None] * axis).sum(), (turned * axis.square()).sum()
        angles.append(torch.atan2(xy, xx).rad2deg())
    angles = torch.stack(angles)
    assert angles.abs().max() < 20.5
    assert angles.min() < -15
    assert angles.max() > 15


def test_an_elastic_field_is_smooth_small_and_never_folds():
    for seed in range(32):
        field = elastic_field(128, generator(seed))
        assert field.shape == (128, 128, 2)
        assert 0.01 < field.abs().max() < 0.08  # half sides: 4 % of the side
        slope = field.diff(dim=1)[..., 0] / (2 / 127)
        assert slope.abs().max() < 1
        assert field.diff(n=2, dim=1).abs().max() < 1e-3


def test_a_generator_decides_alone():
    picture, basis = torch.rand(4, 32, 32, generator=generator(9)), thin_plate_basis(32)

    def augmented(seed: int) -> torch.Tensor:
        drawn = generator(seed)
        mask = soften(warp_mask(picture[3:], basis, drawn), 2.0, drawn)
        return torch.cat([mask, augment_source(picture, drawn)])

    torch.manual_seed(0)
    first, state = augmented(3), torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(augmented(3), first)
    assert not torch.equal(augmented(4), first)
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), state)


def test_rotation_by_hand():
    matrix = rotations(torch.tensor([90.0]), torch.tensor([2.0]), torch.tensor([[0.5, -0.25]]))
    torch.testing.assert_close(matrix, torch.tensor([[[0.0, -2.0, 0.5], [2.0, 0.0, -0.25]]]), atol=1e-6, rtol=0)


def test_jittered_views_differ_a_little_are_mirrored_half_the_time_and_carry_gradients():
    pictures = torch.zeros(64, 1, 65, 65, requires_grad=True)
    with torch.no_grad():
        pictures[:, :, 30:35, 42:47] = 1  # right of the centre
    views = jitter_views(pictures, [generator(seed) for seed in range(64)])
    mirrored = (centre_x(views) < 0).float().mean().item()
    assert 0.25 < mirrored < 0.75
    assert (centre_x(views).abs() - 0.375).abs().max() < 0.12
    views.sum().backward()
    assert pictures.grad is not None
    assert pictures.grad.abs().sum() > 0


def test_a_view_is_the_same_alone_and_in_a_batch():
    pictures = torch.rand(3, 3, 32, 32, generator=generator())
    together = jitter_views(pictures, [generator(seed) for seed in (5, 6, 7)])
    alone = jitter_views(pictures[1:2], [generator(6)])
    torch.testing.assert_close(together[1:2], alone)
