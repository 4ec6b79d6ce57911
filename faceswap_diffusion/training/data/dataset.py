"""Faces that train/prepare_faces.py prepared: read at random, row by row, from memory-mapped Arrow files."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch.utils.data import Dataset

DESCRIPTION = "preparation.json"
"""The file of a prepared folder that describes its shards."""

MEASUREMENTS = {
    "landmarks": (478, 2),
    "depth": (478,),
    "head_pose": (3,),
    "blendshapes": (52,),
    "identity_embeds": (2, 128),
}
"""The numeric columns and the shape of one row."""

SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("identity", pa.string()),
        ("image", pa.binary()),
        ("labels", pa.binary()),
        *((name, pa.list_(pa.float32(), int(np.prod(shape)))) for name, shape in MEASUREMENTS.items()),
    ]
)
"""The columns of a shard."""


@dataclass(frozen=True, eq=False)
class FaceRecord:
    """One prepared face.

    Args:
        name (`str`): The photo's name, with `#k` behind it where several faces of a photo were taken.
        identity (`str`): The person; the photo's name if unknown.
        pixels (`torch.Tensor`): (3, S, S) uint8 RGB, FFHQ-aligned.
        labels (`np.ndarray`): (S, S) uint8, indices into the data set's `label_names`.
        landmarks (`np.ndarray`): (478, 2) float32, x, y of the face mesh in pixels of the crop.
        depth (`np.ndarray`): (478,) float32, of the landmarks, in pixels of the crop; smaller is nearer.
        head_pose (`np.ndarray`): (3,) float32: yaw, pitch, roll in degrees.
        blendshapes (`np.ndarray`): (52,) float32 in [0, 1], as `BLENDSHAPE_NAMES` says.
        identity_embeds (`torch.Tensor`): (2, D) float32, of the crop and of its mirror image, of unit length.
    """

    name: str
    identity: str
    pixels: torch.Tensor
    labels: np.ndarray
    landmarks: np.ndarray
    depth: np.ndarray
    head_pose: np.ndarray
    blendshapes: np.ndarray
    identity_embeds: torch.Tensor


@dataclass(frozen=True)
class FacesSummary:
    """A summary of the faces that a model is trained on.

    Args:
        folders (`tuple[str, ...]`): Names of their folders.
        num_faces (`int`): How many there are.
        num_people (`int`): Of how many people.
        resolution (`int`): Side of the crops in pixels.
        identity_network (`str`): See [`PreparedFaces`].
        fingerprint (`str`): See [`PreparedFaces`].
    """

    folders: tuple[str, ...]
    num_faces: int
    num_people: int
    resolution: int
    identity_network: str
    fingerprint: str


class PreparedFaces(Dataset):
    """The faces of prepared folders, decoded when they are asked for.

    Args:
        folders (`Sequence[str | Path]`): Folders that train/prepare_faces.py wrote.
        resolution (`int`): Side of the crops in pixels; stored ones may be larger.

    Attributes:
        label_names (`tuple[str, ...]`): What the labels mean.
        identity_network (`str`): The recogniser of `identity_embeds`, a key of `IDENTITY_NETWORKS`.
        identities (`list[str]`): The person of each row; people of two folders are never the same.
        fingerprint (`str`): SHA-256 over the rows' names, the sizes of their pictures, and the resolution.
        summary ([`FacesSummary`]): All of this in short.

    Raises:
        ValueError: If a folder was not prepared, not to the end or by an older version, if its crops are too small, or
            if two do not fit together.
    """

    def __init__(self, folders: Sequence[str | Path], resolution: int):
        descriptions = [read_description(Path(folder)) for folder in folders]
        self.resolution = resolution
        self.label_names = tuple(_common("label_names", folders, descriptions))
        self.identity_network: str = _common("identity_network", folders, descriptions)
        shards, sides, prefixes = [], [], []
        for number, (folder, description) in enumerate(zip(folders, descriptions, strict=True)):
            if description["resolution"] < resolution:
                raise ValueError(
                    f"{folder} holds crops of {description['resolution']} pixels, {resolution} are wanted: prepare "
                    f"the photos again with --resolution {resolution}"
                )
            shards += [_open_shard(path) for path in sorted(Path(folder).glob("shard-*.arrow"))]
            sides += [description["resolution"]] * description["num_faces"]
            prefixes += [f"{number}/" if len(folders) > 1 else ""] * description["num_faces"]
        faces = datasets.concatenate_datasets(shards)
        if len(faces) != len(sides):
            raise ValueError(
                f"{len(sides)} faces were prepared, {len(faces)} are there: run prepare_faces.py again, which "
                "makes shards that are missing"
            )
        self._faces = faces.with_format("numpy")
        self._sides = np.array(sides)
        self.identities: list[str] = [
            prefix + identity
            for prefix, identity in zip(prefixes, self._table_column("identity").to_pylist(), strict=True)
        ]
        self.fingerprint = self._fingerprint()
        names = tuple(Path(folder).resolve().name for folder in folders)
        self.summary = FacesSummary(
            folders=names,
            num_faces=len(self),
            num_people=len(set(self.identities)),
            resolution=resolution,
            identity_network=self.identity_network,
            fingerprint=self.fingerprint,
        )

    def __len__(self) -> int:
        """Number of faces."""
        return len(self._sides)

    def __getitem__(self, row: int) -> FaceRecord:
        """Decodes a face."""
        stored = self._faces[row]
        size, side = self.resolution, int(self._sides[row])
        pixels = _decode(stored["image"], cv2.IMREAD_COLOR_RGB)
        labels = _decode(stored["labels"], cv2.IMREAD_GRAYSCALE)
        if side != size:
            pixels = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA)
            labels = resize_labels(labels, size)
        measured = {name: np.array(stored[name]).reshape(shape) for name, shape in MEASUREMENTS.items()}
        return FaceRecord(
            name=str(stored["name"]),
            identity=self.identities[row],
            pixels=torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))),
            labels=labels,
            landmarks=resize_landmarks(measured["landmarks"], side, size),
            depth=measured["depth"] * np.float32(size / side),
            head_pose=measured["head_pose"],
            blendshapes=measured["blendshapes"],
            identity_embeds=torch.from_numpy(measured["identity_embeds"]),
        )

    def column(self, name: str) -> np.ndarray:
        """One measurement of all faces, without decoding pictures.

        Args:
            name (`str`): A key of `MEASUREMENTS`.

        Returns:
            `np.ndarray`: (N, ...) float32; landmarks and depth in pixels of `resolution`.
        """
        stored = self._table_column(name).combine_chunks().flatten().to_numpy()
        values = np.array(stored).reshape(-1, *MEASUREMENTS[name])
        if name == "depth":
            return values * (self.resolution / self._sides[:, None]).astype(np.float32)
        return resize_landmarks(values, self._sides[:, None, None], self.resolution) if name == "landmarks" else values

    def _table_column(self, name: str) -> pa.ChunkedArray:
        return self._faces.data.column(name)

    def _fingerprint(self) -> str:
        sizes = pc.binary_length(self._table_column("image")).to_pylist()  # pyright: ignore[reportAttributeAccessIssue]
        names = self._table_column("name").to_pylist()
        lines = [f"{name}\t{size}\n" for name, size in zip(names, sizes, strict=True)]
        return hashlib.sha256(f"{self.resolution}\n{''.join(lines)}".encode()).hexdigest()


def read_description(folder: Path) -> dict:
    """Reads the description of a prepared folder.

    Args:
        folder (`Path`): The folder.

    Returns:
        `dict`: With `resolution`, `label_names`, `identity_network`, `num_faces` and more.

    Raises:
        ValueError: If it was not prepared, or not to the end.
    """
    path = folder / DESCRIPTION
    if not path.exists():
        raise ValueError(f"{folder} holds no prepared faces: make them from photos with train/prepare_faces.py")
    description = json.loads(path.read_text())
    if "num_faces" not in description:
        raise ValueError(f"{folder} is not prepared to the end: run prepare_faces.py again with the same arguments")
    return description


def resize_landmarks(landmarks: np.ndarray, side: int | np.ndarray, size: int) -> np.ndarray:
    """Landmarks (..., 2) in pixels of a crop of `side` px, in those of the same crop at `size` px, as float32."""
    return ((landmarks + 0.5) * (size / side) - 0.5).astype(np.float32)


def resize_labels(labels: np.ndarray, size: int) -> np.ndarray:
    """Brings a label map (H, W) uint8 to (size, size), taking the label at each pixel's centre."""
    return cv2.resize(labels, (size, size), interpolation=cv2.INTER_NEAREST_EXACT)


def _open_shard(path: Path) -> datasets.Dataset:
    """Maps a shard into memory."""
    shard = datasets.Dataset.from_file(str(path))
    lacking = [name for name in MEASUREMENTS if name not in shard.column_names]
    if lacking:
        raise ValueError(f"prepare the photos again: {path}, of an older version, lacks {', '.join(lacking)}")
    return shard


def _common(key: str, folders: Sequence[str | Path], descriptions: list[dict]):
    """The value that all folders share."""
    for folder, description in zip(folders, descriptions, strict=True):
        if description[key] != descriptions[0][key]:
            raise ValueError(
                f"{folder} and {folders[0]} have different {key} ({description[key]} and {descriptions[0][key]}): "
                "train on one of them, or prepare both alike"
            )
    return descriptions[0][key]


def _decode(encoded: bytes, mode: int) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(encoded, np.uint8), mode)  # pyright: ignore[reportReturnType]
