"""The numbers of a run: the same file however often it was stopped, curves, pictures for trackers."""

from pathlib import Path

import numpy as np
import pytest
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import ProjectConfiguration
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from faceswap_diffusion.training.engine.history import History, check_tracker, draw_curves, log_pictures
from tests.tiny import tiny_picture
from tests.training.engine.small_run import fresh_accelerator


def losses(step: int) -> dict[str, float]:
    values = {"loss": 1 / step, "denoising": 0.1 + 1e-17}
    return {**values, "identity": step / 7} if step > 2 else values


def run(folder: Path, first: int, last: int) -> History:
    """Steps after `first`, with a validation every second one."""
    history = History(folder)
    history.truncate(first)
    for step in range(first + 1, last + 1):
        history.add(step, losses(step))
        history.add_speed(step, {"images_per_second": np.random.default_rng().random()})
        if step % 2 == 0:
            history.add(step, {"cosine_to_source": step / 10})
    return history


def test_lines_are_appended_and_new_names_become_columns(tmp_path):
    history = History(tmp_path / "run")
    history.add(1, {"loss": 0.5})
    assert history.values.path.read_text() == "step,loss\n1,0.5\n"
    history.add(2, {"loss": 0.25, "identity": 1e-30})
    history.add(2, {"pose_error": 3.0})
    history.add(3, {"loss": 0.125})
    text = "step,loss,identity,pose_error\n1,0.5,,\n2,0.25,1e-30,\n2,,,3.0\n3,0.125,,\n"
    assert history.values.path.read_text() == text
    assert history.last() == {"step": 3, "loss": 0.125, "identity": 1e-30, "pose_error": 3.0}


@pytest.mark.parametrize("stops", [(1, 0), (2, 1), (5, 3), (5, 5)])
def test_a_run_that_went_back_has_the_file_of_one_that_did_not(tmp_path, stops):
    """It was killed after the first step named, and its last state was of the second."""
    reached, saved = stops
    run(tmp_path / "stopped", 0, reached)
    run(tmp_path / "stopped", saved, 6)
    run(tmp_path / "undisturbed", 0, 6)
    names = [folder / "history.csv" for folder in (tmp_path / "stopped", tmp_path / "undisturbed")]
    assert names[0].read_bytes() == names[1].read_bytes()


def test_a_line_that_was_cut_short_is_dropped(tmp_path):
    history = run(tmp_path, 0, 12)
    path = history.values.path
    text = path.read_text()
    path.write_text(text[: text.rindex("12,") + 1])  # a "1" that is no step 1
    again = History(tmp_path)
    again.truncate(11)
    assert [row["step"] for row in again.values.rows() if "loss" in row] == list(range(1, 12))


def test_curves_have_a_panel_for_each_kind_of_number(tmp_path):
    steps = range(1, 101)
    rows = [{"step": step, "loss": 1 / step, "learning_rate": 1e-4, "images_per_second": 9.0} for step in steps]
    rows += [{"step": 50, "cosine_to_source": 0.2, "pose_error": 5.0}, {"step": 100, "cosine_to_source": 0.4}]
    few, many = draw_curves(rows[:1]), draw_curves(rows)
    assert (few.width, many.width) == (1300, 1300)
    assert many.height == pytest.approx(few.height * 1.5, abs=2)  # 2 rows of panels, 3 rows of panels
    assert np.asarray(many.convert("L")).std() > 10


def test_the_plot_is_written_and_returned(tmp_path):
    picture = run(tmp_path, 0, 4).plot(tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as written:
        assert np.array_equal(np.asarray(written), np.asarray(picture))


def test_pictures_arrive_in_tensorboard(tmp_path):
    fresh_accelerator()
    accelerator = Accelerator(
        cpu=True, log_with="tensorboard", project_config=ProjectConfiguration(project_dir=str(tmp_path))
    )
    accelerator.init_trackers("run")
    accelerator.log({"loss": 0.5}, step=3)
    picture = tiny_picture()
    log_pictures(accelerator, 3, {"swaps": picture})
    accelerator.end_training()
    events = EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    (loss,) = events.Scalars("loss")
    assert (loss.step, loss.value) == (3, 0.5)
    (image,) = events.Images("swaps")
    assert (image.step, image.width, image.height) == (3, *picture.size)
    path = tmp_path / "swaps.png"
    path.write_bytes(image.encoded_image_string)
    with Image.open(path) as logged:
        assert np.array_equal(np.asarray(logged.convert("RGB")), np.asarray(picture))


def test_without_trackers_pictures_go_nowhere():
    log_pictures(fresh_accelerator(), 1, {"swaps": tiny_picture()})


@pytest.mark.skipif("wandb" in map(str, get_available_trackers()), reason="wandb is installed")
def test_a_tracker_that_is_not_installed_is_an_error():
    check_tracker("tensorboard")
    check_tracker("none")
    with pytest.raises(ValueError, match="--report_to wandb needs the package: pip install wandb"):
        check_tracker("wandb")
