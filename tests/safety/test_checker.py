"""The safety checker: what it refuses, that nothing gets past it when it is damaged, and how it is left out."""

import logging
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

import faceswap_diffusion.weights.registry as model_files
from faceswap_diffusion import FaceSwapInpaintPipeline, FaceSwapper, RefusedError, SafetyChecker
from faceswap_diffusion.cli import main as cli
from faceswap_diffusion.pipelines.loading import load_pipeline
from faceswap_diffusion.safety.constants import fix_weights
from faceswap_diffusion.swapping.options import SwapOptions
from faceswap_diffusion.swapping.video_frames import FrameSwapper
from faceswap_diffusion.weights.registry import ModelFileError, model_path
from tests.tiny import tiny_inputs, tiny_pipeline

IMAGES = Path(__file__).parents[2] / "examples" / "images"
SOURCE, TARGET = IMAGES / "p001_portrait.jpg", IMAGES / "p010_selfie.jpg"
GOLDEN = Path(__file__).parent / "open_nsfw_golden.safetensors"


@pytest.fixture(scope="module")
def checker() -> SafetyChecker:
    return SafetyChecker()


@pytest.fixture(scope="module")
def explicit() -> np.ndarray:
    """A picture that open_nsfw takes for explicit, and nobody else would."""
    picture = Image.fromarray(load_file(GOLDEN)["picture_4"])
    return np.asarray(picture.resize((256, 256), Image.Resampling.BILINEAR))


@pytest.fixture
def swapper(checker: SafetyChecker) -> FaceSwapper:
    return FaceSwapper(tiny_pipeline(crop_size=64, safety_checker=checker), occlusion="off")


@pytest.fixture
def strict(swapper: FaceSwapper) -> FaceSwapper:
    """One that takes nobody for an adult."""
    swapper.pipeline.register_modules(safety_checker=SafetyChecker(min_age=150.0))
    return swapper


def small(path: Path) -> Image.Image:
    return Image.open(path).convert("RGB").resize((256, 256))


def test_pictures_and_ages_are_refused_beyond_the_thresholds(checker: SafetyChecker, explicit: np.ndarray):
    checker.check_picture(np.zeros_like(explicit), "black.png")
    with pytest.raises(RefusedError, match=r"^refused: beach\.png seems to be explicit \(score 0\.99\); choose"):
        checker.check_picture(explicit, "beach.png")
    checker.check_age(15.0, "a face")
    with pytest.raises(RefusedError, match=r"^refused: a face seems to be a minor \(apparent age 15\); choose"):
        checker.check_age(14.99, "a face")


def test_what_is_not_a_number_is_refused(checker: SafetyChecker):
    assert checker.is_explicit(float("nan"))
    with pytest.raises(RefusedError, match="apparent age nan"):
        checker.check_age(float("nan"), "a face")


@pytest.mark.parametrize("place", ["source", "target"])
def test_an_explicit_picture_is_refused_on_each_side(swapper: FaceSwapper, explicit: np.ndarray, place: str):
    photos = {"source": small(SOURCE), "target": small(TARGET)}
    spoilt = np.concatenate([np.asarray(photos[place]), *[explicit] * 5], axis=1)
    plain = swapper.pipeline.safety_checker.nsfw_scores([*map(np.asarray, photos.values())])
    (score,) = swapper.pipeline.safety_checker.nsfw_scores([spoilt])
    assert max(plain) < score
    swapper.pipeline.register_modules(safety_checker=SafetyChecker(nsfw_threshold=score))
    with pytest.raises(RefusedError, match=f"refused: {place} seems to be explicit"):
        swapper.swap(**{**photos, place: Image.fromarray(spoilt)}, region="eyes")


def test_minors_are_refused_as_target_source_and_result(strict: FaceSwapper):
    with pytest.raises(RefusedError, match="refused: a face of target seems to be a minor"):
        strict.swap(small(SOURCE), small(TARGET))
    with pytest.raises(RefusedError, match="refused: a face of source seems to be a minor"):
        strict.encode_source([small(SOURCE)])


def test_the_result_is_looked_at_too(swapper: FaceSwapper, monkeypatch: pytest.MonkeyPatch):
    seen = []
    monkeypatch.setattr(swapper.pipeline.safety_checker, "check_picture", lambda rgb, name: seen.append(name))
    ages = iter([30.0, 30.0, 10.0])
    monkeypatch.setattr(swapper, "apparent_age", lambda rgb, face: next(ages))
    with pytest.raises(RefusedError, match="a face of the result seems to be a minor"):
        swapper.swap(small(SOURCE), small(TARGET))
    assert seen == ["target", "source", "the result"]
    with pytest.raises(StopIteration):
        swapper.swap(small(SOURCE), small(TARGET))
    assert seen == ["target", "source", "the result", "the result"]  # what was let pass is not looked at again


def swap_frame(frames: FrameSwapper, rgb: np.ndarray, time: float) -> None:
    faces = frames.look(rgb, time)
    prepared = frames.prepare(rgb, time, faces)
    assert prepared is not None
    frames.paint([prepared])
    frames.paste(time, faces, prepared)


def test_frames_of_a_video_are_looked_at_once_a_second(swapper: FaceSwapper, monkeypatch: pytest.MonkeyPatch):
    rgb = np.asarray(small(TARGET))
    identity = swapper.encode_source([small(SOURCE)])
    frames = FrameSwapper(swapper, [identity], SwapOptions(num_inference_steps=1))
    seen, ages = [], iter([30.0, 30.0, 10.0, 30.0, 2.0])
    monkeypatch.setattr(swapper.pipeline.safety_checker, "check_picture", lambda rgb, name: seen.append(name))
    monkeypatch.setattr(swapper, "apparent_age", lambda rgb, face: next(ages))
    for time in (0.0, 0.5, 1.0):  # at 1 s the target's mean is 20
        swap_frame(frames, rgb, time)
    assert seen == [f"the {what} at {time:.2f} s" for time in (0, 1) for what in ("frame", "result")]
    with pytest.raises(RefusedError, match=r"a face of the frame at 2\.10 s seems to be a minor \(apparent age 14\)"):
        swap_frame(frames, rgb, 2.1)


def test_the_pipeline_blackens_explicit_crops(checker: SafetyChecker, caplog: pytest.LogCaptureFixture):
    pipe = tiny_pipeline(safety_checker=SafetyChecker(nsfw_threshold=0.0))
    output = pipe(**tiny_inputs())
    assert output.nsfw_content_detected == [True]
    assert not output.images.any()
    pipe.register_modules(safety_checker=checker)
    output = pipe(**tiny_inputs())
    assert output.nsfw_content_detected == [False]
    assert torch.equal(output.images, tiny_pipeline()(**tiny_inputs()).images)


def test_it_is_saved_and_loaded_as_a_component(tmp_path: Path):
    tiny_pipeline(safety_checker=SafetyChecker(0.7, 21.0), requires_safety_checker=True).save_pretrained(tmp_path)
    pipe = FaceSwapInpaintPipeline.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert dict(pipe.safety_checker.config)["nsfw_threshold"] == 0.7
    assert pipe.safety_checker.config["min_age"] == 21.0
    assert pipe.vae.dtype == torch.bfloat16
    assert pipe.safety_checker.nsfw.conv_1.weight.dtype == torch.float32
    assert (tmp_path / "safety_checker" / "diffusion_pytorch_model.safetensors").stat().st_size < 2000


def test_without_it_there_is_the_warning_of_diffusers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog):
    monkeypatch.setattr(logging.getLogger("diffusers"), "propagate", True)
    monkeypatch.setattr(logging.getLogger("faceswap_diffusion"), "propagate", True)
    warned = "You have disabled the safety checker for .*by passing `safety_checker=None`"
    tiny_pipeline(safety_checker=SafetyChecker(), requires_safety_checker=True).save_pretrained(tmp_path)
    assert FaceSwapInpaintPipeline.from_pretrained(tmp_path).safety_checker is not None
    assert "disabled the safety checker" not in caplog.text
    swapper = FaceSwapper.from_pretrained(tmp_path, device="cpu", safety_checker=None)
    assert swapper.safety_checker is None
    assert re.search(warned, caplog.text)


def test_older_checkpoints_load_and_get_that_of_the_package(tmp_path: Path):
    tiny_pipeline().save_pretrained(tmp_path)
    index = tmp_path / "model_index.json"
    text = index.read_text()
    assert load_pipeline(tmp_path).safety_checker is None  # it says that it requires none
    lines = [line for line in text.splitlines() if "requires_safety_checker" not in line]
    start = next(number for number, line in enumerate(lines) if '"safety_checker"' in line)
    index.write_text("\n".join([*lines[:start], *lines[start + 4 :]]))
    assert FaceSwapInpaintPipeline.from_pretrained(tmp_path).safety_checker is None
    assert load_pipeline(tmp_path).safety_checker.config["min_age"] == 15.0


@pytest.mark.parametrize("damage", ["missing", "altered"])
def test_nothing_is_swapped_when_weights_are_missing_or_damaged(tmp_path: Path, monkeypatch, capsys, damage: str):
    for path in model_files.ASSETS.iterdir():
        (tmp_path / path.name).symlink_to(path)
    file = tmp_path / "open_nsfw_int8.safetensors"
    content = bytearray(file.read_bytes())
    file.unlink()
    if damage == "altered":
        content[100_000] ^= 1
        file.write_bytes(content)
    monkeypatch.setattr(model_files, "ASSETS", tmp_path)
    model_path.cache_clear()
    with pytest.raises(ModelFileError, match="open_nsfw"):
        SafetyChecker()
    output = tmp_path / "out.png"
    assert cli.main(["swap", str(SOURCE), str(TARGET), "-o", str(output), "--quiet"]) == 2
    assert "'open_nsfw'" in capsys.readouterr().err
    assert not output.exists()
    model_path.cache_clear()


def test_a_refusal_is_one_line_and_4(tmp_path: Path, capsys: pytest.CaptureFixture):
    tiny_pipeline(crop_size=64, safety_checker=SafetyChecker(min_age=150.0)).save_pretrained(tmp_path / "tiny")
    output = tmp_path / "out.png"
    line = ["swap", str(SOURCE), str(TARGET), "-o", str(output), "--checkpoint", str(tmp_path / "tiny"), "--quiet"]
    assert cli.main(line) == 4
    told = capsys.readouterr().err
    assert told.startswith(f"faceswap-diffusion: error: refused: a face of {TARGET} seems to be a minor")
    assert told.count("\n") == 1
    assert not output.exists()


def test_weights_that_do_not_fit_a_network_are_named():
    with pytest.raises(ValueError, match="Linear cannot take weights of weight: they do not fit it"):
        fix_weights(torch.nn.Linear(2, 1), {"weight": torch.zeros(1, 3), "bias": torch.zeros(1)})
