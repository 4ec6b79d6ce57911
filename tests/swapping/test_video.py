"""Videos in, videos out: frames as an undisturbed run makes them, whatever happens on the way."""

import logging
import os
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceswap_diffusion.faces.selection import NoFaceFoundError
from faceswap_diffusion.provenance.video import read_video_provenance
from faceswap_diffusion.swapping.options import SwapOptions
from faceswap_diffusion.swapping.swapper import FaceSwapper
from faceswap_diffusion.swapping.video import VideoSwapper
from faceswap_diffusion.swapping.video_plan import plan_video
from faceswap_diffusion.swapping.video_work import _batches, _Shot
from faceswap_diffusion.videos.frames import Colors, Frame
from tests import processes
from tests.clips import SOURCE, moving_face, noise, packets, pictures, times, write_clip
from tests.tiny import tiny_pipeline

FRAMES = 15  # three segments of five: a run that is killed in the last one has not finished it yet
SLOW = [40_000, 45_000]  # about two frames a second, in units of 1/90000 s: a segment has five frames


def swapper() -> FaceSwapper:
    return FaceSwapper(tiny_pipeline(crop_size=64), occlusion="off")


def swap(clip: Path, output: Path, **plan):
    """The swap of all tests here: one step, by networks that have learnt nothing."""
    return VideoSwapper(swapper(), SwapOptions(num_inference_steps=1)).swap(SOURCE, clip, output, **plan)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    return write_clip(folder / "clip.mp4", moving_face(FRAMES, (96, 96)), durations=SLOW, metadata={"artist": "A"})


@pytest.fixture(scope="module")
def undisturbed(clip: Path, tmp_path_factory):
    """What a run gives that nobody stops."""
    return swap(clip, tmp_path_factory.mktemp("undisturbed") / "new.mp4", every=5)


def test_every_frame_is_swapped_at_its_time_and_the_sound_is_the_same(clip: Path, undisturbed):
    result = undisturbed
    assert (result.frames, result.swapped, result.broken, result.resumed) == (FRAMES, FRAMES, [], 0)
    assert {"convert", "find", "swap", "diffuse"} <= result.stages.keys()
    assert times(result.output) == times(clip)
    assert packets(result.output) == packets(clip)
    for new, old in zip(pictures(result.output), pictures(clip), strict=True):
        change = np.abs(new[:96].astype(int) - old[:96])  # of brightness
        assert change[40:70, 30:60].mean() > 20  # there is the face
        assert change[:12].mean() < 6  # and there is none
    assert sorted(path.name for path in result.output.parent.iterdir()) == ["new.mp4", "new.png"]


def test_the_file_says_that_it_is_made_with_ai(undisturbed):
    facts = read_video_provenance(undisturbed.output)
    assert facts is not None
    assert facts["digital_source_type"].endswith("/compositeWithTrainedAlgorithmicMedia")
    assert (facts["num_inference_steps"], facts["swapped_frames"], facts["region"]) == (1, FRAMES, "face")
    assert undisturbed.provenance.items() <= facts.items()
    content = undisturbed.output.read_bytes()
    box = content[content.rindex(b"uuid") - 4 :]  # the last one: its length, its name and the identifier of XMP
    assert int.from_bytes(box[:4], "big") == len(box)
    assert box[8:24].hex() == "be7acfcb97a942e89c71999491e3afac"
    assert b"compositeWithTrainedAlgorithmicMedia" in box


def killed(clip: Path, output: Path) -> None:
    swap(clip, output, every=5)


def kill_when(segments: int, clip: Path, output: Path) -> None:
    """Starts a run, and kills it as soon as there are some finished segments and the next one is being written."""
    program = processes.start(killed, clip, output, OMP_NUM_THREADS="1")
    work = output.with_name("new.mp4.parts")
    processes.wait_until(lambda: (work / f"{segments - 1:06d}").exists() and list(work.glob(".unfinished-*")), program)
    program.kill()
    program.process.join()
    assert program.returncode == -signal.SIGKILL


def test_killed_twice_it_has_the_frames_of_an_undisturbed_run(clip: Path, undisturbed, tmp_path: Path):
    output = tmp_path / "new.mp4"
    kill_when(1, clip, output)
    kill_when(2, clip, output)
    assert not output.exists()
    result = swap(clip, output, every=5)
    assert result.resumed == 2 * plan_video(clip, output).frames_per_segment == 10
    assert (result.frames, result.swapped) == (FRAMES, FRAMES)
    for new, old in zip(pictures(output), pictures(undisturbed.output), strict=True):
        assert np.array_equal(new, old)
    assert packets(output, "video") == packets(undisturbed.output, "video")
    sheets = [Image.open(path.with_suffix(".png")) for path in (output, undisturbed.output)]
    assert np.array_equal(*map(np.asarray, sheets))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.mp4", "new.png"]


def short_of_space(clip: Path, output: Path) -> None:
    """Swaps where no file may be larger than some bytes, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))
    with pytest.raises(
        ValueError, match=r"cannot write in .*new\.mp4\.parts: File too large; when that is mended, the"
    ):
        swap(clip, output, allow_empty=True, quality=0)
    assert not any(path.name.startswith(".unfinished-") for path in output.with_name("new.mp4.parts").iterdir())


def test_frames_are_painted_by_fours_and_by_segments():
    """So that a run that goes on after a segment paints the same frames together."""
    ends = {4, 9}
    shots = [_Shot(index, Frame(index, 1, None, False), 0.0, index in ends) for index in range(12)]
    batches = [[shot.index for shot in batch] for batch in _batches(shots)]
    assert batches == [[0, 1, 2, 3], [4], [5, 6, 7, 8], [9], [10, 11]]


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path):
    clip = write_clip(tmp_path / "clip.mp4", noise(6), durations=SLOW)
    output = tmp_path / "new.mp4"
    processes.finish(processes.start(short_of_space, clip, output))
    assert not output.exists()
    assert swap(clip, output, allow_empty=True, quality=0).frames == 6


def test_a_video_without_a_face_is_an_error_unless_it_is_allowed(tmp_path: Path):
    clip = write_clip(tmp_path / "clip.mp4", noise(5), durations=SLOW)
    output = tmp_path / "new.mp4"
    with pytest.raises(NoFaceFoundError, match=r"no face to swap in .*clip\.mp4: choose another face, or allow"):
        swap(clip, output)
    assert not output.exists()
    result = swap(clip, output, allow_empty=True)
    assert (result.resumed, result.frames, result.swapped, result.provenance) == (5, 5, 0, None)
    assert read_video_provenance(output) is None
    assert times(output) == times(clip)


def test_changed_settings_are_refused_by_name(tmp_path: Path):
    clip = write_clip(tmp_path / "clip.mp4", noise(5), durations=SLOW)
    with pytest.raises(NoFaceFoundError):
        swap(clip, tmp_path / "new.mp4")
    with pytest.raises(ValueError, match=r"quality was 17 and is 20\. Give the former ones to go on, or remove"):
        swap(clip, tmp_path / "new.mp4", quality=20)
    write_clip(clip, noise(6), durations=SLOW)
    with pytest.raises(ValueError, match=r"video's digest was '[0-9a-f]{64}' and is '[0-9a-f]{64}'; "):
        swap(clip, tmp_path / "new.mp4")


def test_damaged_frames_pass_unless_the_run_is_strict(tmp_path: Path, caplog):
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, rgb in enumerate(noise(5)):
        Image.fromarray(rgb).save(folder / f"{number}.png")
    (folder / "3.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"frames has a broken frame at 1\.500 s: it is damaged or truncated"):
        swap(folder, tmp_path / "strict.mkv", frame_rate=2, strict=True)
    with caplog.at_level(logging.WARNING):
        result = swap(folder, tmp_path / "new.mkv", frame_rate=2, allow_empty=True, codec="ffv1")
    assert (result.frames, result.broken) == (5, [1.5])
    new = pictures(tmp_path / "new.mkv")
    assert np.array_equal(new[3], new[2])
    assert not np.array_equal(new[3], new[4])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start": 9}, r"got start 9: .*clip\.mp4 lasts from 0 to 7\.\d+ seconds"),
        ({"start": 2, "end": 1}, r"got start 2 and end 1: the end has to come after the start"),
        ({"every": 0}, "got every 0: a preview sheet shows every 1st"),
        ({"codec": "mpeg2"}, r"which this build of FFmpeg cannot write; it has h264, "),
        ({"work_dir": __file__}, r"test_video\.py is no folder: name another work folder"),
    ],
)
def test_plans_that_cannot_be_carried_out(clip: Path, tmp_path: Path, settings, message: str):
    with pytest.raises(ValueError, match=message):
        plan_video(clip, tmp_path / "new.mp4", **settings)


def test_a_recording_of_a_camera_is_used_and_removed(clip: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"camera 97 does not end by itself: say after how many seconds"):
        plan_video(97, tmp_path / "new.mp4")
    short = write_clip(tmp_path / "short.mkv", noise(3), sound=False)
    short.rename(tmp_path / "new.mp4.camera.mkv")  # a run before has recorded it
    assert swap(97, tmp_path / "new.mp4", allow_empty=True).frames == 3  # pyright: ignore[reportArgumentType]
    assert [path.name for path in tmp_path.iterdir()] == ["new.mp4"]


def test_the_output_is_not_the_video_itself(clip: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"clip\.mp4 is the video itself: name another output"):
        plan_video(clip, clip)
    os.link(clip, tmp_path / "link.mp4")
    with pytest.raises(ValueError, match=r"link\.mp4 is the video itself"):
        plan_video(clip, tmp_path / "link.mp4")


def test_high_dynamic_range_is_converted_with_a_warning(tmp_path: Path, caplog):
    clip = write_clip(
        tmp_path / "hdr.mp4", noise(8, (64, 64)), codec="libx265", pixel_format="yuv420p10le",
        options={"x265-params": "log-level=error"}, colors=(9, 1, 9, 16), sound=False,
    )  # fmt: skip
    with caplog.at_level(logging.WARNING):
        plan = plan_video(clip, tmp_path / "new.mp4")
    assert [record.getMessage().partition(" is of ")[2][:27] for record in caplog.records] == [
        "high dynamic range (HDR), w"
    ]
    assert (plan.encoding.pixel_format, plan.encoding.colors) == ("yuv420p", Colors(1, 1, 1, 1))
    frame = next(plan.video.frames(plan.span)).picture
    assert frame is not None
    shown = plan.colors.unchanged(frame)
    assert (shown.format.name, shown.width) == ("yuv420p", 64)
