"""What SECURITY.md promises beside the fuzz tests: nothing pickled is loaded, and no name leads out of a folder."""

import json
import pickle
import sys
from pathlib import Path

import pytest

from faceswap_diffusion.cli import main as cli
from faceswap_diffusion.weights.folders import read_components
from tests.clips import SOURCE, TARGET, moving_face, write_clip
from tests.processes import finish, start
from tests.tiny import tiny_pipeline


def run_watched(lines: list[list[str]]) -> None:
    """Runs command lines, and ends with an error if anything is unpickled."""
    unpickled = []

    def watch(event: str, arguments: tuple) -> None:
        if event == "pickle.find_class":
            unpickled.append(arguments[:2])

    sys.addaudithook(watch)
    pickle.loads(pickle.dumps(Path("watched")))
    assert unpickled  # the hook sees it
    unpickled.clear()
    for line in lines:
        assert cli.main(line) in (0, 3), line
        assert not unpickled, (line, unpickled)


@pytest.mark.slow
def test_no_command_loads_a_pickle(tmp_path: Path):
    tiny_pipeline(crop_size=64).save_pretrained(tmp_path / "tiny")
    write_clip(tmp_path / "clip.mp4", moving_face(2))
    (tmp_path / "jobs.csv").write_text(f"source,target\n{SOURCE},{TARGET}\n")
    networks = ["--checkpoint", str(tmp_path / "tiny"), "--quiet"]
    identity, swapped = str(tmp_path / "me.safetensors"), str(tmp_path / "swapped.png")
    finish(
        start(
            run_watched,
            [
                ["faces", str(TARGET), "--quiet"],
                ["identity", str(SOURCE), "-o", identity, *networks],
                ["swap", identity, str(TARGET), "-o", swapped, "--steps", "1", *networks],
                ["batch", "--pairs", str(tmp_path / "jobs.csv"), "-o", str(tmp_path / "out"), *networks],
                ["video", identity, str(tmp_path / "clip.mp4"), "-o", str(tmp_path / "new.mp4"), *networks],
                ["verify", swapped, str(TARGET), str(tmp_path / "new.mp4"), "--quiet"],
                ["doctor", "--quiet"],
            ],
            XDG_CONFIG_HOME=str(tmp_path / "settings"),
        )
    )


@pytest.mark.parametrize("name", ["../unet", "/etc", "unet/../../x", "..\\unet", "", "."])
def test_components_lie_in_the_folder_of_their_checkpoint(tmp_path: Path, name: str):
    (tmp_path / "checkpoint").mkdir()
    index = {name: ["diffusers", "UNet2DConditionModel"]}
    (tmp_path / "checkpoint" / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"in its model_index\.json is no component; save it anew$"):
        read_components(tmp_path / "checkpoint")


@pytest.mark.parametrize(
    "text", ["[]", "3", "{", '{"unet": ["diffusers", 3]}', '{"unet": ["diffusers"]}', "[" * 100_000]
)
def test_a_damaged_model_index_is_one_line(tmp_path: Path, text: str):
    (tmp_path / "model_index.json").write_text(text)
    with pytest.raises(ValueError, match=r"model_index\.json") as error:
        read_components(tmp_path)
    assert "\n" not in str(error.value)
