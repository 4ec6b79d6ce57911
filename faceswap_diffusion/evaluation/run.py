"""Runs an evaluation: measures the pictures, makes and measures the swaps; in several processes, resumable."""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from PIL import Image
from tqdm.auto import tqdm

from faceswap_diffusion import __version__
from faceswap_diffusion.evaluation.ablation import CONDITIONS
from faceswap_diffusion.evaluation.description import Networks, measure_face
from faceswap_diffusion.evaluation.measurement import (
    add_face_distances,
    measure_swaps,
    peak_memory_megabytes,
    preview,
)
from faceswap_diffusion.evaluation.methods import CheckpointMethod, Method, Swap, WithoutCondition
from faceswap_diffusion.evaluation.occluded import add_occlusion_figures
from faceswap_diffusion.evaluation.protocol import PairSet
from faceswap_diffusion.evaluation.records import Records, claim_folder
from faceswap_diffusion.evaluation.summary import Photos
from faceswap_diffusion.faces.selection import NoFaceFoundError
from faceswap_diffusion.photos.loading import load_photo
from faceswap_diffusion.provenance.save import save_image


def slug(name: str) -> str:
    """A name reduced to letters, digits, dots, dashes and underscores, for a folder."""
    return re.sub(r"[^\w.-]+", "_", name)


def people_paths(pair_set: PairSet) -> list[Path]:
    """The pictures whose faces are measured, each once: sources, targets, gallery."""
    pictures = [path for pair in pair_set.pairs for path in (pair.source, pair.target)]
    return list(dict.fromkeys([*pictures, *pair_set.gallery]))


def photo_paths(pair_set: PairSet) -> list[Path]:
    """Every picture of a set, once: `people_paths`, then the other real pictures of the distribution."""
    return list(dict.fromkeys([*people_paths(pair_set), *pair_set.reference_pictures()]))


def pairs_digest(pair_set: PairSet) -> str:
    """Prefix of the SHA-256 over the file names and people of a set."""
    lines = [f"{pair.source.name} {pair.target.name} {pair.source_person}" for pair in pair_set.pairs]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Evaluation:
    """An evaluation: what is measured, with which networks, and where the records are.

    Args:
        folder (`Path`): Folder of the report.
        networks ([`Networks`]): Networks that measure.
        methods (`Sequence[Method]`): Methods that are compared.
        seeds (`Sequence[int]`): Seeds for every method that takes one.
        batch_size (`int`): Batch size of the feature networks.
        state (`PartialState`): This process among those that share the work.
        steps (`Sequence[int]`): Additional numbers of denoising steps at which checkpoints are measured, with the
            first seed.
    """

    folder: Path
    networks: Networks
    methods: Sequence[Method]
    seeds: Sequence[int]
    batch_size: int
    state: PartialState
    steps: Sequence[int] = ()

    @property
    def crop_size(self) -> int:
        """Side of the crop for `sharpness_crop`: the first checkpoint's, or 256 px without a checkpoint."""
        return next((method.facts["crop_size"] for method in self.methods if "crop_size" in method.facts), 256)

    def seeds_of(self, method: Method) -> Sequence[int]:
        """The seeds that a method is run with."""
        return self.seeds if method.uses_seed else self.seeds[:1]

    def stepped(self) -> dict[str, dict[int, CheckpointMethod]]:
        """Each checkpoint at each number of `steps`, by name."""
        checkpoints = [method for method in self.methods if isinstance(method, CheckpointMethod)]
        return {method.name: {count: method.at_steps(count) for count in self.steps} for method in checkpoints}

    def records(self, pair_set: PairSet, method: Method, seed: int) -> Records:
        """The records of a method's swaps."""
        return Records(self.folder / "records" / pair_set.name / slug(method.name) / f"seed_{seed}")

    def photos(self, pair_set: PairSet) -> Photos:
        """The records of a set's pictures."""
        indices = {path: index for index, path in enumerate(photo_paths(pair_set))}
        return Photos(Records(self.folder / "records" / pair_set.name / "photos"), indices)

    def picture(self, records: Records, index: int) -> Path:
        """Path of the small copy of a picture."""
        return self.folder / "pictures" / records.path(index).relative_to(self.folder / "records").with_suffix(".jpg")

    def measure(self, sets: Sequence[PairSet], ablate: int = 0) -> dict[str, list[Method]]:
        """Makes all missing records. All processes return at the same time.

        Args:
            sets (`Sequence[PairSet]`): The swaps.
            ablate (`int`): Number of pairs of each set on which each condition is removed in turn; 0 for none.

        Returns:
            `dict[str, list[Method]]`: For each set, the methods with a removed condition.
        """
        self._claim(sets, ablate)
        for pair_set in sets:
            self._describe_photos(pair_set)
        self.state.wait_for_everyone()
        for pair_set in sets:
            for method in self.methods:
                self._measure_method(pair_set, method, self.seeds_of(method))
        for pair_set in sets:
            for methods in self.stepped().values():
                for method in methods.values():
                    self._measure_method(pair_set, method, self.seeds[:1])
        self.state.wait_for_everyone()
        ablated = {pair_set.name: self._ablated_methods(pair_set) if ablate else [] for pair_set in sets}
        for pair_set in sets:
            for method in ablated[pair_set.name]:
                self._measure_method(pair_set, method, self.seeds[:1], ablate)
        self.state.wait_for_everyone()
        return ablated

    def _claim(self, sets: Sequence[PairSet], ablate: int) -> None:
        settings = {
            "faceswap-diffusion": __version__,
            "sets": {pair_set.name: [len(pair_set.pairs), pairs_digest(pair_set)] for pair_set in sets},
            "methods": {method.name: method.facts for method in self.methods},
            "networks": self.networks.names(),
            "seeds": list(self.seeds),
            "ablate": ablate,
            "steps": list(self.steps),
        }
        with self.state.main_process_first():
            claim_folder(self.folder, settings)

    def _mine(self, records: Records, count: int, label: str) -> Iterator[list[int]]:
        """Batches of this process's indices that have no record yet; the main process shows progress."""
        mine = range(self.state.process_index, count, self.state.num_processes)
        todo = [index for index in mine if not records.has(index)]
        starts = range(0, len(todo), self.batch_size)
        progress = tqdm(total=len(todo), desc=label, disable=not self.state.is_main_process, mininterval=2)
        with progress:
            for start in starts:
                batch = todo[start : start + self.batch_size]
                yield batch
                progress.update(len(batch))

    def _describe_photos(self, pair_set: PairSet) -> None:
        photos, paths = self.photos(pair_set), photo_paths(pair_set)
        with_face, compared = {*people_paths(pair_set)}, {*pair_set.reference_pictures()}
        for batch in self._mine(photos.records, len(paths), f"{pair_set.name}: pictures"):
            pixels = [load_photo(paths[index]).rgb for index in batch]
            records: list[dict[str, Any]] = [
                measure_face(self.networks, rgb) if paths[index] in with_face else {}
                for index, rgb in zip(batch, pixels, strict=True)
            ]
            rows = [row for row, index in enumerate(batch) if paths[index] in compared]
            for name, network in self.networks.feature_networks.items() if rows else ():
                for row, features in zip(rows, network([pixels[row] for row in rows]), strict=True):
                    records[row][name] = features
            for index, rgb, record in zip(batch, pixels, records, strict=True):
                if paths[index] in with_face:
                    self._save_preview(photos.records, index, rgb, generated=False)
                photos.records.write(index, record)

    def _measure_method(
        self, pair_set: PairSet, method: Method, seeds: Sequence[int], num_pairs: int | None = None
    ) -> None:
        photos, num_pairs = self.photos(pair_set), len(pair_set.pairs[:num_pairs])
        for seed in seeds:
            records = self.records(pair_set, method, seed)
            for batch in self._mine(records, num_pairs, f"{pair_set.name}: {method.name}, seed {seed}"):
                made = {
                    index: swap for index in batch if (swap := self._swap(method, pair_set, index, seed)) is not None
                }
                swaps, paths = list(made.values()), [pair_set.pairs[index].target for index in made]
                targets = [load_photo(path).rgb for path in paths]
                described = [photos.records.read(index) for index in photos.of(paths)]
                measured = measure_swaps(self.networks, swaps, targets, described, self.crop_size)
                add_occlusion_figures(measured, swaps, targets, [pair_set.pairs[index] for index in made])
                if pair_set.one_person:
                    add_face_distances(self.networks.lpips, measured, swaps, targets, described)
                for index, record in zip(made, measured, strict=True):
                    self._save_preview(records, index, made[index].rgb, method.generated)
                    records.write(index, record)
                for index in batch:
                    if index not in made:
                        records.write(index, {"detected": False, "peak_memory_mb": peak_memory_megabytes()})

    def _swap(self, method: Method, pair_set: PairSet, index: int, seed: int) -> Swap | None:
        """A swap, or `None` if a picture shows no face, which counts as a failure everywhere."""
        try:
            return method.swap(index, pair_set.pairs[index], seed, pair_set.settings)
        except NoFaceFoundError:
            return None

    def _save_preview(self, records: Records, index: int, rgb: np.ndarray, generated: bool) -> None:
        path = self.picture(records, index)
        path.parent.mkdir(parents=True, exist_ok=True)
        provenance = {"shows": "a small copy of a swap"} if generated else None
        save_image(Image.fromarray(preview(rgb)), path, provenance=provenance, quality=90)

    def _ablated_methods(self, pair_set: PairSet) -> list[Method]:
        """Each checkpoint without each condition; means are over all pairs of the set."""
        methods: list[Method] = []
        for method in self.methods:
            if isinstance(method, CheckpointMethod):
                records = self.records(pair_set, method, self.seeds[0])
                rows = condition_rows(records, len(pair_set.pairs))
                methods += [WithoutCondition(method, name, rows[name]) for name in CONDITIONS if rows[name]]
        return methods


def condition_rows(records: Records, count: int) -> dict[str, list[np.ndarray]]:
    """The conditioner's inputs for each pair, by condition."""
    rows: dict[str, list[np.ndarray]] = {name: [] for name in CONDITIONS}
    for chunk in records.chunks(range(count)):
        for record in chunk:
            for name in CONDITIONS:
                if (value := record.get(f"condition_{name}")) is not None:
                    rows[name].append(value)
    return rows


def check_pictures(sets: Sequence[PairSet], outputs: dict[Path, list[Path]]) -> None:
    """Reads every picture of every pair and every finished swap, before the work starts.

    Args:
        sets (`Sequence[PairSet]`): The pairs.
        outputs (`dict[Path, list[Path]]`): For each folder of finished swaps, one picture for each pair of the only
            set.

    Raises:
        ValueError: If pictures cannot be read, or a swap differs in size from its target; all problems are listed.
    """
    problems: list[str] = []
    wanted_paths = [path for pair_set in sets for path in people_paths(pair_set)]
    sizes = {path: _size(path, problems.append) for path in dict.fromkeys(wanted_paths)}
    for files in outputs.values():
        for pair, path in zip(sets[0].pairs, files, strict=True):
            size, wanted = _size(path, problems.append), sizes[pair.target]
            if size and wanted and size != wanted:
                problems.append(f"{path} has {size[0]} x {size[1]} pixels, its target {wanted[0]} x {wanted[1]}")
    if problems:
        raise ValueError(f"{len(problems)} pictures cannot be used: {'; '.join(problems)}")


def _size(path: Path, report: Callable[[str], None]) -> tuple[int, int] | None:
    try:
        height, width = load_photo(path).rgb.shape[:2]
    except ValueError as error:
        report(str(error))
        return None
    return width, height
