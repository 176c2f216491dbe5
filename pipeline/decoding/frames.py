"""Which frame of a file that has several: of a DICOM series, pages of a TIFF, an animation."""

from __future__ import annotations

from typing import Literal

from lanit.errors import UsageError
from pipeline.decoding.limits import ImageError

Frame = int | Literal["middle"]
"""A number as DICOM counts, from 1, or the one in the middle, of an even number the earlier of the two."""


def parse_frame(value: str | int) -> Frame:
    """Raises UsageError for what is no frame."""
    text = str(value)
    if text == "middle":
        return "middle"
    if not (text.isascii() and text.isdecimal() and int(text) >= 1):
        raise UsageError(f"'{text}' is no frame", "Give a number from 1 on, or: --frame middle")
    return int(text)


def frame_index(frame: Frame, count: int) -> int:
    """The place of ``frame``, from 0, among ``count``. Raises ImageError where there is none."""
    if frame == "middle":
        return (count - 1) // 2
    if frame > count:
        frames = "frame" if count == 1 else "frames"
        raise ImageError(f"it has {count} {frames}, and frame {frame} was asked for")
    return frame - 1
