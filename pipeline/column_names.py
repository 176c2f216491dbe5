"""Names of columns beside those of phrases, which may be called anything."""

from __future__ import annotations

from collections.abc import Sequence


def own_columns(names: Sequence[str], phrases: Sequence[str]) -> list[str]:
    """``names`` of columns of ours, in a table with a column for each of ``phrases``.

    Readers find a phrase by its name, so a column of ours that is called the same, but for case and "_" for a space,
    gives way: ``path`` becomes ``lanit_path``.
    """
    taken = {_plain(phrase) for phrase in phrases}
    found = []
    for name in names:
        while _plain(name) in taken:
            name = f"lanit_{name}"
        taken.add(_plain(name))
        found.append(name)
    return found


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())
