"""Folders that lanit writes: whose one is, its lock, how one appears whole, and removing what is ours alone."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from lanit.errors import LanitError, cannot_write
from pipeline.files import (
    LOCK_NAME,
    exclusive_lock,
    is_temporary,
    sweep_beside,
    sweep_folder,
    sync_folder,
    temporary_name,
    temporary_target,
)

Ours = Callable[[str], bool]
"""Whether a file, by its POSIX path relative to a folder, is one that lanit writes there."""

_VIEWED = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
"""What the system leaves in a folder that somebody looked at: it goes where the folder goes."""

_BARE = _VIEWED | {LOCK_NAME, "README.md", ".gitignore", ".gitkeep"}
"""What a folder may hold and still be free for us: none of it is ever written or removed, but for the lock."""


def is_free(folder: Path, besides: Collection[str] = ()) -> bool:
    """Whether nothing of anybody's is in ``folder``: it is missing, or holds only what a bare folder does.

    besides: names that do not count.
    """
    if not folder.exists():
        return True
    free = _BARE.union(besides)
    return folder.is_dir() and all(path.name in free or is_temporary(path.name) for path in folder.iterdir())


def check_folder(folder: Path, option: str, what: str, is_ours: Callable[[Path], bool]) -> None:
    """Raise LanitError unless ``folder`` is free (:func:`is_free`) or, by ``is_ours``, one that lanit wrote.

    option: as typed, such as ``--out``; what: lanit's name for such a folder, such as "run".
    """
    try:
        if is_free(folder):
            return
        if not folder.is_dir():
            raise LanitError(f"{option} {folder} is a file", "Give a new folder.")
        ours = is_ours(folder)
    except OSError as error:
        raise LanitError(f"cannot read {option} {folder}: {error.strerror or error}", "Give another folder.") from error
    if not ours:
        raise LanitError(
            f"{option} {folder} holds other files and is no {what} of lanit",
            f"Give a new or empty folder: {option} DIR",
        )


@contextlib.contextmanager
def locked_folder(folder: Path, option: str, wait_seconds: float = 0.0, *, passing: bool = False) -> Iterator[None]:
    """Hold ``folder`` as its only writer, and remove what killed ones left half-made right in it; what one of them was
    just replacing comes back (:func:`restore_folders`).

    passing: whether the lock's file goes with its holder, as in folders that are handed to other tools.
    Raises LanitError where another process is writing there, still after ``wait_seconds``, or is about to replace the
    folder (:func:`locked_beside`). A folder made for the lock alone goes with it.
    """
    existed = folder.exists()
    busy = _busy(folder, option)
    try:
        with exclusive_lock(folder / LOCK_NAME, busy, wait_seconds):
            _check_free(_lock_beside(folder), busy)
            restore_folders(folder)
            sweep_folder(folder)
            try:
                yield
            finally:
                if passing:
                    with contextlib.suppress(OSError):
                        (folder / LOCK_NAME).unlink(missing_ok=True)
    finally:
        if not existed:
            remove_if_bare(folder)


@contextlib.contextmanager
def locked_beside(folder: Path, option: str) -> Iterator[None]:
    """Be the only writer of ``folder``, which is replaced whole: the lock lies beside it, and goes with its holder.

    Raises LanitError where another process is writing it, or in it (:func:`locked_folder`).
    """
    lock, busy = _lock_beside(folder), _busy(folder, option)
    with exclusive_lock(lock, busy):
        try:
            _check_free(folder / LOCK_NAME, busy)
            yield
        finally:
            with contextlib.suppress(OSError):
                lock.unlink(missing_ok=True)


def _busy(folder: Path, option: str) -> LanitError:
    return LanitError(f"another lanit command is writing to {folder}", f"Wait for it to end, or give another {option}.")


def _lock_beside(folder: Path) -> Path:
    folder = folder.resolve()
    return folder.with_name(f".{folder.name}{LOCK_NAME}")


def _check_free(lock: Path, busy: LanitError) -> None:
    """Raise ``busy`` where a process holds ``lock``. Who writes in a folder and who replaces it whole each take their
    own lock first and look at the other's then, so that of two at least one sees the other."""
    if lock.exists():
        with exclusive_lock(lock, busy):
            pass


def remove_if_bare(folder: Path) -> None:
    """Remove ``folder`` where it holds nothing but the lock."""
    with contextlib.suppress(OSError):
        if all(path.name == LOCK_NAME for path in folder.iterdir()):
            (folder / LOCK_NAME).unlink(missing_ok=True)
            folder.rmdir()


@contextlib.contextmanager
def appearing_folder(folder: Path, ours: Ours) -> Iterator[Path]:
    """Yield a new folder to fill, which takes the name of ``folder`` on leaving; after an exception it is gone.

    What was there under that name is replaced, file by file of ``ours``. That takes two renames: a process killed
    between them leaves the old folder under a hidden name, which :func:`restore_folder` brings back.
    Raises LanitError where the one before holds anything else, and where the disk refuses.
    """
    filling, retired = temporary_name(folder), temporary_name(folder, "old")
    check_replaceable(folder, ours)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        restore_folder(folder)
        sweep_beside(folder)
        filling.mkdir()
        yield filling
        for path in filling.rglob("*"):
            if path.is_file():
                path.chmod(0o644)  # safetensors makes its files private
                with path.open("rb+") as file:
                    os.fsync(file.fileno())
        if folder.exists():
            check_replaceable(folder, ours)
            folder.replace(retired)
        filling.replace(folder)
        sync_folder(folder.parent)
    except OSError as error:
        raise cannot_write(folder, error) from error
    finally:
        restore_folder(folder)
        for path in (filling, retired):
            remove_ours(path, ours)


def restore_folder(folder: Path) -> None:
    """Where ``folder`` is gone and lies under the hidden name of a process killed as it replaced it, bring it back."""
    if folder.exists():
        return
    with contextlib.suppress(OSError):
        for path in sorted(folder.parent.iterdir()):
            if path.name.endswith(".old") and is_temporary(path.name, of=folder.name):
                path.replace(folder)
                return


def restore_folders(parent: Path) -> None:
    """:func:`restore_folder` for all that a killed process was replacing right in ``parent``, whose lock is held."""
    with contextlib.suppress(OSError):
        for path in list(parent.iterdir()):
            target = temporary_target(path.name)
            if target and path.name.endswith(".old") and path.is_dir():
                restore_folder(parent / target)


def check_replaceable(folder: Path, ours: Ours) -> None:
    """Raise LanitError where ``folder`` holds a file that is not ours, or is a link or a file itself."""
    foreign = foreign_files(folder, ours)
    if foreign == ["."]:
        raise LanitError(f"{folder} is no folder that lanit wrote", "Move it away, or give another folder.")
    if foreign:
        raise LanitError(
            f"{folder} holds {foreign[0]}, which lanit did not write there", "Move it away, or give another folder."
        )


def foreign_files(folder: Path, ours: Ours) -> list[str]:
    """POSIX paths, relative to ``folder``, of what lies there and is not ours; links are never ours. What the
    system left of somebody's look into it does not count."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        return ["."]
    entries = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted(_name(path, folder) for path in entries if not _is_ours(path, folder, ours))


def plain_file(folder: Path, name: str) -> os.stat_result | None:
    """What the file system says of the regular file ``name``, POSIX, below ``folder``; none where there is none, where
    ``name`` leads out of the folder, or passes a link."""
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or Path(name).is_absolute() or first_link(folder, name):
        return None
    try:
        status = (folder / name).lstat()
    except (OSError, ValueError):
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def first_link(folder: Path, name: str) -> str | None:
    """The first link on the way from ``folder`` to ``name`` below it, POSIX, itself included; none without one."""
    path, so_far = folder, []
    for part in name.split("/"):
        path = path / part
        so_far.append(part)
        if path.is_symlink():
            return "/".join(so_far)
    return None


def is_passing(name: str) -> bool:
    """Whether a file, by its POSIX path, is nobody's: a lock, or what the system left of somebody's look."""
    return name == LOCK_NAME or name.rpartition("/")[2] in _VIEWED


def remove_ours(folder: Path, ours: Ours) -> None:
    """Remove the files of ``folder`` that are ours, and it and its folders where nothing else is in them."""
    if folder.is_symlink() or not folder.is_dir():
        return
    for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder before the folder
        with contextlib.suppress(OSError):
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            elif _is_ours(path, folder, ours):
                path.unlink()
    with contextlib.suppress(OSError):
        folder.rmdir()


def _is_ours(path: Path, folder: Path, ours: Ours) -> bool:
    return not path.is_symlink() and (path.name in _VIEWED or ours(_name(path, folder)))


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()
