"""Windows of faces that autoencoders are trained on."""

import torch
from torch.utils.data import Dataset

from faceswap_diffusion.training.data.batches import flip
from faceswap_diffusion.training.data.dataset import PreparedFaces
from faceswap_diffusion.training.engine.randomness import choose, draw_uniform, generator_for, row_of_sample


def random_window(image: torch.Tensor, size: int, generator: torch.Generator) -> torch.Tensor:
    """A random square of an image (..., H, W), mirrored half of the time."""
    top, left = (choose(side - size + 1, generator) for side in image.shape[-2:])
    return flip(image[..., top : top + size, left : left + size], draw_uniform(generator) < 0.5)


def recolor(image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Mixes the colour channels of an image (3, H, W) in [-1, 1] at random.

    Faces have few colours, and an encoder that sees nothing else finds no room for the others.
    """
    mixing = torch.eye(3) + 0.5 * torch.randn(3, 3, generator=generator)
    mixing = mixing / mixing.sum(dim=1, keepdim=True).abs().clamp(min=0.5)
    return torch.einsum("ij,jhw->ihw", mixing, image).clamp(-1, 1)


class Windows(Dataset):
    """Windows of faces: sample number k of a run.

    Args:
        faces (`PreparedFaces`): All faces.
        rows (`list[int]`): Those to draw from.
        size (`int`): Side of the windows in pixels.
        recolor_probability (`float`): Share of windows whose channels are mixed, see `recolor`.
        seed (`int`): Of the run.
    """

    def __init__(self, faces: PreparedFaces, rows: list[int], size: int, recolor_probability: float, seed: int):
        self.faces, self.rows, self.size, self.seed = faces, rows, size, seed
        self.recolor_probability = recolor_probability

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """A window (3, size, size), RGB in [-1, 1], and its number."""
        generator = generator_for(self.seed, "sample", index)
        face = self.faces[self.rows[row_of_sample(self.seed, index, len(self.rows))]]
        window = random_window(face.pixels.float() / 127.5 - 1, self.size, generator)
        if draw_uniform(generator) < self.recolor_probability:
            window = recolor(window, generator)
        return {"images": window, "indices": torch.tensor(index)}
