"""Many swaps with a pipeline of random weights: each is done once, and what is wrong with one is its own affair."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from faceswap_diffusion.provenance.save import read_provenance
from faceswap_diffusion.swapping.batch import Batch, JobMaker
from faceswap_diffusion.swapping.job_folder import JobFolder, key_of
from faceswap_diffusion.swapping.jobs import Job
from faceswap_diffusion.swapping.options import SwapOptions
from faceswap_diffusion.swapping.swapper import FaceSwapper
from tests.tiny import tiny_pipeline

IMAGES = Path(__file__).parents[2] / "examples" / "images"


class Counting(FaceSwapper):
    """A swapper that knows whom it has encoded and what it has swapped."""

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.encoded, self.swapped = [], []

    def encode_source(self, photos, which="largest", region="face"):
        self.encoded.append([Path(str(photo)).name for photo in photos])
        return super().encode_source(photos, which, region)

    def swap(self, source, target, **settings):
        self.swapped.append(Path(target.name).name)
        return super().swap(source, target, **settings)


@pytest.fixture(scope="module")
def networks() -> FaceSwapper:
    return FaceSwapper(tiny_pipeline(crop_size=64), name="tiny")


@pytest.fixture
def swapper(networks: FaceSwapper) -> Counting:
    return Counting(networks.pipeline, networks.analyzer, networks.name, networks.parser, networks.occlusion)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small copies of the example photos, and a picture of nobody."""
    folder = tmp_path_factory.mktemp("photos")
    for name in ("p001_portrait", "p005_portrait", "p008_selfie", "p010_selfie"):
        with Image.open(IMAGES / f"{name}.jpg") as photo:
            photo.resize((256, 256 * photo.height // photo.width)).save(folder / f"{name}.png")
    Image.new("RGB", (64, 64)).save(folder / "wall.png")
    return folder


def job(photos: Path, sources: list[str], target: str, output: str, **options) -> Job:
    names = [str(photos / f"{source}.png") for source in sources]
    return Job(tuple(names), str(photos / f"{target}.png"), output, options=SwapOptions(**options))


def run(folder: Path, jobs: list[Job], swapper: FaceSwapper) -> tuple[list[dict], list[str]]:
    """Works off jobs; their records, and what was told."""
    begun, told = JobFolder(folder), []
    begun.begin({}, jobs)
    Batch(begun, jobs).run(lambda: swapper, told.append, lambda: None)
    return begun.ended(jobs), told


def test_sources_are_encoded_once_and_one_bad_file_does_not_stop_the_others(swapper, photos, tmp_path: Path):
    both = ["p001_portrait", "p005_portrait"]
    jobs = [
        job(photos, both, "p010_selfie", "a.png", seed=4),
        job(photos, ["p005_portrait"], "wall", "nobody.png"),
        job(photos, both, "p008_selfie", "sub/b.jpg"),
        job(photos, ["wall"], "p008_selfie", "no_source.png"),
        job(photos, ["wall"], "p010_selfie", "no_source_again.png"),
        replace(job(photos, both, "p010_selfie", "c.png"), target_face=9),
    ]
    records, told = run(tmp_path, jobs, swapper)
    assert [record["status"] for record in records] == ["done", "failed", "done", "failed", "failed", "failed"]
    assert swapper.encoded == [[f"{name}.png" for name in both], ["p005_portrait.png"], ["wall.png"]]
    errors = [record.get("error") for record in records]
    assert errors[1] == f"no face found in {photos / 'wall.png'}: use a photo in which a face is visible"
    assert errors[3] == errors[4] == errors[1]
    assert "has 1 face(s)" in errors[5]
    assert records[0]["faces"] == 1
    assert records[0]["swapped"] == [0]
    assert records[0]["provenance"]["seed"] == 4
    assert set(records[0]["seconds"]) == {"load", "detect", "check", "encode", "reference", "diffuse", "paste", "save"}
    stored = read_provenance(tmp_path / "a.png")
    assert stored is not None
    assert stored.items() >= records[0]["provenance"].items()
    (warning,) = records[0]["warnings"]
    assert "does not look like the person in" in warning
    assert records[2]["warnings"] == [warning]
    assert told[0] == f"a.png: warning: {warning}"
    assert sum("failed: " in line for line in told) == 4


def test_what_is_done_stays_and_what_failed_or_is_missing_is_done_again(swapper, photos, tmp_path: Path):
    jobs = [
        job(photos, ["p001_portrait"], target, f"{target}.png") for target in ("p010_selfie", "wall", "p008_selfie")
    ]
    run(tmp_path, jobs, swapper)
    made = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.png")}
    assert swapper.swapped == ["p010_selfie.png", "wall.png", "p008_selfie.png"]
    (tmp_path / "p008_selfie.png").unlink()
    records, _ = run(tmp_path, jobs, swapper)
    assert swapper.swapped[3:] == ["wall.png", "p008_selfie.png"]
    assert [(record["status"], record["attempt"]) for record in records] == [("done", 0), ("failed", 1), ("done", 1)]
    assert (tmp_path / "p010_selfie.png").stat().st_mtime_ns == made["p010_selfie.png"]
    assert len((tmp_path / "manifest.jsonl").read_text().splitlines()) == 3


def test_jobs_at_which_a_process_died_come_last(swapper, photos, tmp_path: Path):
    jobs = [job(photos, ["p001_portrait"], "p010_selfie", f"{name}.png") for name in "abc"]
    dead = JobFolder(tmp_path)
    dead.begin({}, jobs)
    assert dead.claim(jobs[0], 0)
    folder = JobFolder(tmp_path)
    todo, waiting = Batch(folder, jobs)._open()
    assert ([(one.output, number) for one, number in todo], waiting) == ([("b.png", 0), ("c.png", 0), ("a.png", 1)], 0)
    with dead.working():
        todo, waiting = Batch(folder, jobs)._open()
        assert ([one.output for one, _ in todo], waiting) == (["b.png", "c.png"], 1)
    second, _ = Batch(folder, jobs, rank=1, num_processes=2)._open()
    assert [one.output for one, _ in second] == ["b.png", "c.png", "a.png"]


def test_a_picture_that_cannot_be_put_in_its_place_is_a_failure(swapper, photos, tmp_path: Path):
    one = job(photos, ["p001_portrait"], "p010_selfie", "sub/a.png")
    folder = JobFolder(tmp_path)
    folder.begin({}, [one])
    assert folder.claim(one, 0)

    class Vanishing(JobMaker):
        def make(self, job, warnings):
            made = super().make(job, warnings)
            (tmp_path / "sub").rmdir()
            return made

    told = []
    Vanishing(swapper, folder).do(one, 0, told.append)
    assert folder.attempts()[key_of(one)].status == "failed"
    assert told == [
        f"sub/a.png: failed: cannot save {tmp_path / 'sub/a.png'}: No such file or directory; choose another place"
    ]


def test_warnings_are_printed_again_afterwards(swapper, photos, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    run(tmp_path, [job(photos, ["wall"], "wall", "a.png")], swapper)
    logging.getLogger("faceswap_diffusion.any").warning("heard")
    assert [record.message for record in caplog.records] == ["heard"]
