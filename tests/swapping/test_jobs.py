"""Lists of jobs: what a CSV file or two folders come to, and everything that is wrong with them, said at once."""

from pathlib import Path

import pytest

from faceswap_diffusion.swapping.jobs import (
    Job,
    JobsError,
    check_jobs,
    folder_jobs,
    name_outputs,
    output_problem,
    read_jobs,
)
from faceswap_diffusion.swapping.options import SwapOptions

DEFAULTS = Job((), "", target_face="all", options=SwapOptions(seed=7))


def listed(folder: Path, text: str, encoding: str = "utf-8-sig") -> Path:
    path = folder / "jobs.csv"
    path.write_bytes(text.encode(encoding))
    return path


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_cells_set_what_they_name_and_empty_ones_leave_the_defaults(tmp_path: Path):
    text = (
        "source,target,output,region,seed,steps,guidance,strength,source_face,target_face,mask\n"
        "a.jpg | b.jpg,t.jpg,sub//x.png,head,3,9,1.5,0.5,1,bob.jpg,m.png\n"
        '"c, d.jpg",t.jpg,,,,,,,,2,\n'
    )
    first, second = read_jobs(listed(tmp_path, text), DEFAULTS, ".webp")
    assert first == Job(
        sources=(str(tmp_path / "a.jpg"), str(tmp_path / "b.jpg")),
        target=str(tmp_path / "t.jpg"),
        output="sub/x.png",
        source_face=1,
        target_face=str(tmp_path / "bob.jpg"),
        mask=str(tmp_path / "m.png"),
        options=SwapOptions(region="head", seed=3, num_inference_steps=9, guidance_scale=1.5, strength=0.5),
    )
    assert first.inputs == [str(tmp_path / name) for name in ("a.jpg", "b.jpg", "t.jpg", "bob.jpg", "m.png")]
    assert second.sources == (str(tmp_path / "c, d.jpg"),)
    assert second.target_face == 2
    assert second.options == DEFAULTS.options
    assert second.output == "c, d-t.webp"


def test_all_bad_rows_are_named_at_once(tmp_path: Path):
    text = (
        "source,target,output,seed,region\n"
        ",t.jpg,,,\n"
        "a.jpg,,,,\n"
        "a.jpg,t.jpg,,1.5,soul\n"
        "a.jpg,u.jpg,x.png,,\n"
        "a.jpg,u.jpg,,,\n"
        "a.jpg,v.jpg,X.PNG,,\n"
        "a.jpg,w.jpg,,,,more\n"
    )
    with pytest.raises(JobsError) as raised:
        read_jobs(listed(tmp_path, text), DEFAULTS, ".png")
    told = raised.value.problems
    assert told[:2] == ["line 2 has no source", "line 3 has no target"]
    assert told[2].startswith("line 4 has region 'soul'; one of face, head")
    assert told[3] == "line 4 has seed '1.5'; a whole number is needed"
    assert told[4:] == [
        "line 8 has more cells than there are columns",
        "line 6 is the same swap as line 5",
        "line 7 writes to X.PNG, as does line 5",
    ]


@pytest.mark.parametrize(
    ("text", "encoding", "message"),
    [
        ("from,target\na,b\n", "utf-8", "no column 'source'; column 'from' is unknown"),
        ("source,target,target\na,b,c\n", "utf-8", "column 'target' is there 2 times"),
        ("source,target\n", "utf-8", "has no rows"),
        ("source,target\nm\u00fcller.jpg,b\n", "latin-1", "not in UTF-8"),
        ('source,target\n"a,b\n', "utf-8", "it is no CSV file"),
    ],
)
def test_files_that_are_no_list_are_refused(tmp_path: Path, text: str, encoding: str, message: str):
    with pytest.raises(ValueError, match=message):
        read_jobs(listed(tmp_path, text, encoding), DEFAULTS, ".png")


def test_outputs_that_have_no_name_get_one_that_is_free(tmp_path: Path):
    jobs = [Job(("a.jpg",), "t.jpg"), Job(("x/a.png",), "t.png"), Job(("b.jpg",), "t.jpg", "A-T-2.png")]
    assert [job.output for job in name_outputs(jobs, ".png")] == ["a-t.png", "a-t-3.png", "A-T-2.png"]


def test_folders_are_paired_by_name_or_each_with_each(tmp_path: Path):
    touch(tmp_path, *("s/2.jpg", "s/10.jpg", "s/ann/1.jpg", "s/ann/2.jpg", "s/bob.safetensors", "s/notes.txt"))
    touch(tmp_path, *(f"t/{name}" for name in ("a.png", "b.png", "c.heic", "d.JPG", "list.csv")))
    jobs = folder_jobs(tmp_path / "s", tmp_path / "t", False, DEFAULTS, ".png")
    assert [job.output for job in jobs] == ["2-a.png", "10-b.png", "ann-c.png", "bob-d.png"]
    assert jobs[2].sources == (str(tmp_path / "s/ann/1.jpg"), str(tmp_path / "s/ann/2.jpg"))
    every = folder_jobs(tmp_path / "s", tmp_path / "t", True, DEFAULTS, ".png")
    assert [job.output for job in every][:5] == ["2-a.png", "2-b.png", "2-c.png", "2-d.png", "10-a.png"]
    assert len(every) == 16
    (tmp_path / "t/d.JPG").unlink()
    with pytest.raises(ValueError, match=r"has 4 sources and .* 3 targets: .* pass --every-with-every"):
        folder_jobs(tmp_path / "s", tmp_path / "t", False, DEFAULTS, ".png")
    touch(tmp_path, "one/me.jpg")
    (first, *rest) = folder_jobs(tmp_path / "one", tmp_path / "t", False, DEFAULTS, ".jpg")
    assert first.output == "me-a.jpg"
    assert len(rest) == 2


@pytest.mark.parametrize(
    "output",
    ["../x.png", "a/../../x.png", "/x.png", "C:x.png", "..\\x.png", "\\\\host\\x.png", "link/x.png", "out.png"],
)
def test_no_output_leads_out_of_its_folder(tmp_path: Path, output: str):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    (folder / "out.png").symlink_to(tmp_path / "elsewhere.png")
    assert "outside" in str(output_problem(output, folder)) or "leads out" in str(output_problem(output, folder))


def test_outputs_that_cannot_be_are_refused(tmp_path: Path):
    touch(tmp_path, "file.png")
    assert "begins with a dot" in str(output_problem(".faceswap-jobs/x.png", tmp_path))
    assert "unknown kind" in str(output_problem("x.exe", tmp_path))
    assert "too long" in str(output_problem("x" * 300 + ".png", tmp_path))
    assert "cannot be written" in str(output_problem("file.png/x.png", tmp_path))
    assert output_problem("sub/x.png", tmp_path) is None


def test_everything_wrong_with_files_is_named_at_once(tmp_path: Path):
    touch(tmp_path, "a.jpg", "out/there.png", "out/mine.png", "out/t.png")
    a, target = str(tmp_path / "a.jpg"), str(tmp_path / "out/t.png")
    outputs = ["there.png", "mine.png", "t.png", "x.png", "x.png/y.png", "../z.png"]
    jobs = [Job((a,), target, output, where=f"line {number}") for number, output in enumerate(outputs, 2)]
    jobs += [Job(("gone.jpg",), target, f"{number}.png", where=f"line {number}") for number in (8, 9)]
    with pytest.raises(JobsError) as raised:
        check_jobs(jobs, tmp_path / "out", "jobs.csv", lambda job: job.output == "mine.png")
    told = [problem.split(":")[0] for problem in raised.value.problems]
    assert told == [
        "line 8 and 1 other",
        "line 2 writes to there.png, which exists and was not made here",
        "line 4 writes to t.png, which is an input",
        "line 5 writes to x.png, which is the folder of another output",
        "line 7 writes to ../z.png, which may lie outside the output folder",
    ]
    assert str(raised.value).startswith("5 problems in jobs.csv: line 8")
