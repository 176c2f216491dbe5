"""Errors are brought about by real commands, and what their hints say is typed as it stands."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.breaking.constructions import ROOT, Construction, Made, Record, constructions
from benchmarks.breaking.parallel import each
from benchmarks.breaking.processes import Outcome, must, start
from benchmarks.breaking.results import table
from benchmarks.breaking.typing_hints import typed
from benchmarks.breaking.world import TRAIN, World

SITUATIONS = Path(__file__).with_name("situations.txt")
_OTHER_CLIP = f"cp -r {ROOT}/pipeline/assets/sample-clip clip && sed -i 's/0.5/0.4/' clip/open_clip_config.json"
PATIENCE = 20.0
"""Seconds after which a command that a hint named counts as working."""
_CRASHED = "crashed"
VERDICTS = ("works", "leads on", "the same again", "not to be typed", _CRASHED)
WRONG = ("the same again", "not to be typed", _CRASHED)


@dataclass(frozen=True)
class Situation:
    """parts: of the world; shell: what is done to the copy; before: commands that go well; line: the one that ends in
    an error."""

    parts: tuple[str, ...]
    shell: str
    before: tuple[str, ...]
    line: str


@dataclass(frozen=True)
class Tried:
    """made: the error, none where there was none; ended: its line where that is not as it should be; typed: of each
    command line that the hint gave, the verdict and the last line."""

    situation: Situation
    made: Made | None
    ended: str
    typed: tuple[tuple[str, str, str], ...]


def situations() -> list[Situation]:
    found = []
    for text in SITUATIONS.read_text(encoding="utf-8").splitlines():
        if text and not text.startswith("#"):
            parts, shell, line = map(str.strip, text.split("%%"))
            names = tuple(part.strip() for part in parts.split(",") if part.strip())
            *before, last = map(str.strip, line.replace("{TRAIN}", TRAIN).split("&&"))
            found.append(Situation(names, shell.replace("{CLIP}", _OTHER_CLIP), tuple(before), last))
    return found


def attempt(world: World, trial: tuple[int, Situation]) -> Tried:
    """Bring the error about, then type its hint, each time in a fresh copy."""
    number, situation = trial
    folder, record = world.root / f"situation-{number}", _record()
    try:
        _set_up(world, folder, situation)
        record.take()
        outcome = start(situation.line, folder).wait(PATIENCE)
        noted = [made for made in record.take() if f"error: {_line(made)}" in outcome.errors]
        if outcome.code is None or outcome.crashed or not noted:
            return Tried(situation, None, _ended(outcome), ())
        made, results = noted[-1], []
        for line in typed(made.hint, situation.line, made.message):
            _set_up(world, folder, situation)
            record.take()
            again = start(line, folder).wait(PATIENCE)
            results.append((line, _verdict(again, _line(made), bool(record.take())), again.last_line))
        return Tried(situation, made, "", tuple(results))
    except (RuntimeError, subprocess.CalledProcessError) as error:
        return Tried(situation, None, f"not set up: {error}", ())
    finally:
        shutil.rmtree(folder, ignore_errors=True)


_RECORDS: list[Record] = []


def _record() -> Record:
    """Of this process, made at the first call."""
    if not _RECORDS:
        _RECORDS.append(Record())
    return _RECORDS[0]


def _line(made: Made) -> str:
    return f"{made.message}. {made.hint}" if made.hint else made.message


def _set_up(world: World, folder: Path, situation: Situation) -> None:
    world.trial(folder.name, situation.parts)
    if (folder / "s").exists():
        (folder / "s").rename(folder / "manifests")
    if situation.shell:
        subprocess.run(["sh", "-c", situation.shell], cwd=folder, check=True, capture_output=True)
    for line in situation.before:
        must(line, folder)


def _ended(outcome: Outcome) -> str:
    """Of a command that did not end in an error of lanit's."""
    if outcome.code is None or not outcome.code:
        return "goes on and on" if outcome.code is None else "no error"
    return f"{_CRASHED}, {outcome.last_line}" if outcome.crashed else outcome.last_line


def _verdict(outcome: Outcome, message: str, ours: bool) -> str:
    """ours: whether lanit itself made an error, not what reads its command line."""
    if outcome.code is None or outcome.code == 0:
        return "works"
    if outcome.crashed:
        return _CRASHED
    if f"error: {message}" in outcome.errors:
        return "the same again"
    return "leads on" if ours else "not to be typed"


def run_part(world: World, some: int | None, jobs: int) -> bool:
    """Try all situations, or ``some``; print what their hints were worth; whether all of them work or lead on."""
    chosen = list(enumerate(situations()))
    if some is not None:
        chosen = chosen[:: max(len(chosen) // some, 1)]
    tried = list(each(partial(attempt, world), chosen, jobs, "situations"))
    places = constructions()
    raised = {
        place: [one for one in tried if one.made and one.made.file == place.file
                and place.first <= one.made.line <= place.last]
        for place in places
    }  # fmt: skip
    rows: list[list[object]] = []
    for title, of_kind in (
        ("with a command or an option", [place for place in places if place.typeable]),
        ("of another kind", [place for place in places if not place.typeable]),
        ("all", places),
    ):
        met = [one for place in of_kind for one in raised[place]]
        verdicts = Counter(verdict for one in met for _, verdict, _ in one.typed)
        rows.append([title, len(of_kind), sum(bool(raised[place]) for place in of_kind), len(met),
                     *(verdicts[verdict] for verdict in VERDICTS)])  # fmt: skip
    columns = ["hints", "in the source", "raised", "situations", *(f"typed: {verdict}" for verdict in VERDICTS)]
    print(f"\n## Hints: {len(tried)} situations\n")
    print(table(columns, rows))
    missed = [place for place in places if place.typeable and not raised[place]] if some is None else []
    return _show(tried, missed)


def _show(tried: list[Tried], missed: list[Construction]) -> bool:
    """Print the hints that led nowhere, and what was not tried; whether there is none of the former."""
    kept = True
    for one in tried:
        for line, verdict, last in one.typed:
            if verdict in WRONG:
                kept = False
                print(f"- {verdict}: `lanit {one.situation.line}` ended with `{_line(one.made) if one.made else ''}`; "
                      f"typed `lanit {line}`: `{last}`")  # fmt: skip
        if one.made is None:
            kept &= not one.ended.startswith(_CRASHED)
            shell = f" after `{one.situation.shell}`" if one.situation.shell else ""
            print(f"- not brought about: `lanit {one.situation.line}`{shell}: {one.ended}")
    if missed:
        print(f"\nNot raised, of those with a command or an option: {len(missed)}\n")
    for place in missed:
        print(f"- {place.file}:{place.first}: {place.message} | {place.hint}")
    return kept
