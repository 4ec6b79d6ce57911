"""Photos made ready for training: aligned crops and what is known of them, in shards, by several processes."""

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
import pyarrow as pa
import torch
from tqdm.auto import tqdm

from faceswap_diffusion.conditioning.identity import SFace
from faceswap_diffusion.faces.alignment import crop, ffhq_matrix, transform_points
from faceswap_diffusion.faces.analyzer import Face, MeshFaceAnalyzer
from faceswap_diffusion.faces.landmarks import MeshResult
from faceswap_diffusion.faces.selection import NoFaceFoundError, select_face
from faceswap_diffusion.masks.parsing import load_face_parser
from faceswap_diffusion.training.data.dataset import DESCRIPTION, MEASUREMENTS, SCHEMA, resize_labels, resize_landmarks
from faceswap_diffusion.training.data.photo_sources import PhotoSource
from faceswap_diffusion.training.engine.sharding import begin_folder, write_description, write_shards
from faceswap_diffusion.writing import whole_file

REJECTED = "rejected.csv"

NEW_PHOTOS = "another --output_dir; new photos alone go there, and --train_data_dir takes both folders"

MEASURED_SIZE = 512
"""The largest side in pixels at which crops are measured: the networks see no more in larger ones."""


class Rejection(NamedTuple):
    """A photo, or a face of one, that is left out.

    Args:
        photo (`str`): Its name.
        reason (`str`): "unreadable", "no face", "too small", "not square" or "no label map".
        detail (`str`): The same in more words.
    """

    photo: str
    reason: str
    detail: str


class UnusableError(ValueError):
    """A photo or a face that cannot be used."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class PreparationSettings:
    """What decides, besides the photos, what is written.

    Args:
        resolution (`int`): Side of the crops in pixels.
        aligned (`bool`): Whether the photos are FFHQ-aligned crops, to be taken as they are.
        face (`str`): Which faces of a photo are taken: "largest" or "all".
        shard_size (`int`): Photos in a shard.
    """

    resolution: int = 256
    aligned: bool = False
    face: Literal["largest", "all"] = "largest"
    shard_size: int = 256


@dataclass(frozen=True, eq=False)
class FaceSquare:
    """The square of a photo that becomes a crop.

    Args:
        name (`str`): The crop's name.
        identity (`str`): The person; the photo's name if unknown.
        matrix (`Callable[[int], np.ndarray]`): Gives (2, 3), photo pixels to pixels of a crop of that side.
        keypoints (`np.ndarray`, *optional*): (5, 2), eyes, nose and mouth in photo pixels, where they are known.
    """

    name: str
    identity: str
    matrix: Callable[[int], np.ndarray]
    keypoints: np.ndarray | None = None

    @property
    def side(self) -> float:
        """Its side in photo pixels."""
        return float(1 / np.hypot(*self.matrix(1)[0, :2]))


class FacePreparer:
    """Makes rows of photos.

    Args:
        source (`PhotoSource`): The photos.
        settings (`PreparationSettings`): What to make of them.
    """

    def __init__(self, source: PhotoSource, settings: PreparationSettings):
        self.source = source
        self.settings = settings
        self.analyzer = MeshFaceAnalyzer()
        self.parser = load_face_parser()
        self.identity_network = SFace().eval()

    def prepare(self, index: int) -> Iterator[dict[str, Any] | Rejection]:
        """Prepares a photo.

        Args:
            index (`int`): Its place in the source.

        Yields:
            `dict[str, Any] | Rejection`: A row of `SCHEMA` for each face that is taken, a rejection for what is not.
        """
        name = self.source.names[index]
        try:
            image = self._read(index)
            squares = self._whole(index, image) if self.settings.aligned else self._find_squares(index, image)
        except UnusableError as error:
            yield Rejection(name, error.reason, str(error))
            return
        for square in squares:
            try:
                yield self._row(index, image, square)
            except UnusableError as error:
                yield Rejection(square.name, error.reason, str(error))

    def _read(self, index: int) -> np.ndarray:
        try:
            return self.source.read(index)
        except ValueError as error:
            raise UnusableError("unreadable", str(error)) from None

    def _whole(self, index: int, image: np.ndarray) -> list[FaceSquare]:
        """The square that is the whole picture."""
        height, width = image.shape[:2]
        if height != width:
            raise UnusableError("not square", f"{width} x {height} pixels; an aligned crop is square")
        name = self.source.names[index]
        return [FaceSquare(name, self.source.identities[index] or name, partial(_scaling, width))]

    def _find_squares(self, index: int, image: np.ndarray) -> list[FaceSquare]:
        """The squares around the faces of a photo. Its identity is that of the largest."""
        faces = self.analyzer.analyze(image)
        if not faces:
            raise UnusableError("no face", "no face found")
        name, identity = self.source.names[index], self.source.identities[index]
        largest = select_face(faces)
        if self.settings.face == "largest":
            return [FaceSquare(name, identity or name, partial(ffhq_matrix, largest.landmarks68), largest.keypoints)]
        squares = []
        for number, face in enumerate(faces):
            face_name = f"{name}#{number}"
            person = identity if identity and face is largest else face_name
            squares.append(FaceSquare(face_name, person, partial(ffhq_matrix, face.landmarks68), face.keypoints))
        return squares

    def _row(self, index: int, image: np.ndarray, square: FaceSquare) -> dict[str, Any]:
        """Cuts a square out and measures it: at its own size, as landmarks are the more exact the more can be seen."""
        size, side = self.settings.resolution, round(square.side, 6)
        if side < size:
            raise UnusableError("too small", f"the face's square is {side:.0f} pixels wide; {size} are needed")
        measured_size = min(int(side), max(size, MEASURED_SIZE))
        face = self._describe(crop(image, square.matrix(measured_size), measured_size), square, measured_size)
        assert face.depth is not None  # both ways to describe a face fit a mesh
        pixels = crop(image, square.matrix(size), size)
        measurements = {
            "landmarks": resize_landmarks(face.landmarks, measured_size, size),
            "depth": face.depth * (size / measured_size),
            "head_pose": face.head_pose,
            "blendshapes": face.blendshapes,
            "identity_embeds": self._embed(pixels),
        }
        return {
            "name": square.name,
            "identity": square.identity,
            "image": _encode(pixels[:, :, ::-1]),
            "labels": _encode(self._labels(index, pixels)),
            **{name: np.asarray(value, np.float32).ravel() for name, value in measurements.items()},
        }

    def _describe(self, view: np.ndarray, square: FaceSquare, size: int) -> Face | MeshResult:
        if square.keypoints is not None:
            return self.analyzer.mesh(view, transform_points(square.keypoints, square.matrix(size)))
        try:
            return select_face(self.analyzer.analyze(view))
        except NoFaceFoundError:
            raise UnusableError("no face", "no face found") from None

    def _labels(self, index: int, pixels: np.ndarray) -> np.ndarray:
        try:
            labels = self.source.read_labels(index)
        except ValueError as error:
            raise UnusableError("no label map", str(error)) from None
        return self.parser.parse(pixels) if labels is None else resize_labels(labels, len(pixels))

    @torch.no_grad()
    def _embed(self, pixels: np.ndarray) -> np.ndarray:
        """Embeddings (2, 128) of a crop and of its mirror image, through the same window as in a swap."""
        both = torch.from_numpy(np.stack([pixels, pixels[:, ::-1]])).permute(0, 3, 1, 2).float() / 127.5 - 1
        return self.identity_network(self.identity_network.prepare(both)).numpy()


def prepare_faces(
    source: PhotoSource, output_dir: Path, settings: PreparationSettings, num_workers: int = 1
) -> tuple[int, list[Rejection]]:
    """Prepares photos, or what an earlier run that was stopped has left of them.

    A shard is there, whole, or not there: what is written does not depend on stops or on the number of processes.

    Args:
        source (`PhotoSource`): The photos.
        output_dir (`Path`): Receives the shards, `rejected.csv`, and `preparation.json` that describes both.
        settings (`PreparationSettings`): What to make of the photos.
        num_workers (`int`): Processes; with 1 it is this one.

    Returns:
        `tuple[int, list[Rejection]]`: How many faces are in the shards, and what was left out.

    Raises:
        ValueError: If the folder was begun with other photos or settings, or no face is left.
    """
    _begin(source, output_dir, settings)
    num_shards = -(-len(source) // settings.shard_size)
    missing = [number for number in range(num_shards) if not _shard_path(output_dir, number).exists()]
    num_left = sum(len(_photos_of_shard(source, settings, number)) for number in missing)
    with tqdm(total=len(source), initial=len(source) - num_left, desc="preparing faces", unit="photo") as progress:
        for number in write_shards(FaceShardWriter, (source, output_dir, settings), missing, num_workers):
            progress.update(len(_photos_of_shard(source, settings, number)))
    return _finish(output_dir, num_shards)


def count_reasons(rejections: list[Rejection]) -> str:
    """Rejections by reason in words, the most frequent first."""
    counts = Counter(rejection.reason for rejection in rejections)
    return ", ".join(f"{count} {reason}" for reason, count in counts.most_common())


def _begin(source: PhotoSource, output_dir: Path, settings: PreparationSettings) -> None:
    """Describes a new folder, or compares with what is in it; clears away what a killed run left half written."""
    wanted = {
        **asdict(settings),
        "label_names": list(source.label_names),
        "identity_network": "sface",
        "measurements": list(MEASUREMENTS),
        "num_photos": len(source),
        "photos_sha256": source.digest(),
    }
    begin_folder(output_dir / DESCRIPTION, wanted, "arguments and photos", NEW_PHOTOS)


def _finish(output_dir: Path, num_shards: int) -> tuple[int, list[Rejection]]:
    num_faces, rejections = 0, []
    for number in range(num_shards):
        with pa.memory_map(str(_shard_path(output_dir, number))) as file:
            metadata = pa.ipc.open_stream(file).schema.metadata
        num_faces += int(metadata[b"num_faces"])
        rejections += [Rejection(*fields) for fields in json.loads(metadata[b"rejected"])]
    with whole_file(output_dir / REJECTED) as path, path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([Rejection._fields, *rejections])
    if not num_faces:
        raise ValueError(f"no face is left: {count_reasons(rejections)}; {output_dir / REJECTED} has a line for each")
    begun = json.loads((output_dir / DESCRIPTION).read_text(encoding="utf-8"))
    write_description(output_dir / DESCRIPTION, {**begun, "num_faces": num_faces, "num_rejected": len(rejections)})
    return num_faces, rejections


class FaceShardWriter:
    """Writes shard after shard.

    Args:
        source (`PhotoSource`): See `prepare_faces`.
        output_dir (`Path`): See `prepare_faces`.
        settings (`PreparationSettings`): See `prepare_faces`.
    """

    def __init__(self, source: PhotoSource, output_dir: Path, settings: PreparationSettings):
        self.source, self.output_dir, self.settings = source, output_dir, settings
        self.preparer = FacePreparer(source, settings)

    def write(self, number: int) -> int:
        """Prepares the photos of a shard and writes it, with what was rejected of them; returns its number."""
        rows, rejections = [], []
        for index in _photos_of_shard(self.source, self.settings, number):
            for outcome in self.preparer.prepare(index):
                (rejections if isinstance(outcome, Rejection) else rows).append(outcome)
        metadata = {"num_faces": str(len(rows)), "rejected": json.dumps(rejections)}
        with (
            whole_file(_shard_path(self.output_dir, number)) as path,
            pa.OSFile(str(path), "wb") as file,
            pa.ipc.new_stream(file, SCHEMA.with_metadata(metadata)) as writer,
        ):
            writer.write_batch(_as_batch(rows))
        return number


def _shard_path(output_dir: Path, number: int) -> Path:
    return output_dir / f"shard-{number:05}.arrow"


def _photos_of_shard(source: PhotoSource, settings: PreparationSettings, number: int) -> range:
    """Which photos belong to a shard."""
    return range(len(source))[number * settings.shard_size : (number + 1) * settings.shard_size]


def _as_batch(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    columns = []
    for field in SCHEMA:
        values = [row[field.name] for row in rows]
        if field.name in MEASUREMENTS and rows:
            columns.append(pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(values)), type=field.type))
        else:
            columns.append(pa.array(values, field.type))
    return pa.record_batch(columns, schema=SCHEMA)


def _scaling(side: int, size: int) -> np.ndarray:
    """Maps a whole picture of `side` px to one of `size` px, (2, 3)."""
    factor = size / side
    return np.array([[factor, 0, (factor - 1) / 2], [0, factor, (factor - 1) / 2]])


def _encode(pixels: np.ndarray) -> bytes:
    """PNG of (S, S) grey or (S, S, 3) BGR pixels, uint8."""
    return cv2.imencode(".png", pixels)[1].tobytes()
