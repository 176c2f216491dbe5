"""What ``lanit pair`` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.showing import console

if TYPE_CHECKING:
    from pipeline.labelling.pairs import PairReport


def show_pairs(report: PairReport) -> None:
    console.say(f"{report.pairs:,} pairs in {report.store}: train on them with --preset pix2pix or bicyclegan")
    if report.alone:
        console.warn(f"{report.alone:,} images, or rows of the table, are in no pair: they are not trained on")
