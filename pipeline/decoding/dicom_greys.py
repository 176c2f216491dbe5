"""Greys of DICOM to 8 bits: rescale, window or table, and padding, wherever a file keeps them.

pydicom's own functions look at the top level of a file, and Enhanced CT and MR keep all of it in functional groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.decoding.dicom_tables import Table, read_table

if TYPE_CHECKING:
    from pydicom import Dataset

_PADDING = ("PixelPaddingValue", "FloatPixelPaddingValue", "DoubleFloatPixelPaddingValue")
_PADDING_LIMIT = tuple(name.replace("Value", "RangeLimit") for name in _PADDING)


def grey_to_8_bits(frame: np.ndarray, dataset: Dataset, number: int) -> np.ndarray:
    """uint8 (H×W) of a frame (H×W) as stored, the ``number``-th of its file from 0.

    The rescale, or the modality table, then the first window, or the first table of values of interest, then inversion
    where low values are white; without a window or a table, lowest to highest. Padding counts for nothing and is black.
    Attributes of the frame go before those that all frames share, and these before those of the file.
    """
    values = _rescaled(frame, dataset, number)
    padded = _padding(frame, dataset)
    grey = _of_interest(values, dataset, number)
    if grey is None:
        counted = values[np.isfinite(values) & ~padded]
        low, high = (float(counted.min()), float(counted.max())) if counted.size else (0.0, 0.0)
        grey = _stretched(values, low, high)
    if str(dataset.PhotometricInterpretation) == "MONOCHROME1":
        grey = 255 - grey
    grey[padded] = 0
    return grey


def _places(dataset: Dataset, number: int, macro: str) -> Iterator[Dataset]:
    """Where attributes of a macro may stand, that which counts most first."""
    for groups, place in (("PerFrameFunctionalGroupsSequence", number), ("SharedFunctionalGroupsSequence", 0)):
        items = dataset.get(groups) or ()
        if place < len(items):
            yield from list(items[place].get(macro) or ())[:1]
    yield dataset


def _rescaled(frame: np.ndarray, dataset: Dataset, number: int) -> np.ndarray:
    """float32 (H×W), in the units of the modality such as Hounsfield's: C.11.1 of part 3 of the standard."""
    for place in _places(dataset, number, "PixelValueTransformationSequence"):
        table = _table(place, "ModalityLUTSequence", dataset)
        if table is not None:
            return table.look_up(frame).astype(np.float32)
        slope, intercept = _first(place.get("RescaleSlope")), _first(place.get("RescaleIntercept"))
        if slope is not None or intercept is not None:
            # a slope of 0 would make every picture one grey, and is written where none is meant
            return (frame * np.float64(slope or 1) + np.float64(intercept or 0)).astype(np.float32)
    return frame.astype(np.float32)


def _of_interest(values: np.ndarray, dataset: Dataset, number: int) -> np.ndarray | None:
    """uint8 (H×W) by the window or the table that comes with the frame, none where there is neither: C.11.2."""
    for place in _places(dataset, number, "FrameVOILUTSequence"):
        centre, width = _first(place.get("WindowCenter")), _first(place.get("WindowWidth"))
        if centre is not None and width is not None and width > 0:
            return _windowed(values, centre, width, str(place.get("VOILUTFunction") or "LINEAR"))
        table = _table(place, "VOILUTSequence", dataset)
        if table is not None:
            return _rounded(table.look_up(values) * np.float32(255 / (2**table.depth - 1)))
    return None


def _windowed(values: np.ndarray, centre: float, width: float, function: str) -> np.ndarray:
    """C.11.2.1.2 and C.11.2.1.3, for an output of 0–255."""
    if function == "SIGMOID":
        return _rounded(255 / (1 + np.exp(-4 * (values - centre) / width)))
    if function == "LINEAR_EXACT":
        return _stretched(values, centre - width / 2, centre + width / 2)
    return _stretched(values, centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2)


def _stretched(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return _rounded((values - low) * (255 / max(high - low, 1e-6)))


def _table(place: Dataset, sequence: str, dataset: Dataset) -> Table | None:
    """The table in the first item of a sequence, none where it is missing or empty."""
    for item in list(place.get(sequence) or ())[:1]:
        if item.get("LUTDescriptor") and item.get("LUTData"):
            return read_table(item.LUTDescriptor, item.LUTData, little_endian=is_little_endian(dataset))
    return None


def is_little_endian(dataset: Dataset) -> bool:
    return dataset.original_encoding[1] is not False


def _padding(frame: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Which pixels lie outside of what was scanned: those of the padding value, or between it and its limit; bool."""
    value, limit = (
        next((number for name in names if (number := _first(dataset.get(name))) is not None), None)
        for names in (_PADDING, _PADDING_LIMIT)
    )
    if value is None:
        return np.zeros(frame.shape, bool)
    ends = (_as_stored(end, frame) for end in (value, value if limit is None else limit))
    low, high = sorted(ends)
    return (frame >= low) & (frame <= high)


def _as_stored(value: float, frame: np.ndarray) -> Any:
    """A number of the frame's type: padding may be written without its sign."""
    return value if frame.dtype.kind == "f" else np.array(int(value)).astype(frame.dtype)


def _first(value: Any) -> float | None:
    """A number, or the first of several; none where the attribute is missing or empty."""
    values = [value] if isinstance(value, str | float | int) else list(value or [])
    return None if not values or values[0] in (None, "") else float(values[0])


def _rounded(grey: np.ndarray) -> np.ndarray:
    eight: np.ndarray = np.clip(np.rint(np.nan_to_num(grey, nan=0.0)), 0, 255).astype(np.uint8)
    return eight
