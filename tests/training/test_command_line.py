"""Settings from flags and files: every default once, everything that is wrong at once, and what a run goes on with."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import get_type_hints

import pytest
import yaml

from faceswap_diffusion.training.command_line import (
    check_resumed,
    compose,
    fixed_settings,
    flatten,
    parse_config,
    save_config,
    settings,
)
from faceswap_diffusion.training.config import (
    CacheLatentsConfig,
    DistillConfig,
    OptimizationConfig,
    OutputConfig,
    TrainFaceswapConfig,
    TrainingConfig,
)
from faceswap_diffusion.training.fields import FIXED, MAY_CHANGE, section, setting

COMPOSED = [TrainFaceswapConfig, DistillConfig, CacheLatentsConfig]


@dataclass(frozen=True, kw_only=True)
class PlaceConfig:
    folder: Path = setting(help="where")
    sizes: tuple[int, ...] = setting((1, 2), resume=FIXED)
    weight: float | None = setting(None)
    careful: bool = setting(False)


@dataclass(frozen=True, kw_only=True)
class Config(TrainingConfig):
    place: PlaceConfig = section("place", prefix="place_", sizes=(3,))
    optimization: OptimizationConfig = section("optimization", learning_rate=0.5)
    output: OutputConfig = section("output")


def parsed(*arguments: object) -> Config:
    return parse_config(Config, "script.py", None, [str(argument) for argument in arguments])


def refused(capsys, *arguments: object) -> str:
    with pytest.raises(SystemExit) as stopped:
        parsed(*arguments)
    assert stopped.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("script.py:")]
    return line


@pytest.mark.parametrize("kind", COMPOSED)
def test_every_setting_has_one_name_and_says_whether_it_may_change(kind):
    names = [name for name, _ in settings(kind)]
    assert len(names) == len(set(names))
    assert {field.metadata["resume"] for _, field in settings(kind)} <= {FIXED, MAY_CHANGE}
    for part in get_type_hints(kind).values():
        assert all("resume" in field.metadata for field in fields(part))


def test_defaults_are_those_of_the_fields_or_of_the_script():
    config = parsed("--place_folder", "here", "--output_dir", "run")
    assert config.place == PlaceConfig(folder=Path("here"), sizes=(3,))
    assert config.optimization == OptimizationConfig(learning_rate=0.5)
    assert type(config.optimization.learning_rate) is float


def test_values_have_the_types_of_their_fields():
    flags = ["--place_sizes", 4, 5, "--place_weight", 1, "--place_careful", "--seed", 7]
    config = parsed("--place_folder", "here", "--output_dir", "run", *flags)
    assert config.place == PlaceConfig(folder=Path("here"), sizes=(4, 5), weight=1.0, careful=True)
    assert config.optimization.seed == 7
    assert compose(Config, flatten(config)).place.sizes == (4, 5)


def test_all_that_is_wrong_with_a_file_is_said_at_once(tmp_path, capsys):
    path = tmp_path / "settings.yaml"
    path.write_text("leraning_rate: 1\nseed: many\nplace_sizes: 4\nema_decay: 2\noutput_dir: run\nplace_folder: x\n")
    line = refused(capsys, "--config", path)
    assert "unknown leraning_rate" in line
    for name in ("seed", "place_sizes", "ema_decay"):
        assert name in line
    assert "output_dir" not in line


def test_all_that_is_missing_is_said_at_once(capsys):
    assert "--output_dir, --place_folder missing" in refused(capsys)


def saved_run(folder: Path, **changes: object) -> Path:
    """A run that has a state."""
    save_config(parsed("--place_folder", "here", "--output_dir", folder, "--learning_rate", 0.25), folder)
    (folder / "states" / "step_000002").mkdir(parents=True)
    values = {**yaml.safe_load((folder / "config.yaml").read_text()), **changes}
    values = {name: value for name, value in values.items() if value != "left out"}
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    return folder


def test_a_run_goes_on_with_its_own_settings_and_what_is_given_wins(tmp_path):
    folder = saved_run(tmp_path / "run")
    assert parsed("--output_dir", folder).optimization.learning_rate == 0.25
    config = parsed("--output_dir", folder, "--max_train_steps", 5000, "--place_careful")
    assert (config.optimization.max_train_steps, config.optimization.learning_rate) == (5000, 0.25)
    assert (config.place.folder, config.place.careful) == (Path("here"), True)


def test_without_a_state_there_is_nothing_to_go_on_from(tmp_path, capsys):
    save_config(parsed("--place_folder", "here", "--output_dir", tmp_path), tmp_path)
    assert "--place_folder missing" in refused(capsys, "--output_dir", tmp_path)


def test_all_that_cannot_change_is_refused_with_both_values(tmp_path, capsys):
    folder = saved_run(tmp_path / "run")
    line = refused(capsys, "--output_dir", folder, "--seed", 3, "--place_sizes", 1, "--learning_rate", 1)
    assert "seed was 0 and is 3, place_sizes was [3] and is [1]" in line or (
        "place_sizes was [3] and is [1], seed was 0 and is 3" in line
    )
    assert "learning_rate" not in line
    config = parsed("--output_dir", folder)
    assert set(fixed_settings(config)) >= {"seed", "place_sizes", "mixed_precision"}
    check_resumed(config, flatten(config))


def test_a_saved_file_holds_every_setting(tmp_path, capsys):
    folder = saved_run(tmp_path / "run", seed="left out", weight_decay="much", other=1)
    line = refused(capsys, "--output_dir", folder)
    for problem in ("unknown other", "missing seed", "weight_decay"):
        assert problem in line
    (folder / "config.yaml").unlink()
    assert "holds states, but no config.yaml" in refused(capsys, "--output_dir", folder)
