"""Nobody's face is swapped but those of people who agreed, in photos, in videos and on the command line."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from faceswap_diffusion import FaceSwapper, RefusedError
from faceswap_diffusion.cli import main as cli
from faceswap_diffusion.swapping.agreed import AgreedPeople
from faceswap_diffusion.swapping.options import SwapOptions
from faceswap_diffusion.swapping.video_frames import FrameSwapper
from tests.tiny import tiny_pipeline

IMAGES = Path(__file__).parents[2] / "examples" / "images"
WOMAN, WOMAN_AGAIN, MAN = (IMAGES / name for name in ("p001_portrait.jpg", "p001_park.jpg", "p005_portrait.jpg"))


def small(path: Path) -> Image.Image:
    return Image.open(path).convert("RGB").resize((320, 320))


@pytest.fixture
def swapper() -> FaceSwapper:
    return FaceSwapper(tiny_pipeline(crop_size=64), occlusion="off")


@pytest.fixture
def two() -> Image.Image:
    """A photo of the man, left, and the woman, right."""
    return Image.fromarray(np.concatenate([np.asarray(small(MAN)), np.asarray(small(WOMAN))], axis=1))


def test_a_list_knows_its_people_in_other_photos(swapper: FaceSwapper, tmp_path: Path):
    swapper.list_agreed([WOMAN]).save(tmp_path / "agreed.safetensors")
    people = AgreedPeople.load(tmp_path / "agreed.safetensors", same_person=2.0)
    assert people.names == ["p001_portrait"]
    assert people.same_person == 0.363
    swapper.allow_only(people)
    for path, expected in ((WOMAN_AGAIN, True), (MAN, False)):
        rgb = np.asarray(Image.open(path).convert("RGB"))
        assert swapper.has_agreed(rgb, swapper.find_faces(rgb)[0]) is expected


def test_the_face_of_an_outsider_is_refused_on_both_sides(swapper: FaceSwapper):
    swapper.allow_only(swapper.list_agreed([WOMAN]))
    with pytest.raises(RefusedError, match=r"^refused: face 0 of target is nobody of those who agreed"):
        swapper.swap(small(WOMAN_AGAIN), small(MAN))
    with pytest.raises(RefusedError, match=r"^refused: the face of source is nobody of those who agreed"):
        swapper.swap(small(MAN), small(WOMAN_AGAIN))
    assert swapper.swap(small(WOMAN_AGAIN), small(WOMAN)).swapped == [0]


def test_an_identity_of_an_outsider_is_refused(swapper: FaceSwapper):
    outsider = swapper.encode_source([small(MAN)])
    swapper.allow_only(swapper.list_agreed([WOMAN]))
    with pytest.raises(RefusedError, match=r"^refused: source is nobody of those who agreed"):
        swapper.swap(outsider, small(WOMAN))


def test_of_all_faces_those_of_outsiders_stay(swapper: FaceSwapper, two: Image.Image):
    swapper.allow_only(swapper.list_agreed([WOMAN]))
    result = swapper.swap(small(WOMAN_AGAIN), two, target_face="all")
    assert result.swapped == [1]
    assert np.array_equal(np.asarray(result.image)[:, :320], np.asarray(two)[:, :320])
    with pytest.raises(RefusedError, match=r"^refused: face 0 of target"):
        swapper.swap(small(WOMAN_AGAIN), two, mapping={0: 0, 1: 0})


def test_the_identity_of_one_person_serves_as_a_list(swapper: FaceSwapper, tmp_path: Path):
    swapper.encode_source([WOMAN]).save(tmp_path / "woman.safetensors")
    swapper.allow_only(tmp_path / "woman.safetensors")
    assert swapper.agreed is not None
    assert swapper.agreed.names == ["woman"]


def test_in_videos_outsiders_stay(swapper: FaceSwapper, two: Image.Image):
    source = swapper.encode_source([small(WOMAN_AGAIN)])
    swapper.allow_only(swapper.list_agreed([WOMAN]))
    frames = FrameSwapper(swapper, [source], SwapOptions(num_inference_steps=1), face="all")
    rgb = np.asarray(two)
    chosen = [frames.look(rgb, index / 25) for index in range(2)]
    for faces in chosen:
        assert [face.face.bbox[0] > 320 for face in faces.swapped] == [True]
        assert [face.face.bbox[0] > 320 for face in faces.others] == [False]
    resumed = FrameSwapper(swapper, [source], SwapOptions(num_inference_steps=1), face="all")
    resumed.load_state({**frames.look_state(), **frames.paint_state(), **frames.paste_state()})
    assert len(resumed.look(rgb, 2 / 25).swapped) == 1


def test_lists_of_other_networks_and_other_files_are_told(swapper: FaceSwapper, tmp_path: Path):
    people = swapper.list_agreed([WOMAN])
    other = AgreedPeople(people.names, people.embeds, people.fingerprint.flip(0), 0.4)
    with pytest.raises(ValueError, match="made with another recogniser: write it with `faceswap-diffusion identity"):
        swapper.allow_only(other)
    save_file({"weight": torch.zeros(1)}, tmp_path / "weights.safetensors")
    (tmp_path / "text.safetensors").write_text("no list")
    for name in ("weights", "text", "none"):
        with pytest.raises(ValueError, match=rf"^cannot read .*{name}\.safetensors: "):
            swapper.allow_only(tmp_path / f"{name}.safetensors")


def test_the_command_line_makes_lists_and_keeps_to_them(tmp_path: Path, capsys: pytest.CaptureFixture):
    tiny_pipeline(crop_size=64).save_pretrained(tmp_path / "tiny")
    checkpoint = ["--checkpoint", str(tmp_path / "tiny")]
    agreed, output = tmp_path / "agreed.safetensors", tmp_path / "out.png"
    assert cli.main(["identity", "--list", str(WOMAN), str(MAN), "-o", str(agreed), *checkpoint]) == 0
    assert "2 who agreed: p001_portrait, p005_portrait" in capsys.readouterr().out
    line = ["--only", str(agreed), "-o", str(output), "--quiet", *checkpoint]
    assert cli.main(["swap", str(WOMAN_AGAIN), str(IMAGES / "p010_selfie.jpg"), *line]) == 4
    told = capsys.readouterr().err
    assert "refused: face 0 of" in told
    assert told.count("\n") == 1
    assert not output.exists()
    assert cli.main(["swap", str(WOMAN_AGAIN), str(MAN), *line]) == 0
    assert output.exists()
