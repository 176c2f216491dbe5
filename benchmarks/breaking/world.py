"""A small world that has every file lanit writes, made once; trials work on copies of its parts.

Below the folder of the world lie the users' own files (``faces/``, ``more/``, ``prompts.txt``, …), and beside them
``a/`` and ``b/``: two worlds of equal shape. A trial is a folder beside these: ``../faces`` is the same in each.
"""

from __future__ import annotations

import contextlib
import csv
import importlib
import inspect
import shutil
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.breaking.processes import must, start

_READY = "ready"
IMAGES, MORE, SIZE = 120, 12, 32
PROMPTS = ("smiling", "eyeglasses", "blond hair", "bald")
WORDS = (
    "hat",
    "beard",
    "glasses",
    "smile",
    "red hair",
    "black hair",
    "bangs",
    "young",
    "old",
    "pale",
    "dark",
    "bright",
)
TRAIN_PLAIN = (
    "train --preset small-32 --batch-size 4 --log-every 1 --sample-every 2 --set checkpoint_every=2"
    " --set evaluate_every=2 --set evaluate_images=4 --set channels=8 --set max_channels=32"
)
TRAIN = f"{TRAIN_PLAIN} --set prompts_from=0.5 --set refresh_every=1"
"""With learned prompts and the label revisions that they write."""
EVALUATE = "evaluate --sources 4 --styles 2 --guide latent --bootstrap 20 --json"
TRANSLATE = "translate ../faces --to smiling"
EXPORTS = {
    "csv": "--margins",
    "clip-retrieval": "",
    "webdataset": "--embeddings",
    "huggingface": "--embeddings",
    "folders": "",
}

_SMALL = {
    "pipeline.embedding.embed:EmbedOptions.part_rows": 32,
    "pipeline.store.image_cache:_CHUNK": 32,
    "pipeline.exports.image_files:_CHUNK": 16,
    "pipeline.translating.translation:TranslateOptions.part_images": 32,
}
"""Constants and defaults that decide how much is done at once, and what 120 images take for many parts."""


def shrink_parts() -> None:
    """Make commands of this process and its children work in small parts. RuntimeError where a constant has moved."""
    for place, value in _SMALL.items():
        module_name, name = place.split(":")
        try:
            module = importlib.import_module(module_name)
            owner, _, field = name.partition(".")
            found = getattr(module, owner)
        except (ImportError, AttributeError):
            raise RuntimeError(f"{place} has moved: name its new place in {__file__}") from None
        if field:
            _change_default(found.__init__, field, value)
        else:
            setattr(module, name, value)


def _change_default(function: Callable[..., None], name: str, value: int) -> None:
    parameters = inspect.signature(function).parameters.values()
    defaults = [(each.name, each.default) for each in parameters if each.default is not inspect.Parameter.empty]
    function.__defaults__ = tuple(value if key == name else old for key, old in defaults)


@dataclass(frozen=True)
class World:
    """root: holds the users' files, ``a/`` and ``b/``, and the folders of trials."""

    root: Path

    def trial(self, name: str, parts: Iterable[str], world: str = "a") -> Path:
        """A new folder beside the worlds with copies of ``parts`` of one."""
        folder = self.root / name
        shutil.rmtree(folder, ignore_errors=True)
        fill(folder, self.root / world, parts)
        return folder


def fill(folder: Path, origin: Path, parts: Iterable[str]) -> None:
    """Copy ``parts`` of the world ``origin`` into ``folder``, made where it is missing.

    ``half-…`` are copied under the name without it; ``s without index`` leaves that folder out.
    """
    folder.mkdir(exist_ok=True)
    for part in parts:
        name, _, left_out = part.partition(" without ")
        source = origin / name
        skip = shutil.ignore_patterns(left_out) if left_out else None
        if name == "half-export":
            shutil.copytree(source, folder, dirs_exist_ok=True)
        else:
            shutil.copytree(source, folder / name.removeprefix("half-").removeprefix("short-"), ignore=skip)


def build(root: Path) -> World:
    """Make the world, in about a minute of one core; one that is whole is used again."""
    if (root / _READY).is_file():
        return World(root)
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    (root / "prompts.txt").write_text("noun: face\n" + "\n".join(PROMPTS) + "\n", encoding="utf-8")
    (root / "others.txt").write_text("noun: face\nsmiling\nwearing hat\n", encoding="utf-8")
    partners = "".join(f"faces/face-{n:05d}.png,faces/face-{n + 1:05d}.png\n" for n in range(0, IMAGES - 1, 2))
    (root / "pairs.csv").write_text("image_path,target_path\n" + partners, encoding="utf-8")
    (root / "words.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    for name, seed, count in (("faces", 0, IMAGES), ("other", 1, IMAGES), ("more", 2, MORE)):
        must(f"sample-faces {name} --size {SIZE} --count {count} --seed {seed}", root)
    for name, faces in (("a", "faces"), ("b", "other")):
        (root / name).mkdir()
        _people(root / faces / "truth.csv", root / f"people-{faces}.csv")
        _store(root / name, faces)
    shutil.copytree(root / "a" / "s", root / "b" / "own")  # the store of b's run is a's: another run of the same shape
    for name, store, seed in (("a", "s", 0), ("b", "own", 5)):
        _run(root / name, store, seed)
    for name, faces in (("a", "faces"), ("b", "other")):
        _results(root / name)
        _unfinished(root / name, faces)
    for part in ("labels", "cache"):
        for path in (root / "b" / "own" / part).iterdir():
            if not (root / "b" / "s" / part / path.name).exists():
                shutil.copy(path, root / "b" / "s" / part)
    (root / _READY).touch()
    return World(root)


def _people(truth: Path, out: Path) -> None:
    """Labels by people of every other image."""
    with truth.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[::2]
    with out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "smiling", "bald"])
        writer.writerows([row["path"], row["smiling"], row["bald"]] for row in rows)


def _store(folder: Path, faces: str) -> None:
    for line in (
        f"embed ../{faces} --clip sample --store s",
        "label --prompts ../prompts.txt --store s",
        f"label --prompts ../prompts.txt --labels ../people-{faces}.csv --store s",
        "search smiling --store s",
        "suggest-prompts --store s",
    ):
        must(line, folder)


def _run(folder: Path, store: str, seed: int) -> None:
    """``short-run``, stopped by its steps at half of them, and ``run``, the same at its end, with the store of each."""
    own = folder / store
    train = f"{TRAIN} --store {store} --seed {seed} --revision 2 --out run"
    must(f"{train} --steps 2", folder)
    shutil.copytree(folder / "run", folder / "short-run")
    shutil.copytree(own, folder / "short-s")
    must(f"{train} --steps 4", folder)
    must(f"{EVALUATE} run --store {store}", folder)


def _results(folder: Path) -> None:
    must(f"{TRANSLATE} --model run --out out", folder)
    must("export-model run --out em", folder)
    for layout, options in EXPORTS.items():
        must(f"export --store s --to {layout} --out ex-{layout} {options}", folder)


def _unfinished(folder: Path, faces: str) -> None:
    """``half-s``, ``half-out`` and ``half-export``: what killed commands leave once some parts are there."""
    work = folder / "work"
    for part, needs, line, shows in (
        ("half-s", [], f"embed ../../{faces} --clip sample --store s", ("s/images/*.jsonl", 3)),
        ("half-out", ["run"], "translate ../../faces --to smiling --model run --out out", ("out/.*/part-*", 2)),
        ("half-export", ["s"], "export --to folders --store s --out ex", (".*/*/*.png", 40)),
    ):
        for _ in range(20):
            shutil.rmtree(work, ignore_errors=True)
            fill(work, folder, needs)
            if _killed_when(line, work, *shows):
                break
        else:
            raise RuntimeError(f"lanit {line} was never caught half done")
        for need in needs:
            shutil.rmtree(work / need)
        shutil.move(work if part == "half-export" else work / part.removeprefix("half-"), folder / part)
    shutil.rmtree(work, ignore_errors=True)


def _killed_when(line: str, folder: Path, pattern: str, count: int) -> bool:
    """Kill a command once files of ``pattern``, or the lines of the only one, are ``count``; False where it ended."""
    running = start(line, folder)
    while running.alive:
        found = list(folder.glob(pattern))
        with contextlib.suppress(OSError):
            lines = found[0].read_bytes().count(b"\n") if pattern.endswith(".jsonl") and found else 0
        if max(len(found), lines) >= count:
            running.kill()
            return running.wait().code == -signal.SIGKILL
        time.sleep(0.001)
    return False
