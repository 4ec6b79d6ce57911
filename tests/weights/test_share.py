"""The guide "share your checkpoint", followed to the letter, at an imitation of the Hub; and the Space."""

import json
import re
import runpy
import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest
import yaml
from huggingface_hub import ModelCard

from faceswap_diffusion import FaceSwapInpaintPipeline, FaceSwapper
from faceswap_diffusion.cli.main import build_parser
from faceswap_diffusion.evaluation.model_index import model_index
from tests.evaluation.test_report import full_report
from tests.test_docs import python_blocks
from tests.tiny import tiny_pipeline
from tests.weights.imitation import HubImitation

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guides" / "share.md"
SPACE = ROOT / "integrations" / "space"


def test_the_guide_works(tmp_path: Path, example_images: Path, monkeypatch: pytest.MonkeyPatch):
    for name, example in (("source", "p001_portrait"), ("target", "p010_selfie")):
        shutil.copy(example_images / f"{example}.jpg", tmp_path / f"{name}.jpg")
    tiny_pipeline(crop_size=64).save_pretrained(tmp_path / "checkpoint")
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "model_card.md").write_text("## Evaluation")
    (tmp_path / "report" / "model_index.json").write_text(json.dumps(model_index(full_report(), ("pose_error",))))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    hub = HubImitation()
    hub.stand_in(monkeypatch, tmp_path / "cache")
    upload, load, offline = python_blocks(GUIDE)
    names: dict = {}
    try:
        for block in (upload, load):
            exec(compile(block, GUIDE.name, "exec"), names)
        assert isinstance(names["pipe"], FaceSwapInpaintPipeline)
        assert isinstance(names["swapper"], FaceSwapper)
        assert names["swapper"].name == "OWNER/NAME"
        card = ModelCard(hub.repositories["OWNER/NAME"]["README.md"].decode())
        assert "](thumbnail.png)" in card.text
        assert card.data.eval_results[0].metric_type == "pose_error"
    finally:
        hub.close()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    exec(compile(offline, GUIDE.name, "exec"), names)
    assert isinstance(names["pipe"], FaceSwapInpaintPipeline)


def test_the_space_starts_what_is_installed(monkeypatch: pytest.MonkeyPatch):
    settings = yaml.safe_load((SPACE / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert (settings["sdk"], (SPACE / settings["app_file"]).is_file()) == ("gradio", True)
    lowest = re.search(r"gradio>=([\d.]+)", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert lowest is not None
    assert settings["sdk_version"].startswith(lowest[1])
    arguments = runpy.run_path(str(SPACE / settings["app_file"]))["arguments"]
    monkeypatch.setenv("CHECKPOINT", "owner/mine")
    args = build_parser().parse_args(arguments())
    assert (args.host, args.port, args.checkpoint) == ("0.0.0.0", 7860, "owner/mine")
    monkeypatch.delenv("CHECKPOINT")
    assert build_parser().parse_args(arguments()).checkpoint is None
