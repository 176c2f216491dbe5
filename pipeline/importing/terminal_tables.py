"""What ``lanit import`` prints about its report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.embedding.terminal_tables import show_embed
from pipeline.showing import console

if TYPE_CHECKING:
    from pipeline.importing.import_vectors import ImportReport


def show_import(report: ImportReport) -> None:
    """How far the embeddings can be trusted, how many were taken, and the run as ``lanit embed`` has it."""
    console.say(
        f"{report.sampled} images embedded again: cosine to what was given {report.median:.5f} (median), "
        f"{report.least:.5f} (least)"
    )
    console.say(
        f"{report.paired:,} of the {report.rows:,} embeddings in {report.source} have their image; "
        f"{report.imported:,} taken over now"
    )
    show_embed(report.embedding)
