import pytest
import torch

from faceswap_diffusion.conditioning.landmark_drawing import draw_landmarks

RED, YELLOW = [1.0, -1.0, -1.0], [1.0, 1.0, -1.0]


def line_up(part: range, start: tuple[float, float], step: float) -> torch.Tensor:
    """All landmarks far outside the picture, but for one part, which is a level line."""
    landmarks = torch.full((1, 68, 2), -500.0)
    landmarks[0, list(part), 0] = start[0] + step * torch.arange(len(part)).float()
    landmarks[0, list(part), 1] = start[1]
    return landmarks


def test_each_part_has_its_colour_where_it_lies():
    jaw = draw_landmarks(line_up(range(17), (10, 20), 4), 64, 96)
    assert jaw.shape == (1, 3, 64, 96)
    assert jaw[0, :, 20, 40].tolist() == pytest.approx(RED, abs=0.1)  # antialiased
    eye = draw_landmarks(line_up(range(36, 42), (10, 30), 5), 64, 96)
    assert eye[0, :, 30, 22].tolist() == pytest.approx(YELLOW, abs=0.1)
    drawn = (eye - eye[0, 0, 0, 0]).abs().amax(1)[0] > 0.1
    rows, columns = torch.nonzero(drawn, as_tuple=True)
    assert rows.min() >= 29
    assert rows.max() <= 31
    assert columns.min() >= 9
    assert columns.max() <= 36


def test_without_landmarks_everything_is_grey():
    landmarks = torch.cat([torch.zeros(1, 68, 2), line_up(range(17), (10, 20), 4)])
    grey, drawn = draw_landmarks(landmarks, 64, 64)
    assert grey.unique().tolist() == [pytest.approx(128 / 127.5 - 1, abs=1e-6)]
    assert drawn.unique().numel() > 1


def test_lines_grow_with_the_picture():
    small = draw_landmarks(line_up(range(17), (10, 64), 6), 128, 128)
    large = draw_landmarks(4 * line_up(range(17), (10, 64), 6), 512, 512)
    heights = [int((picture[0, 1, :, width // 2] < -0.5).sum()) for picture, width in ((small, 128), (large, 512))]
    assert heights == [1, 4] or heights == [1, 5]


def test_other_sets_are_refused():
    with pytest.raises(ValueError, match="got 478 landmarks to draw: dlib's 68 are needed"):
        draw_landmarks(torch.ones(1, 478, 2), 8, 8)
