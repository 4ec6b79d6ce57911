"""Encoded samples: where windows lie, and what is read of a folder."""

import pytest
import torch

from faceswap_diffusion.training.data.latent_cache import check_shard_size, digest_of, sample_bytes
from faceswap_diffusion.training.data.latents import draw_window
from tests.tiny import tiny_pipeline, tiny_vae


def windows(mask: torch.Tensor, window: int) -> list[tuple[int, int]]:
    return [draw_window(mask, window, seed=0, index=index) for index in range(200)]


def test_a_window_lies_round_its_mask_and_a_little_beside_it():
    mask = torch.zeros(64, 64)
    mask[20:41, 30:35] = 0.5  # its middle is at 30, 32
    drawn = windows(mask, 11)
    assert drawn == windows(mask, 11)
    tops, lefts = (torch.tensor(begins) for begins in zip(*drawn, strict=True))
    for begins, middle in ((tops, 30), (lefts, 32)):
        assert (begins.min(), begins.max()) == (middle - 5 - 3, middle - 5 + 3)
        assert begins.float().mean() == pytest.approx(middle - 5, abs=0.4)
    assert not torch.equal(tops - 30, lefts - 32)


def test_a_window_stays_inside_and_is_in_the_middle_where_nothing_is_hidden():
    corner = torch.zeros(16, 16)
    corner[15, 0] = 1
    assert set(windows(corner, 12)) == {(4, 0)}
    assert {top for top, _ in windows(torch.zeros(33, 33), 11)} == {8, 9, 10, 11, 12, 13, 14}
    assert set(windows(corner, 16)) == {(0, 0)}


def test_a_network_is_known_by_its_weights_and_by_how_they_are_used():
    weights, others = tiny_vae().state_dict(), tiny_vae(seed=1).state_dict()
    assert digest_of(weights, 0.18) == digest_of(tiny_vae().state_dict(), 0.18)
    assert len({digest_of(weights, 0.18), digest_of(weights, 0.2), digest_of(others, 0.18)}) == 3


def test_shards_are_of_256_mb_at_most():
    """Twice 4 x 16 x 16 latents, a mask of 16 x 16, 128 + 12 + 12 embeddings in 2 bytes, 136 coordinates in 4."""
    assert sample_bytes(tiny_pipeline()) == 2 * (9 * 256 + 152) + 4 * 136
    check_shard_size(256, 2**20)
    with pytest.raises(ValueError, match="--shard_size 257 makes files of 257 MB: take 256 at most"):
        check_shard_size(257, 2**20)
