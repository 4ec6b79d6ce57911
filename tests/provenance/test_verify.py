"""What a picture or a video tells of its origin, by metadata, by the mark alone, or not at all."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from faceswap_diffusion.cli import main as cli
from faceswap_diffusion.faces.alignment import ffhq_matrix
from faceswap_diffusion.faces.analyzer import Face, MeshFaceAnalyzer
from faceswap_diffusion.provenance.save import COMPOSITE, save_image, xmp_packet
from faceswap_diffusion.provenance.verify import verify
from faceswap_diffusion.provenance.video_mark import judge
from faceswap_diffusion.provenance.watermark import SIZE, Evidence, lay_mark, payload_of
from faceswap_diffusion.swapping.options import SwapOptions
from faceswap_diffusion.swapping.video import VideoSwapper
from tests.clips import SOURCE, moving_face, noise, pictures, write_clip


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, example_images: Path) -> Path:
    """A marked face with metadata and without, metadata without a mark, and a photo with neither."""
    folder = tmp_path_factory.mktemp("pictures")
    with Image.open(example_images / "p001_portrait.jpg") as photo:
        small = photo.convert("RGB").resize((384, 384))
    rgb = np.asarray(small)
    (face,) = MeshFaceAnalyzer().analyze(rgb)
    matrix = ffhq_matrix(face.landmarks68, SIZE)
    marked = Image.fromarray(lay_mark(rgb, np.ones(rgb.shape[:2], np.float32), matrix, payload_of("tiny")))
    facts = {"checkpoint": "tiny", "seed": 3, "consent": "both agreed"}
    save_image(marked, folder / "swap.png", provenance=facts)
    marked.crop((60, 20, 340, 380)).save(folder / "stripped.jpg", quality=85)
    save_image(small, folder / "metadata.png", provenance={"checkpoint": "tiny"})
    small.save(folder / "photo.png")
    Image.new("RGB", (64, 64)).save(folder / "wall.png")
    return folder


def test_metadata_and_mark_are_told_in_words(photos: Path):
    found = verify(photos / "swap.png")
    assert found.is_marked
    assert found.marked_faces == [0]
    headline, metadata, credentials, mark = found.lines()
    assert credentials.startswith("  Content Credentials: valid, by faceswap-diffusion, signed by ")
    assert headline == f"{photos / 'swap.png'}: made with AI"
    assert metadata.endswith("(checkpoint tiny, seed 3, consent both agreed)")
    assert f"payload {payload_of('tiny'):04x}, which agrees with the metadata" in mark


def test_a_stripped_and_cropped_picture_is_known_by_its_mark_alone(photos: Path):
    found = verify(photos / "stripped.jpg")
    assert found.metadata is None
    assert found.is_marked
    assert found.marks[0].found


def test_exit_codes(photos: Path, capsys: pytest.CaptureFixture):
    known, unknown = [str(photos / name) for name in ("metadata.png", "stripped.jpg")], str(photos / "photo.png")
    assert cli.main(["verify", *known, "--quiet"]) == 0
    assert cli.main(["verify", known[0], unknown]) == 3
    told = capsys.readouterr().out
    assert f"{unknown}: nothing found" in told
    assert "mark: none in face 0 (score " in told
    assert cli.main(["verify", str(photos / "wall.png")]) == 3
    assert "no face is found to look in" in capsys.readouterr().out
    assert cli.main(["verify", str(photos / "gone.png"), known[0]]) == 2
    output = capsys.readouterr()
    assert output.err.startswith("faceswap-diffusion: error: cannot read ")
    assert "metadata.png: made with AI" in output.out


def test_faces_of_any_analyzer_are_looked_at(photos: Path):
    class Twice:
        def analyze(self, image: np.ndarray) -> list[Face]:
            return MeshFaceAnalyzer().analyze(image) * 2

    assert verify(photos / "stripped.jpg", Twice()).marked_faces == [0, 1]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory, embedded_swapper) -> Path:
    """A clip of a face, its swap, and the swap written anew: smaller in bytes, and without metadata."""
    folder = tmp_path_factory.mktemp("clips")
    clip = write_clip(folder / "clip.mp4", moving_face(3, (320, 320)))
    VideoSwapper(embedded_swapper, SwapOptions(num_inference_steps=1)).swap(SOURCE, clip, folder / "swap.mp4")
    frames = [av.VideoFrame.from_ndarray(numbers, format="yuv420p") for numbers in pictures(folder / "swap.mp4")]
    rgb = [frame.to_ndarray(format="rgb24") for frame in frames]
    write_clip(folder / "anew.mkv", rgb, options={"crf": "24"}, sound=False)
    return folder


def test_a_swapped_video_is_known_by_its_mark_alone(clips: Path):
    found = verify(clips / "anew.mkv")
    assert (found.metadata, found.credentials, found.marks) == (None, None, [])
    assert found.is_marked
    mark = found.video_mark
    assert mark is not None
    assert (mark.looked_at, mark.with_face) == (3, 3)
    assert mark.found_in <= 3
    assert mark.score > 5
    assert found.lines()[-1].startswith(
        f"  mark: in {mark.found_in} of 3 frames that were looked at; of all together "
    )


def test_metadata_and_mark_of_videos_are_told_and_a_video_without_them_is_3(clips: Path, capsys):
    assert cli.main(["verify", str(clips / "swap.mp4"), str(clips / "clip.mp4"), "--json"]) == 3
    swapped, plain = json.loads(capsys.readouterr().out)
    assert (swapped["is_marked"], swapped["metadata"]["checkpoint"]) == (True, "faceswap-small")
    assert (swapped["video_mark"]["found"], swapped["marks"]) == (True, [])
    wrong_bits = (swapped["video_mark"]["payload"] ^ payload_of("faceswap-small")).bit_count()
    assert wrong_bits <= 2  # of 16, in three frames of one step
    assert (plain["is_marked"], plain["metadata"], plain["video_mark"]["found"]) == (False, None, False)
    assert (plain["video_mark"]["looked_at"], plain["video_mark"]["with_face"]) == (3, 3)


def evidence(score: float, others: list[float]) -> Evidence:
    return Evidence(score, np.full(16, -2.0), np.array(others))


def test_frames_that_tell_the_same_count_as_one_and_independent_ones_add_up():
    rng = np.random.default_rng(0)
    same = rng.gumbel(3.07, 0.33, 34)
    alike = judge([evidence(4.6, list(same))] * 12, 12)
    assert (alike.looked_at, alike.with_face, alike.found_in) == (12, 12, 0)
    assert not alike.found
    independent = judge([evidence(4.6, list(rng.gumbel(3.07, 0.33, 34))) for _ in range(12)], 20)
    assert (independent.found, independent.with_face, independent.found_in) == (True, 12, 0)
    assert independent.score == pytest.approx(4.6)
    assert independent.payload == 0
    assert independent.payload_probability > alike.payload_probability
    assert judge([evidence(7.0, list(same))], 1).found


@pytest.mark.parametrize("facts", [b"[3]", b"{", b"3"])
def test_facts_that_are_none_are_not_taken_for_ours(tmp_path: Path, facts: bytes):
    packet = xmp_packet({"seed": 3}, COMPOSITE).replace(b'{"seed": 3}', facts)
    assert packet.count(facts) >= 1
    Image.new("RGB", (64, 64)).save(tmp_path / "photo.jpg", xmp=packet)
    assert verify(tmp_path / "photo.jpg").metadata is None


@pytest.mark.parametrize("told", ['{"digital_source_type": "x"}', '["digital_source_type", "software"]', "{"])
def test_a_videos_description_that_is_not_ours_is_left_alone(tmp_path: Path, told: str):
    clip = write_clip(tmp_path / "clip.mkv", noise(1), metadata={"description": told}, sound=False)
    found = verify(clip)
    assert (found.metadata, found.is_marked) == (None, False)
    assert found.lines()[0] == f"{clip}: nothing found"
