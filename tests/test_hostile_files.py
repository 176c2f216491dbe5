"""A folder of hostile files: each is decoded or refused in one line, soon and in bounds; all good ones are decoded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.inputs.opening import open_inputs
from tests.hostile_files import make_hostile_folder

ROOT = Path(__file__).parent.parent
SECONDS = 60  # for one file, on a busy machine
MEGABYTES = 600  # of memory more than before; the largest good picture takes 150

DECODE_ALL = """
import faulthandler, json, resource, sys, time
from pathlib import Path
from lanit.preprocessing import ClipPreprocessing
from pipeline.decoding.clip_input import decode_for_clip
from pipeline.decoding.images import decode_rgb, read_image_bytes
from pipeline.decoding.limits import ImageError

folder, names = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())
clip = ClipPreprocessing(64, (0.5,) * 3, (0.5,) * 3)

def outcome(read):
    try:
        return ["ok", list(read())]
    except ImageError as error:
        return ["bad", error.reason]
    except Exception as error:
        return ["another exception", repr(error)]

def for_clip(path):
    decoded = decode_for_clip(read_image_bytes(path), clip)
    assert decoded.pixels.shape == (3, 64, 64), decoded.pixels.shape
    return decoded.width, decoded.height

def as_rgb(path):
    height, width, colours = decode_rgb(path).shape
    assert colours == 3
    return width, height

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
results = {}
for name in names:
    print(ascii(name), flush=True)
    faulthandler.dump_traceback_later(float(sys.argv[4]), exit=True)
    results[name] = [outcome(lambda: for_clip(folder / name)), outcome(lambda: as_rgb(folder / name))]
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
Path(sys.argv[3]).write_text(json.dumps({"results": results, "megabytes": grown}))
"""


@dataclass(frozen=True)
class Outcome:
    """verdicts: by name. results: by name, status and size or reason, for CLIP and as RGB."""

    folder: Path
    verdicts: dict[str, str]
    results: dict[str, list[tuple[str, object]]]
    megabytes: float
    stderr: str
    started: bool


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """All files decoded in one process, which ends with a traceback where a file takes too long."""
    place = tmp_path_factory.mktemp("hostile")
    folder, names, out, started = (place / name for name in ("files", "names.json", "out.json", "started"))
    verdicts = make_hostile_folder(folder)
    names.write_text(json.dumps(sorted(verdicts)))
    programs = place / "programs"
    programs.mkdir()
    (programs / "gs").write_text(f"#!/bin/sh\ntouch '{started}'\n")
    (programs / "gs").chmod(0o755)
    run = subprocess.run(
        [sys.executable, "-c", DECODE_ALL, folder, names, out, str(SECONDS)],
        cwd=ROOT,
        env=os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, f"{run.stdout.splitlines()[-1:]}\n{run.stderr[-2000:]}"
    document = json.loads(out.read_text())
    return Outcome(folder, dict(verdicts), document["results"], document["megabytes"], run.stderr, started.exists())


def test_there_are_many_kinds_and_an_input_of_the_folder_has_each(outcome: Outcome) -> None:
    assert len(outcome.verdicts) > 300
    (folder,) = open_inputs([outcome.folder])
    assert {place.path for place in folder.places()} == set(outcome.verdicts)


def test_each_file_becomes_what_it_should(outcome: Outcome) -> None:
    """Both ways to decode say the same."""
    wrong = []
    for name, verdict in outcome.verdicts.items():
        for status, detail in outcome.results[name]:
            if status not in (("ok", "bad") if verdict == "either" else (verdict,)):
                wrong.append(f"{name!r} should be {verdict}: {status}, {detail}")
        if outcome.results[name][0] != outcome.results[name][1] and outcome.results[name][0][0] == "ok":
            wrong.append(f"{name!r}: {outcome.results[name]}")
    assert not wrong, "\n".join(wrong)


def test_each_refusal_has_a_reason_of_one_line(outcome: Outcome) -> None:
    refused = {name: results[0][1] for name, results in outcome.results.items() if results[0][0] == "bad"}
    assert len(refused) > 100
    for name, reason in refused.items():
        assert isinstance(reason, str)
        assert 5 < len(reason) < 400, name
        assert reason.isprintable(), name


def test_the_good_neighbours_are_all_decoded(outcome: Outcome) -> None:
    good = [name for name in outcome.verdicts if name.startswith("good-")]
    assert len(good) > 10
    assert all(outcome.results[name][0] == ["ok", [50 + int(name[5:7]), 44]] for name in good)


def test_memory_stays_within_bounds_and_nothing_else_is_said_or_started(outcome: Outcome) -> None:
    """Libraries print no warnings of their own into the progress, and no PostScript runs."""
    assert outcome.megabytes < MEGABYTES
    assert outcome.stderr == ""
    assert not outcome.started
