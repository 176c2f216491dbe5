"""What ``lanit translate`` prints about its report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.showing import console

if TYPE_CHECKING:
    from pipeline.translating.translation import TranslateReport


def show_translate(report: TranslateReport) -> None:
    """images = translated + failed."""
    counts = {"images found": report.found, "translated": report.ok, "failed": report.failed}
    if report.done_before:
        counts["of the translated before"] = report.done_before
    if report.results != report.ok:
        counts["files"] = report.results
    console.counts(f"Images to {report.out}", counts)
    if report.images_per_second:
        shares = f"decode {report.waiting:.0%}, model {report.model_share:.0%}, write {report.writing:.0%}"
        console.say(f"{report.images_per_second:,.1f} images/s on {report.device} ({shares})")
    if report.recognised is not None:
        share = console.percent(report.recognised)
        console.say(f"{share} of the labels asked for are seen in the results by {report.reader}")
    console.say(f"one row for each in {report.table}, and the labels asked for in {report.labels}")
    if report.grid is not None:
        console.say(f"sources and translations side by side in {report.grid}")
