"""Every command that writes, on the parts of the world that it needs."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.breaking.world import EVALUATE, EXPORTS, TRAIN, TRAIN_PLAIN, TRANSLATE

_TRAIN_ON = f"{TRAIN} --store s --revision 2 --out run --steps 4"
_TRAIN_NEW = f"{TRAIN_PLAIN} --store s --revision 2 --out new --steps 2"
_TRANSLATE = f"{TRANSLATE} --model run --out out"
_OTHER = "translate ../more --model run --to bald --out out --overwrite"


@dataclass(frozen=True)
class Writing:
    """A command. parts: of the world, copied to where it runs; repeats: the same command later finds nothing to say
    against its own result."""

    title: str
    parts: tuple[str, ...]
    line: str
    repeats: bool = True


WRITING = [
    Writing("embed", (), "embed ../faces --clip sample --store s"),
    Writing("embed, more", ("s",), "embed ../faces ../more --store s"),
    Writing("embed --overwrite", ("s",), "embed ../more --clip sample --overwrite --store s"),
    Writing("import", ("ex-clip-retrieval",), "import ex-clip-retrieval ../faces --clip sample --store n"),
    Writing("label", ("s",), "label --prompts ../others.txt --store s"),
    Writing(
        "label --labels", ("s",), "label --prompts ../prompts.txt --rule argmax --labels ../people-faces.csv --store s"
    ),
    Writing("label --clusters", ("s",), "label --clusters 4 --store s"),
    Writing("pair", ("s",), "pair ../pairs.csv --store s"),
    Writing("index", ("s",), "index --kind ivf --store s"),
    Writing("search, no index", ("s without index",), "search smiling --store s --html page.html"),
    Writing("inspect-labels --html", ("s",), "inspect-labels --compare 1 2 --csv flips.csv --html page.html --store s"),
    Writing("suggest-prompts --html", ("s without cache",), "suggest-prompts --html page.html --store s"),
    Writing("duplicates --csv", ("s",), "duplicates --csv table.csv --html page.html --store s"),
    Writing("train", ("s without cache",), _TRAIN_NEW),
    Writing("train, continued", ("short-s", "short-run"), _TRAIN_ON),
    Writing("translate", ("run",), _TRANSLATE),
    Writing(
        "translate --overwrite",
        ("run", "out"),
        "translate ../faces --model run --to bald --styles 2 --out out --overwrite",
    ),
    *(
        Writing(f"export {layout}", ("s",), f"export --store s --to {layout} --out ex {options}")
        for layout, options in EXPORTS.items()
    ),
    Writing("export --overwrite", ("s", "ex-csv"), "export --store s --to folders --out ex-csv --overwrite"),
    Writing("export-model", ("run",), "export-model run --out em", repeats=False),
    Writing("export-model --overwrite", ("run", "em"), "export-model run/best --out em --half --overwrite"),
    Writing("evaluate", ("s without cache", "run"), f"{EVALUATE} run --store s --html page.html"),
    Writing("sample-faces", (), "sample-faces drawn --size 32 --count 60", repeats=False),
    Writing("pull", (), "pull someone/model --out pulled", repeats=False),
]


@dataclass(frozen=True)
class Meeting:
    """Two commands that can meet: lines of lanit, on ``parts`` of the world."""

    parts: tuple[str, ...]
    first: str
    second: str


def meetings() -> list[Meeting]:
    """Every pair of commands that write into one folder, or read there what the other writes."""
    store = [
        "embed ../faces ../more --store s",
        "label --prompts ../others.txt --store s",
        "label --prompts ../prompts.txt --rule argmax --labels ../people-faces.csv --store s",
        "index --kind ivf --store s",
        "search smiling --store s",
        "suggest-prompts --store s",
        _TRAIN_NEW,
        f"{EVALUATE} run --store s",
    ]
    run = [_TRAIN_ON, f"{EVALUATE} run --store s", "export-model run --out em", f"{_OTHER} --seed 4"]
    out = [
        "export --store s --to csv --out x",
        "export --store s --to folders --out x",
        "translate ../faces --model run --to smiling --out x",
        "translate ../more --model run --to bald --out x",
        "export-model run --out x",
        "sample-faces x --size 32 --count 60",
        "pull someone/model --out x",
    ]
    fresh = "embed ../faces --clip sample --store s"
    found = [Meeting((), fresh, fresh), Meeting((), fresh, "embed ../more --clip sample --store s")]
    for parts, lines in ((("s without index", "run"), store), (("s", "run"), out)):
        found += [Meeting(parts, one, two) for number, one in enumerate(lines) for two in lines[number:]]
    for two in run:
        found.append(Meeting(("short-s", "short-run"), _TRAIN_ON, two))
    for parts, line in (
        (("run", "out"), _OTHER),
        (("s", "ex-csv"), "export --store s --to folders --out ex-csv --overwrite"),
        (("run", "em"), "export-model run/best --out em --half --overwrite"),
    ):
        found.append(Meeting(parts, line, line))
    return found
