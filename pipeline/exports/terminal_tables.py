"""What ``lanit export`` prints about its report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.showing import console

if TYPE_CHECKING:
    from pipeline.exports.export import ExportReport


def show_export(report: ExportReport) -> None:
    """Images of each label or folder; images = exported + missing + left out + failed; what reads the result."""
    if not report.created:
        console.note(f"{report.out} already has this export: nothing written (--overwrite writes it anew)")
    if report.groups:
        source = f"label revision {report.revision}"
        console.table(f"Exported from {source}", ("", "images"), [(n, f"{c:,}") for n, c in report.groups.items()])
    entries = {"images": report.images, "exported": report.exported, "missing or changed": report.missing}
    console.counts("Images of the store", entries | {"left out": report.left_out, "failed to embed": report.failed})
    if report.missing_list is not None:
        console.say(f"those missing are listed in {report.missing_list}")
    console.say(f"{report.files:,} files in {report.out}; read them with:")
    console.say(report.read_by)
