"""Aggregates records on disk to the figures of a method on a set, for any number of pairs and processes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from faceswap_diffusion.evaluation.comparison import PairRecords, compare
from faceswap_diffusion.evaluation.protocol import PairSet
from faceswap_diffusion.evaluation.records import ROWS_AT_ONCE, Records, stack_on_disk
from faceswap_diffusion.metrics.frechet import Gaussian, fit_gaussian, frechet_distance, kernel_distance
from faceswap_diffusion.metrics.statistics import Figure, figure_of, spread

FRECHET_NAMES = {"inception": "fid", "clip": "clip_fd"}
Values = dict[str, np.ndarray]  # (seeds, pairs) for each metric


@dataclass(frozen=True)
class Photos:
    """The records of a set's pictures.

    Args:
        records ([`Records`]): The records.
        indices (`dict[Path, int]`): Index of the record of each picture.
    """

    records: Records
    indices: dict[Path, int]

    def of(self, paths: Sequence[Path]) -> list[int]:
        """The indices of some pictures."""
        return [self.indices[path] for path in paths]


class SetSummary:
    """Aggregates the methods of one set. It is a context manager, because it keeps features in a temporary folder.

    Args:
        pair_set ([`PairSet`]): The set.
        photos ([`Photos`]): Records of the set's pictures.
        recognizers (`Sequence[str]`): Names of the recognisers that were used.
        feature_networks (`Sequence[str]`): Names of the feature networks that were used.
    """

    def __init__(self, pair_set: PairSet, photos: Photos, recognizers: Sequence[str], feature_networks: Sequence[str]):
        self.pair_set, self.photos, self.feature_networks = pair_set, photos, feature_networks
        self.recognizers = [name for recognizer in recognizers for name in (recognizer, f"{recognizer}_masked")]
        self._folder = TemporaryDirectory()

    def __enter__(self) -> "SetSummary":
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Removes the temporary folder."""
        self._folder.cleanup()

    @cached_property
    def galleries(self) -> dict[str, np.ndarray]:
        """Gallery (M, D) of each recogniser, on disk; without recognisers that found no face in it."""
        indices = self.photos.of(self.pair_set.gallery)
        stacks = {name: stack_on_disk(self.photos.records, indices, name, self._file()) for name in self.recognizers}
        return {name: rows for name, rows in stacks.items() if rows is not None}

    @cached_property
    def reference_features(self) -> dict[str, np.ndarray]:
        """Features (M, D) of the set's real pictures for each feature network, on disk."""
        indices = self.photos.of(self.pair_set.reference_pictures())
        stacks = {
            name: stack_on_disk(self.photos.records, indices, name, self._file()) for name in self.feature_networks
        }
        return {name: rows for name, rows in stacks.items() if rows is not None}

    @cached_property
    def reference_gaussians(self) -> dict[str, Gaussian]:
        """The distributions of the real pictures' features."""
        return {name: fit_gaussian(rows) for name, rows in self.reference_features.items()}

    def covered_shares(self) -> np.ndarray:
        """The share of the face that is covered, (N, 2), in the source's and target's picture of each pair."""
        pairs = self.pair_set.pairs
        indices = self.photos.of([path for pair in pairs for path in (pair.source, pair.target)])
        shares = [self.photos.records.read(index).get("covered", np.nan) for index in indices]
        return np.array(shares, float).reshape(len(pairs), 2)

    def values(self, records_of_seeds: Sequence[Records], count: int | None = None) -> Values:
        """Every metric of every pair, in blocks of pairs.

        Args:
            records_of_seeds (`Sequence[Records]`): Swaps of a method for each seed.
            count (`int`, *optional*): Use only the first `count` pairs.
        """
        pairs = self.pair_set.pairs[:count]
        rows = [self._values_of_seed(records, pairs) for records in records_of_seeds]
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def _values_of_seed(self, records: Records, pairs: Sequence) -> dict[str, np.ndarray]:
        blocks = []
        for start in range(0, len(pairs), ROWS_AT_ONCE):
            block = pairs[start : start + ROWS_AT_ONCE]
            block_records = PairRecords(
                [records.read(index) for index in range(start, start + len(block))],
                [self.photos.records.read(index) for index in self.photos.of([pair.source for pair in block])],
                [self.photos.records.read(index) for index in self.photos.of([pair.target for pair in block])],
            )
            people = np.array([[pair.source_person, pair.target_person] for pair in block])
            blocks.append((compare(block_records, self.galleries, people), len(block)))
        names = dict.fromkeys(name for block, _ in blocks for name in block)
        return {
            name: np.concatenate([block.get(name, np.full(size, np.nan)) for block, size in blocks]) for name in names
        }

    def figures(self, values: Values) -> dict[str, Figure]:
        """Means with intervals; the median of seconds, and the maximum of memory."""
        figures = {"pairs": Figure(next(iter(values.values())).shape[1])}
        for name, rows in values.items():
            if name == "peak_memory_mb":
                figures[name] = Figure(float(np.max(rows)), count=rows.size)
            else:
                figures[name] = figure_of(rows, np.median if name == "seconds" else np.mean)
        return figures

    def distribution_figures(self, records_of_seeds: Sequence[Records]) -> dict[str, Figure]:
        """FID, KID and CLIP-FD between a method's swaps and the real pictures, averaged over seeds."""
        figures = {}
        indices = range(len(self.pair_set.pairs))
        for network, reference in self.reference_features.items():
            distances, kernel_distances, count = [], [], 0
            for records in records_of_seeds:
                rows = stack_on_disk(records, indices, network, self._file())
                made = [] if rows is None else np.flatnonzero(~np.isnan(rows[:, 0]))
                if rows is None or min(len(made), len(reference)) < 2:
                    continue
                rows = rows if len(made) == len(rows) else rows[made]
                count += len(rows)
                distances.append(frechet_distance(fit_gaussian(rows), self.reference_gaussians[network]))
                if network == "inception":
                    kernel_distances.append(kernel_distance(rows, reference))
            named = {FRECHET_NAMES[network]: distances, "kid": kernel_distances}
            for name, of_seeds in named.items():
                if of_seeds:
                    figures[name] = Figure(float(np.mean(of_seeds)), count=count, seed_spread=spread(of_seeds))
        return figures

    def _file(self) -> Path:
        return Path(self._folder.name, f"{len(list(Path(self._folder.name).iterdir()))}.npy")
