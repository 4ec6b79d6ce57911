"""Video in, video out: what decodes, swaps and encodes side by side, and goes on where it was stopped."""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from faceswap_diffusion import __version__
from faceswap_diffusion.faces.selection import NoFaceFoundError
from faceswap_diffusion.photos.loading import load_photo
from faceswap_diffusion.pipelines.faceswap_inpaint import FaceSwapInpaintPipeline
from faceswap_diffusion.provenance.credentials import sign_video
from faceswap_diffusion.provenance.save import COMPOSITE
from faceswap_diffusion.provenance.video import append_xmp, video_metadata
from faceswap_diffusion.safety.refusal import RefusedError
from faceswap_diffusion.swapping.coherence import CoherenceOptions
from faceswap_diffusion.swapping.options import SwapOptions
from faceswap_diffusion.swapping.request import (
    SourceLike,
    TargetFace,
    check_choice,
    load_sources,
)
from faceswap_diffusion.swapping.source_identity import SourceIdentity
from faceswap_diffusion.swapping.swapper import FaceSwapper
from faceswap_diffusion.swapping.video_frames import FrameSwapper, is_number_or_word
from faceswap_diffusion.swapping.video_plan import VideoPlan, plan_video
from faceswap_diffusion.swapping.video_preview import write_sheet
from faceswap_diffusion.swapping.video_work import PICTURES, Progress, VideoWork
from faceswap_diffusion.videos.encoding import container_of
from faceswap_diffusion.videos.joining import Segment, join_segments, place
from faceswap_diffusion.videos.work_folder import WorkFolder


@dataclass(frozen=True)
class VideoResult:
    """What came of a video.

    Args:
        output (`Path`): The new video.
        frames (`int`): How many it has.
        swapped (`int`): In how many of them a face was swapped.
        broken (`list[float]`): When frames are shown that were damaged, in seconds; they are as they were, or missing
            where nothing could be decoded.
        unchanged (`list[float]`): When frames are shown whose faces show nothing of the region, in seconds.
        resumed (`int`): How many of the frames were there from a run that was stopped.
        seconds (`float`): The time that this run took.
        stages (`dict[str, float]`): How much of it was spent on converting colours, finding faces and swapping, and of
            that on reference, diffuse (with encoding; decoding is not a part of it) and paste. Stages run at the same
            time: the sum may be more than the whole.
        provenance (`dict[str, Any]`, *optional*): What the file says of how it was made; `None` if none was
            swapped.
    """

    output: Path
    frames: int
    swapped: int
    broken: list[float]
    unchanged: list[float]
    resumed: int
    seconds: float
    stages: dict[str, float]
    provenance: dict[str, Any] | None


class VideoSwapper:
    """Swaps faces in videos.

    Args:
        swapper ([`FaceSwapper`]): Finds and swaps faces.
        options ([`SwapOptions`], *optional*): How each face is swapped.
        face (`str | int` or photo): Which: "largest" of each shot, "all", the number of a track, or a photo of the
            person to replace.
        mapping (`Mapping[int, int]`, *optional*): From the number of a track to that of a person in `source`, in place
            of `face`.
        coherence ([`CoherenceOptions`], *optional*): What is smoothed from frame to frame; everything if left out.
    """

    def __init__(
        self,
        swapper: FaceSwapper,
        options: SwapOptions | None = None,
        *,
        face: TargetFace = "largest",
        mapping: Mapping[int, int] | None = None,
        coherence: CoherenceOptions | None = None,
    ):
        check_choice("largest" if isinstance(face, int | np.integer) else face, mapping)
        self.swapper = swapper
        self.options = options or SwapOptions()
        self.face, self.mapping, self.coherence = face, mapping, coherence or CoherenceOptions()

    def swap(
        self,
        source: SourceLike | Sequence[SourceLike],
        video: str | os.PathLike | int,
        output: str | os.PathLike,
        **plan: Any,
    ) -> VideoResult:
        """Puts the face of a source into a video. If it is stopped, the same call goes on where it was.

        Args:
            source (`SourceLike` or a list): As for [`FaceSwapper.swap`].
            video (`str | os.PathLike | int`): The video to change, see [`plan_video`].
            output (`str | os.PathLike`): Where to write the new one.
            plan: `start`, `end`, `codec`, `quality` and the others of [`plan_video`].

        Returns:
            [`VideoResult`]: What came of it.

        Raises:
            NoFaceFoundError: If a source shows no face, or the video none that is to be swapped.
            RefusedError: If the safety checker refuses a source or a frame.
            ValueError: For a video that cannot be read, and for arguments that do not fit.
        """
        return self.run(source, plan_video(video, output, **plan))

    def run(
        self,
        source: SourceLike | Sequence[SourceLike],
        plan: VideoPlan,
        progress: Progress | None = None,
        source_face: str | int = "largest",
    ) -> VideoResult:
        """Does what a plan says, see `swap`.

        Args:
            source (`SourceLike` or a list): As for [`FaceSwapper.swap`].
            plan ([`VideoPlan`]): From [`plan_video`].
            progress (`Callable`, *optional*): Called with the number of frames that are done, and of all, if known.
            source_face (`str | int`): Whom the sources show: "largest", or an index, 0 being leftmost.
        """
        started = time.perf_counter()
        people = load_sources(source, several=self.mapping is not None)
        if self.mapping is not None:
            _check_people(self.mapping, len(people))
        identities = [
            person
            if isinstance(person, SourceIdentity)
            else self.swapper.encode_source(person, source_face, self.options.region)
            for person in people
        ]
        for identity in identities:
            self.swapper.check_identity(identity, self.options.region)
        with WorkFolder(plan.work_dir, {**self._settings(people), **_input(plan), **plan.settings()}) as folder:
            resumed = sum(len(facts["times"]) for _, facts in folder.segments())
            frames = FrameSwapper(self.swapper, identities, self.options, self.face, self.mapping, self.coherence)
            with _without_bar(self.swapper.pipeline):
                work = VideoWork(plan, frames, folder, progress)
                try:
                    work.do()
                except RefusedError:
                    folder.remove()
                    raise
            provenance = self._finish(plan, folder)
            facts = [facts for _, facts in folder.segments()]
            folder.remove()
            if plan.recording is not None:
                plan.recording.unlink()
        return VideoResult(
            plan.output,
            sum(len(part["times"]) for part in facts),
            sum(part["swapped"] for part in facts),
            [when for part in facts for when in part["broken"]],
            [when for part in facts for when in part["unchanged"]],
            resumed,
            time.perf_counter() - started,
            dict(work.seconds),
            provenance,
        )

    def _settings(self, people: Sequence[Any]) -> dict[str, Any]:
        """All that finished parts depend on, but for the video."""
        return {
            "version": __version__,
            "checkpoint": self.swapper.name,
            "checkpoint's digest": networks_digest(self.swapper),
            "device": self.swapper.pipeline.device.type,
            "sources": ", ".join(_digest_of_person(person) for person in people),
            "face": str(self.face) if is_number_or_word(self.face) else _digest(self.face),
            "mapping": None if self.mapping is None else json.dumps(sorted(self.mapping.items())),
            "who agreed": None if self.swapper.agreed is None else self.swapper.agreed.digest,
            **asdict(self.options),
            **{f"smoothed {name}": value for name, value in asdict(self.coherence).items()},
        }

    def _finish(self, plan: VideoPlan, folder: WorkFolder) -> dict[str, Any] | None:
        """Joins the parts to the new video. Returns what it says of how it was made."""
        parts = [(path, facts) for path, facts in folder.segments() if facts["times"]]
        if not parts:
            raise ValueError(f"{plan.video.facts.name} has no frame between start and end that can be decoded")
        swapped = sum(facts["swapped"] for _, facts in parts)
        if not swapped and not plan.allow_empty:
            raise NoFaceFoundError(
                f"no face to swap in {plan.video.facts.name}: choose another face, or allow a video without one "
                "(allow_empty, --allow-empty)"
            )
        provenance = self._provenance([facts for _, facts in parts]) if swapped else None
        metadata = video_metadata(plan.video.facts.metadata, provenance)
        segments = [Segment(path / PICTURES, facts["times"]) for path, facts in parts]
        joined = folder.path / f".unfinished-{plan.output.name}"
        join_segments(
            segments, plan.video.facts, plan.video.container, plan.span, metadata, joined, container_of(plan.output)
        )
        if provenance is not None and container_of(plan.output) in ("mp4", "mov"):
            append_xmp(joined, provenance)
            signed = joined.with_name(f".signed-{plan.output.name}")
            if sign_video(joined, signed, provenance, COMPOSITE, plan.video.container):
                joined = signed
        if plan.sheet is not None:
            write_sheet([path for path, _ in parts], plan.sheet, provenance)
        place(joined, plan.output)
        return provenance

    def _provenance(self, parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        made = next(facts["made"] for facts in parts if facts["made"])
        return {
            "checkpoint": self.swapper.name,
            "region": self.options.region,
            "keep": self.options.keep,
            "seed": self.options.seed,
            **({} if self.options.consent is None else {"consent": self.options.consent}),
            "frames": sum(len(facts["times"]) for facts in parts),
            "swapped_frames": sum(facts["swapped"] for facts in parts),
            **made,
        }


def swap_video(
    source: SourceLike | Sequence[SourceLike],
    video: str | os.PathLike | int,
    output: str | os.PathLike,
    *,
    swapper: FaceSwapper | None = None,
    face: TargetFace = "largest",
    mapping: Mapping[int, int] | None = None,
    options: SwapOptions | None = None,
    **plan: Any,
) -> VideoResult:
    """Puts the face of a source into a video, see [`VideoSwapper`].

    Args:
        source (`SourceLike` or a list): As for [`FaceSwapper.swap`].
        video (`str | os.PathLike | int`): The video to change, see [`plan_video`].
        output (`str | os.PathLike`): Where to write the new one.
        swapper ([`FaceSwapper`], *optional*): That of the package's checkpoint if left out.
        face (`str | int` or photo): See [`VideoSwapper`].
        mapping (`Mapping[int, int]`, *optional*): See [`VideoSwapper`].
        options ([`SwapOptions`], *optional*): How each face is swapped.
        plan: `start`, `end`, `codec`, `quality` and the others of [`plan_video`].

    Returns:
        [`VideoResult`]: What came of it.

    Raises:
        NoFaceFoundError: If a source shows no face, or the video none that is to be swapped.
        ValueError: For a video that cannot be read, and for arguments that do not fit.
    """
    planned = plan_video(video, output, **plan)
    swapper = swapper or FaceSwapper.from_pretrained()
    return VideoSwapper(swapper, options, face=face, mapping=mapping).run(source, planned)


def networks_digest(swapper: FaceSwapper) -> str:
    """Prefix of the SHA-256 over the weights and settings of all networks that a swapper swaps with."""
    digest = hashlib.sha256(json.dumps(dict(swapper.pipeline.config), sort_keys=True, default=str).encode())
    networks = {**swapper.pipeline.components, "parser": swapper.parser, "occlusion": swapper.occlusion}
    for name, network in sorted(networks.items()):
        if isinstance(network, torch.nn.Module):
            for key, tensor in sorted(network.state_dict().items()):
                digest.update(f"{name}.{key}".encode())
                digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


@contextmanager
def _without_bar(pipeline: FaceSwapInpaintPipeline) -> Iterator[None]:
    """Keeps a pipeline from drawing a bar for each frame."""
    former = getattr(pipeline, "_progress_bar_config", {})
    pipeline.set_progress_bar_config(**{**former, "disable": True})
    try:
        yield
    finally:
        pipeline.set_progress_bar_config(**former)


def _input(plan: VideoPlan) -> dict[str, str]:
    return {"video": plan.video.facts.name, "video's digest": plan.video.digest()}


def _check_people(mapping: Mapping[int, int], num_sources: int) -> None:
    if not mapping:
        raise ValueError("mapping is empty: give at least one track of the video and its source")
    for track, person in mapping.items():
        if track < 0 or not 0 <= person < num_sources:
            raise ValueError(
                f"mapping puts source {person} onto track {track}, but {num_sources} source(s) are given, from 0 on"
            )


def _digest_of_person(person: Any) -> str:
    if isinstance(person, SourceIdentity):
        return person.digest()[:16]
    return "+".join(_digest(photo) for photo in person)


def _digest(photo: Any) -> str:
    return hashlib.sha256(load_photo(photo).rgb.tobytes()).hexdigest()[:16]
