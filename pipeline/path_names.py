"""One spelling of an image's path, whoever wrote it: the tool that made a tar or a table, or a person."""

from __future__ import annotations


def one_spelling(path: str) -> str:
    """``path`` without ``.`` and doubled slashes: ``./a//b/./c.jpg`` is ``a/b/c.jpg``.

    ``..`` stays, since behind a link it leads elsewhere, and so does a URL. So does a backslash: it may be part of a
    name here (:func:`with_slashes`).
    """
    if not ("//" in path or "./" in path or path.endswith("/.")) or is_address(path):
        return path
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return ("/" if path.startswith("/") else "") + "/".join(parts) or path


def with_slashes(path: str) -> str:
    """``path`` as Windows means it, in the spelling of :func:`one_spelling`: ``a\\b.jpg`` is ``a/b.jpg``."""
    return path if is_address(path) else one_spelling(path.replace("\\", "/"))


def is_address(path: str) -> bool:
    """Whether it is a URL, whose slashes are its own."""
    scheme, mark, _ = path.partition("://")
    return bool(mark) and scheme[:1].isalpha() and "/" not in scheme
