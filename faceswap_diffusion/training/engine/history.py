"""What became of a run, step by step: in a file, as curves, and in trackers."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from faceswap_diffusion.provenance.save import save_image
from faceswap_diffusion.writing import whole_file

PANEL_HEIGHT = 3.6  # inches
PANELS: dict[str, tuple[str, ...]] = {
    "discriminator": ("adversarial", "discriminator"),
    "learning rate": ("learning_rate",),
    "gradient norm": ("grad_norm",),
    "identity (cosine)": ("cosine_to_source", "cosine_to_target"),
    "share of the swaps": ("closer_to_source", "detected"),
    "head pose error (degrees)": ("pose_error",),
    "images / s": ("images_per_second",),
    "time spent on data (share of a step)": ("data_share",),
}
"""Panels of the curves and the columns they show, as far as there are any. All others are losses, in a panel first."""

Row = dict[str, float]


class StepTable:
    """Numbers by step in a CSV file: a line whenever some become known, columns in the order of their first value.

    Args:
        path (`Path`): The file; goes on with what is in it.
    """

    def __init__(self, path: Path):
        self.path = path
        self._columns = _columns(self.rows())

    def rows(self) -> list[Row]:
        """The lines: `step` and the values that became known in it."""
        if not self.path.exists():
            return []
        text = self.path.read_text(encoding="utf-8-sig")
        whole = text[: text.rfind("\n") + 1]  # a run may have been killed while it wrote the last line
        return [
            {name: float(value) for name, value in row.items() if value} for row in csv.DictReader(io.StringIO(whole))
        ]

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a line.

        Args:
            step (`int`): Steps taken so far.
            values (`Mapping[str, float]`): By name; new names become new columns.
        """
        row = {"step": step, **values}
        if set(row) <= set(self._columns) and self.path.exists():
            with self.path.open("a", newline="") as file:
                self._writer(file).writerow(_texts(row))
        else:
            self._rewrite([*self.rows(), row])

    def truncate(self, step: int) -> None:
        """Drops the lines after a step."""
        rows = [row for row in self.rows() if row["step"] <= step]
        if rows:
            self._rewrite(rows)
        else:
            self.path.unlink(missing_ok=True)
            self._columns = []

    def _writer(self, file: io.TextIOBase) -> csv.DictWriter:
        return csv.DictWriter(file, self._columns, lineterminator="\n")

    def _rewrite(self, rows: Sequence[Row]) -> None:
        self._columns = _columns(rows)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(self.path) as unfinished, unfinished.open("w", newline="") as file:
            writer = self._writer(file)
            writer.writeheader()
            writer.writerows(map(_texts, rows))


class History:
    """The numbers of a run, for its main process: `history.csv`, and `speed.csv` beside it.

    A run that was stopped and went on has the same `history.csv`, to the byte, as one that was not; the speed of each
    step is in a file of its own, as it is never the same.

    Args:
        folder (`Path`): Of the run.
    """

    def __init__(self, folder: Path):
        self.values, self.speed = (StepTable(Path(folder) / name) for name in ("history.csv", "speed.csv"))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Adds losses, learning rate or validation values.

        Args:
            step (`int`): Steps taken so far.
            values (`Mapping[str, float]`): By name; not all are known in every step.
        """
        self.values.add(step, values)

    def add_speed(self, step: int, values: Mapping[str, float]) -> None:
        """Adds `images_per_second` and `data_share`."""
        self.speed.add(step, values)

    def last(self) -> Row:
        """The newest value of everything."""
        newest: Row = {}
        for row in self.values.rows():
            newest |= row
        return newest

    def truncate(self, step: int) -> None:
        """Drops everything after a step: a run that goes on from it takes the steps after it again."""
        self.values.truncate(step)
        self.speed.truncate(step)

    def plot(self, path: Path) -> Image.Image:
        """Draws curves of everything.

        Args:
            path (`Path`): The PNG file to write.

        Returns:
            `PIL.Image.Image`: The same picture.
        """
        picture = draw_curves([*self.values.rows(), *self.speed.rows()])
        save_image(picture, path, provenance=None)
        return picture


def draw_curves(rows: Sequence[Row]) -> Image.Image:
    """Draws a panel for each kind of number (see `PANELS`), with thin lines of values and thick ones of their mean.

    Args:
        rows (`Sequence[Row]`): As `StepTable.rows` returns them.
    """
    columns = [name for name in _columns(rows) if name != "step"]
    in_panels = {name for names in PANELS.values() for name in names}
    panels = {"losses": [name for name in columns if name not in in_panels]}
    panels |= {title: [name for name in names if name in columns] for title, names in PANELS.items()}
    panels = {title: names for title, names in panels.items() if names}
    height = -(-len(panels) // 2)
    figure = Figure(figsize=(13, PANEL_HEIGHT * height), dpi=100)
    # By hand, as the layouts of matplotlib draw all texts several times before.
    edge = 0.45 / (PANEL_HEIGHT * height)
    figure.subplots_adjust(left=0.07, right=0.985, bottom=edge * 1.1, top=1 - edge * 0.8, wspace=0.14, hspace=0.36)
    canvas = FigureCanvasAgg(figure)
    for position, (title, names) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(height, 2, position)
        positive = True
        for name in names:
            steps, values = np.array([(row["step"], row[name]) for row in rows if name in row]).T
            positive &= bool((values > 0).all())
            (line,) = axes.plot(
                steps, _running_mean(values), label=name, linewidth=1.6, marker="." if len(steps) < 20 else ""
            )
            axes.plot(steps, values, color=line.get_color(), linewidth=0.6, alpha=0.35)
        if title == "losses" and positive:
            axes.set_yscale("log")
        axes.set_title(title, y=1.02)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        if len(names) > 1:
            axes.legend(fontsize="small")
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def check_tracker(name: str) -> None:
    """Checks before a run that a tracker is installed: accelerate would go on without it.

    Args:
        name (`str`): `"tensorboard"`, `"wandb"`, `"trackio"` or `"none"`.

    Raises:
        ValueError: If it is not installed.
    """
    if name not in ("none", *map(str, get_available_trackers())):
        raise ValueError(f"--report_to {name} needs the package: pip install {name}, or use --report_to none")


def log_pictures(accelerator: Accelerator, step: int, pictures: Mapping[str, Image.Image]) -> None:
    """Gives pictures to the trackers of a run that take any: tensorboard, wandb and trackio.

    Args:
        accelerator (`Accelerator`): With initialised trackers, or none.
        step (`int`): Steps taken so far.
        pictures (`Mapping[str, PIL.Image.Image]`): By name.
    """
    for tracker in accelerator.trackers:
        if tracker.name == "tensorboard":
            batches = {name: np.asarray(picture)[None] for name, picture in pictures.items()}
            tracker.log_images(batches, step=step, dataformats="NHWC")
        elif tracker.name == "wandb":
            tracker.log_images({name: [picture] for name, picture in pictures.items()}, step=step)
        elif tracker.name == "trackio":
            import trackio  # pyright: ignore[reportMissingImports]

            tracker.log({name: trackio.Image(picture) for name, picture in pictures.items()}, step=step)


def _columns(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _texts(row: Row) -> dict[str, str]:
    """All digits: a run that goes on adds to what it reads here."""
    return {name: str(int(value)) if name == "step" else repr(float(value)) for name, value in row.items()}


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Mean over each value and those around it, a fiftieth of all."""
    width = 1 + 2 * (len(values) // 100)
    weights = np.ones(width)
    return np.convolve(values, weights, "same") / np.convolve(np.ones(len(values)), weights, "same")
