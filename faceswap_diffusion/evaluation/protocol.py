"""Pairs to swap: lists, published protocols, and sets of synthetic people."""

import csv
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import permutations, zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from faceswap_diffusion.photos.folders import is_picture, pictures_in

TURNED_YAW = 15.0
NUM_SYNTHETIC_PAIRS = 100
NUM_SELF_PAIRS = 100


@dataclass(frozen=True)
class KnownOcclusion:
    """What is in front of a target.

    Args:
        kind (`str`): What it is, or "nothing".
        covered (`Path`): Picture of the target's size, white where it hides the face.
        face (`Path`): Picture of the target's size, white where the face is, hidden or not.
    """

    kind: str
    covered: Path
    face: Path


@dataclass(frozen=True)
class Pair:
    """One swap: the person of `source` is put into `target`.

    Args:
        source, target (`Path`): The pictures.
        source_person, target_person (`int`): Indices of the people in the set's gallery, -1 if not in it. They are
            equal if both pictures show the same person; then the target is the ground truth.
        occlusion ([`KnownOcclusion`], *optional*): What is in front of the target, if that is known.
    """

    source: Path
    target: Path
    source_person: int
    target_person: int
    occlusion: KnownOcclusion | None = None


@dataclass(frozen=True)
class PairSet:
    """A named list of swaps.

    Args:
        name (`str`): Name of the set.
        pairs (`list[Pair]`): The swaps.
        gallery (`list[Path]`): One picture of every person, for identity retrieval.
        reference (`list[Path]`): Real pictures, with whose distribution the swaps are compared; the targets if empty.
        reference_name (`str`): Name of these pictures.
        settings (`dict[str, Any]`): `num_inference_steps` and `guidance_scale`, if the protocol prescribes them.
    """

    name: str
    pairs: list[Pair]
    gallery: list[Path]
    reference: list[Path] = field(default_factory=list)
    reference_name: str = "the targets"
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def one_person(self) -> bool:
        """Whether source and target of each pair show the same person, so that the ground truth is known."""
        return all(pair.source_person == pair.target_person for pair in self.pairs)

    def limited(self, count: int | None) -> "PairSet":
        """The same set with its first `count` pairs and the whole gallery; all pairs if `count` is `None`."""
        return replace(self, pairs=self.pairs[:count])

    def reference_pictures(self) -> list[Path]:
        """The real pictures, each once."""
        return self.reference or list(dict.fromkeys(pair.target for pair in self.pairs))


def _unpack(archive: tarfile.TarFile, folder: Path) -> None:
    """Unpacks the plain files of a tar file that stay within a folder; Python before 3.11.4 has no filter for it."""
    root = folder.resolve()
    for member in archive.getmembers():
        path, content = (root / member.name).resolve(), archive.extractfile(member) if member.isfile() else None
        if content is not None and path.is_relative_to(root):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.read())


@contextmanager
def opened_folder(path: Path) -> Iterator[Path]:
    """A folder or CSV file as it is, or a tar file, unpacked while the context is open.

    Raises:
        ValueError: If `path` is something else.
    """
    if path.is_dir() or (path.is_file() and path.suffix.lower() == ".csv"):
        yield path
        return
    if not path.is_file() or not tarfile.is_tarfile(path):
        raise ValueError(f"{path}: expected a folder or a tar file")
    with TemporaryDirectory() as folder:
        with tarfile.open(path) as archive:
            _unpack(archive, Path(folder))
        yield Path(folder)


def read_rows(path: Path, columns: set[str]) -> list[dict[str, str]]:
    """Rows of a CSV file.

    Raises:
        ValueError: If it is missing or empty, or lacks one of the `columns`.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing: it lists the pictures")
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    if not rows or not columns <= rows[0].keys():
        raise ValueError(f"{path}: expected the columns {sorted(columns)} and at least one row")
    return rows


def read_manifest(folder: Path, columns: set[str]) -> list[dict[str, str]]:
    """Rows of a folder's manifest.csv.

    Raises:
        ValueError: As `read_rows`, or if a picture does not exist.
    """
    path = folder / "manifest.csv"
    rows = read_rows(path, columns)
    absent = [row["file"] for row in rows if not (folder / row["file"]).is_file()]
    if absent:
        raise ValueError(f"{path} lists {len(absent)} pictures that do not exist; the first is {absent[0]}")
    return rows


def listed_pairs(path: Path) -> PairSet:
    """Pairs of a CSV file with the columns `source` and `target`, paths relative to the file.

    Each source counts as a different person; the gallery has all of them.

    Raises:
        ValueError: If pictures are missing or pairs are repeated; all problems are listed.
    """
    rows = [(row["source"], row["target"]) for row in read_rows(path, {"source", "target"})]
    problems = [f"line {line}: {name} is missing" for line, row in enumerate(rows, 2) for name in row
                if not (path.parent / name).is_file()]  # fmt: skip
    first_lines: dict[tuple[str, str], int] = {}
    for line, row in enumerate(rows, 2):
        first = first_lines.setdefault(row, line)
        if first != line:
            problems.append(f"line {line}: the same pair as line {first}")
    if problems:
        raise ValueError(f"{path} has {len(problems)} problems: {'; '.join(problems)}")
    return pairs_of_files(path.stem, [(path.parent / source, path.parent / target) for source, target in rows])


def pairs_of_files(name: str, files: Iterable[tuple[Path, Path]], **facts: Any) -> PairSet:
    """A set whose gallery is its sources, each a different person."""
    files = list(files)
    people = {path: index for index, path in enumerate(dict.fromkeys(source for source, _ in files))}
    pairs = [Pair(source, target, people[source], people.get(target, -1)) for source, target in files]
    return checked(PairSet(name, pairs, list(people), **facts))


def london_pairs(folder: Path) -> PairSet:
    """Pairs of the Face Research Lab London Set: the neutral person i is the source for the smiling person i + 1.

    People are ordered by identity; the last source goes with the first target. The gallery has the neutral picture of
    everyone.

    Args:
        folder (`Path`): Folder with manifest.csv, whose columns are `file`, `path` (`.../neutral_front/...` or
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
    """Pairs of synthetic people with two looks: look 0 of person i is the source for look 1 of person i + 1.

    Args:
        folder (`Path`): Folder written by `tools/make_synthetic_faces.py --looks 2`.
        count (`int`): Number of people, in the order of their seeds.
    """
    looks: dict[int, dict[int, Path]] = {}
    for row in read_manifest(folder, {"file", "seed", "look"}):
        looks.setdefault(int(row["seed"]), {})[int(row["look"])] = folder / row["file"]
    people = [looks[seed] for seed in sorted(looks) if {0, 1} <= looks[seed].keys()][:count]
    return ring_of_pairs("looks", [person[0] for person in people], [person[1] for person in people])


def turned_pairs(folder: Path, count: int = NUM_SYNTHETIC_PAIRS) -> PairSet:
    """Pairs of synthetic people with turned targets (|yaw| >= 15 degrees); the source is the next seed.

    The gallery has sources and targets, so a swap that still looks like the target retrieves the target's own photo.

    Args:
        folder (`Path`): Folder written by `tools/make_synthetic_faces.py`.
        count (`int`): Number of pairs, in the order of the target's seed.
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


def self_pairs(folder: Path, count: int = NUM_SELF_PAIRS) -> PairSet:
    """Pairs of two photos of the same person, in both orders: the target's pixels are the ground truth.

    Every person gives one pair, then every person a second one, and so on, so that any number of pairs shows as many
    people as possible. People start with different pairs. The gallery has the first photo of everyone.

    Args:
        folder (`Path`): Folder with manifest.csv, whose columns are `file` and `identity`, or `file` and `seed` as
            `tools/make_synthetic_faces.py --looks 2` writes it. Rows without an identity are ignored.
        count (`int`): Number of pairs.

    Raises:
        ValueError: If the manifest has neither column, or no person has two photos.
    """
    people = [photos for photos in photos_of_people(folder).values() if len(photos) > 1]
    pairs_of_people = []
    for person, photos in enumerate(people):
        pairs = [Pair(source, target, person, person) for source, target in permutations(photos, 2)]
        first = person % len(pairs)
        pairs_of_people.append(pairs[first:] + pairs[:first])
    rounds = [pair for of_round in zip_longest(*pairs_of_people) for pair in of_round if pair is not None]
    return checked(PairSet("self", rounds[:count], [photos[0] for photos in people]))


def photos_of_people(folder: Path) -> dict[str, list[Path]]:
    """The photos of each person, by the column `identity` or else `seed` of a folder's manifest."""
    rows = read_manifest(folder, {"file"})
    column = next((name for name in ("identity", "seed") if name in rows[0]), None)
    if column is None:
        raise ValueError(f"{folder / 'manifest.csv'}: expected a column 'identity' or 'seed'")
    photos: dict[str, list[Path]] = {}
    for row in rows:
        if row[column]:
            photos.setdefault(row[column], []).append(folder / row["file"])
    return photos


def reface_pairs(name: str, first_target: int, folder: Path) -> PairSet:
    """REFace's benchmark (arXiv 2409.07269, section 4): 1000 targets, and as sources the 1000 pictures after them.

    Guidance is 3, with 50 steps. The real pictures are the whole data set. Pictures are identified by the number in
    their names.

    Args:
        name (`str`): Name of the set.
        first_target (`int`): Number of the first target; the first source is 1000 later.
        folder (`Path`): Folder with all pictures of the data set, in any format.
    """
    pictures = {int(path.stem): path for path in pictures_in(folder) if path.stem.isdigit()}
    wanted = range(first_target, first_target + 2000)
    absent = [number for number in wanted if number not in pictures]
    if absent:
        raise ValueError(f"{folder}: {len(absent)} of the pictures {wanted[0]} to {wanted[-1]} are missing: "
                         f"{', '.join(map(str, absent))}")  # fmt: skip
    files = [(pictures[number + 1000], pictures[number]) for number in wanted[:1000]]
    reference = [pictures[number] for number in sorted(pictures)]
    settings = {"num_inference_steps": 50, "guidance_scale": 3.0}
    return pairs_of_files(name, files, reference=reference, reference_name="the whole data set", settings=settings)


def celebahq_pairs(folder: Path) -> PairSet:
    """REFace's CelebA-HQ list: targets 28000 to 28999, sources 29000 to 29999."""
    return reface_pairs("celebahq", 28000, folder)


def ffhq_pairs(folder: Path) -> PairSet:
    """REFace's FFHQ list: targets 68000 to 68999, sources 69000 to 69999."""
    return reface_pairs("ffhq", 68000, folder)


def casia_pairs(folder: Path) -> PairSet:
    """The CASIA benchmark's format: each line of pairs.txt is the file name of a swap, `{source}-{target}.png`.

    Args:
        folder (`Path`): Folder with pairs.txt (the benchmark's lists have 45,000, 12,000 and 43,000 names) and, at any
            depth, the pictures.

    Raises:
        ValueError: If the list is missing, or names are repeated or cannot be split into two pictures; all such names
            are listed.
    """
    path = folder / "pairs.txt"
    if not path.is_file():
        raise ValueError(f"{path} is missing: it has a line SOURCE-TARGET.png for each swap")
    names = path.read_text(encoding="utf-8").split()
    pictures = {found.stem: found for found in sorted(folder.rglob("*")) if is_picture(found)}
    splits = {name: split_name(Path(name).stem, pictures.keys()) for name in names}
    problems = [f"{name}: there are no two such pictures" for name, split in splits.items() if split is None]
    problems += [f"{name} is repeated {count} times" for name, count in Counter(names).items() if count > 1]
    if problems:
        raise ValueError(f"{path} has {len(problems)} problems: {'; '.join(problems)}")
    return pairs_of_files("casia", [(pictures[split[0]], pictures[split[1]]) for split in splits.values() if split])


def split_name(stem: str, known: Container[str]) -> tuple[str, str] | None:
    """Splits `{source}-{target}` at the dash that gives two known names; `None` if there is none."""
    for dash in re.finditer("-", stem):
        source, target = stem[: dash.start()], stem[dash.end() :]
        if source in known and target in known:
            return source, target
    return None


def ring_of_pairs(name: str, sources: list[Path], targets: list[Path]) -> PairSet:
    """Pairs of source i and target i + 1, the last source with the first target. The gallery is the sources."""
    following = [(person + 1) % len(sources) for person in range(len(sources))]
    pairs = [Pair(sources[i], targets[j], i, j) for i, j in enumerate(following) if i != j]
    return checked(PairSet(name, pairs, sources))


def checked(pairs: PairSet) -> PairSet:
    """The set itself; raises `ValueError` if it has no pairs."""
    if not pairs.pairs:
        raise ValueError(f"the set {pairs.name!r} has no pairs: its folder has too few suitable pictures")
    return pairs


PROTOCOLS: dict[str, Callable[[Path], PairSet]] = {
    "london": london_pairs,
    "turned": turned_pairs,
    "looks": look_pairs,
    "self": self_pairs,
    "celebahq": celebahq_pairs,
    "ffhq": ffhq_pairs,
    "casia": casia_pairs,
}


def match_outputs(folder: Path, pair_set: PairSet) -> list[Path]:
    """Finds the finished swap of each pair, by the name `{source}-{target}` or else by natural order.

    Args:
        folder (`Path`): Folder with one picture for each pair.
        pair_set ([`PairSet`]): The pairs.

    Returns:
        `list[Path]`: In the order of the pairs.

    Raises:
        ValueError: If names are missing, which are listed, or the numbers of pictures and pairs differ.
    """
    found = pictures_in(folder)
    by_name = {path.stem: path for path in found}
    names = [f"{pair.source.stem}-{pair.target.stem}" for pair in pair_set.pairs]
    absent = [name for name in names if name not in by_name]
    if not absent:
        return [by_name[name] for name in names]
    if len(absent) < len(names):
        raise ValueError(f"{folder} lacks {len(absent)} of {len(names)} swaps: {', '.join(absent)}")
    if len(found) != len(names):
        raise ValueError(f"{folder} has {len(found)} pictures, but the set {pair_set.name!r} has {len(names)} pairs")
    return found
