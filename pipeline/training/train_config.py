"""Options of a run from a file: the ``config.json`` of another run, or TOML or JSON of one's own."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any

from lanit.errors import LanitError, UsageError, excerpt
from pipeline.files import read_json
from pipeline.models.run_folder import CONFIG
from pipeline.training.train_options import TrainOptions, all_settings, make_options, options_from

_HELP = "Give the config.json of a run, or TOML with lines such as: preset = 'small-64', minutes = 30, crop = 0.25"


def resolved_options(config: Path | None, preset: str, changes: dict[str, Any]) -> TrainOptions:
    """The options of ``lanit train``: of a preset, or of a file, with ``changes`` (those not None) laid over them.

    config: a file with every option of a run, under ``options`` or as it stands, or with some of them over the preset
    that it names, else over the defaults; or the folder of a run. Raises LanitError where it cannot be read, UsageError
    where it has no such option, or a preset is asked for besides.
    """
    if config is None:
        return options_from(preset, changes)
    if preset != "paper":
        raise UsageError("--preset does not go with --config, which has its own", "Leave one of them out.")
    settings = _read(config / CONFIG if config.is_dir() else config)
    if changes.get("minutes") is not None and changes.get("steps") is None:
        settings["steps"] = 0  # minutes alone lift the limit, as they do over a preset
    named = settings.pop("preset", None)
    given = _checked(settings, config) | {name: value for name, value in changes.items() if value is not None}
    return make_options(given) if named is None else options_from(str(named), given)


def _read(path: Path) -> dict[str, Any]:
    if path.suffix == ".toml":
        try:
            found: Any = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise LanitError(f"cannot read {path}: {error.strerror or error}", _HELP) from error
        except ValueError as error:
            raise LanitError(f"{path} is no TOML ({error})", _HELP) from error
    else:
        found = read_json(path, _HELP)
    if isinstance(found, dict) and isinstance(found.get("options"), dict):
        found = found["options"]
    if not isinstance(found, dict):
        raise LanitError(f"{path} holds no options", _HELP)
    return dict(found)


def _checked(settings: dict[str, Any], path: Path) -> dict[str, Any]:
    """Each of the type of its default."""
    known, found = all_settings(), dict[str, Any]()
    for name, value in settings.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
            message = f"{path}: there is no option '{excerpt(name)}'"
            raise UsageError(message, f"Did you mean {' or '.join(close)}?" if close else _HELP)
        kind = type(known[name])
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            kinds = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
            message = f"{path}: {name} is not {kinds[kind]}: {excerpt(str(value))}"
            raise UsageError(message, f"The default is {known[name]}.")
        found[name] = value
    return found
