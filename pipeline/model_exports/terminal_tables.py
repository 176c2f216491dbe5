"""What ``lanit export-model`` prints about its report."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from pipeline.showing import console

if TYPE_CHECKING:
    from pipeline.model_exports.export_model import ExportModelReport


def show_export_model(report: ExportModelReport) -> None:
    """Its files, how far ONNX is from torch, and what to do with the folder."""
    rows = [(name, f"{size / 1e6:,.2f}") for name, size in report.files.items()]
    console.table(f"{report.domains} domains at {report.image_size} px in {report.out}", ("file", "MB"), rows)
    for name, difference in (report.onnx or {}).items():
        console.say(f"{name}.onnx: at most {difference:.1e} from torch")
    for text in report.warnings:
        console.warn(text)
    typed = shlex.quote(report.out)
    console.say(f"use it: lanit.load({report.out!r}), or --model {typed}; share it: lanit push {typed} OWNER/NAME")
