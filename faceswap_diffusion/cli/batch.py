"""`faceswap-diffusion batch`: many swaps, in several processes if wanted, which go on after any stop."""

import argparse
import hashlib
import json
import os
import signal
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faceswap_diffusion import __version__
from faceswap_diffusion.cli.loading import (
    add_checkpoint_options,
    add_face_score,
    find_faces,
    import_diffusers,
    load_swapper,
    tell_loading,
)
from faceswap_diffusion.cli.options import PROG, RESPONSIBLE_USE, add_signing_options, set_loudness, tell
from faceswap_diffusion.cli.swap_options import add_choices, add_painting_options, add_target_face, swap_settings
from faceswap_diffusion.console import say
from faceswap_diffusion.evaluation.command import positive

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from tqdm import tqdm

    from faceswap_diffusion.swapping.job_folder import JobFolder
    from faceswap_diffusion.swapping.jobs import Job
    from faceswap_diffusion.swapping.swapper import FaceSwapper

EXAMPLES = """examples:
  the swaps that a CSV file lists, with the columns source and target, others if wanted (seed, region, output ...):
    faceswap-diffusion batch --pairs jobs.csv -o results
  each photo in one folder onto its counterpart in another, in the order of their names; each onto each:
    faceswap-diffusion batch --sources people --targets photos -o results
    faceswap-diffusion batch --sources people --targets photos --every-with-every -o results
  what that would do; then in two processes (the same command goes on after a stop):
    faceswap-diffusion batch --pairs jobs.csv -o results --dry-run
    faceswap-diffusion batch --pairs jobs.csv -o results --processes 2
"""
SUMMARY = "make many swaps, and go on after any stop"
DESCRIPTION = "\n".join(
    [
        textwrap.fill(
            "Make many swaps. Networks and sources are loaded once. Results and manifest.jsonl, a line of JSON for "
            "each swap, are in OUT_DIR; the same command goes on with what is missing or failed. Several processes "
            "may share OUT_DIR: --processes, the command started again on this or another machine, or "
            "accelerate launch -m faceswap_diffusion batch ...",
            79,
        ),
        textwrap.fill(RESPONSIBLE_USE, 79),
    ]
)
FORMATS = ("png", "jpg", "webp", "tif", "avif", "bmp")
POLL = 0.5  # seconds between looks at what the processes have done


def add_arguments(batch: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    group = batch.add_argument_group("which swaps")
    add = group.add_argument
    add("--pairs", type=Path, metavar="CSV",
        help="columns source and target, optionally output, region, seed, steps, guidance, strength, source_face, "
        "target_face, mask, consent; paths relative to the file; photos of one source separated by |")  # fmt: skip
    add("--sources", type=Path, metavar="DIR",
        help="photos of who to become; a folder in it holds photos of one person")  # fmt: skip
    add("--targets", type=Path, metavar="DIR", help="photos to change")
    add("--every-with-every", action="store_true", help="put each source into each target")
    group = batch.add_argument_group("where to, and how")
    add = group.add_argument
    add("-o", "--output", required=True, type=Path, metavar="OUT_DIR", help="folder of the results")
    add("--format", choices=FORMATS, default="png",
        help="of results that the CSV does not name (default: png)")  # fmt: skip
    add("--overwrite", action="store_true", help="replace files in OUT_DIR that are not of this batch")
    add("--dry-run", action="store_true", help="check everything, and list what would be done")
    add("--processes", type=positive, default=1, metavar="N",
        help="share the work among N processes, and what cores or GPUs there are (default: 1)")  # fmt: skip
    add_target_face(add_choices(batch))
    add_painting_options(batch)
    add_face_score(batch)
    add_checkpoint_options(batch)
    add_signing_options(batch)
    batch.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Makes the swaps; 1 if any failed."""
    from faceswap_diffusion.swapping.job_folder import JobFolder
    from faceswap_diffusion.swapping.jobs import JobsError

    started = time.perf_counter()
    try:
        jobs = list_jobs(args)
        folder, settings = JobFolder(args.output), settings_of(args)
        check(args, folder, settings, jobs)
        if args.dry_run:
            return show_plan(args, folder, jobs)
        folder.begin(settings, jobs)
    except JobsError as error:
        for problem in error.problems:
            say(f"{PROG}: error: {error.where}: {problem}", error=True)
        return 2
    done_before = sum(record["status"] == "done" for record in folder.ended(jobs))
    if done_before < len(jobs) and not share_work(args, folder, jobs):
        return 2
    return report(args, folder, jobs, done_before, time.perf_counter() - started)


def share_work(args: argparse.Namespace, folder: "JobFolder", jobs: "list[Job]") -> bool:
    """Does what is to be done, in as many processes as were asked for; `False` if they could not begin."""
    if args.processes > 1:
        tell_loading(args)
        return work_in_processes(args, folder, jobs)
    rank, num_processes = (int(os.environ.get(name, usual)) for name, usual in (("RANK", 0), ("WORLD_SIZE", 1)))
    if rank == 0:
        tell_loading(args)
    with progress_bar(args, folder, jobs, shown=rank == 0) as bar:
        work(args, folder, jobs, bar, rank, num_processes)
    return True


def list_jobs(args: argparse.Namespace) -> "list[Job]":
    """The jobs that the options ask for.

    Raises:
        ValueError: If they do not say which, or a list or folder cannot be used.
    """
    from faceswap_diffusion.swapping.jobs import Job, folder_jobs, read_jobs
    from faceswap_diffusion.swapping.options import SwapOptions

    if bool(args.pairs) == bool(args.sources or args.targets) or bool(args.sources) != bool(args.targets):
        raise ValueError("which swaps? give --pairs CSV, or --sources DIR and --targets DIR")
    if args.pairs and args.every_with_every:
        raise ValueError("--every-with-every is for --sources and --targets: a CSV file says what goes with what")
    options = SwapOptions(**swap_settings(args))
    defaults = Job((), "", source_face=args.source_face, target_face=args.target_face, options=options)
    if args.pairs:
        return read_jobs(args.pairs, defaults, f".{args.format}")
    return folder_jobs(args.sources, args.targets, args.every_with_every, defaults, f".{args.format}")


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """What all results of a folder have in common."""
    from faceswap_diffusion.weights.checkpoints import EMBEDDED_CHECKPOINT, weights_digest

    return {
        "faceswap-diffusion": __version__,
        "checkpoint": args.checkpoint or EMBEDDED_CHECKPOINT.name,
        "weights": weights_digest(Path(args.checkpoint or EMBEDDED_CHECKPOINT)),
        "variant": args.variant,
        "few_steps": args.few_steps,
        "dtype": args.dtype,
        "occlusion": args.occlusion,
        "face_score": args.face_score,
        "only": args.only and hashlib.sha256(Path(args.only).read_bytes()).hexdigest()[:16],
    }


def check(args: argparse.Namespace, folder: "JobFolder", settings: dict[str, Any], jobs: "list[Job]") -> None:
    """Finds out before the work what cannot be done.

    Raises:
        ValueError: If the folder was begun with other settings, or something is wrong with a job.
    """
    from faceswap_diffusion.swapping.job_folder import key_of
    from faceswap_diffusion.swapping.jobs import check_jobs

    folder.check(settings, jobs)
    attempts = folder.attempts()
    todo = [job for job in jobs if not folder.is_done(job, attempts.get(key_of(job)))]
    where = str(args.pairs or f"{args.sources} and {args.targets}")
    check_jobs(todo, args.output, where, lambda job: args.overwrite or key_of(job) in attempts)


def show_plan(args: argparse.Namespace, folder: "JobFolder", jobs: "list[Job]") -> int:
    """Lists the jobs, and what is done of them."""
    from faceswap_diffusion.swapping.job_folder import key_of

    attempts = folder.attempts()
    done = [folder.is_done(job, attempts.get(key_of(job))) for job in jobs]
    if args.json:
        plan = [{**job.described(args.output), "done": is_done} for job, is_done in zip(jobs, done, strict=True)]
        say(json.dumps({"output": str(args.output), "jobs": plan}, indent=2))
        return 0
    lines = [
        f"{'done' if is_done else 'to do'}: {' + '.join(job.sources)} -> {job.target}: {args.output / job.output}"
        for job, is_done in zip(jobs, done, strict=True)
    ]
    tell(args, "\n".join([*lines, f"{len(jobs)} jobs, {sum(done)} of them done"]))
    return 0


def work(
    args: argparse.Namespace, folder: "JobFolder", jobs: "list[Job]", bar: "tqdm", rank: int, num_processes: int
) -> None:
    """Works in this process, one of those that share the jobs."""
    import_diffusers(args)
    from faceswap_diffusion.swapping.batch import Batch

    Batch(folder, jobs, rank, num_processes).run(
        lambda: load(args, rank, num_processes),
        lambda text: None if args.quiet else bar.write(f"{PROG}: {text}", sys.stderr),
        lambda: advance(bar, folder, jobs),
    )


def load(args: argparse.Namespace, rank: int, num_processes: int) -> "FaceSwapper":
    """Loads the swapper of a process, and gives it its share of the cores, or its GPU."""
    import cv2
    import torch

    from faceswap_diffusion.devices import share_of_cores

    if num_processes > 1 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(share_of_cores(num_processes))
    if num_processes > 1:
        cv2.setNumThreads(torch.get_num_threads())
    if args.device in (None, "cuda") and torch.cuda.is_available():
        local_rank = int(os.environ.get("LOCAL_RANK", rank))
        args.device = f"cuda:{local_rank % torch.cuda.device_count()}"
    swapper = load_swapper(args, find_faces(args).analyzer, args.occlusion)
    swapper.pipeline.set_progress_bar_config(disable=True)
    return swapper


def work_in_processes(args: argparse.Namespace, folder: "JobFolder", jobs: "list[Job]") -> bool:
    """Works in several processes, which end with this one; `False` if none could begin, and one has said why."""
    from multiprocessing import get_context

    if "RANK" in os.environ:
        raise ValueError("--processes was given to one of several processes that share the work already: leave it out")
    context = get_context("spawn")
    numbers = range(args.processes)
    processes = [context.Process(target=work_apart, args=(args, jobs, number), daemon=True) for number in numbers]
    with progress_bar(args, folder, jobs) as bar, ended_with_block(processes):
        for process in processes:
            process.start()
        while any(process.is_alive() for process in processes):
            time.sleep(POLL)
            advance(bar, folder, jobs)
    return any(process.exitcode != 2 for process in processes)


@contextmanager
def ended_with_block(processes: "Sequence[BaseProcess]") -> Iterator[None]:
    """Ends processes with the block, however that ends."""
    try:
        yield
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()


def work_apart(args: argparse.Namespace, jobs: "list[Job]", number: int) -> None:
    """What one of several processes does. Only the first says what is wrong with all of them."""
    from faceswap_diffusion.swapping.job_folder import JobFolder

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one ends it
    set_loudness(args)
    folder = JobFolder(args.output)
    try:
        with progress_bar(args, folder, jobs, shown=False) as bar:
            work(args, folder, jobs, bar, number, args.processes)
    except ValueError as error:
        if number == 0:
            say(f"{PROG}: error: {' '.join(str(error).split())}", error=True)
        sys.exit(2)


def progress_bar(args: argparse.Namespace, folder: "JobFolder", jobs: "list[Job]", shown: bool = True) -> "tqdm":
    """A bar of all jobs with the time left; what is done already counts, but not for the speed."""
    from tqdm import tqdm

    hidden, ended = args.quiet or not shown, len(folder.ended(jobs))
    return tqdm(total=len(jobs), initial=ended, desc="batch", unit="swap", disable=hidden, mininterval=1)


def advance(bar: "tqdm", folder: "JobFolder", jobs: "list[Job]") -> None:
    """Moves a bar to what has ended by now, in this process or another."""
    bar.update(max(0, len(folder.ended(jobs)) - bar.n))


def report(args: argparse.Namespace, folder: "JobFolder", jobs: "list[Job]", done_before: int, seconds: float) -> int:
    """Tells what came of the jobs, by name where they failed; 1 if any did."""
    from faceswap_diffusion.swapping.job_folder import MANIFEST

    records = {record["output"]: record for record in folder.ended(jobs)}
    failed = {output: record["error"] for output, record in records.items() if record["status"] == "failed"}
    failed |= {
        job.output: "the process that worked on it ended before it was done; start the command again"
        for job in jobs
        if job.output not in records
    }
    folder.write_manifest(jobs)
    if int(os.environ.get("RANK", 0)):  # one of those that were started together tells
        return 1 if failed else 0
    done = len(jobs) - len(failed)
    if args.json:
        counts = {"jobs": len(jobs), "done": done, "done_before": done_before, "failed": failed}
        told = {"output": str(args.output), "manifest": str(args.output / MANIFEST), "seconds": round(seconds, 3)}
        say(json.dumps({**told, **counts}, indent=2))
    else:
        before = f" ({done_before} of them before)" if done_before else ""
        tell(args, f"{args.output}: {done} of {len(jobs)} swaps done{before} in {seconds:.1f} s, {len(failed)} failed")
    for output, error in failed.items():
        say(f"{PROG}: error: {output}: {error}", error=True)
    return 1 if failed else 0
