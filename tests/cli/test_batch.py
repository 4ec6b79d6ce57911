"""The command `batch`: killed, resumed, shared by processes, and refusing what it cannot do."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from PIL import Image

from faceswap_diffusion.cli import main as cli
from faceswap_diffusion.photos.loading import load_photo
from tests.processes import Program, start, wait_until
from tests.tiny import tiny_pipeline

IMAGES = Path(__file__).parents[2] / "examples" / "images"
NUM_PHOTOS = 30


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    tiny_pipeline(crop_size=64).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one source, and one of thirty targets."""
    folder = tmp_path_factory.mktemp("photos")
    for name in ("sources", "targets"):
        (folder / name).mkdir()
    with Image.open(IMAGES / "p001_portrait.jpg") as photo:
        photo.resize((160, 160)).save(folder / "sources" / "woman.png")
    with Image.open(IMAGES / "p010_selfie.jpg") as photo:
        photo.resize((160, 192)).save(folder / "targets" / "0.png")
    for number in range(1, NUM_PHOTOS):
        shutil.copy(folder / "targets" / "0.png", folder / "targets" / f"{number}.png")
    return folder


def arguments(photos: Path, output: Path, checkpoint: str, *more: str) -> list[str]:
    folders = ["--sources", str(photos / "sources"), "--targets", str(photos / "targets"), "-o", str(output)]
    return ["batch", *folders, "--checkpoint", checkpoint, "--steps", "1", "--occlusion", "off", *more]


def main(line: list[str]) -> None:
    raise SystemExit(cli.main(line))


def finished(output: Path) -> dict[str, tuple[int, int]]:
    """What pictures there are, each with what changes if it is written again."""
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in output.glob("woman-*.png")}


def records(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "manifest.jsonl").read_text().splitlines()]


def end(*programs: Program) -> list[int | None]:
    for program in programs:
        program.communicate()
    return [program.returncode for program in programs]


def test_thirty_pictures_are_made_once_whatever_kills_the_processes(photos, checkpoint, tmp_path: Path):
    output = tmp_path / "out"
    line = arguments(photos, output, checkpoint)
    first = start(main, line)
    wait_until(lambda: len(finished(output)) >= 5, first)
    first.kill()
    end(first)
    made = finished(output)
    assert 5 <= len(made) < NUM_PHOTOS
    two = [start(main, line), start(main, line)]  # the command started twice on one folder
    wait_until(lambda: len(finished(output)) >= len(made) + 5, two[0])
    two[0].kill()
    assert end(*two) == [-signal.SIGKILL, 0]
    after = finished(output)
    assert len(after) == NUM_PHOTOS
    assert {name: after[name] for name in made} == made
    told = records(output)
    assert [record["status"] for record in told] == ["done"] * NUM_PHOTOS
    assert sum(record["attempt"] for record in told) <= 2  # one for each process that was killed
    assert len({record["worker"] for record in told}) >= 2  # the one that was killed last may not have loaded yet
    assert len(list((output / ".faceswap-jobs" / "records").iterdir())) == NUM_PHOTOS
    assert len({load_photo(path).rgb.tobytes() for path in output.glob("*.png")}) == 1
    assert list(output.rglob(".unfinished-*")) == []


def test_processes_share_the_work_and_the_failures_are_named(
    photos, checkpoint, tmp_path: Path, forked_processes, capfd
):
    targets = [f"{photos}/targets/{number}.png" for number in range(4)]
    Image.new("RGB", (64, 64)).save(tmp_path / "wall.png")
    rows = [f"{photos}/sources/woman.png,{target}" for target in [*targets, "wall.png"]]
    (tmp_path / "jobs.csv").write_text("\n".join(["source,target", *rows]))
    line = ["batch", "--pairs", str(tmp_path / "jobs.csv"), "-o", str(tmp_path / "out"), "--checkpoint", checkpoint]
    assert cli.main([*line, "--steps", "1", "--processes", "2", "--json"]) == 1
    told = capfd.readouterr()
    report = json.loads(told.out)
    assert (report["jobs"], report["done"], report["done_before"]) == (5, 4, 0)
    error = f"no face found in {tmp_path / 'wall.png'}: use a photo in which a face is visible"
    assert report["failed"] == {"woman-wall.png": error}
    assert told.err.splitlines()[-1] == f"faceswap-diffusion: error: woman-wall.png: {error}"
    assert "Traceback" not in told.err
    assert len(records(tmp_path / "out")) == 5


def test_a_dry_run_writes_nothing_and_changed_settings_are_named(photos, checkpoint, tmp_path: Path, capsys):
    line = arguments(photos, tmp_path / "out", checkpoint, "--json")
    assert cli.main([*line, "--dry-run"]) == 0
    plan = json.loads(capsys.readouterr().out)["jobs"]
    assert len(plan) == NUM_PHOTOS
    assert plan[10]["output"] == "woman-10.png"
    assert not plan[10]["done"]
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--pairs", "jobs.csv"], "which swaps? give --pairs CSV, or --sources DIR and --targets DIR"),
        (["--checkpoint", "nobody/nothing"], "no such Hub repository could be read"),
        (["--processes", "0"], "a number of at least 1 is needed"),
        (["--format", "exe"], "invalid choice: 'exe'"),
    ],
)
def test_bad_options_are_refused_in_one_line(photos, checkpoint, tmp_path: Path, capsys, more, message):
    try:
        status = cli.main([*arguments(photos, tmp_path / "out", checkpoint), "--quiet", *more])
    except SystemExit as refused:
        status = refused.code
    assert status == 2
    errors = capsys.readouterr().err.splitlines()
    assert message in errors[-1]
    assert len(errors) == 1


def test_all_missing_files_are_named_before_any_work(tmp_path: Path, capsys):
    (tmp_path / "jobs.csv").write_text("source,target\na.jpg,b.jpg\na.jpg,c.jpg\n")
    assert cli.main(["batch", "--pairs", str(tmp_path / "jobs.csv"), "-o", str(tmp_path / "out")]) == 2
    lines = capsys.readouterr().err.splitlines()
    listed = f"faceswap-diffusion: error: {tmp_path / 'jobs.csv'}"
    assert lines == [
        f"{listed}: line 2 and 1 other: there is no file {tmp_path / 'a.jpg'}",
        f"{listed}: line 2: there is no file {tmp_path / 'b.jpg'}",
        f"{listed}: line 3: there is no file {tmp_path / 'c.jpg'}",
    ]
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_model_in_the_package_goes_on_without_loading_it_again(tmp_path: Path, capsys):
    rows = [f"{IMAGES}/p001_portrait.jpg|{IMAGES}/p001_park.jpg,{IMAGES}/p010_selfie.jpg,a.jpg"]
    (tmp_path / "jobs.csv").write_text("\n".join(["source,target,output", *rows]))
    line = ["batch", "--pairs", str(tmp_path / "jobs.csv"), "-o", str(tmp_path / "out")]
    assert cli.main(line) == 0
    assert "1 of 1 swaps done in" in capsys.readouterr().out
    (record,) = records(tmp_path / "out")
    assert record["provenance"]["checkpoint"] == "faceswap-small"
    assert cli.main(line) == 0
    assert "1 of 1 swaps done (1 of them before) in" in capsys.readouterr().out
    assert cli.main([*line, "--seed", "1"]) == 2
    assert "a.jpg was made with other settings (seed 0, now 1)" in capsys.readouterr().err
