"""Training the occlusion network: its loss and scores by hand, what it starts from, and that it resumes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from faceswap_diffusion.masks.occlusion import OcclusionNetwork
from faceswap_diffusion.masks.parsing import LABELS, load_face_parser
from faceswap_diffusion.occluders.kinds import KINDS, UNSEEN_KINDS
from faceswap_diffusion.training.data.dataset import PreparedFaces
from faceswap_diffusion.training.data.occlusion_samples import KnownFace
from faceswap_diffusion.training.engine.states import saved_steps
from tests.canonical_face import canonical_face
from tests.processes import finish, wait_until
from tests.train.scripts import load_script, start

training = load_script("train_occlusion")


def test_a_new_network_begins_as_the_parser_and_ignores_its_planes():
    network, parser = training.new_network(96).eval(), load_face_parser()
    pixels = torch.rand(1, 3, 96, 96) * 2 - 1
    black, white = (torch.cat([pixels, torch.full_like(pixels, value)], 1) for value in (-1.0, 1.0))
    with torch.no_grad():
        assert torch.equal(network.stem(black), network.stem(white))
        assert torch.allclose(network.stem(black), parser.stem(pixels), atol=1e-6)
    assert torch.equal(network.down[2][1].pointwise.weight, parser.down[2][1].pointwise.weight)


def test_training_goes_on_with_another_window(tmp_path: Path):
    small = OcclusionNetwork(sample_size=64, block_out_channels=(8, 16), layers_per_block=1)
    small.save_pretrained(tmp_path)
    larger = training.new_network(96, tmp_path)
    assert larger.config["sample_size"] == 96
    assert torch.equal(larger.head[0].weight, small.head[0].weight)


def test_loss_by_hand():
    covered = torch.tensor([[[1.0, 0.0, 1.0]]])
    weights = torch.tensor([[[1.0, 1.0, 0.0]]])  # the last pixel is unknown
    perfect = training.occlusion_loss(torch.tensor([[[50.0, -50.0, -50.0]]]), covered, weights)
    assert perfect.item() == pytest.approx(0, abs=1e-6)
    undecided = training.occlusion_loss(torch.zeros(1, 1, 3), covered, weights)
    # Cross entropy ln 2; overlap 1/2 of a total of 1 + 1: Dice 1 - (1 + 20) / (2 + 20).
    assert undecided.item() == pytest.approx(np.log(2) + 0.5 * (1 - 21 / 22), abs=1e-6)


def test_a_clear_face_says_nothing_of_hair_and_of_what_is_far_outside():
    landmarks = canonical_face(side=64, height=40).landmarks
    labels = np.full((64, 64), LABELS.index("skin"), np.uint8)
    labels[:20] = LABELS.index("hair")
    face = training.clear_face(np.zeros((64, 64, 3), np.uint8), labels, landmarks)
    assert not face.covered.any()
    assert not face.known[:22].any()
    assert face.known[32, 32] == 1
    assert not face.known[:, :5].any()


class Fixed(OcclusionNetwork):
    """Sees something wherever the red channel is bright."""

    def find(self, crop: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        return (crop[..., 0] > 128).astype(np.float32)


def test_a_teacher_is_believed_where_it_is_sure():
    class Unsure(Fixed):
        def find(self, crop: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
            return (crop[..., 0] / 255).astype(np.float32)

    landmarks = canonical_face(side=64, height=40).landmarks
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, 22:30], pixels[:, 34:42] = 250, 128
    face = training.taught_face(pixels, landmarks, Unsure(block_out_channels=(4, 4), layers_per_block=0))
    assert face.covered[32, 25] == face.known[32, 25] == 1
    assert face.covered[32, 32] == 0
    assert face.known[32, 32] == 1
    assert face.known[32, 38] == 0


def test_scores_tell_kinds_and_false_alarms_apart():
    landmarks = canonical_face(side=160, height=100).landmarks
    pixels = np.zeros((160, 160, 3), np.uint8)
    pixels[:, :, 1] = 60
    known = np.zeros((160, 160), np.float32)
    known[60:100, 60:100] = 1
    pixels[60:70, 60:100, 0] = 255  # a quarter of what is known
    face = KnownFace(pixels, landmarks, np.zeros_like(known), known)
    scores = training.measure(Fixed(block_out_channels=(4, 4), layers_per_block=0), [face])
    assert set(scores) == {*KINDS, *UNSEEN_KINDS, "seen", "unseen", "false"}
    assert scores["false"] == pytest.approx(0.25)
    assert scores["unseen"] == pytest.approx(np.mean([scores[name] for name in UNSEEN_KINDS]))


def steps_told(output: str) -> list[str]:
    """What it prints of each step, in a line."""
    return [line[line.index("step ") :] for line in output.splitlines() if "step " in line and "loss" in line]


@pytest.mark.slow
def test_a_run_that_is_killed_ends_as_if_it_had_not_been(tmp_path, prepared_faces):
    faces = PreparedFaces([prepared_faces], 64)
    names = tmp_path / "names.txt"
    names.write_text("\n".join(faces[row].name for row in range(6)))
    command = ["--train_data_dir", prepared_faces, "--clear_faces", names, "--resolution", 32, "--train_batch_size", 4]
    command += ["--checkpointing_steps", 1, "--validation_stride", 4, "--validation_steps", 1]
    command += ["--max_train_steps", 4, "--output_dir"]
    command = [str(part) for part in command]
    undisturbed = steps_told(finish(start("train_occlusion", [*command, str(tmp_path / "undisturbed")])))
    assert [line.split(":")[0] for line in undisturbed] == [f"step {step}" for step in range(1, 5)]
    assert "eyeglasses 0." in undisturbed[0]

    killed = [*command, str(tmp_path / "killed")]
    program = start("train_occlusion", killed)
    wait_until(lambda: max(saved_steps(tmp_path / "killed" / "states"), default=0) >= 2, program)
    program.kill()
    program.communicate()
    lines = steps_told(finish(start("train_occlusion", killed)))
    assert len(lines) <= 2
    assert lines == undisturbed[4 - len(lines) :]
    name = "occlusion/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()
    assert OcclusionNetwork.from_pretrained(tmp_path / "killed" / "occlusion").config["sample_size"] == 32
