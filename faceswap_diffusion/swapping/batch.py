"""Works off a list of jobs: whatever one of them comes to, the others are done."""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from io import BytesIO
from typing import Any

from faceswap_diffusion.photos.loading import load_photo
from faceswap_diffusion.provenance.save import FORMATS, check_output, replace_file
from faceswap_diffusion.swapping.job_folder import JobFolder, key_of
from faceswap_diffusion.swapping.jobs import IDENTITY_SUFFIX, Job
from faceswap_diffusion.swapping.source_identity import SourceIdentity
from faceswap_diffusion.swapping.swapper import FaceSwapper

SOURCES_KEPT = 16  # identities in memory, some ten megabytes each; jobs of one source are mostly neighbours
PAUSE = 0.5  # seconds between looks at what other processes do
MANIFEST_INTERVAL = 5.0  # seconds between manifests while the work goes on

Tell = Callable[[str], None]


class Batch:
    """Jobs that this process works on, perhaps with others.

    Args:
        folder ([`JobFolder`]): Of the results, begun.
        jobs (`Sequence[Job]`): All jobs, checked.
        rank (`int`): Of this process among `num_processes`; each begins at another place of the list.
        num_processes (`int`): Number of processes that were started together.
    """

    def __init__(self, folder: JobFolder, jobs: Sequence[Job], rank: int = 0, num_processes: int = 1):
        self.folder = folder
        self.jobs = jobs
        start = len(jobs) * rank // num_processes
        self.order = [*jobs[start:], *jobs[:start]]
        self.before = folder.attempts()
        self._manifest_due = time.monotonic() + MANIFEST_INTERVAL

    def run(self, load: Callable[[], FaceSwapper], tell: Tell, progress: Callable[[], None]) -> None:
        """Works until every job has ended, here or in another process.

        Jobs that failed before are tried once more. Those at which a process died come last, so that one that kills
        its process does so when the others are done.

        Args:
            load (`Callable`): Loads the swapper; called when there is work.
            tell (`Callable`): Called with a line for each warning and failure.
            progress (`Callable`): Called after each job, and while others are waited for.
        """
        try:
            with self.folder.working():
                self._work(load, tell, progress)
        finally:
            self.folder.write_manifest(self.jobs)

    def _work(self, load: Callable[[], FaceSwapper], tell: Tell, progress: Callable[[], None]) -> None:
        maker, worked = None, True
        while True:
            todo, waiting = self._open()
            if not todo and not waiting:
                return
            if not worked:  # others are at all of it
                time.sleep(PAUSE)
            if todo and maker is None:
                maker = JobMaker(load(), self.folder)
            worked = False
            for job, number in todo:
                if self.folder.claim(job, number):
                    assert maker is not None  # there was something to do
                    maker.do(job, number, tell)
                    worked = True
                    progress()
                    self._keep_manifest()
            progress()

    def _open(self) -> tuple[list[tuple[Job, int]], int]:
        """Jobs to do, each with the number of the attempt, and how many others are being done elsewhere."""
        attempts, fresh, again, waiting = self.folder.attempts(), [], [], 0
        for job in self.order:
            attempt = attempts.get(key_of(job))
            if attempt is None:
                fresh.append((job, 0))
            elif attempt.status == "failed":
                if self.before.get(key_of(job)) == attempt:
                    again.append((job, attempt.number + 1))
            elif not self.folder.is_done(job, attempt):
                if self.folder.is_abandoned(job, attempt):
                    again.append((job, attempt.number + 1))
                else:
                    waiting += 1
        return fresh + sorted(again, key=lambda pair: pair[1]), waiting

    def _keep_manifest(self) -> None:
        if time.monotonic() >= self._manifest_due:
            self.folder.write_manifest(self.jobs)
            self._manifest_due = time.monotonic() + MANIFEST_INTERVAL


class JobMaker:
    """Makes swaps, and records what came of them.

    Args:
        swapper ([`FaceSwapper`]): Swaps.
        folder ([`JobFolder`]): Of the results.
    """

    def __init__(self, swapper: FaceSwapper, folder: JobFolder):
        self.swapper = swapper
        self.folder = folder
        self._identities: OrderedDict[tuple, tuple[SourceIdentity | ValueError, list[str]]] = OrderedDict()

    def do(self, job: Job, number: int, tell: Tell) -> None:
        """Makes one swap that was claimed. Nothing that is wrong with it is raised.

        The record comes before the picture, which appears whole: a job whose picture is there is done.
        """
        path, started, content = self.folder.folder / job.output, time.perf_counter(), b""
        record: dict[str, Any] = {"output": job.output, "status": "failed"}
        with collected_warnings() as warnings:
            try:
                report, content = self.make(job, warnings)
                path.unlink(missing_ok=True)  # what was there is not to be taken for the result if all ends here
                record |= {**report, "status": "done"}
            except Exception as error:  # whatever it is, the other jobs are not to suffer
                record["error"] = _describe(error)
        record |= {
            "warnings": warnings,
            "total_seconds": round(time.perf_counter() - started, 3),
            "ended": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "worker": self.folder.worker,
            "attempt": number,
            "job": job.described(self.folder.folder),
        }
        self.folder.write_record(job, number, record)
        if record["status"] == "done":
            try:
                replace_file(path, content)
            except ValueError as error:
                record |= {"status": "failed", "error": str(error)}
                self.folder.correct_record(job, number, record)
        for text in warnings:
            tell(f"{job.output}: warning: {text}")
        if record["status"] == "failed":
            tell(f"{job.output}: failed: {record['error']}")

    def make(self, job: Job, warnings: list[str]) -> tuple[dict[str, Any], bytes]:
        """Makes a swap.

        Args:
            job ([`Job`]): Which.
            warnings (`list[str]`): Those that its source gave when it was encoded are added.

        Returns:
            `tuple[dict[str, Any], bytes]`: What a record tells of it, and the file.

        Raises:
            ValueError: As `FaceSwapper.swap`, and if the picture cannot be written as the job says.
        """
        path, started = self.folder.folder / job.output, time.perf_counter()
        path.parent.mkdir(parents=True, exist_ok=True)
        target = load_photo(job.target)
        check_output(path, size=target.size, has_alpha=target.is_transparent)
        encoding = time.perf_counter()
        identity = self.identity(job, warnings)
        swapping = time.perf_counter()
        result = self.swapper.swap(
            identity, target, target_face=job.target_face, mask_image=job.mask, **asdict(job.options)
        )
        saving, file = time.perf_counter(), BytesIO()
        result.save(file, FORMATS[path.suffix.lower()])
        seconds = {**result.seconds, "load": encoding - started, "encode": swapping - encoding}
        seconds["save"] = time.perf_counter() - saving
        report = {
            "seconds": {stage: round(value, 3) for stage, value in seconds.items()},
            "faces": len(result.faces),
            "swapped": result.swapped,
            "covered": [round(share, 3) for share in result.covered],
            "provenance": result.provenance,
        }
        return report, file.getvalue()

    def identity(self, job: Job, warnings: list[str]) -> SourceIdentity:
        """Who a job's source is, encoded once for jobs that share it.

        Raises:
            ValueError: If its photos cannot be used; the same for each job.
        """
        key = (job.sources, job.source_face, job.options.region)
        if key not in self._identities:
            with collected_warnings() as found:
                self._identities[key] = self._encode(job), found
            if len(self._identities) > SOURCES_KEPT:
                self._identities.popitem(last=False)
        self._identities.move_to_end(key)
        encoded, found = self._identities[key]
        warnings += found
        if isinstance(encoded, ValueError):
            raise encoded
        return encoded

    def _encode(self, job: Job) -> SourceIdentity | ValueError:
        try:
            if job.sources[0].endswith(IDENTITY_SUFFIX):
                return SourceIdentity.load(job.sources[0])
            return self.swapper.encode_source(job.sources, job.source_face, job.options.region)
        except ValueError as error:
            return error


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """What the package warns of meanwhile, in place of being printed."""
    ours, found = logging.getLogger("faceswap_diffusion"), []
    handler = logging.Handler()
    handler.emit = lambda record: found.append(record.getMessage())
    before = ours.level, ours.propagate, ours.handlers
    ours.handlers, ours.propagate = [handler], False
    ours.setLevel(logging.WARNING)
    try:
        yield found
    finally:
        ours.setLevel(before[0])
        ours.propagate, ours.handlers = before[1:]


def _describe(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, ValueError | OSError) else f"{text} ({type(error).__name__})"
