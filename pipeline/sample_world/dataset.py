"""A folder of drawn faces with their truth, to try every command on."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from lanit.errors import LanitError, UsageError, cannot_write
from pipeline.files import read_json, sealed, temporary_name, write_bytes, write_json
from pipeline.folders import check_folder, locked_folder, plain_file
from pipeline.sample_world.faces import ATTRIBUTES, draw_face, sample_face

TRUTH_NAME = "truth.csv"
MARKER_NAME = ".lanit-faces.json"
_COMMAND = "lanit sample-faces"


def write_faces(
    out: Path, count: int, seed: int = 0, size: int = 64, *, tell: Callable[[str], None] = lambda text: None
) -> Path:
    """Draw faces 0 … ``count`` − 1 of world ``seed`` into ``out`` and return the path of their truth.

    Pictures are ``face-00000.png`` and on, RGB, ``size`` × ``size``. The truth is a CSV file with one row for each:
    ``path`` (relative to ``out``), then a 0 or 1 for each of :data:`ATTRIBUTES`. It is written last, so a folder that
    has it is complete. Same arguments, same bytes. What an interrupted call left is completed; where nothing is
    missing, ``tell`` is called with a sentence that says so.

    Raises UsageError for a count below 1 or a size outside 16 … 1024, LanitError where ``out`` holds faces of other
    arguments, a face that was changed, or anything else.
    """
    if count < 1:
        raise UsageError(f"cannot draw {count} faces", "Try --count 2000.")
    if not 16 <= size <= 1024:
        raise UsageError(f"a face is drawn at 16 to 1024 pixels, not {size}", "Try --size 64.")
    arguments = {"count": count, "seed": seed, "size": size}
    _check(out, arguments)
    with locked_folder(out, "OUT", passing=True):
        marker = _check(out, arguments)
        if marker is None:
            write_json(out / MARKER_NAME, sealed({"arguments": arguments}))
        elif "sha256" in marker and marker["sha256"] == _digest_of(out, count):
            tell(f"{out} already has these faces: nothing drawn")
            return out / TRUTH_NAME
        digest = hashlib.sha256()
        for name, data in _files(count, seed, size):
            _put(out / name, data)
            digest.update(data)
        write_json(out / MARKER_NAME, sealed({"arguments": arguments, "sha256": digest.hexdigest()}))
    return out / TRUTH_NAME


def _check(out: Path, arguments: dict[str, int]) -> dict[str, Any] | None:
    """The marker of a folder of these faces, perhaps not all of them; none where ``out`` is free."""
    check_folder(out, _COMMAND, "folder of faces", lambda folder: plain_file(folder, MARKER_NAME) is not None)
    if plain_file(out, MARKER_NAME) is None:
        return None
    marker = read_json(out / MARKER_NAME, f"Give a new folder: {_COMMAND} DIR")
    held = marker.get("arguments") if isinstance(marker, dict) else None
    if not isinstance(held, dict):
        raise LanitError(f"{out / MARKER_NAME} is damaged", f"Give a new folder: {_COMMAND} DIR")
    if held != arguments:
        given = " ".join(f"--{name} {value}" for name, value in held.items())
        raise LanitError(
            f"{out} holds faces of other arguments: {given}", f"Give these, or a new folder: {_COMMAND} DIR"
        )
    return dict(marker)


def _files(count: int, seed: int, size: int) -> Iterator[tuple[str, bytes]]:
    """Names and contents, the truth last."""
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["path", *ATTRIBUTES])
    for index in range(count):
        face, picture = sample_face(seed, index), io.BytesIO()
        Image.fromarray(draw_face(face, size)).save(picture, "PNG")
        writer.writerow([_face_name(index), *map(int, face.truth)])
        yield _face_name(index), picture.getvalue()
    yield TRUTH_NAME, table.getvalue().encode()


def _face_name(index: int) -> str:
    return f"face-{index:05d}.png"


def _put(path: Path, data: bytes) -> None:
    """Write ``data`` where it is not there yet; what a loss of power left of it is completed. Raises LanitError where
    anything else has its name, and where the disk refuses."""
    if plain_file(path.parent, path.name) is not None:
        found = path.read_bytes()
        if found == data:
            return
        is_cut = data.startswith(found)
    else:
        is_cut = not path.exists() and not path.is_symlink()
    if not is_cut:
        raise LanitError(f"{path} is not as it was drawn", "Move it away and run the same command again.")
    if path.name == TRUTH_NAME:
        write_bytes(path, data)
        return
    temporary = temporary_name(path)
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _digest_of(out: Path, count: int) -> str | None:
    """SHA-256 over all files in order; none where one is missing."""
    digest = hashlib.sha256()
    for name in (*map(_face_name, range(count)), TRUTH_NAME):
        if plain_file(out, name) is None:
            return None
        digest.update((out / name).read_bytes())
    return digest.hexdigest()
