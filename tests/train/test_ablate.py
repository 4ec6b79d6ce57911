"""The ablation at toy size, and its table."""

import csv
from pathlib import Path

import pytest
import yaml
from diffusers.schedulers.scheduling_ddim import DDIMScheduler

from tests.tiny import tiny_pipeline
from tests.train.scripts import TRAIN, load_script

ablate = load_script("ablate")


def test_a_line_of_the_table_is_the_mean_of_the_seeds_and_how_far_they_lie_apart():
    figures = {
        "the whole recipe 0": {"sface_closer_to_source": 0.5, "pose_error": 3.0, "pairs": 4.0},
        "the whole recipe 1": {"sface_closer_to_source": 0.7, "pose_error": 4.0, "pairs": 4.0},
        "colour 0": {"sface_closer_to_source": 0.25, "pose_error": 2.0, "pairs": 4.0},
        "colour 1": {"sface_closer_to_source": 0.25, "pose_error": 2.5, "pairs": 4.0},
    }
    assert ablate.table(figures, [ablate.WHOLE, "colour"], [0, 1]).splitlines() == [
        "|  | SFace closer | pose |",
        "| --- | --- | --- |",
        "| the whole recipe | 60 ± 10 % | 3.5 ± 0.5° |",
        "| without colour | 25 ± 0 % | 2.2 ± 0.2° |",
    ]


def test_what_the_recipe_of_the_ablation_leaves_out_is_part_of_the_recipe():
    recipe = {}
    for name in ("small_samples.yaml", "small.yaml"):
        recipe |= yaml.safe_load((TRAIN / "recipes" / name).read_text())
    for ingredient, settings in yaml.safe_load((TRAIN / "ablation.yaml").read_text())["without"].items():
        for name, value in settings.items():
            assert recipe[name] != value, ingredient


@pytest.mark.slow
def test_runs_are_compared_and_those_that_are_there_not_repeated(
    prepared_faces, example_images, tmp_path, forked_processes, monkeypatch
):
    monkeypatch.syspath_prepend(TRAIN)  # where the processes find the script
    pipeline = tiny_pipeline()
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, prediction_type="v_prediction")
    pipeline.save_pretrained(tmp_path / "tiny")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        yaml.safe_dump(
            {
                "train_batch_size": 4,
                "num_rollout_steps": [2],
                "dataloader_num_workers": 0,
                "identity_weight": 1.0,
            }
        )
    )
    config = tmp_path / "ablation.yaml"
    config.write_text("without: {likeness: {identity_weight: 0.0}}\n")
    arguments = [
        "--config", config, "--recipe", recipe, "--settings.pretrained_model_name_or_path", tmp_path / "tiny",
        "--train_data_dir", prepared_faces, "--max_train_steps", 1,
        "--seeds", 0, "--protocol", f"turned={photos_with_manifest(example_images, tmp_path / 'photos')}",
        "--limit", 1, "--output_dir", tmp_path / "out",
    ]  # fmt: skip
    whole = tmp_path / "out" / "checkpoints" / ablate.checkpoint_name(ablate.WHOLE, 0)
    pipeline.save_pretrained(whole)
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    ablate.main([str(argument) for argument in arguments])
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before
    table = (tmp_path / "out" / "table.md").read_text()
    first_cells = [line.split("|")[1].strip() for line in table.splitlines()]
    assert first_cells == ["", "---", "the whole recipe", "without likeness"]
    assert "SFace closer" in table
    settings = yaml.safe_load((tmp_path / "out" / "runs" / "likeness 0" / "config.yaml").read_text())
    assert (settings["identity_weight"], settings["max_train_steps"]) == (0, 1)
    assert (tmp_path / "out" / "checkpoints" / "likeness 0" / "model_index.json").exists()


def photos_with_manifest(images: Path, folder: Path) -> Path:
    """A folder as `make_synthetic_faces.py` writes it."""
    folder.mkdir()
    with open(folder / "manifest.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "seed", "look", "yaw"])
        for seed, name in enumerate(("p001_portrait.jpg", "p010_selfie.jpg")):
            (folder / name).symlink_to(images / name)
            writer.writerow([name, seed, 0, 20])
    return folder
