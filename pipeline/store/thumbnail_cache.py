"""Thumbnails kept beside a store: made when they are first looked at, bounded, and made again where they are gone."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.store.store_folder import CACHE_FOLDER
from pipeline.store.store_images import StoreImages

if TYPE_CHECKING:
    from pipeline.store.store import Store

MOST_BYTES = 512 << 20
"""Of thumbnails kept, about 80 000 photographs at 192 pixels; beyond, the oldest give way."""

NAME = f"{CACHE_FOLDER}/thumbnails.sqlite"
_TABLE = "CREATE TABLE IF NOT EXISTS thumbnails (name TEXT PRIMARY KEY, crc32 INTEGER NOT NULL, jpeg BLOB NOT NULL)"
_DECODING = 4  # at once


class ThumbnailCache:
    """Thumbnails of at most ``side`` pixels of the images of ``store``. Safe in threads and among processes.

    They go by the content of their image, so that a renamed or moved image keeps its own. Where the store cannot be
    written, and where the file is damaged beyond use, they are kept in memory, a tenth as many.
    """

    def __init__(self, store: Store, images: StoreImages, side: int, most_bytes: int = MOST_BYTES) -> None:
        self._images, self._side, self._most = images, side, most_bytes
        self._lock, self._decoding = threading.Lock(), threading.Semaphore(_DECODING)
        self._file, self._bytes = self._open(store.root / NAME)

    def close(self) -> None:
        self._file.close()

    def get(self, row: int) -> bytes:
        """A JPEG. Raises ImageError where the image is gone, and ChangedImage where it is another by now."""
        digest = self._images.sha256(row)
        name = None if digest is None else f"{digest}-{self._side}"
        found = None if name is None else self._find(name)
        if found is None:
            with self._decoding:
                found = self._images.thumbnail(row, self._side)
            if name is not None:
                self._keep(name, found)
        return found

    def _open(self, path: Path) -> tuple[sqlite3.Connection, int]:
        for attempt in range(2):
            try:
                path.parent.mkdir(exist_ok=True)
                return _opened(path)
            except (sqlite3.DatabaseError, OSError) as error:
                if attempt or not _is_damage(error):
                    break
                for suffix in ("", "-wal", "-shm"):
                    with contextlib.suppress(OSError):
                        Path(f"{path}{suffix}").unlink()
        self._most //= 10
        return _opened(":memory:")

    def _find(self, name: str) -> bytes | None:
        found = None
        with contextlib.suppress(sqlite3.Error), self._lock:
            found = self._file.execute("SELECT crc32, jpeg FROM thumbnails WHERE name = ?", (name,)).fetchone()
        return found[1] if found and zlib.crc32(found[1]) == found[0] else None

    def _keep(self, name: str, jpeg: bytes) -> None:
        """Or not, where the disk refuses: it is made again the next time."""
        with contextlib.suppress(sqlite3.Error), self._lock, self._file:
            values = (name, zlib.crc32(jpeg), jpeg)
            self._file.execute("INSERT OR REPLACE INTO thumbnails VALUES (?, ?, ?)", values)
            self._bytes += len(jpeg)
            if self._bytes > self._most:
                self._drop_oldest()

    def _drop_oldest(self) -> None:
        """A tenth of what may be kept, so that it happens seldom."""
        goal, freed = self._bytes - self._most + self._most // 10, 0
        for row, size in self._file.execute("SELECT rowid, length(jpeg) FROM thumbnails ORDER BY rowid").fetchall():
            if freed > goal:
                break
            self._file.execute("DELETE FROM thumbnails WHERE rowid = ?", (row,))
            freed += size
        self._bytes -= freed


def _opened(path: Path | str) -> tuple[sqlite3.Connection, int]:
    """The file, and bytes of thumbnails in it. Raises sqlite3.DatabaseError where it is damaged or not to be had."""
    file = sqlite3.connect(path, timeout=1.0, check_same_thread=False)
    try:
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("PRAGMA synchronous = OFF")  # a cache: after a loss of power it may begin anew
        file.execute(_TABLE)
        [[size]] = file.execute("SELECT coalesce(sum(length(jpeg)), 0) FROM thumbnails")
        if path != ":memory:":
            file.execute("UPDATE thumbnails SET crc32 = crc32 WHERE rowid = -1")  # refused where it is read-only
            file.commit()
    except sqlite3.Error:
        file.close()
        raise
    return file, size


def _is_damage(error: Exception) -> bool:
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)
