"""What a folder of results remembers of its jobs: settings, claims of processes that work on it, records.

Several processes share a folder, on one machine or several. A job is claimed by making a file that must not be there
yet; the claim of a process that has died is answered by the next one, `attempt` + 1, so that nothing is ever taken
away under the feet of another process. Each process holds a lock, which the system releases however it ends, and
touches a file every few seconds, which is what other machines go by.
"""

import json
import multiprocessing
import os
import platform
import secrets
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from faceswap_diffusion.swapping.jobs import Job
from faceswap_diffusion.writing import UNFINISHED, remove_left_overs, write_text

WORK_FOLDER = ".faceswap-jobs"
MANIFEST = "manifest.jsonl"

BEAT = 2.0  # seconds between signs of life
SILENCE = 60.0  # seconds without one after which a process of another machine is taken for dead

Status = Literal["claimed", "done", "failed"]


@dataclass(frozen=True)
class Attempt:
    """The last attempt at a job.

    Args:
        number (`int`): Counted from 0.
        status (`str`): "claimed", "done" or "failed".
    """

    number: int
    status: Status


def key_of(job: Job) -> str:
    """What a job is called in the folder: it is known by its output."""
    return sha256(job.output.encode()).hexdigest()[:20]


class JobFolder:
    """A folder of results and what it remembers.

    Args:
        folder (`Path`): Of the results; it is made by `begin`.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.work = folder / WORK_FOLDER
        self.claims, self.records, self.workers = (self.work / name for name in ("claims", "records", "workers"))
        self.worker = f"{platform.node()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._read: dict[str, dict[str, Any]] = {}

    @property
    def exists(self) -> bool:
        """Whether work on it has begun."""
        return (self.work / "settings.json").is_file()

    def check(self, settings: dict[str, Any], jobs: Sequence[Job]) -> None:
        """Checks that it was begun with these settings, and that what is done was done as the jobs say.

        Raises:
            ValueError: Naming what has changed.
        """
        if not self.exists:
            return
        begun = json.loads((self.work / "settings.json").read_text(encoding="utf-8"))
        changed = _differences(begun, settings)
        if changed:
            raise ValueError(f"{self.folder} was begun with other settings ({changed}): {KEEP}")
        attempts = self.attempts()
        for job in jobs:
            attempt = attempts.get(key_of(job))
            if attempt is not None and self.is_done(job, attempt):
                made = self.record(job, attempt)["job"]
                if changed := _differences(made, json.loads(json.dumps(job.described(self.folder)))):
                    raise ValueError(f"{self.folder / job.output} was made with other settings ({changed}): {KEEP}")

    def begin(self, settings: dict[str, Any], jobs: Sequence[Job]) -> None:
        """Makes the folder, or goes on with it, see `check`."""
        for folder in (self.claims, self.records, self.workers):
            folder.mkdir(parents=True, exist_ok=True)
        with self._lock():
            self.check(settings, jobs)
            if not self.exists:
                write_text(self.work / "settings.json", json.dumps(settings, indent=2) + "\n")
            if not any(map(self.is_alive, {path.stem for path in self.workers.iterdir()})):
                for folder in {self.work, self.records, *((self.folder / job.output).parent for job in jobs)}:
                    remove_left_overs(folder)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Shows other processes that this one is alive, until the block or the process ends.

        A process that was started by another one ends with that.
        """
        ended, beat = threading.Event(), self.workers / f"{self.worker}.beat"
        beat.touch()
        lock = FileLock(self.workers / f"{self.worker}.lock")
        with lock:
            thread = threading.Thread(target=self._show_life, args=(beat, ended), daemon=True)
            thread.start()
            try:
                yield
            finally:
                ended.set()
                thread.join()
        for path in (beat, Path(lock.lock_file)):
            path.unlink(missing_ok=True)

    def _show_life(self, beat: Path, ended: threading.Event) -> None:
        parent = multiprocessing.parent_process()
        while not ended.wait(BEAT):
            if parent is not None and not parent.is_alive():
                os._exit(1)
            beat.touch()

    def is_alive(self, worker: str) -> bool:
        """Whether a process still works here: on this machine by its lock, elsewhere by its signs of life."""
        if worker == self.worker:
            return True
        beat, lock = (self.workers / f"{worker}.{kind}" for kind in ("beat", "lock"))
        if worker.rsplit("-", 2)[0] != platform.node():
            return self._seconds_since(beat) < SILENCE
        if not lock.is_file():
            return False
        try:
            with FileLock(lock, timeout=0):
                return False
        except Timeout:
            return True

    def _seconds_since(self, path: Path) -> float:
        """Age of a file by the clock of its disk, which all machines share; infinite if it is not there."""
        now = self.workers / f"{self.worker}.now"
        now.touch()
        try:
            return now.stat().st_mtime - path.stat().st_mtime
        except FileNotFoundError:
            return float("inf")
        finally:
            now.unlink(missing_ok=True)

    def attempts(self) -> dict[str, Attempt]:
        """The last attempt at each job that was ever claimed, by `key_of`."""
        last: dict[str, Attempt] = {}
        if not self.exists:
            return last
        claimed, recorded = os.listdir(self.claims), os.listdir(self.records)  # in this order: a record comes later
        for name in claimed:
            key, _, number = name.partition(".")
            if key not in last or int(number) > last[key].number:
                last[key] = Attempt(int(number), "claimed")
        for name in recorded:
            if name.startswith(UNFINISHED):  # another process is about to write it
                continue
            key, number, status, *_ = name.split(".")
            if status in ("done", "failed") and key in last and int(number) == last[key].number:
                last[key] = Attempt(int(number), status)
        return last

    def is_abandoned(self, job: Job, attempt: Attempt) -> bool:
        """Whether the process that claimed a job has left it: by its death, without a record or without a picture."""
        path = self.claims / f"{key_of(job)}.{attempt.number}"
        worker = path.read_text(encoding="utf-8")
        # Without a name it died before it could write it, or is about to.
        silent = not worker and self._seconds_since(path) >= SILENCE
        left = silent or worker == self.worker or bool(worker and not self.is_alive(worker))
        # Looked at last: a record may have come since the attempts were listed, but not since a process has died.
        return left and not self._has_ended(job, attempt.number)

    def _has_ended(self, job: Job, number: int) -> bool:
        failed, done = (self.records / f"{key_of(job)}.{number}.{status}.json" for status in ("failed", "done"))
        return failed.is_file() or (done.is_file() and (self.folder / job.output).is_file())

    def claim(self, job: Job, number: int) -> bool:
        """Claims a job for this process; `False` if another one was faster."""
        try:
            claim = os.open(self.claims / f"{key_of(job)}.{number}", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            return False
        with os.fdopen(claim, "w", encoding="utf-8") as file:
            file.write(self.worker)
        return True

    def write_record(self, job: Job, number: int, record: dict[str, Any]) -> None:
        """Records how an attempt ended: "status" is "done" or "failed"."""
        path = self.records / f"{key_of(job)}.{number}.{record['status']}.json"
        write_text(path, json.dumps(record) + "\n")

    def correct_record(self, job: Job, number: int, record: dict[str, Any]) -> None:
        """Records that an attempt failed after all: its picture could not be put in its place."""
        (self.records / f"{key_of(job)}.{number}.done.json").unlink()
        self.write_record(job, number, record)

    def is_done(self, job: Job, attempt: Attempt | None) -> bool:
        """Whether the last attempt at a job succeeded, and its picture is still there."""
        return attempt is not None and attempt.status == "done" and (self.folder / job.output).is_file()

    def record(self, job: Job, attempt: Attempt) -> dict[str, Any]:
        """The record of an attempt that has ended."""
        name = f"{key_of(job)}.{attempt.number}.{attempt.status}.json"
        if name not in self._read:
            self._read[name] = json.loads((self.records / name).read_text(encoding="utf-8"))
        return self._read[name]

    def ended(self, jobs: Iterable[Job]) -> list[dict[str, Any]]:
        """The records of all jobs that have ended, in the order of the jobs."""
        attempts = self.attempts()
        found = [(job, attempts.get(key_of(job))) for job in jobs]
        ended = [(job, last) for job, last in found if last and (last.status == "failed" or self.is_done(job, last))]
        return [self.record(job, last) for job, last in ended]

    def write_manifest(self, jobs: Sequence[Job]) -> None:
        """Writes `MANIFEST`: a line of JSON for each job that has ended."""
        with self._lock():
            lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in self.ended(jobs)]
            write_text(self.folder / MANIFEST, "".join(lines))

    def _lock(self) -> FileLock:
        return FileLock(self.work / "lock")


KEEP = "go on with those, or choose another output folder"


def _differences(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Names what differs, with both values; "" if nothing does."""
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return ", ".join(f"{name} {before.get(name)!r}, now {after.get(name)!r}" for name in changed)
