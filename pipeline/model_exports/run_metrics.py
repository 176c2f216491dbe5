"""What is known about how good a model is: ``metrics.json`` of an export, gathered from its run."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from lanit.errors import LanitError
from pipeline.evaluation.evaluate import RESULT_NAME
from pipeline.files import read_json, sha256_file
from pipeline.model_exports.bundle_folder import METRICS_NAME
from pipeline.training.checkpoints import Bundle

_KEPT = ("protocol", "images", "options", "extractor", "real_features")
"""Of an evaluation; the rest names folders of this machine, or other models."""


def read_metrics(bundle: Bundle, source: Path) -> dict[str, Any]:
    """Figures of a model, as JSON; empty where there are none. source: the folder of its bundle.

    ``training``: of each kind of line in the run's ``metrics.jsonl`` the last up to the step of the model.
    ``evaluation``: what ``lanit evaluate`` found, if it was of these very weights. An export brings its own along.
    """
    if (source / METRICS_NAME).is_file():
        found: dict[str, Any] = read_json(source / METRICS_NAME)
        return found
    run = source.parent
    if not (run / "config.json").is_file():
        return {}
    found = {"training": _of_training(run / "metrics.jsonl", bundle.training.get("steps", 0))}
    with contextlib.suppress(LanitError, KeyError, TypeError, ValueError):  # of another version, or not there
        found["evaluation"] = _of_evaluation(run / RESULT_NAME, source)
    return {name: values for name, values in found.items() if values}


def _of_training(path: Path, steps: int) -> dict[str, Any]:
    last: dict[str, Any] = {}
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    for line in lines:
        value = json.loads(line) if line.endswith("\n") else {}  # else a run is just writing it
        if value.get("step", 0) <= steps and "kind" in value:
            last[value["kind"]] = {name: entry for name, entry in value.items() if name != "kind"}
    return last


def _of_evaluation(path: Path, source: Path) -> dict[str, Any]:
    document = read_json(path)
    (run,) = document["runs"]
    if run["model_sha256"] != sha256_file(source / "model.safetensors"):
        return {}
    spec, _, described = (document["judge"] or "").partition(": ")
    judge = described if Path(spec).is_absolute() else document["judge"]
    warnings = [warning.replace(run["run"], "this model") for warning in document["warnings"]]
    kept = {name: document[name] for name in _KEPT}
    return kept | {"judge": judge, "guides": run["guides"], "warnings": warnings}
