"""What the demo takes, and for how long it is kept. The command line asks it for defaults, so it imports late."""

import io
import os
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from faceswap_diffusion.photos.loading import Photo


@dataclass(frozen=True)
class Limits:
    """Bounds of the demo.

    Args:
        megabytes (`float`): Of one uploaded file.
        megapixels (`float`): Of one photo, or of one frame of a video.
        seconds (`float`): Length of a video.
        photos (`int`): Photos of the source.
        waiting (`int`): Swaps that wait while one is made.
        minutes (`float`): For which uploads and results are kept.
    """

    megabytes: float = 50
    megapixels: float = 24
    seconds: float = 30
    photos: int = 8
    waiting: int = 8
    minutes: float = 10

    def load(self, path: str) -> "Photo":
        """Reads an uploaded photo, whose pixels are decoded only if they are not too many.

        Args:
            path (`str`): The file. The photo is called by its name without folders.

        Raises:
            ValueError: If it cannot be read, or has more pixels than `megapixels`.
        """
        from faceswap_diffusion.photos.loading import load_photo

        return load_photo(self.read(path), Path(path).name)

    def read(self, path: str) -> io.BytesIO:
        """Reads the file of an uploaded photo of not too many pixels.

        Args:
            path (`str`): The file.

        Raises:
            ValueError: If it is no picture, has more pixels than `megapixels`, or was deleted by now.
        """
        from faceswap_diffusion.photos.loading import measure_photo

        name = Path(path).name
        try:
            file = io.BytesIO(Path(path).read_bytes())
        except FileNotFoundError:
            raise ValueError(
                f"{name} was kept for {self.minutes:g} minutes, which are over: upload it again"
            ) from None
        self.check_pixels(measure_photo(file, name), name)
        file.seek(0)
        return file

    def check_pixels(self, size: tuple[int, int], name: str) -> None:
        """Checks width and height in pixels of a picture called `name`.

        Raises:
            ValueError: If they are too large.
        """
        megapixels = size[0] * size[1] / 1e6
        if megapixels > self.megapixels:
            raise ValueError(
                f"{name} has {megapixels:.1f} megapixels, and this demo takes {self.megapixels:g}: "
                "make it smaller first"
            )

    def check_length(self, seconds: float | None, name: str) -> None:
        """Checks the length of a video called `name`; `None` if it does not tell.

        Raises:
            ValueError: If it is too long, or unknown.
        """
        if seconds is None or seconds > self.seconds:
            found = "does not tell how long it is" if seconds is None else f"is {seconds:.1f} s long"
            raise ValueError(f"{name} {found}, and this demo takes {self.seconds:g} s: cut it first")


class Storage:
    """A folder for uploads and results. Files that are older than a while are deleted, and at the end all of it.

    Args:
        minutes (`float`): How long files are kept.
    """

    def __init__(self, minutes: float):
        self.seconds = minutes * 60
        self._folder = tempfile.TemporaryDirectory(prefix="faceswap-demo-", ignore_cleanup_errors=True)
        self._ended = threading.Event()

    @property
    def path(self) -> Path:
        """The folder."""
        return Path(self._folder.name)

    def __enter__(self) -> "Storage":
        """Makes it the folder in which Gradio keeps uploads, and begins to delete what is old."""
        os.environ["GRADIO_TEMP_DIR"] = str(self.path)
        threading.Thread(target=self._sweep_regularly, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Deletes everything."""
        self._ended.set()
        self._folder.cleanup()

    def new_folder(self) -> Path:
        """A new folder for the files of one swap."""
        return Path(tempfile.mkdtemp(prefix="swap-", dir=self.path))

    def sweep(self) -> None:
        """Deletes files that were not changed for longer than they are kept."""
        now = time.time()
        for path in self.path.rglob("*"):
            try:
                if not path.is_dir() and now - path.lstat().st_ctime > self.seconds:
                    path.unlink()
            except FileNotFoundError:  # its swap has deleted it itself
                continue

    def _sweep_regularly(self) -> None:
        while not self._ended.wait(min(self.seconds / 4, 30)):
            self.sweep()
