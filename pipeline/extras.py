"""What to type for a package that an extra of lanit names and that is not installed."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires


def install(extra: str) -> str:
    """The command that installs what ``extra`` adds. It names the packages themselves: lanit is on no public index."""
    return f"pip install {' '.join(_quoted(package) for package in packages(extra)) or _from_a_clone(extra)}"


def packages(extra: str) -> list[str]:
    """What ``extra`` adds, as pyproject.toml has it; empty where lanit itself is not installed."""
    try:
        found = requires("lanit") or []
    except PackageNotFoundError:
        return []
    of_extra = re.compile(rf"""extra\s*==\s*['"]{re.escape(extra)}['"]""")
    return [each.split(";")[0].strip() for each in found if of_extra.search(each)]


def _quoted(requirement: str) -> str:
    return f'"{requirement}"' if re.search(r"[<>\[]", requirement) else requirement


def _from_a_clone(extra: str) -> str:
    return f'".[{extra}]"'
