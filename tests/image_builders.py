"""Image files for tests, some of kinds that Pillow cannot write."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image


def picture(mode: str = "RGB", width: int = 60, height: int = 44) -> Image.Image:
    """Smooth colours with some noise."""
    rows, columns = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).integers(0, 20, (height, width))
    image = np.stack([rows * 220 // height, columns * 220 // width, (rows + columns) % 200], 2) + noise[..., None]
    return Image.fromarray(image.astype(np.uint8)).convert(mode)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """The data of a file of that format."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def png(width: int, height: int, bits: int, colour: int, raw: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of scan lines ``raw``, each with its filter byte, with ``chunks`` (name, content) before them."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(raw, 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(name, content) for name, content in parts)


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def tiff(pixels: np.ndarray, **changes: int) -> bytes:
    """A little-endian TIFF of one strip. changes: tags to set, as ``t262=0``; width, height and type follow pixels."""
    height, width = pixels.shape[:2]
    samples = pixels.shape[2] if pixels.ndim == 3 else 1
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    data = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    bits = 8 * pixels.dtype.itemsize
    tags = {256: width, 257: height, 259: 1, 262: 2 if samples == 3 else 1, 273: 8, 277: samples, 278: height}
    tags |= {279: len(data), 258: bits, 339: kind} | {int(name[1:]): value for name, value in changes.items()}
    start = 8 + len(data) + 6 * samples * 2
    entries = b""
    for tag, value in sorted(tags.items()):
        if tag in (258, 339) and samples > 1:  # one value for each colour, behind the pixels
            entries += struct.pack("<HHII", tag, 3, samples, 8 + len(data) + (6 * samples if tag == 339 else 0))
        else:
            entries += struct.pack("<HHII", tag, 4, 1, value)
    arrays = b"".join(struct.pack("<H", tags[tag]) * samples + bytes(4 * samples) for tag in (258, 339))
    return struct.pack("<2sHI", b"II", 42, start) + data + arrays + struct.pack("<H", len(tags)) + entries + bytes(4)


def jpeg_segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def dicom(pixels: np.ndarray, syntax: str = "1.2.840.10008.1.2.1", **values: str | int) -> bytes:
    """An explicit little-endian DICOM file of greys (H×W) or colours (H×W×3), 8 or 16 bits.

    values: attributes beside or instead of those that follow from pixels, by tag: ``x00281050="40"``; ints are 16-bit.
    """
    height, width = pixels.shape[:2]
    bits = 8 * pixels.dtype.itemsize
    attributes: dict[str, str | int] = {
        "x00280002": 1 if pixels.ndim == 2 else 3,
        "x00280004": "MONOCHROME2" if pixels.ndim == 2 else "RGB",
        **({} if pixels.ndim == 2 else {"x00280006": 0}),
        **{"x00280010": height, "x00280011": width, "x00280100": bits, "x00280101": bits, "x00280102": bits - 1},
        "x00280103": int(pixels.dtype.kind == "i"),
    }
    body = b"".join(_dicom_element(tag, value) for tag, value in sorted((attributes | values).items()))
    data = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    data += bytes(len(data) % 2)
    body += struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW" if bits == 16 else b"OB", 0, len(data)) + data
    meta = _dicom_element("x00020010", syntax, b"UI")
    return bytes(128) + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(meta)) + meta + body


def _dicom_element(tag: str, value: str | int, kind: bytes | None = None) -> bytes:
    group, element = int(tag[1:5], 16), int(tag[5:], 16)
    if isinstance(value, int):
        return struct.pack("<HH2sHH", group, element, b"US", 2, value)
    text = value.encode()
    text += (b"\0" if kind == b"UI" else b" ") * (len(text) % 2)
    letters = kind or (b"CS" if value[:1].isalpha() else b"DS")
    return struct.pack("<HH2sH", group, element, letters, len(text)) + text
