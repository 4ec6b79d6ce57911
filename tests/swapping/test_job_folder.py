"""What a folder remembers of jobs, when processes share it, die, and come back."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from faceswap_diffusion.swapping.job_folder import SILENCE, JobFolder, key_of
from faceswap_diffusion.swapping.jobs import Job
from faceswap_diffusion.writing import whole_file

SETTINGS = {"checkpoint": "small", "few_steps": False}
JOBS = [Job((f"{name}.jpg",), "t.jpg", f"{name}.png") for name in "abc"]
CLAIM_AND_DIE = """
import os, sys
from pathlib import Path
from tests.swapping.test_job_folder import JOBS
from faceswap_diffusion.swapping.job_folder import JobFolder
folder = JobFolder(Path(sys.argv[1]))
with folder.working():
    assert folder.claim(JOBS[0], 0)
    print("claimed", flush=True)
    sys.stdin.read()
    os._exit(9)
"""


def begun(path: Path) -> JobFolder:
    folder = JobFolder(path)
    folder.begin(SETTINGS, JOBS)
    return folder


def finish(folder: JobFolder, job: Job, number: int = 0, status: str = "done") -> None:
    folder.write_record(job, number, {"output": job.output, "status": status, "job": job.described(folder.folder)})
    if status == "done":
        (folder.folder / job.output).touch()


def test_one_of_two_gets_a_job(tmp_path: Path):
    first, second = begun(tmp_path), begun(tmp_path)
    with first.working(), second.working():
        assert first.claim(JOBS[0], 0)
        assert not second.claim(JOBS[0], 0)
        claimed = second.attempts()[key_of(JOBS[0])]
        assert (claimed.number, claimed.status) == (0, "claimed")
        assert not second.is_abandoned(JOBS[0], claimed)
        finish(first, JOBS[0])
        assert second.attempts()[key_of(JOBS[0])].status == "done"
    assert os.listdir(first.workers) == []


def test_records_that_are_being_written_are_none_yet(tmp_path: Path):
    writing, reading = begun(tmp_path), begun(tmp_path)
    with writing.working():
        assert writing.claim(JOBS[0], 0)
        with whole_file(writing.records / f"{key_of(JOBS[0])}.0.done.json") as unfinished:
            unfinished.write_text("{")
            assert reading.attempts()[key_of(JOBS[0])].status == "claimed"
            unfinished.write_text("{}")
        assert reading.attempts()[key_of(JOBS[0])].status == "done"


def test_the_claim_of_a_killed_process_is_answered_once_it_is_dead(tmp_path: Path):
    folder = begun(tmp_path)
    line = [sys.executable, "-c", CLAIM_AND_DIE, str(tmp_path)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root) as process, folder.working():
        assert process.stdout is not None
        assert process.stdout.readline() == b"claimed\n"
        claimed = folder.attempts()[key_of(JOBS[0])]
        assert not folder.is_abandoned(JOBS[0], claimed)
        process.kill()
        process.wait()
        assert folder.is_abandoned(JOBS[0], claimed)
        assert folder.claim(JOBS[0], 1)
        assert folder.attempts()[key_of(JOBS[0])].number == 1
        finish(folder, JOBS[0], number=1)
        assert not folder.is_abandoned(JOBS[0], folder.attempts()[key_of(JOBS[0])])


def test_processes_of_other_machines_are_alive_while_they_show_it(tmp_path: Path):
    folder = begun(tmp_path)
    beat = folder.workers / "other.host-12-ab.beat"
    beat.touch()
    assert folder.is_alive("other.host-12-ab")
    long_ago = beat.stat().st_mtime - SILENCE - 1
    os.utime(beat, (long_ago, long_ago))
    assert not folder.is_alive("other.host-12-ab")
    assert not folder.is_alive("other.host-13-cd")


def test_a_claim_without_a_name_is_left_alone_until_it_is_old(tmp_path: Path):
    folder = begun(tmp_path)
    claim = folder.claims / f"{key_of(JOBS[0])}.0"
    claim.touch()
    attempt = folder.attempts()[key_of(JOBS[0])]
    assert not folder.is_abandoned(JOBS[0], attempt)
    long_ago = claim.stat().st_mtime - SILENCE - 1
    os.utime(claim, (long_ago, long_ago))
    assert folder.is_abandoned(JOBS[0], attempt)


def test_a_record_without_its_picture_is_no_end(tmp_path: Path):
    folder = begun(tmp_path)
    assert folder.claim(JOBS[0], 0)
    finish(folder, JOBS[0])
    (tmp_path / JOBS[0].output).unlink()
    attempt = folder.attempts()[key_of(JOBS[0])]
    assert not folder.is_done(JOBS[0], attempt)
    assert folder.ended(JOBS) == []
    assert begun(tmp_path).is_abandoned(JOBS[0], attempt)


def test_what_has_changed_is_named(tmp_path: Path):
    folder = begun(tmp_path)
    assert folder.claim(JOBS[0], 0)
    finish(folder, JOBS[0])
    begun(tmp_path)  # the same settings
    with pytest.raises(ValueError, match=r"other settings \(few_steps False, now True\): go on with those"):
        folder.begin({**SETTINGS, "few_steps": True}, JOBS)
    other = Job(("a.jpg",), "u.jpg", "a.png")
    with pytest.raises(ValueError, match=r"a.png was made with other settings \(target '.*t.jpg', now '.*u.jpg'\)"):
        folder.begin(SETTINGS, [other])
    (tmp_path / "a.png").unlink()  # it is to be made anew
    folder.begin(SETTINGS, [other])


def test_the_manifest_has_a_line_for_each_job_that_ended(tmp_path: Path):
    folder = begun(tmp_path)
    for job, status in zip(JOBS, ("failed", "claimed", "done"), strict=True):
        assert folder.claim(job, 0)
        if status != "claimed":
            finish(folder, job, status=status)
    folder.write_manifest(JOBS)
    lines = (tmp_path / "manifest.jsonl").read_text().splitlines()
    assert [(json.loads(line)["output"], json.loads(line)["status"]) for line in lines] == [
        ("a.png", "failed"),
        ("c.png", "done"),
    ]


def test_left_overs_of_killed_processes_go_when_nobody_works(tmp_path: Path):
    folder = begun(tmp_path)
    left_over = tmp_path / ".unfinished-0"
    left_over.touch()
    with folder.working():
        begun(tmp_path)
        assert left_over.exists()
    begun(tmp_path)
    assert not left_over.exists()
