"""The frames of a video on their way: decoded, looked at, swapped and encoded side by side, part by part."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from diffusers.utils import logging

from faceswap_diffusion.devices import sharing_cores
from faceswap_diffusion.swapping.request import NothingToRepaintError
from faceswap_diffusion.swapping.result import Stopwatch, SwappedFaces
from faceswap_diffusion.swapping.video_frames import ChosenFaces, FrameSwapper, PreparedFrame, State
from faceswap_diffusion.swapping.video_plan import VideoPlan
from faceswap_diffusion.swapping.video_preview import save_thumbnail
from faceswap_diffusion.videos.encoding import write_segment
from faceswap_diffusion.videos.frames import Frame, Picture
from faceswap_diffusion.videos.overlap import ahead, behind
from faceswap_diffusion.videos.work_folder import WorkFolder

logger = logging.get_logger(__name__)

PICTURES, STATE = "pictures.mkv", "state.npz"
MISSING = 0.5  # seconds without frames at the end of a video from which on it is truncated
WAITING = 3  # frames that may wait between two stages
STAGES = 4  # that take long: looking, preparing, painting and pasting
BATCH = 4  # frames that are painted together; this and nothing else bounds the memory

Progress = Callable[[int, int | None], None]


@dataclass(eq=False)
class _Shot:
    """A frame on its way through the stages."""

    index: int
    frame: Frame
    seconds: float
    ends_segment: bool
    rgb: np.ndarray | None = None
    faces: ChosenFaces | None = None
    prepared: PreparedFrame | None = None
    made: SwappedFaces | None = None
    unchanged: bool = False
    state: State = field(default_factory=dict)
    took: Counter[str] = field(default_factory=Counter)  # seconds of each stage


class VideoWork:
    """Decodes, looks at, prepares, paints, pastes and encodes the frames that are still missing, each in a thread.

    Args:
        plan ([`VideoPlan`]): What is to be done.
        frames ([`FrameSwapper`]): Looks at frames and swaps them.
        folder ([`WorkFolder`]): Where the parts are.
        progress (`Callable`, *optional*): Called with the number of frames that are done, and of all, if known.
    """

    def __init__(self, plan: VideoPlan, frames: FrameSwapper, folder: WorkFolder, progress: Progress | None):
        self.plan, self.frames, self.folder = plan, frames, folder
        self.colors = plan.colors
        self.progress = progress or (lambda done, total: None)
        self.seconds: Counter[str] = Counter()

    def do(self) -> None:
        """Makes all segments that are missing."""
        done = self.folder.segments()
        first = sum(facts["read"] for _, facts in done)
        if done and (done[-1][0] / STATE).exists():  # the last segment of a video needs none
            with np.load(done[-1][0] / STATE) as state:
                self.frames.load_state(dict(state))
        try:
            self._make(first, len(done))
        except OSError as error:
            reason = error.strerror or str(error)
            raise ValueError(
                f"cannot write in {self.folder.path}: {reason}; when that is mended, the same command goes on"
            ) from None

    def _make(self, first: int, number: int) -> None:
        """Makes the segments from a number on, beginning with the frame of a number."""
        total = self.plan.span.num_frames(self.plan.video.facts)
        self.progress(first, total)
        with (
            sharing_cores(STAGES),
            ahead(self._read(first), WAITING) as read,
            ahead(map(self._look, read), WAITING) as looked,
            ahead(map(self._prepare, looked), WAITING) as prepared,
            ahead(self._paint(prepared), WAITING) as painted,
            behind(partial(self._write, number), WAITING) as write,
        ):
            for shot in painted:
                self._paste(shot)
                write(shot)
                self.progress(shot.index + 1, total)

    def _read(self, first: int) -> Iterator[_Shot]:
        """Decodes all frames, and passes on those from a number on.

        Seeking would save time, and some decoders give other pixels after it.
        """
        size, base = self.plan.frames_per_segment, self.plan.video.facts.time_base
        last = 0
        for index, frame in enumerate(self.plan.video.frames(self.plan.span)):
            last = frame.pts + frame.duration
            if index < first:
                continue
            seconds = float((frame.pts + self.plan.span.shift(base)) * base)
            if frame.is_broken:
                self._complain(f"has a broken frame at {seconds:.3f} s")
            yield _Shot(index, frame, seconds, ends_segment=(index + 1) % size == 0)
        end = self.plan.span.end_of(self.plan.video.facts)
        if end is not None and (end - last) * base > MISSING:
            self._complain(f"should be {float(end * base):.1f} s long and ends after {float(last * base):.1f} s")

    def _complain(self, problem: str) -> None:
        """Warns of damage, or makes it an error, as the plan says."""
        text = f"{self.plan.video.facts.name} {problem}: it is damaged or truncated"
        if self.plan.strict:
            raise ValueError(text)
        logger.warning(text)

    def _look(self, shot: _Shot) -> _Shot:
        picture = shot.frame.picture
        if picture is not None and not shot.frame.is_broken:
            watch = Stopwatch()
            shot.rgb = self.colors.rgb(picture)
            watch.lap("convert")
            shot.faces = self.frames.look(shot.rgb, shot.seconds)
            watch.lap("find")
            shot.took.update(watch.seconds)
        if shot.ends_segment:
            shot.state |= self.frames.look_state()
        return shot

    def _prepare(self, shot: _Shot) -> _Shot:
        if shot.rgb is not None and shot.faces is not None:
            watch = Stopwatch()
            try:
                shot.prepared = self.frames.prepare(shot.rgb, shot.seconds, shot.faces)
            except NothingToRepaintError:
                shot.unchanged = True
            watch.lap("swap")
            shot.took.update(watch.seconds)
        if shot.ends_segment:
            shot.state |= self.frames.paint_state()
        return shot

    def _paint(self, shots: Iterable[_Shot]) -> Iterator[_Shot]:
        """Paints frames, some of one segment at a time: from its start on always the same ones."""
        for batch in _batches(shots):
            watch = Stopwatch()
            self.frames.paint([shot.prepared for shot in batch if shot.prepared is not None])
            watch.lap("diffuse")
            batch[0].took.update({"swap": watch.seconds["diffuse"], **watch.seconds})
            yield from batch

    def _paste(self, shot: _Shot) -> None:
        if shot.faces is not None:
            watch = Stopwatch()
            shot.made, shot.prepared = self.frames.paste(shot.seconds, shot.faces, shot.prepared), None
            watch.lap("swap")
            shot.took.update(watch.seconds if shot.made is None else {**watch.seconds, **shot.made.seconds})
        self.seconds.update(shot.took)
        if shot.ends_segment:
            shot.state |= self.frames.paste_state()

    def _write(self, number: int, shots: Iterable[_Shot]) -> None:
        """Writes segments, from a number on, each whole or not at all."""
        size, shots = self.plan.frames_per_segment, iter(shots)
        for first in shots:
            facts: dict[str, Any]
            with self.folder.new_segment(number) as (path, facts):
                facts |= {"read": 0, "times": [], "swapped": 0, "broken": [], "unchanged": [], "made": None}
                pictures = self._pictures(chain([first], islice(shots, size - 1)), path, facts)
                write_segment(path / PICTURES, pictures, self.plan.encoding)
            self._forget_state_before(number)
            number += 1

    def _pictures(self, shots: Iterable[_Shot], path: Path, facts: dict[str, Any]) -> Iterator[Picture]:
        """The frames of one segment as they are encoded; writes down what becomes of them."""
        for shot in shots:
            facts["read"] += 1
            if shot.frame.is_broken:
                facts["broken"].append(round(shot.seconds, 6))
            if shot.unchanged:
                facts["unchanged"].append(round(shot.seconds, 6))
            if shot.made is not None:
                facts["swapped"] += 1
                facts["made"] = {**shot.made.settings, "source_shown": shot.made.source_shown}
            if shot.ends_segment:
                np.savez(path / STATE, **shot.state)  # pyright: ignore[reportArgumentType]
            if shot.frame.picture is not None:
                facts["times"].append(shot.frame.pts)
                yield self._picture(shot, shot.frame.picture, path)

    def _picture(self, shot: _Shot, picture: Picture, path: Path) -> Picture:
        if self.plan.every and shot.index % self.plan.every == 0:
            rgb = self.colors.rgb(picture) if shot.made is None else shot.made.rgb
            save_thumbnail(rgb, shot.seconds, path, shot.index)
        if shot.made is None:
            return self.colors.unchanged(picture)
        return self.colors.changed(picture, shot.made.rgb, shot.made.mask)

    def _forget_state_before(self, number: int) -> None:
        if number:
            (self.folder.path / f"{number - 1:06d}" / STATE).unlink(missing_ok=True)


def _batches(shots: Iterable[_Shot]) -> Iterator[list[_Shot]]:
    """Neighbours of one segment, `BATCH` at a time."""
    batch: list[_Shot] = []
    for shot in shots:
        batch.append(shot)
        if len(batch) == BATCH or shot.ends_segment:
            yield batch
            batch = []
    if batch:
        yield batch
