from faceswap_diffusion.training.engine.randomness import draw_uniform, generator_for, row_of_sample


def test_every_row_comes_once_an_epoch_in_a_new_order():
    first, second = ([row_of_sample(3, epoch * 7 + position, 7) for position in range(7)] for epoch in range(2))
    assert sorted(first) == sorted(second) == list(range(7))
    assert first != second
    assert first != [row_of_sample(4, position, 7) for position in range(7)]


def test_what_is_drawn_depends_on_seed_purpose_and_number():
    drawn = {
        draw_uniform(generator_for(*key))
        for key in ((0, "sample", 0), (1, "sample", 0), (0, "noise", 0), (0, "sample", 1))
    }
    assert len(drawn) == 4
    assert draw_uniform(generator_for(0, "sample", 1)) == draw_uniform(generator_for(0, "sample", 1))
