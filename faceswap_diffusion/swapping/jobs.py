"""Lists of swaps to make: read from a CSV file, or made of two folders, and checked before any work."""

import csv
import math
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from faceswap_diffusion.masks.regions import REGIONS
from faceswap_diffusion.photos.folders import is_picture, natural_key, pictures_in
from faceswap_diffusion.provenance.save import FORMATS
from faceswap_diffusion.swapping.options import SwapOptions

SEPARATOR = "|"
"""Between several photos of one person in a cell of a CSV file: no path on Windows has it, and few elsewhere."""

IDENTITY_SUFFIX = ".safetensors"


class JobsError(ValueError):
    """Something is wrong with a list of jobs.

    Args:
        where (`str`): What to call the list.
        problems (`list[str]`): All that is wrong, a line each.
    """

    def __init__(self, where: str, problems: list[str]):
        self.where = where
        self.problems = problems
        super().__init__(f"{counted(len(problems), 'problem')} in {where}: {'; '.join(problems)}")


@dataclass(frozen=True)
class Job:
    """One swap to make.

    Args:
        sources (`tuple[str, ...]`): Photos of one person, or the .safetensors file of an identity.
        target (`str`): The photo to change.
        output (`str`): Where to write the result, relative to the folder of all results, with "/" between folders.
        source_face (`str | int`): As for [`FaceSwapper.swap`].
        target_face (`str | int`): "largest", "all", an index, or the path of a photo.
        mask (`str`, *optional*): Path of a mask in place of the region.
        options ([`SwapOptions`]): How to swap.
        where (`str`): What to call the job in messages about the list.
    """

    sources: tuple[str, ...]
    target: str
    output: str = ""
    source_face: str | int = "largest"
    target_face: str | int = "largest"
    mask: str | None = None
    options: SwapOptions = field(default_factory=SwapOptions)
    where: str = field(default="", compare=False)

    @property
    def inputs(self) -> list[str]:
        """All files that it reads."""
        photo = [str(self.target_face)] if names_a_photo(self.target_face) else []
        return [*self.sources, self.target, *photo, *([self.mask] if self.mask else [])]

    def described(self, folder: Path) -> dict[str, Any]:
        """What it is, JSON-serialisable; paths are relative to `folder`, the one of all results."""
        return {
            "output": self.output,
            "sources": [relative(path, folder) for path in self.sources],
            "target": relative(self.target, folder),
            "source_face": self.source_face,
            "target_face": relative(str(self.target_face), folder)
            if names_a_photo(self.target_face)
            else self.target_face,
            "mask": self.mask and relative(self.mask, folder),
            **asdict(self.options),
        }


def counted(count: int, noun: str) -> str:
    """A number with its noun in the right form."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def relative(path: str, folder: Path) -> str:
    """A path as seen from a folder; as it is where there is no way between them, as between Windows' drives."""
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:
        return path


def names_a_photo(face: str | int) -> bool:
    """Whether the choice of a face is neither an index nor a word."""
    return isinstance(face, str) and face not in ("largest", "all")


def _whole(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _share(text: str) -> float:
    number = float(text)
    if not 0 < number <= 1:
        raise ValueError
    return number


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError
    return number


def _region(text: str) -> str:
    if text not in REGIONS:
        raise ValueError
    return text


def _face(text: str) -> str | int:
    return int(text) if text.lstrip("-").isdigit() else text


OPTION_COLUMNS: dict[str, tuple[str, Callable[[str], Any], str]] = {
    "region": ("region", _region, f"one of {', '.join(REGIONS)}"),
    "seed": ("seed", int, "a whole number"),
    "steps": ("num_inference_steps", _whole, "a whole number of at least 1"),
    "guidance": ("guidance_scale", _finite, "a number"),
    "strength": ("strength", _share, "a number above 0, up to 1"),
    "consent": ("consent", str, "a text"),
}
"""Columns that set a [`SwapOptions`] of their row: its field, how the cell is read, what is wanted."""

COLUMNS = ("source", "target", "output", "source_face", "target_face", "mask", *OPTION_COLUMNS)


def read_jobs(path: Path, defaults: Job, suffix: str) -> list[Job]:
    """Reads jobs from a CSV file in UTF-8 with the columns `source` and `target`, and any others of `COLUMNS`.

    Args:
        path (`Path`): Paths in it are relative to its own folder.
        defaults ([`Job`]): Holds for cells that are empty, and for columns that are not there.
        suffix (`str`): Of outputs that the file does not name: SOURCE-TARGET and this.

    Raises:
        JobsError: For columns and cells that cannot be meant; all are named.
        ValueError: If it cannot be read.
    """
    rows, problems, jobs = _read_rows(path), [], []
    for line, row in rows:
        where = f"line {line}"
        job = _job_of_row(row, path.parent, replace(defaults, where=where), problems)
        if job is not None:
            jobs.append(job)
    problems += duplicates(jobs)
    if problems:
        raise JobsError(str(path), problems)
    return name_outputs(jobs, suffix)


def _read_rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Rows with their line numbers."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True, restval="")
            _check_columns(path, reader.fieldnames or [])
            rows = [(reader.line_num, row) for row in reader]
    except FileNotFoundError:
        raise ValueError(f"cannot read {path}: there is no such file; check the path") from None
    except UnicodeDecodeError:
        raise ValueError(f"cannot read {path}: it is not in UTF-8; save it as CSV UTF-8") from None
    except csv.Error as error:
        raise ValueError(f"cannot read {path}: it is no CSV file ({error}); save it as CSV UTF-8") from None
    if not rows:
        raise ValueError(f"{path} has no rows: write a line for each swap under {', '.join(COLUMNS[:2])}")
    return rows


def _check_columns(path: Path, names: Sequence[str]) -> None:
    problems = [f"there is no column {name!r}" for name in COLUMNS[:2] if name not in names]
    problems += [
        f"column {name!r} is unknown; choose from {', '.join(COLUMNS)}" for name in names if name not in COLUMNS
    ]
    problems += [f"column {name!r} is there {count} times" for name, count in Counter(names).items() if count > 1]
    if problems:
        raise JobsError(str(path), problems)


def _job_of_row(row: dict[Any, Any], folder: Path, defaults: Job, problems: list[str]) -> Job | None:
    """The job of a row; `None` if a source or target is missing. What is wrong is added to `problems`."""
    where = defaults.where
    if None in row:
        problems.append(f"{where} has more cells than there are columns")
    cells = {name: cell.strip() for name, cell in row.items() if name is not None and cell.strip()}
    sources = [part.strip() for part in cells.get("source", "").split(SEPARATOR) if part.strip()]
    problems += [f"{where} has no {name}" for name in COLUMNS[:2] if name not in cells]
    if not sources or "target" not in cells:
        return None
    return replace(
        defaults,
        sources=tuple(str(folder / source) for source in sources),
        target=str(folder / cells["target"]),
        output=PurePosixPath(cells["output"]).as_posix() if "output" in cells else "",
        mask=str(folder / cells["mask"]) if "mask" in cells else None,
        options=replace(defaults.options, **_options_of(cells, where, problems)),
        **_faces_of(cells, folder, where, problems),
    )


def _options_of(cells: Mapping[str, str], where: str, problems: list[str]) -> dict[str, Any]:
    options = {}
    for name, (option, read, wanted) in OPTION_COLUMNS.items():
        if name in cells:
            try:
                options[option] = read(cells[name])
            except ValueError:
                problems.append(f"{where} has {name} {cells[name]!r}; {wanted} is needed")
    return options


def _faces_of(cells: Mapping[str, str], folder: Path, where: str, problems: list[str]) -> dict[str, Any]:
    faces = {name: _face(cells[name]) for name in ("source_face", "target_face") if name in cells}
    if isinstance(which := faces.get("source_face", 0), str) and which != "largest":
        problems.append(f"{where} has source_face {which!r}; 'largest' or an index is needed")
    if names_a_photo(which := faces.get("target_face", 0)):
        faces["target_face"] = str(folder / str(which))
    return faces


def duplicates(jobs: Sequence[Job]) -> list[str]:
    """Says which jobs are the same as one before, or write to the place of one before."""
    problems, same, places = [], {}, {}
    for job in jobs:
        first = same.setdefault(replace(job, output=""), job)
        if first is not job:
            problems.append(f"{job.where} is the same swap as {first.where}")
            continue
        taken = places.setdefault(_place(job.output), job) if job.output else job
        if taken is not job:
            problems.append(f"{job.where} writes to {job.output}, as does {taken.where}")
    return problems


def _place(output: str) -> str:
    """What two outputs share if they are one file somewhere: case and composed letters do not count everywhere."""
    return unicodedata.normalize("NFC", PurePosixPath(output).as_posix()).casefold()


def name_outputs(jobs: Sequence[Job], suffix: str, names: Sequence[str] | None = None) -> list[Job]:
    """Names outputs that have no name: SOURCE-TARGET, with a number where that is taken.

    Args:
        jobs (`Sequence[Job]`): The jobs.
        suffix (`str`): Of the names.
        names (`Sequence[str]`, *optional*): Of the person of each job; its first source if left out.
    """
    taken, named = {_place(job.output) for job in jobs if job.output}, []
    people = names or [Path(job.sources[0]).stem for job in jobs]
    for job, person in zip(jobs, people, strict=True):
        output = job.output or _free_name(f"{person}-{Path(job.target).stem}", suffix, taken)
        taken.add(_place(output))
        named.append(replace(job, output=output))
    return named


def _free_name(stem: str, suffix: str, taken: set[str]) -> str:
    name, number = f"{stem}{suffix}", 2
    while _place(name) in taken:
        name, number = f"{stem}-{number}{suffix}", number + 1
    return name


def folder_jobs(sources: Path, targets: Path, every_with_every: bool, defaults: Job, suffix: str) -> list[Job]:
    """Makes jobs of two folders.

    Args:
        sources (`Path`): Each picture and each .safetensors file is a person, and so is each folder of pictures.
        targets (`Path`): Pictures.
        every_with_every (`bool`): Whether each person goes into each target. If not, the first person goes into the
            first target and so on, in the order of their names, or the only person into all.
        defaults ([`Job`]): Holds for all.
        suffix (`str`): Of the outputs, SOURCE-TARGET.

    Raises:
        ValueError: If a folder is missing or empty, or people and targets cannot be paired.
    """
    people, pictures = people_in(sources), [str(path) for path in pictures_in(targets)]
    if every_with_every or len(people) == 1:
        pairs = [(name, photos, target) for name, photos in people for target in pictures]
    elif len(people) == len(pictures):
        pairs = [(name, photos, target) for (name, photos), target in zip(people, pictures, strict=True)]
    else:
        raise ValueError(
            f"{sources} has {counted(len(people), 'source')} and {targets} {counted(len(pictures), 'target')}: "
            "they cannot be paired; pass --every-with-every, or list pairs in a CSV file"
        )
    jobs = [replace(defaults, sources=photos, target=target) for _, photos, target in pairs]
    named = name_outputs(jobs, suffix, [name for name, _, _ in pairs])
    return [replace(job, where=job.output) for job in named]


def people_in(folder: Path) -> list[tuple[str, tuple[str, ...]]]:
    """The people in a folder of sources, each with name and photos, in natural order."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such folder")
    people = []
    for path in sorted(folder.iterdir(), key=natural_key):
        if path.is_dir() and any(map(is_picture, path.iterdir())):
            people.append((path.name, tuple(map(str, pictures_in(path)))))
        elif path.is_file() and (is_picture(path) or path.suffix == IDENTITY_SUFFIX):
            people.append((path.stem, (str(path),)))
    if not people:
        raise ValueError(f"{folder} has no pictures, folders of pictures or {IDENTITY_SUFFIX} files")
    return people


def check_jobs(jobs: Sequence[Job], folder: Path, where: str, may_replace: Callable[[Job], bool]) -> None:
    """Checks, before any work, whether jobs can be done.

    Args:
        jobs (`Sequence[Job]`): Those that are not done yet.
        folder (`Path`): Of the results; it need not be there.
        where (`str`): What to call the list of jobs.
        may_replace (`Callable`): Whether a job may replace the file that is in its place.

    Raises:
        JobsError: Naming everything that is wrong: missing files, and outputs that cannot or may not be written.
    """
    problems = [*_missing_inputs(jobs)]
    inputs = {os.path.realpath(path): path for job in jobs for path in job.inputs}
    parents = {str(parent) for job in jobs for parent in PurePosixPath(job.output).parents}
    for job in jobs:
        problem = output_problem(job.output, folder)
        if problem is None and os.path.realpath(folder / job.output) in inputs:
            problem = "which is an input: choose another name"
        elif problem is None and job.output in parents:
            problem = "which is the folder of another output"
        elif problem is None and os.path.lexists(folder / job.output) and not may_replace(job):
            problem = "which exists and was not made here: choose another name or folder, or pass --overwrite"
        if problem:
            problems.append(f"{job.where} writes to {job.output}, {problem}")
    if problems:
        raise JobsError(where, problems)


def _missing_inputs(jobs: Sequence[Job]) -> Iterator[str]:
    """Says which files are missing, each once."""
    wanted: dict[str, list[str]] = {}
    for job in jobs:
        for path in job.inputs:
            wanted.setdefault(path, []).append(job.where)
    for path, lines in wanted.items():
        if not os.path.isfile(path):
            others = f" and {counted(len(lines) - 1, 'other')}" if len(lines) > 1 else ""
            yield f"{lines[0]}{others}: there is no file {path}"


def output_problem(output: str, folder: Path) -> str | None:
    r"""Says why an output cannot be written below a folder, `None` if it can.

    Neither the name nor links in the folder may lead out of it, however the name is read: "..\x" as well.
    """
    for parts in (PurePosixPath(output), PureWindowsPath(output)):
        if parts.anchor or ".." in parts.parts:
            return "which may lie outside the output folder: write a path below it, without '..'"
    if any(part.startswith(".") for part in PurePosixPath(output).parts):
        return "which begins with a dot: choose another name"
    if Path(output).suffix.lower() not in FORMATS:
        return f"which is of an unknown kind: end the name in {', '.join(FORMATS)}"
    try:
        inside = Path(os.path.realpath(folder / output)).is_relative_to(os.path.realpath(folder))
        os.stat(folder / output)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:  # too long, below a file, a NUL in it
        return f"which cannot be written ({getattr(error, 'strerror', None) or error}): choose another name"
    return None if inside else "which a link leads out of the output folder: choose another name"
