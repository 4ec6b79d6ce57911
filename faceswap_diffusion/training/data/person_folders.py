"""Whether the folders of photos stand for people: two photos of some folders are compared."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from faceswap_diffusion.conditioning.identity import SFace
from faceswap_diffusion.faces.alignment import crop, ffhq_matrix
from faceswap_diffusion.faces.analyzer import MeshFaceAnalyzer
from faceswap_diffusion.faces.selection import NoFaceFoundError, select_face
from faceswap_diffusion.training.data.photo_sources import PhotoSource

NUM_FOLDERS = 8
"""Of how many folders two photos are looked at."""

CROP_SIZE = 256
"""Side in pixels of the crops that the recogniser looks at."""


@dataclass(frozen=True)
class FolderEvidence:
    """What two photos of each of some folders show.

    Args:
        num_folders (`int`): Folders with photos.
        num_seen (`int`): Folders of which two photos could be compared.
        num_alike (`int`): Those whose two photos show one person.
        num_neighbours (`int`): Pairs of folders that could be compared with one another.
        num_mixed (`int`): Those that show the same person.
    """

    num_folders: int
    num_seen: int
    num_alike: int
    num_neighbours: int
    num_mixed: int

    @property
    def are_people(self) -> bool:
        """Whether folders hold a person each, and not the same one: in two thirds of what was seen."""
        return 3 * self.num_alike >= 2 * self.num_seen > 0 and 3 * self.num_mixed <= self.num_neighbours


def folder_of(name: str) -> str | None:
    """The folder in a photo's name, `None` where it has none."""
    return name.rpartition("/")[0] or None


def look_into_folders(photos: PhotoSource) -> FolderEvidence | None:
    """Looks whether the folders of photos may be people.

    Args:
        photos (`PhotoSource`): Whose names are paths.

    Returns:
        [`FolderEvidence`], *optional*: `None` if there are no folders with several photos.
    """
    folders: dict[str | None, list[int]] = {}
    for index, name in enumerate(photos.names):
        folders.setdefault(folder_of(name), []).append(index)
    several = [indices for _, indices in sorted((folder, found) for folder, found in folders.items() if folder)]
    several = [indices for indices in several if len(indices) > 1]
    if None in folders or len(several) < 2:
        return None
    chosen = [several[number] for number in np.unique(np.linspace(0, len(several) - 1, NUM_FOLDERS).astype(int))]
    look = _Recogniser(photos)
    seen = [(look.at(indices[0]), look.at(indices[-1])) for indices in chosen]
    within = [_are_alike(*pair) for pair in seen]
    between = [_are_alike(first, second) for (first, _), (second, _) in pairwise(seen)]
    return FolderEvidence(
        len(folders), len(within) - within.count(None), within.count(True), len(between) - between.count(None),
        between.count(True),
    )  # fmt: skip


class _Recogniser:
    """Embeds the largest face of photos."""

    def __init__(self, photos: PhotoSource):
        self.photos = photos
        self.analyzer = MeshFaceAnalyzer()
        self.network = SFace().eval()

    @torch.no_grad()
    def at(self, index: int) -> torch.Tensor | None:
        """The embedding (1, 128); `None` if the photo cannot be read or shows no face."""
        try:
            rgb = self.photos.read(index)
            face = select_face(self.analyzer.analyze(rgb))
        except (NoFaceFoundError, ValueError):
            return None
        pixels = torch.from_numpy(crop(rgb, ffhq_matrix(face.landmarks68, CROP_SIZE), CROP_SIZE))
        return self.network(self.network.prepare(pixels.permute(2, 0, 1)[None].float() / 127.5 - 1))


def _are_alike(first: torch.Tensor | None, second: torch.Tensor | None) -> bool | None:
    if first is None or second is None:
        return None
    assert SFace.same_person is not None
    return bool(torch.cosine_similarity(first, second) >= SFace.same_person)
