"""Every file that lanit wrote is damaged, and what reads it must give the same, refuse, or make it again."""

from __future__ import annotations

import os
import random
import re
import shutil
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.breaking.damage import KINDS, damage, same_file_of
from benchmarks.breaking.parallel import each
from benchmarks.breaking.processes import Outcome, run
from benchmarks.breaking.results import Tree, differences, is_leftover, said, table, tree
from benchmarks.breaking.world import EVALUATE, EXPORTS, TRAIN, TRANSLATE, World

_CACHE = re.compile(r"s/(cache|index)/")
VERDICTS = ("same", "made again", "refused", "told", "silently other", "crashed")
WRONG = ("silently other", "crashed")

_LOOK = ("search smiling --store s --json", "inspect-labels --store s --json")
_STORE = (
    *_LOOK,
    "duplicates --store s --json",
    "export --to clip-retrieval --out x --store s",
    "label --prompts ../others.txt --store s",
    "embed ../faces ../more --store s",
)
_TRAIN = f"{TRAIN} --store s --revision 2 --out run"
_TRAIN_NEW = f"{TRAIN} --store s --revision 2 --steps 1 --out new"
_EVALUATE = f"{EVALUATE} --store s run"
_SHOW = "translate ../more --seed 3 --to smiling --out y --model"
_EXPORT = {
    layout: f"export --store s --revision 6 --to {layout} --out ex-{layout} {options}"
    for layout, options in EXPORTS.items()
}


@dataclass(frozen=True)
class Reading:
    """Files and what reads them. parts: copied for a trial; files: those damaged, a pattern below the trial's folder.

    commands: each must give what it gives undisturbed: the files and, with ``--json``, what it prints. {number}: of a
    label revision.
    """

    title: str
    parts: tuple[str, ...]
    files: str
    commands: tuple[str, ...]


READINGS = [
    Reading("store.json", ("s",), r"s/store\.json", _STORE),
    Reading("images table", ("s",), r"s/images/.*", _STORE),
    Reading(
        "label revision",
        ("s",),
        r"s/labels/r0*(?P<number>\d+)\.parquet",
        (
            "inspect-labels --revision {number} --store s --json",
            "export --to csv --margins --revision {number} --out x --store s",
            "inspect-labels --compare {number} 1 --csv flips.csv --store s --json",
            "label --prompts ../prompts.txt --store s",
        ),
    ),
    Reading(
        "labels by people", ("s",), r"s/(labels/(?!r\d)|(?!labels|images|index|cache)[^/]+/).*", (_TRAIN_NEW, *_STORE)
    ),
    Reading("index", ("s",), r"s/index/.*", ("search smiling --store s --json", "index --store s")),
    Reading("cache of words", ("s",), r"s/cache/words.*", ("suggest-prompts --store s --json",)),
    Reading("cache of images", ("s",), r"s/cache/images.*", (_TRAIN_NEW,)),
    Reading("cache of an evaluation", ("s", "run"), r"s/cache/evaluation.*", (_EVALUATE,)),
    Reading("run, interrupted", ("short-s", "short-run"), r"run/(checkpoints/.*|[^/]*)", (f"{_TRAIN} --steps 4",)),
    Reading(
        "run: options, metrics",
        ("s", "run"),
        r"run/[^/]*\.jsonl?",
        (f"{_TRAIN} --steps 4", "export-model run --out x", f"{_SHOW} run"),
    ),
    Reading("run, continued", ("s", "run"), r"run/(model|best|checkpoints)/.*", (f"{_TRAIN} --steps 5",)),
    Reading(
        "run: model",
        ("s", "run"),
        r"run/model/.*",
        (f"{_SHOW} run", "export-model run --out x", "label --prompts run --store s", _EVALUATE, f"{_TRAIN} --steps 4"),
    ),
    Reading("run: best", ("run",), r"run/best/.*", (f"{_SHOW} run/best", "export-model run/best --out x")),
    Reading(
        "exported model",
        ("s", "em"),
        r"em/(?!README).*",
        (f"{_SHOW} em", "export-model em --out x", "label --prompts em --store s"),
    ),
    Reading(
        "translations",
        ("run", "out"),
        r"out/.*(?<!\.png)",
        (
            f"{TRANSLATE} --model run --out out",
            "translate ../more --seed 3 --to smiling --model run --out out --overwrite",
        ),
    ),
    *(
        Reading(f"export: {layout}", ("s", f"ex-{layout}"), rf"ex-{layout}/.*(?<!\.png)", (line, f"{line} --overwrite"))
        for layout, line in _EXPORT.items()
    ),
    Reading(
        "embedding, interrupted", ("half-s",), r"s/images/.*", ("embed ../faces --clip sample --store s", _LOOK[0])
    ),
    Reading(
        "translations, interrupted",
        ("run", "half-out"),
        r"out/.*(?<!\.png)",
        (f"{TRANSLATE} --model run --out out",),
    ),
    Reading(
        "export, interrupted", ("s", "half-export"), r"\.ex.*(?<!\.png)", ("export --to folders --store s --out ex",)
    ),
]


@dataclass(frozen=True)
class Trial:
    """One damage. kind: of damage; reading: number in READINGS; file: below the folder of the trial."""

    number: int
    kind: str
    reading: int
    file: str


@dataclass(frozen=True)
class Result:
    """What became of a trial. how: the damage in words; detail: what differs, or the line that refused."""

    trial: Trial
    verdict: str
    how: str
    detail: str


@dataclass(frozen=True)
class Reference:
    """An undisturbed trial: what its commands printed, and the files before and after them."""

    printed: tuple[str, ...]
    warnings: tuple[tuple[str, ...], ...]
    before: Tree
    after: Tree


def reference(world: World, number: int) -> tuple[list[str], dict[str, Reference]]:
    """Files of a reading, and by the commands (with the number of a revision in them) the reference of each."""
    reading = READINGS[number]
    folder = world.trial(f"reference-{number}", reading.parts)
    before = tree(folder)
    files = [
        name for name in before
        if re.fullmatch(reading.files, name) and not is_unread(name) and (folder / name).stat().st_size
    ]  # fmt: skip
    found: dict[str, Reference] = {}
    for name in files:
        lines = commands(reading, name)
        if "\n".join(lines) not in found:
            folder = world.trial(f"reference-{number}", reading.parts)
            found["\n".join(lines)] = undisturbed(folder, lines, before)
    return files, found


def undisturbed(folder: Path, lines: list[str], before: Tree, refused: tuple[bool, ...] = ()) -> Reference:
    """What the commands do to an undamaged folder; those that are ``refused`` by a damaged one are left out."""
    printed: list[str] = []
    warnings: list[tuple[str, ...]] = []
    for number, line in enumerate(lines):
        if refused and refused[number]:
            printed.append("")
            warnings.append(())
            continue
        outcome = run(line, folder)
        if outcome.code:
            raise RuntimeError(f"undisturbed, lanit {line} ended with {outcome.code}: {outcome.last_line}")
        printed.append(said(outcome.stdout, folder))
        warnings.append(tuple(outcome.warnings))
    return Reference(tuple(printed), tuple(warnings), before, tree(folder))


_WITHOUT: dict[tuple[int, str, tuple[bool, ...]], Reference] = {}


def without_refused(world: World, reading: int, lines: list[str], refused: tuple[bool, ...]) -> Reference:
    """The reference of a trial in which commands were refused: later ones are to do what they do without those."""
    key = (reading, "\n".join(lines), refused)
    if key not in _WITHOUT:
        folder = world.trial(f"without-{reading}-{os.getpid()}-{len(_WITHOUT)}", READINGS[reading].parts)
        _WITHOUT[key] = undisturbed(folder, lines, tree(folder), refused)
        shutil.rmtree(folder)
    return _WITHOUT[key]


def is_unread(name: str) -> bool:
    """Files that are scratch, made anew by whoever runs next."""
    return name.endswith((".sqlite", ".sqlite-journal", ".sqlite-wal"))


def commands(reading: Reading, file: str) -> list[str]:
    match = re.fullmatch(reading.files, file)
    named = match.groupdict() if match else {}
    return [line.format(**named) for line in reading.commands]


def attempt(world: World, seed: int, references: list[dict[str, Reference]], trial: Trial) -> Result | None:
    """Damage the file, run what reads it, and judge; none where this kind of damage cannot be done to it."""
    reading = READINGS[trial.reading]
    chance = random.Random(f"{seed}/{trial.number}")
    folder = world.trial(f"trial-{trial.number}", reading.parts)
    other = world.root / f"counterpart-{trial.reading}"
    how = damage(folder / trial.file, trial.kind, chance, same_file_of(other, trial.file))
    if how is None:
        return None
    lines = commands(reading, trial.file)
    wanted = references[trial.reading]["\n".join(lines)]
    damaged = tree(folder)
    outcomes = [run(line, folder) for line in lines]
    refused = tuple(outcome.refused for outcome in outcomes)
    if any(refused) and not all(refused):
        wanted = without_refused(world, trial.reading, lines, refused)
    verdict, detail = judge(trial.file, lines, outcomes, wanted, damaged, folder)
    if verdict not in WRONG:
        shutil.rmtree(folder)
    return Result(trial, verdict, how, detail)


def judge(
    file: str, lines: list[str], outcomes: list[Outcome], wanted: Reference, damaged: Tree, folder: Path
) -> tuple[str, str]:
    """The verdict on a trial, and what led to it."""
    refused, told = "", False
    for number, (line, outcome) in enumerate(zip(lines, outcomes, strict=True)):
        if outcome.crashed:
            return "crashed", f"{line}: exit {outcome.code}, {outcome.last_line}"
        if outcome.refused:
            refused = refused or f"{line}: {outcome.last_line}"
        elif set(outcome.warnings) - set(wanted.warnings[number]):
            told = True
        elif "--json" in line and said(outcome.stdout, folder) != wanted.printed[number]:
            return "silently other", f"{line}: prints other results"
    after = tree(folder)
    wrong = []
    for entry in differences(after, wanted.after):
        name = entry.rpartition(" ")[0]
        untouched = after.get(name) == damaged.get(name)
        rebuilt = name == file and _CACHE.match(name)  # its bytes may be others: what is read from it counts
        if not (untouched and (name == file or refused)) and not rebuilt:
            wrong.append(entry)
    if not refused:  # else the next run removes them
        wrong += [f"{name} (left over)" for name in after if is_leftover(name) and name not in damaged]
    if wrong and not told:
        return "silently other", "; ".join(wrong[:3])
    if refused:
        return "refused", refused
    if told:
        return "told", "; ".join(wrong[:3])
    return ("same" if after.get(file) == damaged[file] else "made again"), ""


def run_part(world: World, seed: int, trials: int, jobs: int) -> bool:
    """Do at least ``trials``, print what became of them; whether lanit kept its promise in all."""
    for number, reading in enumerate(READINGS):
        world.trial(f"counterpart-{number}", reading.parts, "b")
    made = list(each(partial(reference, world), range(len(READINGS)), jobs, "references"))
    references = [found for _, found in made]
    files = [(reading, name) for reading, (names, _) in enumerate(made) for name in names]
    planned: list[Trial] = []
    for turn in range(-(-trials // len(files))):  # in four turns, each file is damaged in each way
        for at in random.Random(f"{seed}/{turn}").sample(range(len(files)), len(files)):
            planned.append(Trial(len(planned), KINDS[(turn + at) % len(KINDS)], *files[at]))
    done = each(partial(attempt, world, seed, references), planned[:trials], jobs, "corruptions")
    results = [result for result in done if result is not None]
    print(f"\n## Corruptions: {len(results)} in {len(files)} files, seed {seed}\n")
    print(table(["file", "trials", *VERDICTS], _rows(results)))
    for result in results:
        if result.verdict in WRONG:
            print(f"- {result.verdict}: trial {result.trial.number}, {result.trial.kind} of {result.trial.file} "
                  f"({READINGS[result.trial.reading].title}; {result.how}): {result.detail}")  # fmt: skip
    return not any(result.verdict in WRONG for result in results)


def _rows(results: list[Result]) -> list[list[object]]:
    def row(title: str, chosen: list[Result]) -> list[object]:
        counts = Counter(result.verdict for result in chosen)
        return [title, len(chosen), *(counts[verdict] for verdict in VERDICTS)]

    rows = [
        row(reading.title, [result for result in results if result.trial.reading == number])
        for number, reading in enumerate(READINGS)
    ]
    rows += [row(f"all, {kind}", [result for result in results if result.trial.kind == kind]) for kind in KINDS]
    return [*(entry for entry in rows if entry[1]), row("all", results)]
