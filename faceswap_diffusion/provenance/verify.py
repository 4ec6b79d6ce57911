"""Says whether a picture was made here: by its metadata, and by the invisible mark, which survives their loss."""

from dataclasses import dataclass, field
from os import PathLike, fspath
from typing import Any

from faceswap_diffusion.faces.alignment import ffhq_matrix
from faceswap_diffusion.faces.analyzer import FaceAnalyzer, MeshFaceAnalyzer
from faceswap_diffusion.photos.loading import load_photo
from faceswap_diffusion.provenance.save import read_provenance
from faceswap_diffusion.provenance.watermark import SIZE, Mark, find_mark, payload_of

LEAST_CONFIDENCE = 0.3
"""Of detector and mesh in a face to look in: below what a swap asks for, as nothing depends on it but a look."""


@dataclass(frozen=True)
class Verification:
    """What a picture tells of where it comes from.

    Args:
        path (`str`): The picture.
        metadata (`dict[str, Any]`, *optional*): What [`read_provenance`] reads.
        marks (`list[Mark]`): What was found in each face, left to right.
    """

    path: str
    metadata: dict[str, Any] | None
    marks: list[Mark] = field(default_factory=list)

    @property
    def marked_faces(self) -> list[int]:
        """The faces with a mark, counted from 0 at the left."""
        return [index for index, mark in enumerate(self.marks) if mark.found]

    @property
    def is_marked(self) -> bool:
        """Whether metadata or a mark says that the picture was made here."""
        return self.metadata is not None or bool(self.marked_faces)

    def lines(self) -> list[str]:
        """What was found, in words."""
        marks = [*map(self._mark_line, range(len(self.marks)))] or ["mark: no face is found to look in"]
        headline = f"{self.path}: {'made with AI' if self.is_marked else 'nothing found'}"
        return [headline, *(f"  {line}" for line in (self._metadata_line(), *marks))]

    def _metadata_line(self) -> str:
        if self.metadata is None:
            return "metadata: none of ours; they may have been lost when the picture was saved again"
        facts = [
            f"{name} {self.metadata[name]}" for name in ("checkpoint", "seed", "consent") if name in self.metadata
        ]
        return f"metadata: written by {self.metadata['software']}" + (f" ({', '.join(facts)})" if facts else "")

    def _mark_line(self, index: int) -> str:
        mark = self.marks[index]
        if not mark.found:
            return f"mark: none in face {index} (score {mark.score:.1f})"
        told = f"mark: in face {index}, probability {mark.probability:.6f}, payload {mark.payload:04x}"
        checkpoint = (self.metadata or {}).get("checkpoint")
        if checkpoint is not None:
            agrees = payload_of(str(checkpoint)) == mark.payload
            told += ", which agrees with the metadata" if agrees else ", which the metadata do not say"
        return f"{told} ({mark.payload_probability:.0%} certain)"


def face_finder() -> FaceAnalyzer:
    """Finds faces that may bear a mark, those that are hard to see as well."""
    return MeshFaceAnalyzer(LEAST_CONFIDENCE, LEAST_CONFIDENCE)


def verify(path: str | PathLike, analyzer: FaceAnalyzer | None = None) -> Verification:
    """Looks for metadata and marks in a picture.

    Args:
        path (`str | PathLike`): The picture.
        analyzer ([`FaceAnalyzer`], *optional*): Finds its faces; `face_finder` makes one if left out.

    Raises:
        ValueError: If it cannot be read.
    """
    photo = load_photo(path)
    faces = (analyzer or face_finder()).analyze(photo.rgb)
    marks = [find_mark(photo.rgb, ffhq_matrix(face.landmarks68, SIZE)) for face in faces]
    return Verification(fspath(path), read_provenance(path), marks)
