"""What the demo does with uploaded files. It knows swappers and files, and no Gradio."""

import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from faceswap_diffusion.demo.drawing import ShownTarget, draw_boxes, reduced
from faceswap_diffusion.demo.limits import Limits, Storage
from faceswap_diffusion.faces.selection import NoFaceFoundError
from faceswap_diffusion.photos.folders import is_video
from faceswap_diffusion.provenance.save import save_image
from faceswap_diffusion.provenance.verify import verify
from faceswap_diffusion.swapping.batch import collected_warnings
from faceswap_diffusion.swapping.options import SwapOptions
from faceswap_diffusion.swapping.swapper import FaceSwapper

CONSENTED = "confirmed in the web demo"

Progress = Callable[[float, str], None]
"""Called with the share that is done, and what is being done. What it raises ends the work."""


@dataclass(frozen=True)
class Made:
    """What came of a swap, as files in the demo's storage.

    Args:
        file (`Path`): The new photo or video, which says in its metadata that AI made it.
        text (`str`): What was done, with the warnings.
        pair (`tuple[Path, Path]`, *optional*): Photo before and after in a size to be shown; `None` for a video.
        mask (`Path`, *optional*): Where the photo is new; `None` for a video.
    """

    file: Path
    text: str
    pair: tuple[Path, Path] | None = None
    mask: Path | None = None


class DemoWork:
    """Finds faces, swaps and verifies for the demo.

    Args:
        swapper ([`FaceSwapper`]): Swaps.
        storage ([`Storage`]): Where results are written.
        limits ([`Limits`]): Of what is taken.
    """

    def __init__(self, swapper: FaceSwapper, storage: Storage, limits: Limits):
        self.swapper = swapper
        self.storage = storage
        self.limits = limits

    def show(self, path: str) -> ShownTarget:
        """Finds the faces of a target; those of a video are found while it is swapped.

        Args:
            path (`str`): The uploaded file.

        Raises:
            NoFaceFoundError: If a photo shows none.
            ValueError: If it cannot be read, or is too large.
        """
        if is_video(path):
            self._check_video(path)
            return ShownTarget(path, True, ())
        photo = self.limits.load(path)
        faces = self.swapper.find_faces(photo.rgb)
        if not faces:
            raise NoFaceFoundError(f"no face found in {photo.name}: use a photo in which a face is visible")
        scale = reduced(Image.fromarray(photo.rgb)).width / photo.size[0]
        boxes = tuple((x0 * scale, y0 * scale, x1 * scale, y1 * scale) for x0, y0, x1, y1 in (f.bbox for f in faces))
        return ShownTarget(path, False, boxes)

    def draw(self, target: ShownTarget, chosen: Collection[int]) -> Image.Image:
        """A target with its faces drawn; of a video the first frame."""
        rgb = _first_frame(target.path) if target.is_video else self.limits.load(target.path).rgb
        return draw_boxes(reduced(Image.fromarray(rgb)), target.boxes, chosen)

    def swap_photo(
        self, sources: Sequence[str], target: str, faces: Sequence[int], progress: Progress, **settings: Any
    ) -> Made:
        """Puts the face of a source into a photo.

        Args:
            sources (`Sequence[str]`): Photos of one person.
            target (`str`): The photo to change.
            faces (`Sequence[int]`): Whom, counted from 0 at the left.
            progress (`Callable`): See `Progress`.
            settings: Of [`SwapOptions`].

        Raises:
            ValueError: As `FaceSwapper.swap`, and for files that are too large or too many.
        """
        if not faces:
            raise ValueError("no face is chosen: click on a face of the target, or tick its box")
        progress(0, "reading")
        photo, people = self.limits.load(target), self._load(sources)

        def painted(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> None:
            progress((step + 1) / pipeline.num_timesteps, "painting")

        with collected_warnings() as warnings:
            result = self.swapper.swap(
                [people], photo, mapping=dict.fromkeys(faces, 0), callback_on_step_end=painted, **settings
            )
        progress(1, "saving")
        folder = self.storage.new_folder()
        file, before, after, mask = (folder / f"{name}.png" for name in ("swapped", "before", "after", "mask"))
        result.save(file)
        save_image(reduced(photo.with_pixels(photo.rgb)), before, provenance=None)
        save_image(reduced(result.image), after, provenance=result.provenance)
        save_image(reduced(result.mask), mask, provenance=None)
        count = f"{len(result.swapped)} of {len(result.faces)} faces"
        steps = result.provenance["num_inference_steps"]
        text = f"Swapped {count} in {steps} steps and {sum(result.seconds.values()):.1f} s."
        return Made(file, "\n".join([text, *warnings]), (before, after), mask)

    def swap_video(self, sources: Sequence[str], target: str, face: str, progress: Progress, **settings: Any) -> Made:
        """Puts the face of a source into a video.

        Args:
            sources (`Sequence[str]`): Photos of one person.
            target (`str`): The video to change.
            face (`str`): "largest" or "all".
            progress (`Callable`): See `Progress`.
            settings: Of [`SwapOptions`].

        Raises:
            ValueError: As `VideoSwapper.run`, and for files that are too large or too many.
        """
        from faceswap_diffusion.swapping.video import VideoSwapper
        from faceswap_diffusion.swapping.video_plan import plan_video

        people, folder = self._load(sources), self.storage.new_folder()
        self._check_video(target)
        try:
            plan = plan_video(target, folder / "swapped.mp4", work_dir=folder / "parts")
            with collected_warnings() as warnings:
                result = VideoSwapper(self.swapper, SwapOptions(**settings), face=face).run(
                    people, plan, lambda done, total: progress(done / max(total or 1, done, 1), "swapping frames")
                )
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        text = f"Swapped a face in {result.swapped} of {result.frames} frames in {result.seconds:.1f} s."
        return Made(plan.output, "\n".join([text, *warnings]))

    def verify(self, path: str) -> str:
        """Says in words whether a picture or a video was made here.

        Raises:
            ValueError: If it cannot be read, or is too large.
        """
        if is_video(path):
            self._check_video(path)
        else:
            self.limits.read(path)
        return "\n".join(verify(path).lines()).replace(path, Path(path).name)

    def _load(self, sources: Sequence[str]) -> list[Any]:
        if not sources:
            raise ValueError("no source is given: add a photo of who to become")
        if len(sources) > self.limits.photos:
            raise ValueError(f"got {len(sources)} photos of the source, and this demo takes {self.limits.photos}")
        return [self.limits.load(path) for path in sources]

    def _check_video(self, path: str) -> None:
        from faceswap_diffusion.videos.reading import open_video

        facts, name = open_video(path).facts, Path(path).name
        self.limits.check_pixels(facts.size, name)
        self.limits.check_length(None if facts.duration is None else float(facts.duration), name)


def _first_frame(path: str) -> np.ndarray:
    """Pixels (H, W, 3) uint8 RGB of the first frame of a video that can be decoded."""
    from faceswap_diffusion.videos.colors import FrameColors
    from faceswap_diffusion.videos.frames import Span
    from faceswap_diffusion.videos.reading import open_video

    video = open_video(path)
    colors = FrameColors(video.facts, "yuv420p")
    for frame in video.frames(Span()):
        if frame.picture is not None and not frame.is_broken:
            return colors.rgb(frame.picture)
    raise ValueError(f"{Path(path).name} has no frame that can be decoded: save it again")
