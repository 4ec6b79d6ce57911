"""What the demo does behind its page, with a pipeline of random weights."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceswap_diffusion.demo.drawing import CHOSEN, ShownTarget, draw_boxes, reduced
from faceswap_diffusion.demo.limits import Limits, Storage
from faceswap_diffusion.demo.work import DemoWork
from faceswap_diffusion.provenance.save import read_provenance
from faceswap_diffusion.swapping.swapper import FaceSwapper
from tests.clips import moving_face, write_clip
from tests.tiny import tiny_pipeline


@pytest.fixture(scope="module")
def work() -> Iterator[DemoWork]:
    swapper = FaceSwapper(tiny_pipeline(crop_size=64), name="tiny")
    with Storage(minutes=10) as storage:
        yield DemoWork(swapper, storage, Limits(megapixels=0.6, seconds=1, photos=2))


def silent(share: float, what: str) -> None:
    pass


def test_a_photo_is_swapped_where_it_is_chosen(work: DemoWork, photos: Path):
    target, told = str(photos / "group.jpg"), []
    shown = work.show(target)
    assert len(shown.boxes) == 4
    assert not shown.is_video
    made = work.swap_photo(
        [str(photos / "source.jpg")], target, [1], lambda *progress: told.append(progress), num_inference_steps=2
    )
    assert told == [(0, "reading"), (0.5, "painting"), (1.0, "painting"), (1, "saving")]
    before, after = (np.asarray(Image.open(path).convert("RGB")) for path in (photos / "group.jpg", made.file))
    new = (before != after).any(-1)
    changed = np.flatnonzero(new.any(0))
    left, _, right, _ = shown.boxes[1]
    assert left - 30 < changed.min() < changed.max() < right + 30
    assert made.text.startswith("Swapped 1 of 4 faces in 2 steps")
    assert made.pair is not None
    for path in (made.file, made.pair[1]):
        assert (read_provenance(path) or {})["checkpoint"] == "tiny"
    assert read_provenance(made.pair[0]) is None
    assert made.mask is not None
    assert np.asarray(Image.open(made.mask))[new].all()


def test_a_video_is_swapped_and_parts_of_cancelled_ones_are_deleted(work: DemoWork, photos: Path, tmp_path: Path):
    clip = str(write_clip(tmp_path / "clip.mp4", moving_face(4)))
    shown = work.show(clip)
    assert shown.is_video
    assert work.draw(shown, ()).size == (128, 128)
    made = work.swap_video([str(photos / "source.jpg")], clip, "largest", silent, num_inference_steps=1)
    assert made.text.startswith("Swapped a face in 4 of 4 frames")
    assert made.file.stat().st_size > 1000
    before = {*work.storage.path.iterdir()}

    def stop(share: float, what: str) -> None:
        if share > 0:
            raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        work.swap_video([str(photos / "source.jpg")], clip, "largest", stop, num_inference_steps=1)
    assert {*work.storage.path.iterdir()} == before


def test_what_is_too_large_or_no_picture_is_refused_by_name(work: DemoWork, photos: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"^large.png has 1.0 megapixels, and this demo takes 0.6: make it smaller"):
        work.show(str(photos / "large.png"))
    with pytest.raises(ValueError, match=r"^large.png has 1.0 megapixels"):
        work.verify(str(photos / "large.png"))
    with pytest.raises(ValueError, match=r"^cannot read text.jpg: it is empty or not a picture"):
        work.show(str(photos / "text.jpg"))
    with pytest.raises(ValueError, match=r"^no face found in wall.png"):
        work.show(str(photos / "wall.png"))
    with pytest.raises(ValueError, match=r"^gone.jpg was kept for 10 minutes, which are over: upload it again"):
        work.show(str(tmp_path / "gone.jpg"))
    long = write_clip(tmp_path / "long.mp4", moving_face(30, (64, 64)))
    with pytest.raises(ValueError, match=r"^long.mp4 is 1\.\d s long, and this demo takes 1 s: cut it first"):
        work.show(str(long))
    source = str(photos / "source.jpg")
    with pytest.raises(ValueError, match="got 3 photos of the source, and this demo takes 2"):
        work.swap_photo([source] * 3, source, [0], silent)
    with pytest.raises(ValueError, match="no source is given"):
        work.swap_photo([], source, [0], silent)
    with pytest.raises(ValueError, match="no face is chosen"):
        work.swap_photo([source], source, [], silent)


def test_verify_names_the_file_and_no_folder(work: DemoWork, photos: Path):
    lines = work.verify(str(photos / "target.jpg")).splitlines()
    assert lines[0] == "target.jpg: nothing found"


def test_old_files_are_deleted_and_at_the_end_everything():
    with Storage(minutes=1) as storage:
        folder = storage.new_folder()
        (folder / "young").write_text("")
        storage.sweep()
        assert (folder / "young").exists()
        storage.seconds = -1
        storage.sweep()
        assert not (folder / "young").exists()
        (folder / "last").write_text("")
    assert not storage.path.exists()


def test_clicks_hit_the_smallest_box():
    shown = ShownTarget("photo.jpg", False, ((0, 0, 100, 100), (20, 20, 40, 40)))
    assert [shown.at(*point) for point in ((30, 30), (50, 50), (101, 5))] == [1, 0, None]
    assert shown.largest() == 0


def test_the_box_of_a_chosen_face_stands_out():
    drawn = np.asarray(draw_boxes(Image.new("RGB", (300, 200)), [(50, 50, 100, 150), (200, 50, 250, 150)], {1}))
    assert tuple(drawn[100, 200]) == CHOSEN
    assert tuple(drawn[100, 50]) == (255, 255, 255)
    assert tuple(drawn[100, 75]) == (0, 0, 0)


def test_pictures_are_shown_no_larger_than_a_page():
    assert reduced(Image.new("RGB", (2560, 100))).size == (1280, 50)
    assert reduced(Image.new("RGB", (100, 1280))).size == (100, 1280)
