"""`lanit embed` on a folder of hostile files: no crash, every file accounted for, all the good ones embedded."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.clip.models import ClipModel
from pipeline.embedding.embed import EmbedOptions, embed
from pipeline.files import storable
from pipeline.store.store import Store
from tests.hostile_files import make_hostile_folder


def test_every_hostile_file_is_accounted_for_and_its_neighbours_are_embedded(
    tiny_clip: ClipModel, tmp_path: Path
) -> None:
    verdicts = make_hostile_folder(tmp_path / "files")
    assert len(verdicts) > 60
    report = embed([tmp_path / "files"], tmp_path / "store", tiny_clip, EmbedOptions(batch_size=16))
    assert report.found == len(verdicts) == report.ok + report.failed
    rows = Store.open(tmp_path / "store").images(["path", "status", "error_message", "embedding"]).to_pylist()
    found = {row["path"]: row for row in rows}
    for name, verdict in verdicts.items():
        row = found[storable(name)]
        if verdict != "either":
            assert row["status"] == {"ok": "ok", "bad": "failed"}[verdict], (name, row["error_message"])
        assert (row["embedding"] is None) == (row["status"] == "failed") == (row["error_message"] is not None)
        if row["error_message"] is not None:
            assert re.fullmatch(r"[^\n]{3,500}", row["error_message"]), (name, row["error_message"])
    again = embed([tmp_path / "files"], tmp_path / "store", tiny_clip, EmbedOptions(batch_size=16))
    assert (again.ok, again.skipped, again.failed) == (0, report.ok, report.failed)
