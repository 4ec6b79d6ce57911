"""Where photos come from: folders, CelebAMask-HQ, FFHQ, webdataset tar files, datasets of the Hugging Face Hub."""

import csv
import hashlib
import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import datasets
import numpy as np

from faceswap_diffusion.masks.parsing import LABELS
from faceswap_diffusion.photos.loading import load_photo

Layout = Literal["auto", "folder", "celebamask-hq", "ffhq"]
IdentityRule = Literal["auto", "folder", "none"]

IMAGE_SUFFIXES = {".avif", ".bmp", ".heic", ".heif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
"""What a picture's file name ends with."""

CELEBAMASK_PARTS = {
    "skin": "skin", "nose": "nose", "eye_g": "glasses", "l_eye": "eyes", "r_eye": "eyes", "l_brow": "brows",
    "r_brow": "brows", "l_ear": "ears", "r_ear": "ears", "mouth": "mouth", "u_lip": "lips", "l_lip": "lips",
    "hair": "hair", "hat": "hat", "ear_r": "earrings", "neck_l": "necklace", "neck": "neck", "cloth": "cloth",
}  # fmt: skip
"""CelebAMask-HQ's part masks, in the order in which its authors lay them over one another, and what we call them."""

CELEBAMASK_LABELS = ("background", *dict.fromkeys(CELEBAMASK_PARTS.values()))
"""Label names of a label map that `merge_part_masks` makes."""

FFHQ_FOLDERS = ("images1024x1024", "thumbnails128x128")


class PhotoSource:
    """Photos to prepare, read one by one, in any order and by any process.

    Args:
        names (`list[str]`): What each photo is called; unique.
        identities (`Sequence[str | None]`): Who is in it, `None` if unknown.

    Raises:
        ValueError: If there is no photo, or two have the same name.
    """

    aligned = False
    """Whether the photos are FFHQ-aligned crops by their nature."""

    label_names = LABELS
    """What the labels of the source's own label maps mean; those of our parser where it has none."""

    def __init__(self, names: list[str], identities: Sequence[str | None]):
        if not names:
            raise ValueError("there is no photo to prepare: name a folder, tar file or data set that holds some")
        twice, times = Counter(names).most_common(1)[0]
        if times > 1:
            raise ValueError(f"two photos are called {twice}: rename one, or prepare the folders one by one")
        self.names = names
        self.identities = identities

    def __len__(self) -> int:
        """Number of photos."""
        return len(self.names)

    def read(self, index: int) -> np.ndarray:
        """Decodes a photo.

        Returns:
            `np.ndarray`: (H, W, 3) uint8 RGB, upright.

        Raises:
            ValueError: If it cannot be read.
        """
        raise NotImplementedError

    def read_labels(self, index: int) -> np.ndarray | None:
        """The label map that comes with a photo.

        Returns:
            `np.ndarray`, *optional*: (H, W) uint8, indices into `label_names`; `None` if a parser has to make it.

        Raises:
            ValueError: If it should be there and is not.
        """
        return None

    def digest(self) -> str:
        """SHA-256 over names and identities."""
        lines = (f"{name}\t{identity or ''}\n" for name, identity in zip(self.names, self.identities, strict=True))
        return hashlib.sha256("".join(lines).encode()).hexdigest()


class PhotoFiles(PhotoSource):
    """Photos in files.

    Args:
        paths (`list[Path]`): The files.
        names (`list[str]`): See `PhotoSource`.
        identities (`Sequence[str | None]`): See `PhotoSource`.
        aligned (`bool`): Whether they are FFHQ-aligned crops by their nature.
    """

    def __init__(self, paths: list[Path], names: list[str], identities: Sequence[str | None], aligned: bool = False):
        super().__init__(names, identities)
        self.paths = paths
        self.aligned = aligned

    def read(self, index: int) -> np.ndarray:
        """Decodes a photo, see `PhotoSource.read`."""
        return load_photo(self.paths[index]).rgb


class CelebAMaskHQ(PhotoFiles):
    """CelebAMask-HQ as its authors pack it: pictures with a mask for each part of a face, drawn by hand.

    Who is who is known where `identity_CelebA.txt` (of CelebA) is beside `CelebA-HQ-to-CelebA-mapping.txt`.

    Args:
        folder (`Path`): With `CelebA-HQ-img/N.jpg` and `CelebAMask-HQ-mask-anno/K/NNNNN_part.png`.
    """

    label_names = CELEBAMASK_LABELS

    def __init__(self, folder: Path):
        pictures = folder / "CelebA-HQ-img"
        numbers = sorted(int(path.stem) for path in pictures.glob("*.jpg") if path.stem.isdigit())
        if not numbers:
            raise ValueError(f"no N.jpg in {pictures}: that is not CelebAMask-HQ's layout; try --layout folder")
        identities = _celeba_identities(folder)
        names = [str(number) for number in numbers]
        paths = [pictures / f"{name}.jpg" for name in names]
        super().__init__(paths, names, [identities.get(name) for name in names], aligned=True)
        self.annotations = folder / "CelebAMask-HQ-mask-anno"

    def read_labels(self, index: int) -> np.ndarray:
        """Merges the part masks of a picture into one label map, see `PhotoSource.read_labels`."""
        number = int(self.names[index])
        folder = self.annotations / str(number // 2000)
        masks = {}
        for part in CELEBAMASK_PARTS:
            path = folder / f"{number:05}_{part}.png"
            if path.exists():
                masks[part] = load_photo(path).rgb[..., 0] > 127
        if not masks:
            raise ValueError(f"no part mask {number:05}_*.png in {folder}")
        return merge_part_masks(masks)


class TarPhotos(PhotoSource):
    """Pictures inside tar files, the shards of webdataset, read in place.

    Only pictures are read, and JSON or text that names the people in them. Other members, such as pickles, are never
    opened.

    Args:
        paths (`Sequence[Path]`): The tar files, not compressed.
        identity_column (`str`, *optional*): Who is in a picture: a key of its `.json`, or the suffix of its text file
            (`cls`, `txt`, ...).

    Raises:
        ValueError: If a file is no such tar file or holds no picture.
    """

    def __init__(self, paths: Sequence[Path], identity_column: str | None = None):
        names, identities, self.places = [], [], []
        for path in paths:
            pictures, known = _scan_tar(path, identity_column)
            prefix = f"{path.name}/" if len(paths) > 1 else ""
            names += [prefix + member.name for member in pictures]
            identities += [known.get(_sample_key(member.name)[0]) for member in pictures]
            self.places += [_Place(path, member.offset_data, member.size) for member in pictures]
        super().__init__(names, identities)

    def read(self, index: int) -> np.ndarray:
        """Decodes a picture, see `PhotoSource.read`."""
        place = self.places[index]
        with place.path.open("rb") as file:
            file.seek(place.offset)
            return load_photo(io.BytesIO(file.read(place.size)), self.names[index]).rgb


class HubPhotos(PhotoSource):
    """Pictures of a data set of the Hugging Face library `datasets`, named by the number of their row.

    Args:
        name (`str`): Hub id or local path, as `datasets.load_dataset` takes it.
        split (`str`): Which part of it.
        image_column (`str`): Where the pictures are.
        identity_column (`str`, *optional*): Who is in them.

    Raises:
        ValueError: If there is no such data set or column.
    """

    def __init__(
        self, name: str, split: str = "train", image_column: str = "image", identity_column: str | None = None
    ):
        try:
            rows = datasets.load_dataset(name, split=split)
        except OSError as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"cannot load the data set {name} ({reason}): check its name, or download it") from None
        for column in filter(None, (image_column, identity_column)):
            if column not in rows.column_names:
                raise ValueError(f"{name} has no column {column!r}: choose one of {', '.join(rows.column_names)}")
        if not isinstance(rows.features[image_column], datasets.Image):
            raise ValueError(f"column {image_column!r} of {name} holds no pictures: name another --image_column")
        identities = _column_identities(rows, identity_column) if identity_column else [None] * len(rows)
        super().__init__([f"{index:08}" for index in range(len(rows))], identities)
        self.pictures = rows.select_columns(image_column).cast_column(image_column, datasets.Image(decode=False))
        self.image_column = image_column

    def read(self, index: int) -> np.ndarray:
        """Decodes a picture, see `PhotoSource.read`."""
        picture = self.pictures[index][self.image_column]
        if picture is None:
            raise ValueError(f"row {index} has no picture")
        if picture["bytes"] is None:
            return load_photo(picture["path"]).rgb
        return load_photo(io.BytesIO(picture["bytes"]), self.names[index]).rgb


def open_folders(
    folders: Sequence[Path], layout: Layout = "auto", identity: IdentityRule = "auto", identity_csv: Path | None = None
) -> PhotoFiles:
    """Lists the photos below folders.

    Args:
        folders (`Sequence[Path]`): One, or several plain ones.
        layout (`str`): "folder" (photos anyhow), "celebamask-hq", "ffhq"; "auto" looks which it is.
        identity (`str`): "folder": named by the folder of the photo. "auto": named by a `manifest.csv` beside
            the photos (columns `file` and `identity`, or `seed` as of make_synthetic_faces.py), or CelebA's list.
            "none": unknown.
        identity_csv (`Path`, *optional*): A table of the columns `file` (relative to the table) and `identity` does.

    Raises:
        ValueError: If there are no photos, the layout is another, or the table does not fit.
    """
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"there is no folder {folder}: give folders of photos, or nothing but tar files (.tar)")
    if identity != "auto" and identity_csv:
        raise ValueError(f"got --identity {identity} and --identity_csv: choose one of them")
    layouts = {_layout_of(folder) if layout == "auto" else layout for folder in folders}
    if layouts == {"folder"}:
        return _open_plain_folders(folders, identity, identity_csv)
    if len(folders) > 1:
        raise ValueError(f"got {len(folders)} folders, one of them of CelebAMask-HQ or FFHQ: prepare that one alone")
    if identity == "folder":
        raise ValueError(f"the folders of {folders[0]} are no people: give --identity_csv, or --layout folder")
    photos = CelebAMaskHQ(folders[0]) if layouts == {"celebamask-hq"} else _open_ffhq(folders[0])
    if identity == "none":
        photos.identities = [None] * len(photos)
    if identity_csv:
        photos.identities = _identities_by_file(photos.paths, [identity_csv])
    return photos


def find_images(folders: Sequence[str | Path]) -> list[Path]:
    """Lists the pictures below some folders, sorted by path, so that an index always means the same picture.

    Args:
        folders (`Sequence[str | Path]`): Folders, searched with their subfolders.

    Raises:
        ValueError: If there is none.
    """
    paths = sorted(
        path for folder in folders for path in Path(folder).rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES
    )
    if not paths:
        where, suffixes = ", ".join(map(str, folders)), ", ".join(sorted(IMAGE_SUFFIXES))
        raise ValueError(f"no picture found in {where}: expected files ending in {suffixes}")
    return paths


def merge_part_masks(masks: dict[str, np.ndarray]) -> np.ndarray:
    """Lays part masks over one another in CelebAMask-HQ's order: later parts cover earlier ones.

    Args:
        masks (`dict[str, np.ndarray]`): (H, W) bool by part, a key of `CELEBAMASK_PARTS`; at least one.

    Returns:
        `np.ndarray`: (H, W) uint8, indices into `CELEBAMASK_LABELS`.
    """
    labels = np.zeros(next(iter(masks.values())).shape, np.uint8)
    for part, name in CELEBAMASK_PARTS.items():
        if part in masks:
            labels[masks[part]] = CELEBAMASK_LABELS.index(name)
    return labels


class _Place(NamedTuple):
    path: Path
    offset: int
    size: int


def _layout_of(folder: Path) -> Layout:
    if (folder / "CelebA-HQ-img").is_dir():
        return "celebamask-hq"
    if any((folder / name).is_dir() for name in FFHQ_FOLDERS):
        return "ffhq"
    return "folder"


def _open_plain_folders(folders: Sequence[Path], identity: IdentityRule, identity_csv: Path | None) -> PhotoFiles:
    paths, names = [], []
    for folder in folders:
        prefix = f"{folder.resolve().name}/" if len(folders) > 1 else ""
        found = find_images([folder])
        paths += found
        names += [prefix + path.relative_to(folder).as_posix() for path in found]
    if identity == "folder":
        identities: list[str | None] = [name.rpartition("/")[0] or None for name in names]
    elif identity == "none":
        identities = [None] * len(names)
    else:
        manifests = [path for folder in folders for path in sorted(folder.rglob("manifest.csv"))]
        identities = _identities_by_file(paths, [identity_csv] if identity_csv else manifests)
    if identity_csv and not any(identities):
        raise ValueError(f"{identity_csv} names none of the photos: its column file is relative to its own folder")
    return PhotoFiles(paths, names, identities)


def _open_ffhq(folder: Path) -> PhotoFiles:
    for name in FFHQ_FOLDERS:
        if (folder / name).is_dir():
            paths = find_images([folder / name])
            return PhotoFiles(paths, [path.stem for path in paths], [None] * len(paths), aligned=True)
    raise ValueError(f"no {' or '.join(FFHQ_FOLDERS)} in {folder}: that is not FFHQ's layout; try --layout folder")


def _identities_by_file(paths: list[Path], tables: Sequence[Path]) -> list[str | None]:
    """Who is in each photo, by tables; of two tables, equal names are two people."""
    known = {}
    for number, table in enumerate(tables):
        prefix = f"{number}/" if len(tables) > 1 else ""
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            column = next((name for name in ("identity", "seed") if name in (reader.fieldnames or ())), None)
            if column is None or "file" not in (reader.fieldnames or ()):
                raise ValueError(f"{table} has the columns {reader.fieldnames}: file and identity are needed")
            for row in reader:
                if row[column]:
                    known[os.path.abspath(table.parent / row["file"])] = prefix + row[column]
    return [known.get(os.path.abspath(path)) for path in paths]


def _celeba_identities(folder: Path) -> dict[str, str]:
    """Identity by the picture's number, as far as CelebA's two lists are there."""
    people, mapping = folder / "identity_CelebA.txt", folder / "CelebA-HQ-to-CelebA-mapping.txt"
    if not (people.exists() and mapping.exists()):
        return {}
    identity_of = dict(line.split() for line in people.read_text().splitlines() if line.strip())
    rows = (line.split() for line in mapping.read_text().splitlines()[1:] if line.strip())
    return {number: identity_of[file] for number, _, file in rows if file in identity_of}


def _scan_tar(path: Path, identity_column: str | None) -> tuple[list[tarfile.TarInfo], dict[str, str]]:
    """The members that are pictures, and the identity by sample key."""
    pictures, identities = [], {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in filter(tarfile.TarInfo.isreg, tar):
                key, suffix = _sample_key(member.name)
                if f".{suffix}" in IMAGE_SUFFIXES:
                    pictures.append(member)
                elif identity_column and suffix in ("json", identity_column):
                    content = tar.extractfile(member).read().decode()  # pyright: ignore[reportOptionalMemberAccess]
                    value = json.loads(content).get(identity_column) if suffix == "json" else content.strip()
                    if value not in (None, ""):
                        identities[key] = str(value)
    except (tarfile.TarError, OSError) as error:
        raise ValueError(f"cannot read {path} as a tar file without compression ({error})") from None
    except ValueError as error:
        raise ValueError(f"cannot read the identities in {path} ({error})") from None
    return pictures, identities


def _sample_key(member: str) -> tuple[str, str]:
    """Splits a member's name at the first point of its last part, as webdataset does; the suffix in lower case."""
    folder, slash, file = member.rpartition("/")
    stem, _, suffix = file.partition(".")
    return folder + slash + stem, suffix.lower()


def _column_identities(rows: datasets.Dataset, column: str) -> list[str | None]:
    feature = rows.features[column]
    named = feature.int2str if isinstance(feature, datasets.ClassLabel) else str
    return [None if value is None else str(named(value)) for value in rows[column]]
