"""Folders that no person put there: hidden ones, and what NAS boxes and systems keep for themselves."""

from __future__ import annotations

from pipeline.decoding.images import is_image_name

_SYSTEM_FOLDERS = frozenset(
    {
        *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot"),  # Synology and QNAP
        *("~snapshot", "lost+found"),  # NetApp; Linux
        *("__macosx", "$recycle.bin", "system volume information"),  # zips made by a Mac; Windows
    }
)


def is_system_folder(name: str) -> bool:
    """Whether a folder of this name holds thumbnails, deleted files or other copies, such as ``@eaDir``."""
    return name.lower() in _SYSTEM_FOLDERS


def is_image_member(name: str) -> bool:
    """Whether a member of a tar or zip counts as an image, as a file would that lies in a folder."""
    if not is_image_name(name):
        return False
    folders = name.split("/")[:-1]
    return not any(is_system_folder(part) or (part.startswith(".") and part not in (".", "..")) for part in folders)
