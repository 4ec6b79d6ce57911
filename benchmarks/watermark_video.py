"""Measures the invisible mark in videos: how often it is found, and how often where there is none.

    python -m benchmarks.watermark_video PHOTOS

A clip of a moving face is made of each photo, and written as H.264 with a mark in every frame, and without. False
alarms are looked for without a mark, and in all clips with each of the other keys in place of the mark's own.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from benchmarks.watermark import PAYLOAD, face_mask, only_face
from faceswap_diffusion.evaluation.clips import ClipOptions, make_clip
from faceswap_diffusion.faces.alignment import ffhq_matrix
from faceswap_diffusion.faces.analyzer import MeshFaceAnalyzer
from faceswap_diffusion.photos.folders import pictures_in
from faceswap_diffusion.photos.loading import load_photo
from faceswap_diffusion.provenance.verify import face_finder, looks_at_video
from faceswap_diffusion.provenance.video_mark import evidence_in, judge
from faceswap_diffusion.provenance.watermark import SIZE, Evidence, lay_mark

CLIP = ClipOptions(num_frames=24, rate=8, noise=1.0)
KINDS = {
    "no mark, CRF 20": (False, 20, 1),
    "CRF 17": (True, 17, 1),
    "CRF 26": (True, 26, 1),
    "half the size, CRF 26": (True, 26, 2),
}
"""Of clips: whether they have a mark, x264's constant rate factor, and by what they are made smaller."""


def clip_of(path: Path, analyzer: MeshFaceAnalyzer, side: int) -> list[np.ndarray] | None:
    """Frames (side, side, 3) uint8 RGB; `None` if the photo shows no face or several."""
    photo = np.asarray(Image.fromarray(load_photo(path).rgb).resize((side, side)))
    face = only_face(analyzer, photo)
    return None if face is None else make_clip(photo, face, 3, CLIP).frames


def marked(rgb: np.ndarray, analyzer: MeshFaceAnalyzer) -> np.ndarray:
    """A frame with a mark, if its face is found."""
    face = only_face(analyzer, rgb)
    if face is None:
        return rgb
    return lay_mark(rgb, face_mask(rgb, face), ffhq_matrix(face.landmarks68, SIZE), PAYLOAD)


def write(path: Path, frames: list[np.ndarray], crf: int, smaller: int) -> None:
    """Writes a video as H.264."""
    height, width = (side // smaller for side in frames[0].shape[:2])
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=int(CLIP.rate), options={"crf": str(crf)})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for rgb in frames:
            small = Image.fromarray(rgb).resize((width, height))
            container.mux(stream.encode(av.VideoFrame.from_image(small)))
        container.mux(stream.encode(None))


def false_alarms(seen: list[Evidence], looked_at: int) -> list[float]:
    """For each other key 1 less the probability that it is the mark's."""
    swapped = [
        [Evidence(float(one.others[key]), one.bits, np.delete(one.others, key)) for one in seen]
        for key in range(len(seen[0].others))
    ]
    return [1 - judge(one, looked_at).probability for one in swapped]


def main(arguments: list[str] | None = None) -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.watermark_video",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("photos", type=Path, help="folder of photos of one face each")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="use each Nth photo (default: 1)")
    parser.add_argument("--limit", type=int, default=10, help="number of clips (default: 10)")
    parser.add_argument("--side", type=int, default=256, help="side of the clips in pixels (default: 256)")
    args = parser.parse_args(arguments)
    analyzer, finder = MeshFaceAnalyzer(), face_finder()
    results: dict[str, list] = {kind: [] for kind in KINDS}
    alarms: list[float] = []
    clips = (clip_of(path, analyzer, args.side) for path in pictures_in(args.photos)[:: args.every])
    with tempfile.TemporaryDirectory() as folder:
        for frames, _ in zip((clip for clip in clips if clip), range(args.limit), strict=False):
            with_mark = [marked(rgb, analyzer) for rgb in frames]
            for kind, (has_mark, crf, smaller) in KINDS.items():
                write(Path(folder, "clip.mp4"), with_mark if has_mark else frames, crf, smaller)
                seen = evidence_in(looks_at_video(Path(folder, "clip.mp4"), finder))
                known = [one for one in seen if one is not None]
                if known:
                    results[kind].append(judge(known, len(seen)))
                    alarms += false_alarms(known, len(seen))
    lines = ["| clips | videos found | frames found by themselves | payload read | median score |", "| --- " * 5 + "|"]
    for kind, marks in results.items():
        by_itself = f"{sum(mark.found_in for mark in marks)} of {sum(mark.with_face for mark in marks)}"
        read = sum(mark.payload == PAYLOAD for mark in marks)
        score = float(np.median([mark.score for mark in marks]))
        found = sum(mark.found for mark in marks)
        lines.append(f"| {kind} | {found} of {len(marks)} | {by_itself} | {read} of {len(marks)} | {score:.1f} |")
    rates = ", ".join(f"{sum(alarm <= rate for alarm in alarms)} at {rate:g}" for rate in (0.1, 0.01, 0.001))
    sys.stdout.write("\n".join([*lines, "", f"other keys, false alarms in {len(alarms)} trials: {rates}", ""]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
