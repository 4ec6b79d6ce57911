"""A picture and its mirror image: what is measured of one follows from the other."""

import pytest
import torch
from PIL import Image

from faceswap_diffusion.faces.landmarks import BLENDSHAPE_NAMES, dlib68
from faceswap_diffusion.training.data.dataset import PreparedFaces
from faceswap_diffusion.training.data.encoder_labels import labels_and_mirrored
from faceswap_diffusion.training.data.mirroring import MIRRORED_DLIB68, mirrored_blendshapes, mirrored_landmarks68
from faceswap_diffusion.training.data.photo_sources import open_folders
from faceswap_diffusion.training.data.preparation import PreparationSettings, prepare_faces


@pytest.fixture(scope="module")
def both(tmp_path_factory, example_images) -> PreparedFaces:
    """A face that is turned, and its mirror image."""
    folder = tmp_path_factory.mktemp("both")
    with Image.open(example_images / "p001_park.jpg") as photo:
        photo.save(folder / "a.png")
        photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "b.png")
    prepare_faces(open_folders([folder]), folder / "faces", PreparationSettings(resolution=128))
    return PreparedFaces([folder / "faces"], 128)


def test_tables_name_what_is_found_in_the_mirrored_picture(both):
    assert MIRRORED_DLIB68[MIRRORED_DLIB68].tolist() == list(range(68))
    order = mirrored_blendshapes()
    assert BLENDSHAPE_NAMES[order[BLENDSHAPE_NAMES.index("mouthSmileLeft")]] == "mouthSmileRight"
    straight, mirrored = (torch.from_numpy(dlib68(both[row].landmarks)) for row in range(2))
    distances = (mirrored_landmarks68(straight, 128) - mirrored).norm(dim=1)
    assert distances.mean() < 1.5  # pixels; a wrong table is off by tens


def test_labels_of_a_mirror_image_are_known_beforehand(both):
    straight, mirrored = labels_and_mirrored(both)
    assert straight.shape == mirrored.shape == (2, 70)
    torch.testing.assert_close(mirrored[0, :3], straight[1, :3], atol=3, rtol=0)  # degrees
    assert straight[0, 0].abs() > 10  # turned: a wrong sign would be seen
    torch.testing.assert_close(mirrored[0, 3:55], straight[1, 3:55], atol=0.2, rtol=0)
    torch.testing.assert_close(mirrored[0, 55:], straight[1, 55:], atol=0.12, rtol=0)


def test_embeddings_of_the_mirror_image_are_those_of_the_mirrored_picture(both):
    cosines = both[0].identity_embeds @ both[1].identity_embeds.T
    assert cosines[0, 1] > 0.99
    assert cosines[1, 0] > 0.99
    assert cosines[0, 0] < cosines[0, 1]
