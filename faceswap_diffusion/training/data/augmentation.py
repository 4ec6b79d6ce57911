"""Augmentation of masks and sources, so that the model cannot copy the face."""

import math
from collections.abc import Sequence

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


def warp_mask(mask: torch.Tensor, basis: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """REFace's mask warp: the centre moves by U(-s/2, s/2) along x and y, s ~ U(0.5, 1), in [-1, 1] coordinates.

    Args:
        mask (`torch.Tensor`): (1, S, S) in [0, 1].
        basis (`torch.Tensor`): (S, S), from `thin_plate_basis`.
        generator (`torch.Generator`): The sample's.

    Returns:
        `torch.Tensor`: (1, S, S).
    """
    strength = draw_between(0.5, 1, 1, generator)
    movement = strength * draw_between(-0.5, 0.5, 2, generator)
    grid = affine_grid(torch.eye(2, 3), mask.shape[-1], align_corners=True) + movement * basis[:, :, None]
    return F.grid_sample(mask[None], grid[None], padding_mode="border", align_corners=True)[0]


def soften(mask: torch.Tensor, max_sigma: float, generator: torch.Generator) -> torch.Tensor:
    """Blurs a mask (1, S, S) by a Gaussian of random sigma below `max_sigma` pixels: swaps are feathered."""
    return gaussian_blur(mask, draw_between(0, max_sigma, 1, generator).item())


def augment_source(
    image: torch.Tensor,
    generator: torch.Generator,
    max_degrees: float = 20.0,
    blur_probability: float = 0.3,
    elastic_probability: float = 0.3,
) -> torch.Tensor:
    """REFace's source augmentation, so that the face cannot be copied: rotation, some elastic deformation, some blur.

    Args:
        image (`torch.Tensor`): (C, S, S): pixels and mask as channels of one picture, so that they move together.
        generator (`torch.Generator`): The sample's.
        max_degrees (`float`): Largest rotation either way.
        blur_probability (`float`): Share of the sources that are blurred, sigma up to 1.2 % of the side.
        elastic_probability (`float`): Share of the sources that are deformed, see `elastic_field`.

    Returns:
        `torch.Tensor`: (C, S, S).
    """
    size = image.shape[-1]
    turn = rotations(draw_between(-max_degrees, max_degrees, 1, generator), torch.ones(1), torch.zeros(1, 2))[0]
    grid = affine_grid(turn, size, align_corners=False)
    if torch.rand((), generator=generator) < elastic_probability:
        grid = grid + elastic_field(size, generator)
    moved = F.grid_sample(image[None], grid[None], padding_mode="reflection", align_corners=False)[0]
    if torch.rand((), generator=generator) < blur_probability:
        return gaussian_blur(moved, draw_between(0, 0.012 * size, 1, generator).item())
    return moved


def elastic_field(size: int, generator: torch.Generator, amplitude: float = 0.06, num_bumps: int = 4) -> torch.Tensor:
    """Smooth random displacements, as of rubber (Simard 2003, section 2; albumentations' `ElasticTransform`).

    Noise is drawn on a coarse grid and upsampled by cubic splines, which does what the blur of full-size noise would.

    Args:
        size (`int`): Side of the picture in pixels.
        generator (`torch.Generator`): The sample's.
        amplitude (`float`): Largest displacement of a grid point, in half sides of the picture.
        num_bumps (`int`): Grid points a side; fewer are smoother.

    Returns:
        `torch.Tensor`: (S, S, 2), x and y in [-1, 1] coordinates.
    """
    coarse = draw_between(-amplitude, amplitude, 2 * num_bumps**2, generator).view(1, 2, num_bumps, num_bumps)
    return F.interpolate(coarse, (size, size), mode="bicubic", align_corners=True)[0].permute(1, 2, 0)


def jitter_views(images: torch.Tensor, generators: Sequence[torch.Generator]) -> torch.Tensor:
    """Turns, scales, shifts and mirrors pictures a little: a recogniser is harder to fool then.

    Up to 5 degrees, 6 % and 3 % of the side; half of them are mirrored. Differentiable.

    Args:
        images (`torch.Tensor`): (B, C, S, S).
        generators (`Sequence[torch.Generator]`): One a sample, on the CPU.

    Returns:
        `torch.Tensor`: (B, C, S, S) float32: half precision is too coarse for coordinates.
    """
    drawn = torch.stack([draw_between(-1, 1, 5, generator) for generator in generators])
    matrices = rotations(5 * drawn[:, 0], 1 + 0.06 * drawn[:, 1], 0.06 * drawn[:, 2:4])
    matrices[:, 0] *= torch.where(drawn[:, 4:] < 0, -1, 1)
    grid = F.affine_grid(matrices.to(images.device), list(images.shape), align_corners=False)
    return F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)


def gaussian_blur(images: torch.Tensor, sigma: float) -> torch.Tensor:
    """Blurs (B, C, S, S) or (C, S, S) by a Gaussian of `sigma` pixels, mirrored at the border."""
    radius = math.ceil(3 * sigma)
    if radius == 0:
        return images
    channels = images.shape[-3]
    offsets = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-offsets.square() / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(channels, 1, 1, -1)
    padded = F.pad(images, (radius,) * 4, mode="reflect")
    blurred = F.conv2d(padded, kernel, groups=channels)
    return F.conv2d(blurred, kernel.transpose(2, 3), groups=channels)


def rotations(degrees: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Affine maps (B, 2, 3) for `affine_grid`: rotation by (B,) degrees, scale (B,), shift (B, 2) of half a side."""
    cosine, sine = scale * degrees.deg2rad().cos(), scale * degrees.deg2rad().sin()
    rows = torch.stack([cosine, -sine, shift[:, 0]], 1), torch.stack([sine, cosine, shift[:, 1]], 1)
    return torch.stack(rows, 1)


def affine_grid(matrix: torch.Tensor, size: int, align_corners: bool) -> torch.Tensor:
    """Where each pixel (S, S, 2) of one picture looks, by an affine map (2, 3)."""
    return F.affine_grid(matrix[None], [1, 1, size, size], align_corners=align_corners)[0]


def draw_between(low: float, high: float, count: int, generator: torch.Generator) -> torch.Tensor:
    """Draws (count,) from U(low, high)."""
    return low + (high - low) * torch.rand(count, generator=generator)
