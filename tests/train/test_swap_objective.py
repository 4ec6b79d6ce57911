"""Parts of the swap model's training that a whole run would not tell apart."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import torch

from tests.tiny import CLIP_DIM, tiny_conditioner, tiny_unet

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "train" / "train_faceswap.py"))


def visited(step: int, num_rollout_steps: list[int]) -> list[int]:
    objective = object.__new__(SCRIPT["Objective"])
    objective.args = SimpleNamespace(seed=0, num_rollout_steps=num_rollout_steps)
    objective.alphas_cumprod = torch.zeros(1000)
    return objective.draw_visited(step).tolist()


def test_roll_outs_visit_what_a_swap_of_five_steps_visits_down_to_every_depth():
    drawn = [visited(step, [5]) for step in range(60)]
    whole = [999, 799, 599, 399, 199]  # DDIM's trailing spacing
    assert all(timesteps == whole[: len(timesteps)] for timesteps in drawn)
    assert {len(timesteps) for timesteps in drawn} == {1, 2, 3, 4, 5}


def test_processes_of_any_random_state_visit_the_same():
    torch.manual_seed(1)
    first = [visited(step, [4, 5, 6, 8, 10]) for step in range(40)]
    torch.manual_seed(2)
    assert [visited(step, [4, 5, 6, 8, 10]) for step in range(40)] == first
    second_visited = {timesteps[1] for timesteps in first if len(timesteps) > 1}
    assert second_visited == {999 - 1000 // 4, 999 - 1000 // 5, 999 - 1000 // 6, 999 - 1000 // 8, 999 - 1000 // 10}


@torch.no_grad()
def test_a_dropped_sample_sees_the_unconditional_context_and_the_others_their_own():
    conditioner, unet = tiny_conditioner(), tiny_unet()
    model = SCRIPT["SwapModel"](unet, conditioner).eval()
    torch.manual_seed(0)
    conditions = (
        torch.randn(2, 128), torch.randn(2, CLIP_DIM), torch.randn(2, CLIP_DIM), torch.rand(2, 68, 2) * 32
    )  # fmt: skip
    inputs, timesteps = torch.randn(2, 9, 16, 16), torch.tensor([500, 500])
    output = model(inputs, timesteps, conditions, torch.tensor([True, False]))
    contexts = torch.cat([conditioner.unconditional(1), conditioner(*conditions)[1:]])
    torch.testing.assert_close(output, unet(inputs, timesteps, contexts).sample)
