"""What a training step does to masks and sources, so that the model cannot copy its way out."""

import math

import torch
import torch.nn.functional as F


def thin_plate_basis(size: int) -> torch.Tensor:
    """How far each pixel follows the centre of a 3x3 thin-plate spline whose other control points stay.

    The spline interpolates displacements with the kernel r^2 log r (Bookstein 1989, equation 3). It is linear in the
    displacements, so one map, computed once, warps by any movement of the centre.

    Args:
        size (`int`): Side of the map in pixels.

    Returns:
        `torch.Tensor`: (size, size), 1 at the centre and 0 at the eight control points on the border.
    """
    axis = torch.linspace(-1, 1, 3, dtype=torch.float64)
    controls = torch.cartesian_prod(axis, axis)
    pixels = torch.cartesian_prod(*[torch.linspace(-1, 1, size, dtype=torch.float64)] * 2)

    def kernel(points: torch.Tensor) -> torch.Tensor:
        squared = torch.cdist(points, controls).square()
        return torch.special.xlogy(squared, squared) / 2

    def affine(points: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.ones(len(points), 1, dtype=torch.float64), points], 1)

    system = torch.zeros(12, 12, dtype=torch.float64)
    system[:9, :9], system[:9, 9:], system[9:, :9] = kernel(controls), affine(controls), affine(controls).T
    displacement = torch.zeros(12, dtype=torch.float64)
    displacement[4] = 1
    solution = torch.linalg.solve(system, displacement)
    return (torch.cat([kernel(pixels), affine(pixels)], 1) @ solution).view(size, size).float()


def warp_masks(masks: torch.Tensor, basis: torch.Tensor) -> torch.Tensor:
    """REFace's mask warp: the centre moves by U(-s/2, s/2) along x and y, s ~ U(0.5, 1), in [-1, 1] coordinates.

    Args:
        masks (`torch.Tensor`): (B, 1, S, S) in [0, 1].
        basis (`torch.Tensor`): (S, S), from `thin_plate_basis`.
    """
    batch_size, size = len(masks), masks.shape[-1]
    strength = 0.5 + 0.5 * torch.rand(batch_size, 1, 1, 1)
    movement = (torch.rand(batch_size, 1, 1, 2) - 0.5) * strength
    grid = F.affine_grid(torch.eye(2, 3).repeat(batch_size, 1, 1), [batch_size, 1, size, size], align_corners=True)
    return F.grid_sample(masks, grid + movement * basis[None, :, :, None], padding_mode="border", align_corners=True)


def soften(masks: torch.Tensor, max_sigma: float) -> torch.Tensor:
    """Blurs masks (B, 1, S, S) by one Gaussian of random sigma below `max_sigma` pixels: swaps are feathered."""
    return gaussian_blur(masks, max_sigma * torch.rand(()).item())


def gaussian_blur(images: torch.Tensor, sigma: float) -> torch.Tensor:
    """Blurs (B, C, S, S) by a Gaussian of `sigma` pixels, mirrored at the border."""
    radius = math.ceil(3 * sigma)
    if radius == 0:
        return images
    offsets = torch.arange(-radius, radius + 1, dtype=images.dtype)
    kernel = torch.exp(-offsets.square() / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(images.shape[1], 1, 1, -1)
    padded = F.pad(images, (radius,) * 4, mode="reflect")
    blurred = F.conv2d(padded, kernel, groups=images.shape[1])
    return F.conv2d(blurred, kernel.transpose(2, 3), groups=images.shape[1])


def rotations(degrees: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Affine maps (B, 2, 3) for `affine_grid`: rotation by (B,) degrees, scale (B,), shift (B, 2) of half a side."""
    cosine, sine = scale * degrees.deg2rad().cos(), scale * degrees.deg2rad().sin()
    rows = torch.stack([cosine, -sine, shift[:, 0]], 1), torch.stack([sine, cosine, shift[:, 1]], 1)
    return torch.stack(rows, 1)


def jitter_views(images: torch.Tensor) -> torch.Tensor:
    """Turns, scales, shifts and mirrors pictures (B, C, S, S) a little: a recogniser is harder to fool then.

    Up to 5 degrees, 6 % and 3 % of the side; half of them are mirrored. Differentiable.
    """
    count = len(images)
    matrices = rotations(
        10 * torch.rand(count) - 5, 1 + 0.12 * (torch.rand(count) - 0.5), 0.12 * (torch.rand(count, 2) - 0.5)
    )
    mirror = torch.where(torch.rand(count, 1) < 0.5, -1.0, 1.0)
    matrices[:, 0] *= mirror
    grid = F.affine_grid(matrices.to(images), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def augment_sources(images: torch.Tensor, max_degrees: float = 20.0, blur_probability: float = 0.3) -> torch.Tensor:
    """REFace's source augmentation: rotation by up to 20 degrees, and for some a blur.

    Args:
        images (`torch.Tensor`): (B, C, S, S): pixels and mask side by side, so that they turn together.
        max_degrees (`float`): Largest rotation either way.
        blur_probability (`float`): Share of the batches that are blurred, sigma up to 1.5 pixels.
    """
    count = len(images)
    matrices = rotations(max_degrees * (2 * torch.rand(count) - 1), torch.ones(count), torch.zeros(count, 2))
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    turned = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    return gaussian_blur(turned, 1.5 * torch.rand(()).item()) if torch.rand(()) < blur_probability else turned
