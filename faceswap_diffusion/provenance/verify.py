"""Says whether a file was made here: by metadata, Content Credentials, and the mark, which survives their loss."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from os import PathLike, fspath
from os.path import isfile
from pathlib import Path
from typing import Any

import numpy as np

from faceswap_diffusion.faces.alignment import ffhq_matrix
from faceswap_diffusion.faces.analyzer import FaceAnalyzer, MeshFaceAnalyzer
from faceswap_diffusion.photos.folders import is_video
from faceswap_diffusion.photos.loading import load_photo
from faceswap_diffusion.provenance.credentials import ContentCredentials, can_sign, read_credentials
from faceswap_diffusion.provenance.save import read_provenance
from faceswap_diffusion.provenance.video_mark import Look, VideoMark, find_video_mark
from faceswap_diffusion.provenance.watermark import SIZE, Mark, find_mark, payload_of

LEAST_CONFIDENCE = 0.3
"""Of detector and mesh in a face to look in: below what a swap asks for, as nothing depends on it but a look."""

NUM_FRAMES = 12
"""How many frames of a video are looked at for the mark, spread over it."""


@dataclass(frozen=True)
class Verification:
    """What a picture or a video tells of where it comes from.

    Args:
        path (`str`): The file.
        metadata (`dict[str, Any]`, *optional*): What [`read_provenance`] reads.
        marks (`list[Mark]`): What was found in each face of a picture, left to right.
        credentials ([`ContentCredentials`], *optional*): Its Content Credentials; `None` if it has none, or the extra
            `c2pa` is not installed.
        video_mark ([`VideoMark`], *optional*): What was found in frames of a video; `None` for a picture.
    """

    path: str
    metadata: dict[str, Any] | None
    marks: list[Mark] = field(default_factory=list)
    credentials: ContentCredentials | None = None
    video_mark: VideoMark | None = None

    @property
    def marked_faces(self) -> list[int]:
        """The faces with a mark, counted from 0 at the left."""
        return [index for index, mark in enumerate(self.marks) if mark.found]

    @property
    def is_marked(self) -> bool:
        """Whether metadata, Content Credentials or a mark say that the file was made here."""
        signed = self.credentials is not None and self.credentials.is_ours
        in_video = self.video_mark is not None and self.video_mark.found
        return self.metadata is not None or signed or in_video or bool(self.marked_faces)

    def lines(self) -> list[str]:
        """What was found, in words."""
        if self.video_mark is not None:
            marks = [self._video_mark_line(self.video_mark)]
        else:
            marks = [*map(self._mark_line, range(len(self.marks)))] or ["mark: no face is found to look in"]
        headline = f"{self.path}: {'made with AI' if self.is_marked else 'nothing found'}"
        return [headline, *(f"  {line}" for line in (self._metadata_line(), self._credentials_line(), *marks))]

    def _metadata_line(self) -> str:
        if self.metadata is None:
            return "metadata: none of ours; they may have been lost when the picture was saved again"
        facts = [
            f"{name} {self.metadata[name]}" for name in ("checkpoint", "seed", "consent") if name in self.metadata
        ]
        return f"metadata: written by {self.metadata['software']}" + (f" ({', '.join(facts)})" if facts else "")

    def _credentials_line(self) -> str:
        found = self.credentials
        if found is None:
            return f"Content Credentials: {'none' if can_sign() else 'not looked for, as the extra c2pa is missing'}"
        state = "valid" if found.is_valid else "ALTERED since they were signed" if found.is_altered else "NOT valid"
        trust = "trusted" if found.is_trusted else "which no trust list that was given knows"
        told = f"Content Credentials: {state}, by {found.generator}, signed by {found.signer!r}, {trust}"
        return f"{told} ({', '.join(found.problems)})" if found.problems else told

    def _mark_line(self, index: int) -> str:
        mark = self.marks[index]
        if not mark.found:
            return f"mark: none in face {index} (score {mark.score:.1f})"
        return f"mark: in face {index}, {self._what_it_says(mark)}"

    def _video_mark_line(self, mark: VideoMark) -> str:
        looked = f"{mark.looked_at} frames that were looked at"
        if not mark.with_face:
            return f"mark: no face is found to look in, in {looked}"
        if not mark.found:
            return f"mark: none in {looked}, of which {mark.with_face} show a face (score {mark.score:.1f})"
        return f"mark: in {mark.found_in} of {looked}; of all together {self._what_it_says(mark)}"

    def _what_it_says(self, mark: Mark | VideoMark) -> str:
        told = f"probability {mark.probability:.6f}, payload {mark.payload:04x}"
        checkpoint = (self.metadata or {}).get("checkpoint")
        if checkpoint is not None:
            agrees = payload_of(str(checkpoint)) == mark.payload
            told += ", which agrees with the metadata" if agrees else ", which the metadata do not say"
        return f"{told} ({mark.payload_probability:.0%} certain)"


def face_finder() -> FaceAnalyzer:
    """Finds faces that may bear a mark, those that are hard to see as well."""
    return MeshFaceAnalyzer(LEAST_CONFIDENCE, LEAST_CONFIDENCE)


def verify(
    path: str | PathLike, analyzer: FaceAnalyzer | None = None, trust_anchors: str | PathLike | None = None
) -> Verification:
    """Looks for metadata, Content Credentials and marks in a picture or a video, of which some frames are looked at.

    Args:
        path (`str | PathLike`): The picture or the video.
        analyzer ([`FaceAnalyzer`], *optional*): Finds its faces; `face_finder` makes one if left out.
        trust_anchors (`str | PathLike`, *optional*): PEM file of the certificates of those whose Content Credentials
            are trusted.

    Raises:
        ValueError: If it cannot be read.
    """
    if trust_anchors is not None and not can_sign():
        raise ValueError("trust anchors are for Content Credentials, which need the extra c2pa: install "
                         "faceswap-diffusion[c2pa]")  # fmt: skip
    anchors = None if trust_anchors is None else _read_anchors(Path(trust_anchors))
    credentials = read_credentials(path, anchors) if can_sign() and isfile(path) else None
    analyzer = analyzer or face_finder()
    if is_video(path):
        from faceswap_diffusion.provenance.video import read_video_provenance  # needs the extra video

        metadata = read_video_provenance(path)
        mark = find_video_mark(looks_at_video(path, analyzer))
        return Verification(fspath(path), metadata, [], credentials, mark)
    photo = load_photo(path)
    marks = [find_mark(photo.rgb, matrix) for matrix in _matrices(photo.rgb, analyzer)]
    return Verification(fspath(path), read_provenance(path), marks, credentials)


def looks_at_video(path: str | PathLike, analyzer: FaceAnalyzer) -> Iterator[Look]:
    """Frames of a video, spread over it, with what is needed to look for marks in their faces.

    Args:
        path (`str | PathLike`): The video.
        analyzer ([`FaceAnalyzer`]): Finds the faces.

    Raises:
        ValueError: If it cannot be read.
    """
    from faceswap_diffusion.videos.colors import FrameColors
    from faceswap_diffusion.videos.reading import VideoFile

    video = VideoFile(Path(path))
    colors = FrameColors(video.facts, "yuv420p")
    for rgb in map(colors.rgb, video.spread(NUM_FRAMES)):
        yield rgb, _matrices(rgb, analyzer)


def _matrices(rgb: np.ndarray, analyzer: FaceAnalyzer) -> list[np.ndarray]:
    """Where marks may lie in a picture, left to right."""
    return [ffhq_matrix(face.landmarks68, SIZE) for face in analyzer.analyze(rgb)]


def _read_anchors(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read {path} ({error}): name a PEM file of certificates") from None
