"""Batches of JPEG decoded and resized on a CUDA device (nvJPEG)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from lanit.preprocessing import ClipPreprocessing
from pipeline.decoding.clip_input import FLIPS, Decoded, JpegHeader, decode_for_clip, read_jpeg_header
from pipeline.decoding.frames import Frame
from pipeline.decoding.limits import MAX_PIXELS, ImageError

_TAIL = 64  # bytes within which a whole JPEG ends; nvJPEG does not say when one is cut short

warnings.filterwarnings("ignore", "The image decoding", DeprecationWarning)  # of torchvision, for torchcodec


def decode_batch(
    datas: Sequence[bytes],
    preprocessing: ClipPreprocessing,
    device: torch.device,
    max_pixels: int = MAX_PIXELS,
    frame: Frame | None = None,
) -> list[Decoded | ImageError]:
    """What :func:`pipeline.decoding.clip_input.decode_for_clip` gives for each image, the pixels on ``device``;
    failures as values.

    Whole JPEGs in RGB or grey are decoded by nvJPEG and resized on the device; what it refuses, and everything else, on
    the CPU. nvJPEG rounds and interpolates colours in its own way, so that pixels differ by a few levels.
    """
    results: list[Decoded | ImageError | None] = [None] * len(datas)
    first = frame in (None, 1, "middle")  # a JPEG has no other
    fit = {place: _fit_for_device(data, max_pixels) for place, data in enumerate(datas) if first}
    headers = {place: header for place, header in fit.items() if header is not None}
    places = list(headers)
    for place, pixels in zip(places, _decode([datas[place] for place in places], device), strict=True):
        if pixels is not None:
            results[place] = _prepare(pixels, headers[place], preprocessing)
    return [
        _on_cpu(data, preprocessing, device, max_pixels, frame) if result is None else result
        for result, data in zip(results, datas, strict=True)
    ]


def _fit_for_device(data: bytes, max_pixels: int) -> JpegHeader | None:
    header = read_jpeg_header(data) if b"\xff\xd9" in data[-_TAIL:] else None
    return header if header is not None and header.width * header.height <= max_pixels else None


def _decode(datas: Sequence[bytes], device: torch.device) -> list[Tensor | None]:
    """uint8 (3×H×W) on the device, none for what cannot be decoded there."""
    if not datas:
        return []
    buffers = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in datas]
    try:
        decoded: list[Tensor | None] = decode_jpeg(buffers, ImageReadMode.RGB, device)
        return decoded
    except RuntimeError:  # one bad image, or too many for its memory: one by one
        return [None] if len(datas) == 1 else [_decode([data], device)[0] for data in datas]


def _prepare(pixels: Tensor, header: JpegHeader, preprocessing: ClipPreprocessing) -> Decoded | None:
    """None where the device's memory runs out."""
    try:
        scaled = preprocessing.scale(pixels[None])
        turned = scaled.mT if header.orientation >= 5 else scaled
        fitted = preprocessing.fit(turned.flip([axis - 2 for axis in FLIPS[header.orientation]]))[0]
    except torch.OutOfMemoryError:
        return None
    width, height = (header.width, header.height) if header.orientation < 5 else (header.height, header.width)
    return Decoded(fitted, width, height)


def _on_cpu(
    data: bytes, preprocessing: ClipPreprocessing, device: torch.device, max_pixels: int, frame: Frame | None
) -> Decoded | ImageError:
    try:
        decoded = decode_for_clip(data, preprocessing, max_pixels, frame)
    except ImageError as error:
        return error
    return Decoded(decoded.pixels.to(device), decoded.width, decoded.height)
