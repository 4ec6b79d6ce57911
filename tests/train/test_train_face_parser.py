"""Training the parser: the augmentations keep picture and labels together, it learns, and it resumes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from faceswap_diffusion.masks.parsing import LABELS, FaceParser
from faceswap_diffusion.training.engine.states import saved_steps
from tests.processes import finish, wait_until
from tests.train.scripts import load_script, start

training = load_script("train_face_parser")


def labelled(count: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Red discs ("skin") at random places on blue."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    centres = size * (0.3 + 0.4 * torch.rand(count, 2, 1, 1, generator=generator))
    labels = ((x - centres[:, 0]).square() + (y - centres[:, 1]).square() < (size / 5) ** 2).to(torch.uint8)
    pixels = torch.stack([labels, labels * 0, 1 - labels], 1) * 255
    return pixels.to(torch.uint8), labels


def write(folder: Path, count: int = 8, size: int = 64) -> Path:
    folder.mkdir()
    pixels, labels = labelled(count, size)
    for index in range(count):
        Image.fromarray(pixels[index].permute(1, 2, 0).numpy()).save(folder / f"{index:02}.jpg", quality=95)
        Image.fromarray(labels[index].numpy()).save(folder / f"{index:02}_seg.png")
    return folder


def test_load_labelled_sorts_resizes_and_keeps_indices(tmp_path):
    pictures, labels = training.load_labelled(write(tmp_path / "data"), 32)
    assert pictures.shape == (8, 3, 32, 32)
    assert labels.unique().tolist() == [0, 1]
    assert ((pictures[:, 0] > 128) == (labels == 1)).float().mean() > 0.97
    with pytest.raises(ValueError, match="no label map"):
        training.load_labelled(tmp_path, 32)


def test_random_affine_moves_labels_with_the_picture():
    torch.manual_seed(0)
    pixels, labels = labelled(16, 64)
    moved, moved_labels = training.random_affine(pixels.float() / 255, labels, 32)
    assert moved.shape == (16, 3, 32, 32)
    assert ((moved[:, 0] > 0.5) == (moved_labels == 1)).float().mean() > 0.97
    unmoved = torch.nn.functional.interpolate(labels[:, None].float(), size=32)[:, 0]
    assert (unmoved != moved_labels).float().mean() > 0.05


def test_random_occlusion_marks_exactly_what_it_covers():
    torch.manual_seed(0)
    pixels = torch.rand(12, 3, 64, 64)
    labels = torch.ones(12, 64, 64, dtype=torch.long)
    covered, marked = pixels.clone(), labels.clone()
    training.random_occlusion(covered, marked, probability=1.0)
    changed = (covered != pixels).any(1)
    assert torch.equal(changed, marked == LABELS.index("other"))
    assert 0.01 < changed.float().mean() < 0.6
    training.random_occlusion(pixels, labels, probability=0.0)
    assert (labels == 1).all()


def test_random_colours_stay_in_range_and_keep_the_picture_recognisable():
    torch.manual_seed(0)
    pixels, _ = labelled(32, 32)
    coloured = training.random_colours(pixels.float() / 255)
    assert coloured.min() >= 0
    assert coloured.max() <= 1
    assert (coloured - pixels / 255).abs().mean() > 0.05
    grey = (coloured - coloured.mean(1, keepdim=True)).abs().mean((1, 2, 3)) < 0.08
    assert grey.sum() < 16


def test_parsing_loss_by_hand():
    labels = torch.tensor([[[0, 1]]])
    perfect = torch.tensor([[[[50.0, -50]], [[-50, 50]]]])
    assert training.parsing_loss(perfect, labels).item() == pytest.approx(0, abs=1e-6)
    undecided = torch.zeros(1, 2, 1, 2)
    # Cross entropy ln 2; each label overlaps by 1/2 of a total of 1 + 1: Dice (2 * 1/2 + 1) / (2 + 1).
    assert training.parsing_loss(undecided, labels).item() == pytest.approx(np.log(2) + 1 / 3, abs=1e-6)


def test_rows_of_a_step_come_once_an_epoch_in_an_order_of_its_own():
    epochs = [torch.cat([training.rows_of_step(3, step, 11, 4) for step in (first, first + 1)]) for first in (0, 2)]
    for rows in epochs:
        assert len(set(rows.tolist())) == 8
        assert set(rows.tolist()) <= set(range(11))
    assert not torch.equal(*epochs)
    assert torch.equal(training.rows_of_step(3, 3, 11, 4), epochs[1][4:])
    with pytest.raises(ValueError, match="smaller --train_batch_size"):
        training.rows_of_step(0, 0, 3, 4)


def test_intersection_over_union_by_hand():
    class Fixed(FaceParser):
        def parse(self, crop: np.ndarray) -> np.ndarray:
            return crop[..., 0]

    wanted = torch.tensor([[[0, 0], [1, 2]]], dtype=torch.uint8)
    got = torch.tensor([[[0, 1], [1, 2]]], dtype=torch.uint8)
    model = Fixed(block_out_channels=(4, 4), layers_per_block=0)
    with np.errstate(invalid="ignore"):
        scores = training.intersection_over_union(model, got[:, None].repeat(1, 3, 1, 1), wanted)
    assert scores[:3].tolist() == [0.5, 0.5, 1]


def steps_told(output: str) -> list[str]:
    """What it prints, a line a step."""
    return [line for line in output.splitlines() if line.startswith("step")]


@pytest.mark.slow
def test_a_run_that_is_killed_ends_as_if_it_had_not_been(tmp_path):
    data = write(tmp_path / "data")
    command = ["--train_data_dir", str(data), "--resolution", "32", "--block_out_channels", "4", "8", "8", "8"]
    command += ["--train_batch_size", "4", "--checkpointing_steps", "1", "--validation_stride", "4"]
    command += ["--validation_steps", "1", "--max_train_steps", "6", "--output_dir"]
    undisturbed = steps_told(finish(start("train_face_parser", [*command, str(tmp_path / "undisturbed")])))
    assert [line.split(":")[0] for line in undisturbed] == [f"step {step}" for step in range(1, 7)]
    assert "skin 0." in undisturbed[0]

    killed = [*command, str(tmp_path / "killed")]
    program = start("train_face_parser", killed)
    wait_until(lambda: max(saved_steps(tmp_path / "killed" / "states"), default=0) >= 2, program)
    program.kill()
    program.communicate()
    lines = steps_told(finish(start("train_face_parser", killed)))
    assert len(lines) <= 4
    assert lines == undisturbed[6 - len(lines) :]
    name = "face_parser/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()
    parser = FaceParser.from_pretrained(tmp_path / "killed" / "face_parser")
    assert parser.config["sample_size"] == 32
    assert all(parameter.isfinite().all() for parameter in parser.parameters())
