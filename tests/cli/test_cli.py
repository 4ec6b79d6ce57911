"""The command line: what it writes, and how it refuses what it cannot do."""

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceswap_diffusion import __version__
from faceswap_diffusion.cli import doctor
from faceswap_diffusion.cli import main as cli
from faceswap_diffusion.cli.mask_drawing import COLORS
from faceswap_diffusion.cli.swap import source_to_face
from faceswap_diffusion.faces.analyzer import MeshFaceAnalyzer
from faceswap_diffusion.masks.regions import REGIONS
from faceswap_diffusion.photos.loading import load_photo
from faceswap_diffusion.provenance.save import read_provenance
from faceswap_diffusion.weights import registry
from tests import processes
from tests.processes import Program
from tests.tiny import odd_exif, save_with_few_steps, tiny_pipeline
from tests.weights.imitation import HubImitation, list_files

IMAGES = Path(__file__).parents[2] / "examples" / "images"
SOURCE, TARGET, GROUP = (str(IMAGES / name) for name in ("p001_portrait.jpg", "p010_selfie.jpg", "group.jpg"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    tiny_pipeline(crop_size=64).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def swap(checkpoint: str):
    """Runs `swap --quiet` in this process; returns the exit status, argparse's included."""

    def run(*arguments: object) -> int:
        try:
            return cli.main(["swap", "--quiet", "--checkpoint", checkpoint, *map(str, arguments)])
        except SystemExit as end:
            return int(end.code or 0)

    return run


def run_command(*arguments: object) -> Program:
    """Runs a command in a process of its own, to its end."""
    program = processes.start(run_to_exit, [*map(str, arguments)])
    program.communicate()
    return program


def run_to_exit(arguments: list[str]) -> None:
    sys.exit(cli.main(arguments))


def test_swap_writes_a_marked_picture_and_shows_its_progress(checkpoint: str, tmp_path: Path):
    pty, fcntl, termios = (pytest.importorskip(name) for name in ("pty", "fcntl", "termios"))
    shown, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))  # without a width there is no bar
    output = tmp_path / "swapped.png"
    command = [sys.executable, "-m", "faceswap_diffusion", "swap", SOURCE, TARGET, "-o", str(output)]
    finished = subprocess.run(
        [*command, "--checkpoint", checkpoint], stdout=subprocess.PIPE, stderr=terminal, text=True
    )
    os.close(terminal)
    progress = os.read(shown, 10_000).decode()
    os.close(shown)
    assert finished.returncode == 0
    told = re.escape(f"{output}: swapped face 0 of 1 in ") + r"(\d+\.\d) s, after (\d+\.\d) s of loading\n"
    assert (seconds := re.fullmatch(told, finished.stdout))
    assert 0 < float(seconds[1]) < float(seconds[2])  # of a tiny model
    assert "swapping" in progress
    assert "2/2" in progress
    before, after = load_photo(TARGET).rgb, load_photo(output).rgb
    changed = (before != after).any(-1)
    assert after.shape == before.shape
    assert 0.02 < changed.mean() < 0.5
    provenance = read_provenance(output)
    assert provenance is not None
    assert provenance["software"] == f"faceswap-diffusion {__version__}"
    assert os.listdir(tmp_path) == ["swapped.png"]


LOADING = "faceswap-diffusion: loading PyTorch and "


def test_what_is_loaded_and_an_error_are_all_on_standard_error(checkpoint: str, tmp_path: Path):
    wall = tmp_path / "wall.png"
    Image.new("RGB", (64, 64)).save(wall)
    finished = run_command("swap", wall, TARGET, "-o", tmp_path / "out.png", "--checkpoint", checkpoint)
    assert finished.returncode == 2
    output, errors = finished.communicate()
    assert output == ""
    assert errors.splitlines() == [
        f"{LOADING}{checkpoint} ...",
        f"faceswap-diffusion: error: no face found in {wall}: use a photo in which a face is visible",
    ]


def test_options_reach_the_swapper(swap, tmp_path: Path, capsys: pytest.CaptureFixture):
    output = tmp_path / "out.webp"
    options = ["--steps", 1, "--guidance", 1, "--seed", 5, "--region", "mouth", "--no-color-match", "--json"]
    assert swap(SOURCE, TARGET, "-o", output, "--device", "cpu", "--dtype", "float32", *options) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["output"] == str(output)
    assert report["swapped"] == [0]
    left, top, right, bottom = report["faces"][0]["bbox"]
    assert 0 < left < right < 640
    assert 0 < top < bottom < 768
    assert list(report["seconds"]) == [
        "start",
        "load",
        "detect",
        "check",
        "encode",
        "reference",
        "diffuse",
        "paste",
        "save",
    ]
    expected = {"seed": 5, "region": "mouth", "num_inference_steps": 1, "guidance_scale": 1.0, "faces": 1}
    assert report["provenance"].items() >= expected.items()
    stored = read_provenance(output)
    assert stored is not None
    assert stored.items() >= report["provenance"].items()


def test_a_strength_is_passed_on_and_what_the_source_shows_is_told(swap, tmp_path: Path, capsys):
    tiny_pipeline(crop_size=64, hidden_fill="reference").save_pretrained(tmp_path / "drawing")
    options = ["--checkpoint", tmp_path / "drawing", "--strength", 0.5, "--steps", 2, "--json"]
    assert swap(SOURCE, TARGET, "-o", tmp_path / "out.png", *options) == 0
    made = json.loads(capsys.readouterr().out)["provenance"]
    assert made["strength"] == 0.5
    (share,) = made["source_shown"]
    assert 0.6 < share <= 1
    assert read_provenance(tmp_path / "out.png").items() >= made.items()


def test_a_strength_without_a_drawn_face_is_an_error_of_one_line(swap, tmp_path: Path, capsys):
    assert swap(SOURCE, TARGET, "-o", tmp_path / "out.png", "--strength", 0.5) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith(
        "faceswap-diffusion: error: `strength` is 0.5, but below 1 a swap starts from the reference"
    )
    assert os.listdir(tmp_path) == []


def test_a_warning_is_a_line_on_standard_error(checkpoint: str, tmp_path: Path):
    other = IMAGES / "p005_portrait.jpg"
    finished = run_command("swap", SOURCE, other, TARGET, "-o", tmp_path / "out.png", "--checkpoint", checkpoint)
    assert finished.returncode == 0
    loading, told = finished.communicate()[1].splitlines()
    assert loading.startswith(LOADING)
    assert told.startswith(f"faceswap-diffusion: warning: {other} does not look like the person in {SOURCE} (cosine ")


def test_the_few_step_version_is_taken_if_asked_for(swap, tmp_path: Path, capsys: pytest.CaptureFixture):
    save_with_few_steps(tiny_pipeline(crop_size=64, default_num_inference_steps=5), tmp_path / "tiny")
    options = ["--few-steps", "--checkpoint", tmp_path / "tiny", "--json"]
    assert swap(SOURCE, TARGET, "-o", tmp_path / "out.png", *options) == 0
    made = json.loads(capsys.readouterr().out)["provenance"]
    assert made["checkpoint"] == "tiny/few_steps"
    assert made["num_inference_steps"] == 2


def test_a_lora_is_added_if_asked_for(swap, tmp_path: Path, capsys: pytest.CaptureFixture):
    save_with_few_steps(tiny_pipeline(crop_size=64, default_num_inference_steps=5), tmp_path / "other")
    pictures = {}
    for name, options in (("plain", []), ("lora", ["--lora", tmp_path / "other" / "few_steps"])):
        assert swap(SOURCE, TARGET, "-o", tmp_path / f"{name}.png", "--json", *options) == 0
        made = json.loads(capsys.readouterr().out)["provenance"]
        pictures[made["checkpoint"]] = load_photo(tmp_path / f"{name}.png").rgb
    assert list(pictures) == ["tiny", "tiny+few_steps"]
    assert (pictures["tiny"] != pictures["tiny+few_steps"]).any()


@pytest.mark.parametrize("switch", ["--no-color-match", "--no-skin-texture"])
def test_colour_match_and_texture_are_on_unless_switched_off(swap, tmp_path: Path, switch: str):
    for name, options in (("on.png", []), ("off.png", [switch])):
        assert swap(SOURCE, TARGET, "-o", tmp_path / name, *options) == 0
    on, off = (load_photo(tmp_path / name).rgb for name in ("on.png", "off.png"))
    assert (on != off).any()


@pytest.mark.parametrize(
    ("sources", "options", "swapped"),
    [
        (["p001_portrait.jpg"], ["--target-face", "all"], [0, 1, 2, 3]),
        (["p001_portrait.jpg", "p001_park.jpg"], ["--target-face", "2", "--source-face", "0"], [2]),
        (["p001_portrait.jpg", "p005_portrait.jpg"], ["--map", "0:1,1:0"], [0, 1]),
        (["p001_portrait.jpg"], ["--map", "0:3"], [3]),
    ],
)
def test_sources_and_faces_of_a_group(swap, tmp_path: Path, capsys, sources, options, swapped):
    output = tmp_path / "out.png"
    assert swap(*(IMAGES / name for name in sources), GROUP, "-o", output, "--steps", 1, "--json", *options) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["swapped"] == swapped
    changed = (load_photo(output).rgb != load_photo(GROUP).rgb).any(-1)
    for index, face in enumerate(report["faces"]):
        left, top, right, bottom = (round(edge) for edge in face["bbox"])
        assert (changed[top:bottom, left:right].mean() > 0.5) == (index in swapped)


def test_an_identity_is_written_once_and_swapped_without_its_photos(swap, checkpoint, tmp_path: Path, capsys):
    photos = [str(IMAGES / name) for name in ("p001_portrait.jpg", "p001_park.jpg")]
    identity = tmp_path / "woman.safetensors"
    write = ["identity", *photos, "-o", str(identity), "--checkpoint", checkpoint]
    assert cli.main(write) == 0
    assert capsys.readouterr().out == f"{identity}: the identity of 2 photos\n"
    for name, sources in (("by_photos.png", photos), ("by_file.png", [identity])):
        assert swap(*sources, TARGET, "-o", tmp_path / name) == 0
    np.testing.assert_array_equal(*(load_photo(tmp_path / name).rgb for name in ("by_photos.png", "by_file.png")))
    written = identity.read_bytes()
    assert cli.main(write) == 2
    assert "exists" in capsys.readouterr().err
    assert cli.main([*write, "--overwrite"]) == 0
    assert identity.read_bytes() == written
    assert cli.main(["identity", photos[0], "-o", str(tmp_path / "woman.pt")]) == 2
    assert "end the name in .safetensors" in capsys.readouterr().err
    (tmp_path / "bad.safetensors").write_bytes(b"no identity")
    assert swap(tmp_path / "bad.safetensors", TARGET, "-o", tmp_path / "out.png") == 2
    told = capsys.readouterr().err.splitlines()
    assert told[-1].startswith(f"faceswap-diffusion: error: cannot read {tmp_path / 'bad.safetensors'}: it is damaged")


def test_a_face_has_to_reach_the_score_that_is_asked_for(swap, tmp_path: Path, capsys):
    assert cli.main(["faces", TARGET, "--json"]) == 0
    (face,) = json.loads(capsys.readouterr().out)["faces"]
    assert cli.main(["faces", TARGET, "--json", "--face-score", str(face["score"] + 0.01)]) == 0
    assert json.loads(capsys.readouterr().out)["faces"] == []
    assert swap(SOURCE, TARGET, "-o", tmp_path / "out.png", "--face-score", 1) == 2
    assert "got '1'; a number between 0 and 1 is needed" in capsys.readouterr().err


def test_map_reads_source_to_face():
    assert source_to_face("0:1,1:0") == {1: 0, 0: 1}
    assert source_to_face("2:5") == {5: 2}


def test_a_mask_file_says_where(swap, tmp_path: Path):
    (face,) = MeshFaceAnalyzer().analyze(load_photo(TARGET).rgb)
    left, top, right, bottom = face.bbox.round().astype(int)
    mask = np.zeros((768, 640), np.uint8)
    mask[top:bottom, left : (left + right) // 2] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    assert swap(SOURCE, TARGET, "-o", tmp_path / "out.png", "--mask", tmp_path / "mask.png") == 0
    changed = (load_photo(tmp_path / "out.png").rgb != load_photo(TARGET).rgb).any(-1)
    assert changed[mask == 255].mean() > 0.5
    assert not changed[mask == 0].any()


def test_a_transparent_part_of_a_mask_is_not_repainted(swap, tmp_path: Path):
    (face,) = MeshFaceAnalyzer().analyze(load_photo(TARGET).rgb)
    left, top, right, bottom = face.bbox.round().astype(int)
    layer = np.full((768, 640, 4), (255, 255, 255, 0), np.uint8)
    layer[top:bottom, left : (left + right) // 2, 3] = 255
    Image.fromarray(layer).save(tmp_path / "layer.png")
    assert swap(SOURCE, TARGET, "-o", tmp_path / "out.png", "--mask", tmp_path / "layer.png") == 0
    changed = (load_photo(tmp_path / "out.png").rgb != load_photo(TARGET).rgb).any(-1)
    assert changed[layer[..., 3] == 255].mean() > 0.5
    assert not changed[layer[..., 3] == 0].any()


def test_the_first_frame_of_an_animation_is_swapped(swap, tmp_path: Path):
    frames = [Image.open(TARGET).resize((320, 384)), Image.new("RGB", (320, 384))]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert swap(SOURCE, tmp_path / "moving.gif", "-o", tmp_path / "out.png", "--steps", 1) == 0
    assert load_photo(tmp_path / "out.png").rgb.shape == (384, 320, 3)


def png_header(width: int, height: int) -> bytes:
    """A PNG file that claims a size and holds nothing else."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


BAD_PHOTOS = {
    "empty.jpg": b"",
    "text.jpg": b"not a picture at all\n" * 50,
    "truncated.jpg": Path(TARGET).read_bytes()[:30_000],
    "bomb.png": png_header(30_000, 30_000),
}


@pytest.mark.parametrize("name", [*BAD_PHOTOS, "missing.jpg", "folder", "dot.png", "wide.png"])
@pytest.mark.parametrize("role", ["source", "target"])
def test_bad_photos_are_named_in_one_line(swap, tmp_path: Path, capsys, name: str, role: str):
    bad = tmp_path / "in" / name
    bad.parent.mkdir()
    if name in BAD_PHOTOS:
        bad.write_bytes(BAD_PHOTOS[name])
    elif name == "folder":
        bad.mkdir()
    elif name != "missing.jpg":
        Image.new("RGB", (1, 1) if name == "dot.png" else (12_000, 40), (90, 120, 90)).save(bad)
    (tmp_path / "out").mkdir()
    photos = (bad, TARGET) if role == "source" else (SOURCE, bad)
    assert swap(*photos, "-o", tmp_path / "out" / "out.png") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("faceswap-diffusion: error: ")
    assert captured.err.count("\n") == 1
    assert str(bad) in captured.err
    assert os.listdir(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target-face", "4"], "has 4 face(s)"),
        (["--target-face", "-1"], "face -1 was asked for"),
        (["--source-face", "1"], "the only one is 0"),
        (["--target-face", "biggest"], "give 'largest', 'all', an index"),
        (["--target-face", str(IMAGES / "p006_portrait.jpg")], "no face matches the reference face"),
        (["--map", "0:9"], "mapping names face 9"),
        (["--map", "1:0"], "mapping names source 1"),
        (["--map", "0:0", "--target-face", "all"], "give one of them"),
        (["--map", "0-1"], "write SOURCE:FACE"),
        (["--map", "0:1,1:1"], "a face can take one source only"),
        (["--steps", "0"], "at least 1 is needed"),
        (["--steps", "-3"], "at least 1 is needed"),
        (["--steps", "many"], "invalid int value: 'many'"),
        (["--region", "soul"], "choose one of face, head"),
        (["--mask", SOURCE], "mask of 640 x 640 pixels for a picture of 1024 x 384"),
        (["--mask", "nothing.png"], "cannot read nothing.png"),
        (["--device", "banana"], "device banana cannot be used here"),
        (["--dtype", "float8"], "choose one of float32, float16, bfloat16"),
        (["--checkpoint", "nobody/nothing"], "no such Hub repository could be read"),
        (["--checkpoint", str(IMAGES)], "has no model_index.json"),
        (["--checkpoint", SOURCE], "is a file"),
    ],
)
def test_bad_options_are_refused_in_one_line(swap, tmp_path: Path, capsys, options: list[str], message: str):
    assert swap(SOURCE, GROUP, "-o", tmp_path / "out.png", *options) == 2
    error = capsys.readouterr().err
    assert error.startswith("faceswap-diffusion")
    assert error.count("\n") == 1
    assert message in error
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("edit", ["unet/diffusion_pytorch_model.bin", "vae/diffusion_pytorch_model.safetensors"])
def test_bad_checkpoints_are_refused_in_one_line(swap, checkpoint: str, tmp_path: Path, capsys, edit: str):
    copy = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    (copy / edit).write_bytes(b"no weights")
    assert swap(SOURCE, TARGET, "-o", tmp_path / "out.png", "--checkpoint", copy) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(copy) in error
    assert os.listdir(tmp_path) == ["copy"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("out.xyz", "unknown kind '.xyz'"), ("out", "unknown kind"), ("none/out.png", "no folder"), ("d.png", "folder")],
)
def test_bad_outputs_are_refused_before_the_work(swap, tmp_path: Path, capsys, name: str, message: str):
    (tmp_path / "d.png").mkdir()
    assert swap("missing.jpg", "missing.jpg", "-o", tmp_path / name) == 2  # the photos are not even looked for
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert os.listdir(tmp_path) == ["d.png"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_without_permission_is_refused(swap, tmp_path: Path, capsys):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    assert swap(SOURCE, TARGET, "-o", locked / "out.png") == 2
    assert "no permission" in capsys.readouterr().err


def test_what_the_format_cannot_hold_is_told_before_the_networks_are_loaded(swap, tmp_path: Path, capsys):
    photo = Image.open(TARGET)
    photo.putalpha(128)
    photo.save(tmp_path / "alpha.png")
    Image.new("RGB", (16_384, 8)).save(tmp_path / "wide.png")
    for target, name, message in (
        ("alpha.png", "out.jpg", "transparent and JPEG cannot be"),
        ("alpha.png", "out.bmp", "transparent and BMP cannot be"),
        ("wide.png", "out.webp", "WEBP allows 16383 per side"),
    ):
        assert swap(SOURCE, tmp_path / target, "-o", tmp_path / name, "--checkpoint", "nobody/nothing") == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert message in error
    assert cli.main(["faces", str(tmp_path / "wide.png"), "-o", str(tmp_path / "out.webp")]) == 2
    assert "WEBP allows" in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == ["alpha.png", "wide.png"]


def test_a_file_that_exists_is_replaced_only_if_asked_for(swap, tmp_path: Path, capsys):
    output = tmp_path / "out.png"
    output.write_bytes(b"older")
    refused = f"faceswap-diffusion: error: {output} exists: choose another name, or pass --overwrite to replace it\n"
    assert swap("missing.jpg", "missing.jpg", "-o", output) == 2  # the photos are not even looked for
    assert capsys.readouterr().err == refused
    assert cli.main(["faces", TARGET, "-o", str(output)]) == 2
    assert capsys.readouterr().err == refused
    assert output.read_bytes() == b"older"
    assert swap(SOURCE, TARGET, "-o", output, "--steps", 1, "--overwrite") == 0
    assert read_provenance(output) is not None
    assert cli.main(["faces", TARGET, "-o", str(output), "--overwrite"]) == 0
    assert read_provenance(output) is None


def test_a_failure_leaves_an_older_output_alone(swap, tmp_path: Path, capsys):
    Image.new("RGB", (64, 64)).save(tmp_path / "wall.png")
    (tmp_path / "out.jpg").write_bytes(b"older")
    assert swap(SOURCE, tmp_path / "wall.png", "-o", tmp_path / "out.jpg", "--overwrite") == 2
    assert "no face found" in capsys.readouterr().err
    assert (tmp_path / "out.jpg").read_bytes() == b"older"
    assert sorted(os.listdir(tmp_path)) == ["out.jpg", "wall.png"]


def test_odd_exif_is_one_warning(swap, tmp_path: Path, caplog, capsys):
    Image.open(TARGET).save(tmp_path / "odd.jpg", exif=odd_exif())
    assert swap(SOURCE, tmp_path / "odd.jpg", "-o", tmp_path / "out.png", "--steps", 1) == 0
    assert [message for message in caplog.messages if "EXIF" in message] == [
        f"{tmp_path / 'odd.jpg'}: damaged parts of its EXIF are left out"
    ]


def test_an_altered_model_file_is_refused(swap, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    assets = Path(shutil.copytree(registry.ASSETS, tmp_path / "assets"))
    altered = assets / registry.MODEL_FILES["yunet"].filename
    altered.write_bytes(altered.read_bytes()[:-1] + b"!")
    monkeypatch.setattr(registry, "ASSETS", assets)
    registry.model_path.cache_clear()
    try:
        assert swap(SOURCE, TARGET, "-o", tmp_path / "out.png") == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert f"{altered}: SHA-256 is" in error
        assert cli.main(["doctor"]) == 1
        assert f"PROBLEM: {altered}: SHA-256 is" in capsys.readouterr().out
    finally:
        registry.model_path.cache_clear()
    assert os.listdir(tmp_path) == ["assets"]


def test_faces_lists_and_draws(tmp_path: Path, capsys):
    drawing = tmp_path / "faces.png"
    assert cli.main(["faces", GROUP, "-o", str(drawing)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{GROUP}: 4 faces"
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["0", "1", "2", "3"]
    assert cli.main(["faces", GROUP, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["width"], report["height"]) == (1024, 384)
    before, after = load_photo(GROUP).rgb, load_photo(drawing).rgb
    left, top, right, bottom = (round(edge) for edge in report["faces"][2]["bbox"])
    assert lines[3].strip().startswith(f"2: {right - left} x {bottom - top} px at ({left}, {top}), score 0.9")
    assert (after[(top + bottom) // 2, left - 1 : left + 2] == (0, 255, 0)).all(-1).any()
    x, y = (round(value) for value in report["faces"][2]["keypoints"][0])
    assert tuple(after[y, x]) == (255, 0, 0)
    np.testing.assert_array_equal(after[:, :60], before[:, :60])  # left of the first face
    assert read_provenance(drawing) is None  # no model painted in it


def test_a_photo_without_faces_has_an_empty_list(tmp_path: Path, capsys):
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    assert cli.main(["faces", str(tmp_path / "dot.png")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'dot.png'}: 0 faces\n"


def test_faces_refuses_what_it_cannot_read(tmp_path: Path, capsys):
    (tmp_path / "empty.jpg").touch()
    assert cli.main(["faces", str(tmp_path / "empty.jpg"), "-o", str(tmp_path / "out.png")]) == 2
    assert "empty.jpg: it is empty or not a picture" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["empty.jpg"]


def test_unexpected_failures_are_1_and_traced_on_demand(capsys, monkeypatch: pytest.MonkeyPatch):
    def fail(args):
        raise RuntimeError("the first line\nthe second")

    monkeypatch.setattr(doctor, "run", fail)
    assert cli.main(["doctor"]) == 1
    wanted = "faceswap-diffusion: error: the first line the second (RuntimeError; --verbose shows where)\n"
    assert capsys.readouterr().err == wanted
    assert cli.main(["doctor", "--verbose"]) == 1
    traced = capsys.readouterr().err
    assert traced.startswith("Traceback")
    assert traced.endswith("faceswap-diffusion: error: the first line the second\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: COMMAND"),
        (["swap"], "required: SOURCE, TARGET, -o/--output"),
        (["swap", "a.jpg", "-o", "b.png"], "required: TARGET"),
        (["swap", "a.jpg", "b.jpg", "-o", "c.png", "--colour"], "unrecognized arguments: --colour"),
        (["dance"], "invalid choice: 'dance'"),
    ],
)
def test_usage_errors_are_one_line(capsys, arguments: list[str], message: str):
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


def test_regions_of_faces_are_drawn_with_a_legend(tmp_path: Path, capsys):
    output = tmp_path / "masks.png"
    assert cli.main(["faces", TARGET, "--draw", "masks", "-o", str(output), "--json"]) == 0
    (face,) = json.loads(capsys.readouterr().out)["faces"]
    drawn, photo = (np.asarray(Image.open(path).convert("RGB")).astype(int) for path in (output, TARGET))
    height, width = photo.shape[:2]
    assert drawn.shape[1] == width
    assert height + 12 < drawn.shape[0] < 1.3 * height
    left_eye, _, nose, *_ = np.round(face["keypoints"]).astype(int)
    for (x, y), color in ((left_eye, COLORS["eyes"]), (nose, COLORS["nose"])):
        wanted = photo[y, x] + 0.55 * (np.array(color) - photo[y, x])
        assert np.abs(drawn[y, x] - wanted).max() <= 3
    assert np.abs(drawn[5, 5] - photo[5, 5]).max() <= 1
    legend = {tuple(color) for color in drawn[height:].reshape(-1, 3)}
    assert set(COLORS.values()) <= legend
    assert cli.main(["faces", TARGET, "--draw", "masks"]) == 2
    assert "say where to with -o" in capsys.readouterr().err


def test_unknown_regions_are_refused_before_anything_is_loaded(tmp_path: Path, capsys):
    for option in ("--region", "--keep"):
        assert cli.main(["swap", TARGET, TARGET, "-o", str(tmp_path / "x.png"), option, "eyes+ear"]) == 2
        assert capsys.readouterr().err.count("got region 'ear'; choose one of face, head") == 1


def test_help_tells_regions_examples_and_responsible_use(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["swap", "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert all(region in text for region in REGIONS)
    assert "Responsible use" in text
    assert "--map 0:1,1:0" in text
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"faceswap-diffusion {__version__}\n"


def test_a_hub_id_is_fetched_once_without_pickles_and_code(checkpoint: str, tmp_path: Path, monkeypatch, capsys):
    hub = HubImitation()
    hub.repositories["alice/swap"] = {**list_files(Path(checkpoint)), "unet/diffusion_pytorch_model.bin": b"pickled"}
    hub.stand_in(monkeypatch, tmp_path / "hub")
    arguments = ["swap", SOURCE, TARGET, "--checkpoint", "alice/swap", "--json", "-o"]
    try:
        assert cli.main([*arguments, str(tmp_path / "first.png")]) == 0
        requests = " ".join(hub.requests)
    finally:
        hub.close()
    fetched = json.loads(capsys.readouterr().out)
    assert cli.main([*arguments, str(tmp_path / "again.png")]) == 0  # nobody answers any more
    for report in (fetched, json.loads(capsys.readouterr().out)):
        assert report["provenance"]["checkpoint"] == "alice/swap"
    assert "unet/diffusion_pytorch_model.safetensors" in requests
    assert ".bin" not in requests
    assert ".py" not in requests
    first, again = (load_photo(tmp_path / name).rgb for name in ("first.png", "again.png"))  # signatures differ
    np.testing.assert_array_equal(first, again)
