"""What ``lanit export-model``, ``push`` and ``pull`` print about their reports."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.model_exports.bundle_folder import ONNX_FOLDER, PAGE_NAME
from pipeline.showing import console

if TYPE_CHECKING:
    from pipeline.model_exports.export_model import ExportModelReport
    from pipeline.model_exports.sharing import PullReport, PushReport


def show_export_model(report: ExportModelReport) -> None:
    """Its files, how far ONNX is from torch, and what to do with the folder."""
    rows = [(name, f"{size / 1e6:,.2f}") for name, size in report.files.items()]
    console.table(f"{report.domains} domains at {report.image_size} px in {report.out}", ("file", "MB"), rows)
    for name, difference in (report.onnx or {}).items():
        console.say(f"{name}.onnx: at most {difference:.1e} from torch")
    for text in report.warnings:
        console.warn(text)
    typed = shlex.quote(report.out)
    if report.page_alone is not None:
        console.say(_how_to_open(Path(report.out) / ONNX_FOLDER, report.page_alone))
    console.say(f"use it: lanit.load({report.out!r}), or --model {typed}; share it: lanit push {typed} OWNER/NAME")


def _how_to_open(folder: Path, alone: bool) -> str:
    """What to do with the page that translates in a browser."""
    if alone:
        return f"in a browser: open {folder / PAGE_NAME}, which needs nothing else"
    served = f"python -m http.server --bind 127.0.0.1 --directory {shlex.quote(str(folder))}"
    return f"in a browser: {served}, then open http://127.0.0.1:8000/{PAGE_NAME}"


def show_push(report: PushReport) -> None:
    if report.out is not None:
        typed = shlex.quote(report.out)
        console.say(f"{len(report.files)} files of a Space are in {report.out}; look at it: python {typed}/app.py")
        return
    console.say(f"{len(report.files)} files of {report.folder} are at {report.url}")
    if report.space:
        console.say(f"it is built there, and opens at huggingface.co/spaces/{report.repository}")
        return
    console.say(f"use them anywhere: lanit translate IN --model {report.repository} …")


def show_pull(report: PullReport) -> None:
    console.say(f"{len(report.files)} files of {report.repository} are in {report.out}")
