"""Reading: every frame with its time, from whatever shows frames, and one clear line for what does not."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from faceswap_diffusion.videos import reading
from faceswap_diffusion.videos.frames import Colors, Span
from faceswap_diffusion.videos.reading import VideoFile, open_video
from tests.clips import BASE, SOURCE, noise, pictures, tone, write_clip

# In units of BASE: durations of 3000, 4500 and 3600 in turn.
FIRST_TIMES = [0, 3000, 7500, 11100, 14100, 18600, 22200, 25200]


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", noise(8), metadata={"title": "noise"})


def test_facts_and_times_of_a_video(clip: Path):
    video = open_video(clip)
    facts = video.facts
    assert (facts.size, facts.time_base, facts.pixel_format, facts.matrix) == ((64, 48), BASE, "yuv420p", None)
    assert (facts.colors, facts.metadata["title"]) == (Colors(1, 1, 1, 1), "noise")
    assert [frame.pts for frame in video.frames(Span())] == FIRST_TIMES
    assert facts.end == pytest.approx(29_700, abs=1500)  # the duration of the last frame is the encoder's guess


def test_a_part_begins_at_its_start(clip: Path):
    part = Span(Fraction(3000, 90_000), Fraction(14_100, 90_000))  # the second frame up to the fourth
    assert [frame.pts for frame in open_video(clip).frames(part)] == [0, 4500, 8100]
    whole = [frame.picture.to_ndarray() for frame in open_video(clip).frames(Span())]
    again = [frame.picture.to_ndarray() for frame in open_video(clip).frames(part)]
    assert all(np.array_equal(new, old) for new, old in zip(again, whole[1:4], strict=True))


def test_times_of_a_transport_stream_are_counted_from_its_start(tmp_path: Path):
    path = write_clip(tmp_path / "clip.ts", noise(4), sound=False, format="mpegts")
    with av.open(str(path)) as container:
        assert container.start_time > 0
    assert [frame.pts for frame in open_video(path).frames(Span())] == FIRST_TIMES[:4]


def test_the_digest_is_that_of_the_content(clip: Path, tmp_path: Path):
    copy = tmp_path / "other name.mp4"
    copy.write_bytes(clip.read_bytes())
    assert open_video(copy).digest() == open_video(clip).digest()
    copy.write_bytes(clip.read_bytes() + b"\0")
    assert open_video(copy).digest() != open_video(clip).digest()


def test_a_folder_is_read_in_the_order_of_counting(tmp_path: Path):
    for number in (1, 2, 10):
        Image.new("RGB", (6, 4), (number, 0, 0)).save(tmp_path / f"frame{number}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    video = open_video(tmp_path, frame_rate=12.5)
    frames = list(video.frames(Span()))
    assert [frame.picture.to_ndarray()[0, 0, 0] for frame in frames] == [1, 2, 10]
    assert [frame.pts * video.facts.time_base for frame in frames] == [0, Fraction(2, 25), Fraction(4, 25)]


def test_a_broken_picture_of_a_folder_shows_the_one_before(tmp_path: Path):
    for number in (1, 3):
        Image.new("RGB", (6, 4), (number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "2.png").write_bytes(b"no picture")
    frames = list(open_video(tmp_path).frames(Span()))
    assert [frame.is_broken for frame in frames] == [False, True, False]
    assert [frame.picture.to_ndarray()[0, 0, 0] for frame in frames] == [1, 1, 3]


def test_pictures_of_another_size_are_named(tmp_path: Path):
    for number, size in ((1, (6, 4)), (2, (8, 4))):
        Image.new("RGB", size).save(tmp_path / f"{number}.png")
    with pytest.raises(ValueError, match=r"2\.png has 8 x 4 pixels, and the frames before it 6 x 4: bring all to one"):
        list(open_video(tmp_path).frames(Span()))


@pytest.mark.parametrize("suffix", [".webp", ".gif"])
def test_animated_pictures_keep_their_times(tmp_path: Path, suffix: str):
    pictures = [Image.new("RGB", (16, 12), (level, level, level)) for level in (20, 90, 200)]
    path = tmp_path / f"animated{suffix}"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=[40, 120, 80], lossless=True)
    video = open_video(path)
    frames = list(video.frames(Span()))
    assert [frame.pts * video.facts.time_base for frame in frames] == [0, Fraction(4, 100), Fraction(16, 100)]
    levels = [int(frame.picture.reformat(format="rgb24").to_ndarray()[5, 5, 0]) for frame in frames]
    assert levels == [20, 90, 200]


def test_data_that_cannot_be_decoded_is_a_frame_without_a_picture(tmp_path: Path):
    path = write_clip(tmp_path / "clip.mp4", noise(8), sound=False)
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][5]
        place, size = packet.pos, packet.size
    content = bytearray(path.read_bytes())
    content[place : place + size] = bytes(size)
    path.write_bytes(content)
    frames = list(open_video(path).frames(Span()))
    assert [frame.picture is None for frame in frames].count(True) == 1
    assert [frame.is_broken for frame in frames if frame.picture is None] == [True]
    assert len(frames) == 8


def sound_only(folder: Path) -> Path:
    with av.open(str(folder / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16_000)
        container.mux([*stream.encode(tone(0.2)), *stream.encode(None)])
    return folder / "sound.mp4"


def truncated(folder: Path) -> Path:
    path = write_clip(folder / "cut.mp4", noise(4), sound=False)
    path.write_bytes(path.read_bytes()[:4000])
    return path


def written(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "none.mp4", r"none\.mp4: no such file or directory"),
        (lambda folder: written(folder, "empty.mp4", b""), r"empty\.mp4: it is empty"),
        (
            lambda folder: written(folder, "text.mp4", b"no video " * 99),
            r"text\.mp4: it is no video, truncated",
        ),
        (truncated, r"cut\.mp4: it is no video, truncated or damaged"),
        (sound_only, r"sound\.mp4 has no video stream: use a file that shows moving pictures"),
        (lambda folder: SOURCE, r"p001_portrait\.jpg is a picture: use `faceswap-diffusion swap`"),
        (lambda folder: folder, r"has no pictures in it \(\.png, "),
    ],
)
def test_what_is_no_video_is_named(tmp_path: Path, make, message: str):
    with pytest.raises(ValueError, match=message):
        open_video(make(tmp_path))


def test_only_folders_take_a_frame_rate(clip: Path):
    with pytest.raises(ValueError, match=r"a frame rate was given for .*clip\.mp4, which has times of its own"):
        open_video(clip, frame_rate=10)


def shades(count: int) -> list[np.ndarray]:
    """Frames that are told apart by their grey: 4 more from one to the next."""
    return [np.full((48, 64, 3), 4 * number, np.uint8) for number in range(count)]


def seen(path: Path, count: int) -> list[int]:
    """The numbers of the frames that are spread over a clip of `shades`."""
    all_levels = np.array([picture.mean() for picture in pictures(path)])
    levels = [picture.to_ndarray().mean() for picture in VideoFile(path).spread(count)]
    return [int(np.abs(all_levels - level).argmin()) for level in levels]


def test_frames_are_spread_over_a_short_file(tmp_path: Path):
    path = write_clip(tmp_path / "clip.mp4", shades(10), durations=[3000], sound=False)
    assert seen(path, 5) == pytest.approx([1, 3, 5, 7, 9], abs=1)  # how long the last frame is shown is a guess
    assert seen(path, 1) == pytest.approx([5], abs=1)
    assert seen(path, 100) == [*range(10)]


@pytest.mark.parametrize(("suffix", "kind"), [("mp4", None), ("mkv", None), ("ts", "mpegts")])
def test_of_a_long_file_only_what_is_near_them_is_decoded(tmp_path: Path, suffix: str, kind, monkeypatch):
    path = write_clip(
        tmp_path / f"clip.{suffix}", shades(60), durations=[180_000], options={"crf": "12", "g": "5"}, sound=False,
        format=kind,
    )  # fmt: skip
    decoded = []

    def counted(*arguments):
        for frame in decode(*arguments):
            decoded.append(frame)
            yield frame

    decode = reading._decode
    monkeypatch.setattr(reading, "_decode", counted)
    at = [7, 22, 37, 52]  # two seconds each: those at 15, 45, 75 and 105 s
    assert seen(path, 4) == pytest.approx(at, abs=1 if kind is None else 3)  # a transport stream has no index
    assert len(decoded) < 30
