"""What ``lanit doctor`` prints."""

from __future__ import annotations

from itertools import groupby

from pipeline.doctor.checks import Check, Examination
from pipeline.showing import console

_MARKS = {"ok": "", "missing": "-", "problem": "!"}


def show_examination(found: Examination) -> None:
    for kind, checks in groupby(found.checks, key=lambda check: check.kind):
        rows = [(_MARKS[check.state], check.name, _said(check)) for check in checks]
        console.table(kind.capitalize(), (), [(f"{mark:1} {name}", said) for mark, name, said in rows], left=2)
    console.say("-: not there, and needed for that alone")
    count = len(found.problems)
    console.say("nothing is wrong" if not count else f"!: {count} that lanit will not work without")


def _said(check: Check) -> str:
    return f"{check.found}. Type: {check.hint}" if check.hint else check.found
