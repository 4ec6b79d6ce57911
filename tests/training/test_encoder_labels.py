import numpy as np

from faceswap_diffusion.training.encoder_labels import light_samples


def test_light_is_read_where_the_mesh_says():
    image = np.zeros((50, 50, 3), np.uint8)
    image[:25, :, 0] = 255
    landmarks = np.full((478, 2), 40.0)
    landmarks[151] = (25, 10)
    samples = light_samples(image, landmarks)
    assert samples[0].tolist() == [1.0, -1.0, -1.0]
    assert samples[1].tolist() == [-1.0, -1.0, -1.0]
