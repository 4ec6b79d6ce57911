import pytest

from faceswap_diffusion.training.data.held_out import hold_out


def test_held_out_rows_lie_evenly_among_the_others():
    assert hold_out(10, 3) == ([1, 2, 4, 5, 7, 8, 9], [0, 3, 6])
    assert hold_out(3, 2) == ([2], [0, 1])


def test_something_must_be_left_to_train_on():
    with pytest.raises(ValueError, match="4 faces are too few to hold out 4: lower --num_validation"):
        hold_out(4, 4)
