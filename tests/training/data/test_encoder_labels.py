import numpy as np

from faceswap_diffusion.training.data.encoder_labels import LIGHT_MIRRORED, LIGHT_POINTS, light_samples


def test_light_is_read_where_the_mesh_says():
    image = np.zeros((50, 50, 3), np.uint8)
    image[:25, :, 0] = 255
    landmarks = np.full((478, 2), 40.0)
    landmarks[151] = (25, 10)
    samples = light_samples(image, landmarks)
    assert samples[0].tolist() == [1.0, -1.0, -1.0]
    assert samples[1].tolist() == [-1.0, -1.0, -1.0]


def test_light_of_the_mirror_image_is_the_same_with_exchanged_cheeks():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (50, 50, 3), dtype=np.uint8)
    landmarks = np.zeros((478, 2))
    landmarks[list(LIGHT_POINTS)] = rng.integers(5, 45, (5, 2))
    mirrored = landmarks * [-1, 1] + [49, 0]
    mirrored[[50, 280]] = mirrored[[280, 50]]  # the left cheek of the mirror image was the right one
    straight = light_samples(image, landmarks)
    assert not np.array_equal(straight[1], straight[2])
    flipped = light_samples(np.ascontiguousarray(image[:, ::-1]), mirrored)
    np.testing.assert_allclose(flipped, straight[LIGHT_MIRRORED], atol=1e-6)
