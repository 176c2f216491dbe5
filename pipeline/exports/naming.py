"""Names of exported files and folders: valid on every system, unique, and with the suffix of what is in the file."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.decoding.images import is_image_name

_MAGIC = (
    (rb"\xff\xd8\xff", "jpg"),
    (rb"\x89PNG\r\n\x1a\n", "png"),
    (rb"GIF8[79]a", "gif"),
    (rb"RIFF.{4}WEBP", "webp"),
    (rb"BM", "bmp"),
    (rb"II\*\0|MM\0\*|II\+\0|MM\0\+", "tif"),
    (rb"P[14]\s", "pbm"),
    (rb"P[25]\s", "pgm"),
    (rb"P[36]\s", "ppm"),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "jp2"),
    (rb".{4}ftypavi[fs]", "avif"),
    (rb".{4}ftyp(hei[cmsx]|hev[cx]|mif1|msf1)", "heic"),
    (rb".{128}DICM", "dcm"),
)
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f-\x9f\ud800-\udfff/\\:*?"<>|]')
_LONGEST = 180  # bytes of a name, of the 255 that file systems take: tools add to them
_SEPARATOR = "__"
_DEVICES = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"} | {
    f"{port}{digit}" for port in ("COM", "LPT") for digit in "0123456789¹²³"
}
"""What Windows takes for a device, whatever follows after a dot."""


def suffix_of(data: bytes, path: str) -> str:
    """Suffix, without the dot, for the format of ``data``; where that is unknown, that of ``path``, or "bin"."""
    for pattern, suffix in _MAGIC:
        if re.match(pattern, data, re.DOTALL):
            return suffix
    named = PurePosixPath(path).suffix[1:].lower()
    return named if named.isascii() and named.isalnum() else "bin"


def folder_names(names: Sequence[str], reserved: Sequence[str] = ()) -> tuple[str, ...]:
    """A name of a folder for each of ``names``, those in ``reserved`` kept for others; equal in no case, nor where a
    system takes two ways to write a letter for one."""
    taken = {_as_compared(name) for name in reserved}
    made = []
    for name in names:
        safe, number = _safe_folder(name), 1
        while _as_compared(made_name := safe if number == 1 else f"{safe}-{number}") in taken:
            number += 1
        taken.add(_as_compared(made_name))
        made.append(made_name)
    return tuple(made)


def _safe_folder(name: str) -> str:
    safe = _shortened(_FORBIDDEN.sub("_", name).strip(". "), "").rstrip(". ") or "_"
    return f"_{safe}" if _is_device(safe) else safe


def _is_device(name: str) -> bool:
    return name.partition(".")[0].rstrip().upper() in _DEVICES


def _as_compared(name: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


class FileNames:
    """Flat names for images that lie in a tree: ``a/b/1.jpg`` becomes ``a__b__1.jpg``.

    An image whose name would meet another's, or does not tell its format, gets its image_id into the name as well.
    """

    def __init__(self, paths: pa.ChunkedArray, *, by_stem: bool = False) -> None:
        """paths: of all the images to name, of one source or several. by_stem: names are to differ without their
        suffixes too."""
        lowered = pc.utf8_lower(pc.replace_substring(paths, "/", _SEPARATOR))
        self._compared = _without_suffix if by_stem else str
        if by_stem:
            lowered = pa.chunked_array([pa.array(map(_without_suffix, lowered.to_pylist()), pa.string())])
        counts = pc.value_counts(lowered)
        twice = counts.filter(pc.greater(pc.struct_field(counts, "counts"), 1))
        self._twice = set(pc.struct_field(twice, "values").to_pylist())

    def name(self, path: str, image_id: str, data: bytes | None) -> str:
        """data: of the image, asked for its format where ``path`` has no suffix of an image."""
        flat = path.replace("/", _SEPARATOR)
        pure = PurePosixPath(flat)
        known = is_image_name(flat)
        stem, suffix = (pure.stem, pure.suffix) if known else (flat, f".{suffix_of(data or b'', '')}")
        safe = _FORBIDDEN.sub("_", stem).strip(" ").lstrip(".")
        is_odd = not known or safe != stem or len(safe.encode()) > _LONGEST or _is_device(safe)
        if is_odd or self._compared(flat.lower()) in self._twice:
            return _shortened(safe, f"~{image_id}") + suffix
        return safe + suffix


def _without_suffix(name: str) -> str:
    return PurePosixPath(name).stem


def _shortened(name: str, end: str) -> str:
    """``name`` cut to what leaves room for ``end``, whole characters only, and ``end``."""
    return name.encode()[: _LONGEST - len(end)].decode(errors="ignore") + end
