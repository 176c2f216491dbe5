"""Results as files: a picture in the format of its name, several as a strip, a GIF or a film."""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import uuid
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image
from simplejpeg import encode_jpeg

from lanit.errors import LanitError, cannot_write
from pipeline.extras import install
from pipeline.files import temporary_name
from pipeline.folders import first_link

JPEG_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif"})
KEPT_SUFFIXES = JPEG_SUFFIXES | {".png", ".webp", ".bmp", ".tif", ".tiff"}
"""Names that a result keeps; what else an image may be called becomes PNG."""

PNG_LEVEL = 1
JPEG_QUALITY = 95
FRAME_SECONDS = 0.1
_BAD_NAME = {errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EINVAL, errno.EILSEQ}
_MP4_HINT = f"Run: {install('video')}, or use --as gif."


def encode_picture(pixels: np.ndarray, name: str) -> bytes:
    """A picture, uint8 (H×W×3), in the format that the suffix of ``name`` says.

    PNG at level 1, a third of the time of level 6 for 5 % more bytes; WebP without loss by its fastest method, since
    with loss it halves the size of the colours and takes three times as long (docs/LOG.md); JPEG at quality 95 with
    colours at full size. So what is learned from results is not blurred by their files.
    """
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in JPEG_SUFFIXES:
        return encode_jpeg(np.ascontiguousarray(pixels), quality=JPEG_QUALITY, colorspace="RGB", colorsubsampling="444")
    sink = io.BytesIO()
    image = Image.fromarray(pixels)
    if suffix == ".webp":
        image.save(sink, "WEBP", lossless=True, method=0, quality=0)
    elif suffix in (".bmp", ".tif", ".tiff"):
        image.save(sink, "BMP" if suffix == ".bmp" else "TIFF")
    else:
        image.save(sink, "PNG", compress_level=PNG_LEVEL)
    return sink.getvalue()


def encode_film(frames: np.ndarray, name: str) -> bytes:
    """Pictures, uint8 (F×S×S×3), by the suffix of ``name``: a GIF or MP4 that plays forth, or one strip, side by side.

    Raises LanitError for MP4 where there is no encoder.
    """
    suffix = PurePosixPath(name).suffix.lower()
    if suffix == ".mp4":
        return _mp4(frames)
    if suffix != ".gif":
        return encode_picture(np.concatenate(list(frames), axis=1), name)
    sink = io.BytesIO()
    images = [Image.fromarray(frame) for frame in frames]
    duration = round(1000 * FRAME_SECONDS)
    images[0].save(sink, "GIF", save_all=True, append_images=images[1:], duration=duration, loop=0)
    return sink.getvalue()


def import_av() -> Any:
    """PyAV, an extra of ours. Raises LanitError where it is not installed."""
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise LanitError("MP4 needs an encoder, which is not installed", _MP4_HINT) from error


def _mp4(frames: np.ndarray) -> bytes:
    av = import_av()
    codec = next((name for name in ("libx264", "libopenh264", "mpeg4") if name in av.codecs_available), None)
    if codec is None:
        raise LanitError("the PyAV that is installed has no encoder for MP4", "Use --as gif.")
    sink = io.BytesIO()
    with av.open(sink, "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=round(1 / FRAME_SECONDS))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        if codec == "libx264":
            stream.options = {"crf": "12"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    return sink.getvalue()


class PictureWriter:
    """Puts files below a folder, each whole or not at all, and never through a link. For threads.

    They are not flushed to disk one by one, which would take longer than making them: a resumed run looks whether they
    have the size that its table says.
    """

    def __init__(self, out: Path, scratch: Path) -> None:
        """scratch: a folder on the same disk, for what is not whole yet; its names are short, whatever the results'."""
        self._out, self._scratch = out, scratch
        self._process = uuid.uuid4().hex[:8]  # other processes, perhaps on other machines, write there too
        self._made: set[Path] = set()

    def write(self, name: str, data: bytes, writer: int) -> str:
        """Why it cannot be written; empty where it is. writer: tells the threads that write apart.

        Raises LanitError where the disk refuses altogether.
        """
        path, temporary = self._out / name, temporary_name(self._scratch / f"{self._process}-{writer}")
        try:
            link = first_link(self._out, name)
            if link is not None:
                return f"its result cannot be written ({link} is a link)"
            if path.parent not in self._made:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._made.add(path.parent)
            temporary.write_bytes(data)
            temporary.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            if error.errno in _BAD_NAME:
                return f"its result cannot be written ({error.strerror})"
            raise cannot_write(path, error) from error
        except ValueError:
            return "its result cannot be written (no file can have this name)"
        return ""
