"""The one family of errors that lanit raises on purpose."""

from __future__ import annotations


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
