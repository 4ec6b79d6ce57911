"""Which faces are swapped with which: the London set and the sets drawn from synthetic people."""

import csv
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

TURNED_YAW = 15.0
NUM_SYNTHETIC_PAIRS = 100


@dataclass(frozen=True)
class Pair:
    """One swap: the person of `source` is put into `target`.

    Args:
        source, target (`Path`): Pictures.
        source_person, target_person (`int`): Indices of the two people in the set's gallery.
    """

    source: Path
    target: Path
    source_person: int
    target_person: int


@dataclass(frozen=True)
class PairSet:
    """A named list of swaps, and one picture of every person among whom the swaps are looked up."""

    name: str
    pairs: list[Pair]
    gallery: list[Path]

    def limited(self, count: int | None) -> "PairSet":
        """The same set with its first `count` pairs and the whole gallery; all pairs if `count` is `None`."""
        return replace(self, pairs=self.pairs[:count])


@contextmanager
def opened_folder(path: Path) -> Iterator[Path]:
    """A folder as it is, or a tar file unpacked for as long as the context lasts.

    Raises:
        ValueError: If `path` is neither.
    """
    if path.is_dir():
        yield path
        return
    if not path.is_file() or not tarfile.is_tarfile(path):
        raise ValueError(f"{path}: expected a folder with manifest.csv, or a tar file of one")
    with TemporaryDirectory() as folder:
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")
        yield Path(folder)


def read_manifest(folder: Path, columns: set[str]) -> list[dict[str, str]]:
    """Rows of a folder's manifest.csv.

    Raises:
        ValueError: If it is missing, lacks one of the `columns`, or names a picture that does not exist.
    """
    path = folder / "manifest.csv"
    if not path.is_file():
        raise ValueError(f"{path} is missing: it says who is on which picture")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or not columns <= rows[0].keys():
        raise ValueError(f"{path}: expected the columns {sorted(columns)}, and rows below them")
    absent = [row["file"] for row in rows if not (folder / row["file"]).is_file()]
    if absent:
        raise ValueError(f"{path} names {len(absent)} pictures that are not there, the first is {absent[0]}")
    return rows


def london_pairs(folder: Path) -> PairSet:
    """Pairs of the Face Research Lab London Set: neutral person i becomes the source of smiling person i + 1.

    People are taken in the order of their identity; the last one's target is the first one's picture. The gallery is
    everybody's neutral picture.

    Args:
        folder (`Path`): With manifest.csv, whose columns are `file`, `path` (`.../neutral_front/...` or
            `.../smiling_front/...`) and `identity`.
    """
    rows = read_manifest(folder, {"file", "path", "identity"})
    expressions: dict[str, dict[str, Path]] = {"neutral_front": {}, "smiling_front": {}}
    for row in rows:
        expression = Path(row["path"]).parent.name
        if expression in expressions:
            expressions[expression][row["identity"]] = folder / row["file"]
    neutral, smiling = expressions["neutral_front"], expressions["smiling_front"]
    people = sorted(neutral.keys() & smiling.keys())
    return ring_of_pairs("london", [neutral[person] for person in people], [smiling[person] for person in people])


def look_pairs(folder: Path, count: int = NUM_SYNTHETIC_PAIRS) -> PairSet:
    """Pairs of synthetic people with two looks: look 0 of person i becomes the source of look 1 of person i + 1.

    Args:
        folder (`Path`): As `train/make_synthetic_faces.py --looks 2` writes it.
        count (`int`): People, in the order of their seeds.
    """
    looks: dict[int, dict[int, Path]] = {}
    for row in read_manifest(folder, {"file", "seed", "look"}):
        looks.setdefault(int(row["seed"]), {})[int(row["look"])] = folder / row["file"]
    people = [looks[seed] for seed in sorted(looks) if {0, 1} <= looks[seed].keys()][:count]
    return ring_of_pairs("looks", [person[0] for person in people], [person[1] for person in people])


def turned_pairs(folder: Path, count: int = NUM_SYNTHETIC_PAIRS) -> PairSet:
    """Pairs of synthetic people whose target turns its head by |yaw| >= 15 degrees; the source is the next seed.

    The gallery holds sources and targets: a swap that is still the target finds the very photo that it was made from.

    Args:
        folder (`Path`): As `train/make_synthetic_faces.py` writes it.
        count (`int`): Pairs, in the order of the target's seed.
    """
    rows = [row for row in read_manifest(folder, {"file", "seed", "look", "yaw"}) if row["look"] == "0"]
    rows.sort(key=lambda row: int(row["seed"]))
    turned = [index for index, row in enumerate(rows) if abs(float(row["yaw"])) >= TURNED_YAW][:count]
    sources = [(index + 1) % len(rows) for index in turned]
    shown = sorted({*turned, *sources})
    paths = [folder / row["file"] for row in rows]
    pairs = [
        Pair(paths[source], paths[target], shown.index(source), shown.index(target))
        for source, target in zip(sources, turned, strict=True)
    ]
    return checked(PairSet("turned", pairs, [paths[index] for index in shown]))


def ring_of_pairs(name: str, sources: list[Path], targets: list[Path]) -> PairSet:
    """Source i with target i + 1, the last with the first; the sources are the gallery."""
    following = [(person + 1) % len(sources) for person in range(len(sources))]
    pairs = [Pair(sources[i], targets[j], i, j) for i, j in enumerate(following) if i != j]
    return checked(PairSet(name, pairs, sources))


def checked(pairs: PairSet) -> PairSet:
    """The set itself; a `ValueError` if it has no pair."""
    if not pairs.pairs:
        raise ValueError(f"the set {pairs.name!r} has no pair: its folder holds too few pictures of the wanted kind")
    return pairs
