"""User masks: every form gives the same soft values, and a wrong one is refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from faceswap_diffusion.masks.inpaint import prepare_mask

SOFT = np.array([[0, 51, 102], [153, 204, 255]], np.uint8)  # 0, 0.2, ... 1


@pytest.mark.parametrize(
    "mask",
    [
        SOFT,
        Image.fromarray(SOFT),
        Image.fromarray(np.stack([SOFT] * 3, -1)),
        SOFT.astype(np.uint16) * 257,
        Image.fromarray(SOFT.astype(np.uint16) * 257),
        SOFT / 255,
        torch.from_numpy(SOFT),
        torch.from_numpy(SOFT / 255).to(torch.float32)[None],
        (SOFT / 255)[..., None],
    ],
    ids=["uint8", "L", "RGB", "uint16", "I;16", "float", "tensor", "1HW", "HW1"],
)
def test_soft_values_survive_in_every_form(mask):
    prepared = prepare_mask(mask, (3, 2))
    assert prepared.shape == (1, 2, 3)
    assert prepared.dtype == torch.float32
    assert prepared.flatten().tolist() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1], abs=1e-6)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_multiplies_brightness(mode):
    grey, alpha = np.array([[255, 255, 255, 0, 102]], np.uint8), np.array([[255, 51, 0, 255, 102]], np.uint8)
    picture = Image.fromarray(grey)
    picture = picture.convert("RGB" if mode == "RGBA" else "L")
    picture.putalpha(Image.fromarray(alpha))
    assert picture.mode == mode
    assert prepare_mask(picture, (5, 1)).flatten().tolist() == pytest.approx([1, 0.2, 0, 0, 0.16], abs=1e-6)


def test_a_transparent_colour_of_a_palette_is_not_repainted():
    picture = Image.fromarray(np.array([[0, 1, 2]], np.uint8), mode="P")
    picture.putpalette([255, 255, 255, 0, 0, 0, 255, 255, 255])
    picture.info["transparency"] = 0
    assert prepare_mask(picture, (3, 1)).flatten().tolist() == [0, 0, 1]


def test_bool_and_bilevel_masks():
    mask = np.eye(4, dtype=bool)
    assert np.array_equal(prepare_mask(mask, 4)[0], np.eye(4))
    assert np.array_equal(prepare_mask(Image.fromarray(mask), 4)[0], np.eye(4))
    assert torch.equal(prepare_mask(torch.eye(4).to(torch.bfloat16), 4)[0], torch.eye(4))


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (np.zeros((2, 2)), "3 x 2"),
        (np.zeros((2, 3, 3)), "one channel"),
        (np.full((2, 3), 255.0), "must lie in"),
        (np.full((2, 3), np.nan), "must lie in"),
        (np.zeros((2, 3), np.int64), "int64"),
    ],
)
def test_wrong_masks_are_refused(mask, said):
    with pytest.raises(ValueError, match=said):
        prepare_mask(mask, (3, 2))
