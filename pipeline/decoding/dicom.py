"""DICOM files to 8-bit RGB, by pydicom, which is an extra."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.decoding.limits import ImageError, check_pixels

if TYPE_CHECKING:
    from pydicom import Dataset

_DEFLATED = "1.2.840.10008.1.2.1.99"

# pydicom warns of every value that bends the standard, and real files hold thousands of them
warnings.filterwarnings("ignore", module=r"pydicom\.")


def decode_dicom(data: bytes, max_pixels: int) -> np.ndarray:
    """The first frame of a DICOM file as uint8 (H×W×3), RGB.

    Greys pass the rescale slope and intercept (or modality table), then the file's first window; without a window they
    are stretched from lowest to highest, padding left out. MONOCHROME1 is inverted, so that what is dense is bright
    in every picture. Colours and palettes become 8-bit RGB.
    Raises ImageError for what is not supported or too large, and whatever pydicom raises for damaged files.
    """
    try:
        from pydicom import dcmread
        from pydicom.pixels.utils import pixel_array
    except ImportError as error:
        raise ImageError("DICOM needs pydicom: pip install 'lanit[dicom]'") from error
    if _DEFLATED.encode() in data[:1024]:  # pydicom would inflate it whole, whatever its size
        raise ImageError("deflated DICOM is not supported; save it with another transfer syntax")
    dataset = dcmread(io.BytesIO(data))
    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise ImageError("a DICOM file without a picture")
    check_pixels(int(dataset.Columns), int(dataset.Rows), max_pixels)
    try:
        frame = pixel_array(dataset, index=0)
    except RuntimeError as error:
        if "missing dependencies" not in str(error):
            raise
        syntax = dataset.file_meta.TransferSyntaxUID.name
        hint = "pip install pylibjpeg pylibjpeg-libjpeg"
        raise ImageError(f"its compression, {syntax}, needs another decoder: {hint}") from error
    return _to_rgb(frame, dataset)


def _to_rgb(frame: np.ndarray, dataset: Dataset) -> np.ndarray:
    """uint8 (H×W×3) of a frame (H×W or H×W×3) as stored."""
    from pydicom.pixels.processing import apply_color_lut

    kind = str(dataset.PhotometricInterpretation)
    if kind == "PALETTE COLOR":
        colours = apply_color_lut(frame, dataset)[..., :3]
        return (colours >> 8 if colours.dtype.itemsize == 2 else colours).astype(np.uint8)
    if frame.ndim == 3:
        bits = int(dataset.BitsStored)
        return np.rint(frame * np.float32(255 / (2**bits - 1))).astype(np.uint8)
    grey = _grey(frame, dataset)
    if kind == "MONOCHROME1":
        grey = 255 - grey
    return np.repeat(grey[..., None], 3, axis=2)


def _grey(frame: np.ndarray, dataset: Dataset) -> np.ndarray:
    """uint8 (H×W), windowed: C.11.2.1.2 and C.11.2.1.3 of part 3 of the standard, for an output of 0–255."""
    from pydicom.pixels.processing import apply_modality_lut

    values = apply_modality_lut(frame, dataset).astype(np.float32)
    centre, width = (_first(dataset.get(name)) for name in ("WindowCenter", "WindowWidth"))
    function = str(dataset.get("VOILUTFunction", "LINEAR"))
    if centre is None or width is None or width <= 0:
        padding = dataset.get("PixelPaddingValue")
        counted = values[np.isfinite(values)] if padding is None else values[frame != _as_stored(padding, frame)]
        low, high = (float(counted.min()), float(counted.max())) if counted.size else (0.0, 0.0)
    elif function == "SIGMOID":
        return _rounded(255 / (1 + np.exp(-4 * (values - centre) / width)))
    elif function == "LINEAR_EXACT":
        low, high = centre - width / 2, centre + width / 2
    else:
        low, high = centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
    return _rounded((values - low) * (255 / max(high - low, 1e-6)))


def _first(value: Any) -> float | None:
    """A number, or the first of several; none where the attribute is missing or empty."""
    values = [value] if isinstance(value, str | float | int) else list(value or [])
    return None if not values or values[0] in (None, "") else float(values[0])


def _as_stored(value: int, frame: np.ndarray) -> np.ndarray:
    """A value of the frame's type: padding may be written without its sign."""
    return np.array(value).astype(frame.dtype)


def _rounded(grey: np.ndarray) -> np.ndarray:
    eight: np.ndarray = np.clip(np.rint(np.nan_to_num(grey, nan=0.0)), 0, 255).astype(np.uint8)
    return eight
