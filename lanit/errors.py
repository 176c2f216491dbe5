"""The one family of errors that lanit raises on purpose."""

from __future__ import annotations

import errno
from collections.abc import Sequence

_FULL = (errno.ENOSPC, errno.EDQUOT)


class LanitError(Exception):
    """Something the user can mend.

    message: what is wrong, one line, no full stop at the end.
    hint: what to type or do next, one sentence.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = " ".join(message.split())
        self.hint = " ".join(hint.split())
        super().__init__(f"{self.message}. {self.hint}" if hint else self.message)


class UsageError(LanitError):
    """The command line or an option is wrong: exit code 2."""

    exit_code = 2


def cannot_write(path: object, error: OSError, otherwise: str = "") -> LanitError:
    """What to raise where the disk refuses to write ``path``. otherwise: what may be done instead of mending that."""
    return LanitError(f"cannot write {path}: {error.strerror or error}", disk_hint(error, otherwise))


def disk_hint(error: OSError, otherwise: str = "") -> str:
    """What to do where the disk refuses."""
    mend = "Free some space" if error.errno in _FULL else "Check the disk and its permissions"
    return f"{mend} and run the same command again: it goes on{otherwise and f', or {otherwise}'}."


def excerpt(text: str, length: int = 80) -> str:
    """``text`` as a message quotes it: its beginning, where it is longer than ``length`` characters."""
    return text if len(text) <= length else f"{text[: length - 1].rstrip()}…"


def listed(names: Sequence[str], most: int = 8) -> str:
    """Names as a message lists them: at most ``most``, each as :func:`excerpt` has it, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(excerpt(name) for name in names[:most]) + more
