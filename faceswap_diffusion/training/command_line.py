"""Command lines from dataclasses of settings: parser, checks of config files, resuming from the saved config."""

import json
from argparse import ArgumentParser as PlainParser
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import ActionYesNo, ArgumentError, ArgumentParser, Namespace

from faceswap_diffusion.training.engine.state_folders import saved_steps
from faceswap_diffusion.training.fields import FIXED
from faceswap_diffusion.writing import write_text

SAVED = "config.yaml"
"""The file in a run's folder that holds all its settings."""

Config = TypeVar("Config")


def build_parser(script: str, description: str | None, exit_on_error: bool = True) -> ArgumentParser:
    """A parser that takes a file of settings as well as flags.

    Args:
        script (`str`): Name of the script.
        description (`str`): Its docstring.
        exit_on_error (`bool`): Whether a wrong argument ends the process; it raises an `ArgumentError` otherwise.
    """
    parser = ArgumentParser(prog=script, description=description, exit_on_error=exit_on_error)
    parser.add_argument("--config", action="config", help="YAML file of settings; flags after it win")
    return parser


def parse_config(kind: type[Config], script: str, description: str | None, arguments: Sequence[str] | None) -> Config:
    """Reads the settings of a script. Errors are one line and exit code 2.

    Where the output folder holds a run already, what is not given is as that run has it.

    Args:
        kind (`type`): Composed dataclass of settings.
        script (`str`): Name of the script.
        description (`str`): Its docstring.
        arguments (`Sequence[str]`, *optional*): Those of the process if left out.
    """
    parser = build_parser(script, description, exit_on_error=False)
    add_settings(parser, kind)
    try:
        return read_config(parser, kind, arguments)
    except (ArgumentError, ValueError) as error:
        parser.exit(2, f"{script}: {_one_line(error)}\n")


def read_config(parser: ArgumentParser, kind: type[Config], arguments: Sequence[str] | None) -> Config:
    """Reads settings from flags, config files and the saved config of a resumed run.

    Args:
        parser (`ArgumentParser`): See `add_settings`.
        kind (`type`): Composed dataclass of settings.
        arguments (`Sequence[str]`, *optional*): Those of the process if left out.

    Raises:
        ValueError: Naming all settings that are unknown, missing, of a wrong type, or cannot change.
        ArgumentError: For a flag that is unknown or of a wrong type.
    """
    problems = [problem for path in _config_files(arguments) for problem in problems_of_file(parser, kind, path)]
    if problems:
        raise ValueError("; ".join(problems))
    args = parser.parse_args(arguments)
    saved = saved_settings(parser, kind, args)
    if saved is not None:
        parser.set_defaults(saved)
        args = parser.parse_args(arguments)
    missing = [f"--{name}" for name, field in settings(kind) if _is_required(field) and args[name] is None]
    if missing:
        raise ValueError(f"{', '.join(missing)} missing: give a value as a flag or in a file for --config")
    config = compose(kind, args)
    if saved is not None:
        check_resumed(config, saved)
    return config


def add_settings(parser: ArgumentParser, kind: type) -> None:
    """Adds the settings of all sections of a composed dataclass as options.

    Args:
        parser (`ArgumentParser`): To add to.
        kind (`type`): The dataclass.
    """
    for section, part in _sections(kind):
        group = parser.add_argument_group(section.metadata["title"], section.metadata["description"])
        hints = get_type_hints(part)
        for field in fields(part):
            name = section.metadata["prefix"] + field.name
            group.add_argument(f"--{name}", **_argument(field, hints[field.name], _default(section, field)))


def settings(kind: type) -> Iterator[tuple[str, Field]]:
    """The settings of a composed dataclass: names of the options, and the sections' fields."""
    for section, part in _sections(kind):
        for field in fields(part):
            yield section.metadata["prefix"] + field.name, field


def compose(kind: type[Config], values: Mapping[str, Any] | Namespace) -> Config:
    """Makes a composed dataclass.

    Args:
        kind (`type`): The dataclass.
        values (`Mapping[str, Any]`): Of all its settings, by the names of the options.
    """
    made = {
        section.name: part(
            **{field.name: _value(values[section.metadata["prefix"] + field.name]) for field in fields(part)}
        )
        for section, part in _sections(kind)
    }
    return kind(**made)


def flatten(config: Any) -> dict[str, Any]:
    """JSON values of all settings of a composed dataclass, by the names of the options."""
    values: dict[str, Any] = {}
    for section, _ in _sections(type(config)):
        values |= flatten_section(getattr(config, section.name), section.metadata["prefix"])
    return values


def flatten_section(part: Any, prefix: str = "") -> dict[str, Any]:
    """JSON values of the settings of a section, by the names of the options."""
    values = {prefix + field.name: getattr(part, field.name) for field in fields(part)}
    return json.loads(json.dumps(values, default=str))


def fixed_settings(config: Any) -> dict[str, Any]:
    """The settings of `flatten` that cannot change when a run is resumed."""
    fixed = {name for name, field in settings(type(config)) if field.metadata["resume"] == FIXED}
    return {name: value for name, value in flatten(config).items() if name in fixed}


def save_config(config: Any, folder: Path) -> None:
    """Writes all settings to `SAVED` in the folder of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / SAVED, yaml.safe_dump(flatten(config), sort_keys=False))


def saved_settings(parser: ArgumentParser, kind: type, args: Namespace) -> dict[str, Any] | None:
    """The saved settings of the run in the output folder; none if there is no state to resume from.

    Raises:
        ValueError: If the file does not hold all settings as they have to be.
    """
    folder = args.get("output_dir")
    if folder is None or not saved_steps(Path(folder) / "states"):
        return None
    path = Path(folder) / SAVED
    if not path.exists():
        raise ValueError(f"{folder} holds states, but no {SAVED} with their settings: use another --output_dir")
    problems = problems_of_file(parser, kind, path, complete=True)
    if problems:
        raise ValueError("; ".join(problems))
    return yaml.safe_load(path.read_text())


def problems_of_file(parser: ArgumentParser, kind: type, path: Path, complete: bool = False) -> list[str]:
    """All problems of a config file.

    Args:
        parser (`ArgumentParser`): See `add_settings`.
        kind (`type`): Composed dataclass of settings.
        path (`Path`): The file.
        complete (`bool`): Whether it has to hold every setting.
    """
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        return [f"{path} cannot be read: {_one_line(error)}"]
    if not isinstance(values, dict):
        return [f"{path} holds no settings: lines of `name: value` are wanted"]
    known = dict(settings(kind))
    unknown = [str(name) for name in values if name not in known]
    missing = [name for name in known if name not in values] if complete else []
    problems = [
        f"{kind_of} {', '.join(names)}" for kind_of, names in (("unknown", unknown), ("missing", missing)) if names
    ]
    problems += filter(
        None, (_type_problem(parser, name, known[name], value) for name, value in values.items() if name in known)
    )
    return [f"{path}: {problem}" for problem in problems]


def check_resumed(config: Any, saved: Mapping[str, Any]) -> None:
    """Refuses changes of settings that are fixed when a run is resumed.

    Args:
        config (`Any`): Composed dataclass of settings.
        saved (`Mapping[str, Any]`): What the run began with.

    Raises:
        ValueError: Naming all of them with both values.
    """
    changed = [
        f"{name} was {json.dumps(saved[name])} and is {json.dumps(value)}"
        for name, value in fixed_settings(config).items()
        if saved[name] != value
    ]
    if changed:
        raise ValueError(
            f"{config.output.output_dir} belongs to a run with other settings: {', '.join(changed)}; leave out what "
            "cannot change, or use another --output_dir"
        )


def _sections(kind: type) -> list[tuple[Field, type]]:
    hints = get_type_hints(kind)
    return [(field, hints[field.name]) for field in fields(kind)]


def _is_list(field: Field) -> bool:
    return any(get_origin(annotated) is tuple for annotated in (field.type, *get_args(field.type)))


def _is_required(field: Field) -> bool:
    return field.default is MISSING


def _default(section: Field, field: Field) -> Any:
    if field.name in section.metadata["defaults"]:
        return section.metadata["defaults"][field.name]
    return None if _is_required(field) else field.default


def _argument(field: Field, annotated: Any, default: Any) -> dict[str, Any]:
    """The arguments of `add_argument` for a setting."""
    argument = {"default": list(default) if isinstance(default, tuple) else default, "help": field.metadata["help"]}
    if annotated is bool:
        return {**argument, "action": ActionYesNo}
    choices = get_args(annotated)
    optional = type(None) in choices
    if optional:
        annotated = next(choice for choice in choices if choice is not type(None))
    if get_origin(annotated) is tuple:
        parts = get_args(annotated)
        argument["nargs"] = "+" if Ellipsis in parts else len(parts)
        return {**argument, "type": field.metadata["kind"] or parts[0]}
    narrowed: Any = field.metadata["kind"] or annotated
    return {**argument, "type": narrowed | None if optional else narrowed}


def _value(value: Any) -> Any:
    """A plain value: jsonargparse has its own number types."""
    if isinstance(value, list):
        return tuple(map(_value, value))
    for plain in (bool, int, float):
        if isinstance(value, plain):
            return plain(value)
    return value


def _config_files(arguments: Sequence[str] | None) -> list[Path]:
    """The files that are given with `--config`."""
    parser = PlainParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=Path, action="append", default=[])
    return parser.parse_known_args(arguments)[0].config


def _type_problem(parser: ArgumentParser, name: str, field: Field, value: Any) -> str | None:
    """Why a value in a config file does not fit its setting, if it does not."""
    if _is_list(field) and value is not None and not isinstance(value, list):
        return f"{name} has to be a list: [{value}]"
    try:
        parser.parse_object({name: value})
    except ArgumentError as error:
        return _one_line(error)
    return None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
