"""What is known about how good a model is: ``metrics.json`` of an export, gathered from its run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lanit.errors import LanitError
from pipeline.files import read_json, sha256_file
from pipeline.model_exports.bundle_folder import METRICS_NAME
from pipeline.models.bundle import Bundle
from pipeline.models.metric_lines import begins_with, read_lines
from pipeline.models.run_folder import BUNDLE_FILES, CONFIG, METRICS, RESULT_NAME, STATE_FILE, checkpoints

WEIGHTS = BUNDLE_FILES[1]
OF_MODEL = "model_sha256"
"""In ``metrics.json``: the digest of the weights beside it, which are what the figures are of."""
_KEPT = ("protocol", "images", "options", "extractor", "real_features")
"""Of an evaluation; the rest names folders of this machine, or other models."""


def read_metrics(bundle: Bundle, source: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Figures of a model, as JSON; empty where there are none. Then what was left out, and why.

    source: the folder of the bundle. ``training``: of each kind of line in the run's ``metrics.jsonl`` the last up to
    the step of the model. ``evaluation``: what ``lanit evaluate`` found, if it was of these very weights. An export
    brings its own along.
    """
    if (source / METRICS_NAME).is_file():
        try:
            found = read_json(source / METRICS_NAME)
        except LanitError as error:
            return {}, (f"the figures are left out: {error.message}",)
        if found.pop(OF_MODEL, None) not in (None, sha256_file(source / WEIGHTS)):
            return {}, (f"the figures are left out: {source / METRICS_NAME} is of another model",)
        return found, ()
    run = source.parent
    if not (run / CONFIG).is_file():
        return {}, ()
    warnings = []
    lines, damaged = read_lines(run / METRICS)
    if damaged:
        warnings.append(f"{damaged} damaged lines of {run / METRICS} are left out")
    elif not _as_written(run):
        warnings.append(f"{run / METRICS} lacks lines that the run wrote, or has others: check the figures of training")
    figures = {"training": _of_training(lines, bundle.training.get("steps", 0))}
    if (run / RESULT_NAME).exists():
        try:
            figures["evaluation"] = _of_evaluation(run / RESULT_NAME, source)
        except LanitError as error:
            warnings.append(f"the evaluation is left out: {error.message}")
        except (AttributeError, KeyError, TypeError, ValueError):
            warnings.append(f"the evaluation is left out: {run / RESULT_NAME} is damaged, or of another lanit")
    return {name: values for name, values in figures.items() if values}, tuple(warnings)


def _as_written(run: Path) -> bool:
    """Whether the lines are those that the newest checkpoint knows of, where there is one that says."""
    found = checkpoints(run)
    try:
        record = read_json(found[-1] / STATE_FILE).get("metrics") if found else None
    except LanitError:
        return True  # of the checkpoint, training tells
    return record is None or begins_with(run / METRICS, record)


def _of_training(lines: list[dict[str, Any]], steps: int) -> dict[str, Any]:
    last: dict[str, Any] = {}
    for line in lines:
        if line["step"] <= steps:
            last[line["kind"]] = {name: entry for name, entry in line.items() if name != "kind"}
    return last


def _of_evaluation(path: Path, source: Path) -> dict[str, Any]:
    document = read_json(path)
    (run,) = document["runs"]
    if run["model_sha256"] != sha256_file(source / WEIGHTS):
        raise LanitError(f"{path} is of other weights", "Run lanit evaluate again.")
    spec, _, described = (document["judge"] or "").partition(": ")
    judge = described if Path(spec).is_absolute() else document["judge"]
    warnings = [warning.replace(run["run"], "this model") for warning in document["warnings"]]
    kept = {name: document[name] for name in _KEPT}
    return kept | {"judge": judge, "guides": run["guides"], "warnings": warnings}
